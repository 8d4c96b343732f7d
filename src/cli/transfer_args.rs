//! What may be typed after the commands about registries. No IO here.

use clap::Args;

use super::args::CompressionArgs;

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The image; with a digest, what the store has under that, unchanged
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    pub(super) name: String,
    /// Drop platforms of an index there: replace it by one for fewer platforms, or by one image
    #[arg(long)]
    pub(super) replace_index: bool,
    #[command(flatten)]
    pub(super) compression: CompressionArgs,
}

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(super) registry: String,
    /// Who; asked for on a terminal when it is not given
    #[arg(short, long, value_name = "USER")]
    pub(super) username: Option<String>,
    /// The password or token; others can see it here
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(super) password: Option<String>,
    /// Read the password or token from standard input
    #[arg(long)]
    pub(super) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(super) registry: String,
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    pub(super) name: String,
    /// For this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(super) platform: Option<String>,
    /// For all platforms that it has: with the index over them, unchanged
    #[arg(long, conflicts_with = "platform")]
    pub(super) all_platforms: bool,
}
