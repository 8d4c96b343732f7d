//! The streams of a command: pipes or a terminal, and the loop that serves them until it has ended.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Gid, Uid};

use super::child::Report;
use super::devices::NULL;
use super::run::{Attending, Step};
use super::spec::{Output, SandboxError, Streams};
use super::terminal::Terminal;

/// How much is read at once: what a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;

/// A pipe, of which rbuild's end never blocks.
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// A pipe that never blocks its reader.
pub(super) fn pipe() -> Result<Pipe, SandboxError> {
    let pipe = both_blocking()?;
    never_block(&pipe.read)?;
    Ok(pipe)
}

fn both_blocking() -> Result<Pipe, SandboxError> {
    let made = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (read, write) = made.map_err(|errno| SandboxError::setup("make a pipe", errno))?;
    Ok(Pipe { read, write })
}

fn never_block(end: &OwnedFd) -> Result<(), SandboxError> {
    rustix::io::ioctl_fionbio(end, true).map_err(|errno| SandboxError::setup("make a pipe", errno))
}

/// The child's ends of what it is connected with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) status: BorrowedFd<'a>,
    /// Where a mount namespace that is to be kept goes.
    pub(super) keep: Option<BorrowedFd<'a>>,
    /// `None` for no input.
    pub(super) stdin: Option<BorrowedFd<'a>>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
}

impl Ends<'_> {
    /// The child's part: they become its three streams; without an input, the null device of
    /// `root` does. Allocates nothing.
    pub(super) fn connect(
        self,
        root: BorrowedFd<'_>,
        uid: Uid,
        gid: Gid,
    ) -> rustix::io::Result<()> {
        for end in [self.stdout, self.stderr].into_iter().chain(self.stdin) {
            // A program that opens /dev/stdout must be allowed to. Best effort, as in runc.
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

/// What a command's streams are connected with.
pub(super) enum Connected {
    Pipes { stdin: Option<Pipe>, stdout: Pipe, stderr: Pipe },
    Terminal(Terminal),
}

impl Connected {
    pub(super) fn new(
        streams: Streams,
        input: Option<BorrowedFd<'_>>,
    ) -> Result<Self, SandboxError> {
        let stdin = match streams {
            Streams::Output => None,
            Streams::Pipes => {
                let pipe = both_blocking()?;
                never_block(&pipe.write)?;
                Some(pipe)
            }
            Streams::Terminal => {
                let terminal = input.ok_or(Errno::NOTTY).and_then(Terminal::like);
                return terminal
                    .map(Self::Terminal)
                    .map_err(|errno| SandboxError::setup("make a terminal", errno));
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

    /// The child's ends.
    pub(super) fn ends<'a>(
        &'a self,
        status: BorrowedFd<'a>,
        keep: Option<BorrowedFd<'a>>,
    ) -> Ends<'a> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => Ends {
                status,
                keep,
                stdin: stdin.as_ref().map(|pipe| pipe.read.as_fd()),
                stdout: stdout.write.as_fd(),
                stderr: stderr.write.as_fd(),
            },
            Self::Terminal(Terminal { own, .. }) => Ends {
                status,
                keep,
                stdin: Some(own.as_fd()),
                stdout: own.as_fd(),
                stderr: own.as_fd(),
            },
        }
    }

    /// Passes on what is written and typed until the command has ended; the child's ends are closed
    /// here, which would keep the pipes open.
    pub(super) fn attend(
        self,
        status: OwnedFd,
        step: &Step,
        attending: Attending<'_>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> rustix::io::Result<Followed> {
        let status = Stream::new(status, None);
        let (streams, sink, terminal) = match self {
            Self::Pipes { stdin, stdout, stderr } => {
                let stdout = Stream::new(stdout.read, Some(Output::Stdout));
                let stderr = Stream::new(stderr.read, Some(Output::Stderr));
                (vec![status, stdout, stderr], stdin.map(|pipe| pipe.write), None)
            }
            Self::Terminal(terminal) => {
                let copy = || rustix::io::fcntl_dupfd_cloexec(&terminal.controller, 3);
                let shown = Stream::new(copy()?, Some(Output::Stdout));
                (vec![status, shown], Some(copy()?), Some(terminal))
            }
        };
        let feed = attending.input.zip(sink).map(|(from, to)| Feed::new(from, to));
        Attended { step, streams, feed, terminal, attending }.until_it_ends(on_output)
    }
}

/// What was seen until a command had ended.
pub(super) struct Followed {
    /// What the child reported, if it did not come to the command.
    pub(super) report: Option<Report>,
    /// Whether it was ended by a key.
    pub(super) interrupted: bool,
}

/// rbuild's end of what a command writes to.
struct Stream {
    /// `None` when it has ended.
    from: Option<OwnedFd>,
    /// `None` for the reports of the child.
    output: Option<Output>,
}

impl Stream {
    const fn new(from: OwnedFd, output: Option<Output>) -> Self {
        Self { from: Some(from), output }
    }

    /// Reads what is there now.
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
                // A terminal that nobody has open any more.
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

/// Passes input on, as fast as the command takes it.
struct Feed<'a> {
    /// `None` when there is no more.
    from: Option<BorrowedFd<'a>>,
    /// `None` when the command has got all, or wants no more.
    to: Option<OwnedFd>,
    /// What was read and is not taken yet.
    pending: Vec<u8>,
}

impl<'a> Feed<'a> {
    const fn new(from: BorrowedFd<'a>, to: OwnedFd) -> Self {
        Self { from: Some(from), to: Some(to), pending: Vec::new() }
    }

    /// What it waits for.
    fn awaited(&self) -> Option<PollFd<'_>> {
        let to = self.to.as_ref()?;
        if !self.pending.is_empty() {
            return Some(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
        }
        self.from.map(|from| PollFd::from_borrowed_fd(from, PollFlags::IN))
    }

    /// Goes on, once what it waits for has come; gives what was read.
    fn pass<'c>(&mut self, chunk: &'c mut [u8]) -> &'c [u8] {
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
                // The end; or there is no reading it, which is no reason to end the command.
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
            Err(_nobody_reads) => (self.from, self.to) = (None, None),
        }
    }
}

