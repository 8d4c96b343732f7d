//! What each instruction means: closed enums, every value with its span.
//!
//! The IR is what `syntax` makes of bytes. Variables are not expanded yet (a [`Word`] is the text
//! as written), and nothing here knows stages' images or files.

mod instruction;
mod mount;
mod print;

pub use instruction::{
    Add, Arg, Check, Copy, CopyFlags, CopySource, Directives, Dockerfile, Escape, Expose, From,
    Healthcheck, HealthcheckTest, Heredoc, Instruction, Kind, Label, Onbuild, Pair, Run, RunForm,
    RunNetwork, RunSecurity, ShellOrExec, Stage, Word,
};
pub use mount::{Mount, MountType, Sharing};
pub use print::print;
