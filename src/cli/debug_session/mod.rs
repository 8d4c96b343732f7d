//! Shells and commands in the root file system of a step, attached to the user's terminal.

pub(super) mod console;
pub(super) mod raw_mode;
pub(super) mod shell;
