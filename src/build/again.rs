//! A build once more, without the layers that a cache promised and did not give, or with blobs in
//! place of those that turned out to be damaged.

use std::io;

use crate::store::StoreError;

use super::options::Services;
use super::{BuildError, Event, Failure, chain};

/// So many layers may turn out to be missing, one after the other.
const MAX_TRIES: usize = 100;

/// Does `work`, a build and what is done with it. When a layer that a cache said it had turns out to
/// be gone, or another one, or when a blob of the store was damaged, this is a warning, and the work
/// is done anew without it: what was made by then is found in the store.
///
/// # Errors
/// The work's.
pub fn without_missing_layers<T>(
    services: &Services<'_>,
    mut work: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    for _ in 1..MAX_TRIES {
        match work() {
            Err(error) if is_worth_another_try(services, &error) => {
                let text = format!("what needs it is made anew: {}", chain(&error));
                (services.events)(Event::Warning { text });
            }
            done => return done,
        }
    }
    work()
}

/// Returns whether what was in the way is gone: no place is left that is said to have the layer, so
/// that no step can be found that needs it, or a damaged blob was removed.
fn is_worth_another_try(services: &Services<'_>, error: &BuildError) -> bool {
    let is_forgotten = if let BuildError::CachedLayer { layer, .. } = error {
        services.store.sources(*layer).is_ok_and(|sources| sources.is_empty())
    } else {
        is_damaged_blob(error)
    };
    is_forgotten && services.stop.take_back()
}

fn is_damaged_blob(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| inner?.downcast_ref());
        if let Some(StoreError::Corrupt { is_removed: true, .. }) = found {
            return true;
        }
        next = error.source();
    }
    false
}
