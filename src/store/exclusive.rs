//! Exclusive use of a store, which `prune` and repairs need: they wait a while for other processes,
//! and then name them in an error.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{LockHolders, Store, StoreError};

/// Pause between two attempts to lock the store.
const POLL: Duration = Duration::from_millis(50);
/// Waits shorter than this are not shown.
const UNSHOWN: Duration = Duration::from_millis(500);

/// Implements [`Store::wait_for_exclusive_use`].
pub(super) fn wait(
    store: &Store,
    patience: Duration,
    waiting: &dyn Fn(&LockHolders),
) -> Result<(), StoreError> {
    let started = Instant::now();
    let mut is_shown = false;
    while !store.in_use.try_upgrade() {
        // Two processes that both kept their shared lock would wait for each other forever.
        store.in_use.unlock();
        if started.elapsed() >= patience {
            return Err(in_use(&store.root));
        }
        if started.elapsed() >= UNSHOWN && !is_shown {
            is_shown = true;
            waiting(&LockHolders::of_store(&store.root));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Returns the error for a store that other processes use.
pub(super) fn in_use(root: &Path) -> StoreError {
    StoreError::InUse { root: root.to_owned(), holders: LockHolders::of_store(root) }
}
