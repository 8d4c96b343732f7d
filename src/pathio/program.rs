//! Reads the output of a program of the host, by a loop that returns errors. The standard library's
//! `Command::output` panics if a read fails.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Runs a program without input and reads its standard output, at most `max_bytes`. Drops its
/// standard error.
///
/// # Errors
/// The kernel's; `FileTooLarge` when there is more.
pub fn stdout_of(command: &mut Command, max_bytes: u64) -> io::Result<(ExitStatus, Vec<u8>)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let stream = child.stdout.take();
    finish(child, stream, max_bytes)
}

/// Runs a program like [`stdout_of`], but reads its standard error and drops its standard output.
///
/// # Errors
/// Those of [`stdout_of`].
pub fn stderr_of(command: &mut Command, max_bytes: u64) -> io::Result<(ExitStatus, Vec<u8>)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stream = child.stderr.take();
    finish(child, stream, max_bytes)
}

fn finish(
    mut child: Child,
    stream: Option<impl Read>,
    max_bytes: u64,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    let read = stream.map_or(Ok(Vec::new()), |stream| read_bounded(stream, max_bytes));
    if read.is_err() {
        // Fails only if it has ended already.
        drop(child.kill());
    }
    let status = child.wait();
    Ok((status?, read?))
}

fn read_bounded(stream: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        #[expect(clippy::disallowed_methods, reason = "a program to be read")]
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn each_stream_is_read_alone() {
        let script = "echo out; echo err >&2; cat; exit 3";
        let (status, bytes) = stdout_of(&mut shell(script), 100).unwrap();
        assert_eq!((status.code(), &*bytes), (Some(3), &b"out\n"[..]));
        let (status, bytes) = stderr_of(&mut shell(script), 100).unwrap();
        assert_eq!((status.code(), &*bytes), (Some(3), &b"err\n"[..]));
    }

    #[test]
    fn endless_output_is_an_error() {
        let read = stdout_of(&mut shell("while :; do echo y; done"), 1000);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
