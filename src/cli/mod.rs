//! The rim: arguments and environment become options, events and errors become text, results
//! become exit codes. Nothing else in rbuild prints, or reads the environment or the clock.

mod args;
mod bucket_options;
mod budget_args;
mod cache_options;
mod call;
mod check_args;
mod commands;
mod config_text;
mod console;
mod contexts;
mod csv;
mod default_command;
mod docker_words;
mod dockerfile;
mod engine;
mod enter_args;
mod environment;
mod epoch;
mod exit;
mod fetched;
mod history_args;
mod image_size;
mod image_view;
mod interrupt;
mod line_diff;
mod lock_text;
mod lockfile;
mod look_args;
mod missing;
mod output;
mod outputs;
mod page;
mod plan_args;
#[doc(hidden)]
pub mod probes;
mod process;
mod progress;
mod prompt_args;
mod rate;
mod raw;
mod reasons;
mod record;
mod registries;
mod registry_args;
mod report;
mod run_options;
mod secrets;
mod shell;
mod short_help;
mod stdout;
mod store_args;
mod table;
mod template;
mod transfer_args;

pub use exit::Exit;

use args::Command;
use environment::Environment;
use report::Complaint;

/// Runs the program with the process's own arguments.
#[must_use]
pub fn main() -> Exit {
    process::prepare();
    let mut environment = Environment::of_process();
    let typed: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if typed.len() <= 1 {
        return report::complaint(&missing::first_run(), environment.colour);
    }
    if let Some(complaint) = missing::command(&typed) {
        return report::complaint(&complaint, environment.colour);
    }
    let arguments = match args::parse(typed) {
        Ok(arguments) => arguments,
        Err(error) => return report::usage(&error, environment.colour),
    };
    environment.registry_flags = arguments.global.registries.clone();
    if environment.registry_flags.is_given() && !arguments.command.asks_registries() {
        let text = "error: --ca and --registry are of no use here: no registry is asked";
        return report::complaint(&Complaint::new(text, Exit::Usage), environment.colour);
    }
    // Before any thread: in a user namespace a child goes on from here.
    if arguments.command.needs_privileges()
        && let Err(error) = crate::sandbox::enter_user_namespace()
    {
        let complaint = Complaint::from_error(&error, Exit::Environment);
        return report::complaint(&complaint, environment.colour);
    }
    let result = match &arguments.command {
        Command::Build(build) => commands::build::run(build, &arguments.global, &environment),
        Command::Lock(lock) => commands::lock::run(lock, &arguments.global, &environment),
        Command::Plan(plan) => commands::plan::run(plan, &arguments.global, &environment),
        Command::Enter(enter) => commands::enter::run(enter, &arguments.global, &environment),
        Command::Push(push) => commands::push::run(push, &arguments.global, &environment),
        Command::Pull(pull) => commands::pull::run(pull, &arguments.global, &environment),
        Command::Login(login) => commands::login::login(login, &environment),
        Command::Logout(logout) => commands::login::logout(logout, &environment),
        Command::Images(images) => commands::images::run(images, &arguments.global, &environment),
        Command::Diff(diff) => commands::diff::run(diff, &arguments.global, &environment),
        Command::Inspect(inspect) => {
            commands::inspect::run(inspect, &arguments.global, &environment)
        }
        Command::History(history) => {
            commands::history::run(history, &arguments.global, &environment)
        }
        Command::Explain(explain) => {
            commands::builds::explain(explain, &arguments.global, &environment)
        }
        Command::Tag(tag) => commands::tag::tag(tag, &arguments.global, &environment),
        Command::Rmi(rmi) => commands::tag::rmi(rmi, &arguments.global, &environment),
        Command::Save(save) => commands::save::save(save, &arguments.global, &environment),
        Command::Load(load) => commands::save::load(load, &arguments.global, &environment),
        Command::Du(du) => commands::du::run(du, &arguments.global, &environment),
        Command::Prune(prune) => commands::prune::run(prune, &arguments.global, &environment),
        Command::Store(store) => commands::store::run(store, &arguments.global, &environment),
        Command::Completion(completion) => commands::prompt::completion(completion),
        Command::Man(man) => commands::prompt::man(man),
        Command::Version => commands::version::run(),
    };
    match result.and_then(|()| stdout::result()) {
        Ok(()) => Exit::Success,
        Err(complaint) => report::complaint(&complaint, environment.colour),
    }
}
