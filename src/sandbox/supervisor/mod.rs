//! A supervisor of a step's system calls, for isolation without mounts or with a single user id.
//!
//! A filter in the step's processes sends calls about files and identities to the supervisor
//! (seccomp_unotify(2)), a thread of rbuild, which answers them in the process's place:
//!
//! - `calls`: the calls, and the filter.
//! - `target`: memory, descriptors and working directory of the calling process; `caller`: facts
//!   about it, each read once.
//! - `lookup`, `walk`, `mounts`: paths as the step sees them.
//! - `open`, `new_files`, `names`, `directories`, `status`, `changes`, `xattrs`: what the calls do;
//!   `permissions` and `lower_files` check and prepare it.
//! - `identity`: user and group ids of processes that all run as one user.
//! - `redirect`, `sockets`, `execute`, `program_copies`: calls that the process must make itself, with a translated path.
//!
//! The supervisor is not a security boundary: another thread of the process can change a path after it was
//! read. It shows the step its root. The kernel decides what the step may do.

mod caller;
mod calls;
mod changes;
mod directories;
mod execute;
mod identity;
mod lookup;
mod lower_files;
mod mount_list;
mod mounts;
mod names;
mod new_files;
mod open;
mod permissions;
mod process_status;
mod program_copies;
mod redirect;
mod sockets;
mod stat_layout;
mod status;
mod target;
mod walk;
mod xattrs;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, FileType, Stat, StatxFlags};
use rustix::io::{Errno, Result};

use super::attributes::{Attributes, EmulatedFiles, FileId};
use super::file_time::FileTime;
use super::spec::User;
use super::sys::notify::{self, Notification};
use caller::Caller;
pub(super) use calls::filter;
use execute::PendingProgram;
pub(super) use identity::CARRIER_LIMIT;
use identity::{Ids, ProcessState, StateTable};
use lookup::{Found, Name};
use mounts::VirtualMount;
use program_copies::ProgramCopies;
use target::Target;

/// The parts of a step's environment that its supervisor provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) struct Rules {
    /// Paths are looked up below the step's root, and programs are started there.
    pub(in crate::sandbox) translates_paths: bool,
    /// Paths may lead to mounts that only the supervisor knows.
    pub(in crate::sandbox) has_mounts: bool,
    /// Owners and identities are emulated.
    pub(in crate::sandbox) emulates_owners: bool,
}

/// The result of a call.
#[derive(Debug)]
pub(in crate::sandbox) enum Reply {
    /// The call returns this value.
    Value(i64),
    /// The call returns a new descriptor of this file.
    Descriptor { file: OwnedFd, close_on_exec: bool },
    /// The call was answered already, or another thread will answer it.
    Answered,
}

/// The reason why a call has no result of the supervisor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Stop {
    /// The call fails.
    Fail(Errno),
    /// The kernel executes the call.
    Proceed,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Fail(errno)
    }
}

type Answer = std::result::Result<Reply, Stop>;

/// A mount of a step, as the supervisor gets it.
#[derive(Debug)]
pub(in crate::sandbox) struct NewMount {
    /// The mount point, absolute.
    pub(in crate::sandbox) target: Vec<u8>,
    pub(in crate::sandbox) source: OwnedFd,
    pub(in crate::sandbox) read_only: bool,
    pub(in crate::sandbox) is_proc: bool,
    /// True for a mount that every step has, which hides nothing of interest.
    pub(in crate::sandbox) is_standard: bool,
}

/// The user of a step's command.
#[derive(Debug, Clone)]
pub(in crate::sandbox) struct Identity {
    pub(in crate::sandbox) uid: u32,
    pub(in crate::sandbox) gid: u32,
    pub(in crate::sandbox) groups: Vec<u32>,
}

