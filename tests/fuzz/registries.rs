//! Reads `registries.toml`.
#![no_main]

#[path = "../support/probe/registries.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
