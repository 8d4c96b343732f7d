//! Shared by all tests: fixtures and the programs that they need.

pub(crate) mod actions_cache;
pub(crate) mod browser;
pub(crate) mod byte_counter;
pub(crate) mod cache;
pub(crate) mod certificates;
pub(crate) mod container;
pub(crate) mod earley;
pub(crate) mod ebnf;
pub(crate) mod env;
pub(crate) mod generate;
pub(crate) mod git;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod imports;
pub(crate) mod mutate;
pub(crate) mod namespace;
pub(crate) mod normal;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod registry;
pub(crate) mod s3;
pub(crate) mod sandbox;
pub(crate) mod seeds;
pub(crate) mod source;
pub(crate) mod terminals;
pub(crate) mod tmux;
