//! `rbuild enter`: prepares the rootfs of an image, or of a step before it runs.
//!
//! Variables, working directory and user are those that a RUN would have there: a RUN is inserted
//! and planned, but not executed.

use std::collections::BTreeSet;

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir;
use crate::dockerfile::syntax;
use crate::oci::{Digest, Reference};
use crate::plan::{self, Base, CopyFrom, Images, Operation, Outcome, Plan, RunOperation, Step};

use crate::executor::cache::build_caches::BuildCaches;
use crate::executor::cache::import::{self, ImportedCaches};
use crate::executor::inputs::build_inputs::BuildInputs;
use crate::executor::inputs::image::{base_config, from_store};
use crate::executor::inputs::image_table::ImageTable;
use crate::executor::inputs::resolve;
use crate::executor::mounts::cache_mount;
use crate::executor::mounts::source::MountInputs;
use crate::executor::schedule::driver::Driver;
use crate::executor::schedule::planning;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::steps::step_files::StepFiles;
use crate::executor::steps::step_root::StepRoot;
use crate::executor::{BuildError, BuildOptions, Failure, Services, StepPlace};

use super::session::DebugSession;

/// The instruction that is inserted where the session does not take the place of a RUN.
const INSERTED_RUN: &str = "RUN true";
/// Text that marks the inserted instruction.
const MARK: &str = "(enter)";

type Result<T> = std::result::Result<T, Failure>;

/// The point at which a debug session starts.
#[derive(Debug, Clone)]
pub enum EnterAt {
    /// An image, without a build.
    Image {
        /// Its name; not looked up if `known` is set.
        name: Reference,
        /// Digest of its manifest or index in the store.
        known: Option<Digest>,
    },
    /// The end of a build's target, after all its steps.
    End,
    /// A step of the target, before it runs. Its number is that of logs, from 1, which is FROM.
    Before(usize),
}

/// Builds or pulls what is needed, and prepares the rootfs.
///
/// # Errors
/// Those of a build; [`BuildError::Dockerfile`] if the step does not exist.
pub fn enter(
    services: &Services<'_>,
    options: &BuildOptions,
    at: &EnterAt,
) -> Result<Box<DebugSession>> {
    match at {
        EnterAt::Image { name, known } => enter_image(services, options, name, *known),
        EnterAt::End => enter_target(services, options, None),
        EnterAt::Before(number) => enter_target(services, options, Some(*number)),
    }
}

fn enter_image(
    services: &Services<'_>,
    options: &BuildOptions,
    name: &Reference,
    known: Option<Digest>,
) -> Result<Box<DebugSession>> {
    let inputs = BuildInputs::new(services, options);
    let caches = BuildCaches::new(ImportedCaches::default());
    let mut file = syntax::parse(&format!("FROM {name}\n")).0;
    let stage = file.stages.last_mut().expect("the text has a FROM");
    stage.instructions.push(inserted_run(Span::default()));
    let (mut table, mut images) = (ImageTable::default(), Images::new());
    loop {
        let needs = match plan::plan(&file, &options.request, &images).map_err(dockerfile_error)? {
            Outcome::Needs(needs) => needs,
            Outcome::Ready(mut plan) => {
                let replaced = end_before_inserted(&mut plan).expect("it was put there");
                let state = BuildState::new(&inputs, &caches, &plan, &table);
                let stack = state.images.resolved.values().next().map(|image| image.stack());
                let name = name.familiar();
                return prepare_session(&state, name, &replaced, &stack.unwrap_or_default());
            }
        };
        for (request, _span) in needs {
            let here = known.map(|top| from_store(services.store, name, &request.platform, top));
            let resolved = match here.transpose()?.flatten() {
                Some(resolved) => resolved,
                None => resolve::image(services, options, &request, None)?,
            };
            // ONBUILD triggers count in builds only.
            images.insert(request.clone(), base_config(&resolved.config));
            table.resolved.insert(request, resolved);
        }
    }
}

fn enter_target(
    services: &Services<'_>,
    options: &BuildOptions,
    number: Option<usize>,
) -> Result<Box<DebugSession>> {
    let imported = import::import(services, &options.cache_from, &options.request.platforms)?;
    let inputs = BuildInputs::new(services, options);
    let caches = BuildCaches::new(imported);
    let (mut plan, mut images) = planning::plan(&inputs)?;
    let target = target(&plan);
    let place = number.map(|number| step_at(&plan, target, number)).transpose()?.flatten();
    let stage = plan.stages.get(target).expect("a plan names its own stages");
    let span = stage.span;
    let name = match place.and_then(|at| Some((at, stage.steps.get(at)?))) {
        Some((at, step)) => StepPlace::of(stage, Some(at), step.text.clone()).to_string(),
        None => format!("[{}] after its last step", stage.name),
    };
    let is_run = |at: &usize| {
        let step = stage.steps.get(*at);
        step.is_some_and(|step| matches!(step.operation, Some(Operation::Run(_))))
    };
    let replaced = match place.filter(is_run) {
        Some(at) => end_before(&mut plan, target, at),
        None => {
            let before = place.and_then(|at| stage.steps.get(at)).map(|step| step.span);
            let file = with_inserted_run(&options.dockerfile, stage.span, before)?;
            (plan, images) = planning::plan_of(&inputs, &file)?;
            end_before_inserted(&mut plan)
        }
    };
    let Some(replaced) = replaced else {
        let message = "this stage cannot be entered: a named context replaces it";
        return Err(dockerfile_error(vec![Diagnostic::error(codes::BAD_ARGUMENT, span, message)]));
    };
    empty_unneeded_stages(&mut plan, &replaced.operation);
    let state = BuildState::new(&inputs, &caches, &plan, &images);
    Driver::new(&state).all_stages().map_err(|failed| failed.error)?;
    let stack = state.stage(self::target(&plan))?.stack;
    let session = prepare_session(&state, name, &replaced, &stack)?;
    caches.note_steps_used(services.store)?;
    Ok(session)
}

