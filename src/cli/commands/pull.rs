//! `rbuild pull NAME`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use super::{Complaint, Environment, Exit, Global, open_store, reference};
use crate::build::{self, Lent, LockedInputs, Services, StepNumbers, Stop};
use crate::cli::args::PullArgs;
use crate::cli::progress::{Progress, Reporter};
use crate::cli::registries;
use crate::oci::Platform;

pub(in crate::cli) fn run(
    args: &PullArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Complaint> {
    let name = reference(&args.name)?;
    let given = args.platform.as_deref().map(super::build::platform).transpose()?;
    let platform = given.unwrap_or_else(Platform::host);
    let store = open_store(global, environment)?;
    let registry = registries::client(environment)?;
    let stop = Stop::new().map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let reporter = Reporter::new(Progress::Auto, environment);
    let programs = environment.for_programs();
    let services = Services {
        store: &store,
        registry: &registry,
        stop: &stop,
        environment: &programs,
        lent: &Lent::default(),
        locked: &LockedInputs::none(),
        numbers: &StepNumbers::default(),
        events: &|event| reporter.event(&event),
    };
    let digest = build::pull(&services, &name, &platform)
        .map_err(|error| Complaint::from_error(&*error, Exit::Environment))?;
    println!("{name} {digest}");
    Ok(())
}
