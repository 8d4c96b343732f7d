//! Builds the targets of a bake, all at once. A step that several targets contain runs once: each claims it
//! in the store, and the others find it there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::events::TargetEvents;
use super::order::{EndedTargets, dependencies_first};
use crate::cli::args::Global;
use crate::cli::args::bake::BakeArgs;
use crate::cli::args::bake_target::BakedArgs;
use crate::cli::commands::build_options::read_outputs;
use crate::cli::commands::one_build::{FinishedBuild, OneBuild};
use crate::cli::commands::{metadata, open_store};
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::inputs::contexts::ContextArg;
use crate::cli::inputs::lockfile::{DefaultLockFile, LockFile};
use crate::cli::inputs::secrets;
use crate::cli::outputs::Outputs;
use crate::cli::progress::{BuildResult, Reporter};
use crate::cli::records::Requested;
use crate::cli::{defaults, registries, signals};
use crate::executor::{CancelSwitch, Event, LockedInputs, Services, StepNumbers};
use crate::limits::MAX_TARGETS_AT_ONCE;
use crate::plan::Lock;
use crate::pool;
use crate::registry::Client;
use crate::store::Store;

type Result<T> = std::result::Result<T, CliError>;

/// A target with its arguments.
#[derive(Debug)]
pub(super) struct BakeTarget {
    pub(super) name: String,
    pub(super) baked: BakedArgs,
}

/// A target that was built.
struct DoneTarget {
    build: FinishedBuild,
    /// Its member of the metadata file.
    metadata: Value,
    /// Inputs for the lock file beside its Dockerfile, if there is one.
    locked: (DefaultLockFile, Lock),
}

/// The services of all targets.
struct Bakery<'a> {
    targets: &'a [BakeTarget],
    /// Positions of the targets that each one links to, with the names of its contexts.
    links: Vec<Vec<(String, usize)>>,
    outputs: Vec<Outputs>,
    environment: &'a Environment,
    programs: BTreeMap<String, String>,
    store: &'a Store,
    registry: &'a Client,
    cancel: &'a CancelSwitch,
    numbers: StepNumbers,
    events: TargetEvents<'a>,
    reporter: &'a Reporter<'a>,
    ended: EndedTargets,
}

/// Returns the reporter of a bake.
pub(super) fn reporter<'a>(
    args: &BakeArgs,
    targets: &[BakeTarget],
    environment: &'a Environment,
) -> Result<Reporter<'a>> {
    let style = defaults::progress(args.progress, environment)?;
    style.check(environment)?;
    let reporter = Reporter::new(style, environment);
    let all = || targets.iter().map(|target| &target.baked.args);
    reporter.requested(&Requested {
        directory: std::path::absolute(".").unwrap_or_default().to_string_lossy().into_owned(),
        context: ".".to_owned(),
        dockerfile: None,
        target: Some(
            targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(","),
        ),
        platforms: all().flat_map(|args| args.platform.clone()).collect(),
        names: all().flat_map(|args| args.tag.clone()).collect(),
    });
    Ok(reporter)
}

/// Builds the targets. Returns the members of the metadata file by target.
///
/// # Errors
/// That of the first target that failed by itself; the others are cancelled.
pub(super) fn targets(
    targets: &[BakeTarget],
    global: &Global,
    environment: &Environment,
    reporter: &Reporter<'_>,
) -> Result<Value> {
    let outputs = targets.iter().map(|target| read_outputs(&target.baked.args, environment));
    let outputs: Vec<Outputs> = outputs.collect::<Result<_>>()?;
    let links = targets.iter().map(|target| positions(target, targets));
    let links: Vec<Vec<(String, usize)>> = links.collect::<Result<_>>()?;
    let store = open_store(global, environment)?;
    reporter.keep_in(&store);
    // `registry.insecure=true` of an output is about the connections of all targets.
    let mut connecting = environment.clone();
    let insecure =
        targets.iter().flat_map(|target| defaults::insecure_registries(&target.baked.args));
    connecting.registry_flags.settings.extend(insecure);
    let registry = registries::client_for_build(&connecting, false)?;
    let cancel =
        CancelSwitch::new().map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let cancel = cancel.with_transfers(registry.cancellation());
    let cancel = if targets.len() > 1 { cancel.shared() } else { cancel };
    let names = targets.iter().map(|target| target.name.as_str()).collect();
    let bakery = Bakery {
        targets,
        links,
        outputs,
        environment,
        programs: environment.for_programs(),
        store: &store,
        registry: &registry,
        cancel: &cancel,
        numbers: StepNumbers::default(),
        events: TargetEvents::new(reporter, names),
        reporter,
        ended: EndedTargets::default(),
    };
    let done =
        signals::watching(Some(&cancel), registry.pending_requests(), reporter, || bakery.all())?;
    bakery.complete_lock_files(&done)?;
    Ok(bakery.report(&done))
}

