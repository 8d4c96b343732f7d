//! What `rbuild.lock` says of the inputs from elsewhere, asked wherever one of them is met; and what
//! they were, for the next lock file.

use std::sync::{Mutex, PoisonError};

use crate::oci::Platform;
use crate::plan::{Lock, LockInput, LockedValue};

use crate::executor::LockViolation;

/// What a lock file's entries mean to a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockRule {
    /// An input is what its entry says; what has no entry gets one.
    Follow,
    /// The same, and what has no entry, or is something else, ends the build.
    Strict,
    /// As [`Self::Follow`], to write a lock file: registries are asked before the store is.
    Complete,
    /// Inputs are what they are now; to write a lock file.
    Renew,
}

/// A lock file in use.
#[derive(Debug)]
pub struct LockedInputs {
    /// The file for people; nothing when there is none.
    file: Option<String>,
    rule: LockRule,
    lock: Lock,
    /// The inputs that were met, and what they were.
    met: Mutex<Lock>,
}

impl LockedInputs {
    /// A build without a lock file.
    #[must_use]
    pub fn none() -> Self {
        Self::of(None, LockRule::Follow, Lock::default())
    }

    /// The entries of `file` under `rule`.
    #[must_use]
    pub fn new(file: String, rule: LockRule, lock: Lock) -> Self {
        Self::of(Some(file), rule, lock)
    }

    fn of(file: Option<String>, rule: LockRule, lock: Lock) -> Self {
        Self { file, rule, lock, met: Mutex::default() }
    }

    /// The inputs that were met so far, and what they were.
    #[must_use]
    pub fn met(&self) -> Lock {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Lock> {
        // Each use is one call on the value: a panic elsewhere leaves it whole.
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock file for people.
    pub(in crate::executor) fn file(&self) -> String {
        self.file.clone().unwrap_or_default()
    }

    pub(in crate::executor) fn is_strict(&self) -> bool {
        self.rule == LockRule::Strict
    }

    /// Whether others are to find the inputs: then what only this store has comes last.
    pub(in crate::executor) const fn is_for_others(&self) -> bool {
        matches!(self.rule, LockRule::Complete | LockRule::Renew)
    }

    /// What an input has to be; nothing when it is what it is now.
    ///
    /// # Errors
    /// [`LockViolation::Missing`] when there has to be an entry.
    pub(in crate::executor) fn wanted(
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
            let relative = self.lock.relative_of(input).cloned();
            return Err(Box::new(LockViolation::Missing {
                file: self.file(),
                input: input.clone(),
                relative,
            }));
        }
        Ok(value)
    }

    /// Remembers what an input is, if that may be.
    ///
    /// # Errors
    /// [`LockViolation::Differs`] when it has to be something else.
    pub(in crate::executor) fn meet(
        &self,
        input: LockInput,
        got: LockedValue,
    ) -> Result<(), Box<LockViolation>> {
        if let Some(want) = self.wanted(&input)?
            && self.is_strict()
            && want != got
        {
            return Err(Box::new(LockViolation::Differs { file: self.file(), input, want, got }));
        }
        self.locked().set(input, got);
        Ok(())
    }

    /// Remembers what the build is for.
    pub(in crate::executor) fn meet_platforms(&self, platforms: &[Platform]) {
        self.locked().platforms.extend(platforms.iter().cloned());
    }

    /// What can no longer be had.
    pub(in crate::executor) fn gone(
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
