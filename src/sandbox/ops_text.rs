//! The operations of the setup as error messages name them.

use std::fmt;
use std::path::Path;

use super::ops::{DEV_PTS, MountFlags, SetupOp};
use super::spec::{Limit, User};

/// Writes the operation so that it reads well after "cannot".
impl fmt::Display for SetupOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivatePropagation => f.write_str("make the mounts private"),
            Self::AttachRoot => f.write_str("attach the root file system"),
            Self::EnterCgroup => f.write_str("enter the control group of the command"),
            Self::JoinNetwork => f.write_str("join the private network"),
            Self::JoinMounts => f.write_str("join the mounts of the command that has ended"),
            Self::Terminals => write!(f, "mount the step's terminals on {DEV_PTS}"),
            Self::Filesystem { kind, options, flags, target } => {
                write!(f, "mount {kind} on {target} (")?;
                write_options(f, options)?;
                write!(f, "{flags})")
            }
            Self::Sys { read_only } => write!(f, "mount /sys ({})", access(*read_only)),
            Self::DevDirectory(name) => write!(f, "create the directory /dev/{name}"),
            Self::DevNode(device) => write!(f, "create the device /dev/{}", device.name),
            Self::DevLink { name, to } => write!(f, "link /dev/{name} to {to}"),
            Self::ReadOnly(path) => write!(f, "make {path} read-only"),
            Self::Blanks => f.write_str("create an empty file and an empty directory for masks"),
            Self::Mask(path) => write!(f, "mask {path}"),
            Self::Locate { path, read_only, .. } => {
                write!(f, "resolve {} in its mount ({})", path.display(), access(*read_only))
            }
            Self::Bind { target, read_only, .. } => write_mount(f, "", target, *read_only),
            Self::Tmpfs { target, bytes, mode, read_only } => {
                write_mount(f, "a tmpfs", target, *read_only)?;
                write!(f, ", mode {mode:o}")?;
                bytes.map_or(Ok(()), |bytes| write!(f, ", at most {bytes} bytes"))
            }
            Self::Loopback => f.write_str("bring the loopback interface up"),
            Self::Hostname(name) => write!(f, "set the hostname to `{name}`"),
            Self::PivotRoot { kept: false } => f.write_str("change the root directory"),
            Self::PivotRoot { kept: true } => {
                f.write_str("change the root directory and keep the mounts")
            }
            Self::EnterDirectory(directory) => {
                write!(f, "enter the working directory {}", directory.display())
            }
            Self::Streams { uid, gid } => write!(f, "connect the standard streams for {uid}:{gid}"),
            Self::Signals => f.write_str("reset the signals"),
            Self::Session => f.write_str("start a session"),
            Self::ControllingTerminal => f.write_str("set the controlling terminal"),
            Self::Umask(mask) => write!(f, "set the umask to {mask:03o}"),
            Self::Limit(limit) => write_limit(f, limit),
            Self::Seccomp => f.write_str("load the seccomp filter"),
            Self::BoundingSet(set) => {
                write!(f, "limit the capability bounding set to {:x}", set.bits())
            }
            Self::Become(User { uid, gid, groups }) => {
                write!(f, "switch to user {uid}:{gid} with groups {groups:?}")
            }
            Self::Capabilities(set) => write!(f, "set the capabilities to {:x}", set.bits()),
            Self::DieWithParent => f.write_str("set the parent death signal"),
            Self::RenewDieWithParent => {
                f.write_str("set the parent death signal again after switching the user")
            }
            Self::ScopeSockets => f.write_str("block the host's abstract sockets"),
            Self::CloseDescriptors => f.write_str("close all other descriptors"),
            Self::Supervise => f.write_str("start the supervision of system calls"),
            Self::Verify => f.write_str("verify the sandbox"),
        }
    }
}

impl fmt::Display for MountFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuidDev => "nosuid,nodev",
            Self::NoSuidExec => "nosuid,noexec",
            Self::NoSuidExecDev => "nosuid,noexec,nodev",
        })
    }
}

fn write_options(f: &mut fmt::Formatter<'_>, options: &[(&str, String)]) -> fmt::Result {
    options.iter().try_for_each(|(key, value)| match value.as_str() {
        "" => write!(f, "{key},"),
        value => write!(f, "{key}={value},"),
    })
}

fn write_limit(f: &mut fmt::Formatter<'_>, limit: &Limit) -> fmt::Result {
    let Limit { resource, soft, hard } = limit;
    let shown = |limit: &Option<u64>| {
        limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
    };
    let name = format!("{resource:?}").to_ascii_lowercase();
    write!(f, "set the limit {name} to {}:{}", shown(soft), shown(hard))
}

fn write_mount(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    target: &Path,
    read_only: bool,
) -> fmt::Result {
    let space = if what.is_empty() { "" } else { " " };
    write!(f, "mount{space}{what} on {} ({})", target.display(), access(read_only))
}

const fn access(read_only: bool) -> &'static str {
    if read_only { "read-only" } else { "writable" }
}
