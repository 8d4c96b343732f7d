//! Manifests, indexes and configs as registries bring them.
#![no_main]

#[path = "../support/probe/manifest.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
