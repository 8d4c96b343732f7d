//! The choice of the isolation of steps, by trying; see [`isolation`](mod@super::isolation).

use rustix::process::DumpableBehavior;

use super::error::SandboxError;
use super::isolation::{CHOSEN, Chosen, Isolation, IsolationChoice, Refusal};
use super::tier_trials::{self, Refused};
use super::user_namespace;

/// Gets this process the right to run steps under `choice` if the system grants it; see
/// [`super::enter_user_namespace`]. If not, the process continues as it is, and [`super::refusal`] returns the
/// error for each step. Must be called at the start of `main`, before any thread exists.
///
/// Steps without a pid namespace can see this process. It then becomes undumpable, so that no
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
