//! The Dockerfile language: instructions as data, parsing, expansion, evaluation and build checks.

pub mod expand;
pub mod ir;
pub mod lint;
pub mod scope;
pub mod syntax;
