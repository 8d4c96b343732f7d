//! rbuild turns a Dockerfile and a directory into an OCI image.
//!
#![doc = include_str!("ARCHITECTURE.md")]

pub mod limits;
pub mod pathio;
pub mod pool;

pub mod diag;
pub mod oci;

pub mod bake;

pub mod dockerfile;

pub mod tree;

pub mod plan;

pub mod archive;

pub mod context;
pub mod sandbox;
pub mod store;

pub mod registry;

pub mod image;

pub mod executor;

pub mod cli;
