//! The one integration binary; its modules mirror the rooms.
#![expect(clippy::tests_outside_test_module, reason = "this whole crate is tests")]

mod sandbox;
#[path = "../support/mod.rs"]
mod support;

mod archive;
mod context;
mod expand;
mod grammar;
mod image;
mod parse;
mod registry;
