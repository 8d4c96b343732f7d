//! Makes everything that the child needs, while allocating is still allowed: C strings,
//! descriptors, arrays.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use rustix::process::{Gid, PidfdFlags, Resource, Rlimit, Uid};
use rustix::thread::CapabilitySet;

use super::devices::Device;
use super::launcher;
use super::ops::{self, DEV_PTS, MountFlags, SetupOp};
use super::rootfs::Rootfs;
use super::seccomp;
use super::spec::{Kept, Limit, Mount, MountSource, RunSpec, SandboxError, View};
use super::sys::exec::StringArray;
use super::sys::{landlock, mount};
use super::terminal::Terminal;
use super::verify::Expected;

/// A new file system and where it goes.
#[derive(Debug)]
pub(super) struct Filesystem {
    pub(super) kind: CString,
    /// An empty value means a flag.
    pub(super) options: Vec<(CString, CString)>,
    pub(super) attributes: MountAttrFlags,
    pub(super) target: Target,
}

/// A place in the rootfs, which is made when it is missing.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: CString,
    /// The directories above it and their own names, top first; then itself.
    pub(super) parts: Vec<(CString, CString)>,
}

impl Target {
    fn new(path: &Path) -> rustix::io::Result<Self> {
        let mut parts = Vec::new();
        for part in path.ancestors() {
            if let (Some(parent), Some(name)) = (part.parent(), part.file_name()) {
                parts.push((raw(parent)?, raw(name)?));
            }
        }
        parts.reverse();
        Ok(Self { path: raw(path)?, parts })
    }
}

/// A [`SetupOp`] with all that it needs at hand.
#[derive(Debug)]
pub(super) enum Prepared<'a> {
    PrivatePropagation,
    AttachRoot,
    JoinMounts(&'a Kept),
    Terminals {
        directory: BorrowedFd<'a>,
        target: Target,
    },
    Filesystem(Filesystem),
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
    /// `mount` is a descriptor of its own, which the child makes lead to `path` in it.
    Locate {
        mount: Arc<OwnedFd>,
        path: CString,
        attributes: u64,
    },
    Bind {
        mount: Arc<OwnedFd>,
        target: Target,
    },
    Loopback,
    Hostname(&'a str),
    PivotRoot,
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
    /// The rules; `None` where the kernel has none.
    ScopeSockets(Option<BorrowedFd<'static>>),
    CloseDescriptors,
    Verify(Expected),
}

/// All that the child uses.
#[derive(Debug)]
pub(super) struct Child<'a> {
    pub(super) ops: Vec<Prepared<'a>>,
    pub(super) root: BorrowedFd<'a>,
    /// The paths at which the program is looked for, in order.
    pub(super) programs: Vec<CString>,
    /// The file of the launcher, which tries them.
    pub(super) launcher: OwnedFd,
    pub(super) argv: StringArray,
    pub(super) env: StringArray,
    /// rbuild itself, to learn whether it still lives.
    pub(super) parent: OwnedFd,
}

/// What operations are about.
#[derive(Clone, Copy)]
struct Given<'a, 'm> {
    spec: &'a RunSpec,
    mounts: &'m [Option<Arc<OwnedFd>>],
    terminal: Option<&'a Terminal>,
}

/// Prepares `ops`, which were made from `spec`.
pub(super) fn child<'a>(
    rootfs: &'a Rootfs,
    spec: &'a RunSpec,
    ops: &'a [SetupOp],
    terminal: Option<&'a Terminal>,
) -> Result<Child<'a>, SandboxError> {
    let mounts = sources(spec)?;
    let given = Given { spec, mounts: &mounts, terminal };
    let prepared = ops
        .iter()
        .map(|op| prepare(op, given).map_err(|errno| SandboxError::setup(op.to_string(), errno)));
    let ops = prepared.collect::<Result<Vec<_>, _>>()?;
    let env = spec.env.iter().map(|(name, value)| {
        let mut entry = name.clone();
        entry.push("=");
        entry.push(value);
        c_string("pass the environment variable", &entry)
    });
    let argv = spec.argv.iter().map(|word| c_string("pass the argument", word));
    let me = rustix::process::getpid();
    let parent = rustix::process::pidfd_open(me, PidfdFlags::empty())
        .map_err(|errno| SandboxError::setup("open a descriptor of this process", errno))?;
    let programs = launcher::programs(spec)?;
    let launcher = launcher::make(&programs)
        .map_err(|errno| SandboxError::setup("make the program that starts the command", errno))?;
    Ok(Child {
        ops,
        root: rootfs.as_fd(),
        programs,
        launcher,
        argv: StringArray::new(argv.collect::<Result<_, _>>()?),
        env: StringArray::new(env.collect::<Result<_, _>>()?),
        parent,
    })
}

