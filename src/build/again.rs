//! A build once more, without the layers that a cache promised and did not give.

use super::options::Services;
use super::{BuildError, Event, Failure, chain};

/// So many layers may turn out to be missing, one after the other.
const MAX_TRIES: usize = 100;

/// Does `work`, a build and what is done with it. When a layer that a cache said it had turns out to
/// be gone, or another one, this is a warning, and the work is done anew without it: what was made
/// by then is found in the store.
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
                let text = format!("the steps that need it are made anew: {}", chain(&error));
                (services.events)(Event::Warning { text });
            }
            done => return done,
        }
    }
    work()
}

/// Whether no place is left that is said to have the layer, so that no step can be found that needs it.
fn is_worth_another_try(services: &Services<'_>, error: &BuildError) -> bool {
    let BuildError::CachedLayer { layer, .. } = error else { return false };
    let is_forgotten = services.store.sources(*layer).is_ok_and(|sources| sources.is_empty());
    is_forgotten && services.stop.take_back()
}
