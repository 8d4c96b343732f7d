//! `--squash` and `--squash-all`: fewer layers.

use clap::Args;

use crate::executor::Squash;

use super::heading::OUTPUT;

/// Options that put several layers into one.
#[derive(Debug, Default, Args)]
pub(crate) struct SquashArgs {
    /// Put all new layers into one
    ///
    /// Keeps the layers of the base image. Steps are cached as usual.
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) squash: bool,
    /// Put all layers into one, with those of the base
    #[arg(long, conflicts_with = "squash", help_heading = OUTPUT)]
    pub(crate) squash_all: bool,
}

impl SquashArgs {
    /// Returns the layers that are put together.
    pub(crate) const fn choice(&self) -> Squash {
        match (self.squash_all, self.squash) {
            (true, _) => Squash::All,
            (false, true) => Squash::New,
            (false, false) => Squash::Nothing,
        }
    }
}