pub(super) fn c_string(what: &str, text: &OsStr) -> Result<CString, SandboxError> {
    CString::new(text.as_bytes()).map_err(|error| {
        SandboxError::setup(format!("{what} `{}`", text.display()), std::io::Error::from(error))
    })
}

fn prepare<'a>(op: &'a SetupOp, given: Given<'a, '_>) -> rustix::io::Result<Prepared<'a>> {
    let mounts = given.mounts;
    Ok(match op {
        SetupOp::PrivatePropagation => Prepared::PrivatePropagation,
        SetupOp::AttachRoot => Prepared::AttachRoot,
        SetupOp::JoinMounts => join(&given.spec.view)?,
        SetupOp::Terminals => terminals(given.terminal)?,
        SetupOp::Filesystem { kind, options, flags, target } => {
            let options = options.iter().filter(|(key, value)| ops::can_be_given(key, value));
            let options = options.map(|(key, value)| Ok((raw(key)?, raw(value)?)));
            Prepared::Filesystem(Filesystem {
                kind: raw(kind)?,
                options: options.collect::<rustix::io::Result<_>>()?,
                attributes: attributes(*flags),
                target: Target::new(Path::new(target))?,
            })
        }
        SetupOp::Sys { read_only } => Prepared::Sys { read_only: *read_only },
        SetupOp::DevDirectory(name) => Prepared::DevDirectory(raw(name)?),
        SetupOp::DevNode(device) => dev_node(*device)?,
        SetupOp::DevLink { name, to } => Prepared::DevLink { name: raw(name)?, to: raw(to)? },
        SetupOp::ReadOnly(path) => Prepared::ReadOnly(raw(path)?),
        SetupOp::Blanks => Prepared::Blanks,
        SetupOp::Mask(path) => Prepared::Mask(raw(path)?),
        SetupOp::Locate { index, path, read_only } => Prepared::Locate {
            mount: source(mounts, *index)?,
            path: raw(path)?,
            attributes: if *read_only { mount::READ_ONLY } else { 0 },
        },
        SetupOp::Bind { index, target, .. } => {
            Prepared::Bind { mount: source(mounts, *index)?, target: Target::new(target)? }
        }
        SetupOp::Tmpfs { target, bytes, mode, read_only } => {
            Prepared::Filesystem(tmpfs(target, *bytes, *mode, *read_only)?)
        }
        SetupOp::Loopback => Prepared::Loopback,
        SetupOp::Hostname(name) => Prepared::Hostname(name),
        SetupOp::PivotRoot { .. } => Prepared::PivotRoot,
        SetupOp::EnterDirectory(directory) => Prepared::EnterDirectory(raw(directory)?),
        SetupOp::Streams { uid, gid } => Prepared::Streams { uid: user(*uid)?, gid: group(*gid)? },
        SetupOp::Signals => Prepared::Signals,
        SetupOp::Session => Prepared::Session,
        SetupOp::ControllingTerminal => Prepared::ControllingTerminal,
        SetupOp::Umask(mask) => Prepared::Umask(*mask),
        SetupOp::Limit(limit) => Prepared::Limit(limit.resource, rlimit(*limit)),
        SetupOp::Seccomp => Prepared::Seccomp(seccomp::docker_default()),
        SetupOp::BoundingSet(set) => Prepared::BoundingSet(*set),
        SetupOp::Become(who) => Prepared::Become {
            uid: user(who.uid)?,
            gid: group(who.gid)?,
            groups: who.groups.iter().map(|gid| group(*gid)).collect::<rustix::io::Result<_>>()?,
        },
        SetupOp::Capabilities(set) => Prepared::Capabilities(*set),
        SetupOp::DieWithParent => Prepared::DieWithParent,
        SetupOp::RenewDieWithParent => Prepared::RenewDieWithParent,
        SetupOp::ScopeSockets => Prepared::ScopeSockets(scope_of_sockets()?),
        SetupOp::CloseDescriptors => Prepared::CloseDescriptors,
        SetupOp::Verify => Prepared::Verify(expected(given.spec)?),
    })
}

/// The rules that keep the host's abstract sockets out of reach, made once.
fn scope_of_sockets() -> rustix::io::Result<Option<BorrowedFd<'static>>> {
    static RULES: OnceLock<Option<OwnedFd>> = OnceLock::new();
    if let Some(rules) = RULES.get() {
        return Ok(rules.as_ref().map(OwnedFd::as_fd));
    }
    let rules = match landlock::scope_of_abstract_sockets() {
        Ok(rules) => Some(rules),
        // No Landlock, or one before Linux 6.12, which does not know the length or the scope.
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::TOOBIG | Errno::NOMSG) => None,
        // A container's filter of system calls.
        Err(Errno::PERM) => None,
        Err(errno) => return Err(errno),
    };
    Ok(RULES.get_or_init(|| rules).as_ref().map(OwnedFd::as_fd))
}

