//! `rbuild.lock`: which one counts, what it means to a command, and writing it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::executor::{LockRule, LockedInputs};
use crate::pathio::inside::FileInside;
use crate::pathio::output::Output;
use crate::pathio::{Context as _, PathError};
use crate::plan::Lock;

use super::args::BuildArgs;
use super::dockerfile::Place;
use super::report::CliError;
use super::{Exit, lock_text};

/// What a lock file is called when nobody says.
pub(super) const NAME: &str = "rbuild.lock";
/// Longer than any list of inputs.
const MAX_BYTES: u64 = 16 << 20;

type Result<T> = std::result::Result<T, CliError>;

/// What a build takes its inputs for.
#[derive(Debug, Args)]
pub(super) struct LockOptions {
    /// The file that says what images, downloads and git references were
    /// [default: rbuild.lock beside the Dockerfile, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) lockfile: Option<PathBuf>,
    /// Fail if an input from elsewhere is not in the lock file, or not what it says
    #[arg(long)]
    pub(super) locked: bool,
    /// Never use the network: fail if something is not in the store; RUN steps have no network
    #[arg(long, conflicts_with_all = ["pull", "push"])]
    pub(super) offline: bool,
}

impl LockOptions {
    /// What the entries mean to a build.
    pub(super) const fn rule(&self) -> LockRule {
        if self.locked { LockRule::Strict } else { LockRule::Follow }
    }
}

/// It takes the options of the build that is to be locked; what comes out of one does not matter.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    /// Ask again for what is in the lock file already; for all its platforms unless --platform says
    /// for which
    #[arg(long)]
    pub(super) update: bool,
    #[command(flatten)]
    pub(super) build: BuildArgs,
}

/// Where a lock file is that nobody named.
#[derive(Debug, Clone)]
pub(super) enum Beside {
    /// On this machine.
    Here(FileInside),
    /// In a context that was fetched: its text, if it is there. It cannot be written.
    Fetched(Option<String>),
}

/// The lock file that counts.
#[derive(Debug)]
pub(super) struct LockFile {
    /// Where it is written; nowhere if it came with a context that was fetched.
    place: Option<Place>,
    shown: String,
    /// What it said; nothing if it is not there.
    lock: Option<Lock>,
}

impl LockFile {
    /// The one that the command line names, if it does; `context` is the directory of the context.
    pub(super) fn given(options: &LockOptions, context: Option<&Path>) -> Result<Option<Self>> {
        let given = options.lockfile.as_deref();
        given.map(|path| Self::at(Place::of(path, context), path)).transpose()
    }

    /// The one beside the Dockerfile.
    pub(super) fn beside(place: &Beside) -> Result<Self> {
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
    pub(super) fn inputs(&self, rule: LockRule) -> Result<LockedInputs> {
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
    pub(super) const fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// Its name for people.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// After a build that may do so: adds what the build met that was not in it. A build does not
    /// make one where there is none.
    pub(super) fn complete(&self, met: &Lock) -> Result<()> {
        if self.lock.is_some() && self.place.is_some() {
            return self.write(met).map(drop);
        }
        Ok(())
    }

    /// Writes what it said, brought up to date with `met`; gives what it says now.
    pub(super) fn write(&self, met: &Lock) -> Result<Lock> {
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
