//! Documents of build caches.
#![no_main]

#[path = "../support/probe/cache.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe::probe(bytes));
