//! `/etc/passwd` and `/etc/group` of images.
#![no_main]

#[path = "../support/probe/accounts.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
