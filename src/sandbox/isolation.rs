//! The isolation of steps, chosen at the start of this process by trying.
//!
//! Only steps of RUN need isolation. Everything else reads and writes archives and listings, so a
//! process that the system refuses every isolation builds images without RUN all the same.

use std::fmt;
use std::sync::OnceLock;

use rustix::process::DumpableBehavior;

use super::error::SandboxError;
use super::sys::landlock;
use super::tier_trials::{self, Refused};
use super::user_namespace;

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
struct Chosen {
    choice: IsolationChoice,
    /// `None` if the machine permits nothing that was asked for.
    isolation: Option<Isolation>,
    refusals: Vec<Refusal>,
}

/// It is set once, before any thread starts.
static CHOSEN: OnceLock<Chosen> = OnceLock::new();

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

/// Gets this process the right to run steps under `choice` if the system grants it; see
/// [`super::enter_user_namespace`]. If not, the process continues as it is, and [`refusal`] returns the
/// error for each step. Must be called at the start of `main`, before any thread exists.
///
/// Where steps have no pid namespace, they can see this process. It then becomes undumpable, so that no
/// other process of its user reads its memory or its environment, or traces it (prctl(2),
/// `PR_SET_DUMPABLE`).
///
/// # Errors
/// [`SandboxError::Setup`] if a system call fails unexpectedly.
pub fn enter_or_continue(choice: IsolationChoice) -> Result<(), SandboxError> {
    let mut refusals = Vec::new();
    let isolation = choose(choice, &mut refusals)?;
    if isolation.is_some_and(|isolation| !isolation.may_mount()) {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|errno| SandboxError::setup("protect the memory of rbuild", errno))?;
    }
    CHOSEN.get_or_init(|| Chosen { choice, isolation, refusals });
    Ok(())
}

fn choose(
    choice: IsolationChoice,
    refusals: &mut Vec<Refusal>,
) -> Result<Option<Isolation>, SandboxError> {
    let wants = |wanted| choice == IsolationChoice::Auto || choice == wanted;
    if wants(IsolationChoice::Namespace) {
        let isolation = enter_namespaces(refusals)?;
        if isolation.is_some() {
            return Ok(isolation);
        }
    }
    let others = [
        (IsolationChoice::Chroot, Isolation::Chroot),
        (IsolationChoice::Emulated, Isolation::Emulated),
    ];
    for (wanted, isolation) in others {
        if !wants(wanted) {
            continue;
        }
        match attempt(isolation) {
            Ok(()) => return Ok(Some(isolation)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Ok(None)
}

/// Enters namespaces with many ids, or else with one. `None` if the system refuses both.
fn enter_namespaces(refusals: &mut Vec<Refusal>) -> Result<Option<Isolation>, SandboxError> {
    if let Err(error) = user_namespace::enter_user_namespace() {
        refusals.push(entry_refusal(Isolation::Namespace, error)?);
        if let Err(error) = user_namespace::enter_with_own_id() {
            refusals.push(entry_refusal(Isolation::SingleId, error)?);
            return Ok(None);
        }
    }
    match in_namespace() {
        Ok(isolation) => Ok(Some(isolation)),
        Err(refusal) => {
            refusals.push(refusal);
            Ok(None)
        }
    }
}

/// Converts the error of an entry into a user namespace.
fn entry_refusal(isolation: Isolation, error: SandboxError) -> Result<Refusal, SandboxError> {
    let SandboxError::NoUserNamespace { reason, help } = error else { return Err(error) };
    let tried = match isolation {
        Isolation::SingleId => "a user namespace with one id",
        Isolation::Namespace | Isolation::Chroot | Isolation::Emulated => {
            "a user namespace with many ids"
        }
    };
    Ok(Refusal { isolation, tried: tried.to_owned(), reason, help })
}

/// Returns the isolation of a process that may create namespaces.
fn in_namespace() -> Result<Isolation, Refusal> {
    let isolation =
        if user_namespace::has_single_id() { Isolation::SingleId } else { Isolation::Namespace };
    // Without a filter of system calls, nothing is known to refuse mounts to a process with the right.
    let may_be_refused = user_namespace::is_filtered() != Some(false) || proc_is_masked();
    if isolation == Isolation::SingleId || may_be_refused {
        attempt(isolation)?;
    }
    Ok(isolation)
}

/// Returns whether mounts hide parts of `/proc` (proc_pid_mountinfo(5)), as in containers.
fn proc_is_masked() -> bool {
    let path = std::path::Path::new("/proc/self/mountinfo");
    let mounts = crate::pathio::read_to_string(path, MAX_MOUNTS_BYTES).unwrap_or_default();
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| point.starts_with("/proc/") && point != BINFMT_MISC)
}

/// Maximum size of the list of mounts that is read.
const MAX_MOUNTS_BYTES: u64 = 16 << 20;
/// The mount that most systems have below `/proc`, where it hides nothing.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

fn attempt(isolation: Isolation) -> Result<(), Refusal> {
    tier_trials::attempt(isolation).map_err(|Refused { need, errno }| Refusal {
        isolation,
        tried: need.name().to_owned(),
        reason: std::io::Error::from(errno).to_string(),
        help: need.help().to_owned(),
    })
}

/// The result of a trial of each kind of isolation: `None`, or the reason against it.
pub type Trials = Vec<(Isolation, Option<Refusal>)>;

/// Tries all kinds of isolation, each in a child process, and leaves this process unchanged. Must be
/// called before any thread exists, and before [`enter_or_continue`].
///
/// # Errors
/// [`SandboxError::Setup`] if a system call fails unexpectedly.
pub fn try_all() -> Result<Trials, SandboxError> {
    let tried = Isolation::ALL.into_iter().map(|isolation| {
        let refusal = match isolation {
            Isolation::Namespace | Isolation::SingleId => tier_trials::in_other_process(&|| {
                try_namespaces(isolation)
                    .unwrap_or_else(|error| Some(unexpected(isolation, &error)))
            })?,
            Isolation::Chroot | Isolation::Emulated => attempt(isolation).err(),
        };
        Ok((isolation, refusal))
    });
    tried.collect()
}

/// Enters namespaces. Returns the reason if the system refuses them.
fn try_namespaces(isolation: Isolation) -> Result<Option<Refusal>, SandboxError> {
    let entered = match isolation {
        Isolation::SingleId => user_namespace::enter_with_own_id(),
        Isolation::Namespace | Isolation::Chroot | Isolation::Emulated => {
            user_namespace::enter_user_namespace()
        }
    };
    if let Err(error) = entered {
        return entry_refusal(isolation, error).map(Some);
    }
    Ok(match in_namespace() {
        Ok(found) if found == isolation => None,
        Ok(_) => Some(Refusal {
            isolation,
            tried: "a user namespace with many ids".to_owned(),
            reason: "rbuild was started in a user namespace with one id".to_owned(),
            help: "start rbuild where it has several user ids".to_owned(),
        }),
        Err(refusal) => Some(Refusal { isolation, ..refusal }),
    })
}

fn unexpected(isolation: Isolation, error: &SandboxError) -> Refusal {
    let tried = error.to_string();
    let reason = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    Refusal { isolation, tried, reason, help: "please report this".to_owned() }
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
