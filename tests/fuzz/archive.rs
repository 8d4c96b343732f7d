//! Archives and layers as registries, downloads and contexts bring them.
#![no_main]

#[path = "../support/probe/archive.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
