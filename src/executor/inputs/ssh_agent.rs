//! `RUN --mount=type=ssh`: a socket for the step, behind which the caller's agent answers.
//!
//! If the caller gave key files, rbuild itself is the agent. A step may list keys and request
//! signatures. All other requests (adding, removing, locking keys) are refused here: a hostile step
//! must not take the caller's keys away.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;

use crate::limits::{MAX_AGENT_CONNECTIONS, MAX_AGENT_MESSAGE_BYTES};
use crate::pool;

use super::ssh_key::{self, SshKey, SshReader};
use crate::executor::AgentSource;

/// `SSH_AGENTC_REQUEST_IDENTITIES` (draft-miller-ssh-agent, "Message numbers").
const LIST: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST` (draft-miller-ssh-agent, "Message numbers").
const SIGN: u8 = 13;
/// `SSH_AGENT_IDENTITIES_ANSWER` (draft-miller-ssh-agent, "Message numbers").
const KEYS: u8 = 12;
/// `SSH_AGENT_SIGN_RESPONSE` (draft-miller-ssh-agent, "Message numbers").
const SIGNATURE: u8 = 14;
/// `SSH_AGENT_FAILURE` as a whole message (draft-miller-ssh-agent, "Message numbers").
const FAILURE: &[u8] = &[5];

/// Pause before an agent with the maximum number of connections checks again.
const FULL_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The agents of one step. They end when this value is dropped.
#[derive(Debug, Default)]
pub(in crate::executor) struct Agents {
    /// Write ends of pipes; closing one ends its listener.
    ends: Vec<OwnedFd>,
}

impl Agents {
    /// Answers at the socket `name` in `directory` until the step has ended.
    pub(in crate::executor) fn listen(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &str,
        source: &AgentSource,
    ) -> io::Result<()> {
        // A socket's path has at most 108 bytes (unix(7)). By descriptor it is short wherever the
        // store is.
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let (ended, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        self.ends.push(end);
        let source = source.clone();
        pool::background(move || serve(&listener, &ended, &source))
    }
}

fn serve(listener: &UnixListener, ended: &OwnedFd, source: &AgentSource) {
    let connections = Arc::new(());
    loop {
        // Each connection has a clone. Those beyond the bound wait in the socket's queue.
        let is_full = Arc::strong_count(&connections) > MAX_AGENT_CONNECTIONS;
        let flags = if is_full { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), flags),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        let pause = is_full.then_some(&FULL_PAUSE);
        let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, pause));
        let [_, end] = &fds;
        if polled.is_err() || !end.revents().is_empty() {
            return;
        }
        if is_full {
            continue;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        // Without a thread the client's connection is closed; the build itself goes on.
        let served = (stream, source.clone(), Arc::clone(&connections));
        let _started = pool::background_with(served, |(stream, source, connection)| {
            let _done = converse(stream, &source);
            drop(connection);
        });
    }
}

fn converse(mut client: UnixStream, source: &AgentSource) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut agent = match source {
        AgentSource::Socket(path) => Some(UnixStream::connect(path)?),
        AgentSource::Keys(_) => None,
    };
    while let Some(request) = read_message(&mut client)? {
        let answer = match (request.first(), source, &mut agent) {
            (Some(&(LIST | SIGN)), AgentSource::Keys(keys), _) => answer(&request, keys),
            (Some(&(LIST | SIGN)), AgentSource::Socket(_), Some(agent)) => {
                write_message(agent, &request)?;
                read_message(agent)?
            }
            _ => None,
        };
        write_message(&mut client, answer.as_deref().unwrap_or(FAILURE))?;
    }
    Ok(())
}

/// Returns the answer of an agent with `keys`; `None` for a failure.
fn answer(request: &[u8], keys: &[SshKey]) -> Option<Vec<u8>> {
    let (kind, body) = request.split_first()?;
    if *kind == LIST {
        let mut answer = vec![KEYS];
        answer.extend(u32::try_from(keys.len()).ok()?.to_be_bytes());
        for key in keys {
            answer.extend(ssh_key::string(key.blob()));
            answer.extend(ssh_key::string(key.comment()));
        }
        return Some(answer);
    }
    let mut body = SshReader(body);
    let (blob, data) = (body.string().ok()?, body.string().ok()?);
    let flags = body.number().ok()?;
    let key = keys.iter().find(|key| key.blob() == blob)?;
    let signature = key.sign(data, flags)?;
    Some([vec![SIGNATURE], ssh_key::string(&signature)].concat())
}

/// Reads the next message; `None` at the end of the connection.
fn read_message(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let length = u32::from_be_bytes(length);
    if length == 0 || length > MAX_AGENT_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests open their own files")]

    use std::time::Duration;

    use super::*;

    /// Requests the keys; returns whether there was an answer in time.
    fn is_answered(stream: &mut UnixStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        write_message(stream, &[LIST]).unwrap();
        read_message(stream).is_ok_and(|answer| answer == Some(vec![KEYS, 0, 0, 0, 0]))
    }

    #[test]
    fn connections_beyond_the_bound_wait_for_one_that_ends() {
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(directory.path()).unwrap();
        let mut agents = Agents::default();
        agents.listen(open.as_fd(), "agent", &AgentSource::Keys(Vec::new().into())).unwrap();
        let connect = || UnixStream::connect(directory.path().join("agent")).unwrap();
        let mut served: Vec<UnixStream> = (0..MAX_AGENT_CONNECTIONS).map(|_| connect()).collect();
        assert!(served.iter_mut().all(is_answered));
        let mut waiting = connect();
        assert!(!is_answered(&mut waiting));
        served.pop();
        waiting.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(read_message(&mut waiting).unwrap(), Some(vec![KEYS, 0, 0, 0, 0]));
    }
}
