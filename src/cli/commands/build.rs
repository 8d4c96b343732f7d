//! `rbuild build CONTEXT`: builds an image, or inspects the Dockerfile in place of a build.

use std::path::Path;

use super::build_options::{options, read_outputs};
use super::check::{self, BaseImages, Inspector};
use super::one_build::{FinishedBuild, OneBuild, cli_error};
use super::{
    CliError, Environment, Exit, Global, existing_store, metadata, open_store, plan, report_file,
};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::progress::Progress;
use crate::cli::debug_session::shell;
use crate::cli::display::stdout::say;
use crate::cli::inputs::contexts::{self, ContextArg, Input};
use crate::cli::inputs::lockfile::LockFile;
use crate::cli::inputs::secrets;
use crate::cli::outputs::Outputs;
use crate::cli::progress::{BuildResult, Reporter};
use crate::cli::records::Requested;
use crate::cli::{registries, signals};
use crate::diag::{Diagnostic, Span};
use crate::dockerfile::syntax;
use crate::executor::{
    self, BuildError, BuildOptions, CancelSwitch, Event, LockRule, LockedInputs, Services,
    StepNumbers,
};
use crate::pathio::output::write_output;
use crate::plan::{ImageRequest, Images, redacted};
use crate::store::Store;

type Result<T> = std::result::Result<T, CliError>;

/// Runs the command: a build, a dry run, or an inspection of the Dockerfile.
pub(crate) fn run(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<()> {
    report_file::check(args)?;
    if args.dry_run {
        return plan::dry_run(args, global, environment);
    }
    let outputs = read_outputs(args, environment)?;
    shell::check(args, environment)?;
    let asked = ContextArg::new(args)?;
    check::usage(args, &asked)?;
    if let (ContextArg::Directory(directory), true) = (&asked, args.inspection().is_some())
        && !args.check_pulls()
    {
        // An inspection needs neither a store nor a registry.
        let bases = StoredBaseImages(existing_store(global, environment));
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
            let bases = ResolvedBaseImages { environment, services, input, options: &options };
            return inspect(args, environment, input, &bases);
        }
        if args.inspection().is_some() {
            let bases = StoredBaseImages(existing_store(global, environment));
            return inspect(args, environment, input, &bases);
        }
        let reporter = &reporter;
        let build = OneBuild { args, environment, services, input, reporter, is_target: false };
        finish(&build, &build.run(&outputs)?)?;
        if args.lock.locked { Ok(()) } else { file.complete(&services.locked.used()) }
    });
    match &args.report {
        Some(path) => report_file::at_end(path, done, &reporter, global, environment),
        None => done,
    }
}

/// Opens the store, the registry client and the context of the command line, and runs `work` with
/// them. Errors go through `reporter`.
pub(super) fn with_input(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile) -> Result<()>,
) -> Result<()> {
    let asked = ContextArg::new(args).map_err(|error| reporter.failed(&error))?;
    with_asked(asked, args, global, environment, rule, reporter, work)
}

/// Does the same as [`with_input`] for a context argument that is already parsed.
pub(super) fn with_asked(
    asked: ContextArg,
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile) -> Result<()>,
) -> Result<()> {
    with_services(asked, args, global, environment, rule, reporter, work)
        .map_err(|error| if error.is_reported() { error } else { reporter.failed(&error) })
}

/// Returns the reporter of `--progress`, `--quiet` and `--explain`.
pub(super) fn reporter<'a>(args: &BuildArgs, environment: &'a Environment) -> Result<Reporter<'a>> {
    if args.quiet && !matches!(args.progress, Progress::Auto | Progress::Quiet) {
        let text = "error: --quiet and --progress cannot be used together";
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

/// Returns the part of the command line that goes into the build record. Values of build arguments
/// and secrets stay out of it.
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
    asked: ContextArg,
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile) -> Result<()>,
) -> Result<()> {
    // A lock file given with --lockfile can also pin the context itself.
    let given = LockFile::given(&args.lock, asked.directory())?;
    let first = given.as_ref().map_or(Ok(LockedInputs::none()), |file| file.inputs(rule))?;
    let store = open_store(global, environment)?;
    reporter.keep_in(&store);
    let registry = registries::client_for_build(environment, args.lock.offline)?;
    let stop =
        CancelSwitch::new().map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let stop = stop.with_transfers(registry.cancellation()).with_timeout(args.patience.timeout);
    let provided = secrets::read_all(args, environment)?;
    let programs = environment.for_programs();
    let services = Services {
        store: &store,
        registry: &registry,
        cancel: &stop,
        environment: &programs,
        provided: &provided,
        locked: &first,
        numbers: &StepNumbers::default(),
        events: &|event: Event| reporter.event(&event),
    };
    let done = signals::watching(Some(&stop), registry.pending_requests(), reporter, || {
        let input = asked.load(args, &services, environment)?;
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
    // An interrupt closes connections: do not blame the registry for it.
    done.map_err(|error| {
        if error.exit() != Exit::Environment {
            return error;
        }
        if stop.is_interrupted() {
            return CliError::new("error: interrupted", Exit::Interrupted);
        }
        match stop.deadline().filter(|_deadline| stop.is_timed_out()) {
            Some((_, limit)) => {
                CliError::from_error(&BuildError::TimedOut { limit }, Exit::TimedOut)
            }
            None => error,
        }
    })
}

/// Looks base images up in the store only, if there is one.
struct StoredBaseImages(Option<Store>);

impl BaseImages for StoredBaseImages {
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

/// Looks base images up as a build does: in the store, then in registries.
struct ResolvedBaseImages<'a> {
    environment: &'a Environment,
    services: &'a Services<'a>,
    input: &'a Input,
    options: &'a BuildOptions,
}

impl BaseImages for ResolvedBaseImages<'_> {
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
            return Err(cli_error(&error, &input.dockerfile, environment.style()));
        }
        Ok(diagnostics)
    }
}

/// Runs `--check` or `--call` in place of a build.
fn inspect(
    args: &BuildArgs,
    environment: &Environment,
    input: &Input,
    bases: &dyn BaseImages,
) -> Result<()> {
    let (dockerfile, diagnostics) = syntax::parse(input.dockerfile.text());
    let source = input.dockerfile.clone();
    Inspector { args, environment, input, source, dockerfile, diagnostics, bases }.run()
}

/// Reports the built image: `--iidfile`, `--metadata-file`, standard output and progress.
fn finish(build: &OneBuild<'_>, done: &FinishedBuild) -> Result<()> {
    let OneBuild { args, environment, services, input, reporter, .. } = build;
    let write = |path: &Path, text: String| {
        write_output(path, text.as_bytes())
            .map_err(|error| CliError::from_error(&error, Exit::Environment))
    };
    let id = done.built.id;
    if let Some(path) = &args.iidfile {
        write(path, id.to_string())?;
    }
    if let Some(path) = &args.metadata_file {
        let source = &input.dockerfile;
        let document = metadata::document(done, services, reporter, environment, source);
        write(path, format!("{document:#}\n"))?;
    }
    for (path, text) in args.digest_files.contents(done.digest(), &done.tags) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let made = parent.map_or(Ok(()), crate::pathio::create_dir_all);
        made.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        write(path, text)?;
    }
    if reporter.is_quiet() && args.progress != Progress::None {
        say!("{id}");
    }
    let (names, digest) = (done.names(), done.digest());
    let images = &done.built.images;
    reporter.built(&BuildResult { id, digest, names: &names, images, n_targets: 1 });
    Ok(())
}
