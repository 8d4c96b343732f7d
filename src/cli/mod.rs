//! The command line: arguments and environment become options of the executor; events, errors and
//! results become text and exit codes. No other module prints, or reads the environment or the clock.
//!
//! - `args`: the command line as clap reads it, and options that have a syntax of their own
//! - `commands`: one file for each command
//! - `kaniko`: the command line of kaniko's executor, as one of `build`
//! - `inputs`, `outputs`: the context, Dockerfile and lock file of a build, and where its image goes
//! - `progress`: displays of a running build, all of them `Sink`s
//! - `records`: the build event, and the records of builds in the store
//! - `html_report`: the page of `--report`
//! - `debug_session`: shells and commands in a step's root file system
//! - `defaults`: variables that stand for options
//! - `docker_plugin`: rbuild as a plugin of docker's client
//! - `images`: images of the store, as lists and comparisons show them
//! - `display`: text for terminals, tables, standard output

mod args;
mod commands;
mod debug_log;
mod debug_session;
mod defaults;
mod display;
mod docker_plugin;
mod environment;
mod error;
mod exit;
mod html_report;
mod images;
mod inputs;
mod kaniko;
mod outputs;
#[doc(hidden)]
pub mod probes;
mod process;
mod progress;
mod records;
mod registries;
mod signals;
mod topics;

pub use exit::Exit;

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use crate::pathio::PathError;
use crate::sandbox::{self, IsolationChoice};
use args::{Arguments, Command};
use display::{stderr, stdout};
use docker_plugin::Invocation;
use environment::Environment;
use error::CliError;
use inputs::not_found;

/// Runs rbuild with the arguments of the process.
#[must_use]
pub fn main() -> Exit {
    match process::prepare() {
        Ok(()) => run_arguments(),
        Err(text) => stderr::show(&CliError::new(text, Exit::Environment), false),
    }
}

fn run_arguments() -> Exit {
    let mut environment = Environment::of_process();
    let words = match docker_plugin::invocation(std::env::args_os().collect(), &mut environment) {
        Invocation::Command(words) => words,
        Invocation::Done(result) => return ended(result, false, &environment),
    };
    let words = match kaniko::replace(words, &mut environment) {
        Ok(words) => words,
        Err(error) => return failed(&error, false, &environment),
    };
    let is_json = progress::asks_for_json(&words);
    if words.len() <= 1 {
        return stderr::show(&not_found::first_run(), environment.colour);
    }
    if let Some(error) = args::suggestions::command(&words) {
        return failed(&error, is_json, &environment);
    }
    if let Some(shown) = topics::help(&words, &environment) {
        return ended(shown, is_json, &environment);
    }
    let mut arguments = match args::parse(words) {
        Ok(arguments) => arguments,
        Err(error) if is_json && error.use_stderr() => {
            let error = CliError::new(error.render().to_string(), Exit::Usage);
            return failed(&error, is_json, &environment);
        }
        Err(error) => return stderr::usage(&error, environment.colour),
    };
    if let Some(build) = arguments.command.build_args()
        && let Err(error) = defaults::apply(build, &environment)
    {
        return failed(&error, is_json, &environment);
    }
    environment.registry_flags = arguments.global.registries.clone();
    if let Some(build) = arguments.command.build_args() {
        environment.registry_flags.settings.extend(defaults::insecure_registries(build));
    }
    environment.creds_hosts = arguments.command.named_registries();
    if let Some(given) = environment.registry_flags.given()
        && !arguments.command.asks_registries()
    {
        let text = format!("error: {given} no effect: this command does not use a registry");
        return failed(&CliError::new(text, Exit::Usage), is_json, &environment);
    }
    if let Err(error) = redirect(&mut arguments.command, &mut environment) {
        return failed(&error, is_json, &environment);
    }
    match debug_log::start(&arguments.global.debug, is_json, &environment) {
        // The live view would overwrite the lines of the log.
        Ok(shares_stderr) => environment.is_dumb |= shares_stderr,
        Err(error) => return failed(&error, is_json, &environment),
    }
    // Before any thread starts: a forked child continues from here (user_namespaces(7)).
    let isolated = isolate(&arguments, &environment);
    let result = isolated.and_then(|trials| run(&arguments, &environment, &trials));
    ended(result, is_json, &environment)
}

/// Shows the error of a command, or of its standard output. Returns the exit code.
fn ended(result: Result<(), CliError>, is_json: bool, environment: &Environment) -> Exit {
    result
        .and_then(|()| stdout::result())
        .map_or_else(|error| failed(&error, is_json, environment), |()| Exit::Success)
}

