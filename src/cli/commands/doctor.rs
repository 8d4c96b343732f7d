//! `rbuild doctor`: finds out whether steps of RUN can be executed here, by executing one.

use std::os::fd::AsFd as _;

use super::{CliError, Environment, Exit, Global, open_store};
use crate::cli::display::stdout::say;
use crate::diag::size;
use crate::executor;
use crate::sandbox;
use crate::store::{Store, StoreError};

/// Prints what rbuild found out.
///
/// # Errors
/// [`Exit::Environment`] if no RUN can be executed, or the store cannot be opened.
pub(crate) fn run(global: &Global, environment: &Environment) -> Result<(), CliError> {
    say!("rbuild  {}", env!("CARGO_PKG_VERSION"));
    say!("kernel  {}", kernel());
    say!("user    {}", user());
    let store = open_store(global, environment)?;
    say!("store   {}", store_line(&store));
    let tried =
        try_step(&store).map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let Err(error) = tried else {
        say!("RUN     works, in namespaces");
        return Ok(());
    };
    say!("RUN     does not work: {}", executor::chain(&error));
    say!(
        "        Builds without RUN, or with each RUN in the cache, work; so do push, pull, save and load."
    );
    Err(CliError::reported(Exit::Environment))
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
