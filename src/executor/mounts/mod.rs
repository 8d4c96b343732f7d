//! Mounts of a RUN: their sources, their mount points, and what they keep out of the output.

pub(super) mod cache_mount;
pub(super) mod context_directories;
pub(super) mod mask;
pub(super) mod mount_point;
pub(super) mod source;
pub(super) mod step_mounts;
