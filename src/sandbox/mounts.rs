//! The mounts that the child makes, with the new mount calls of Linux 5.2 (fsopen(2), open_tree(2),
//! move_mount(2)). Mount points are found by descriptors inside the rootfs, never by a path that an
//! image's links could redirect. Allocates nothing.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::devices::Device;
use super::prepared::{MountTarget, NewFilesystem};
use super::sys::mount;
use super::{detached_mount, verify};

/// Mounts the rootfs over the old root directory rather than inside it, so no directory of the host
/// is needed. Absolute paths still lead into the old root; only the descriptor `root` leads into
/// the new one.
pub(super) fn attach_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::mount::move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Opens `path` in the rootfs; no symbolic link of an image can lead out of it (openat2(2),
/// `RESOLVE_IN_ROOT`).
pub(super) fn resolve(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    open_in(root, path, OFlags::PATH | OFlags::CLOEXEC)
}

/// Maximum number of attempts for a lookup that a rename elsewhere interrupted (openat2(2),
/// `EAGAIN`).
const MAX_LOOKUPS: u32 = 16;

/// Opens `path` in the rootfs with `flags`, following no magic links.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    open_within(root, path, flags, ResolveFlags::empty())
}

fn open_within(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    for _ in 0..MAX_LOOKUPS {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn resolve_or_create_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open_in(root, path, directory) {
        Err(Errno::NOENT) => {
            // Only top-level directories such as `/proc` can be missing here. The name is created
            // in the root itself, so a link of that name is an error.
            let name = path.to_bytes_with_nul();
            let name = name.strip_prefix(b"/").unwrap_or(name);
            let name = CStr::from_bytes_with_nul(name).map_err(|_error| Errno::INVAL)?;
            rustix::fs::mkdirat(root, name, Mode::from(0o755))?;
            open_in(root, path, directory)
        }
        result => result,
    }
}

/// Resolves a mount point, and creates it and its parent directories where they are missing. A
/// dangling link is an error.
pub(super) fn resolve_or_create(
    root: BorrowedFd<'_>,
    target: &MountTarget,
    is_directory: bool,
) -> Result<OwnedFd> {
    match resolve(root, &target.path) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut left = target.parts.len();
    for (parent, name) in &target.parts {
        left = left.saturating_sub(1);
        let directory = open_to_create_in(root, parent)?;
        let made = if left == 0 && !is_directory {
            let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&directory, name.as_c_str(), new, Mode::from(0o644)).map(drop)
        } else {
            rustix::fs::mkdirat(&directory, name.as_c_str(), Mode::from(0o755))
        };
        match made {
            Err(Errno::EXIST) | Ok(()) => {}
            // An existing directory may be on a read-only mount.
            Err(Errno::ROFS) if left > 0 => {}
            Err(errno) => return Err(errno),
        }
    }
    resolve(root, &target.path)
}

/// Opens a directory in which a mount point may be created. Refuses one of the rootfs that is
/// reached by a link in another mount: that mount may be a cache, in which a concurrent step places
/// links. What is created through such a link would stay in this step's layer (CVE-2024-45310 in
/// runc).
fn open_to_create_in(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open_within(root, path, directory, ResolveFlags::NO_XDEV) {
        Err(Errno::XDEV) => {}
        result => return result,
    }
    let opened = open_in(root, path, directory)?;
    let mount = verify::mount_id(opened.as_fd(), c"");
    if mount.is_some() && mount != verify::mount_id(root, c"") {
        Ok(opened)
    } else {
        Err(Errno::XDEV)
    }
}

/// Makes the descriptor `mount`, of a detached mount, refer to `path` in it. Before Linux 6.15 only
/// a mount that is attached in this namespace can be cloned in part. So it is attached on top of
/// the old root, and goes away with it.
pub(super) fn locate(mount: BorrowedFd<'_>, path: &CStr, attributes: u64) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    match rustix::mount::move_mount(mount, c"", CWD, c"/", flags) {
        // It is already attached: another path in it was located before.
        Ok(()) | Err(Errno::LOOP) => {}
        Err(errno) => return Err(errno),
    }
    let place = resolve(mount, path)?;
    let part = clone_path(place.as_fd(), c"", OpenTreeFlags::AT_EMPTY_PATH)?;
    mount::restrict_tree(part.as_fd(), attributes)?;
    mount::replace(mount, part.as_fd())
}

/// Attaches the detached mount `mount` on `place` (move_mount(2)).
pub(super) fn move_onto(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", place, c"", whole)
}

