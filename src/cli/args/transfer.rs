//! What may be typed after the commands about registries. No IO here.

use clap::Args;

use super::compression::CompressionArgs;

#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// The image; with a digest, what the store has under that, unchanged
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    pub(in crate::cli) name: String,
    /// Drop platforms of an index there: replace it by one for fewer platforms, or by one image
    #[arg(long)]
    pub(in crate::cli) replace_index: bool,
    #[command(flatten)]
    pub(in crate::cli) compression: CompressionArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LoginArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(in crate::cli) registry: String,
    /// Who; asked for on a terminal when it is not given
    #[arg(short, long, value_name = "USER")]
    pub(in crate::cli) username: Option<String>,
    /// The password or token; others can see it here
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(in crate::cli) password: Option<String>,
    /// Read the password or token from standard input
    #[arg(long)]
    pub(in crate::cli) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogoutArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub(in crate::cli) registry: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PullArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    pub(in crate::cli) name: String,
    /// For this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(in crate::cli) platform: Option<String>,
    /// For all platforms that it has: with the index over them, unchanged
    #[arg(long, conflicts_with = "platform")]
    pub(in crate::cli) all_platforms: bool,
}
