//! Steps that make layers, and diagnosis of a failed RUN.

pub(super) mod exec_diagnosis;
pub(super) mod failure_hints;
pub(super) mod file_steps;
pub(super) mod run;
pub(super) mod run_failure;
pub(super) mod step_files;
pub(super) mod step_root;
mod time_limit;
pub(super) mod workdir;
