//! Ignore files, and what they exclude.
#![no_main]

#[path = "../support/probe/ignore.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
