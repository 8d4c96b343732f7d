//! `--fix` and `--format`, which go with `--check`.

use clap::{Args, ValueEnum};

use super::call::Format;
use super::heading::CHECKS;

/// Values of `--check`: the sources of base images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckedBases {
    /// The local store
    Store,
    /// The store, then registries
    Pull,
}

/// Options that go with `--check`.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// With --check: apply safe fixes to the Dockerfile
    ///
    /// Fixes warnings that have one safe fix, and shows the changes.
    #[arg(long, help_heading = CHECKS)]
    pub(crate) fix: bool,
    /// With --check or --call: text, json or sarif
    ///
    /// sarif is for code scanning (SARIF 2.1.0).
    #[arg(long, value_name = "FORMAT", help_heading = CHECKS)]
    pub(crate) format: Option<Format>,
}

impl CheckArgs {
    /// Returns the name of an option that was given.
    pub(crate) const fn given(&self) -> Option<&'static str> {
        if self.fix {
            return Some("--fix");
        }
        if self.format.is_some() { Some("--format") } else { None }
    }
}
