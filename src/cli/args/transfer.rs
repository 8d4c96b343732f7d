//! What may be typed after the commands about registries. No IO here.

use clap::Args;

use super::compression::CompressionArgs;

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image; with a digest, what the store has under that, unchanged
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    pub(crate) name: String,
    /// Drop platforms of an index there: replace it by one for fewer platforms, or by one image
    #[arg(long)]
    pub(crate) replace_index: bool,
    #[command(flatten)]
    pub(crate) compression: CompressionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(crate) registry: String,
    /// Who; asked for on a terminal when it is not given
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// The password or token; others can see it here
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password or token from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(crate) registry: String,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
    /// For this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// For all platforms that it has: with the index over them, unchanged
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
}
