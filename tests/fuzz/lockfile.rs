//! Reads lock files.
#![no_main]

#[path = "../support/probe/lockfile.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
