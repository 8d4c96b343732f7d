//! Quotes and variables in words and heredocs.
#![no_main]

#[path = "../support/probe/words.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
