//! `rbuild enter IMAGE [-- COMMAND]` and `rbuild enter --step STEP CONTEXT`: a shell or a command in
//! an image, or in a step of a build before it runs.

use super::build::{reporter, with_asked};
use super::build_options::options;
use super::one_build;
use super::{CliError, Environment, Exit, Global, builds, find};
use crate::cli::args::enter::EnterArgs;
use crate::cli::args::podman::PullPolicy;
use crate::cli::args::step_name::StepName;
use crate::cli::debug_session::shell::SessionRunner;
use crate::cli::inputs::contexts::{ContextArg, Input};
use crate::cli::outputs::Outputs;
use crate::cli::progress::Reporter;
use crate::dockerfile::ir;
use crate::executor::{self as builder, BuildError, DebugSession, EnterAt, Services};
use crate::oci::Reference;
use crate::sandbox;

type Result<T> = std::result::Result<T, CliError>;

/// Opens a shell or runs a command. The exit status of the command is passed on.
pub(crate) fn run(args: &EnterArgs, global: &Global, environment: &Environment) -> Result<()> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    if let Some(useless) = args.unused_option() {
        return Err(usage(format!("{useless} has no effect with `rbuild enter`")));
    }
    if args.build.platform.len() > 1 {
        return Err(usage("--platform: `rbuild enter` takes a single platform".to_owned()));
    }
    let name = args.step_name().map_err(usage)?;
    if let Some(refusal) = sandbox::refusal() {
        return Err(CliError::from_error(&refusal, Exit::Environment));
    }
    let reporter = reporter(&args.build, environment)?;
    let rule = args.build.lock.rule();
    let asked = if args.is_build() { ContextArg::new(&args.build)? } else { ContextArg::Nothing };
    with_asked(asked, &args.build, global, environment, rule, &reporter, |services, input, _| {
        let command = EnterCommand { args, environment, services, input, reporter: &reporter };
        if args.is_build() { command.step(name.as_ref()) } else { command.image() }
    })
}

/// One `rbuild enter`, with everything that it uses.
struct EnterCommand<'a> {
    args: &'a EnterArgs,
    environment: &'a Environment,
    services: &'a Services<'a>,
    input: &'a Input,
    reporter: &'a Reporter<'a>,
}

impl EnterCommand<'_> {
    fn image(&self) -> Result<()> {
        let Self { args, services, .. } = self;
        let text = &*args.build.shown_context();
        let selected = find::image(services.store, text);
        let at = match (selected, text.parse::<Reference>()) {
            (Ok(selected), name) => {
                let by_id = "localhost/image".parse::<Reference>();
                let name = selected.name.clone().map_or_else(|| name.or(by_id), Ok);
                let name = name.map_err(|error| CliError::from_error(&error, Exit::Usage))?;
                // An image selected by its id has no name to look up in a registry.
                let policy = args.build.pull;
                let asks = matches!(policy, Some(PullPolicy::Always | PullPolicy::Newer));
                let is_pulled = asks && selected.name.is_some();
                EnterAt::Image { name, known: Some(selected.top).filter(|_| !is_pulled) }
            }
            (Err(_absent), Ok(name)) => EnterAt::Image { name, known: None },
            (Err(absent), Err(_)) => return Err(absent),
        };
        let (file, _) = crate::dockerfile::syntax::parse("FROM scratch\n");
        self.enter(file, args.build.target.clone(), &at, |error| {
            let BuildError::Misnamed { help, error, .. } = error else {
                return CliError::from_error(error, Exit::Environment);
            };
            let cli_error = CliError::from_error(&**error, Exit::Environment);
            cli_error.and(CliError::new(format!("help: {help}"), Exit::Environment))
        })
    }

    fn step(&self, name: Option<&StepName>) -> Result<()> {
        let location = name.map(|name| self.locate(name)).transpose()?;
        let (file, _) = one_build::read_dockerfile(self.input, self.environment)?;
        let mut target = self.args.build.target.clone();
        let mut at = EnterAt::End;
        if let Some((stage, number)) = location {
            at = EnterAt::Before(number);
            if let Some(stage) = stage {
                target = Some(as_target(&file, stage));
            }
        }
        let source = &self.input.dockerfile;
        let style = self.environment.style();
        self.enter(file, target, &at, |error| one_build::cli_error(error, source, style))
    }

    /// Returns the stage of a step and its number in the stage. The stage is `None` for the target.
    fn locate(&self, name: &StepName) -> Result<(Option<String>, usize)> {
        match name {
            StepName::Place(stage, number) => Ok((stage.clone(), *number)),
            StepName::Number(number) => {
                let context = &*self.args.build.shown_context();
                let (stage, number) = builds::instruction(self.services.store, context, *number)?;
                Ok((Some(stage), number))
            }
        }
    }

    fn enter(
        &self,
        file: ir::Dockerfile,
        target: Option<String>,
        at: &EnterAt,
        to_cli_error: impl FnOnce(&BuildError) -> CliError,
    ) -> Result<()> {
        let Self { args, environment, services, input, reporter } = self;
        let mut options =
            options(&args.build, environment, services, input, file, &Outputs::none())?;
        options.request.target = target;
        let entrance =
            builder::enter(services, &options, at).map_err(|error| to_cli_error(&error))?;
        reporter.hand_over();
        self.attach(&entrance)
    }

    fn attach(&self, entrance: &DebugSession) -> Result<()> {
        let host = SessionRunner {
            services: self.services,
            environment: self.environment,
            reporter: self.reporter,
        };
        match host.run(entrance, &self.args.command)? {
            0 => Ok(()),
            code => Err(CliError::reported(Exit::Command(code))),
        }
    }
}

/// Converts a stage name of the logs to one that `--target` takes: an unnamed stage is `stage-N` in
/// logs, and `N` as a target.
fn as_target(file: &ir::Dockerfile, stage: String) -> String {
    let is_named = |one: &ir::Stage| {
        one.from.name.as_ref().is_some_and(|(_, name)| name.value.eq_ignore_ascii_case(&stage))
    };
    let number = stage.strip_prefix("stage-").filter(|number| number.parse::<usize>().is_ok());
    match number {
        Some(number) if !file.stages.iter().any(is_named) => number.to_owned(),
        _ => stage,
    }
}
