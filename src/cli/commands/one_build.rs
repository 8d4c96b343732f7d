//! One build: from the parsed Dockerfile to the written outputs.

use super::build_options::options;
use super::check;
use super::write_out::{OutputWriter, WriteError, WrittenOutputs};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::step_name;
use crate::cli::debug_session::shell::SessionRunner;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::inputs::contexts::Input;
use crate::cli::outputs::Outputs;
use crate::cli::progress::Reporter;
use crate::diag::{Diagnostic, SourceFile, Style};
use crate::dockerfile::ir;
use crate::dockerfile::syntax;
use crate::executor::{self, BuildError, Built, DebugSession, Services};
use crate::oci::{Digest, Reference};

type Result<T> = std::result::Result<T, CliError>;

/// One build, with everything that it uses.
#[derive(Debug)]
pub(super) struct OneBuild<'a> {
    pub(super) args: &'a BuildArgs,
    pub(super) environment: &'a Environment,
    pub(super) services: &'a Services<'a>,
    pub(super) input: &'a Input,
    pub(super) reporter: &'a Reporter<'a>,
    /// True for a target of a bake: `rbuild enter` cannot repeat it.
    pub(super) is_target: bool,
}

/// A build whose image is written.
#[derive(Debug)]
pub(super) struct FinishedBuild {
    pub(super) built: Built,
    pub(super) written: WrittenOutputs,
    /// Every name that the image got.
    pub(super) tags: Vec<Reference>,
    /// Warnings about the Dockerfile.
    pub(super) warnings: Vec<Diagnostic>,
}

impl FinishedBuild {
    /// Returns the digest of the manifest or index that was written last, or else of the one in the
    /// store.
    pub(super) fn digest(&self) -> Digest {
        self.written.top.as_ref().map_or(self.built.top, |top| top.digest)
    }

    /// Returns the names as users write them.
    pub(super) fn names(&self) -> Vec<String> {
        self.tags.iter().map(Reference::familiar).collect()
    }
}

/// Parses the Dockerfile. Returns it with the warnings, or fails with all diagnostics.
pub(super) fn read_dockerfile(
    input: &Input,
    environment: &Environment,
) -> Result<(ir::Dockerfile, Vec<Diagnostic>)> {
    let source = &input.dockerfile;
    let (dockerfile, diagnostics) = syntax::parse(source.text());
    if diagnostics.iter().any(Diagnostic::is_error) {
        let style = environment.style();
        return Err(CliError::of_diagnostics(diagnostics, source, style, Exit::Build));
    }
    Ok((dockerfile, diagnostics))
}

impl OneBuild<'_> {
    /// Builds the image and writes the outputs.
    pub(super) fn run(&self, outputs: &Outputs) -> Result<FinishedBuild> {
        let Self { args, environment, services, input, reporter, .. } = self;
        let (source, style) = (&input.dockerfile, environment.style());
        let stop = services.cancel;
        let (dockerfile, diagnostics) =
            stop.end_at_once_during(|| read_dockerfile(input, environment))?;
        let options = options(args, environment, services, input, dockerfile, outputs)?;
        let mut warnings =
            stop.end_at_once_during(|| check::before_build(&options, source, diagnostics));
        if let Some(errors) = check::violation(&options, &warnings) {
            return Err(CliError::of_diagnostics(errors, source, style, Exit::Build));
        }
        let writer = OutputWriter { services, environment, options: &options, outputs };
        let write = |built: &Built| match writer.all(built) {
            Ok(written) => Ok(Ok(written)),
            Err(WriteError::Build(error)) => Err(error),
            Err(WriteError::Load(error)) => Ok(Err(error)),
        };
        let mut session = None;
        let done = executor::with_retries(services, &options, || {
            session = None;
            executor::build(services, &options, write).map_err(|failed| {
                session = failed.session;
                failed.error
            })
        });
        match &done {
            Ok((built, _written)) => warnings.extend(built.warnings.clone()),
            Err(_) => warnings.extend(
                stop.end_at_once_during(|| check::after_failure(&options, source, services.store)),
            ),
        }
        reporter.warnings(&warnings, source);
        let done = done.map_err(|error| self.failed(&error, session.as_deref()))?;
        let (built, written) = done;
        let failed = |error| CliError::from_error(&error, Exit::Environment);
        let written = written.map_err(failed)?;
        Ok(FinishedBuild { built, written, tags: outputs.all_names(), warnings })
    }

    /// Returns the error of a failed build. With `--on-error=shell`, first reports it and opens a shell
    /// in the failed step.
    fn failed(&self, error: &BuildError, session: Option<&DebugSession>) -> CliError {
        let style = self.environment.style();
        let mut diagnostics = error.diagnostics();
        if let (BuildError::Run { step, .. }, false) = (error, self.is_target) {
            let help = step_name::inspection_hint(step, self.args);
            diagnostics.iter_mut().for_each(|found| found.helps.push(help.clone()));
        }
        let cli_error = cli_error_of(error, diagnostics, &self.input.dockerfile, style);
        let Some(session) = session else { return cli_error };
        let reported = self.reporter.failed(&cli_error);
        let Self { services, environment, reporter, .. } = self;
        SessionRunner { services, environment, reporter }.after_failure(session);
        reported
    }
}

/// Returns the text and the exit status of a failed build.
pub(super) fn cli_error(error: &BuildError, source: &SourceFile, style: Style) -> CliError {
    cli_error_of(error, error.diagnostics(), source, style)
}

fn cli_error_of(
    error: &BuildError,
    diagnostics: Vec<Diagnostic>,
    source: &SourceFile,
    style: Style,
) -> CliError {
    let exit = if matches!(error, BuildError::Interrupted) {
        Exit::Interrupted
    } else if error.is_timeout() {
        Exit::TimedOut
    } else if error.is_environment() {
        Exit::Environment
    } else {
        Exit::Build
    };
    let cli_error = if diagnostics.is_empty() {
        CliError::from_error(error, exit)
    } else {
        CliError::of_diagnostics(diagnostics, source, style, exit)
    };
    if let BuildError::Run { last_lines, .. } = error {
        return cli_error.with_last_lines(last_lines);
    }
    if error.is_consequence() { cli_error.into_consequence() } else { cli_error }
}
