//! Runs one command in one rootfs; knows nothing of Dockerfiles or images.
//!
//! [`run()`] makes a list of operations ([`rootfs_ops`], a pure function), prepares what they need,
//! and starts a child in new namespaces that applies them one by one, verifies the result, and
//! executes the command by way of a small program of its own, the launcher.
//! The command is pid 1 of its namespace: when it ends, the kernel ends all that it started.
//! An ordinary user's rbuild first goes to a user namespace of its own.

mod caps;
mod child;
mod devices;
mod idmap;
mod keep;
mod launcher;
mod mounts;
mod ops;
mod ops_text;
mod pivot;
mod prepare;
mod rootfs;
mod run;
mod seccomp;
mod spec;
mod streams;
mod sys;
mod terminal;
mod verify;

pub use caps::may_raise_limits;
pub use devices::Device;
pub use idmap::{Entered, enter_user_namespace, in_user_namespace};
pub use ops::{MountFlags, SetupOp, rootfs_ops};
pub use rootfs::{MAX_LOWERS, Rootfs, memory_directory, merged_directories};
pub use run::{Attending, Ran, run, run_attended};
pub use spec::{
    DEFAULT_SHM_BYTES, Exit, Kept, Limit, Mount, MountSource, Network, Output, Resource, RunSpec,
    SandboxError, Streams, User, View,
};
