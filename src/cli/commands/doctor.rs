//! `rbuild doctor`: finds out whether steps of RUN can be executed here, by executing one.

use std::os::fd::AsFd as _;

use super::{CliError, Environment, Exit, Global, open_store};
use crate::cli::display::stdout::say;
use crate::diag::size;
use crate::executor;
use crate::sandbox::{self, Fence, Isolation, Trials};
use crate::store::{Store, StoreError};

/// Prints what rbuild found out; `trials` are those of all kinds of isolation.
///
/// # Errors
/// [`Exit::Environment`] if no RUN can be executed, or the store cannot be opened.
pub(crate) fn run(
    trials: &Trials,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    say!("rbuild  {}", env!("CARGO_PKG_VERSION"));
    say!("kernel  {}", kernel());
    say!("user    {}", user());
    lines(trials, sandbox::isolation(), Fence::of_kernel()).iter().for_each(|line| say!("{line}"));
    let store = open_store(global, environment)?;
    say!("store   {}", store_line(&store));
    let tried =
        try_step(&store).map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let Err(error) = tried else {
        say!("RUN     works: {}", sandbox::isolation().map_or("", Isolation::name));
        return Ok(());
    };
    say!("RUN     does not work: {}", executor::chain(&error));
    say!(
        "        Builds without RUN, or with each RUN in the cache, work; so do push, pull, save and load."
    );
    Err(CliError::reported(Exit::Environment))
}

/// Returns the lines about the kinds of isolation: each with the result of its trial, and with what would
/// permit it. A star marks the one in force.
fn lines(trials: &Trials, in_force: Option<Isolation>, fence: Fence) -> Vec<String> {
    let mut lines = vec!["isolation of RUN steps, the strongest first; * is in force:".to_owned()];
    for (isolation, refusal) in trials {
        let star = if in_force == Some(*isolation) { '*' } else { ' ' };
        let name = isolation.name();
        match refusal {
            None => lines.push(format!("  {star} {name:<20}permitted")),
            Some(refusal) => {
                let (tried, reason) = (&refusal.tried, &refusal.reason);
                lines.push(format!("  {star} {name:<20}refused: {tried}: {reason}"));
                lines.push(format!("    {:<20}to permit it: {}", "", refusal.help));
            }
        }
    }
    let fence = match fence {
        Fence::None => "none: this kernel, or a system call filter, has no Landlock",
        Fence::Files => "files and ptrace(2); signals and abstract sockets need Linux 6.12",
        Fence::Signals => "files, ptrace(2), signals and abstract sockets",
    };
    lines.push(format!("Landlock fence of chroot and emulated: {fence}"));
    lines
}

fn try_step(store: &Store) -> Result<Result<(), sandbox::SandboxError>, StoreError> {
    let work = store.work_directory()?;
    let (lower, upper) = (work.directory("empty")?, work.directory("fs")?);
    let scratch = work.directory("work")?;
    Ok(sandbox::try_step(lower.as_fd(), upper.as_fd(), scratch.as_fd()))
}

fn kernel() -> String {
    let names = rustix::system::uname();
    format!(
        "{} {} on {}",
        names.sysname().to_string_lossy(),
        names.release().to_string_lossy(),
        names.machine().to_string_lossy()
    )
}

/// Returns the user as this process sees it: in a user namespace of rbuild's own, that is root.
fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let within = if sandbox::in_user_namespace() { " in a user namespace" } else { "" };
    format!("{uid}{within}")
}

fn store_line(store: &Store) -> String {
    let root = store.root();
    let free = rustix::fs::statvfs(root).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    let free = free.map_or_else(|_| String::new(), |free| format!(", {} free", size(free)));
    let kind = rustix::fs::statfs(root).map(|found| found.f_type);
    let overlay =
        if kind.is_ok_and(|kind| kind == OVERLAYFS_SUPER_MAGIC) { ", on an overlay" } else { "" };
    format!("{}{overlay}{free}", root.display())
}

/// The type of overlayfs (statfs(2)).
const OVERLAYFS_SUPER_MAGIC: rustix::fs::FsWord = 0x794C_7630;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Refusal;

    #[test]
    fn each_kind_of_isolation_is_shown_with_its_trial() {
        let refused = |isolation, tried: &str, help: &str| {
            let reason = "Operation not permitted (os error 1)".to_owned();
            (isolation, Some(Refusal { isolation, tried: tried.into(), reason, help: help.into() }))
        };
        let trials = vec![
            refused(Isolation::Namespace, "a user namespace with many ids", "--privileged"),
            refused(Isolation::SingleId, "a user namespace with one id", "--privileged"),
            refused(Isolation::Chroot, "chroot(2), with CAP_SYS_CHROOT", "run rbuild as root"),
            (Isolation::Emulated, None),
        ];
        let text = lines(&trials, Some(Isolation::Emulated), Fence::Files).join("\n");
        insta::assert_snapshot!(text, @r"
        isolation of RUN steps, the strongest first; * is in force:
            namespace           refused: a user namespace with many ids: Operation not permitted (os error 1)
                                to permit it: --privileged
            namespace (one id)  refused: a user namespace with one id: Operation not permitted (os error 1)
                                to permit it: --privileged
            chroot              refused: chroot(2), with CAP_SYS_CHROOT: Operation not permitted (os error 1)
                                to permit it: run rbuild as root
          * emulated            permitted
        Landlock fence of chroot and emulated: files and ptrace(2); signals and abstract sockets need Linux 6.12
        ");
    }
}
