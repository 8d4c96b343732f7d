//! Runs one command in one rootfs; knows nothing of Dockerfiles or images.
//!
//! To follow one command from clone(2) to execve(2), read in this order:
//!
//! 1. `run`: [`run()`] and [`run_attached`], the entry points.
//! 2. `ops`: [`rootfs_ops`], a pure function that lists the operations of the child's setup.
//! 3. `prepare`: makes the C strings, descriptors and arrays that these operations need.
//! 4. `step_process` and `sys::clone`: the child in new namespaces, sharing its parent's memory.
//! 5. `child`: the loop that applies the operations by raw system calls, without allocating.
//! 6. `verify`: the last operation, which asks the kernel whether the sandbox is complete.
//! 7. `launcher`: the small program that the child executes, and that executes the command.
//!
//! Without namespaces, or with a single user id, `supervised` runs the command: `supervised_mounts` and
//! `supervised_child` prepare it, `reaper` ends its processes, and `supervisor` answers its system calls.
//! `isolation` says which is in force.
//!
//! `private_network` makes the network of `Network::Private`, `cgroup` the control group of a command, and
//! `process_tree` finds what a command was doing when it was killed.
//!
//! The command is pid 1 of its namespace: when it ends, the kernel kills all that it started
//! (pid_namespaces(7)). An ordinary user's rbuild first moves into a user namespace of its own
//! (`user_namespace`).

mod attributes;
mod c_strings;
mod caps;
mod cgroup;
mod cgroup_files;
mod child;
mod detached_mount;
mod devices;
mod elf_image;
mod emulated_owners;
mod entry_report;
mod error;
mod exec_error;
mod file_time;
mod isolation;
mod isolation_choice;
mod kept_mounts;
mod launcher;
mod loader;
mod memory_directory;
mod mounts;
mod ops;
mod ops_text;
mod pivot;
mod prepare;
mod prepared;
mod private_network;
mod process_tree;
mod reaper;
mod report;
mod rootfs;
mod run;
mod seccomp;
mod spec;
mod step_process;
mod streams;
mod supervised;
mod supervised_child;
mod supervised_mounts;
mod supervisor;
mod sys;
mod terminal;
mod tier_trials;
mod trial;
mod user_namespace;
mod verify;

pub use attributes::{Attributes, EmulatedFiles, FileId};
pub use caps::may_raise_limits;
pub use cgroup::{ResourceLimits, StepCgroup, SwapLimit};
pub use devices::Device;
pub use emulated_owners::FileAccess;
pub use error::SandboxError;
pub use file_time::FileTime;
pub use isolation::{
    Fence, Isolation, IsolationChoice, Refusal, isolation, refusal, refusals, remarks,
};
pub use isolation_choice::{Trials, enter_or_continue, try_all};
pub use memory_directory::{MemoryLimit, limited_memory_directory, memory_directory, memory_use};
pub use ops::{MountFlags, SetupOp, rootfs_ops};
pub use private_network::{NAME_SERVER, PrivateNetwork, PrivateNetworkOptions};
pub use rootfs::{MAX_LOWERS, Rootfs, merged_directories};
pub use run::{RunOutcome, run, run_attached};
pub use spec::{
    CapabilityChanges, DEFAULT_SHM_BYTES, Exit, KeptMounts, Limit, Mount, MountNamespace,
    MountSource, Network, Output, Resource, RunSpec, Streams, User,
};
pub use streams::AttachOptions;
pub use sys::allocator::return_large_blocks;
pub use trial::try_step;
pub use user_namespace::{Entered, enter_user_namespace, in_user_namespace};
