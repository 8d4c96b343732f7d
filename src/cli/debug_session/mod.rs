//! Shells and commands in a step's root file system, and the terminal that they use.

pub(super) mod console;
pub(super) mod raw;
pub(super) mod shell;
