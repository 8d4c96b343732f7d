//! The streams of a command: pipes or a terminal, and the loop that serves them until it has ended.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Gid, Signal, Uid};

use super::devices::NULL;
use super::error::SandboxError;
use super::memory_directory::MemoryLimit;
use super::process_tree;
use super::report::Report;
use super::spec::{Exit, Output, Streams};
use super::step_process::StepProcess;
use super::terminal::Terminal;

/// Maximum number of bytes read at once: the default capacity of a pipe (pipe(7)).
const CHUNK_BYTES: usize = 64 << 10;

/// A pipe whose end in rbuild never blocks.
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// Creates a pipe that never blocks its reader.
pub(super) fn pipe() -> Result<Pipe, SandboxError> {
    let pipe = blocking_pipe()?;
    set_nonblocking(&pipe.read)?;
    Ok(pipe)
}

fn blocking_pipe() -> Result<Pipe, SandboxError> {
    let made = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (read, write) = made.map_err(|errno| SandboxError::setup("create a pipe", errno))?;
    Ok(Pipe { read, write })
}

fn set_nonblocking(end: &OwnedFd) -> Result<(), SandboxError> {
    rustix::io::ioctl_fionbio(end, true)
        .map_err(|errno| SandboxError::setup("create a pipe", errno))
}

/// The connections of a command to its caller while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions<'a> {
    /// Kills the command when it becomes readable; the result is then
    /// [`Exit::Signal`] with 9.
    pub cancel: Option<BorrowedFd<'a>>,
    /// The command's input, unless its streams are [`Streams::Output`]. If the command has a
    /// terminal, this is the caller's, in raw mode, so every key is forwarded as it is typed
    /// (termios(3)).
    pub input: Option<BorrowedFd<'a>>,
    /// Becomes readable when the caller's terminal changes its size; must not block.
    pub resized: Option<BorrowedFd<'a>>,
    /// Kills the command when its changes take more memory; the result is then
    /// [`SandboxError::MemoryLimit`].
    pub memory: Option<MemoryLimit<'a>>,
    /// Kills the command at this time; the result is then [`SandboxError::TimedOut`].
    pub deadline: Option<Instant>,
    /// Receives the command line of the process that ran last, if the command is killed because of
    /// `cancel` or `deadline`: words that end with a null byte each.
    pub last_process: Option<&'a OnceLock<Vec<u8>>>,
}

/// The child's ends of its pipes, sockets and terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChildEnds<'a> {
    pub(super) status: BorrowedFd<'a>,
    /// The socket that receives the mount namespace, if it is to be kept.
    pub(super) keep: Option<BorrowedFd<'a>>,
    /// `None` connects the null device.
    pub(super) stdin: Option<BorrowedFd<'a>>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
}

impl ChildEnds<'_> {
    /// Makes them the standard streams of the calling child; without an input, the null device of
    /// `root` is used. Allocates nothing.
    pub(super) fn connect(
        self,
        root: BorrowedFd<'_>,
        uid: Uid,
        gid: Gid,
    ) -> rustix::io::Result<()> {
        for end in [self.stdout, self.stderr].into_iter().chain(self.stdin) {
            // The user must be able to reopen `/dev/stdout`. Best effort, as in runc.
            let _ = rustix::fs::fchown(end, Some(uid), Some(gid));
        }
        rustix::stdio::dup2_stdout(self.stdout)?;
        rustix::stdio::dup2_stderr(self.stderr)?;
        if let Some(stdin) = self.stdin {
            return rustix::stdio::dup2_stdin(stdin);
        }
        rustix::stdio::dup2_stdin(null_device(root)?)
    }
}

/// Opens `/dev/null` of `root`, and nothing else that may be there.
fn null_device(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    // A FIFO must not make the child wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, c"/dev/null", flags, Mode::empty(), within)?;
    let about = rustix::fs::fstat(&file)?;
    let (major, minor) = NULL.number;
    let is_null = FileType::from_raw_mode(about.st_mode).is_char_device()
        && about.st_rdev == rustix::fs::makedev(major, minor);
    if is_null { Ok(file) } else { Err(Errno::NODEV) }
}

/// rbuild's side of a command's streams.
pub(super) enum CommandStreams {
    Pipes { stdin: Option<Pipe>, stdout: Pipe, stderr: Pipe },
    Terminal(Terminal),
}

impl CommandStreams {
    pub(super) fn new(
        streams: Streams,
        input: Option<BorrowedFd<'_>>,
    ) -> Result<Self, SandboxError> {
        let stdin = match streams {
            Streams::Output => None,
            Streams::Pipes => {
                let pipe = blocking_pipe()?;
                set_nonblocking(&pipe.write)?;
                Some(pipe)
            }
            Streams::Terminal => {
                let terminal = input.ok_or(Errno::NOTTY).and_then(Terminal::modelled_on);
                return terminal
                    .map(Self::Terminal)
                    .map_err(|errno| SandboxError::setup("open a terminal", errno));
            }
        };
        Ok(Self::Pipes { stdin, stdout: pipe()?, stderr: pipe()? })
    }

