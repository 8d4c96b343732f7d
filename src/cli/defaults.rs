//! Variables of docker's that stand for options which were not given.

use clap::ValueEnum as _;

use super::args::build::BuildArgs;
use super::args::outputs::{EngineChoice, OutputArgs};
use super::args::progress::Progress;
use super::environment::Environment;
use super::error::CliError;
use super::exit::Exit;
use super::outputs::{engine, output};
use crate::oci::{Platform, Reference};

/// Sets options that were not given: `--platform` to `DOCKER_DEFAULT_PLATFORM`, `--progress` to
/// `BUILDKIT_PROGRESS`, and for docker's client `--load`.
///
/// # Errors
/// A usage error if a variable has a value that the option does not have.
pub(super) fn apply(args: &mut BuildArgs, environment: &Environment) -> Result<(), CliError> {
    let platform = environment.get("DOCKER_DEFAULT_PLATFORM");
    if let Some(platform) = platform.filter(|_| args.platform.is_empty()) {
        let parsed = platform.trim().parse::<Platform>();
        parsed.map_err(|error| usage("DOCKER_DEFAULT_PLATFORM", platform, &error.to_string()))?;
        args.platform.push(platform.to_owned());
    }
    if !args.quiet {
        args.progress = progress(args.progress, environment)?;
    }
    if environment.is_docker_plugin && args.inspection().is_none() {
        load_for_docker(&mut args.outputs, args.platform.len() > 1, environment);
    }
    Ok(())
}

/// Returns the display of `BUILDKIT_PROGRESS` in place of `auto`.
///
/// # Errors
/// A usage error if the variable has a value that the option does not have.
pub(super) fn progress(given: Progress, environment: &Environment) -> Result<Progress, CliError> {
    let style = environment.get("BUILDKIT_PROGRESS").filter(|_| given == Progress::Auto);
    let Some(style) = style else { return Ok(given) };
    Progress::from_str(style, false).map_err(|_unknown| {
        let known = Progress::value_variants().iter().filter_map(Progress::to_possible_value);
        let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
        usage("BUILDKIT_PROGRESS", style, &format!("it must be one of {}", known.join(", ")))
    })
}

fn usage(name: &str, value: &str, why: &str) -> CliError {
    CliError::new(format!("error: {name} is `{value}`: {why}"), Exit::Usage)
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

/// Returns settings as of `--registry` for the registries of outputs with `registry.insecure=true`. An
/// output that is not valid is reported later.
pub(super) fn insecure_registries(args: &BuildArgs) -> Vec<String> {
    let outputs = args.outputs.output.iter();
    let outputs = outputs.filter_map(|text| output::parse(text, &args.outputs.compression).ok());
    let tags: Vec<Reference> = args.tag.iter().filter_map(|tag| tag.parse().ok()).collect();
    let mut settings = Vec::new();
    for output in outputs.filter(|output| output.insecure) {
        let names = if output.names.is_empty() { &tags } else { &output.names };
        settings.extend(names.iter().map(|name| format!("{},insecure", name.registry())));
    }
    settings
}
