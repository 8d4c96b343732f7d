//! Reads names of images.
#![no_main]

#[path = "../support/probe/reference.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
