//! `rbuild enter`: the way into an image, or into a step of a build before it runs.
//!
//! The variables, the directory and the user are those that a RUN would have there: so one is put there,
//! planned, and not run.

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
use crate::executor::mounts::source::Inputs;
use crate::executor::schedule::driver::Driver;
use crate::executor::schedule::planning;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::steps::step_root::StepRoot;
use crate::executor::{BuildError, BuildOptions, Failure, Services, StepPlace};

use super::session::Entrance;

/// What stands where somebody enters who does not take the place of a RUN.
const VISITOR: &str = "RUN true";
/// How it is told from other instructions.
const MARK: &str = "(enter)";

type Result<T> = std::result::Result<T, Failure>;

/// Where somebody enters.
#[derive(Debug, Clone)]
pub enum EnterAt {
    /// An image.
    Image {
        /// Its name; any, if it is known.
        name: Reference,
        /// Its manifest or index in the store.
        known: Option<Digest>,
    },
    /// The target of a build, when all its steps are done.
    End,
    /// A step of the target, before it runs; by its number in logs, from 1, which is FROM.
    Before(usize),
}

/// Gets or builds what is needed to be there.
///
/// # Errors
/// Whatever keeps it from being there; `Dockerfile` when there is no such step.
pub fn enter(
    services: &Services<'_>,
    options: &BuildOptions,
    at: &EnterAt,
) -> Result<Box<Entrance>> {
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
) -> Result<Box<Entrance>> {
    let inputs = BuildInputs::new(services, options);
    let caches = BuildCaches::new(ImportedCaches::default());
    let mut file = syntax::parse(&format!("FROM {name}\n")).0;
    let stage = file.stages.last_mut().expect("the text has a FROM");
    stage.instructions.push(visitor(Span::default()));
    let (mut table, mut images) = (ImageTable::default(), Images::new());
    loop {
        let needs = match plan::plan(&file, &options.request, &images).map_err(mistakes)? {
            Outcome::Needs(needs) => needs,
            Outcome::Ready(mut plan) => {
                let entered = take_visitor(&mut plan).expect("it was put there");
                let state = BuildState::new(&inputs, &caches, &plan, &table);
                let stack = state.images.resolved.values().next().map(|image| image.stack());
                let name = name.familiar();
                return entrance(&state, name, &entered, &stack.unwrap_or_default());
            }
        };
        for (request, _span) in needs {
            let here = known.map(|top| from_store(services.store, name, &request.platform, top));
            let resolved = match here.transpose()?.flatten() {
                Some(resolved) => resolved,
                None => resolve::image(services, options, &request, None)?,
            };
            // Triggers are for builds.
            images.insert(request.clone(), base_config(&resolved.config));
            table.resolved.insert(request, resolved);
        }
    }
}

fn enter_target(
    services: &Services<'_>,
    options: &BuildOptions,
    number: Option<usize>,
) -> Result<Box<Entrance>> {
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
    let entered = match place.filter(is_run) {
        Some(at) => cut(&mut plan, target, at),
        None => {
            let before = place.and_then(|at| stage.steps.get(at)).map(|step| step.span);
            let file = with_visitor(&options.dockerfile, stage.span, before)?;
            (plan, images) = planning::plan_of(&inputs, &file)?;
            take_visitor(&mut plan)
        }
    };
    let Some(entered) = entered else {
        let message = "this stage cannot be entered: a named context stands in for it";
        return Err(mistakes(vec![Diagnostic::error(codes::BAD_ARGUMENT, span, message)]));
    };
    drop_what_is_not_needed(&mut plan, &entered.operation);
    let state = BuildState::new(&inputs, &caches, &plan, &images);
    Driver::new(&state).all_stages().map_err(|failed| failed.error)?;
    let stack = state.stage(self::target(&plan))?.stack;
    let entrance = entrance(&state, name, &entered, &stack)?;
    caches.note_steps_used(services.store)?;
    Ok(entrance)
}

/// A RUN in whose place somebody enters.
struct Entered {
    operation: RunOperation,
    span: Span,
    is_visitor: bool,
}

fn mistakes(diagnostics: Vec<Diagnostic>) -> Failure {
    Failure::new(BuildError::Dockerfile { diagnostics })
}

fn target(plan: &Plan) -> usize {
    plan.targets.last().expect("a plan has a target").stage
}

/// The index of the step with this number in logs. FROM stands for whatever comes first after it.
/// Nothing, where nothing does.
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
        let help = "steps are numbered as in logs, from 1, which is FROM; what the whole stage makes \
                    is entered with --target";
        mistakes(vec![Diagnostic::error(codes::BAD_ARGUMENT, stage.span, message).help(help)])
    })
}

/// The RUN that is put where somebody enters.
fn visitor(span: Span) -> ir::Instruction {
    let file = syntax::parse(&format!("FROM scratch\n{VISITOR}\n")).0;
    let stage = file.stages.into_iter().next().expect("the text has a FROM");
    let run = stage.instructions.into_iter().next().expect("the text has a RUN");
    ir::Instruction { span, text: MARK.to_owned(), ..run }
}

/// The Dockerfile with a visitor in the stage that begins at `from`: before the instruction at
/// `before`, or at its end.
fn with_visitor(file: &ir::Dockerfile, from: Span, before: Option<Span>) -> Result<ir::Dockerfile> {
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
        return Err(mistakes(vec![error]));
    };
    stage.instructions.insert(at, visitor(before.unwrap_or(from)));
    Ok(file)
}

/// Ends the target before its visitor.
fn take_visitor(plan: &mut Plan) -> Option<Entered> {
    let target = target(plan);
    let steps = &plan.stages.get(target)?.steps;
    let at = steps.iter().position(|step| step.text == MARK)?;
    cut(plan, target, at)
}

/// Ends a stage before this step, which is a RUN.
fn cut(plan: &mut Plan, stage: usize, at: usize) -> Option<Entered> {
    let stage = plan.stages.get_mut(stage)?;
    let after = stage.steps.split_off(at.min(stage.steps.len()));
    match after.into_iter().next()? {
        Step { span, text, operation: Some(Operation::Run(operation)), .. } => {
            Some(Entered { operation, span, is_visitor: text == MARK })
        }
        Step { .. } => None,
    }
}

/// Leaves nothing to do in stages that only later steps would have needed.
fn drop_what_is_not_needed(plan: &mut Plan, entered: &RunOperation) {
    let mut needed = BTreeSet::new();
    let mut next = vec![target(plan)];
    next.extend(entered.mounts.iter().filter_map(|mount| stage_of(mount.from()?)));
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

/// The rootfs of a RUN on top of `stack`.
fn entrance(
    state: &BuildState<'_>,
    name: String,
    entered: &Entered,
    stack: &Stack,
) -> Result<Box<Entrance>> {
    let Entered { operation, span, is_visitor } = entered;
    let inputs = Inputs::find(state, operation)?;
    cache_mount::note(state, operation, &inputs);
    let lowers = state.directories(stack, *span)?;
    let step = state.services.unshown(name.clone());
    let root = StepRoot::prepare(state, &step, *span, operation, &inputs, &lowers)?;
    let entrance = Entrance::new(name, operation, root);
    Ok(if *is_visitor { entrance.without_command() } else { entrance })
}
