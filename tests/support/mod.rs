//! What tests share: fixtures and the programs that they need.

pub(crate) mod sandbox;
