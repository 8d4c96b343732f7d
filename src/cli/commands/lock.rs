//! `rbuild lock [CONTEXT]`

use super::build::{read_dockerfile, reporter, with_input};
use super::build_options::options;
use super::{CliError, Environment, Exit, Global};
use crate::cli::args::lock::LockArgs;
use crate::cli::outputs::Outputs;
use crate::executor::{self, LockRule};

pub(crate) fn run(
    args: &LockArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let LockArgs { update, build } = args;
    if build.lock.locked || build.inspection().is_some() {
        let text =
            "error: `rbuild lock` writes the lock file: leave out --locked, --check and --call";
        return Err(CliError::new(text, Exit::Usage));
    }
    if build.report.is_some() {
        let text = "error: `rbuild lock` builds nothing: leave out --report";
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
        let met = executor::lock(services, &options).map_err(|error| {
            super::build::complaint(&error, &input.dockerfile, environment.style())
        })?;
        let lock = file.write(&met)?;
        let what = match lock.n_inputs() {
            1 => "1 input".to_owned(),
            n => format!("{n} inputs"),
        };
        reporter.note(format!("locked {what} in {}", file.shown()));
        Ok(())
    })
}
