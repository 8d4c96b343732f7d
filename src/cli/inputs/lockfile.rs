//! `rbuild.lock`: which one counts, what it means to a command, and writing it.

use std::io::Write as _;
use std::path::Path;

use crate::cli::args::lock::LockOptions;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor::{LockRule, LockedInputs};
use crate::pathio::inside::FileInside;
use crate::pathio::output::Output;
use crate::pathio::{Context as _, PathError};
use crate::plan::Lock;

use super::dockerfile::Place;
use super::lock_text;

/// What a lock file is called when nobody says.
pub(crate) const NAME: &str = "rbuild.lock";
/// Longer than any list of inputs.
const MAX_BYTES: u64 = 16 << 20;

type Result<T> = std::result::Result<T, CliError>;

/// Where a lock file is that nobody named.
#[derive(Debug, Clone)]
pub(crate) enum Beside {
    /// On this machine.
    Here(FileInside),
    /// In a context that was fetched: its text, if it is there. It cannot be written.
    Fetched(Option<String>),
}

/// The lock file that counts.
#[derive(Debug)]
pub(crate) struct LockFile {
    /// Where it is written; nowhere if it came with a context that was fetched.
    place: Option<Place>,
    shown: String,
    /// What it said; nothing if it is not there.
    lock: Option<Lock>,
}

impl LockFile {
    /// The one that the command line names, if it does; `context` is the directory of the context.
    pub(crate) fn given(options: &LockOptions, context: Option<&Path>) -> Result<Option<Self>> {
        let given = options.lockfile.as_deref();
        given.map(|path| Self::at(Place::of(path, context), path)).transpose()
    }

    /// The one beside the Dockerfile.
    pub(crate) fn beside(place: &Beside) -> Result<Self> {
        match place {
            Beside::Here(file) => Self::at(Place::Inside(file.clone()), file.shown()),
            Beside::Fetched(text) => {
                let shown = format!("{NAME} of the context");
                let lock = text.as_deref().map(|text| parse(&shown, text)).transpose()?;
                Ok(Self { place: None, shown, lock })
            }
        }
    }

    fn at(place: Place, path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let lock = match place.read(MAX_BYTES) {
            Ok(bytes) => Some(parse(&shown, &String::from_utf8_lossy(&bytes))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(CliError::from_error(&error, Exit::Usage)),
        };
        Ok(Self { place: Some(place), shown, lock })
    }

    /// What it means to a build under `rule`.
    pub(crate) fn inputs(&self, rule: LockRule) -> Result<LockedInputs> {
        match (&self.lock, rule) {
            (Some(lock), rule) => Ok(LockedInputs::new(self.shown.clone(), rule, lock.clone())),
            (None, LockRule::Complete | LockRule::Renew) => {
                Ok(LockedInputs::new(self.shown.clone(), rule, Lock::default()))
            }
            (None, LockRule::Follow) => Ok(LockedInputs::none()),
            (None, LockRule::Strict) => {
                let text = format!(
                    "error: --locked needs a lock file, and there is no {}; `rbuild lock` writes \
                     it, and takes the options of the build",
                    self.shown
                );
                Err(CliError::new(text, Exit::Usage))
            }
        }
    }

    /// What it says so far.
    pub(crate) const fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// Its name for people.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// After a build that may do so: adds what the build met that was not in it. A build does not
    /// make one where there is none.
    pub(crate) fn complete(&self, met: &Lock) -> Result<()> {
        if self.lock.is_some() && self.place.is_some() {
            return self.write(met).map(drop);
        }
        Ok(())
    }

    /// Writes what it said, brought up to date with `met`; gives what it says now.
    pub(crate) fn write(&self, met: &Lock) -> Result<Lock> {
        let Some(place) = &self.place else {
            let text =
                "error: the context is not on this machine: name a lock file with --lockfile";
            return Err(CliError::new(text, Exit::Usage));
        };
        let mut lock = self.lock.clone().unwrap_or_default();
        lock.extend(met);
        if self.lock.as_ref() == Some(&lock) {
            return Ok(lock);
        }
        replace(place, lock_text::text(&lock).as_bytes())
            .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        Ok(lock)
    }
}

fn replace(place: &Place, text: &[u8]) -> std::result::Result<(), PathError> {
    let (mut output, shown) = match place {
        Place::Inside(file) => (file.replace()?, file.shown()),
        Place::Elsewhere(path) => (Output::create(path)?, path.as_path()),
    };
    output.write_all(text).context("write", shown)?;
    output.finish_synced()
}

fn parse(shown: &str, text: &str) -> Result<Lock> {
    lock_text::parse(text)
        .map_err(|error| CliError::new(format!("error: {shown}: {error}"), Exit::Usage))
}
