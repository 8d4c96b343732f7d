//! What happens between clone and exec: a loop over the prepared operations.
//!
//! Nothing here allocates, locks, logs or panics: until exec the child has the memory of its
//! parent, one thread of many, and a lock that another of them holds is not to be waited for.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};
use rustix::process::Signal;

use super::prepare::{Child, Filesystem, Prepared, Target};
use super::streams::Ends;
use super::sys::{clone, exec, filter, mount, net, signal};
use super::{caps, keep, pivot};

/// What the child tells its parent when it cannot execute the command: three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// The number of the operation, or [`EXEC`].
    pub(super) op: u32,
    /// The kernel's answer.
    pub(super) errno: i32,
    /// For [`EXEC`]: 1 when the program exists.
    pub(super) program_exists: u32,
}

/// Stands for execve in [`Report::op`].
pub(super) const EXEC: u32 = u32::MAX;

impl Report {
    /// The length of a report in bytes.
    pub(super) const BYTES: usize = 12;

    /// Takes what [`Report::send`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (op, rest) = bytes.split_first_chunk()?;
        let (errno, rest) = rest.split_first_chunk()?;
        let (program_exists, _) = rest.split_first_chunk()?;
        Some(Self {
            op: u32::from_ne_bytes(*op),
            errno: i32::from_ne_bytes(*errno),
            program_exists: u32::from_ne_bytes(*program_exists),
        })
    }

    /// Writes the report at once: a pipe takes so few bytes whole.
    fn send(self, status: BorrowedFd<'_>) {
        let mut bytes = [0; Self::BYTES];
        let words =
            [self.op.to_ne_bytes(), self.errno.to_ne_bytes(), self.program_exists.to_ne_bytes()];
        for (to, from) in bytes.iter_mut().zip(words.as_flattened()) {
            *to = *from;
        }
        // When the parent is gone nobody wants to know.
        let _ = rustix::io::write(status, &bytes);
    }
}

/// Applies all operations and executes the command; does not return.
pub(super) fn main(child: &Child<'_>, ends: Ends<'_>) {
    // Folders and files that are made have exactly the permissions that they are made with.
    rustix::process::umask(Mode::empty());
    let mut op = 0;
    for prepared in &child.ops {
        if let Err(errno) = apply(prepared, child, ends) {
            Report { op, errno: errno.raw_os_error(), program_exists: 0 }.send(ends.status);
            clone::exit_now(1);
        }
        op = u32::saturating_add(op, 1);
    }
    execute(child).send(ends.status);
    clone::exit_now(1);
}

fn apply(op: &Prepared<'_>, child: &Child<'_>, ends: Ends<'_>) -> Result<()> {
    let root = child.root;
    match op {
        Prepared::PrivatePropagation => rustix::mount::mount_change(
            c"/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        ),
        Prepared::AttachRoot => attach_root(root),
        Prepared::JoinMounts(kept) => keep::join(kept, root),
        Prepared::Terminals { folder, target } => {
            move_onto(*folder, resolve_or_create(root, target, true)?.as_fd())
        }
        Prepared::Filesystem(filesystem) => mount_filesystem(root, filesystem),
        Prepared::Sys { read_only } => mount_sys(root, *read_only),
        Prepared::DevFolder(name) => {
            rustix::fs::mkdirat(resolve(root, c"/dev")?, name.as_c_str(), Mode::from(0o755))
        }
        Prepared::DevNode { host, name } => bind_device(root, host, name),
        Prepared::DevLink { name, to } => {
            rustix::fs::symlinkat(to.as_c_str(), resolve(root, c"/dev")?, name.as_c_str())
        }
        Prepared::ReadOnly(path) => make_read_only(root, path),
        Prepared::Mask(path) => mask(root, path),
        Prepared::Locate { mount, path, attributes } => locate(mount.as_fd(), path, *attributes),
        Prepared::Bind { mount, target } => {
            let about = rustix::fs::fstat(mount)?;
            let is_folder = rustix::fs::FileType::from_raw_mode(about.st_mode).is_dir();
            move_onto(mount.as_fd(), resolve_or_create(root, target, is_folder)?.as_fd())
        }
        Prepared::Loopback => net::loopback_up(),
        Prepared::Hostname(name) => rustix::system::sethostname(name.as_bytes()),
        Prepared::PivotRoot => pivot::pivot(root, ends.keep),
        Prepared::EnterFolder(folder) => rustix::process::chdir(folder.as_c_str()),
        Prepared::Streams { uid, gid } => ends.connect(*uid, *gid),
        Prepared::Signals => {
            signal::reset_actions();
            signal::set_mask(signal::Mask::NONE).map(drop)
        }
        Prepared::Session => rustix::process::setsid().map(drop),
        Prepared::ControllingTerminal => rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()),
        Prepared::Umask(mask) => {
            rustix::process::umask(Mode::from_bits_truncate(*mask));
            Ok(())
        }
        Prepared::Limit(resource, limit) => rustix::process::setrlimit(*resource, *limit),
        Prepared::Seccomp(program) => filter::load(program),
        Prepared::BoundingSet(set) => caps::bound(*set),
        Prepared::Become { uid, gid, groups } => {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)
        }
        Prepared::Capabilities(set) => caps::restrict(*set),
        Prepared::DieWithParent => die_with_parent(child.parent.as_fd()),
        Prepared::CloseDescriptors => mount::close_on_exec_from(3),
    }
}

