//! The language of Dockerfiles: what an instruction is, how it is read, expanded and checked.

pub mod expand;
pub mod ir;
pub mod lint;
pub mod syntax;
