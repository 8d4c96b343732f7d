//! The driver: resolves images, plans, walks the graph of stages, and hands the result to the
//! sinks. The only place where the modules that do IO meet.
//!
//! Every stage has a thread of its own, which waits where it needs another stage: so independent
//! steps run at the same time, and what the target does not need never runs.

mod add_archives;
mod agent;
mod assemble;
mod bucket_cache;
mod budget;
mod built;
mod cache_document;
mod cache_export;
mod cache_mount;
mod cache_mount_transfer;
mod cancel;
mod contexts;
mod copy;
mod copy_error;
mod debug_session;
mod download;
mod driver;
mod enter;
mod error;
mod event;
mod exec_diagnosis;
mod explain;
mod failure_hints;
mod fallback_shell;
mod fetch;
mod file_steps;
mod forecast;
mod git_agent;
mod images;
mod layers;
mod layout;
mod locked;
mod lookup;
mod mask;
mod mount_source;
mod mountpoint;
mod mounts;
mod options;
mod pack_ahead;
mod planning;
mod provided;
mod pull;
mod push;
mod remote;
mod remote_cache;
mod resolve;
mod retry;
mod run;
mod run_failure;
mod shared;
mod slot;
mod ssh_key;
mod stack;
mod step_root;
mod workdir;

pub use bucket_cache::BucketCache;
pub use budget::Budget;
pub use built::{Built, BuiltImage, BuiltLayer, MadeBy};
#[doc(hidden)]
pub use cache_document::probe_cache_document;
pub use cancel::Stop;
pub use contexts::{ContextFiles, FetchedContext, context_of_stream, fetch_context};
pub use debug_session::{Entrance, Shell, Visit};
pub use download::{ChecksumBy, DownloadError};
pub use driver::build;
pub use enter::{EnterAt, enter};
pub use error::{BuildError, Failure, chain};
pub use event::{Event, Outcome, StageOutline, StepId, StepNumbers, StepPlace, Stream};
pub use explain::Reason;
pub use fetch::FetchError;
pub use forecast::{Fate, Foreseen, ForeseenStage, ForeseenStep, foresee};
pub use locked::{LockRule, LockViolation, LockedInputs};
pub use options::{BuildOptions, ContextSource, Services};
pub use planning::{base_images, lock};
pub use provided::{AgentSource, Lent};
pub use pull::{fetch_images, pull, pull_all};
pub use push::{check_platforms, push, push_verbatim};
pub use remote_cache::{CacheFrom, CachePlace, CacheTo};
pub use resolve::known_base;
pub use retry::with_retries;
pub use run::LAST_LINES;
pub use ssh_key::{KeyError, SshKey};
pub use step_root::resource;

pub use crate::sandbox::{Exit as CommandExit, SandboxError, may_raise_limits};
