//! The one integration binary; its modules mirror the rooms.
#![expect(clippy::tests_outside_test_module, reason = "this whole crate is tests")]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod build;
mod cli;
mod context;
mod expand;
mod grammar;
mod image;
mod layering;
mod lint;
mod memory;
mod mounts;
mod parse;
mod plan;
mod platforms;
mod registry;
mod remote;
mod sandbox;
mod store;
mod tidy;
