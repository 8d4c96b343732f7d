//! The options `--ca` and `--registry`.

use std::path::PathBuf;

use clap::Args;

use super::heading::GLOBAL;

/// Settings of registries, which take precedence over `registries.toml`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Trust these CA certificates (PEM), too
    ///
    /// Additional trusted CA certificates, for all registries. May be repeated.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) ca: Vec<PathBuf>,
    /// Connection settings of a registry: http, mirror=URL, …
    ///
    /// The name of the registry, then any of http, insecure, mirror=URL, ca=FILE, and cert=FILE with
    /// key=FILE, separated by commas. May be repeated.
    #[arg(long = "registry", global = true, value_name = "HOST[,…]", help_heading = GLOBAL)]
    pub(crate) settings: Vec<String>,
}

impl RegistryArgs {
    /// Returns whether any of the options was given.
    pub(crate) const fn is_given(&self) -> bool {
        !self.ca.is_empty() || !self.settings.is_empty()
    }
}