/// Mounts the rootfs over the old root folder, and not at some place in it: so the host's disk
/// has nothing to offer. Paths still lead into the old root, only `root` leads into the new one.
fn attach_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::mount::move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A descriptor of `path` in the rootfs: no symbolic link of an image leads out of it.
fn resolve(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    open_in(root, path, OFlags::PATH | OFlags::CLOEXEC)
}

/// How often a lookup is repeated that a rename elsewhere has disturbed.
const RETRIES: u32 = 16;

fn open_in(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn resolve_or_create_folder(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open_in(root, path, folder) {
        Err(Errno::NOENT) => {
            // Only top folders such as /proc are missing and made: the name is in the root itself,
            // and a link of that name is an error.
            let name = path.to_bytes_with_nul();
            let name = name.strip_prefix(b"/").unwrap_or(name);
            let name = CStr::from_bytes_with_nul(name).map_err(|_error| Errno::INVAL)?;
            rustix::fs::mkdirat(root, name, Mode::from(0o755))?;
            open_in(root, path, folder)
        }
        result => result,
    }
}

/// Resolves a mount point; makes it, and the folders above it, where they are missing. A link
/// that leads nowhere is an error.
fn resolve_or_create(root: BorrowedFd<'_>, target: &Target, is_folder: bool) -> Result<OwnedFd> {
    match resolve(root, &target.path) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut left = target.parts.len();
    for (parent, name) in &target.parts {
        left = left.saturating_sub(1);
        let folder = open_in(root, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        let made = if left == 0 && !is_folder {
            let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&folder, name.as_c_str(), new, Mode::from(0o644)).map(drop)
        } else {
            rustix::fs::mkdirat(&folder, name.as_c_str(), Mode::from(0o755))
        };
        match made {
            Err(Errno::EXIST) | Ok(()) => {}
            // A folder that is there may lie in what cannot be written to.
            Err(Errno::ROFS) if left > 0 => {}
            Err(errno) => return Err(errno),
        }
    }
    resolve(root, &target.path)
}

/// Makes the descriptor `mount`, of a mount that has no place, lead to `path` in it. Only a mount
/// that has a place in this namespace can be cloned in part (before Linux 6.15), so it gets one
/// on top of the old root, and goes with it.
fn locate(mount: BorrowedFd<'_>, path: &CStr, attributes: u64) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    match rustix::mount::move_mount(mount, c"", CWD, c"/", flags) {
        // It has its place: another part of it was located before.
        Ok(()) | Err(Errno::LOOP) => {}
        Err(errno) => return Err(errno),
    }
    let place = resolve(mount, path)?;
    let part = clone_path(place.as_fd(), c"", OpenTreeFlags::AT_EMPTY_PATH)?;
    mount::restrict_tree(part.as_fd(), attributes)?;
    mount::replace(mount, part.as_fd())
}

