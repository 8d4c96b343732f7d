//! The isolation of steps, chosen at the start of this process by trying.
//!
//! Only steps of RUN need isolation. Everything else reads and writes archives and listings, so a
//! process that the system refuses every isolation builds images without RUN all the same.

use std::fmt;
use std::sync::OnceLock;

use super::error::SandboxError;
use super::sys::landlock;

/// The isolation of steps: the first of these that the machine permits, unless the caller chose one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Namespaces and pivot_root(2), with many user ids.
    Namespace,
    /// Namespaces and pivot_root(2) with a single user id. Owners are emulated.
    SingleId,
    /// chroot(2) as root, without the right to mount. Files below `/proc`, `/dev`, `/sys` and mounts
    /// are opened by a supervisor.
    Chroot,
    /// No rights: a supervisor translates all paths and emulates owners.
    Emulated,
}

/// The isolation that the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationChoice {
    /// The first of the others that the machine permits.
    #[default]
    Auto,
    /// Namespaces, with many user ids or with one.
    Namespace,
    /// chroot(2).
    Chroot,
    /// A supervisor of all system calls.
    Emulated,
}

impl IsolationChoice {
    /// Returns its name in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Namespace => "namespace",
            Self::Chroot => "chroot",
            Self::Emulated => "emulated",
        }
    }
}

impl Isolation {
    /// Returns its name in messages and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::SingleId => "namespace (one id)",
            Self::Chroot => "chroot",
            Self::Emulated => "emulated",
        }
    }

    /// All kinds, the strongest first.
    pub const ALL: [Self; 4] = [Self::Namespace, Self::SingleId, Self::Chroot, Self::Emulated];

    /// Returns whether rbuild can mount file systems for a step.
    #[must_use]
    pub const fn may_mount(self) -> bool {
        matches!(self, Self::Namespace | Self::SingleId)
    }

    /// Returns whether owners, devices and other attributes of files are emulated: see
    /// [`EmulatedFiles`](super::EmulatedFiles).
    #[must_use]
    pub const fn emulates_owners(self) -> bool {
        matches!(self, Self::SingleId | Self::Emulated)
    }
}

/// An isolation that the machine does not permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The isolation.
    pub isolation: Isolation,
    /// The attempt that failed, such as *chroot(2)*.
    pub tried: String,
    /// The cause: mostly the kernel's error.
    pub reason: String,
    /// The remedy.
    pub help: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.tried, self.reason, self.help)
    }
}

/// The protection by Landlock where steps have no namespaces (landlock(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fence {
    /// The kernel has no Landlock, or a container's system call filter refuses it.
    None,
    /// Linux 5.13: access to files, and ptrace(2).
    Files,
    /// Linux 6.12: also signals and abstract sockets.
    Signals,
}

impl Fence {
    /// Asks the kernel.
    #[must_use]
    pub fn of_kernel() -> Self {
        match landlock::version() {
            Ok(version) if version >= landlock::SCOPES => Self::Signals,
            Ok(_) => Self::Files,
            Err(_) => Self::None,
        }
    }

    const fn weakness(self) -> &'static str {
        match self {
            Self::Signals => "steps can see ids of other processes",
            Self::Files => "steps can signal other processes of this user",
            Self::None => {
                "steps can signal and trace other processes of this user; this kernel has no Landlock"
            }
        }
    }
}

/// The choice, and the reasons against what comes before it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) choice: IsolationChoice,
    /// `None` if the machine permits nothing that was asked for.
    pub(super) isolation: Option<Isolation>,
    pub(super) refusals: Vec<Refusal>,
}

/// It is set once, before any thread starts.
pub(super) static CHOSEN: OnceLock<Chosen> = OnceLock::new();

/// Returns the isolation of steps in this process; [`refusal`] explains `None`.
#[must_use]
pub fn isolation() -> Option<Isolation> {
    CHOSEN.get().map_or(Some(Isolation::Namespace), |chosen| chosen.isolation)
}

/// Returns why steps have no stronger isolation, and what it does not fence off: remarks for people.
#[must_use]
pub fn remarks() -> Vec<&'static str> {
    let Some(isolation) = isolation() else { return Vec::new() };
    remarks_on(isolation, !refusals().is_empty(), Fence::of_kernel())
}

fn remarks_on(isolation: Isolation, is_forced: bool, fence: Fence) -> Vec<&'static str> {
    let cause = match isolation {
        Isolation::Namespace => None,
        Isolation::SingleId => Some("more user ids are not permitted here"),
        Isolation::Chroot => Some("namespaces are not permitted here"),
        Isolation::Emulated => Some("namespaces and chroot are not permitted here"),
    };
    let owners = isolation.emulates_owners().then_some("owners of files are emulated");
    let processes = (!isolation.may_mount()).then(|| fence.weakness());
    cause.filter(|_| is_forced).into_iter().chain(owners).chain(processes).collect()
}

/// Returns the kinds of isolation that were tried without success, the strongest first.
#[must_use]
pub fn refusals() -> &'static [Refusal] {
    CHOSEN.get().map_or(&[], |chosen| chosen.refusals.as_slice())
}

/// Returns the error of a step, if this process cannot run any.
#[must_use]
pub fn refusal() -> Option<SandboxError> {
    let chosen = CHOSEN.get().filter(|chosen| chosen.isolation.is_none())?;
    let (choice, refusals) = (chosen.choice, chosen.refusals.clone());
    Some(SandboxError::NoIsolation { choice, refusals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_name_the_cause_and_what_is_not_fenced_off() {
        let of = |isolation, is_forced, fence| remarks_on(isolation, is_forced, fence).join("; ");
        assert_eq!(of(Isolation::Namespace, false, Fence::None), "");
        assert_eq!(
            of(Isolation::Chroot, true, Fence::Files),
            "namespaces are not permitted here; steps can signal other processes of this user"
        );
        assert_eq!(
            of(Isolation::Emulated, false, Fence::Signals),
            "owners of files are emulated; steps can see ids of other processes"
        );
        assert!(Fence::None < Fence::Files && Fence::Files < Fence::Signals);
    }
}
