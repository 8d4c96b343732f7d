//! Attaches the user's terminal, or standard streams, to a command in a step's root file system. The
//! command has a terminal of its own: keys are passed there, and its output here.

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::SIGWINCH;

use crate::cli::environment::Environment;
use crate::executor::{CancelSwitch, SessionIo, Stream};

use super::raw_mode::RawMode;

/// Values of TERM that programs of most images support.
const KNOWN: [&str; 12] = [
    "dumb",
    "linux",
    "rxvt",
    "screen",
    "screen-256color",
    "tmux",
    "tmux-256color",
    "vt100",
    "vt220",
    "xterm",
    "xterm-color",
    "xterm-256color",
];

/// Attaches standard input, and `shown` for output, while `enter` runs.
///
/// # Errors
/// If standard input is not a terminal.
pub(crate) fn attach_terminal<T>(
    environment: &Environment,
    shown: &mut dyn Write,
    enter: impl FnOnce(SessionIo<'_>) -> T,
) -> io::Result<T> {
    let stdin = io::stdin();
    let sizes = SizeChanges::watch()?;
    let raw = RawMode::set()?;
    let mut last = b'\n';
    let mut show = |_stream, bytes: &[u8]| {
        last = bytes.last().copied().unwrap_or(last);
        // The terminal was closed: that ends the command, too.
        let _shown = shown.write_all(bytes).and_then(|()| shown.flush());
    };
    let env = vec![("TERM".to_owned(), term(environment).to_owned())];
    let resized = Some(sizes.woken.as_fd());
    let done = enter(SessionIo { input: stdin.as_fd(), resized, env, show: &mut show });
    drop(raw);
    if last != b'\n' {
        let _shown = shown.write_all(b"\n");
    }
    Ok(done)
}

/// Attaches standard input, output and error while `enter` runs. A closed output ends the command.
pub(crate) fn attach_streams<T>(stop: &CancelSwitch, enter: impl FnOnce(SessionIo<'_>) -> T) -> T {
    let stdin = io::stdin();
    let mut show = |stream, bytes: &[u8]| {
        let written = match stream {
            Stream::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Stderr => io::stderr().write_all(bytes),
        };
        if written.is_err() {
            stop.interrupt();
        }
    };
    enter(SessionIo { input: stdin.as_fd(), resized: None, env: Vec::new(), show: &mut show })
}

/// Returns the value of TERM for the command.
fn term(environment: &Environment) -> &str {
    let term = environment.get("TERM").filter(|term| KNOWN.contains(term));
    term.unwrap_or("xterm-256color")
}

/// Becomes readable whenever the size of the terminal changes.
struct SizeChanges {
    woken: UnixStream,
    handler: SigId,
}

impl SizeChanges {
    fn watch() -> io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let handler = signal_hook::low_level::pipe::register(SIGWINCH, waker)?;
        Ok(Self { woken, handler })
    }
}

impl Drop for SizeChanges {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.handler);
    }
}
