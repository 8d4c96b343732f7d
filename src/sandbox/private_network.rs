//! A network namespace whose only way out is pasta (passt(1)): a process that turns the packets of the
//! namespace into connections of its own. It needs no rights outside, and leads to no loopback address.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::PidfdFlags;

use crate::limits::MAX_HELPER_MESSAGE_BYTES;
use crate::pathio;

use super::error::SandboxError;
use super::step_process::StepProcess;
use super::streams::{Pipe, pipe};
use super::sys::exec::{self, StringArray};
use super::sys::{clone, fork, net, signal};
use super::{c_strings, reaper};

/// The program, of Debian's package `passt`.
const PROGRAM: &str = "pasta";
/// The address in the namespace at which pasta passes queries on to the machine's own name server.
pub const NAME_SERVER: &str = "169.254.1.1";
/// Maximum time until pasta is ready. It takes 10 to 50 ms.
const START_LIMIT: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// The groups that may send echo requests there (icmp(7)): all. In a new namespace there are none.
const PING_GROUPS: &[u8] = b"0 2147483647\n";

/// A network namespace with a connection outward. It ends when this value is dropped, or with rbuild.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: Arc<OwnedFd>,
    /// Closing it ends the thread that keeps pasta.
    keeper: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Requirements of a private network.
#[derive(Debug, Clone)]
pub struct PrivateNetworkOptions<'a> {
    /// Directories that may contain pasta, separated by colons.
    pub search: &'a str,
    /// An empty directory for two files.
    pub directory: &'a Path,
    /// True to answer queries at [`NAME_SERVER`].
    pub forwards_dns: bool,
}

impl PrivateNetwork {
    /// Makes a namespace and starts pasta.
    ///
    /// # Errors
    /// [`SandboxError::NoPrivateNetwork`].
    pub fn start(options: &PrivateNetworkOptions<'_>) -> Result<Self, SandboxError> {
        let program = find(options.search).ok_or_else(|| SandboxError::NoPrivateNetwork {
            reason: format!("the program {PROGRAM} is missing"),
            help: "install it (`apt-get install passt`), or use --network=default, the network of the machine"
                .to_owned(),
        })?;
        let namespace =
            new_namespace().map_err(|errno| refused("make a network namespace", errno))?;
        let pasta = Pasta::new(&program, options, namespace.as_fd())?;
        let (keeper, ended) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        // The process dies with the thread that has started it (prctl(2), `PR_SET_PDEATHSIG`), so that thread
        // must live as long as the network.
        let thread = thread::Builder::new().name("network".to_owned()).spawn(move || {
            let started = pasta.start();
            let (result, process) = match started {
                Ok(process) => (Ok(()), Some(process)),
                Err(error) => (Err(error), None),
            };
            // The other end waits for it.
            let _sent = tell.send(result);
            let _closed = ended.recv();
            drop(process);
        });
        let thread = thread.map_err(|error| SandboxError::setup("start a thread", error))?;
        let namespace = Arc::new(namespace);
        let network = Self { namespace, keeper: Some(keeper), thread: Some(thread) };
        told.recv().unwrap_or_else(|_error| Err(refused("start pasta", Errno::NOTRECOVERABLE)))?;
        Ok(network)
    }

    /// Returns the namespace, which a child joins.
    #[must_use]
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        drop(self.keeper.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported.
            let _ended = thread.join();
        }
    }
}

fn refused(what: &str, errno: Errno) -> SandboxError {
    SandboxError::NoPrivateNetwork {
        reason: format!("cannot {what}: {errno}"),
        help: "it needs namespaces, see `rbuild doctor`; --network=default is the network of the machine"
            .to_owned(),
    }
}