/// The RUN whose place a session takes.
struct ReplacedRun {
    operation: RunOperation,
    span: Span,
    is_inserted: bool,
}

fn dockerfile_error(diagnostics: Vec<Diagnostic>) -> Failure {
    Failure::new(BuildError::Dockerfile { diagnostics })
}

fn target(plan: &Plan) -> usize {
    plan.targets.last().expect("a plan has a target").stage
}

/// Returns the index of the step with this number in logs. FROM stands for the step after it;
/// `None` if the stage has no steps.
fn step_at(plan: &Plan, target: usize, number: usize) -> Result<Option<usize>> {
    let stage = plan.stages.get(target).expect("a plan names its own stages");
    let operations = stage.steps.iter().enumerate().filter(|(_, step)| step.operation.is_some());
    let mut places = operations.map(|(at, _)| at);
    let found = match number {
        0 => None,
        1 => return Ok(Some(0).filter(|_| !stage.steps.is_empty())),
        _ => places.nth(number - 2),
    };
    found.map(Some).ok_or_else(|| {
        let (name, of) = (&stage.name, stage.n_operations() + 1);
        let message = format!("the stage {name} has no step {number}, only {of}");
        let help = "steps are numbered as in logs, from 1, which is FROM; to enter a stage after its \
                    last step, use --target";
        dockerfile_error(vec![Diagnostic::error(codes::BAD_ARGUMENT, stage.span, message).help(help)])
    })
}

/// Returns the RUN that is inserted for the session.
fn inserted_run(span: Span) -> ir::Instruction {
    let file = syntax::parse(&format!("FROM scratch\n{INSERTED_RUN}\n")).0;
    let stage = file.stages.into_iter().next().expect("the text has a FROM");
    let run = stage.instructions.into_iter().next().expect("the text has a RUN");
    ir::Instruction { span, text: MARK.to_owned(), ..run }
}

/// Returns the Dockerfile with the inserted RUN in the stage that begins at `from`: before the
/// instruction at `before`, or at the end.
fn with_inserted_run(
    file: &ir::Dockerfile,
    from: Span,
    before: Option<Span>,
) -> Result<ir::Dockerfile> {
    let mut file = file.clone();
    let stage = file.stages.iter_mut().find(|stage| stage.span == from);
    let stage = stage.expect("a planned stage is one of the file's");
    let at = match before {
        None => Some(stage.instructions.len()),
        Some(span) => stage.instructions.iter().position(|one| one.span == span),
    };
    let Some(at) = at else {
        let message = "this step is a trigger of the base image (ONBUILD)";
        let help = "enter the step after it, or one that is a RUN";
        let error = Diagnostic::error(codes::BAD_ARGUMENT, from, message).help(help);
        return Err(dockerfile_error(vec![error]));
    };
    stage.instructions.insert(at, inserted_run(before.unwrap_or(from)));
    Ok(file)
}

/// Ends the target before the inserted RUN.
fn end_before_inserted(plan: &mut Plan) -> Option<ReplacedRun> {
    let target = target(plan);
    let steps = &plan.stages.get(target)?.steps;
    let at = steps.iter().position(|step| step.text == MARK)?;
    end_before(plan, target, at)
}

/// Ends a stage before this step, which is a RUN.
fn end_before(plan: &mut Plan, stage: usize, at: usize) -> Option<ReplacedRun> {
    let stage = plan.stages.get_mut(stage)?;
    let after = stage.steps.split_off(at.min(stage.steps.len()));
    match after.into_iter().next()? {
        Step { span, text, operation: Some(Operation::Run(operation)), .. } => {
            Some(ReplacedRun { operation, span, is_inserted: text == MARK })
        }
        Step { .. } => None,
    }
}

/// Empties the stages that only later steps would need.
fn empty_unneeded_stages(plan: &mut Plan, replaced: &RunOperation) {
    let mut needed = BTreeSet::new();
    let mut next = vec![target(plan)];
    next.extend(replaced.mounts.iter().filter_map(|mount| stage_of(mount.from()?)));
    while let Some(number) = next.pop() {
        if let Some(stage) = plan.stages.get(number).filter(|_| needed.insert(number)) {
            if let Base::Stage(base) = stage.base {
                next.push(base);
            }
            let operations = stage.steps.iter().filter_map(|step| step.operation.as_ref());
            next.extend(operations.flat_map(Operation::stages));
        }
    }
    let stages = plan.stages.iter_mut().enumerate();
    for (_, stage) in stages.filter(|(number, _)| !needed.contains(number)) {
        stage.base = Base::Scratch;
        stage.steps.clear();
    }
}

const fn stage_of(from: &CopyFrom) -> Option<usize> {
    match from {
        CopyFrom::Stage(number) => Some(*number),
        CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Image(_) => None,
    }
}

/// Prepares the rootfs of a RUN on top of `stack`.
fn prepare_session(
    state: &BuildState<'_>,
    name: String,
    replaced: &ReplacedRun,
    stack: &Stack,
) -> Result<Box<DebugSession>> {
    let ReplacedRun { operation, span, is_inserted } = replaced;
    let inputs = MountInputs::find(state, operation)?;
    cache_mount::note(state, operation, &inputs);
    let files = StepFiles::unshown(state, stack, *span)?;
    let step = state.services.unshown(name.clone());
    let root = StepRoot::prepare(state, &step, *span, operation, &inputs, files)?;
    let session = DebugSession::new(name, operation, root);
    Ok(if *is_inserted { session.without_command() } else { session })
}
