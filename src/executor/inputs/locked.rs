//! The lock file in a build: what `rbuild.lock` requires of inputs from outside, and what they
//! were, for the next lock file.

use std::sync::Mutex;

use crate::oci::Platform;
use crate::plan::{Lock, LockInput, LockedValue};
use crate::pool;

use crate::executor::LockViolation;

/// The effect of a lock file's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockRule {
    /// Inputs are those of the lock file. An input without an entry gets one.
    Follow,
    /// As [`Self::Follow`], but an input that differs or has no entry ends the build.
    Strict,
    /// As [`Self::Follow`], to write a lock file: registries are asked before the store is.
    Complete,
    /// Entries are ignored, to write a new lock file with current inputs.
    Renew,
}

/// A lock file in use.
#[derive(Debug)]
pub struct LockedInputs {
    /// Name of the file; `None` without one.
    file: Option<String>,
    rule: LockRule,
    lock: Lock,
    /// The inputs that were used so far, with their values.
    used: Mutex<Lock>,
}

impl LockedInputs {
    /// Returns the inputs of a build without a lock file.
    #[must_use]
    pub fn none() -> Self {
        Self::of(None, LockRule::Follow, Lock::default())
    }

    /// Returns the entries of `file` under `rule`.
    #[must_use]
    pub fn new(file: String, rule: LockRule, lock: Lock) -> Self {
        Self::of(Some(file), rule, lock)
    }

    fn of(file: Option<String>, rule: LockRule, lock: Lock) -> Self {
        Self { file, rule, lock, used: Mutex::default() }
    }

    /// Returns the inputs that were used so far, with their values.
    #[must_use]
    pub fn used(&self) -> Lock {
        self.lock_used().clone()
    }

    fn lock_used(&self) -> std::sync::MutexGuard<'_, Lock> {
        // Each use is one call on the value: a panic elsewhere leaves it whole.
        pool::lock(&self.used)
    }

    /// Returns the name of the lock file for messages.
    pub(in crate::executor) fn file(&self) -> String {
        self.file.clone().unwrap_or_default()
    }

    pub(in crate::executor) fn is_strict(&self) -> bool {
        self.rule == LockRule::Strict
    }

    /// Returns whether the lock file is written for other machines: then images of this store alone
    /// come last.
    pub(in crate::executor) const fn is_for_others(&self) -> bool {
        matches!(self.rule, LockRule::Complete | LockRule::Renew)
    }

    /// Returns the required value of an input; `None` if the current one is used.
    ///
    /// # Errors
    /// [`LockViolation::Missing`] if the rule demands an entry.
    pub(in crate::executor) fn required(
        &self,
        input: &LockInput,
    ) -> Result<Option<LockedValue>, Box<LockViolation>> {
        if self.rule == LockRule::Renew {
            return Ok(None);
        }
        let digest = self.lock.digest(input).map(LockedValue::Digest);
        let commit = || self.lock.commit(input).map(|name| LockedValue::Commit(name.to_owned()));
        let value = digest.or_else(commit);
        if value.is_none() && self.is_strict() {
            let relative = self.lock.other_version_of(input).cloned();
            return Err(Box::new(LockViolation::Missing {
                file: self.file(),
                input: input.clone(),
                relative,
            }));
        }
        Ok(value)
    }

    /// Records the value of an input.
    ///
    /// # Errors
    /// [`LockViolation::Differs`] if the rule demands another value.
    pub(in crate::executor) fn record(
        &self,
        input: LockInput,
        got: LockedValue,
    ) -> Result<(), Box<LockViolation>> {
        if let Some(want) = self.required(&input)?
            && self.is_strict()
            && want != got
        {
            return Err(Box::new(LockViolation::Differs { file: self.file(), input, want, got }));
        }
        self.lock_used().set(input, got);
        Ok(())
    }

    /// Records the platforms of the build.
    pub(in crate::executor) fn record_platforms(&self, platforms: &[Platform]) {
        self.lock_used().platforms.extend(platforms.iter().cloned());
    }

    /// Returns the error of a locked value that is not available any more.
    pub(in crate::executor) fn gone_error(
        &self,
        input: LockInput,
        want: LockedValue,
        now: Option<LockedValue>,
        answers: &[String],
    ) -> LockViolation {
        let asked = (!answers.is_empty()).then(|| answers.join("; "));
        LockViolation::Gone { file: self.file(), input, want, now, asked }
    }
}
