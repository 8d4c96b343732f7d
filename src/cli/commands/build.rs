//! `rbuild build CONTEXT`

use std::path::Path;

use serde_json::{Value, json};

use super::build_options::{options, read_outputs};
use super::check::{self, BaseImages, Look};
use super::write_out::{Sent, WriteError, Writer};
use super::{CliError, Environment, Exit, Global, existing_store, open_store, plan, report_file};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::progress::Progress;
use crate::cli::args::step_name;
use crate::cli::debug_session::shell::{self, Host};
use crate::cli::display::stdout::say;
use crate::cli::inputs::contexts::{self, Asked, Input};
use crate::cli::inputs::lockfile::LockFile;
use crate::cli::inputs::secrets;
use crate::cli::outputs::Outputs;
use crate::cli::progress::{self, Reporter, Requested};
use crate::cli::{registries, signals};
use crate::diag::{Diagnostic, SourceFile, Span, Style};
use crate::dockerfile::ir;
use crate::dockerfile::syntax;
use crate::executor::{
    self, BuildError, BuildOptions, Built, CancelSwitch, DebugSession, Event, LockRule,
    LockedInputs, Services, StepNumbers,
};
use crate::image::RegistryRetries;
use crate::oci::Reference;
use crate::pathio::output::write_output;
use crate::plan::{ImageRequest, Images, redacted};
use crate::store::Store;

type Result<T> = std::result::Result<T, CliError>;

/// The version of the metadata file; members may be added without a new one.
const METADATA_VERSION: u32 = 1;

pub(crate) fn run(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<()> {
    report_file::check(args)?;
    if args.dry_run {
        return plan::dry_run(args, global, environment);
    }
    let outputs = read_outputs(args, environment)?;
    shell::check(args, environment)?;
    let asked = Asked::new(args)?;
    check::usage(args, &asked)?;
    if let (Asked::Directory(directory), true) = (&asked, args.inspection().is_some())
        && !args.check_pulls()
    {
        // Neither store nor registry has to be there.
        let bases = Stored(existing_store(global, environment));
        return inspect(args, environment, &contexts::local(args, directory.clone())?, &bases);
    }
    let reporter = reporter(args, environment)?;
    if args.inspection().is_none() {
        reporter.requested(&requested(args));
    }
    let rule = args.lock.rule();
    let done = with_input(args, global, environment, rule, &reporter, |services, input, file| {
        if args.check_pulls() {
            let (dockerfile, _said) = syntax::parse(input.dockerfile.text());
            let options =
                options(args, environment, services, input, dockerfile, &Outputs::none())?;
            let bases = Pulled { environment, services, input, options: &options };
            return inspect(args, environment, input, &bases);
        }
        if args.inspection().is_some() {
            let bases = Stored(existing_store(global, environment));
            return inspect(args, environment, input, &bases);
        }
        let work = Work { args, environment, services, input, reporter: &reporter };
        work.build(&outputs)?;
        if args.lock.locked { Ok(()) } else { file.complete(&services.locked.used()) }
    });
    match &args.report {
        Some(path) => report_file::at_end(path, done, &reporter, global, environment),
        None => done,
    }
}

/// Gets all that a build works with, and the context; hands it to `work`.
pub(super) fn with_input(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile) -> Result<()>,
) -> Result<()> {
    let asked = Asked::new(args).map_err(|complaint| reporter.failed(&complaint))?;
    with_asked(asked, args, global, environment, rule, reporter, work)
}

/// The same for a context that was told apart already.
pub(super) fn with_asked(
    asked: Asked,
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile) -> Result<()>,
) -> Result<()> {
    with_services(asked, args, global, environment, rule, reporter, work).map_err(|complaint| {
        if complaint.is_said() { complaint } else { reporter.failed(&complaint) }
    })
}

/// Shows what happens as it was asked for.
pub(super) fn reporter<'a>(args: &BuildArgs, environment: &'a Environment) -> Result<Reporter<'a>> {
    if args.quiet && !matches!(args.progress, Progress::Auto | Progress::Quiet) {
        let text = "error: --quiet and --progress contradict each other: leave one of them out";
        return Err(CliError::new(text, Exit::Usage));
    }
    let style = if args.quiet { Progress::Quiet } else { args.progress };
    style.check(environment)?;
    let reporter = Reporter::new(style, environment);
    if args.explain {
        reporter.explain();
    }
    Ok(reporter)
}

