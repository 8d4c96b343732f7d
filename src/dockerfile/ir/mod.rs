//! The IR: a Dockerfile as data, in closed enums, with the span of every value.
//!
//! `syntax` makes it from text. Variables are not yet expanded: a [`Word`] is text as written. Nothing
//! here knows images or files.

mod instruction;
mod mount;
mod print;

pub use instruction::{
    Add, Arg, Check, Copy, CopyFlags, CopySource, Directives, Dockerfile, Escape, Expose, From,
    Healthcheck, HealthcheckTest, Heredoc, Instruction, Kind, Onbuild, Pair, Patience, Run,
    RunForm, RunNetwork, RunSecurity, ShellOrExec, Stage, Word,
};
pub use mount::{Mount, MountType, Sharing};
pub use print::print;
