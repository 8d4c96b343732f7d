//! Variables of docker's that stand for options which were not given.

use clap::ValueEnum as _;

use super::args::build::BuildArgs;
use super::args::outputs::{EngineChoice, OutputArgs};
use super::args::progress::Progress;
use super::environment::Environment;
use super::error::CliError;
use super::exit::Exit;
use super::outputs::engine;
use crate::oci::Platform;

/// Sets options that were not given: `--platform` to `DOCKER_DEFAULT_PLATFORM`, `--progress` to
/// `BUILDKIT_PROGRESS`, and for docker's client `--load`.
///
/// # Errors
/// A usage error if a variable has a value that the option does not have.
pub(super) fn apply(args: &mut BuildArgs, environment: &Environment) -> Result<(), CliError> {
    let usage = |name: &str, value: &str, why: String| {
        CliError::new(format!("error: {name} is `{value}`: {why}"), Exit::Usage)
    };
    let platform = environment.get("DOCKER_DEFAULT_PLATFORM");
    if let Some(platform) = platform.filter(|_| args.platform.is_empty()) {
        let parsed = platform.trim().parse::<Platform>();
        parsed.map_err(|error| usage("DOCKER_DEFAULT_PLATFORM", platform, error.to_string()))?;
        args.platform.push(platform.to_owned());
    }
    let style = environment.get("BUILDKIT_PROGRESS");
    if let Some(style) = style.filter(|_| args.progress == Progress::Auto && !args.quiet) {
        args.progress = Progress::from_str(style, false).map_err(|_unknown| {
            let known = Progress::value_variants().iter().filter_map(Progress::to_possible_value);
            let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
            usage("BUILDKIT_PROGRESS", style, format!("it must be one of {}", known.join(", ")))
        })?;
    }
    if environment.is_docker_plugin && args.inspection().is_none() {
        load_for_docker(&mut args.outputs, args.platform.len() > 1, environment);
    }
    Ok(())
}

/// Loads the image into docker's engine if no output was given: `docker build` leaves it there.
pub(super) fn load_for_docker(
    outputs: &mut OutputArgs,
    has_platforms: bool,
    environment: &Environment,
) {
    if !outputs.output.is_empty() || outputs.push.is_some() || outputs.load.is_some() {
        return;
    }
    if has_platforms {
        outputs.not_loaded = Some("an engine holds one platform of an image");
    } else if engine::is_running(environment) {
        outputs.load = Some(EngineChoice::Docker);
    } else {
        outputs.not_loaded = Some("docker's engine is not running");
    }
}
