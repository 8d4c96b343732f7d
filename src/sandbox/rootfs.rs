//! The root file system of a step, as a detached mount.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};
use rustix::thread::CapabilitySet;

use super::attributes::EmulatedFiles;
use super::caps;
use super::detached_mount;
use super::error::SandboxError;
use super::file_time::FileTime;
use super::isolation::{Isolation, isolation};
use super::sys::mount;
use super::user_namespace::in_user_namespace;

/// The root of a step as a detached mount. It is unmounted with its last descriptor, at the latest
/// when the process ends.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
    /// Attributes that the disk does not hold; empty unless owners are emulated.
    attributes: Mutex<EmulatedFiles>,
    /// The time that separates its files from those of a step; `None` if it is not known.
    started: Option<FileTime>,
}

/// Maximum number of lower directories that overlayfs accepts (`OVL_MAX_STACK`,
/// fs/overlayfs/params.h).
pub const MAX_LOWERS: usize = 500;

impl Rootfs {
    /// Mounts an overlay of `lowers`, base first, under the writable directory `upper`. `work` must
    /// be an empty directory on the same file system. Overlayfs records deletions in `upper` as
    /// whiteouts and opaque directories (<https://docs.kernel.org/filesystems/overlayfs.html>).
    /// Their attributes are named `trusted.overlay.*`, or `user.overlay.*` in a user namespace.
    ///
    /// The mount syncs nothing to disk (`volatile`): the owner of a directory that must survive a
    /// crash of the machine has to sync it.
    ///
    /// # Errors
    /// [`SandboxError::Overlay`], with the likely cause.
    pub fn overlay(
        lowers: &[BorrowedFd<'_>],
        upper: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
    ) -> Result<Self, SandboxError> {
        let rootfs = Self::overlay_with_devices(lowers, upper, work)?;
        // A command may create devices but not open them: no device cgroup restricts it.
        mount::restrict_tree(rootfs.as_fd(), mount::NO_DEV).map_err(overlay_error)?;
        Ok(rootfs)
    }

    /// Mounts an overlay like [`Rootfs::overlay`], for a command with all rights of the caller. It
    /// can also open the devices that it creates, as debootstrap(8) does.
    ///
    /// # Errors
    /// [`SandboxError::Overlay`], with the likely cause.
    pub fn overlay_with_devices(
        lowers: &[BorrowedFd<'_>],
        upper: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
    ) -> Result<Self, SandboxError> {
        let root = overlay(lowers, Some(UpperDirectories { upper, work }))
            .and_then(|root| check_writable(root.as_fd(), upper).map(|()| root));
        Ok(Self::new(root.map_err(overlay_error)?))
    }

    /// Uses a plain directory as root, without a copy: changes by a command are made in it.
    ///
    /// # Errors
    /// [`SandboxError::Setup`], with the kernel's error.
    pub fn bind(directory: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        Self::bind_denying(mount::NO_DEV, directory)
    }

    fn bind_denying(denied: u64, directory: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup("bind a directory as root", errno);
        let root = detached_mount::clone_tree(directory).map_err(failed)?;
        mount::restrict_tree(root.as_fd(), denied).map_err(failed)?;
        Ok(Self::new(root))
    }

    /// Uses a plain directory as root, without a copy, under any isolation. `attributes` are those of
    /// its files that the disk does not hold. All its files are older than `started`, and new ones are
    /// not.
    ///
    /// # Errors
    /// [`SandboxError::Setup`], with the kernel's error.
    pub fn in_place(
        directory: BorrowedFd<'_>,
        attributes: EmulatedFiles,
        started: FileTime,
    ) -> Result<Self, SandboxError> {
        let rootfs = Self::in_place_denying(mount::NO_DEV, directory)?;
        Ok(Self { attributes: Mutex::new(attributes), started: Some(started), ..rootfs })
    }

    /// Uses a directory like [`Rootfs::in_place`], for a command with all rights of the caller: it can
    /// also open devices.
    ///
    /// # Errors
    /// [`SandboxError::Setup`], with the kernel's error.
    pub fn in_place_with_devices(
        directory: BorrowedFd<'_>,
        attributes: EmulatedFiles,
        started: FileTime,
    ) -> Result<Self, SandboxError> {
        let rootfs = Self::in_place_denying(0, directory)?;
        Ok(Self { attributes: Mutex::new(attributes), started: Some(started), ..rootfs })
    }

    fn in_place_denying(denied: u64, directory: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        if isolation().is_some_and(Isolation::may_mount) {
            return Self::bind_denying(denied, directory);
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(directory, 3);
        let copy = copy.map_err(|errno| SandboxError::setup("open a root directory", errno))?;
        Ok(Self::new(copy))
    }

    fn new(root: OwnedFd) -> Self {
        Self { root, attributes: Mutex::default(), started: None }
    }

    /// Returns a time that separates its files from those of a step that starts now, if it is known.
    pub(super) const fn started(&self) -> Option<FileTime> {
        self.started
    }

    /// Returns the attributes of files that the disk does not hold, as the last command left them.
    pub fn take_attributes(&self) -> EmulatedFiles {
        std::mem::take(&mut *self.lock_attributes())
    }

    /// Begins to note changes of attributes; see [`EmulatedFiles::is_changed`].
    pub fn begin_attributes(&self) {
        self.lock_attributes().begin();
    }

    /// Locks the attributes; a supervisor updates them while a command runs.
    pub(super) fn lock_attributes(&self) -> MutexGuard<'_, EmulatedFiles> {
        self.attributes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the mount itself, for use as part of another root.
    #[must_use]
    pub fn into_mount(self) -> OwnedFd {
        self.root
    }

    /// Returns a descriptor (`O_PATH`) of the root, to resolve paths below it by openat2(2) with
    /// `RESOLVE_IN_ROOT`, before and after a command has run.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Mounts an overlay of several directories, base first, without an upper directory: it is
/// read-only. The detached mount may be a lower directory of [`Rootfs::overlay`], but not of
/// another merged mount, because overlayfs stacks at most two deep (`FILESYSTEM_MAX_STACK_DEPTH`).
///
/// # Errors
/// [`SandboxError::Overlay`], with the likely cause.
pub fn merged_directories(lowers: &[BorrowedFd<'_>]) -> Result<OwnedFd, SandboxError> {
    overlay(lowers, None).map_err(overlay_error)
}

/// Checks that the mount is writable: where overlayfs cannot create its work directory, it mounts
/// read-only and reports that in the kernel log alone (`ovl_get_workdir`, fs/overlayfs/super.c).
///
/// # Errors
/// `NOSPC` if the file system of `upper` has neither space nor inodes left, else `ROFS`.
fn check_writable(root: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if !rustix::fs::fstatvfs(root)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let disk = rustix::fs::fstatvfs(upper)?;
    let is_full = disk.f_bavail < MIN_FREE || disk.f_files > 0 && disk.f_favail < MIN_FREE;
    Err(if is_full { Errno::NOSPC } else { Errno::ROFS })
}

/// Number of blocks and of inodes that the work directory takes: two directories and a file.
const MIN_FREE: u64 = 3;

/// The writable directories of an overlay.
#[derive(Clone, Copy)]
struct UpperDirectories<'a> {
    upper: BorrowedFd<'a>,
    work: BorrowedFd<'a>,
}

fn overlay(
    lowers: &[BorrowedFd<'_>],
    upper: Option<UpperDirectories<'_>>,
) -> rustix::io::Result<OwnedFd> {
    if lowers.len() > MAX_LOWERS {
        return Err(Errno::TOOBIG);
    }
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    // Topmost first, as `lowerdir+` wants them. Paths of descriptors are short and need no escaping
    // of `:` and `,`.
    for (index, lower) in lowers.iter().rev().enumerate() {
        match rustix::mount::fsconfig_set_string(context, c"lowerdir+", path_of(*lower)?.as_c_str())
        {
            // `lowerdir+` is unknown before Linux 6.8.
            Err(Errno::INVAL) if index == 0 => return overlay_by_path(lowers, upper),
            result => result?,
        }
    }
    if let Some(UpperDirectories { upper, work }) = upper {
        rustix::mount::fsconfig_set_string(context, c"upperdir", path_of(upper)?.as_c_str())?;
        rustix::mount::fsconfig_set_string(context, c"workdir", path_of(work)?.as_c_str())?;
        rustix::mount::fsconfig_set_flag(context, c"volatile")?;
    }
    for (key, value) in options(in_user_namespace()) {
        rustix::mount::fsconfig_set_string(context, *key, *value)?;
    }
    if in_user_namespace() {
        rustix::mount::fsconfig_set_flag(context, c"userxattr")?;
    }
    rustix::mount::fsconfig_create(context)?;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Mounts the overlay on kernels before 6.8, which take all lower directories in one option: at a
/// temporary directory, from which the mount is then cloned.
fn overlay_by_path(
    lowers: &[BorrowedFd<'_>],
    upper: Option<UpperDirectories<'_>>,
) -> rustix::io::Result<OwnedFd> {
    let place = tempfile::tempdir().map_err(|_error| Errno::NOENT)?;
    let lowers = lowers.iter().rev().map(|lower| Ok(path_of(*lower)?.into_bytes()));
    let lowers = lowers.collect::<rustix::io::Result<Vec<_>>>()?.join(&b':');
    let mut all = [b"lowerdir=".as_slice(), &lowers].concat();
    if let Some(UpperDirectories { upper, work }) = upper {
        let (upper, work) = (path_of(upper)?, path_of(work)?);
        let paths = [b",upperdir=", upper.to_bytes(), b",workdir=", work.to_bytes()];
        all.extend([paths.concat().as_slice(), b",volatile"].concat());
    }
    for (key, value) in options(in_user_namespace()) {
        all.extend([b",", key.to_bytes(), b"=", value.to_bytes()].concat());
    }
    all.extend(if in_user_namespace() { b",userxattr".as_slice() } else { b"" });
    if all.len() >= MAX_OPTION_BYTES {
        return Err(Errno::TOOBIG);
    }
    let all = CString::new(all).map_err(|_error| Errno::INVAL)?;
    let (kind, flags) = (c"overlay", MountFlags::empty());
    rustix::mount::mount(kind, place.path(), kind, flags, all.as_c_str())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tree = rustix::fs::open(place.path(), flags, Mode::empty())
        .and_then(|directory| detached_mount::clone_tree(directory.as_fd()))
        .and_then(|tree| mount::restrict_tree(tree.as_fd(), 0).map(|()| tree));
    rustix::mount::unmount(place.path(), UnmountFlags::DETACH)?;
    tree
}

/// The size of the options that mount(2) accepts: one page. More lower directories than fit need a
/// newer kernel.
const MAX_OPTION_BYTES: usize = 4096;

/// Returns options that make the upper directory a plain record of the changes: no `redirect_dir`
/// renames, no `metacopy` entries without content, no index.
fn options(user_namespace: bool) -> &'static [(&'static std::ffi::CStr, &'static std::ffi::CStr)] {
    if user_namespace {
        // `userxattr` itself disables redirects and `metacopy`.
        return &[(c"index", c"off"), (c"xino", c"off")];
    }
    &[
        // Ignores redirects that an image may contain.
        (c"redirect_dir", c"nofollow"),
        (c"metacopy", c"off"),
        (c"index", c"off"),
        (c"xino", c"off"),
    ]
}

fn path_of(directory: BorrowedFd<'_>) -> rustix::io::Result<CString> {
    CString::new(format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(|_error| Errno::INVAL)
}

fn overlay_error(errno: Errno) -> SandboxError {
    const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::DAC_OVERRIDE);
    if let Errno::PERM | Errno::ACCESS = errno
        && let Some(names) = caps::missing(NEEDED)
    {
        let help = format!(
            "rbuild lacks {names}: start its container with them (`--cap-add`), or run rbuild as \
             an ordinary user"
        );
        return SandboxError::Overlay { help, source: errno.into() };
    }
    let help = match errno {
        Errno::NODEV => "this kernel has no overlayfs; load it with `modprobe overlay`",
        Errno::INVAL => {
            "the store is on a file system that cannot hold an overlay's upper directory (another \
             overlay, NFS, FAT, …), or the kernel is older than 6.8; choose another directory with \
             `--root`"
        }
        Errno::TOOBIG => "more than 500 layers, or more than 200 on a kernel before 6.8",
        Errno::PERM | Errno::ACCESS => {
            "not permitted; a container needs the right to mount, and an ordinary user needs Linux \
             5.11 or newer"
        }
        Errno::LOOP => "overlays are stacked too deep: the store itself is on an overlay",
        Errno::MFILE => "rbuild has too many files open; raise the limit with `ulimit -n`",
        Errno::NFILE => "the machine has too many files open; raise the limit `fs.file-max`",
        Errno::NOMEM => "the machine, or the cgroup of rbuild, is out of memory",
        Errno::NOSPC => {
            "the disk of the store is full, or the limit on mounts (`fs.mount-max`) is reached"
        }
        Errno::BUSY => "its upper or work directory is in use by another mount",
        _ => "see the kernel log (`dmesg`) for the reason",
    };
    SandboxError::Overlay { help: help.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make their own files")]

    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn overlay_error_names_the_limit_that_was_reached() {
        for (errno, want) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::NOSPC, "fs.mount-max"),
            (Errno::NOMEM, "memory"),
        ] {
            let text = overlay_error(errno).to_string();
            assert!(text.contains(want) && !text.contains("dmesg"), "{text}");
        }
    }

    #[test]
    fn priv_overlay_by_path_mounts_the_same_files() {
        if !super::super::caps::has_sys_admin() {
            assert!(std::env::var_os("RBUILD_REQUIRE").is_none(), "required: the right to mount");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let directories = ["base", "top", "upper", "work"].map(|name| {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("name"), name).unwrap();
            open(&path)
        });
        std::fs::remove_file(directory.path().join("upper/name")).unwrap();
        let [base, top, upper, work] = directories.each_ref().map(OwnedFd::as_fd);
        let before = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = overlay_by_path(&[base, top], Some(UpperDirectories { upper, work })).unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), before);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, "name", flags, Mode::empty()).unwrap();
        let mut content = [0; 8];
        let len = rustix::io::read(file, &mut content).unwrap();
        assert_eq!(&content[..len], b"top");
        rustix::fs::unlinkat(&root, "name", rustix::fs::AtFlags::empty()).unwrap();
        assert!(directory.path().join("upper/name").symlink_metadata().is_ok(), "a whiteout");
    }
}
