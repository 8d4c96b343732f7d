//! `rbuild imagetools`: joins, copies and shows images of registries, without the store.

mod create;
mod inspect;
mod shapes;

use super::{CliError, Environment, Exit, reference};
use crate::cli::args::imagetools::{ImagetoolsArgs, ImagetoolsCommand};
use crate::cli::args::progress::Progress;
use crate::cli::progress::Reporter;
use crate::cli::{registries, signals};
use crate::image::ExportError;
use crate::registry::Client;

/// Runs the subcommand.
pub(crate) fn run(args: &ImagetoolsArgs, environment: &Environment) -> Result<(), CliError> {
    match &args.command {
        ImagetoolsCommand::Create(create) => create::run(create, environment),
        ImagetoolsCommand::Inspect(inspect) => inspect::run(inspect, environment),
    }
}

/// Runs `work` with a registry client. Reports servers that do not answer.
fn with_client<T>(
    environment: &Environment,
    work: impl FnOnce(&Client) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let registry = registries::client(environment)?;
    let reporter = Reporter::new(Progress::Quiet, environment);
    signals::watching(None, registry.pending_requests(), &reporter, || work(&registry))
}

fn failed(error: ExportError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}

fn usage(text: impl std::fmt::Display) -> CliError {
    CliError::new(format!("error: {text}"), Exit::Usage)
}
