//! What goes with `--check`.

use clap::{Args, ValueEnum};

use super::call::Format;

/// Lookup of base images by `--check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckedBases {
    /// In the store
    Store,
    /// In the store and in registries
    Pull,
}

/// What goes with `--check`.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// With --check: write into the Dockerfile what the warnings ask for, where that is one safe
    /// thing, and show what was changed
    #[arg(long)]
    pub(crate) fix: bool,
    /// With --check or --call: how that is shown; sarif is what code scanning reads (SARIF 2.1.0)
    #[arg(long, value_name = "text|json|sarif")]
    pub(crate) format: Option<Format>,
}

impl CheckArgs {
    /// Which of the two was typed.
    pub(crate) const fn given(&self) -> Option<&'static str> {
        if self.fix {
            return Some("--fix");
        }
        if self.format.is_some() { Some("--format") } else { None }
    }
}
