//! What `rbuild.lock` says of the inputs from elsewhere, asked wherever one of them is met; and what
//! they were, for the next lock file.

use std::sync::{Mutex, PoisonError};

use crate::diag::{Diagnostic, Span, codes};
use crate::oci::Platform;
use crate::plan::{Lock, LockInput, LockedValue};

use super::BuildError;

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

/// An input that is not what the lock file says.
#[derive(Debug, thiserror::Error)]
pub enum LockViolation {
    /// There is no entry for it.
    #[error("{file} has no entry for {input}{}", relative.as_ref().map_or(String::new(), |other| format!(", only one for {other}")))]
    Missing {
        /// The lock file.
        file: String,
        /// What was met.
        input: LockInput,
        /// An entry that may have been for it before the Dockerfile was changed.
        relative: Option<LockInput>,
    },
    /// It is something else.
    #[error("{input} is {got}, but {file} has {want}")]
    Differs {
        /// The lock file.
        file: String,
        /// What was met.
        input: LockInput,
        /// What the lock file says.
        want: LockedValue,
        /// What it is.
        got: LockedValue,
    },
    /// What it was can no longer be had.
    #[error("{file} has {want} for {input}, which can no longer be had{}{}", now.as_ref().map_or(String::new(), |now| format!("; now it is {now}")), asked.as_ref().map_or(String::new(), |asked| format!("; {asked}")))]
    Gone {
        /// The lock file.
        file: String,
        /// What was met.
        input: LockInput,
        /// What the lock file says.
        want: LockedValue,
        /// What it is now, if that could be learned.
        now: Option<LockedValue>,
        /// The answers of the places that were asked, if there were several.
        asked: Option<String>,
    },
}

impl LockViolation {
    /// What to do.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "`rbuild lock` adds it; it takes the options of the build",
            Self::Differs { .. } | Self::Gone { .. } => {
                "if the new one is right, `rbuild lock --update` takes it over"
            }
        }
    }

    pub(super) fn diagnostic(&self, span: Span) -> Diagnostic {
        Diagnostic::error(codes::NOT_AS_LOCKED, span, self.to_string()).help(self.help())
    }

    /// The same as an error of the build.
    pub(super) fn at(self, span: Option<Span>) -> BuildError {
        match span {
            Some(span) => self.diagnostic(span).into(),
            None => BuildError::Locked(Box::new(self)),
        }
    }
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
    pub(super) fn file(&self) -> String {
        self.file.clone().unwrap_or_default()
    }

    pub(super) fn is_strict(&self) -> bool {
        self.rule == LockRule::Strict
    }

    /// Whether others are to find the inputs: then what only this store has comes last.
    pub(super) const fn is_for_others(&self) -> bool {
        matches!(self.rule, LockRule::Complete | LockRule::Renew)
    }

    /// What an input has to be; nothing when it is what it is now.
    ///
    /// # Errors
    /// [`LockViolation::Missing`] when there has to be an entry.
    pub(super) fn wanted(
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

    /// Remembers what an input is, if that may be.
    ///
    /// # Errors
    /// [`LockViolation::Differs`] when it has to be something else.
    pub(super) fn meet(
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
    pub(super) fn meet_platforms(&self, platforms: &[Platform]) {
        self.locked().platforms.extend(platforms.iter().cloned());
    }

    /// What can no longer be had.
    pub(super) fn gone(
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
