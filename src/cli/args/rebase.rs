//! The arguments of `rebase`.

use clap::Args;

/// The arguments of `rebase`.
#[derive(Debug, Args)]
pub(crate) struct RebaseArgs {
    /// Image to rebase
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Base image to put it on
    ///
    /// Its registry is asked for the newest version.
    #[arg(long, value_name = "BASE")]
    pub(crate) onto: String,
    /// Base image that it was built on
    ///
    /// [default: the one that its annotations name, or the version of BASE in the store]
    #[arg(long, value_name = "OLD")]
    pub(crate) base: Option<String>,
    /// Name of the result [default: IMAGE]
    ///
    /// May be repeated.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
}
