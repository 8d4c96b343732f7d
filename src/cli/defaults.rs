//! Variables of docker's that stand for options which were not given.

use clap::ValueEnum as _;

use super::args::build::BuildArgs;
use super::args::progress::Progress;
use super::environment::Environment;
use super::error::CliError;
use super::exit::Exit;

/// Sets options that were not given: `--platform` to `DOCKER_DEFAULT_PLATFORM`, `--progress` to
/// `BUILDKIT_PROGRESS`.
///
/// # Errors
/// A usage error if a variable has a value that the option does not have.
pub(super) fn apply(args: &mut BuildArgs, environment: &Environment) -> Result<(), CliError> {
    if args.platform.is_empty()
        && let Some(platform) = environment.get("DOCKER_DEFAULT_PLATFORM")
    {
        args.platform.push(platform.to_owned());
    }
    if args.progress == Progress::Auto
        && !args.quiet
        && let Some(style) = environment.get("BUILDKIT_PROGRESS")
    {
        args.progress = Progress::from_str(style, false).map_err(|_unknown| {
            let text = format!(
                "error: BUILDKIT_PROGRESS is `{style}`, but must be auto, tty, plain, json, quiet or none"
            );
            CliError::new(text, Exit::Usage)
        })?;
    }
    Ok(())
}