impl Identity {
    pub(in crate::sandbox) fn of(user: &User) -> Self {
        Self { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
    }
}

/// The state of a step's supervisor.
#[derive(Debug)]
pub(in crate::sandbox) struct Supervisor {
    listener: Arc<OwnedFd>,
    rules: Rules,
    root: OwnedFd,
    root_id: FileId,
    /// The path of the root outside.
    root_path: Vec<u8>,
    mounts: Vec<VirtualMount>,
    /// The mount points that mounts hide.
    points: HashSet<FileId>,
    /// The directories from which mount points can be reached: `/`, `/run` for `/run/secrets`.
    above_mounts: HashSet<FileId>,
    /// True if a mount hides files of the root, so that each component must be looked at.
    hides_files: bool,
    /// The device of the proc file system.
    proc_device: Option<u64>,
    files: EmulatedFiles,
    states: StateTable,
    /// Redirected calls, by thread, which the kernel is to execute when they start again.
    expected: HashMap<u32, i32>,
    /// Programs to load, by process.
    pending: HashMap<u32, PendingProgram>,
    /// The path of the loader outside.
    loader: Vec<u8>,
    /// The permissions that rbuild's own umask removes from new files.
    own_umask: u32,
    /// The time at which the step started: its files are not older.
    started: FileTime,
    /// Files that existed before the step, and have got further names in it.
    linked: HashSet<FileId>,
    caller: Caller,
    /// Copies of programs in memory, where the root is mounted with `noexec`.
    copies: Option<ProgramCopies>,
}

impl Supervisor {
    /// Creates the supervisor of a step with this root, whose program starts after `started`. `loader`
    /// is the path of the program that loads others; see [`execute`].
    pub(in crate::sandbox) fn new(
        listener: OwnedFd,
        rules: Rules,
        root: OwnedFd,
        files: EmulatedFiles,
        user: Identity,
        loader: Vec<u8>,
        started: FileTime,
    ) -> Result<Self> {
        notify::prefer_sync_wake_up(listener.as_fd());
        let first = ProcessState {
            uid: Ids::all(user.uid),
            gid: Ids::all(user.gid),
            groups: user.groups,
            umask: INITIAL_UMASK,
            program: Vec::new(),
            root: Vec::new(),
        };
        let own = std::process::id();
        Ok(Self {
            listener: Arc::new(listener),
            rules,
            root_id: mounts::id_of(&root)?,
            root_path: mounts::path_of(&root)?,
            mounts: Vec::new(),
            points: HashSet::new(),
            above_mounts: HashSet::new(),
            hides_files: false,
            proc_device: None,
            files,
            states: StateTable::new(first),
            expected: HashMap::new(),
            pending: HashMap::new(),
            loader,
            own_umask: Target::new(own)?.status()?.umask().unwrap_or(0),
            started,
            linked: HashSet::new(),
            caller: Caller::default(),
            copies: ProgramCopies::if_needed(&root, rules)?,
            root,
        })
    }

    /// Adds a mount. Its mount point should exist.
    pub(in crate::sandbox) fn mount(&mut self, new: NewMount) -> Result<()> {
        let own = Target::new(std::process::id())?;
        let name = self.find_name(own, target::AT_FDCWD, &new.target)?;
        let mut above =
            name.directory.as_fd().try_clone_to_owned().map_err(|_error| Errno::MFILE)?;
        let point = mounts::id_at(&name.directory, name.name.as_bytes());
        if let Some(point) = point {
            self.points.insert(point);
            self.hides_files |=
                !new.is_standard && hides_files(&name.directory, name.name.as_bytes())?;
        }
        // All directories from the mount point up.
        let mut mount = name.mount;
        loop {
            let id = mounts::id_of(&above)?;
            self.above_mounts.insert(id);
            if id == self.root_id {
                break;
            }
            (above, mount) = self.parent_of(above, mount, self.root_id)?;
        }
        if new.is_proc {
            self.proc_device = Some(mounts::id_of(&new.source)?.device);
        }
        let target = self
            .inside_path(&mounts::path_of(&name.directory)?)
            .map(|mut directory| {
                if directory.last() != Some(&b'/') {
                    directory.push(b'/');
                }
                directory.extend_from_slice(name.name.as_bytes());
                directory
            })
            .ok_or(Errno::NOENT)?;
        self.mounts.push(VirtualMount {
            target,
            source_id: mounts::id_of(&new.source)?,
            source_path: mounts::path_of(&new.source)?,
            source: new.source,
            point,
            parent: name.directory,
            read_only: new.read_only,
            is_proc: new.is_proc,
        });
        Ok(())
    }

    /// Records attributes of a file that the disk does not hold, such as the owner of a secret.
    pub(in crate::sandbox) fn set_attributes(&mut self, file: FileId, attributes: Attributes) {
        self.files.set(file, attributes);
    }

