//! Steps that run no command: COPY, ADD and WORKDIR.

use std::time::Instant;

use crate::diag::Span;
use crate::plan::{self, CopyFrom, OperationKey};
use crate::pool::{self, Scope};
use crate::store::{LowerDirectory, Representation, StoredLayer};
use crate::tree::Accounts;

use crate::executor::active_step::ActiveStep;
use crate::executor::cache::lookup::{Claim, Lookup};
use crate::executor::copy::sources;
use crate::executor::outline::Outline;
use crate::executor::planned_step::PlannedStep;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::{BuildError, Failure, Outcome};

type Result<T> = std::result::Result<T, Failure>;

/// Maximum number of steps of a stage that wait to be recorded. Each has a thread and a lock file.
const MAX_UNRECORDED: usize = 16;

/// Finds or makes the layer of a COPY or ADD; returns the stack with it on top.
pub(in crate::executor) fn copy<'scope>(
    (state, scope): (&'scope BuildState<'_>, &'scope Scope<'scope, '_>),
    at: PlannedStep<'_>,
    operation: &plan::CopyOperation,
    stack: &Stack,
    active: &ActiveStep,
    form: &dyn Fn() -> Representation,
) -> Result<(Stack, Outcome)> {
    let span = at.step.span;
    // If the definition of a stage or an image is known, its files need not be read.
    let source = state.source_stack(operation)?;
    let by_source = source.as_ref().map(|source| {
        let made_by = source.definition().as_content();
        state.clamped(OperationKey::copy(operation, &made_by)).key().on(stack.definition())
    });
    let is_fresh = stack.is_fresh() || source.as_ref().is_some_and(Stack::is_fresh);
    if let Some(definition) = by_source
        && !is_fresh
        && !state.steps.is_uncached(at.stage)
        && let Some(found) = state.steps.find_by_definition(definition, is_fresh, stack)?
    {
        return Ok((found, Outcome::Cached));
    }
    let look_up = || sources::select(state, operation, span);
    let mut selection = match operation.from {
        // The image may have to be pulled first.
        CopyFrom::Image(_) => active.beside(look_up),
        CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Stage(_) => look_up(),
    }?;
    let selected = selection.digest(state, operation, span)?;
    let key = state.clamped(OperationKey::copy(operation, &selected));
    let mut keys = state.steps.keys(at, active.id, &key, stack);
    keys.definition = by_source.unwrap_or(keys.definition);
    keys.is_fresh = is_fresh;
    let claim = match state.steps.find_or_claim(&keys, stack)? {
        Lookup::Cached(stack) => return Ok((stack, Outcome::Cached)),
        Lookup::Claimed(claim) => claim,
    };
    let started = Instant::now();
    let depends = sources::depends_on_what_is_below(operation);
    let below = match depends {
        true => outline((state, scope), stack, active, span, form)?,
        false => Outline::default(),
    };
    let accounts = sources::accounts_for(state, stack, &below, operation)?;
    let layer = selection.layer(state, operation, below.tree(), &accounts, span)?;
    state.steps.explainer.explain_files(active.id, &layer)?;
    let store = state.services.store;
    let options = state.options.layer_options();
    let written = selection
        .with_contents(state, |open| store.layer_from_entries(&layer, open, form(), &options));
    claim.note_duration(started);
    let written = written.map_err(|error| BuildError::from(error).at(span))?;
    done((state, scope), claim, stack, written)
}

/// Finds or makes the layer of a WORKDIR; returns the stack with it on top.
pub(in crate::executor) fn workdir<'scope>(
    (state, scope): (&'scope BuildState<'_>, &'scope Scope<'scope, '_>),
    at: PlannedStep<'_>,
    operation: &plan::WorkdirOperation,
    stack: &Stack,
    active: &ActiveStep,
    form: &dyn Fn() -> Representation,
) -> Result<(Stack, Outcome)> {
    let key = state.clamped(OperationKey::workdir(operation));
    let keys = state.steps.keys(at, active.id, &key, stack);
    let claim = match state.steps.find_or_claim(&keys, stack)? {
        Lookup::Cached(stack) => return Ok((stack, Outcome::Cached)),
        Lookup::Claimed(claim) => claim,
    };
    let below = outline((state, scope), stack, active, at.step.span, form)?;
    let accounts = match sources::needs_accounts(&operation.user) {
        true => sources::accounts(state, stack, &below)?,
        false => Accounts::default(),
    };
    let layer = super::workdir::layer(
        operation,
        below.tree(),
        &accounts,
        at.step.span,
        state.options.file_time_s(),
    )?;
    let none = |_file: &crate::tree::File, _path: &crate::tree::TreePath| {
        Err(std::io::Error::from(std::io::ErrorKind::NotFound))
    };
    let store = state.services.store;
    let written = store.layer_from_entries(&layer, &none, form(), &state.options.layer_options());
    let written = written.map_err(|error| BuildError::from(error).at(at.step.span))?;
    done((state, scope), claim, stack, written)
}

/// Returns the files below a step whose layer has this form.
fn outline<'scope>(
    (state, scope): (&'scope BuildState<'_>, &'scope Scope<'scope, '_>),
    stack: &Stack,
    active: &ActiveStep,
    span: Span,
    form: &dyn Fn() -> Representation,
) -> Result<Outline> {
    let is_mounted = form() == Representation::Directory;
    active.beside(|| match is_mounted {
        true => state.outline_to_mount(scope, stack, span),
        false => state.outline(stack),
    })
}

/// Puts a new layer on the stack and records the step: later, if a layer below is still hashed, because
/// the record names the contents of all layers.
fn done<'scope>(
    (state, scope): (&'scope BuildState<'_>, &'scope Scope<'scope, '_>),
    claim: Claim,
    stack: &Stack,
    (layer, directory): (StoredLayer, Option<LowerDirectory>),
) -> Result<(Stack, Outcome)> {
    // A mount opens it again: a stage may have more layers than a process may open files.
    drop(directory);
    let next = stack.with_done(claim.keys.definition.as_bytes(), layer.clone());
    state.steps.share(claim.keys.definition, next.clone());
    let below = stack.clone();
    if matches!(below.pending_height(), 1..=MAX_UNRECORDED) {
        pool::start_or_run(scope, move || {
            if let Err(error) = state.steps.record(&claim, &below, &layer) {
                state.fail_late(&error);
            }
        });
    } else {
        state.steps.record(&claim, &below, &layer)?;
    }
    Ok((next, Outcome::Done))
}