/// Returns the positions of the targets that a target links to.
fn positions(target: &BakeTarget, all: &[BakeTarget]) -> Result<Vec<(String, usize)>> {
    let links = target.baked.links.iter().map(|(context, name)| {
        let at = all.iter().position(|other| other.name == *name).ok_or_else(|| {
            let text =
                format!("error: target {}: context {context}: no target {name}", target.name);
            CliError::new(text, Exit::Usage)
        })?;
        Ok((context.clone(), at))
    });
    links.collect()
}

impl Bakery<'_> {
    /// Builds all targets. Returns them in the order of the definition.
    fn all(&self) -> Result<Vec<DoneTarget>> {
        let needs = self.links.iter().map(|links| links.iter().map(|(_, at)| *at).collect());
        let order = dependencies_first(&needs.collect::<Vec<_>>());
        // Targets are started in order, so the first one that runs never waits for another.
        let built = pool::map_in_order(&order, MAX_TARGETS_AT_ONCE, |at| (*at, self.target(*at)));
        let mut built: BTreeMap<usize, Result<DoneTarget>> = built.into_iter().collect();
        let failed = |result: &Result<DoneTarget>, own: bool| {
            result.as_ref().is_err_and(|error| !own || !error.is_consequence())
        };
        let first = built.iter().find(|(_, result)| failed(result, true));
        let first = first.or_else(|| built.iter().find(|(_, result)| failed(result, false)));
        if let Some(at) = first.map(|(at, _)| *at) {
            let name = self.targets.get(at).map(|target| target.name.clone()).unwrap_or_default();
            return match built.remove(&at) {
                Some(Err(error)) if self.targets.len() > 1 => Err(error.of_target(&name)),
                Some(Err(error)) => Err(error),
                _ => Ok(Vec::new()),
            };
        }
        built.into_values().collect()
    }

    /// Builds a target after those that it links to.
    fn target(&self, at: usize) -> Result<DoneTarget> {
        let done = self.link(at).and_then(|()| self.build(at));
        let top = done.as_ref().ok().map(|done| done.build.built.top);
        if done.is_err() {
            self.cancel.fail();
        }
        self.ended.note(at, top);
        done
    }

    /// Waits for the targets that are contexts of this one.
    fn link(&self, at: usize) -> Result<()> {
        let mut images = BTreeMap::new();
        for (context, needed) in self.links.get(at).into_iter().flatten() {
            let top = self.ended.wait(*needed).ok_or_else(|| {
                CliError::new("error: a target that it needs failed", Exit::Build)
                    .into_consequence()
            })?;
            images.insert(context.clone(), top);
        }
        let target = self.one(at);
        // It is set once, by the thread of the target.
        let _set = target.baked.args.bake.images.set(images);
        Ok(())
    }

    fn one(&self, at: usize) -> &BakeTarget {
        self.targets.get(at).expect("positions are those of targets")
    }

    fn build(&self, at: usize) -> Result<DoneTarget> {
        let Self { environment, store, registry, cancel, numbers, reporter, .. } = self;
        let args = &self.one(at).baked.args;
        let provided = secrets::read_all(args, environment)?;
        let none = LockedInputs::none();
        let emit = |event: Event| self.events.report(at, event);
        let services = Services {
            store,
            registry,
            cancel,
            environment: &self.programs,
            provided: &provided,
            locked: &none,
            numbers,
            events: &emit,
        };
        let input = ContextArg::new(args)?.load(args, &services, environment)?;
        let locked = LockFile::beside(&input.lock)?.inputs(args.lock.rule())?;
        let services = Services { locked: &locked, ..services };
        let outputs = self.outputs.get(at).expect("each target has its outputs");
        let build = OneBuild {
            args,
            environment,
            services: &services,
            input: &input,
            reporter,
            is_target: true,
        };
        let build = build.run(outputs)?;
        let metadata =
            metadata::document(&build, &services, reporter, environment, &input.dockerfile);
        Ok(DoneTarget { build, metadata, locked: (input.lock, locked.used()) })
    }

    /// Adds inputs to the lock files that exist: one after the other, since targets share them.
    fn complete_lock_files(&self, done: &[DoneTarget]) -> Result<()> {
        done.iter().try_for_each(|target| {
            let (file, used) = &target.locked;
            LockFile::beside(file)?.complete(used)
        })
    }

    /// Reports the images. Returns the content of the metadata file.
    fn report(&self, done: &[DoneTarget]) -> Value {
        let all = self.targets.iter().zip(done);
        if self.targets.len() > 1 {
            for (target, done) in all.clone() {
                let names = done.build.names();
                let named = if names.is_empty() {
                    String::new()
                } else {
                    format!(" as {}", names.join(", "))
                };
                self.reporter
                    .note(format!("{}: built {}{named}", target.name, done.build.built.id));
            }
        }
        if let Some(last) = done.last() {
            let names: Vec<String> = done.iter().flat_map(|done| done.build.names()).collect();
            let images: Vec<_> =
                done.iter().flat_map(|done| done.build.built.images.clone()).collect();
            let (id, digest) = (last.build.built.id, last.build.digest());
            let n_targets = done.len();
            self.reporter.built(&BuildResult {
                id,
                digest,
                names: &names,
                images: &images,
                n_targets,
            });
        }
        all.map(|(target, done)| (target.name.clone(), done.metadata.clone())).collect()
    }
}
