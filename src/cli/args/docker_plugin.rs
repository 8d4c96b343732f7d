//! The arguments of `docker-plugin`.

use clap::{Args, Subcommand, ValueEnum};

/// The arguments of `docker-plugin`.
#[derive(Debug, Args)]
pub(crate) struct DockerPluginArgs {
    #[command(subcommand)]
    pub(crate) command: DockerPluginCommand,
}

/// The subcommands of `docker-plugin`.
#[derive(Debug, Subcommand)]
pub(crate) enum DockerPluginCommand {
    /// Link rbuild into docker's directory of plugins
    Install(InstallArgs),
    /// Remove the links and the alias
    Uninstall,
}

/// The arguments of `docker-plugin install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Name of the plugin: buildx or rbuild
    ///
    /// `buildx` takes the place of Buildx, also for docker compose. `rbuild` leaves Buildx installed, and
    /// sets the alias `builder` in docker's config.json, so that `docker build` runs rbuild.
    #[arg(
        long = "as",
        value_enum,
        default_value_t = PluginName::Buildx,
        value_name = "buildx|rbuild",
        hide_possible_values = true
    )]
    pub(crate) name: PluginName,
    /// Replace a plugin that is not rbuild
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Values of `docker-plugin install --as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginName {
    /// In the place of Buildx
    Buildx,
    /// Beside Buildx
    Rbuild,
}
