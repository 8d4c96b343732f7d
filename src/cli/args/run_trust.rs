//! `--ca-for-run` and `--http-proxy`: what RUN steps need in the network of a company.

use std::path::PathBuf;

use clap::Args;

use super::docker::boolean;
use super::heading::STEPS;

/// Settings of the network of RUN steps.
#[derive(Debug, Default, Args)]
pub(crate) struct RunTrustArgs {
    /// Let RUN steps trust these CA certificates (PEM)
    ///
    /// For networks that inspect TLS. The certificates are trusted while a step runs, and are in no
    /// layer, cache key or history. May be repeated; see also `ca-for-run` in registries.toml.
    #[arg(long, value_name = "FILE", help_heading = STEPS)]
    pub(crate) ca_for_run: Vec<PathBuf>,
    /// Pass the proxy variables of the environment to RUN
    ///
    /// HTTP_PROXY, HTTPS_PROXY, FTP_PROXY, ALL_PROXY and NO_PROXY, in upper or lower case, as if each
    /// were given with --build-arg.
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        help_heading = STEPS
    )]
    pub(crate) http_proxy: bool,
}
