//! The commands, one file each: converts arguments to options, calls the library, prints the result.

pub(super) mod bake;
pub(super) mod build;
pub(super) mod build_options;
pub(super) mod builds;
mod check;
pub(super) mod diff;
pub(super) mod doctor;
pub(super) mod du;
pub(super) mod enter;
mod find;
mod fix;
pub(super) mod history;
pub(super) mod images;
pub(super) mod imagetools;
pub(super) mod inspect;
pub(super) mod lock;
pub(super) mod login;
mod metadata;
mod one_build;
pub(super) mod plan;
pub(super) mod prompt;
pub(super) mod prune;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod rebase;
mod report_file;
mod sarif;
pub(super) mod save;
pub(super) mod store;
pub(super) mod tag;
pub(super) mod version;
mod write_out;

use std::path::Path;
use std::time::Duration;

use crate::cli::args::progress::Progress;
use crate::cli::args::{Global, budget};
use crate::cli::display::stderr;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Reporter;
use crate::cli::{registries, signals};
use crate::executor::{CancelSwitch, LockedInputs, Provided, Services, StepNumbers};
use crate::oci::Reference;
use crate::store::{LockHolders, OpenOptions, Store, StoreError};

/// Time that `prune` and `store verify --repair` wait for other processes to release the store.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the store of `--root`, `RBUILD_ROOT` or the default location.
fn open_store(global: &Global, environment: &Environment) -> Result<Store, CliError> {
    open_store_by(global, environment, Store::open)
}

/// Opens the store for a command that frees or reports space, which must work on a full disk.
fn open_store_to_free(global: &Global, environment: &Environment) -> Result<Store, CliError> {
    open_store_by(global, environment, Store::open_to_free)
}

/// Opens the store with `open`, and sets the limit of unpacked archives.
fn open_store_by(
    global: &Global,
    environment: &Environment,
    open: impl FnOnce(&Path, &OpenOptions) -> Result<Store, StoreError>,
) -> Result<Store, CliError> {
    let user_namespace = crate::sandbox::in_user_namespace();
    let root = global.root.clone().or_else(|| environment.store_root(user_namespace));
    let root = root.ok_or_else(|| {
        let text = "error: cannot locate the store: HOME is not set; use --root DIR or RBUILD_ROOT";
        CliError::new(text, Exit::Usage)
    })?;
    let max_unpacked =
        size_setting(global.max_unpacked_size, "RBUILD_MAX_UNPACKED_SIZE", environment)?;
    let options = OpenOptions { user_namespace, now_s: environment.now_s };
    let is_default = global.root.is_none() && environment.get("RBUILD_ROOT").is_none();
    let store = open(&root, &options).map_err(|error| store_error(&error, is_default))?;
    Ok(match max_unpacked {
        Some(max_bytes) => store.with_max_unpacked(max_bytes),
        None => store,
    })
}

/// Returns the error of a store that cannot be opened. A container often has no home directory that
/// its user may write to.
fn store_error(error: &StoreError, is_default: bool) -> CliError {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let is_closed = matches!(error, StoreError::Io(source)
        if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem));
    let help = if is_default && is_closed {
        "; put the store into another directory with --root DIR or RBUILD_ROOT"
    } else {
        ""
    };
    CliError::new(format!("error: {}{help}", crate::executor::chain(error)), Exit::Environment)
}

/// Waits until no other process uses the store, for at most [`PATIENCE`]. Prints the processes that
/// it waits for.
fn wait_alone(store: &Store) -> Result<(), CliError> {
    let waiting =
        |users: &LockHolders| stderr::remark(&format!("waiting for the store, in use by {users}"));
    store
        .wait_for_exclusive_use(PATIENCE, &waiting)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))
}

/// Opens the store if it exists, for commands that work without one. Never creates it.
fn existing_store(global: &Global, environment: &Environment) -> Option<Store> {
    let user_namespace = crate::sandbox::in_user_namespace();
    let root = global.root.clone().or_else(|| environment.store_root(user_namespace))?;
    let options = OpenOptions { user_namespace, now_s: environment.now_s };
    let is_there = root.join("index.db").is_file();
    is_there.then(|| Store::open(&root, &options).ok()).flatten()
}

/// Returns the size that an option gives, or else the variable `name` of the environment.
fn size_setting(
    given: Option<u64>,
    name: &str,
    environment: &Environment,
) -> Result<Option<u64>, CliError> {
    let Some(text) = environment.get(name) else { return Ok(given) };
    let from_environment = budget::bytes(text)
        .map_err(|error| CliError::new(format!("error: {name}={text}: {error}"), Exit::Usage))?;
    Ok(Some(given.unwrap_or(from_environment)))
}

/// Runs `work` with services that are enough for transfers: the store, the registry client and
/// progress, without secrets, lock file and cancellation.
fn with_services<T>(
    store: &Store,
    environment: &Environment,
    work: impl FnOnce(&Services<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let registry = registries::client(environment)?;
    let stop =
        CancelSwitch::new().map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let reporter = Reporter::new(Progress::Auto, environment);
    let services = Services {
        store,
        registry: &registry,
        cancel: &stop,
        environment: &environment.for_programs(),
        provided: &Provided::default(),
        locked: &LockedInputs::none(),
        numbers: &StepNumbers::default(),
        events: &|event| reporter.event(&event),
    };
    signals::watching(None, registry.pending_requests(), &reporter, || work(&services))
}

/// Parses an image name from the command line.
///
/// # Errors
/// [`Exit::Usage`] for an invalid name.
fn reference(text: &str) -> Result<Reference, CliError> {
    text.parse()
        .map_err(|error: crate::oci::ReferenceError| CliError::from_error(&error, Exit::Usage))
}
