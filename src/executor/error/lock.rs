//! Inputs that differ from the lock file.

use crate::diag::{Diagnostic, Span, codes};
use crate::plan::{LockInput, LockedValue};

/// An input that differs from the lock file.
#[derive(Debug, thiserror::Error)]
pub enum LockViolation {
    /// The lock file has no entry for the input.
    #[error("{file} has no entry for {input}{}", relative.as_ref().map_or(String::new(), |other| format!(", only one for {other}")))]
    Missing {
        /// Name of the lock file.
        file: String,
        /// The input of the build.
        input: LockInput,
        /// An entry that may have been for it before the Dockerfile was changed.
        relative: Option<LockInput>,
    },
    /// The input is not the locked one.
    #[error("{input} is {got}, but {file} has {want}")]
    Differs {
        /// Name of the lock file.
        file: String,
        /// The input of the build.
        input: LockInput,
        /// Value in the lock file.
        want: LockedValue,
        /// Value in this build.
        got: LockedValue,
    },
    /// The locked value is not available any more.
    #[error("{file} has {want} for {input}, which is no longer available{}{}", now.as_ref().map_or(String::new(), |now| format!("; now it is {now}")), asked.as_ref().map_or(String::new(), |asked| format!("; {asked}")))]
    Gone {
        /// Name of the lock file.
        file: String,
        /// The input of the build.
        input: LockInput,
        /// Value in the lock file.
        want: LockedValue,
        /// The current value, if it could be determined.
        now: Option<LockedValue>,
        /// Answers of all servers that were asked, if there are several.
        asked: Option<String>,
    },
}

impl LockViolation {
    /// Returns the command that resolves it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "`rbuild lock`, with the options of the build, adds it",
            Self::Differs { .. } | Self::Gone { .. } => {
                "if the new one is right, accept it with `rbuild lock --update`"
            }
        }
    }

    pub(super) fn diagnostic(&self, span: Span) -> Diagnostic {
        Diagnostic::error(codes::NOT_AS_LOCKED, span, self.to_string()).help(self.help())
    }
}
