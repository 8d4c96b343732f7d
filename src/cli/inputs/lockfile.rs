//! `rbuild.lock`: finding, reading and writing it.

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

use super::dockerfile::FileLocation;
use super::lock_text;

/// Default name of the lock file.
pub(crate) const NAME: &str = "rbuild.lock";
/// Maximum length of a lock file.
const MAX_BYTES: u64 = 16 << 20;

type Result<T> = std::result::Result<T, CliError>;

/// The lock file beside the Dockerfile, used without `--lockfile`.
#[derive(Debug, Clone)]
pub(crate) enum DefaultLockFile {
    /// A path on this machine.
    Here(FileInside),
    /// Its text in a fetched context, if it exists there. It cannot be written.
    Fetched(Option<String>),
}

/// The lock file of a command.
#[derive(Debug)]
pub(crate) struct LockFile {
    /// Location to write to; `None` in a fetched context.
    place: Option<FileLocation>,
    /// Name that messages show.
    shown: String,
    /// Its content, if it exists.
    lock: Option<Lock>,
}

impl LockFile {
    /// Reads the file of `--lockfile`, if that is given; `context` is the directory of the context.
    pub(crate) fn given(options: &LockOptions, context: Option<&Path>) -> Result<Option<Self>> {
        let given = options.lockfile.as_deref();
        given.map(|path| Self::at(FileLocation::of(path, context), path)).transpose()
    }

    /// Reads the file beside the Dockerfile.
    pub(crate) fn beside(place: &DefaultLockFile) -> Result<Self> {
        match place {
            DefaultLockFile::Here(file) => {
                Self::at(FileLocation::Inside(file.clone()), file.shown())
            }
            DefaultLockFile::Fetched(text) => {
                let shown = format!("{NAME} of the context");
                let lock = text.as_deref().map(|text| parse(&shown, text)).transpose()?;
                Ok(Self { place: None, shown, lock })
            }
        }
    }

    fn at(place: FileLocation, path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let lock = match place.read(MAX_BYTES) {
            Ok(bytes) => Some(parse(&shown, &String::from_utf8_lossy(&bytes))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(CliError::from_error(&error, Exit::Usage)),
        };
        Ok(Self { place: Some(place), shown, lock })
    }

    /// Returns the pinned inputs for a build under `rule`.
    pub(crate) fn inputs(&self, rule: LockRule) -> Result<LockedInputs> {
        match (&self.lock, rule) {
            (Some(lock), rule) => Ok(LockedInputs::new(self.shown.clone(), rule, lock.clone())),
            (None, LockRule::Complete | LockRule::Renew) => {
                Ok(LockedInputs::new(self.shown.clone(), rule, Lock::default()))
            }
            (None, LockRule::Follow) => Ok(LockedInputs::none()),
            (None, LockRule::Strict) => {
                let text = format!(
                    "error: --locked needs a lock file, and {} does not exist: create it with \
                     `rbuild lock` and the options of the build",
                    self.shown
                );
                Err(CliError::new(text, Exit::Usage))
            }
        }
    }

    /// Returns the content, if the file exists.
    pub(crate) const fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// Returns the name for people.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Adds the inputs of a build that were missing. A build does not create a lock file.
    pub(crate) fn complete(&self, used: &Lock) -> Result<()> {
        if self.lock.is_some() && self.place.is_some() {
            return self.write(used).map(drop);
        }
        Ok(())
    }

    /// Writes the file with the entries of `used` added or replaced. Returns the new content.
    pub(crate) fn write(&self, used: &Lock) -> Result<Lock> {
        let Some(place) = &self.place else {
            let text =
                "error: the context is not on this machine: give a lock file with --lockfile";
            return Err(CliError::new(text, Exit::Usage));
        };
        let mut lock = self.lock.clone().unwrap_or_default();
        lock.extend(used);
        if self.lock.as_ref() == Some(&lock) {
            return Ok(lock);
        }
        replace(place, lock_text::text(&lock).as_bytes())
            .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        Ok(lock)
    }
}

fn replace(place: &FileLocation, text: &[u8]) -> std::result::Result<(), PathError> {
    let (mut output, shown) = match place {
        FileLocation::Inside(file) => (file.replace()?, file.shown()),
        FileLocation::Elsewhere(path) => (Output::create(path)?, path.as_path()),
    };
    output.write_all(text).context("write", shown)?;
    output.finish_synced()
}

fn parse(shown: &str, text: &str) -> Result<Lock> {
    lock_text::parse(text)
        .map_err(|error| CliError::new(format!("error: {shown}: {error}"), Exit::Usage))
}
