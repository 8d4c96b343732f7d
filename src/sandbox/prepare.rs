//! Makes everything that the child needs, while allocating is still allowed: C strings,
//! descriptors, arrays.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::{Gid, PidfdFlags, Rlimit, Uid};

use super::devices::Device;
use super::error::SandboxError;
use super::ops::{self, DEV_PTS, MountFlags, SetupOp};
use super::prepared::{MountTarget, NewFilesystem, PreparedChild, PreparedOp};
use super::rootfs::Rootfs;
use super::spec::{Limit, Mount, MountNamespace, MountSource, Network, RunSpec, User};
use super::supervisor::{self, Rules};
use super::sys::exec::StringArray;
use super::sys::{landlock, mount};
use super::terminal::Terminal;
use super::verify::Expected;
use super::{c_strings, detached_mount, launcher, seccomp};

/// The inputs of [`prepare`] besides the operation.
#[derive(Clone, Copy)]
struct PrepareInputs<'a, 'm> {
    spec: &'a RunSpec,
    mounts: &'m [Option<Arc<OwnedFd>>],
    terminal: Option<&'a Terminal>,
    /// The rules of the command's supervisor, if it has one.
    rules: Option<Rules>,
}

/// Prepares the operations `ops`, which must have been made from `spec`.
pub(super) fn child<'a>(
    rootfs: &'a Rootfs,
    spec: &'a RunSpec,
    ops: &'a [SetupOp],
    terminal: Option<&'a Terminal>,
    rules: Option<Rules>,
) -> Result<PreparedChild<'a>, SandboxError> {
    let mounts = sources(spec)?;
    let inputs = PrepareInputs { spec, mounts: &mounts, terminal, rules };
    let prepared = ops
        .iter()
        .map(|op| prepare(op, inputs).map_err(|errno| SandboxError::setup(op.to_string(), errno)));
    let ops = prepared.collect::<Result<Vec<_>, _>>()?;
    let me = rustix::process::getpid();
    let parent = rustix::process::pidfd_open(me, PidfdFlags::empty())
        .map_err(|errno| SandboxError::setup("open a pidfd of this process", errno))?;
    let programs = launcher::programs(spec)?;
    let launcher = launcher::make(&programs)
        .map_err(|errno| SandboxError::setup("create the launcher of the command", errno))?;
    Ok(PreparedChild {
        ops,
        root: rootfs.as_fd(),
        programs,
        launcher,
        argv: arguments(spec)?,
        env: environment(spec)?,
        parent,
    })
}

/// Returns the arguments of the command.
pub(super) fn arguments(spec: &RunSpec) -> Result<StringArray, SandboxError> {
    let words = spec.argv.iter().map(|word| c_strings::named("pass the argument", word));
    Ok(StringArray::new(words.collect::<Result<_, _>>()?))
}

/// Returns the environment of the command.
pub(super) fn environment(spec: &RunSpec) -> Result<StringArray, SandboxError> {
    let entries = spec.env.iter().map(|(name, value)| {
        let mut entry = name.clone();
        entry.push("=");
        entry.push(value);
        c_strings::named("pass the environment variable", &entry)
    });
    Ok(StringArray::new(entries.collect::<Result<_, _>>()?))
}

fn filesystem(
    kind: &str,
    options: &[(&'static str, String)],
    flags: MountFlags,
    target: &str,
) -> rustix::io::Result<NewFilesystem> {
    Ok(NewFilesystem {
        kind: c_strings::try_new(kind)?,
        options: filesystem_options(options)?,
        attributes: attributes(flags),
        target: MountTarget::new(Path::new(target))?,
    })
}

/// Returns the files into which a child writes to enter its control group.
pub(super) fn cgroup_files(spec: &RunSpec) -> Vec<BorrowedFd<'_>> {
    spec.cgroups.iter().map(|file| file.as_fd()).collect()
}

fn private_network(spec: &RunSpec) -> rustix::io::Result<BorrowedFd<'_>> {
    match &spec.network {
        Network::Private(network) => Ok(network.as_fd()),
        Network::Host | Network::None => Err(Errno::INVAL),
    }
}