fn move_onto(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", place, c"", whole)
}

fn mount_filesystem(root: BorrowedFd<'_>, filesystem: &Filesystem) -> Result<()> {
    let Filesystem { kind, options, attributes, target } = filesystem;
    let context = rustix::mount::fsopen(kind.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), key.as_c_str())?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str())?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount =
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, *attributes)?;
    let place = resolve_or_create(root, target, true)?;
    move_onto(mount.as_fd(), place.as_fd())
}

const NOTHING_SPECIAL: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A user namespace that shares the host's network may not mount a sysfs: it then gets the
/// host's, and where even that is refused, none.
fn mount_sys(root: BorrowedFd<'_>, read_only: bool) -> Result<()> {
    let place = resolve_or_create_folder(root, c"/sys")?;
    let attributes = if read_only {
        NOTHING_SPECIAL.union(MountAttrFlags::MOUNT_ATTR_RDONLY)
    } else {
        NOTHING_SPECIAL
    };
    let mount = match new_sysfs(attributes) {
        Err(Errno::PERM | Errno::ACCESS | Errno::NODEV) => host_sys(read_only),
        result => result,
    };
    match mount {
        Ok(mount) => move_onto(mount.as_fd(), place.as_fd()),
        Err(Errno::PERM | Errno::ACCESS | Errno::NOENT | Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn new_sysfs(attributes: MountAttrFlags) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn host_sys(read_only: bool) -> Result<OwnedFd> {
    let tree = clone_path(CWD, c"/sys", OpenTreeFlags::AT_RECURSIVE)?;
    mount::restrict_tree(tree.as_fd(), if read_only { mount::READ_ONLY } else { 0 })?;
    Ok(tree)
}

fn clone_path(folder: BorrowedFd<'_>, path: &CStr, more: OpenTreeFlags) -> Result<OwnedFd> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(folder, path, copy | more)
}

fn bind_device(root: BorrowedFd<'_>, host: &CStr, name: &CStr) -> Result<()> {
    let dev = resolve(root, c"/dev")?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(dev.as_fd(), name, new, Mode::from(0o666))?);
    let device = clone_path(CWD, host, OpenTreeFlags::empty())?;
    let place = rustix::fs::openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    move_onto(device.as_fd(), place.as_fd())
}

fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let place = match resolve(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        place => place?,
    };
    let whole = OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = clone_path(place.as_fd(), c"", whole)?;
    let attributes = mount::READ_ONLY | mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;
    mount::restrict_tree(tree.as_fd(), attributes)?;
    move_onto(tree.as_fd(), place.as_fd())
}

fn mask(root: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let place = match resolve(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        place => place?,
    };
    let about = rustix::fs::fstat(&place)?;
    let empty = if rustix::fs::FileType::from_raw_mode(about.st_mode).is_dir() {
        empty_folder()?
    } else {
        clone_path(CWD, c"/dev/null", OpenTreeFlags::empty())?
    };
    move_onto(empty.as_fd(), place.as_fd())
}

fn empty_folder() -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"size", c"4k")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let read_only = NOTHING_SPECIAL.union(MountAttrFlags::MOUNT_ATTR_RDONLY);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, read_only)
}

fn die_with_parent(parent: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before: its pidfd then is readable. (getppid is 0 in a new namespace.)
    let mut died = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut died, Some(&at_once))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Tries the candidates as execvp(3) does; returns only when none could be executed.
fn execute(child: &Child<'_>) -> Report {
    let mut worst = Report { op: EXEC, errno: Errno::NOENT.raw_os_error(), program_exists: 0 };
    for program in &child.programs {
        let errno = exec::execve(program, &child.argv, &child.env);
        let report = |exists| Report {
            op: EXEC,
            errno: errno.raw_os_error(),
            program_exists: u32::from(exists),
        };
        match errno {
            Errno::NOENT | Errno::NOTDIR => {
                let found = rustix::fs::statat(CWD, program.as_c_str(), AtFlags::empty()).is_ok();
                if found {
                    return report(true);
                }
            }
            // Another folder may have one that may be executed.
            Errno::ACCESS => worst = report(true),
            _ => return report(true),
        }
    }
    worst
}
