//! Steps that run no command: COPY, ADD and WORKDIR.

use std::time::Instant;

use crate::plan::{self, CopyFrom, OperationKey};
use crate::store::{LowerDirectory, StoredLayer};
use crate::tree::Tree;

use super::driver::{At, Run};
use super::lookup::{Claim, Found};
use super::shared::StepRun;
use super::stack::Stack;
use super::{BuildError, Failure, Outcome, copy, workdir};

type Result<T> = std::result::Result<T, Failure>;

impl Run<'_> {
    pub(super) fn copy_step(
        &self,
        at: At<'_>,
        operation: &plan::CopyOperation,
        stack: &Stack,
        shown: &StepRun,
    ) -> Result<(Stack, Outcome)> {
        let span = at.step.span;
        // What stages and images hold need not be looked at when what made them is known.
        let source = self.source_stack(operation)?;
        let by_source = source.as_ref().map(|source| {
            let made_by = source.definition().as_content();
            self.key(OperationKey::copy(operation, &made_by)).key().on(stack.definition())
        });
        let is_fresh = stack.is_fresh() || source.as_ref().is_some_and(Stack::is_fresh);
        if let Some(definition) = by_source
            && !is_fresh
            && let Some(found) = self.find_by_definition(definition, is_fresh, stack)?
        {
            return Ok((found, Outcome::Cached));
        }
        let sources = || copy::sources(self, operation, span);
        let mut sources = match operation.from {
            // An image that has to be pulled first.
            CopyFrom::Image(_) => shown.beside(sources),
            CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Stage(_) => sources(),
        }?;
        let selected = sources.digest(self, operation, span)?;
        let key = self.key(OperationKey::copy(operation, &selected));
        let mut wanted = self.wanted(at, shown.id, &key, stack);
        wanted.definition = by_source.unwrap_or(wanted.definition);
        wanted.is_fresh = is_fresh;
        let claim = match self.find_or_claim(&wanted, stack)? {
            Found::Made(stack) => return Ok((stack, Outcome::Cached)),
            Found::Claimed(claim) => claim,
        };
        let started = Instant::now();
        let depends = copy::depends_on_what_is_below(operation);
        let below = if depends { shown.beside(|| self.tree(stack))? } else { Tree::default() };
        let accounts = copy::accounts_for(self, &below, operation)?;
        let layer = sources.layer(self, operation, &below, &accounts, span)?;
        self.explain_files(shown.id, &layer)?;
        let store = self.services.store;
        let (form, options) = (self.form(at), self.layer_options());
        let written = sources
            .with_contents(self, |open| store.layer_from_entries(&layer, open, form, &options));
        claim.note_duration(started);
        self.done(&claim, stack, written.map_err(|error| BuildError::from(error).at(span))?)
    }

    pub(super) fn workdir_step(
        &self,
        at: At<'_>,
        operation: &plan::WorkdirOperation,
        stack: &Stack,
        shown: &StepRun,
    ) -> Result<(Stack, Outcome)> {
        let key = self.key(OperationKey::workdir(operation));
        let wanted = self.wanted(at, shown.id, &key, stack);
        let claim = match self.find_or_claim(&wanted, stack)? {
            Found::Made(stack) => return Ok((stack, Outcome::Cached)),
            Found::Claimed(claim) => claim,
        };
        let below = shown.beside(|| self.tree(stack))?;
        let accounts = copy::accounts(self, &below)?;
        let layer = workdir::layer(operation, &below, &accounts, at.step.span, self.file_time_s())?;
        let none = |_file: &crate::tree::File, _path: &crate::tree::TreePath| {
            Err(std::io::Error::from(std::io::ErrorKind::NotFound))
        };
        let store = self.services.store;
        let written = store.layer_from_entries(&layer, &none, self.form(at), &self.layer_options());
        let written = written.map_err(|error| BuildError::from(error).at(at.step.span))?;
        self.done(&claim, stack, written)
    }

    fn done(
        &self,
        claim: &Claim,
        stack: &Stack,
        (layer, directory): (StoredLayer, Option<LowerDirectory>),
    ) -> Result<(Stack, Outcome)> {
        // It is opened again for a mount: a stage may have more layers than a process may open files.
        drop(directory);
        let next = stack.with_done(claim.wanted.definition.as_bytes(), layer.clone());
        self.made().insert(claim.wanted.definition, next.clone());
        self.remember(claim, stack, &layer)?;
        Ok((next, Outcome::Done))
    }
}
