//! Checks `--progress` against what standard error is.

use crate::cli::args::progress::Progress;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

impl Progress {
    /// Checks that the display is possible here.
    ///
    /// # Errors
    /// If it needs a terminal and standard error is not one, as for docker.
    pub(crate) fn check(self, environment: &Environment) -> Result<(), CliError> {
        if self == Self::Tty && !environment.is_terminal {
            let text = "error: --progress=tty: standard error is not a terminal; leave it out, or \
                        use --progress=plain";
            return Err(CliError::new(text, Exit::Usage));
        }
        Ok(())
    }

    /// Returns whether the display is the live view.
    pub(super) fn is_live(self, environment: &Environment) -> bool {
        match self {
            Self::Tty => environment.is_terminal,
            Self::Auto => {
                let has_groups = environment.ci_system().is_some();
                environment.is_terminal && !environment.is_dumb && !has_groups
            }
            Self::Plain | Self::Json | Self::RawJson | Self::Quiet | Self::None => false,
        }
    }
}
