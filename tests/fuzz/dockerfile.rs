//! Whole Dockerfiles, up to the plan.
#![no_main]

#[path = "../support/probe/dockerfile.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