/// A command that runs, and all that it is connected with.
struct Attended<'a> {
    step: &'a Step,
    streams: Vec<Stream>,
    feed: Option<Feed<'a>>,
    terminal: Option<Terminal>,
    attending: Attending<'a>,
}

/// What woke rbuild up, besides output.
#[derive(Default)]
struct Ready {
    ended: bool,
    cancelled: bool,
    resized: bool,
    fed: bool,
}

impl Attended<'_> {
    fn until_it_ends(
        mut self,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> rustix::io::Result<Followed> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut report, mut interrupted) = (None, false);
        loop {
            let ready = self.poll()?;
            if ready.cancelled {
                self.step.kill();
                self.attending.cancel = None;
            }
            if ready.resized {
                self.resize();
            }
            if let Some(feed) = self.feed.as_mut().filter(|_| ready.fed) {
                let typed = feed.pass(&mut chunk);
                if let Some(terminal) = &self.terminal
                    && terminal.interrupts(typed, self.step)
                {
                    interrupted = true;
                    self.step.kill();
                }
            }
            // All writers are gone once pid 1 has ended, so that nothing is missed when the
            // streams are read once more after that.
            for stream in &mut self.streams {
                stream.drain(&mut chunk, &mut report, on_output)?;
            }
            if ready.ended {
                return Ok(Followed { report, interrupted });
            }
        }
    }

    fn resize(&self) {
        let Attending { input: Some(console), resized: Some(resized), .. } = self.attending else {
            return;
        };
        // One look serves for all changes so far.
        let _seen = rustix::io::read(resized, &mut [0; 64]);
        if let Some(terminal) = &self.terminal {
            // A size that cannot be had stays as it was.
            let _resized = terminal.resize_like(console);
        }
    }

    fn poll(&self) -> rustix::io::Result<Ready> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let pidfd = self.step.pidfd.as_fd();
        let Attending { cancel, resized, .. } = self.attending;
        let feed = self.feed.as_ref().and_then(Feed::awaited);
        let has_feed = feed.is_some();
        // A descriptor may be polled twice: pid 1 stands in for what cannot come.
        let mut fds = vec![readable(pidfd)];
        fds.extend([cancel, resized].map(|fd| readable(fd.unwrap_or(pidfd))));
        fds.push(feed.unwrap_or_else(|| readable(pidfd)));
        let streams = self.streams.iter().filter_map(|stream| stream.from.as_ref());
        fds.extend(streams.map(|fd| readable(fd.as_fd())));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        let mut woken = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || woken.next().unwrap_or(false);
        Ok(Ready {
            ended: next(),
            cancelled: next() && cancel.is_some(),
            resized: next() && resized.is_some(),
            fed: next() && has_feed,
        })
    }
}