fn prepare<'a>(
    op: &'a SetupOp,
    inputs: PrepareInputs<'a, '_>,
) -> rustix::io::Result<PreparedOp<'a>> {
    let mounts = inputs.mounts;
    Ok(match op {
        SetupOp::PrivatePropagation => PreparedOp::PrivatePropagation,
        SetupOp::AttachRoot => PreparedOp::AttachRoot,
        SetupOp::EnterCgroup => PreparedOp::EnterCgroup(cgroup_files(inputs.spec)),
        SetupOp::JoinNetwork => PreparedOp::JoinNetwork(private_network(inputs.spec)?),
        SetupOp::JoinMounts => join(&inputs.spec.mount_namespace)?,
        SetupOp::Terminals => terminals(inputs.terminal)?,
        SetupOp::Filesystem { kind, options, flags, target } => {
            PreparedOp::Filesystem(filesystem(kind, options, *flags, target)?)
        }
        SetupOp::Sys { read_only } => PreparedOp::Sys { read_only: *read_only },
        SetupOp::DevDirectory(name) => PreparedOp::DevDirectory(c_strings::try_new(name)?),
        SetupOp::DevNode(device) => dev_node(*device)?,
        SetupOp::DevLink { name, to } => {
            PreparedOp::DevLink { name: c_strings::try_new(name)?, to: c_strings::try_new(to)? }
        }
        SetupOp::ReadOnly(path) => PreparedOp::ReadOnly(c_strings::try_new(path)?),
        SetupOp::Blanks => PreparedOp::Blanks,
        SetupOp::Mask(path) => PreparedOp::Mask(c_strings::try_new(path)?),
        SetupOp::Locate { index, path, read_only } => locate(mounts, *index, path, *read_only)?,
        SetupOp::Bind { index, target, .. } => {
            PreparedOp::Bind { mount: source(mounts, *index)?, target: MountTarget::new(target)? }
        }
        SetupOp::Tmpfs { target, bytes, mode, read_only } => {
            PreparedOp::Filesystem(tmpfs(target, *bytes, *mode, *read_only)?)
        }
        SetupOp::Loopback => PreparedOp::Loopback,
        SetupOp::Hostname(name) => PreparedOp::Hostname(name),
        SetupOp::PivotRoot { kept } => PreparedOp::PivotRoot { kept: *kept },
        SetupOp::EnterDirectory(directory) => {
            PreparedOp::EnterDirectory(c_strings::try_new(directory)?)
        }
        SetupOp::Streams { uid, gid } => {
            PreparedOp::Streams { uid: user(*uid)?, gid: group(*gid)? }
        }
        SetupOp::Signals => PreparedOp::Signals,
        SetupOp::Session => PreparedOp::Session,
        SetupOp::ControllingTerminal => PreparedOp::ControllingTerminal,
        SetupOp::Umask(mask) => PreparedOp::Umask(*mask),
        SetupOp::Limit(limit) => PreparedOp::Limit(limit.resource, rlimit(*limit)),
        SetupOp::Seccomp => PreparedOp::Seccomp(seccomp::docker_default()),
        SetupOp::BoundingSet(set) => PreparedOp::BoundingSet(*set),
        SetupOp::Become(who) => become_user(who)?,
        SetupOp::Capabilities(set) => PreparedOp::Capabilities(*set),
        SetupOp::DieWithParent => PreparedOp::DieWithParent,
        SetupOp::RenewDieWithParent => PreparedOp::RenewDieWithParent,
        SetupOp::ScopeSockets => PreparedOp::ScopeSockets(scope_of_sockets()?),
        SetupOp::CloseDescriptors => {
            PreparedOp::CloseDescriptors { keeps_socket: inputs.rules.is_some() }
        }
        SetupOp::Supervise => {
            PreparedOp::Supervise(supervisor::filter(inputs.rules.ok_or(Errno::INVAL)?))
        }
        SetupOp::Verify => PreparedOp::Verify(expected(inputs.spec, inputs.rules)?),
    })
}

fn locate<'a>(
    mounts: &[Option<Arc<OwnedFd>>],
    index: usize,
    path: &Path,
    read_only: bool,
) -> rustix::io::Result<PreparedOp<'a>> {
    Ok(PreparedOp::Locate {
        mount: source(mounts, index)?,
        path: c_strings::try_new(path)?,
        attributes: if read_only { mount::READ_ONLY } else { 0 },
    })
}

/// Checks the ids: the value -1 means "unchanged" in system calls (setresuid(2)).
fn become_user<'a>(who: &User) -> rustix::io::Result<PreparedOp<'a>> {
    let groups = who.groups.iter().map(|gid| group(*gid)).collect::<rustix::io::Result<_>>()?;
    Ok(PreparedOp::Become { uid: user(who.uid)?, gid: group(who.gid)?, groups })
}

/// Returns the options that can be given to the kernel, as C strings.
fn filesystem_options(options: &[(&str, String)]) -> rustix::io::Result<Vec<(CString, CString)>> {
    let given = options.iter().filter(|(key, value)| ops::can_be_given(key, value));
    given.map(|(key, value)| Ok((c_strings::try_new(key)?, c_strings::try_new(value)?))).collect()
}