    /// Answers calls until all processes of the step have ended. Returns the attributes of its files.
    pub(in crate::sandbox) fn run(mut self) -> EmulatedFiles {
        while self.next_call_is_waiting() {
            match notify::receive(self.listener.as_fd()) {
                Ok(call) => self.serve(&call),
                // The caller was killed, or a signal arrived.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.files
    }

    /// Waits for a call; returns false once no process has the filter any more.
    fn next_call_is_waiting(&self) -> bool {
        loop {
            let mut fds = [PollFd::new(&*self.listener, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => {
                    let [fd] = &fds;
                    return fd.revents().contains(PollFlags::IN);
                }
            }
        }
    }

    fn serve(&mut self, call: &Notification) {
        let is_redirected = self.expected.remove(&call.pid) == Some(call.number);
        let answer = if is_redirected || call.arch != calls::NATIVE {
            Err(Stop::Proceed)
        } else {
            match calls::handler(call.number) {
                Some(handler) => handler(self, call),
                None => Err(Stop::Proceed),
            }
        };
        let listener = self.listener.as_fd();
        // An error means that the caller was killed meanwhile, except for a full table of descriptors.
        let _caller_is_gone = match answer {
            Ok(Reply::Value(value)) => notify::respond(listener, call.id, Ok(value)),
            Ok(Reply::Descriptor { file, close_on_exec }) => {
                self.give(call, file.as_fd(), close_on_exec)
            }
            Ok(Reply::Answered) => Ok(()),
            Err(Stop::Fail(errno)) => notify::respond(listener, call.id, Err(errno)),
            Err(Stop::Proceed) => notify::proceed(listener, call.id),
        };
        self.caller.forget();
    }

    fn give(&self, call: &Notification, file: BorrowedFd<'_>, close_on_exec: bool) -> Result<()> {
        let listener = self.listener.as_fd();
        match notify::add_descriptor(listener, call.id, file, close_on_exec, true) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => notify::respond(listener, call.id, Err(errno)),
        }
    }

    /// Reads a path argument.
    fn path(&self, target: Target, address: u64) -> std::result::Result<Vec<u8>, Stop> {
        match target.string(address) {
            // Another user's process, whose memory only it can read.
            Err(Errno::PERM | Errno::ACCESS) if !self.rules.translates_paths => Err(Stop::Proceed),
            read => Ok(read?),
        }
    }

    /// Returns whether the supervisor acts on objects there: elsewhere the kernel finds them.
    fn acts_in(&self, mount: Option<usize>) -> bool {
        self.rules.translates_paths || self.rules.emulates_owners || mount.is_some()
    }

    fn acts_on(&self, found: &Found) -> bool {
        found.is_magic || self.acts_in(found.mount)
    }

    /// Returns whether a path starts at a directory of a mount. The kernel must not look it up: for it that
    /// directory is outside of the root of the process, and `..` leads to the machine's files.
    fn starts_in_mount(&self, target: Target, directory: i32, path: &[u8]) -> bool {
        if self.mounts.is_empty() || self.rules.translates_paths || path.first() == Some(&b'/') {
            return false;
        }
        // A directory that cannot be read is one of a process that cannot enter a mount.
        self.start(target, directory).is_ok_and(|start| start.mount.is_some())
    }

    fn lookup_failed(&self, errno: Errno, starts_in_mount: bool) -> Stop {
        let is_denied = self.rules.emulates_owners && errno == Errno::ACCESS;
        if self.rules.translates_paths || is_denied || starts_in_mount {
            Stop::Fail(errno)
        } else {
            Stop::Proceed
        }
    }

    /// Finds an object to act on.
    fn locate(
        &self,
        target: Target,
        directory: i32,
        path: &[u8],
        follows: bool,
    ) -> std::result::Result<Found, Stop> {
        let starts_in_mount = self.starts_in_mount(target, directory, path);
        match self.find(target, directory, path, follows) {
            Ok(found) if starts_in_mount || self.acts_on(&found) => Ok(found),
            Ok(_) => Err(Stop::Proceed),
            Err(errno) => Err(self.lookup_failed(errno, starts_in_mount)),
        }
    }

    /// Finds the object of a directory and a path in the process's memory, which may be empty.
    fn object(
        &self,
        target: Target,
        (directory, path): (i32, u64),
        flags: AtFlags,
        follows: bool,
    ) -> std::result::Result<Found, Stop> {
        let path = if path == 0 && flags.contains(AtFlags::EMPTY_PATH) {
            Vec::new()
        } else {
            self.path(target, path)?
        };
        if !path.is_empty() || !flags.contains(AtFlags::EMPTY_PATH) {
            return self.locate(target, directory, &path, follows);
        }
        if !self.rules.emulates_owners {
            // What an open descriptor refers to needs no look-up.
            return Err(Stop::Proceed);
        }
        let found = self.find_descriptor(target, directory);
        found.map_err(|errno| self.lookup_failed(errno, false))
    }

    /// Finds an object to change, like [`Self::object`]. A file of lower layers with other names becomes
    /// one of its own.
    fn object_to_change(
        &mut self,
        target: Target,
        place: (i32, u64),
        flags: AtFlags,
        follows: bool,
    ) -> std::result::Result<Found, Stop> {
        let found = match self.object(target, place, flags, follows) {
            Err(Stop::Proceed) => {
                self.break_link_at(target, place, follows)?;
                return Err(Stop::Proceed);
            }
            found => found?,
        };
        Ok(self.with_own_file(found)?)
    }

    /// Prepares a change that the kernel makes.
    fn break_link_at(&mut self, target: Target, place: (i32, u64), follows: bool) -> Result<()> {
        let Ok(path) = target.string(place.1) else { return Ok(()) };
        match self.find(target, place.0, &path, follows) {
            Ok(found) => self.break_link(&found).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Finds a name to create or remove.
    fn name(&self, target: Target, directory: i32, path: &[u8]) -> std::result::Result<Name, Stop> {
        let name = self.name_any(target, directory, path)?;
        if self.acts_on_name(&name, target, directory, path) {
            Ok(name)
        } else {
            Err(Stop::Proceed)
        }
    }

    /// Returns whether the supervisor creates or removes a name that it found by `path`.
    fn acts_on_name(&self, name: &Name, target: Target, directory: i32, path: &[u8]) -> bool {
        self.acts_in(name.mount) || self.starts_in_mount(target, directory, path)
    }

    fn name_any(
        &self,
        target: Target,
        directory: i32,
        path: &[u8],
    ) -> std::result::Result<Name, Stop> {
        self.find_name(target, directory, path).map_err(|errno| {
            self.lookup_failed(errno, self.starts_in_mount(target, directory, path))
        })
    }

    fn is_mount_point(&self, name: &Name) -> bool {
        self.covering(&name.directory, name.name.as_bytes()).is_some()
            || self.is_kernel_mount_point(name)
    }

    /// Returns whether a file system is mounted there, in the namespace of the step. The kernel only
    /// looks for mount points in the namespace of the process that removes a name.
    fn is_kernel_mount_point(&self, name: &Name) -> bool {
        if self.rules.translates_paths || self.rules.has_mounts {
            return false;
        }
        let Ok(file) = self.open_new(name) else { return false };
        let mount = |file: &OwnedFd| {
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            let facts = rustix::fs::statx(file, c"", flags, StatxFlags::MNT_ID);
            facts.ok().map(|facts| facts.stx_mnt_id)
        };
        mount(&file) != mount(&name.directory)
    }

    /// Records the attributes of a file, unless the disk holds them.
    fn record(&mut self, stat: &Stat, attributes: Attributes) {
        let file = FileId::of(stat);
        if attributes == Attributes::on_disk(stat) {
            self.files.remove(file);
        } else {
            self.files.set(file, attributes);
        }
    }
}

/// The umask of a step's command, docker's.
pub(in crate::sandbox) const INITIAL_UMASK: u32 = 0o022;

/// Returns whether a mount at this mount point hides files: a directory with entries.
fn hides_files(directory: &OwnedFd, name: &[u8]) -> Result<bool> {
    use rustix::fs::{Dir, Mode, OFlags};

    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for entry in Dir::read_from(opened)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns an argument that is a descriptor's number.
fn number_argument(argument: u64) -> i32 {
    u32::try_from(argument & 0xffff_ffff).unwrap_or(u32::MAX).cast_signed()
}

/// Returns an argument that is `AT_*` flags.
fn flag_argument(argument: u64) -> AtFlags {
    AtFlags::from_bits_retain(u32::try_from(argument & 0xffff_ffff).unwrap_or(0))
}

/// Returns an argument of type `uid_t` or `gid_t`.
fn id_argument(call: &Notification, index: usize) -> u32 {
    let argument = call.args.get(index).copied().unwrap_or_default();
    u32::try_from(argument & 0xffff_ffff).unwrap_or_default()
}
