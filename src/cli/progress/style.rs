//! `--progress`: what is asked for, and what there can be.

use crate::cli::args::progress::Progress;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

impl Progress {
    /// Whether it can be had here.
    ///
    /// # Errors
    /// When it needs a terminal and there is none, as for docker.
    pub(crate) fn check(self, environment: &Environment) -> Result<(), CliError> {
        if self == Self::Tty && !environment.is_terminal {
            let text = "error: --progress=tty: standard error is no terminal; leave it away, or \
                        take --progress=plain";
            return Err(CliError::new(text, Exit::Usage));
        }
        Ok(())
    }

    /// Whether lines are written over.
    pub(super) fn is_live(self, environment: &Environment) -> bool {
        match self {
            Self::Tty => environment.is_terminal,
            Self::Auto => {
                let has_groups = environment.ci_system().is_some();
                environment.is_terminal && !environment.is_dumb && !has_groups
            }
            Self::Plain | Self::Json | Self::Quiet => false,
        }
    }
}
