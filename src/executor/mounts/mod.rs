//! Mounts of a RUN: their sources, their mount points, and what they keep out of the output.

pub(super) mod cache_mount;
mod changed_files;
pub(super) mod context_directories;
mod java_keystore;
pub(super) mod mask;
pub(super) mod mount_point;
pub(super) mod run_trust;
pub(super) mod source;
pub(super) mod step_mounts;
pub(super) mod trusted_files;
