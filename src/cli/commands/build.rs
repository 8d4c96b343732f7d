//! `rbuild build CONTEXT`
#![expect(clippy::print_stdout, reason = "the image's id is what -q asks for")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::check::{self, Look};
use super::images::id_and_size;
use super::write_out::{Sent, WriteError, Writer};
use super::{Complaint, Environment, Exit, Global, open_store};
use crate::build::{
    self, BuildError, BuildOptions, Built, CachePlace, CacheTo, Event, LockRule, LockedInputs,
    Services, StepNumbers, Stop,
};
use crate::cli::args::{Allow, BuildArgs, NetworkArg};
use crate::cli::contexts::{self, Asked, Input};
use crate::cli::engine;
use crate::cli::lockfile::LockFile;
use crate::cli::output::{self, Kind};
use crate::cli::outputs::{self, Outputs};
use crate::cli::progress::{self, Progress, Reporter};
use crate::cli::{cache_options, epoch, interrupt, registries, run_options, secrets};
use crate::diag::{Diagnostic, SourceFile, Style};
use crate::ir;
use crate::oci::{Platform, Reference};
use crate::pathio;
use crate::plan::{Network, Request};
use crate::syntax;

type Result<T> = std::result::Result<T, Complaint>;

pub(in crate::cli) fn run(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<()> {
    let outputs = read_outputs(args, environment)?;
    let asked = Asked::new(args)?;
    if let (Asked::Folder(folder), true) = (&asked, args.inspection().is_some()) {
        // Neither store nor registry has to be there.
        return inspect(args, environment, &contexts::local(args, folder.clone())?);
    }
    with_input(args, global, environment, args.lock.rule(), |services, input, file, reporter| {
        if args.inspection().is_some() {
            return inspect(args, environment, input);
        }
        let work = Work { args, environment, services, input, reporter };
        work.build(&outputs)?;
        if args.lock.locked { Ok(()) } else { file.complete(&services.locked.met()) }
    })
}

/// Gets all that a build works with, and the context; hands it to `work`.
pub(super) fn with_input(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile, &Reporter<'_>) -> Result<()>,
) -> Result<()> {
    let style = if args.quiet { Progress::Quiet } else { args.progress };
    let reporter = Reporter::new(style, environment);
    with_services(args, global, environment, rule, &reporter, work)
        .map_err(|complaint| reporter.failed(&complaint))
}

fn with_services(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
    rule: LockRule,
    reporter: &Reporter<'_>,
    work: impl FnOnce(&Services<'_>, &Input, &LockFile, &Reporter<'_>) -> Result<()>,
) -> Result<()> {
    let asked = Asked::new(args)?;
    // A lock file that is named can say what the context itself has to be.
    let given = LockFile::given(&args.lock)?;
    let first = given.as_ref().map_or(Ok(LockedInputs::none()), |file| file.inputs(rule))?;
    let store = open_store(global, environment)?;
    let registry = registries::client_for_build(environment, args.lock.offline)?;
    let stop = Stop::new().map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let stop = stop.with_transfers(registry.halt());
    let lent = secrets::lent(args, environment)?;
    let programs = environment.for_programs();
    let services = Services {
        store: &store,
        registry: &registry,
        stop: &stop,
        environment: &programs,
        lent: &lent,
        locked: &first,
        numbers: &StepNumbers::default(),
        events: &|event: Event| reporter.event(&event),
    };
    let done = interrupt::watching(&stop, &|text| reporter.note(text), || {
        let input = asked.load(args, &services, environment.now_s)?;
        reporter.dockerfile(&input.path);
        match &given {
            Some(file) => work(&services, &input, file, reporter),
            None => {
                let file = LockFile::beside(&input.lock)?;
                let locked = file.inputs(rule)?;
                work(&Services { locked: &locked, ..services }, &input, &file, reporter)
            }
        }
    });
    // A transfer that was ended is no fault of a registry.
    done.map_err(|complaint| {
        let ended = complaint.exit() == Exit::Environment && stop.is_interrupted();
        if ended { Complaint::new("error: interrupted", Exit::Interrupted) } else { complaint }
    })
}

/// Shows what was asked for in place of a build.
fn inspect(args: &BuildArgs, environment: &Environment, input: &Input) -> Result<()> {
    let (dockerfile, diagnostics) = syntax::parse(input.dockerfile.text());
    Look { args, environment, input, dockerfile, diagnostics }.run()
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
        return Err(Complaint::of_diagnostics(diagnostics, source, style, Exit::Build));
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
        let (dockerfile, diagnostics) = read_dockerfile(input, environment)?;
        let options = options(args, environment, services, input, dockerfile, outputs)?;
        let mut warnings = check::before_build(&options, source, diagnostics);
        if let Some(stop) = check::violation(&options, &warnings) {
            return Err(Complaint::of_diagnostics(stop, source, style, Exit::Build));
        }
        let writer = Writer { services, environment, options: &options, outputs };
        let done = build::without_missing_layers(services, || {
            let built = build::build(services, &options)?;
            match writer.all(&built) {
                Ok(sent) => Ok(Ok((built, sent))),
                Err(WriteError::Build(error)) => Err(error),
                Err(WriteError::Load(error)) => Ok(Err(error)),
            }
        });
        warnings.extend(done.iter().flatten().flat_map(|(built, _)| built.warnings.clone()));
        reporter.warnings(&warnings, source);
        let done = done.map_err(|error| complaint(&error, source, style))?;
        let failed = |error| Complaint::from_error(&error, Exit::Environment);
        let (built, sent) = done.map_err(failed)?;
        self.finish(&built, &sent, &outputs.all_names())
    }

    /// Says what was built, in every way that was asked for.
    fn finish(&self, built: &Built, sent: &Sent, tags: &[Reference]) -> Result<()> {
        let write = |path: &Path, text: String| {
            pathio::write(path, text.as_bytes())
                .map_err(|error| Complaint::from_error(&error, Exit::Environment))
        };
        if let Some(path) = &self.args.iidfile {
            write(path, built.id.to_string())?;
        }
        if let Some(path) = &self.args.metadata_file {
            write(path, format!("{:#}\n", metadata(built, sent, tags)))?;
        }
        if self.reporter.is_quiet() {
            println!("{}", built.id);
        }
        let failed = |error| Complaint::from_error(&error, Exit::Environment);
        let (_, n_bytes) = id_and_size(self.services.store, built.top).map_err(failed)?;
        let names: Vec<String> = tags.iter().map(Reference::familiar).collect();
        let (id, digest) = (built.id, sent.digest.unwrap_or(built.top));
        self.reporter.built(&progress::Result { id, digest, names: &names, n_bytes });
        Ok(())
    }
}