/// Creates a file system and mounts it on its target (fsopen(2), fsconfig(2), fsmount(2)).
pub(super) fn mount_filesystem(root: BorrowedFd<'_>, filesystem: &NewFilesystem) -> Result<()> {
    let NewFilesystem { kind, options, attributes, target } = filesystem;
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

/// Attributes of a mount without set-id programs, devices and executables.
const RESTRICTED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Mounts a sysfs at `/sys`. A user namespace that does not own the network namespace may not
/// create one (user_namespaces(7)). It then gets a copy of the host's; where that is refused too,
/// none.
pub(super) fn mount_sys(root: BorrowedFd<'_>, read_only: bool) -> Result<()> {
    let place = resolve_or_create_directory(root, c"/sys")?;
    let attributes =
        if read_only { RESTRICTED.union(MountAttrFlags::MOUNT_ATTR_RDONLY) } else { RESTRICTED };
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

fn clone_path(directory: BorrowedFd<'_>, path: &CStr, more: OpenTreeFlags) -> Result<OwnedFd> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(directory, path, copy | more)
}

/// Creates a device node of the step's own, so changes of its mode or owner stay in the step.
/// `/dev` itself is mounted `nodev`; the node is therefore mounted over itself without that flag.
pub(super) fn make_device(
    root: BorrowedFd<'_>,
    host: &CStr,
    name: &CStr,
    device: Device,
) -> Result<()> {
    let dev = resolve(root, c"/dev")?;
    let (major, minor) = device.number;
    let number = rustix::fs::makedev(major, minor);
    let mode = Mode::from(0o666);
    match rustix::fs::mknodat(dev.as_fd(), name, FileType::CharacterDevice, mode, number) {
        Ok(()) => {}
        Err(Errno::PERM) => return bind_device(dev.as_fd(), host, name),
        Err(errno) => return Err(errno),
    }
    let own = clone_path(dev.as_fd(), name, OpenTreeFlags::empty())?;
    mount::allow_devices(own.as_fd())?;
    move_onto(own.as_fd(), open_path(dev.as_fd(), name)?.as_fd())
}

/// Mounts a device of the host, read-only because its inode belongs to the host. mknod(2) fails
/// with `EPERM` in a user namespace.
fn bind_device(dev: BorrowedFd<'_>, host: &CStr, name: &CStr) -> Result<()> {
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(dev, name, new, Mode::from(0o666))?);
    let device = clone_path(CWD, host, OpenTreeFlags::empty())?;
    mount::restrict_tree(device.as_fd(), mount::READ_ONLY | mount::NO_SUID | mount::NO_EXEC)?;
    move_onto(device.as_fd(), open_path(dev, name)?.as_fd())
}

/// Opens a name in `directory` that this process has just created.
fn open_path(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Makes the files at and below `path` read-only by a mount over it, if it exists.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> Result<()> {
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

/// Name of the file that is mounted over masked files.
const BLANK_FILE: &CStr = c"file";
/// Name of the directory that is mounted over masked directories.
const BLANK_DIRECTORY: &CStr = c"directory";

/// Mounts a read-only tmpfs with [`BLANK_FILE`] and [`BLANK_DIRECTORY`] on `/proc`, where the
/// step's own procfs will hide it.
pub(super) fn make_blanks(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let blanks = detached_mount::new_tmpfs()?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&blanks, BLANK_FILE, new, Mode::from(0o444))?);
    rustix::fs::mkdirat(&blanks, BLANK_DIRECTORY, Mode::from(0o555))?;
    let attributes = mount::READ_ONLY | mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;
    mount::restrict_tree(blanks.as_fd(), attributes)?;
    move_onto(blanks.as_fd(), resolve_or_create_directory(root, c"/proc")?.as_fd())?;
    Ok(blanks)
}

/// Mounts an empty file or directory of `blanks` over `path`, if it exists.
pub(super) fn mask(root: BorrowedFd<'_>, path: &CStr, blanks: Option<&OwnedFd>) -> Result<()> {
    let place = match resolve(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        place => place?,
    };
    let about = rustix::fs::fstat(&place)?;
    let is_directory = FileType::from_raw_mode(about.st_mode).is_dir();
    let name = if is_directory { BLANK_DIRECTORY } else { BLANK_FILE };
    let blanks = blanks.ok_or(Errno::INVAL)?.as_fd();
    // A clone keeps the attributes of its mount, here read-only.
    move_onto(clone_path(blanks, name, OpenTreeFlags::empty())?.as_fd(), place.as_fd())
}