/// Returns the ruleset that blocks the host's abstract sockets. It is made once per process.
fn scope_of_sockets() -> rustix::io::Result<Option<BorrowedFd<'static>>> {
    static RULES: OnceLock<Option<OwnedFd>> = OnceLock::new();
    if let Some(rules) = RULES.get() {
        return Ok(rules.as_ref().map(OwnedFd::as_fd));
    }
    let rules = match landlock::scope_of_abstract_sockets() {
        Ok(rules) => Some(rules),
        // No Landlock, or a version before Linux 6.12, which rejects the length or the scope
        // (landlock(7)).
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::TOOBIG | Errno::NOMSG) => None,
        // The seccomp filter of the container that rbuild runs in.
        Err(Errno::PERM) => None,
        Err(errno) => return Err(errno),
    };
    Ok(RULES.get_or_init(|| rules).as_ref().map(OwnedFd::as_fd))
}

/// Returns the state that [`SetupOp::Verify`] must find in the child.
fn expected(spec: &RunSpec, rules: Option<Rules>) -> rustix::io::Result<Expected> {
    let groups = match rules {
        // A process that may map its own id alone cannot change its groups (user_namespaces(7)).
        Some(_) => rustix::process::getgroups()?,
        None => {
            let groups = spec.user.groups.iter().map(|gid| group(*gid));
            groups.collect::<rustix::io::Result<_>>()?
        }
    };
    Ok(Expected {
        uid: user(spec.user.uid)?,
        gid: group(spec.user.gid)?,
        groups,
        bounding_set: ops::bounding_set(spec),
        capabilities: ops::capabilities(spec),
        filtered: !spec.insecure,
        has_extra: rules.is_some(),
    })
}

fn dev_node(device: Device) -> rustix::io::Result<PreparedOp<'static>> {
    let host = c_strings::try_new(&format!("/dev/{}", device.name))?;
    Ok(PreparedOp::DevNode { host, name: c_strings::try_new(device.name)?, device })
}

fn join(view: &MountNamespace) -> rustix::io::Result<PreparedOp<'_>> {
    match view {
        MountNamespace::Join(kept) => Ok(PreparedOp::JoinMounts(kept)),
        MountNamespace::Own | MountNamespace::Kept => Err(Errno::INVAL),
    }
}

fn terminals(terminal: Option<&Terminal>) -> rustix::io::Result<PreparedOp<'_>> {
    let directory = terminal.ok_or(Errno::NOTTY)?.directory.as_fd();
    Ok(PreparedOp::Terminals { directory, target: MountTarget::new(Path::new(DEV_PTS))? })
}

pub(super) const fn rlimit(limit: Limit) -> Rlimit {
    Rlimit { current: limit.soft, maximum: limit.hard }
}

/// Returns a descriptor for each mount of `spec` that needs one, by index.
fn sources(spec: &RunSpec) -> Result<Vec<Option<Arc<OwnedFd>>>, SandboxError> {
    let prepared = spec.mounts.iter().map(|mount| {
        let failed = |errno| {
            SandboxError::setup(format!("clone the mount for {}", mount.target.display()), errno)
        };
        bind(mount).map(|tree| tree.map(Arc::new)).map_err(failed)
    });
    prepared.collect()
}

/// Clones the mount tree that the caller's descriptor refers to. The parent must do this: the
/// descriptor belongs to its mount namespace, not to the child's copy. Before Linux 6.15 a part of
/// a detached mount cannot be cloned, so the child attaches it first (`SetupOp::Locate`).
fn bind(mount: &Mount) -> rustix::io::Result<Option<OwnedFd>> {
    match &mount.source {
        MountSource::Path { directory } => {
            let tree = detached_mount::clone_tree(directory.as_fd())?;
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
        // Only made where nothing can be mounted.
        MountSource::Memory { .. } => Err(Errno::INVAL),
    }
}

fn source(mounts: &[Option<Arc<OwnedFd>>], index: usize) -> rustix::io::Result<Arc<OwnedFd>> {
    mounts.get(index).cloned().flatten().ok_or(Errno::INVAL)
}

fn tmpfs(
    target: &Path,
    bytes: Option<u64>,
    mode: u32,
    read_only: bool,
) -> rustix::io::Result<NewFilesystem> {
    let mut options =
        vec![(c_strings::try_new("mode")?, c_strings::try_new(&format!("{mode:o}"))?)];
    if let Some(bytes) = bytes {
        options.push((c_strings::try_new("size")?, c_strings::try_new(&bytes.to_string())?));
    }
    let read_only =
        if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    Ok(NewFilesystem {
        kind: c_strings::try_new("tmpfs")?,
        options,
        attributes: read_only
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV,
        target: MountTarget::new(target)?,
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

/// Converts a user id. The value -1 means "no change" to setresuid(2), so it is refused.
pub(super) fn user(uid: u32) -> rustix::io::Result<Uid> {
    if uid == u32::MAX { Err(Errno::INVAL) } else { Ok(Uid::from_raw(uid)) }
}

/// Converts a group id, like [`user`].
pub(super) fn group(gid: u32) -> rustix::io::Result<Gid> {
    if gid == u32::MAX { Err(Errno::INVAL) } else { Ok(Gid::from_raw(gid)) }
}
