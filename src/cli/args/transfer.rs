//! The arguments of `push`, `pull`, `login` and `logout`.

use clap::Args;

use super::compression::CompressionArgs;

/// The arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Image to push
    ///
    /// With a digest, the manifest or index of the store is pushed unchanged.
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    pub(crate) name: String,
    /// Permit removing platforms from an index
    ///
    /// Permits replacing an index of the registry by one for fewer platforms, or by a single image.
    #[arg(long)]
    pub(crate) replace_index: bool,
    #[command(flatten)]
    pub(crate) compression: CompressionArgs,
}

/// The arguments of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Host name of the registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(crate) registry: String,
    /// User name (prompted for if omitted)
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Password or token
    ///
    /// Other users of the machine can see it on the command line: prefer --password-stdin.
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password or token from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// The arguments of `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Host name of the registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(crate) registry: String,
}

/// The arguments of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Name of the image to pull
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
    /// Pull this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Pull all platforms
    ///
    /// Keeps the index over them unchanged.
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
}
