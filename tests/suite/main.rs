//! The single integration test binary; its modules mirror those of the crate.
#![expect(clippy::tests_outside_test_module, reason = "this whole crate is tests")]

#[path = "../support/mod.rs"]
mod support;

mod advice;
mod agreement;
mod archive;
mod bases;
mod bounds;
mod broken;
mod budget;
mod build;
mod cache_mounts;
mod caches;
mod check;
mod checkout;
mod ci_files;
mod cli;
mod container;
mod contents;
mod context;
mod corpus;
mod damage;
mod debug_log;
mod dependencies;
mod diff;
mod documents;
mod engine;
mod enter;
mod examples;
mod expand;
mod explain;
mod faults;
mod forecast;
mod grammar;
mod history;
mod image;
mod in_place;
mod indexes;
mod inspect;
mod install;
mod isolation;
mod isolation_fences;
mod isolation_kills;