    pub(super) const fn terminal(&self) -> Option<&Terminal> {
        match self {
            Self::Pipes { .. } => None,
            Self::Terminal(terminal) => Some(terminal),
        }
    }

    /// Returns the child's ends, with the status pipe and the socket for kept mounts.
    pub(super) fn ends<'a>(
        &'a self,
        status: BorrowedFd<'a>,
        keep: Option<BorrowedFd<'a>>,
    ) -> ChildEnds<'a> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => ChildEnds {
                status,
                keep,
                stdin: stdin.as_ref().map(|pipe| pipe.read.as_fd()),
                stdout: stdout.write.as_fd(),
                stderr: stderr.write.as_fd(),
            },
            Self::Terminal(Terminal { own, .. }) => ChildEnds {
                status,
                keep,
                stdin: Some(own.as_fd()),
                stdout: own.as_fd(),
                stderr: own.as_fd(),
            },
        }
    }

    /// Forwards output and input until the command has ended. Consumes the child's ends and closes
    /// them: open, they would keep the pipes from reaching end of file.
    pub(super) fn attend(
        self,
        status: OwnedFd,
        step: &StepProcess,
        attach: AttachOptions<'_>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> rustix::io::Result<AttachResult> {
        let status = OutputStream::new(status, None);
        let (streams, sink, terminal) = match self {
            Self::Pipes { stdin, stdout, stderr } => {
                let stdout = OutputStream::new(stdout.read, Some(Output::Stdout));
                let stderr = OutputStream::new(stderr.read, Some(Output::Stderr));
                (vec![status, stdout, stderr], stdin.map(|pipe| pipe.write), None)
            }
            Self::Terminal(terminal) => {
                let copy = || rustix::io::fcntl_dupfd_cloexec(&terminal.controller, 3);
                let shown = OutputStream::new(copy()?, Some(Output::Stdout));
                (vec![status, shown], Some(copy()?), Some(terminal))
            }
        };
        let feed = attach.input.zip(sink).map(|(from, to)| InputForwarder::new(from, to));
        AttachedCommand { step, streams, feed, terminal, attach }.until_it_ends(on_output)
    }
}

/// The events until a command ended, besides its output.
pub(super) struct AttachResult {
    /// The child's report, if it could not execute the command.
    pub(super) report: Option<Report>,
    /// The cause if rbuild killed the command: a key such as Ctrl-C, or its use of memory.
    pub(super) killed: Option<KillCause>,
}

/// The cause for which rbuild killed a command, besides cancellation.
#[derive(Debug, Clone, Copy)]
pub(super) enum KillCause {
    Key,
    Memory { max_bytes: u64 },
    Deadline,
}

impl KillCause {
    /// Returns the result of the command.
    pub(super) const fn result(self) -> Result<Exit, SandboxError> {
        match self {
            Self::Key => Ok(Exit::Signal(Signal::INT.as_raw())),
            Self::Memory { max_bytes } => Err(SandboxError::MemoryLimit { max_bytes }),
            Self::Deadline => Err(SandboxError::TimedOut),
        }
    }
}

/// Interval in which the use of memory is looked at. A command fills some 100 MB meanwhile.
const MEMORY_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// rbuild's end of a stream that the command, or its child's setup, writes to.
struct OutputStream {
    /// `None` after end of file.
    from: Option<OwnedFd>,
    /// The kind of output; `None` for the status pipe.
    output: Option<Output>,
}

impl OutputStream {
    const fn new(from: OwnedFd, output: Option<Output>) -> Self {
        Self { from: Some(from), output }
    }

    /// Reads the bytes that are available now.
    fn drain(
        &mut self,
        chunk: &mut [u8],
        report: &mut Option<Report>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> rustix::io::Result<()> {
        while let Some(from) = &self.from {
            let bytes = match rustix::io::read(from, &mut *chunk) {
                Ok(len) => chunk.get(..len).unwrap_or_default(),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                // No process has the terminal open any more.
                Err(Errno::IO) => &[],
                Err(errno) => return Err(errno),
            };
            match (bytes, self.output) {
                ([], _) => self.from = None,
                (bytes, Some(output)) => on_output(output, bytes),
                (bytes, None) => *report = Report::from_bytes(bytes),
            }
        }
        Ok(())
    }
}

/// Forwards input as fast as the command reads it.
struct InputForwarder<'a> {
    /// `None` after the end of the input.
    from: Option<BorrowedFd<'a>>,
    /// `None` after all input is written, or when the command has closed its input.
    to: Option<OwnedFd>,
    /// Bytes that were read and not yet written.
    pending: Vec<u8>,
}

impl<'a> InputForwarder<'a> {
    const fn new(from: BorrowedFd<'a>, to: OwnedFd) -> Self {
        Self { from: Some(from), to: Some(to), pending: Vec::new() }
    }

    /// Returns the descriptor and the event to wait for.
    fn poll_target(&self) -> Option<PollFd<'_>> {
        let to = self.to.as_ref()?;
        if !self.pending.is_empty() {
            return Some(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
        }
        self.from.map(|from| PollFd::from_borrowed_fd(from, PollFlags::IN))
    }

