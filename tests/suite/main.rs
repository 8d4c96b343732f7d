//! The one integration binary; its modules mirror the rooms.
#![expect(clippy::tests_outside_test_module, reason = "this whole crate is tests")]

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod archive;
mod broken;
mod budget;
mod build;
mod cache_mounts;
mod caches;
mod ci_files;
mod cli;
mod container;
mod context;
mod corpus;
mod diff;
mod engine;
mod enter;
mod expand;
mod explain;
mod faults;
mod foresee;
mod grammar;
mod history;
mod image;
mod inspect;
mod language;
mod layering;
mod lazy;
mod lint;
mod lint_fix;
mod live;
mod locked;
mod memory;
mod mounts;
mod outputs;
mod parse;
mod pipeline;
mod plan;
mod platforms;
mod progress;
mod prompt;
mod prune;
mod pushes;
mod real;
mod registry;
mod remote;
mod s3;
mod sandbox;
mod save_load;
mod store;
mod store_images;
mod tidy;
mod tls;
mod uploads;