/// What is remembered of the command line. Values of arguments and secrets are not.
fn requested(args: &BuildArgs) -> Requested {
    let directory = std::path::absolute(".").unwrap_or_default();
    Requested {
        directory: directory.to_string_lossy().into_owned(),
        context: redacted(&args.shown_context()),
        dockerfile: args.file.as_ref().map(|file| file.to_string_lossy().into_owned()),
        target: args.target.clone(),
        platforms: args.platform.clone(),
        names: args.tag.clone(),
    }
}

fn with_services(
    asked: Asked,
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile) -> Result<()>,
) -> Result<()> {
    // A lock file that is named can say what the context itself has to be.
    let given = LockFile::given(&args.lock, asked.directory())?;
    let first = given.as_ref().map_or(Ok(LockedInputs::none()), |file| file.inputs(rule))?;
    let store = open_store(global, environment)?;
    reporter.keep_in(&store);
    let registry = registries::client_for_build(environment, args.lock.offline)?;
    let stop =
        CancelSwitch::new().map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let stop = stop.with_transfers(registry.cancellation());
    let lent = secrets::lent(args, environment)?;
    let programs = environment.for_programs();
    let services = Services {
        store: &store,
        registry: &registry,
        cancel: &stop,
        environment: &programs,
        provided: &lent,
        locked: &first,
        numbers: &StepNumbers::default(),
        events: &|event: Event| reporter.event(&event),
    };
    let done = signals::watching(Some(&stop), registry.pending_requests(), reporter, || {
        let input = asked.load(args, &services, environment.now_s)?;
        reporter.dockerfile(&input.path, input.dockerfile.text());
        match &given {
            Some(file) => work(&services, &input, file),
            None => {
                let file = LockFile::beside(&input.lock)?;
                let locked = file.inputs(rule)?;
                work(&Services { locked: &locked, ..services }, &input, &file)
            }
        }
    });
    // A transfer that was ended is no fault of a registry.
    done.map_err(|complaint| {
        let ended = complaint.exit() == Exit::Environment && stop.is_interrupted();
        if ended { CliError::new("error: interrupted", Exit::Interrupted) } else { complaint }
    })
}

/// Base images of the store, if there is one.
struct Stored(Option<Store>);

impl BaseImages for Stored {
    fn find(
        &self,
        wanted: &[(ImageRequest, Span)],
        images: &mut Images,
    ) -> Result<Vec<Diagnostic>> {
        let Some(store) = &self.0 else { return Ok(Vec::new()) };
        for (request, span) in wanted {
            let base = executor::known_base(store, request, *span);
            images.extend(base.map(|base| (request.clone(), base)));
        }
        Ok(Vec::new())
    }
}

/// Base images as a build gets them: from the store or from registries.
struct Pulled<'a> {
    environment: &'a Environment,
    services: &'a Services<'a>,
    input: &'a Input,
    options: &'a BuildOptions,
}

impl BaseImages for Pulled<'_> {
    fn find(
        &self,
        wanted: &[(ImageRequest, Span)],
        images: &mut Images,
    ) -> Result<Vec<Diagnostic>> {
        let Self { environment, services, input, options } = self;
        let Err(error) = executor::base_images(services, options, wanted, images) else {
            return Ok(Vec::new());
        };
        let diagnostics = error.diagnostics();
        if diagnostics.is_empty() {
            return Err(complaint(&error, &input.dockerfile, environment.style()));
        }
        Ok(diagnostics)
    }
}

/// Shows what was asked for in place of a build.
fn inspect(
    args: &BuildArgs,
    environment: &Environment,
    input: &Input,
    bases: &dyn BaseImages,
) -> Result<()> {
    let (dockerfile, diagnostics) = syntax::parse(input.dockerfile.text());
    let source = input.dockerfile.clone();
    Look { args, environment, input, source, dockerfile, diagnostics, bases }.run()
}

/// The Dockerfile, and what is odd about it.
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

/// A build and all that it is given.
struct Work<'a> {
    args: &'a BuildArgs,
    environment: &'a Environment,
    services: &'a Services<'a>,
    input: &'a Input,
    reporter: &'a Reporter<'a>,
}

