//! Lock files: what is written again is the same.

use rbuild::cli::probes::lock_file;

/// Reads `bytes` as `rbuild.lock`.
pub(crate) fn probe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match lock_file(text) {
        Ok(again) => assert_eq!(lock_file(&again), Ok(again)),
        Err(error) => assert!(!error.is_empty()),
    }
}
