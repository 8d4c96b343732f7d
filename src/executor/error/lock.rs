//! Inputs that differ from the lock file.

use crate::diag::{Diagnostic, Span, codes};
use crate::plan::{LockInput, LockedValue};

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
}
