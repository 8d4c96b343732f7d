//! Records of builds: the events of each in a file below `builds`, named by its start time and id.
//!
//! The file has one line for each event, in the format of `--progress=json`. It is only appended to,
//! and its writer holds it locked. It does not affect any image: after a crash it holds the events
//! until then.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::pathio::{self, Context as _, PathError};

use super::{StoreError, private_files};

/// Maximum number of records that are kept.
const MAX_RECORDS: usize = 200;
/// Maximum size of all records together, bytes; the latest is kept even if it is larger.
const MAX_RECORD_BYTES: u64 = 512 << 20;
const SUFFIX: &str = ".jsonl";

/// The record of a build, finished or not.
#[derive(Debug, Clone)]
pub struct BuildRecord {
    /// Hexadecimal digits that identify the build in this store.
    pub id: String,
    /// Start of the build, seconds since 1970.
    pub started_s: i64,
    /// Size of the file, bytes.
    pub n_bytes: u64,
    path: PathBuf,
}

impl BuildRecord {
    /// Opens the file of the record, to read its events.
    ///
    /// # Errors
    /// [`PathError`] if the file cannot be opened.
    pub fn open(&self) -> Result<File, PathError> {
        private_files::open_file(&self.path)
    }

    /// Returns whether a process is still writing it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let file = private_files::open_file(&self.path);
        file.is_ok_and(|file| {
            flock(file.as_fd(), FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }
}

/// Writes the record of a running build. The file is created when something is appended.
#[derive(Debug)]
pub struct BuildRecordWriter {
    directory: PathBuf,
    path: PathBuf,
    file: Option<File>,
    /// Length of the complete lines, bytes.
    n_bytes: u64,
}

impl BuildRecordWriter {
    /// Appends complete lines.
    ///
    /// # Errors
    /// [`PathError`] if the file cannot be created or written; the lines are then not in it.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), PathError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        if let Err(error) = file.write_all(lines) {
            // The caller tries again: a partial write would then be there twice.
            let _truncated = file.set_len(self.n_bytes);
            return Err(PathError::new("write", &self.path, error));
        }
        self.n_bytes = self.n_bytes.saturating_add(u64::try_from(lines.len()).unwrap_or(0));
        Ok(())
    }

    /// Opens the file, to read the lines that were appended so far.
    ///
    /// # Errors
    /// [`PathError`] if nothing was appended, or the file cannot be opened.
    pub fn open(&self) -> Result<File, PathError> {
        private_files::open_file(&self.path)
    }

    /// Removes the oldest records if there are too many.
    ///
    /// # Errors
    /// [`PathError`] if the directory cannot be read, or a file not be removed.
    pub fn remove_old(&self) -> Result<(), PathError> {
        let mut n_bytes = 0u64;
        for (at, record) in latest_first(&self.directory)?.into_iter().enumerate() {
            n_bytes = n_bytes.saturating_add(record.n_bytes);
            let is_old = at >= MAX_RECORDS || (at > 0 && n_bytes > MAX_RECORD_BYTES);
            if is_old && !record.is_running() {
                remove(&record.path)?;
            }
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<File, PathError> {
    let file = private_files::create_append_only(path)?;
    // `BuildRecord::is_running` of another process may hold it for a moment.
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

fn latest_first(directory: &Path) -> Result<Vec<BuildRecord>, PathError> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory).context("list", directory)? {
        let entry = entry.context("list", directory)?;
        // Another process may have removed it since it was listed.
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
    // Of several builds that started in one second, the one that ended last counts as the latest.
    records.sort_by_cached_key(|record| std::cmp::Reverse((record.started_s, time(record))));
    Ok(records)
}

/// The build records of a store.
#[derive(Debug, Clone)]
pub struct BuildRecords {
    directory: PathBuf,
}

impl BuildRecords {
    /// Returns the records of the store at `root`.
    pub(super) fn of_store(root: &Path) -> Self {
        Self { directory: root.join("builds") }
    }

    /// Returns a writer for the record of a build that starts now.
    #[must_use]
    pub fn start(&self, started_s: i64, id: &str) -> BuildRecordWriter {
        let directory = self.directory.clone();
        let path = directory.join(format!("{started_s:010}-{id}{SUFFIX}"));
        BuildRecordWriter { directory, path, file: None, n_bytes: 0 }
    }

    /// Returns all records, latest build first.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory cannot be read.
    pub fn latest_first(&self) -> Result<Vec<BuildRecord>, StoreError> {
        Ok(latest_first(&self.directory)?)
    }

    /// Removes a record.
    ///
    /// # Errors
    /// [`StoreError::Io`] if its file cannot be removed.
    pub fn remove(&self, record: &BuildRecord) -> Result<(), StoreError> {
        Ok(remove(&record.path)?)
    }
}