fn find(search: &str) -> Option<PathBuf> {
    let directories = search.split(':').filter(|directory| directory.starts_with('/'));
    let mut paths = directories.map(|directory| Path::new(directory).join(PROGRAM));
    paths.find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Returns a new network namespace with its loopback interface up. A thread of its own makes it: this one
/// stays where it is.
fn new_namespace() -> rustix::io::Result<OwnedFd> {
    let made = thread::Builder::new().spawn(|| {
        fork::unshare_network()?;
        net::loopback_up()?;
        // Without it, only ping(8) is missing.
        let _allowed = pathio::write(Path::new("/proc/sys/net/ipv4/ping_group_range"), PING_GROUPS);
        rustix::fs::open(
            c"/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    });
    let made = made.map_err(|_error| Errno::AGAIN)?;
    made.join().unwrap_or(Err(Errno::NOTRECOVERABLE))
}

/// Everything that the process of pasta needs, made before it is forked.
struct Pasta {
    program: CString,
    arguments: Vec<CString>,
    /// The namespace as a file, which is mounted on `target`: pasta drops the right to open it below
    /// `/proc` of another process before it does so.
    namespace: CString,
    target: CString,
    null: OwnedFd,
    /// A FIFO, into which pasta writes its pid once the namespace is configured.
    ready: OwnedFd,
    errors: Pipe,
    rbuild: OwnedFd,
}

impl Pasta {
    fn new(
        program: &Path,
        options: &PrivateNetworkOptions<'_>,
        namespace: BorrowedFd<'_>,
    ) -> Result<Self, SandboxError> {
        let failed = |errno| refused("prepare pasta", errno);
        // pasta changes its working directory.
        let directory = std::path::absolute(options.directory)
            .map_err(|error| SandboxError::setup("resolve the directory of the store", error))?;
        let (target, fifo) = (directory.join("netns"), directory.join("ready"));
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(&target, flags, mode).map_err(failed)?;
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, mode, 0).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let ready = rustix::fs::open(&fifo, flags, Mode::empty()).map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let null = rustix::fs::open(c"/dev/null", flags, Mode::empty()).map_err(failed)?;
        let me = rustix::process::getpid();
        let rbuild = rustix::process::pidfd_open(me, PidfdFlags::empty()).map_err(failed)?;
        let forward = ["--dns-forward", NAME_SERVER].into_iter().filter(|_| options.forwards_dns);
        let words = ARGUMENTS.into_iter().chain(forward).map(Path::new);
        let files: [&Path; 4] = ["--pid".as_ref(), &fifo, "--netns".as_ref(), &target];
        let words = words.chain(files).map(c_strings::try_new);
        let words = words.collect::<rustix::io::Result<Vec<_>>>();
        let descriptor = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        Ok(Self {
            program: c_strings::try_new(program).map_err(failed)?,
            arguments: words.map_err(failed)?,
            namespace: c_strings::try_new(&descriptor).map_err(failed)?,
            target: c_strings::try_new(&target).map_err(failed)?,
            null,
            ready,
            errors: pipe()?,
            rbuild,
        })
    }

    /// Starts pasta, and waits until the namespace is configured.
    fn start(mut self) -> Result<StepProcess, SandboxError> {
        let arguments = StringArray::new(std::mem::take(&mut self.arguments));
        let environment = StringArray::new(Vec::new());
        let process = StepProcess::start_reaper(None, &|| {
            let namespaces = u64::from(libc::CLONE_NEWNS.cast_unsigned());
            reaper::main(self.rbuild.as_fd(), namespaces, &|| {
                if self.enter().is_ok() {
                    let _failed = exec::execve(&self.program, &arguments, &environment);
                }
                clone::exit_now(FAILED);
            });
        })?;
        let Self { ready, errors: Pipe { read, write }, .. } = self;
        drop(write);
        let mut fds =
            [PollFd::new(&ready, PollFlags::IN), PollFd::new(&process.pidfd, PollFlags::IN)];
        let polled =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&START_LIMIT)));
        let is_ready = fds.first().is_some_and(|fd| fd.revents().contains(PollFlags::IN));
        match polled {
            Ok(1..) if is_ready => Ok(process),
            Ok(0) => Err(refused("start pasta", Errno::TIMEDOUT)),
            Ok(_) | Err(_) => Err(failure(&message(&read))),
        }
    }

    /// Prepares the calling child, which has a mount namespace of its own. Allocates nothing.
    fn enter(&self) -> rustix::io::Result<()> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private)?;
        rustix::mount::mount_bind(self.namespace.as_c_str(), self.target.as_c_str())?;
        rustix::stdio::dup2_stdin(&self.null)?;
        rustix::stdio::dup2_stdout(&self.null)?;
        rustix::stdio::dup2_stderr(&self.errors.write)?;
        signal::reset_actions();
        signal::set_mask(signal::Mask::NONE).map(drop)
    }
}

/// The exit code of a child that could not execute pasta.
const FAILED: i32 = 255;

/// The arguments of pasta but for its files. It forwards no port in either direction, and does not map the
/// address of the gateway to the machine's loopback. It stays the user that rbuild is: as another one it
/// could not enter the namespace. It drops all rights but those over the network.
const ARGUMENTS: [&str; 16] = [
    PROGRAM,
    "--foreground",
    "--quiet",
    "--config-net",
    "--no-map-gw",
    "--no-netns-quit",
    "--tcp-ports",
    "none",
    "--udp-ports",
    "none",
    "--tcp-ns",
    "none",
    "--udp-ns",
    "none",
    "--runas",
    "0",
];

/// Returns the error for a message of pasta.
fn failure(message: &str) -> SandboxError {
    let help = if message.contains("tun socket") {
        "this user must be able to open /dev/net/tun: as root, `chmod 666 /dev/net/tun`"
    } else {
        "does the machine have a network? --network=default is that of the machine"
    };
    SandboxError::NoPrivateNetwork { reason: message.to_owned(), help: help.to_owned() }
}

/// Returns the message of pasta that has ended.
fn message(errors: &OwnedFd) -> String {
    let mut bytes = vec![0; MAX_HELPER_MESSAGE_BYTES];
    let len = rustix::io::read(errors, &mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned();
    // It complains about a missing syslog, too.
    let mut lines = text.lines().filter(|line| !line.contains("syslog") && !line.is_empty());
    match lines.next_back() {
        Some(line) => format!("pasta failed: {line}"),
        None => "pasta failed without a message".to_owned(),
    }
}