/// Returns the state in which [`SetupOp::Verify`] must find the child.
fn expected(spec: &RunSpec) -> rustix::io::Result<Expected> {
    let groups = spec.user.groups.iter().map(|gid| group(*gid));
    Ok(Expected {
        uid: user(spec.user.uid)?,
        gid: group(spec.user.gid)?,
        groups: groups.collect::<rustix::io::Result<_>>()?,
        bounding_set: ops::bounding_set(spec),
        capabilities: ops::capabilities(spec),
        filtered: !spec.insecure,
    })
}

fn dev_node(device: Device) -> rustix::io::Result<Prepared<'static>> {
    let host = raw(&format!("/dev/{}", device.name))?;
    Ok(Prepared::DevNode { host, name: raw(device.name)?, device })
}

fn join(view: &View) -> rustix::io::Result<Prepared<'_>> {
    match view {
        View::Of(kept) => Ok(Prepared::JoinMounts(kept)),
        View::Own | View::Kept => Err(Errno::INVAL),
    }
}

fn terminals(terminal: Option<&Terminal>) -> rustix::io::Result<Prepared<'_>> {
    let directory = terminal.ok_or(Errno::NOTTY)?.directory.as_fd();
    Ok(Prepared::Terminals { directory, target: Target::new(Path::new(DEV_PTS))? })
}

const fn rlimit(limit: Limit) -> Rlimit {
    Rlimit { current: limit.soft, maximum: limit.hard }
}

/// A descriptor for each of the mounts that need one, by number.
fn sources(spec: &RunSpec) -> Result<Vec<Option<Arc<OwnedFd>>>, SandboxError> {
    let prepared = spec.mounts.iter().map(|mount| {
        let failed = |errno| {
            SandboxError::setup(format!("take hold of the mount {}", mount.target.display()), errno)
        };
        bind(mount).map(|tree| tree.map(Arc::new)).map_err(failed)
    });
    prepared.collect()
}

/// Clones the mount tree that a caller's descriptor names: only this process's mount namespace
/// knows it, the child's copy does not. A mount without a place cannot be cloned in part before
/// Linux 6.15: the child gives it one first.
fn bind(mount: &Mount) -> rustix::io::Result<Option<OwnedFd>> {
    match &mount.source {
        MountSource::Path { directory } => {
            let tree = clone_tree(directory.as_fd())?;
            let read_only = if mount.read_only { mount::READ_ONLY } else { 0 };
            mount::restrict_tree(tree.as_fd(), mount::NO_DEV | read_only)?;
            Ok(Some(tree))
        }
        MountSource::Inside { mount, .. } => rustix::io::fcntl_dupfd_cloexec(mount, 3).map(Some),
        MountSource::Whole { mount: whole } => {
            let read_only = if mount.read_only { mount::READ_ONLY } else { 0 };
            mount::restrict_tree(whole.as_fd(), mount::NO_DEV | read_only)?;
            rustix::io::fcntl_dupfd_cloexec(whole, 3).map(Some)
        }
        MountSource::Tmpfs { .. } => Ok(None),
    }
}

fn source(mounts: &[Option<Arc<OwnedFd>>], index: usize) -> rustix::io::Result<Arc<OwnedFd>> {
    mounts.get(index).cloned().flatten().ok_or(Errno::INVAL)
}

/// A detached copy of the mounts at and below `place`.
pub(super) fn clone_tree(place: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    open_tree(
        place,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )
}

fn tmpfs(
    target: &Path,
    bytes: Option<u64>,
    mode: u32,
    read_only: bool,
) -> rustix::io::Result<Filesystem> {
    let mut options = vec![(raw("mode")?, raw(&format!("{mode:o}"))?)];
    if let Some(bytes) = bytes {
        options.push((raw("size")?, raw(&bytes.to_string())?));
    }
    let read_only =
        if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    Ok(Filesystem {
        kind: raw("tmpfs")?,
        options,
        attributes: read_only
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV,
        target: Target::new(target)?,
    })
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    match flags {
        MountFlags::NoSuidDev => {
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
        }
        MountFlags::NoSuidExec => {
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC
        }
        MountFlags::NoSuidExecDev => {
            MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NOEXEC
                | MountAttrFlags::MOUNT_ATTR_NODEV
        }
    }
}

fn raw(text: &(impl AsRef<OsStr> + ?Sized)) -> rustix::io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_error| Errno::INVAL)
}

/// The number -1 means "no change" to the kernel, and no user has it.
fn user(uid: u32) -> rustix::io::Result<Uid> {
    if uid == u32::MAX { Err(Errno::INVAL) } else { Ok(Uid::from_raw(uid)) }
}

fn group(gid: u32) -> rustix::io::Result<Gid> {
    if gid == u32::MAX { Err(Errno::INVAL) } else { Ok(Gid::from_raw(gid)) }
}
