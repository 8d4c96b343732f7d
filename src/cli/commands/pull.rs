//! `rbuild pull NAME`

use super::{CliError, Environment, Exit, Global, open_store, reference, with_services};
use crate::cli::args::transfer::PullArgs;
use crate::cli::display::stdout::say;
use crate::executor;
use crate::oci::Platform;

pub(crate) fn run(
    args: &PullArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let name = reference(&args.name)?;
    let given = args.platform.as_deref().map(super::build_options::platform).transpose()?;
    let platform = given.unwrap_or_else(Platform::host);
    let store = open_store(global, environment)?;
    let digest = with_services(&store, environment, |services| {
        let pulled = if args.all_platforms {
            executor::pull_all(services, &name)
        } else {
            executor::pull(services, &name, &platform)
        };
        pulled.map_err(|error| CliError::from_error(&*error, Exit::Environment))
    })?;
    say!("{name} {digest}");
    Ok(())
}
