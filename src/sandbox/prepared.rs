//! A step's operations with all that the child needs to apply them: C strings, descriptors, arrays.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::mount::MountAttrFlags;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::CapabilitySet;

use super::c_strings;
use super::devices::Device;
use super::spec::KeptMounts;
use super::sys::exec::StringArray;
use super::verify::Expected;

/// A file system to create, and its mount point.
#[derive(Debug)]
pub(super) struct NewFilesystem {
    pub(super) kind: CString,
    /// Keys and values for fsconfig(2); an empty value means a flag.
    pub(super) options: Vec<(CString, CString)>,
    pub(super) attributes: MountAttrFlags,
    pub(super) target: MountTarget,
}

/// A mount point in the rootfs, which is created if it is missing.
#[derive(Debug)]
pub(super) struct MountTarget {
    pub(super) path: CString,
    /// For each directory from the top down, and at last the mount point itself: the path of its
    /// parent, and its name there.
    pub(super) parts: Vec<(CString, CString)>,
}

impl MountTarget {
    pub(super) fn new(path: &Path) -> rustix::io::Result<Self> {
        let mut parts = Vec::new();
        for part in path.ancestors() {
            if let (Some(parent), Some(name)) = (part.parent(), part.file_name()) {
                parts.push((c_strings::try_new(parent)?, c_strings::try_new(name)?));
            }
        }
        parts.reverse();
        Ok(Self { path: c_strings::try_new(path)?, parts })
    }
}

/// An operation of `SetupOp` with its arguments converted for system calls. Its variants have the
/// same names.
#[derive(Debug)]
pub(super) enum PreparedOp<'a> {
    PrivatePropagation,
    AttachRoot,
    JoinMounts(&'a KeptMounts),
    Terminals {
        directory: BorrowedFd<'a>,
        target: MountTarget,
    },
    Filesystem(NewFilesystem),
    Sys {
        read_only: bool,
    },
    DevDirectory(CString),
    DevNode {
        host: CString,
        name: CString,
        device: Device,
    },
    DevLink {
        name: CString,
        to: CString,
    },
    ReadOnly(CString),
    Blanks,
    Mask(CString),
    /// `mount` is a descriptor of the step's own; the child replaces what it refers to by `path` in
    /// it.
    Locate {
        mount: Arc<OwnedFd>,
        path: CString,
        attributes: u64,
    },
    Bind {
        mount: Arc<OwnedFd>,
        target: MountTarget,
    },
    /// Files that move the process which writes `0` to them.
    EnterCgroup(Vec<BorrowedFd<'a>>),
    JoinNetwork(BorrowedFd<'a>),
    Loopback,
    Hostname(&'a str),
    PivotRoot {
        /// True if the mount namespace is then sent to rbuild.
        kept: bool,
    },
    EnterDirectory(CString),
    Streams {
        uid: Uid,
        gid: Gid,
    },
    Signals,
    Session,
    ControllingTerminal,
    Umask(u32),
    Limit(Resource, Rlimit),
    Seccomp(&'static [libc::sock_filter]),
    BoundingSet(CapabilitySet),
    Become {
        uid: Uid,
        gid: Gid,
        groups: Vec<Gid>,
    },
    Capabilities(CapabilitySet),
    DieWithParent,
    RenewDieWithParent,
    /// The Landlock ruleset; `None` where the kernel lacks Landlock or its scopes.
    ScopeSockets(Option<BorrowedFd<'static>>),
    CloseDescriptors {
        /// True if the socket to rbuild stays open.
        keeps_socket: bool,
    },
    Supervise(Vec<libc::sock_filter>),
    Verify(Expected),
}

/// Everything that the child reads between clone and exec.
#[derive(Debug)]
pub(super) struct PreparedChild<'a> {
    pub(super) ops: Vec<PreparedOp<'a>>,
    pub(super) root: BorrowedFd<'a>,
    /// The candidate paths of the program, in order.
    pub(super) programs: Vec<CString>,
    /// The launcher's file; its code tries `programs`.
    pub(super) launcher: OwnedFd,
    pub(super) argv: StringArray,
    pub(super) env: StringArray,
    /// A pidfd of rbuild, which becomes readable when rbuild dies.
    pub(super) parent: OwnedFd,
}
