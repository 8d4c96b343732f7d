//! `--lockfile`, `--locked` and `--offline`, and the arguments of `lock`.

use std::path::PathBuf;

use clap::Args;

use crate::executor::LockRule;

use super::build::BuildArgs;
use super::heading::REPRODUCIBLE;

/// Options about the lock file.
#[derive(Debug, Args)]
pub(crate) struct LockOptions {
    /// Lock file [default: rbuild.lock beside the Dockerfile]
    ///
    /// The file that pins images, downloads and git references. By default, an existing rbuild.lock
    /// beside the Dockerfile is used.
    #[arg(long, value_name = "FILE", help_heading = REPRODUCIBLE)]
    pub(crate) lockfile: Option<PathBuf>,
    /// Fail if an input differs from the lock file
    ///
    /// Fails also if an image, a download or a git reference is not in the lock file.
    #[arg(long, help_heading = REPRODUCIBLE)]
    pub(crate) locked: bool,
    /// Do not use the network
    ///
    /// Fails if an input is not in the store. RUN steps have no network.
    #[arg(long, conflicts_with_all = ["pull", "push"], help_heading = REPRODUCIBLE)]
    pub(crate) offline: bool,
}

impl LockOptions {
    /// Returns how a build uses the entries.
    pub(crate) const fn rule(&self) -> LockRule {
        if self.locked { LockRule::Strict } else { LockRule::Follow }
    }
}

/// The options of `lock`: those of the build that is to be locked.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Update entries that are in the lock file
    ///
    /// Without --platform, for all platforms of the file.
    #[arg(long)]
    pub(crate) update: bool,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}
