//! Repeats a build without layers that a cache promised and no longer has, after damaged blobs were
//! removed, or with fresh hashes of files.

use std::io;

use crate::archive::ArchiveError;
use crate::image::ExportError;
use crate::store::StoreError;

use crate::executor::{BuildError, BuildOptions, ContextFiles, Event, Failure, Services, chain};

/// Maximum number of attempts: layers may turn out to be missing one after the other.
const MAX_ATTEMPTS: usize = 100;

/// Does `work`, a build and its outputs, until it succeeds or fails for good.
///
/// If a layer that a cache promised is gone or has changed, or if a blob of the store was damaged,
/// reports a warning and repeats the work without it. Steps that were executed by then are found in
/// the store. If a file of a context differs from its stored hash, forgets all hashes and repeats
/// the work once.
///
/// # Errors
/// The error of the last attempt.
pub fn with_retries<T>(
    services: &Services<'_>,
    options: &BuildOptions,
    mut work: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut remembers = true;
    for _ in 1..MAX_ATTEMPTS {
        let error = match work() {
            Err(error) => error,
            done => return done,
        };
        let text = if is_worth_retry(services, &error) {
            format!("retrying without it: {}", chain(&error))
        } else if remembers && is_other_content(&error) {
            remembers = false;
            if !forget_hashes(services, options)? || !services.cancel.undo_failure() {
                return Err(error);
            }
            format!("retrying with fresh hashes of the context: {}", chain(&error))
        } else {
            return Err(error);
        };
        (services.events)(Event::Warning { text });
    }
    work()
}

/// Forgets the hashes of the contexts' files. Returns whether there were any: without, a file did
/// change while it was read.
fn forget_hashes(services: &Services<'_>, options: &BuildOptions) -> Result<bool, Failure> {
    let named = options.contexts.values().filter_map(|files| match files {
        ContextFiles::Directory(source) => Some(source),
        ContextFiles::Remote(_) => None,
    });
    let mut has_forgotten = false;
    for source in std::iter::once(&options.context).chain(named).filter(|source| source.lasting) {
        let forgotten = services.store.hash_caches().remove(&source.path);
        has_forgotten |= forgotten.map_err(BuildError::from)?;
    }
    Ok(has_forgotten)
}

/// Returns whether a file does not have the content that its listing says.
fn is_other_content(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref()).any(|error| {
        matches!(error, ArchiveError::ContentChanged { .. } | ArchiveError::SizeChanged { .. })
    })
}

/// Returns whether the cause of the error is gone. Either no location is left that is said to have
/// the layer, so that no step that needs it is found; or damaged data was removed.
fn is_worth_retry(services: &Services<'_>, error: &BuildError) -> bool {
    let is_forgotten = if let BuildError::CachedLayer { layer, .. } = error {
        services.store.layer_sources().of_layer(*layer).is_ok_and(|sources| sources.is_empty())
    } else {
        is_damage(error)
    };
    is_forgotten && services.cancel.undo_failure()
}

fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = store_error(error).or_else(|| store_error(inner?));
        if let Some(
            StoreError::Corrupt { is_removed: true, .. }
            | StoreError::DamagedLayer { is_removed: true, .. },
        ) = found
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Returns the store's error that `error` is. Errors that only pass it on do not name it as their
/// source.
fn store_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a StoreError> {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(BuildError::Store(error)), _) | (_, Some(ExportError::Store(error))) => Some(error),
        (Some(BuildError::Export(error)), _) => store_error(error),
        _ => error.downcast_ref(),
    }
}
