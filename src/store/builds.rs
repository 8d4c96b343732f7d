//! What happened in builds: one file each below `builds`, named by when it started and by its id.
//!
//! Such a file only grows, a line for each event, and its writer holds it locked. It is no part of any
//! image: one that was cut short by a crash tells what had happened until then.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::pathio::{self, Context as _, PathError};

use super::{Store, StoreError, guard};

/// So many builds are remembered;
const N_KEPT: usize = 200;
/// and no more than these bytes of them, but for the latest.
const MAX_KEPT_BYTES: u64 = 512 << 20;
const SUFFIX: &str = ".jsonl";

/// What is kept of a build.
#[derive(Debug, Clone)]
pub struct BuildRecord {
    /// Hex digits that no other build of this store has.
    pub id: String,
    /// Seconds since 1970.
    pub started_s: i64,
    /// Of its file.
    pub n_bytes: u64,
    path: PathBuf,
}

impl BuildRecord {
    /// Its events, as `--progress=json` has them.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(&self) -> Result<File, PathError> {
        guard::open_file(&self.path)
    }

    /// Whether a process still writes it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let file = guard::open_file(&self.path);
        file.is_ok_and(|file| {
            flock(file.as_fd(), FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }
}

/// The record of a build that runs; there is no file until something is appended.
#[derive(Debug)]
pub struct BuildJournal {
    directory: PathBuf,
    path: PathBuf,
    file: Option<File>,
    /// How much of the file is whole.
    n_bytes: u64,
}

impl BuildJournal {
    /// Adds lines.
    ///
    /// # Errors
    /// If the file cannot be made or written.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), PathError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        if let Err(error) = file.write_all(lines) {
            // What was written of them would be there twice if they were written again.
            let _as_it_was = file.set_len(self.n_bytes);
            return Err(PathError::new("write", &self.path, error));
        }
        self.n_bytes = self.n_bytes.saturating_add(u64::try_from(lines.len()).unwrap_or(0));
        Ok(())
    }

    /// What was appended so far, from its beginning.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be opened.
    pub fn read_again(&self) -> Result<File, PathError> {
        guard::open_file(&self.path)
    }

    /// Forgets the oldest builds, if there are very many.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn forget_old(&self) -> Result<(), PathError> {
        let mut n_bytes = 0u64;
        for (place, record) in records(&self.directory)?.into_iter().enumerate() {
            n_bytes = n_bytes.saturating_add(record.n_bytes);
            let is_old = place >= N_KEPT || (place > 0 && n_bytes > MAX_KEPT_BYTES);
            if is_old && !record.is_running() {
                remove(&record.path)?;
            }
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<File, PathError> {
    let file = guard::create_journal(path)?;
    // Whoever asks meanwhile whether it is held does not hold it for long.
    flock(file.as_fd(), FlockOperation::LockExclusive)
        .map_err(|error| PathError::new("lock", path, error))?;
    Ok(file)
}

fn remove(path: &Path) -> Result<(), PathError> {
    match pathio::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The latest first.
fn records(directory: &Path) -> Result<Vec<BuildRecord>, PathError> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory).context("list", directory)? {
        let entry = entry.context("list", directory)?;
        // What went meanwhile is not there.
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let parts = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.split_once('-'));
        let Some((started_s, id)) = parts else { continue };
        let Ok(started_s) = started_s.parse() else { continue };
        let (id, n_bytes) = (id.to_owned(), meta.len());
        records.push(BuildRecord { id, started_s, n_bytes, path: entry.path() });
    }
    let time = |record: &BuildRecord| {
        let meta = std::fs::metadata(&record.path);
        meta.and_then(|meta| meta.modified()).ok()
    };
    // Within one second the one that ended last is the last.
    records.sort_by_cached_key(|record| std::cmp::Reverse((record.started_s, time(record))));
    Ok(records)
}

impl Store {
    fn builds_directory(&self) -> PathBuf {
        self.root.join("builds")
    }

    /// The record of a build that starts now.
    #[must_use]
    pub fn new_build_record(&self, started_s: i64, id: &str) -> BuildJournal {
        let directory = self.builds_directory();
        let path = directory.join(format!("{started_s:010}-{id}{SUFFIX}"));
        BuildJournal { directory, path, file: None, n_bytes: 0 }
    }

    /// What is known of builds, the latest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn build_records(&self) -> Result<Vec<BuildRecord>, StoreError> {
        Ok(records(&self.builds_directory())?)
    }

    /// Forgets a build.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn remove_build_record(&self, record: &BuildRecord) -> Result<(), StoreError> {
        Ok(remove(&record.path)?)
    }
}
