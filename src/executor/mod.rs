//! The driver: resolves images, plans, walks the graph of stages, and hands the result to the
//! sinks. The only place where the modules that do IO meet.
//!
//! Each stage has a thread, which waits where it needs another stage. Independent steps run at the
//! same time, and a step that the target does not need never runs.
//!
//! Imports go in one direction: `schedule` and `debug` use `steps`, these use `mounts` and `copy`,
//! these use `state` (what all stages share), and that uses `cache` and `inputs`.

mod active_step;
mod built;
mod cache;
mod cancel;
mod copy;
mod debug;
mod error;
mod event;
mod inputs;
mod mounts;
mod options;
mod outline;
mod planned_step;
mod reason;
mod schedule;
mod slot;
mod stack;
mod state;
mod steps;
mod transfer;

pub use built::{Built, BuiltImage, BuiltLayer, MadeBy};
#[doc(hidden)]
pub use cache::document::probe_cache_document;
pub use cache::location::{BucketCache, CacheFrom, CacheLocation, CacheTo};
pub use cache::merge::CacheBounds;
pub use cancel::CancelSwitch;
pub use debug::enter::{EnterAt, enter};
pub use debug::session::{DebugSession, SessionIo, Shell};
pub use error::{BuildError, ChecksumBy, DownloadError, Failure, FetchError, LockViolation, chain};
pub use event::{Event, Outcome, StageOutline, StepId, StepNumbers, StepPlace, Stream};
pub use inputs::contexts::{FetchedContext, context_of_object, context_of_stream, fetch_context};
pub use inputs::locked::{LockRule, LockedInputs};
pub use inputs::provided::{AgentSource, Provided};
pub use inputs::resolve::known_base;
pub use inputs::ssh_key::{KeyError, SshKey};
pub use mounts::run_trust::RunTrust;
pub use options::{
    Budget, BuildOptions, ContextFiles, ContextSource, LayerUpload, Pull, Services, Squash,
};
pub use reason::Reason;
pub use schedule::driver::{FailedBuild, build};
pub use schedule::forecast::{Forecast, ForecastStage, ForecastStep, StepStatus, forecast};
pub use schedule::planning::{base_images, lock};
pub use schedule::retry::with_retries;
pub use steps::run::LAST_LINES;
pub use steps::step_root::resource;
pub use transfer::pull::{fetch_images, pull, pull_all};
pub use transfer::push::{check_platforms, push, push_verbatim};

pub use crate::sandbox::{Exit as CommandExit, SandboxError, may_raise_limits};
