//! Reads answers of registries, buckets and credential helpers.
#![no_main]

#[path = "../support/probe/registry.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