    /// Reads and writes once the awaited event has come; returns the bytes read.
    fn forward<'c>(&mut self, chunk: &'c mut [u8]) -> &'c [u8] {
        let n_read = self.read(chunk);
        self.write();
        chunk.get(..n_read).unwrap_or_default()
    }

    fn read(&mut self, chunk: &mut [u8]) -> usize {
        if self.pending.is_empty()
            && let Some(from) = self.from
        {
            match rustix::io::read(from, &mut *chunk) {
                Ok(len @ 1..) => {
                    self.pending.extend(chunk.iter().take(len));
                    return len;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // End of file; a read error only ends the input, not the command.
                Ok(0) | Err(_) => (self.from, self.to) = (None, None),
            }
        }
        0
    }

    fn write(&mut self) {
        let Some(to) = &self.to else { return };
        match rustix::io::write(to, &self.pending) {
            Ok(len) => drop(self.pending.drain(..len.min(self.pending.len()))),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_closed_by_command) => (self.from, self.to) = (None, None),
        }
    }
}

/// A running command and its connections.
struct AttachedCommand<'a> {
    step: &'a StepProcess,
    streams: Vec<OutputStream>,
    feed: Option<InputForwarder<'a>>,
    terminal: Option<Terminal>,
    attach: AttachOptions<'a>,
}

/// The reasons for which poll(2) returned, besides output.
#[derive(Default)]
struct WakeReasons {
    ended: bool,
    cancelled: bool,
    resized: bool,
    fed: bool,
}

impl AttachedCommand<'_> {
    fn until_it_ends(
        mut self,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> rustix::io::Result<AttachResult> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut report, mut killed) = (None, None);
        loop {
            let ready = self.poll()?;
            if ready.cancelled {
                self.note_last_process();
                self.step.kill();
                self.attach.cancel = None;
            }
            if ready.resized {
                self.resize();
            }
            if let Some(feed) = self.feed.as_mut().filter(|_| ready.fed) {
                let typed = feed.forward(&mut chunk);
                if let Some(terminal) = &self.terminal
                    && terminal.interrupts(typed, self.step)
                {
                    killed = Some(KillCause::Key);
                    self.step.kill();
                }
            }
            if self.attach.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                killed = Some(KillCause::Deadline);
                self.note_last_process();
                self.step.kill();
                self.attach.deadline = None;
            }
            if let Some(limit) = self.attach.memory.filter(|limit| limit.is_exceeded()) {
                killed = Some(KillCause::Memory { max_bytes: limit.max_bytes });
                self.step.kill();
                self.attach.memory = None;
            }
            // Once pid 1 has ended, all writers are gone: reading the streams once more after that
            // misses nothing.
            for stream in &mut self.streams {
                stream.drain(&mut chunk, &mut report, on_output)?;
            }
            if ready.ended {
                return Ok(AttachResult { report, killed });
            }
        }
    }

    fn note_last_process(&self) {
        if let (Some(noted), Some(pid)) = (self.attach.last_process, self.step.pid())
            && let Some(line) = process_tree::deepest_command_line(pid)
        {
            // The first one counts: the command is killed only once.
            let _first = noted.set(line);
        }
    }

    /// Returns the maximum time to wait for events.
    fn patience(&self) -> Option<Timespec> {
        let memory = self.attach.memory.map(|_| MEMORY_INTERVAL);
        let deadline = self.attach.deadline.map(|deadline| {
            // Rounded up: poll(2) must not return before the deadline, again and again.
            let left =
                deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(left).unwrap_or(MEMORY_INTERVAL)
        });
        memory.into_iter().chain(deadline).min()
    }

    fn resize(&self) {
        let AttachOptions { input: Some(console), resized: Some(resized), .. } = self.attach else {
            return;
        };
        // One read covers all changes so far.
        let _seen = rustix::io::read(resized, &mut [0; 64]);
        if let Some(terminal) = &self.terminal {
            // If the size cannot be read, the old one stays.
            let _resized = terminal.resize_like(console);
        }
    }

    fn poll(&self) -> rustix::io::Result<WakeReasons> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let pidfd = self.step.pidfd.as_fd();
        let AttachOptions { cancel, resized, .. } = self.attach;
        let timeout = self.patience();
        let feed = self.feed.as_ref().and_then(InputForwarder::poll_target);
        let has_feed = feed.is_some();
        // poll(2) allows a descriptor to be listed twice: the pidfd stands in for absent ones, so
        // the positions are fixed.
        let mut fds = vec![readable(pidfd)];
        fds.extend([cancel, resized].map(|fd| readable(fd.unwrap_or(pidfd))));
        fds.push(feed.unwrap_or_else(|| readable(pidfd)));
        let streams = self.streams.iter().filter_map(|stream| stream.from.as_ref());
        fds.extend(streams.map(|fd| readable(fd.as_fd())));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, timeout.as_ref()))?;
        let mut woken = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || woken.next().unwrap_or(false);
        Ok(WakeReasons {
            ended: next(),
            cancelled: next() && cancel.is_some(),
            resized: next() && resized.is_some(),
            fed: next() && has_feed,
        })
    }
}