/// Sends standard output and standard error to the file of `--logfile`.
fn redirect(command: &mut Command, environment: &mut Environment) -> Result<(), CliError> {
    let path = command.build_args().and_then(|build| build.podman.logfile.clone());
    let Some(path) = path else { return Ok(()) };
    let failed =
        |error: io::Error| CliError::from_error(&PathError::new("open", &path, error), Exit::Usage);
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    let both = rustix::stdio::dup2_stdout(&file).and_then(|()| rustix::stdio::dup2_stderr(&file));
    both.map_err(|errno| failed(errno.into()))?;
    environment.leave_terminal();
    Ok(())
}

/// Gets this process the right to run steps in the isolation of `--isolation` or `RBUILD_ISOLATION`, if
/// the command uses it. Returns the result for all kinds of isolation if the command shows it.
///
/// An isolation of `--isolation` must be permitted for a command that runs steps. `RBUILD_ISOLATION` is
/// for all commands: it must be permitted for the first step that is executed.
fn isolate(arguments: &Arguments, environment: &Environment) -> Result<sandbox::Trials, CliError> {
    let Arguments { global, command } = arguments;
    if !command.needs_privileges() {
        return Ok(Vec::new());
    }
    let choice = isolation_choice(arguments, environment)?;
    let failed = |error| CliError::from_error(&error, Exit::Environment);
    let shows_all = matches!(command, Command::Doctor);
    let trials = if shows_all { sandbox::try_all().map_err(failed)? } else { Vec::new() };
    sandbox::enter_or_continue(choice).map_err(failed)?;
    let is_named = global.isolation.is_some_and(|named| named != IsolationChoice::Auto);
    match sandbox::refusal().filter(|_| is_named && command.runs_steps()) {
        Some(refusal) => Err(failed(refusal)),
        None => Ok(trials),
    }
}

fn isolation_choice(
    arguments: &Arguments,
    environment: &Environment,
) -> Result<IsolationChoice, CliError> {
    Ok(match (arguments.global.isolation, environment.get("RBUILD_ISOLATION")) {
        (Some(choice), _) => choice,
        (None, None) => IsolationChoice::Auto,
        (None, Some(name)) => args::isolation::of_name(name).ok_or_else(|| {
            let text = format!(
                "error: RBUILD_ISOLATION is `{name}`, but must be auto, namespace, chroot or emulated"
            );
            CliError::new(text, Exit::Usage)
        })?,
    })
}

/// Runs the command that was parsed.
fn run(
    arguments: &Arguments,
    environment: &Environment,
    trials: &sandbox::Trials,
) -> Result<(), CliError> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Build(build) => commands::build::run(build, global, environment),
        Command::Bake(bake) => commands::bake::run(bake, global, environment),
        Command::Lock(lock) => commands::lock::run(lock, global, environment),
        Command::Plan(plan) => commands::plan::run(plan, global, environment),
        Command::Enter(enter) => commands::enter::run(enter, global, environment),
        Command::Push(push) => commands::push::run(push, global, environment),
        Command::Pull(pull) => commands::pull::run(pull, global, environment),
        Command::Login(login) => commands::login::login(login, environment),
        Command::Logout(logout) => commands::login::logout(logout, environment),
        Command::Images(images) => commands::images::run(images, global, environment),
        Command::Diff(diff) => commands::diff::run(diff, global, environment),
        Command::Imagetools(tools) => commands::imagetools::run(tools, environment),
        Command::Inspect(inspect) => commands::inspect::run(inspect, global, environment),
        Command::History(history) => commands::history::run(history, global, environment),
        Command::Explain(explain) => commands::builds::explain(explain, global, environment),
        Command::Tag(tag) => commands::tag::tag(tag, global, environment),
        Command::Rebase(rebase) => commands::rebase::run(rebase, global, environment),
        Command::Rmi(rmi) => commands::tag::rmi(rmi, global, environment),
        Command::Save(save) => commands::save::save(save, global, environment),
        Command::Load(load) => commands::save::load(load, global, environment),
        Command::Du(du) => commands::du::run(du, global, environment),
        Command::Prune(prune) => commands::prune::run(prune, global, environment),
        Command::Store(store) => commands::store::run(store, global, environment),
        Command::Doctor => commands::doctor::run(trials, global, environment),
        Command::DockerPlugin(plugin) => docker_plugin::install::run(&plugin.command, environment),
        Command::Completion(completion) => commands::prompt::completion(completion),
        Command::Man(man) => commands::prompt::man(man),
        // Its words were replaced before they were parsed.
        Command::Executor(executor) => {
            let text = format!("error: executor {}: unexpected flags", executor.flags.join(" "));
            Err(CliError::new(text, Exit::Usage))
        }
        Command::Version => commands::version::run(),
    }
}

/// Shows an error, as JSON if that is the progress display. Returns the exit code.
fn failed(error: &CliError, is_json: bool, environment: &Environment) -> Exit {
    if is_json && !error.is_reported() {
        progress::failed_early(error, environment);
        return error.exit();
    }
    stderr::show(error, environment.colour)
}
