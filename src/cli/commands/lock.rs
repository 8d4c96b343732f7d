//! `rbuild lock [CONTEXT]`: resolves the inputs of a Dockerfile and writes the lock file.

use super::build::{reporter, with_input};
use super::build_options::options;
use super::one_build::{self, read_dockerfile};
use super::{CliError, Environment, Exit, Global};
use crate::cli::args::lock::LockArgs;
use crate::cli::outputs::Outputs;
use crate::executor::{self, LockRule};

/// Writes the lock file: adds missing inputs, or with `--update` resolves all of them again.
pub(crate) fn run(
    args: &LockArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let LockArgs { update, build } = args;
    if build.lock.locked || build.inspection().is_some() {
        let text = "error: --locked, --check and --call cannot be used with `rbuild lock`";
        return Err(CliError::new(text, Exit::Usage));
    }
    if build.report.is_some() {
        let text = "error: --report cannot be used with `rbuild lock`, which builds nothing";
        return Err(CliError::new(text, Exit::Usage));
    }
    let rule = if *update { LockRule::Renew } else { LockRule::Complete };
    let reporter = reporter(build, environment)?;
    with_input(build, global, environment, rule, &reporter, |services, input, file| {
        let dockerfile = read_dockerfile(input, environment)?.0;
        let mut options =
            options(build, environment, services, input, dockerfile, &Outputs::none())?;
        if let Some(lock) = file.lock()
            && *update
            && build.platform.is_empty()
            && !lock.platforms.is_empty()
        {
            options.request.platforms = lock.platforms.iter().cloned().collect();
        }
        let inputs = executor::lock(services, &options).map_err(|error| {
            one_build::cli_error(&error, &input.dockerfile, environment.style())
        })?;
        let lock = file.write(&inputs)?;
        let inputs = match lock.n_inputs() {
            1 => "1 input".to_owned(),
            n => format!("{n} inputs"),
        };
        reporter.note(format!("locked {inputs} in {}", file.shown()));
        Ok(())
    })
}
