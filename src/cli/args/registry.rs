//! How registries are spoken to, as it is typed.

use std::path::PathBuf;

use clap::Args;

/// How registries are spoken to, beside what `registries.toml` says.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Believe these certificates (PEM) besides the system's; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,
    /// How to speak to one registry: its name, then any of http, insecure, mirror=URL, ca=FILE,
    /// and cert=FILE with key=FILE, separated by commas; may be repeated
    #[arg(long = "registry", global = true, value_name = "HOST[,…]")]
    pub(crate) settings: Vec<String>,
}

impl RegistryArgs {
    /// Whether anything was said.
    pub(crate) const fn is_given(&self) -> bool {
        !self.ca.is_empty() || !self.settings.is_empty()
    }
}
