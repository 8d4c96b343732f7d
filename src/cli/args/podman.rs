//! Options of `buildah build` and `podman build` that `docker build` does not have.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::docker::boolean;
use super::heading::{CACHE, CHECKS, INPUTS, OUTPUT, REPRODUCIBLE, STEPS};

/// Options that buildah and podman have.
#[derive(Debug, Default, Args)]
pub(crate) struct PodmanArgs {
    /// Read build arguments from FILE
    ///
    /// Lines of NAME=VALUE; blank ones and those that begin with # are ignored. --build-arg takes
    /// precedence. May be repeated.
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// Ignore file, in place of .dockerignore
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub(crate) ignorefile: Option<PathBuf>,
    /// Image for the first FROM, in place of the one there
    #[arg(long, value_name = "IMAGE", help_heading = INPUTS)]
    pub(crate) from: Option<String>,
    /// Begin each stage with a variable, as ENV does
    ///
    /// Without a value, that of the environment is used. May be repeated.
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = OUTPUT)]
    pub(crate) env: Vec<String>,
    /// Remove a variable from the image
    ///
    /// May be repeated.
    #[arg(long, value_name = "NAME", help_heading = OUTPUT)]
    pub(crate) unsetenv: Vec<String>,
    /// Remove a label from the image
    ///
    /// May be repeated.
    #[arg(long, value_name = "NAME", help_heading = OUTPUT)]
    pub(crate) unsetlabel: Vec<String>,
    /// false: do not take over labels of base images
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = OUTPUT
    )]
    pub(crate) inherit_labels: Option<bool>,
    /// Time of the image and its files, seconds since 1970
    ///
    /// The same as --reproducible with SOURCE_DATE_EPOCH.
    #[arg(long, value_name = "SECONDS", help_heading = REPRODUCIBLE)]
    pub(crate) timestamp: Option<u64>,
    /// Time of the image alone, seconds since 1970
    #[arg(long, value_name = "SECONDS", conflicts_with = "timestamp", help_heading = REPRODUCIBLE)]
    pub(crate) source_date_epoch: Option<u64>,
    /// false: rebuild every step, as with --no-cache
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = CACHE
    )]
    pub(crate) layers: Option<bool>,
    /// Mount a directory of this machine in RUN steps
    ///
    /// Options are ro, rw, O (writes are discarded), and z and Z, which have no effect. What is there is
    /// not part of the cache key. May be repeated.
    #[arg(
        short = 'v',
        long,
        value_name = "HOST:TARGET[:OPTIONS]",
        help_heading = STEPS
    )]
    pub(crate) volume: Vec<String>,
    /// Give RUN steps a further capability
    ///
    /// Such as CAP_SYS_PTRACE. System calls that docker's rules forbid stay forbidden. May be repeated.
    #[arg(long, value_name = "CAP", help_heading = STEPS)]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability away from RUN steps, or ALL
    ///
    /// May be repeated.
    #[arg(long, value_name = "CAP", help_heading = STEPS)]
    pub(crate) cap_drop: Vec<String>,
    /// Name server of RUN steps
    ///
    /// In place of those of this machine. May be repeated.
    #[arg(long, value_name = "ADDRESS", help_heading = STEPS)]
    pub(crate) dns: Vec<String>,
    /// Domain that RUN steps search for names
    ///
    /// May be repeated.
    #[arg(long, value_name = "DOMAIN", help_heading = STEPS)]
    pub(crate) dns_search: Vec<String>,
    /// Option of the resolver in RUN steps, such as ndots:2
    ///
    /// May be repeated.
    #[arg(long, value_name = "OPTION", help_heading = STEPS)]
    pub(crate) dns_option: Vec<String>,
    /// Write the log to FILE, and nothing to the terminal
    ///
    /// Appends what would go to standard output and standard error.
    #[arg(long, value_name = "FILE", help_heading = CHECKS)]
    pub(crate) logfile: Option<PathBuf>,
}

/// Values of `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Ask registries, and fail if they do not have the image
    #[value(alias = "true")]
    Always,
    /// Ask registries, and use the image of the store if they do not have a newer one
    Newer,
    /// Ask registries for images that the store does not have
    #[value(aliases = ["false", "ifnotpresent"])]
    Missing,
    /// Use images of the store only
    Never,
}

/// Reads the lines of a file of build arguments.
pub(crate) fn argument_lines(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = |(at, line): (usize, &str)| match line.split_once('=') {
        Some((name, _)) if !name.trim().is_empty() => Ok(line.to_owned()),
        Some(_) | None => Err(format!("line {}: expected NAME=VALUE", at + 1)),
    };
    lines.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_arguments_have_a_pair_a_line() {
        let lines = argument_lines("# comment\n\nA=b\n  C=d e # f\nE=\n");
        assert_eq!(lines, Ok(["A=b", "C=d e # f", "E="].map(str::to_owned).to_vec()));
        for (text, want) in
            [("A\n", "line 1: expected NAME=VALUE"), ("\n=x", "line 2: expected NAME=VALUE")]
        {
            assert_eq!(argument_lines(text), Err(want.to_owned()));
        }
    }
}