/// The members of docker's metadata file that there are here.
fn metadata(built: &Built, sent: &Sent, tags: &[Reference]) -> Value {
    let mut members = serde_json::Map::new();
    let mut add = |name: &str, value| drop(members.insert(name.to_owned(), value));
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

/// What goes out, and where docker or podman is if it goes there.
fn read_outputs(args: &BuildArgs, environment: &Environment) -> Result<Outputs> {
    let usage = |text: String| Complaint::new(format!("error: {text}"), Exit::Usage);
    let is_index = is_on(&build_args(args, environment), "BUILDKIT_MULTI_PLATFORM")?;
    let platforms = platforms(&args.platform)?;
    let mut outputs =
        outputs::read(&args.outputs, &args.tag, &platforms, is_index).map_err(usage)?;
    if outputs.all.iter().any(|one| one.kind == Kind::Engine) {
        let place = engine::find(outputs.engine, environment, crate::sandbox::in_user_namespace());
        let place = place.map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
        outputs.place = Some(place);
    }
    Ok(outputs)
}

pub(in crate::cli) fn platform(text: &str) -> Result<Platform> {
    let bad = |error: crate::oci::PlatformError| Complaint::from_error(&error, Exit::Usage);
    text.trim().parse().map_err(bad)
}

/// Each platform once, in the order in which they are given; this machine's if there is none.
pub(super) fn platforms(texts: &[String]) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    for text in texts {
        let platform = platform(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

/// A build argument that switches something on: BUILDKIT_MULTI_PLATFORM an index for a single
/// platform too, BUILDKIT_INLINE_CACHE a cache in the image.
fn is_on(build_args: &BTreeMap<String, String>, name: &str) -> Result<bool> {
    match build_args.get(name).map(String::as_str) {
        Some("1" | "true") => Ok(true),
        None | Some("" | "0" | "false") => Ok(false),
        Some(other) => {
            let text = format!("error: {name}={other} must be true or false");
            Err(Complaint::new(text, Exit::Usage))
        }
    }
}

/// The caches that are written.
fn cache_to(
    args: &BuildArgs,
    build_args: &BTreeMap<String, String>,
    environment: &Environment,
) -> Result<Vec<CacheTo>> {
    let read =
        |text: &str| cache_options::to(text, &|name| environment.get(name).map(str::to_owned));
    let mut to = caches("--cache-to", &args.cache_to, read)?;
    let has_inline = to.iter().any(|cache| cache.place == CachePlace::Inline);
    if is_on(build_args, "BUILDKIT_INLINE_CACHE")? && !has_inline {
        to.extend(caches("--cache-to", &["type=inline".to_owned()], read)?);
    }
    Ok(to)
}

/// What `BUILDKIT_SYNTAX`, a build argument that takes the place of `# syntax`, asks for in vain.
fn foreign_syntax(build_args: &BTreeMap<String, String>) -> Option<String> {
    let frontend = build_args.get("BUILDKIT_SYNTAX").filter(|name| !name.is_empty())?;
    (!syntax::is_own_frontend(frontend)).then(|| {
        format!("BUILDKIT_SYNTAX={frontend} is not used; the file is read as a Dockerfile")
    })
}

/// Reads each value of a flag about caches.
fn caches<T>(
    flag: &str,
    texts: &[String],
    read: impl Fn(&str) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    let bad = |text: &str, why| {
        let text = cache_options::shown(text);
        Complaint::new(format!("error: {flag} {text}: {why}"), Exit::Usage)
    };
    texts.iter().map(|text| read(text).map_err(|why| bad(text, why))).collect()
}

/// What `--label` says; the value may be left out, the name may not.
fn label_pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err(Complaint::new(format!("--label {text}: it has no name"), Exit::Usage)),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    }
}

pub(super) fn options(
    args: &BuildArgs,
    environment: &Environment,
    services: &Services<'_>,
    input: &Input,
    dockerfile: ir::Dockerfile,
    outputs: &Outputs,
) -> Result<BuildOptions> {
    let named = contexts::named(&args.build_context)?;
    let build_args = build_args(args, environment);
    let epoch_s = epoch::epoch(args, &build_args, &dockerfile, input)?;
    let rewrite = outputs.all.iter().any(|output| output.rewrite_timestamp) && epoch_s.is_some();
    let always_index = is_on(&build_args, "BUILDKIT_MULTI_PLATFORM")?;
    let cache_to = cache_to(args, &build_args, environment)?;
    if let Some(text) = foreign_syntax(&build_args) {
        (services.events)(Event::Warning { text });
    }
    let request = Request {
        build_args,
        target: args.target.clone(),
        platforms: platforms(&args.platform)?,
        build_platform: Platform::host(),
        labels: args.label.iter().map(|label| label_pair(label)).collect::<Result<_>>()?,
        network: match args.network {
            NetworkArg::Default | NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
        },
        contexts: named.names,
        allow_host_network: args.allow.contains(&Allow::NetworkHost),
        allow_insecure: args.allow.contains(&Allow::SecurityInsecure),
        run: run_options::settings(args)?,
    };
    Ok(BuildOptions {
        dockerfile,
        context: input.context.clone(),
        contexts: named.files,
        request,
        tags: outputs.stored_names(),
        annotations: outputs.annotations.clone(),
        always_index,
        cache_from: caches("--cache-from", &args.cache_from, |text| {
            cache_options::from(text, &|name| environment.get(name).map(str::to_owned))
        })?,
        cache_to,
        no_cache: args.no_cache,
        explain: args.explain,
        pull: args.pull,
        epoch_s,
        clamp: args.reproducible || rewrite,
        lent: services.lent.clone(),
        now_s: environment.now_s,
        jobs: args.jobs.unwrap_or(environment.processors),
        pack_ahead: output::packings(&outputs.all),
    })
}

/// The build arguments; SOURCE_DATE_EPOCH of the environment is one, as for docker.
pub(super) fn build_args(args: &BuildArgs, environment: &Environment) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    if let Some(epoch) = environment.get("SOURCE_DATE_EPOCH") {
        given.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
    }
    for argument in &args.build_arg {
        match argument.split_once('=') {
            Some((name, value)) => drop(given.insert(name.to_owned(), value.to_owned())),
            None => {
                let value = environment.get_or_empty(argument);
                given.extend(value.map(|value| (argument.clone(), value.to_owned())));
            }
        }
    }
    given
}

/// A failed build as text, and how to exit.
pub(super) fn complaint(error: &BuildError, source: &SourceFile, style: Style) -> Complaint {
    let diagnostics = error.diagnostics();
    let exit = if matches!(error, BuildError::Interrupted) {
        Exit::Interrupted
    } else if error.is_environment() {
        Exit::Environment
    } else {
        Exit::Build
    };
    let complaint = if diagnostics.is_empty() {
        Complaint::from_error(error, exit)
    } else {
        Complaint::of_diagnostics(diagnostics, source, style, exit)
    };
    if let BuildError::Run { last_lines, .. } = error {
        return complaint.with_last_lines(last_lines);
    }
    complaint
}
