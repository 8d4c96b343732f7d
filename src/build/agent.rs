//! `RUN --mount=type=ssh`: a socket for the step, behind which the caller's agent answers.
//!
//! Where the caller gave key files, rbuild itself is the agent. A step may list keys and have things signed. All else that an agent can do (adding, removing,
//! locking) is refused here: a hostile step must not take the caller's keys away.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;

use crate::limits::MAX_AGENT_MESSAGE_BYTES;
use crate::pool;

use super::AgentSource;
use super::ssh_key::{self, Reader, SshKey};

/// `SSH_AGENTC_REQUEST_IDENTITIES` (draft-miller-ssh-agent, section 7.1).
const LIST: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`.
const SIGN: u8 = 13;
/// `SSH_AGENT_IDENTITIES_ANSWER`.
const KEYS: u8 = 12;
/// `SSH_AGENT_SIGN_RESPONSE`.
const SIGNATURE: u8 = 14;
/// `SSH_AGENT_FAILURE`, as a whole message.
const FAILURE: &[u8] = &[5];

/// The agents of one step; they end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Closing one ends its listener.
    ends: Vec<OwnedFd>,
}

impl Agents {
    /// Answers at the socket `name` in `folder` until the step has ended.
    pub(super) fn listen(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &str,
        source: &AgentSource,
    ) -> io::Result<()> {
        // A socket's path has little room: by descriptor it is short wherever the store is.
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let (ended, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        self.ends.push(end);
        let source = source.clone();
        pool::background(move || serve(&listener, &ended, &source));
        Ok(())
    }
}

fn serve(listener: &UnixListener, ended: &OwnedFd, source: &AgentSource) {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None));
        let [_, end] = &fds;
        if polled.is_err() || !end.revents().is_empty() {
            return;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let source = source.clone();
        pool::background(move || {
            // Whoever asks sees the connection end; the build itself has lost nothing.
            let _done = converse(stream, &source);
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

/// What an agent of `keys` says; `None` is a failure.
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
    let mut body = Reader(body);
    let (blob, data) = (body.string().ok()?, body.string().ok()?);
    let flags = body.number().ok()?;
    let key = keys.iter().find(|key| key.blob() == blob)?;
    let signature = key.sign(data, flags)?;
    Some([vec![SIGNATURE], ssh_key::string(&signature)].concat())
}

/// The next message; `None` when there is none.
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
