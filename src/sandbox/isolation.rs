//! The isolation of steps that this process found at its start: namespaces, or none.
//!
//! Only steps of RUN need isolation. Everything else reads and writes archives and listings, so a
//! process that the system refuses namespaces builds images without RUN all the same.

use std::sync::OnceLock;

use super::error::SandboxError;
use super::user_namespace::{self, Entered};

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

/// Returns the isolation of steps in this process; [`refusal`] explains `None`.
#[must_use]
pub fn isolation() -> Option<Isolation> {
    REFUSAL.get().is_none().then_some(Isolation::Namespace)
}

/// The refusal of a namespace, if there was one. It is set once, before any thread starts.
static REFUSAL: OnceLock<Refusal> = OnceLock::new();

/// The reason and the remedy of a refused namespace.
#[derive(Debug)]
struct Refusal {
    reason: String,
    help: String,
}

/// Gets this process the right to run steps if the system grants it; see
/// [`super::enter_user_namespace`]. If not, the process continues as it is, and [`refusal`] returns
/// the error for each step.
///
/// # Errors
/// [`SandboxError::Setup`] if a system call fails unexpectedly.
pub fn enter_or_continue() -> Result<(), SandboxError> {
    match user_namespace::enter_user_namespace() {
        Ok(Entered::AlreadyPrivileged | Entered::Child) => Ok(()),
        Err(SandboxError::NoUserNamespace { reason, help }) => {
            REFUSAL.get_or_init(|| Refusal { reason, help });
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Returns the error of a step, if this process cannot run any.
#[must_use]
pub fn refusal() -> Option<SandboxError> {
    REFUSAL.get().map(|Refusal { reason, help }| SandboxError::NoUserNamespace {
        reason: reason.clone(),
        help: help.clone(),
    })
}
