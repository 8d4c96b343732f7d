//! Tables of contents of archives.
#![no_main]

#[path = "../support/probe/load.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
