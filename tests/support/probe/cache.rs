//! Documents of build caches: what is written again is the same.

use rbuild::executor::probe_cache_document;

/// Reads `bytes` as a cache's document.
pub(crate) fn probe(bytes: &[u8]) {
    match probe_cache_document(bytes) {
        Ok(again) => assert_eq!(probe_cache_document(&again), Ok(again)),
        Err(error) => assert!(!error.is_empty()),
    }
}
