//! `--lockfile`, `--locked` and `--offline`, and the arguments of `lock`.

use std::path::PathBuf;

use clap::Args;

use crate::executor::LockRule;

use super::build::BuildArgs;

/// What a build takes its inputs for.
#[derive(Debug, Args)]
pub(crate) struct LockOptions {
    /// The file that says what images, downloads and git references were
    /// [default: rbuild.lock beside the Dockerfile, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) lockfile: Option<PathBuf>,
    /// Fail if an input from elsewhere is not in the lock file, or not what it says
    #[arg(long)]
    pub(crate) locked: bool,
    /// Never use the network: fail if something is not in the store; RUN steps have no network
    #[arg(long, conflicts_with_all = ["pull", "push"])]
    pub(crate) offline: bool,
}

impl LockOptions {
    /// What the entries mean to a build.
    pub(crate) const fn rule(&self) -> LockRule {
        if self.locked { LockRule::Strict } else { LockRule::Follow }
    }
}

/// It takes the options of the build that is to be locked; what comes out of one does not matter.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Ask again for what is in the lock file already; for all its platforms unless --platform says
    /// for which
    #[arg(long)]
    pub(crate) update: bool,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}
