//! The isolation of steps, chosen at the start of this process by trying.
//!
//! Only steps of RUN need isolation. Everything else reads and writes archives and listings, so a
//! process that the system refuses every isolation builds images without RUN all the same.

use std::sync::OnceLock;

use super::error::SandboxError;
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

impl Isolation {
    /// Returns its name in options and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::SingleId => "namespace (one id)",
            Self::Chroot => "chroot",
            Self::Emulated => "emulated",
        }
    }

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

/// The choice, and the reasons against what comes before it.
#[derive(Debug)]
struct Chosen {
    /// `None` if the machine permits nothing that was asked for.
    isolation: Option<Isolation>,
    refusals: Vec<Refusal>,
}

/// It is set once, before any thread starts.
static CHOSEN: OnceLock<Chosen> = OnceLock::new();

/// An isolation that the machine does not permit.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The isolation.
    pub isolation: Isolation,
    /// The cause: what was tried, and the kernel's error.
    pub reason: String,
    /// The remedy.
    pub help: String,
}

/// Returns the isolation of steps in this process; [`refusal`] explains `None`.
#[must_use]
pub fn isolation() -> Option<Isolation> {
    CHOSEN.get().map_or(Some(Isolation::Namespace), |chosen| chosen.isolation)
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
/// # Errors
/// [`SandboxError::Setup`] if a system call fails unexpectedly.
pub fn enter_or_continue(choice: IsolationChoice) -> Result<(), SandboxError> {
    let mut refusals = Vec::new();
    let isolation = choose(choice, &mut refusals)?;
    CHOSEN.get_or_init(|| Chosen { isolation, refusals });
    Ok(())
}

fn choose(
    choice: IsolationChoice,
    refusals: &mut Vec<Refusal>,
) -> Result<Option<Isolation>, SandboxError> {
    let wants = |wanted| choice == IsolationChoice::Auto || choice == wanted;
    if wants(IsolationChoice::Namespace) {
        match enter_namespaces()? {
            Ok(isolation) => return Ok(Some(isolation)),
            Err(refused) => refusals.extend(refused),
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
        match tier_trials::attempt(isolation) {
            Ok(()) => return Ok(Some(isolation)),
            Err(refused) => refusals.push(refusal_of(isolation, refused)),
        }
    }
    Ok(None)
}

/// Enters namespaces with many ids, or else with one; or returns why not.
fn enter_namespaces() -> Result<Result<Isolation, Vec<Refusal>>, SandboxError> {
    let refusal = |isolation, error: SandboxError| match error {
        SandboxError::NoUserNamespace { reason, help } => Ok(Refusal { isolation, reason, help }),
        error => Err(error),
    };
    let many = match user_namespace::enter_user_namespace() {
        Ok(_) => return Ok(in_namespace().map_err(|refused| vec![refused])),
        Err(error) => refusal(Isolation::Namespace, error)?,
    };
    match user_namespace::enter_with_own_id() {
        Ok(_) => Ok(in_namespace().map_err(|refused| vec![many, refused])),
        Err(error) => Ok(Err(vec![many, refusal(Isolation::SingleId, error)?])),
    }
}

/// Returns the isolation of a process that may create namespaces.
fn in_namespace() -> Result<Isolation, Refusal> {
    let isolation =
        if user_namespace::has_single_id() { Isolation::SingleId } else { Isolation::Namespace };
    // Without a filter of system calls, nothing is known to refuse mounts to a process with the right.
    let may_be_refused = user_namespace::is_filtered() != Some(false);
    if isolation == Isolation::SingleId || may_be_refused {
        tier_trials::attempt(isolation).map_err(|refused| refusal_of(isolation, refused))?;
    }
    Ok(isolation)
}

fn refusal_of(isolation: Isolation, Refused { need, errno }: Refused) -> Refusal {
    let reason = format!("{}: {}", need.name(), std::io::Error::from(errno));
    Refusal { isolation, reason, help: need.help().to_owned() }
}

/// Returns the error of a step, if this process cannot run any.
#[must_use]
pub fn refusal() -> Option<SandboxError> {
    let chosen = CHOSEN.get().filter(|chosen| chosen.isolation.is_none())?;
    let first = chosen.refusals.first()?;
    Some(SandboxError::NoUserNamespace { reason: first.reason.clone(), help: first.help.clone() })
}
