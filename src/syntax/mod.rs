//! Bytes into IR and diagnostics; the only user of nom.
