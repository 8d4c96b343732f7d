//! The root file system of a step, as a mount that is in no mount table.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

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
    /// Puts `lowers`, base first, under the writable folder `upper`; `work` is an empty folder
    /// on the same file system. Whiteouts and opaque folders appear in `upper` as overlayfs
    /// writes them, their attributes named `trusted.overlay.*`, or `user.overlay.*` in a user
    /// namespace.
    ///
    /// Nothing is synced to disk on behalf of the mount (`volatile`): a folder that must survive
    /// a crash of the machine is to be synced by its owner.
    ///
    /// # Errors
    /// `Overlay`, with the likely cause.
    pub fn overlay(
        lowers: &[BorrowedFd<'_>],
        upper: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
    ) -> Result<Self, SandboxError> {
        let root = overlay(lowers, upper, work).map_err(overlay_error)?;
        Ok(Self { root })
    }

    /// Takes a plain folder as it is; what a command changes is changed in it.
    ///
    /// # Errors
    /// `Setup` with the kernel's answer.
    pub fn bind(folder: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup("bind a folder as root", errno);
        let root = clone_tree(folder).map_err(failed)?;
        mount::restrict_tree(root.as_fd(), 0).map_err(failed)?;
        Ok(Self { root })
    }

    /// A descriptor (`O_PATH`) of the root, to resolve paths below it with
    /// `openat2(RESOLVE_IN_ROOT)`, before and after a command ran.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn overlay(
    lowers: &[BorrowedFd<'_>],
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
) -> rustix::io::Result<OwnedFd> {
    if lowers.len() > MAX_LOWERS {
        return Err(Errno::TOOBIG);
    }
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    // Top first. By descriptor, so that it does not matter how long or odd the paths are.
    for lower in lowers.iter().rev() {
        rustix::mount::fsconfig_set_string(context, c"lowerdir+", path_of(*lower)?.as_c_str())?;
    }
    rustix::mount::fsconfig_set_string(context, c"upperdir", path_of(upper)?.as_c_str())?;
    rustix::mount::fsconfig_set_string(context, c"workdir", path_of(work)?.as_c_str())?;
    for (key, value) in options(in_user_namespace()) {
        rustix::mount::fsconfig_set_string(context, *key, *value)?;
    }
    if in_user_namespace() {
        rustix::mount::fsconfig_set_flag(context, c"userxattr")?;
    }
    rustix::mount::fsconfig_set_flag(context, c"volatile")?;
    rustix::mount::fsconfig_create(context)?;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// What keeps the upper folder a plain picture of the changes: no renames by reference, no
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

fn path_of(folder: BorrowedFd<'_>) -> rustix::io::Result<CString> {
    CString::new(format!("/proc/self/fd/{}", folder.as_raw_fd())).map_err(|_error| Errno::INVAL)
}

fn overlay_error(errno: Errno) -> SandboxError {
    let help = match errno {
        Errno::NODEV => "this kernel has no overlayfs; load it with `modprobe overlay`",
        Errno::INVAL => {
            "the store lies on a file system that cannot be an overlay's upper layer (another \
             overlay, NFS, FAT, …), or the kernel is older than 6.8; choose another place with \
             `--root`"
        }
        Errno::TOOBIG => "there are more than 500 layers",
        Errno::PERM | Errno::ACCESS => {
            "not permitted; inside a container, start it with the right to mount, and as an \
             ordinary user the kernel must be 5.11 or newer"
        }
        Errno::LOOP => "the layers are stacked too deep: the store itself lies on an overlay",
        Errno::BUSY => "its upper or work folder is in use by another mount",
        _ => "see the kernel's log (`dmesg`) for what it did not like",
    };
    SandboxError::Overlay { help: help.to_owned(), source: errno.into() }
}