impl Work<'_> {
    fn build(&self, outputs: &Outputs) -> Result<()> {
        let Self { args, environment, services, input, reporter } = self;
        let (source, style) = (&input.dockerfile, environment.style());
        let stop = services.cancel;
        let (dockerfile, diagnostics) = stop.planning(|| read_dockerfile(input, environment))?;
        let options = options(args, environment, services, input, dockerfile, outputs)?;
        let mut warnings = stop.planning(|| check::before_build(&options, source, diagnostics));
        if let Some(errors) = check::violation(&options, &warnings) {
            return Err(CliError::of_diagnostics(errors, source, style, Exit::Build));
        }
        let writer = Writer { services, environment, options: &options, outputs };
        // Before anything runs: the push asks again.
        let platforms = &options.request.platforms;
        let early = writer.check_indexes(platforms, RegistryRetries::Once);
        early.map_err(|error| self.failed(&error, None))?;
        let mut session = None;
        let done = executor::with_retries(services, &options, || {
            session = None;
            let built = executor::build(services, &options).map_err(|failed| {
                session = failed.session;
                failed.error
            })?;
            match writer.all(&built) {
                Ok(sent) => Ok(Ok((built, sent))),
                Err(WriteError::Build(error)) => Err(error),
                Err(WriteError::Load(error)) => Ok(Err(error)),
            }
        });
        match &done {
            Ok(built) => {
                warnings.extend(built.iter().flat_map(|(built, _)| built.warnings.clone()));
            }
            Err(_) => warnings
                .extend(stop.planning(|| check::after_failure(&options, source, services.store))),
        }
        reporter.warnings(&warnings, source);
        let done = done.map_err(|error| self.failed(&error, session.as_deref()))?;
        let failed = |error| CliError::from_error(&error, Exit::Environment);
        let (built, sent) = done.map_err(failed)?;
        self.finish(&built, &sent, &outputs.all_names())
    }

    /// Says why there is no image, and shows what a step left if that was asked for.
    fn failed(&self, error: &BuildError, session: Option<&DebugSession>) -> CliError {
        let style = self.environment.style();
        let mut diagnostics = error.diagnostics();
        if let BuildError::Run { step, .. } = error {
            let help = step_name::look_at(step, self.args);
            diagnostics.iter_mut().for_each(|found| found.helps.push(help.clone()));
        }
        let complaint = complaint_of(error, diagnostics, &self.input.dockerfile, style);
        let Some(session) = session else { return complaint };
        let said = self.reporter.failed(&complaint);
        let Self { services, environment, reporter, .. } = self;
        Host { services, environment, reporter }.after_failure(session);
        said
    }

    /// Says what was built, in every way that was asked for.
    fn finish(&self, built: &Built, sent: &Sent, tags: &[Reference]) -> Result<()> {
        let write = |path: &Path, text: String| {
            write_output(path, text.as_bytes())
                .map_err(|error| CliError::from_error(&error, Exit::Environment))
        };
        if let Some(path) = &self.args.iidfile {
            write(path, built.id.to_string())?;
        }
        if let Some(path) = &self.args.metadata_file {
            write(path, format!("{:#}\n", metadata(built, sent, tags)))?;
        }
        if self.reporter.is_quiet() {
            say!("{}", built.id);
        }
        let names: Vec<String> = tags.iter().map(Reference::familiar).collect();
        let (id, digest) = (built.id, sent.digest.unwrap_or(built.top));
        self.reporter.built(&progress::Result { id, digest, names: &names, images: &built.images });
        Ok(())
    }
}

/// The members of docker's metadata file that there are here.
fn metadata(built: &Built, sent: &Sent, tags: &[Reference]) -> Value {
    let mut members = serde_json::Map::new();
    let mut add = |name: &str, value| drop(members.insert(name.to_owned(), value));
    add("rbuild.metadata.version", json!(METADATA_VERSION));
    add("containerimage.digest", json!(sent.digest.unwrap_or(built.top)));
    // The id of several images is that of their index.
    if built.id != built.top {
        add("containerimage.config.digest", json!(built.id));
    }
    let names: Vec<String> = tags.iter().chain(&sent.canonical).map(ToString::to_string).collect();
    if !names.is_empty() {
        add("image.name", json!(names.join(",")));
    }
    Value::Object(members)
}

/// A failed build as text, and how to exit.
pub(super) fn complaint(error: &BuildError, source: &SourceFile, style: Style) -> CliError {
    complaint_of(error, error.diagnostics(), source, style)
}

fn complaint_of(
    error: &BuildError,
    diagnostics: Vec<Diagnostic>,
    source: &SourceFile,
    style: Style,
) -> CliError {
    let exit = if matches!(error, BuildError::Interrupted) {
        Exit::Interrupted
    } else if error.is_environment() {
        Exit::Environment
    } else {
        Exit::Build
    };
    let complaint = if diagnostics.is_empty() {
        CliError::from_error(error, exit)
    } else {
        CliError::of_diagnostics(diagnostics, source, style, exit)
    };
    if let BuildError::Run { last_lines, .. } = error {
        return complaint.with_last_lines(last_lines);
    }
    complaint
}
