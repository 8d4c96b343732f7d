//! The root file system of a step, as a mount that is in no mount table.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};
use rustix::thread::CapabilitySet;

use super::caps;
use super::idmap::in_user_namespace;
use super::prepare::clone_tree;
use super::spec::SandboxError;
use super::sys::mount;

/// A detached mount: it is gone when the last descriptor of it is, at the latest when the process
/// dies.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
}

/// More lowers than this the kernel does not take (`OVL_MAX_STACK`).
pub const MAX_LOWERS: usize = 500;

impl Rootfs {
    /// Puts `lowers`, base first, under the writable directory `upper`; `work` is an empty directory
    /// on the same file system. Whiteouts and opaque directories appear in `upper` as overlayfs
    /// writes them, their attributes named `trusted.overlay.*`, or `user.overlay.*` in a user
    /// namespace.
    ///
    /// Nothing is synced to disk on behalf of the mount (`volatile`): a directory that must survive
    /// a crash of the machine is to be synced by its owner.
    ///
    /// # Errors
    /// `Overlay`, with the likely cause.
    pub fn overlay(
        lowers: &[BorrowedFd<'_>],
        upper: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
    ) -> Result<Self, SandboxError> {
        let rootfs = Self::overlay_with_devices(lowers, upper, work)?;
        // A command may make devices, but not open them: there is no device cgroup to refuse it.
        mount::restrict_tree(rootfs.as_fd(), mount::NO_DEV).map_err(overlay_error)?;
        Ok(rootfs)
    }

    /// As [`Rootfs::overlay`], for a command that may do all that the caller may: it can also open the
    /// devices that it makes, as debootstrap does.
    ///
    /// # Errors
    /// As there.
    pub fn overlay_with_devices(
        lowers: &[BorrowedFd<'_>],
        upper: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
    ) -> Result<Self, SandboxError> {
        let root = overlay(lowers, Some(Upper { upper, work })).map_err(overlay_error)?;
        Ok(Self { root })
    }

    /// Takes a plain directory as it is; what a command changes is changed in it.
    ///
    /// # Errors
    /// `Setup` with the kernel's answer.
    pub fn bind(directory: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup("bind a directory as root", errno);
        let root = clone_tree(directory).map_err(failed)?;
        mount::restrict_tree(root.as_fd(), mount::NO_DEV).map_err(failed)?;
        Ok(Self { root })
    }

    /// The mount itself, for use as part of another root.
    #[must_use]
    pub fn into_mount(self) -> OwnedFd {
        self.root
    }

    /// A descriptor (`O_PATH`) of the root, to resolve paths below it with
    /// `openat2(RESOLVE_IN_ROOT)`, before and after a command ran.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Several directories, base first, as one that only shows them: a mount that is in no mount table. It may
/// be a lower of [`Rootfs::overlay`], but not of another one of its own kind: the kernel stacks
/// overlays two deep.
///
/// # Errors
/// `Overlay`, with the likely cause.
pub fn merged_directories(lowers: &[BorrowedFd<'_>]) -> Result<OwnedFd, SandboxError> {
    overlay(lowers, None).map_err(overlay_error)
}

/// An empty directory in memory, as a mount that is in no mount table: what is in it is on no disk,
/// and gone with the last descriptor and the last mount of it.
///
/// # Errors
/// `Setup` with the kernel's answer.
pub fn memory_directory() -> Result<OwnedFd, SandboxError> {
    detached_tmpfs().map_err(|errno| SandboxError::setup("make a directory in memory", errno))
}

/// A new tmpfs, mounted nowhere. Allocates nothing.
pub(super) fn detached_tmpfs() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", c"0755")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Where an overlay puts changes.
#[derive(Clone, Copy)]
struct Upper<'a> {
    upper: BorrowedFd<'a>,
    work: BorrowedFd<'a>,
}

fn overlay(lowers: &[BorrowedFd<'_>], upper: Option<Upper<'_>>) -> rustix::io::Result<OwnedFd> {
    if lowers.len() > MAX_LOWERS {
        return Err(Errno::TOOBIG);
    }
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    // Top first. By descriptor, so that it does not matter how long or odd the paths are.
    for (index, lower) in lowers.iter().rev().enumerate() {
        match rustix::mount::fsconfig_set_string(context, c"lowerdir+", path_of(*lower)?.as_c_str())
        {
            Err(Errno::INVAL) if index == 0 => return overlay_by_path(lowers, upper),
            result => result?,
        }
    }
    if let Some(Upper { upper, work }) = upper {
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

/// For kernels before 6.8, which take all lowers in one option: mounts at a directory of its own for
/// a moment, and takes the mount from there.
fn overlay_by_path(
    lowers: &[BorrowedFd<'_>],
    upper: Option<Upper<'_>>,
) -> rustix::io::Result<OwnedFd> {
    let place = tempfile::tempdir().map_err(|_error| Errno::NOENT)?;
    let lowers = lowers.iter().rev().map(|lower| Ok(path_of(*lower)?.into_bytes()));
    let lowers = lowers.collect::<rustix::io::Result<Vec<_>>>()?.join(&b':');
    let mut all = [b"lowerdir=".as_slice(), &lowers].concat();
    if let Some(Upper { upper, work }) = upper {
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
        .and_then(|directory| clone_tree(directory.as_fd()))
        .and_then(|tree| mount::restrict_tree(tree.as_fd(), 0).map(|()| tree));
    rustix::mount::unmount(place.path(), UnmountFlags::DETACH)?;
    tree
}

/// mount(2) takes a page of options, and more lowers than fit need a newer kernel.
const MAX_OPTION_BYTES: usize = 4096;

/// What keeps the upper directory a plain picture of the changes: no renames by reference, no
/// entries without their content, no index.
fn options(user_namespace: bool) -> &'static [(&'static std::ffi::CStr, &'static std::ffi::CStr)] {
    if user_namespace {
        // `userxattr` itself excludes redirects and content-less entries.
        return &[(c"index", c"off"), (c"xino", c"off")];
    }
    &[
        // And does not follow any that an image brought along.
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
        && let Some(names) = caps::lacking(NEEDED)
    {
        let help = format!(
            "rbuild lacks {names}; give it to the container that it is in (`--cap-add`), or run \
             rbuild as an ordinary user"
        );
        return SandboxError::Overlay { help, source: errno.into() };
    }
    let help = match errno {
        Errno::NODEV => "this kernel has no overlayfs; load it with `modprobe overlay`",
        Errno::INVAL => {
            "the store lies on a file system that cannot be an overlay's upper layer (another \
             overlay, NFS, FAT, …), or the kernel is older than 6.8; choose another place with \
             `--root`"
        }
        Errno::TOOBIG => "there are more than 500 layers, or more than 200 and a kernel before 6.8",
        Errno::PERM | Errno::ACCESS => {
            "not permitted; inside a container, start it with the right to mount, and as an \
             ordinary user the kernel must be 5.11 or newer"
        }
        Errno::LOOP => "the layers are stacked too deep: the store itself lies on an overlay",
        Errno::MFILE => "rbuild has too many files open; raise the limit with `ulimit -n`",
        Errno::NFILE => "the machine has too many files open; raise the limit `fs.file-max`",
        Errno::NOMEM => "the machine, or the cgroup that rbuild is in, has no memory left",
        Errno::NOSPC => {
            "the disk of the store is full, or the limit on mounts (`fs.mount-max`) is reached"
        }
        Errno::BUSY => "its upper or work directory is in use by another mount",
        _ => "see the kernel's log (`dmesg`) for what it did not like",
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
    fn limits_are_named_and_not_the_kernels_log() {
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
    fn priv_the_way_for_older_kernels_mounts_the_same() {
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
        let root = overlay_by_path(&[base, top], Some(Upper { upper, work })).unwrap();
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
