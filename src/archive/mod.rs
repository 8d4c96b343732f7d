//! Deterministic tar, compression and digesting over streams.
