//! File system calls whose errors carry the operation and the path. Every module that does IO uses
//! it.
//!
//! It knows nothing of images or Dockerfiles, and never decides whether an error matters.
#![expect(clippy::disallowed_methods, reason = "this module wraps these calls")]

mod drafts;
pub mod holes;
pub mod ids;
pub mod inside;
pub mod interrupt;
pub mod output;
pub mod program;
mod tree_removal;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A file-system call that failed: what was attempted, on which path, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct PathError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl PathError {
    /// Describes the error `source` of doing `verb` (as in "cannot *open* /x") to `path`.
    pub fn new(verb: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self { verb, path: path.into(), source: source.into() }
    }

    /// Returns the kind of the underlying error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Returns the path that the call named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Adds verb and path to the error of a call.
pub trait Context<T> {
    /// Turns an error into a [`PathError`] about doing `verb` to `path`.
    ///
    /// # Errors
    /// The error in `self`, with verb and path.
    fn context(self, verb: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, verb: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError::new(verb, path, source))
    }
}

/// Opens `path` for reading (open(2)).
///
/// # Errors
/// The kernel's, with the path.
pub fn open(path: &Path) -> Result<File, PathError> {
    File::open(path).context("open", path)
}

/// Creates or truncates `path`, which must be in a directory of rbuild's own. Files that the user
/// named are written with [`output`].
///
/// # Errors
/// The kernel's, with the path.
pub fn create(path: &Path) -> Result<File, PathError> {
    File::create(path).context("create", path)
}

/// Reads the whole of `path`, at most `max_bytes`.
///
/// # Errors
/// The kernel's, with the path; `FileTooLarge` when the file is longer than `max_bytes`.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PathError> {
    read_bounded(open(path)?, max_bytes, path)
}

/// Reads the whole of an open file, at most `max_bytes`.
///
/// # Errors
/// The kernel's, with the path; `FileTooLarge` when there is more.
pub fn read_bounded(file: File, max_bytes: u64, shown: &Path) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).context("read", shown)?;
    bounded(bytes, max_bytes, shown)
}

/// Reads the first bytes of `path`, at most `max_bytes`; the rest of a longer file is left out.
///
/// # Errors
/// The kernel's, with the path.
pub fn read_start(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::new();
    open(path)?.take(max_bytes).read_to_end(&mut bytes).context("read", path)?;
    Ok(bytes)
}

/// Returns the bytes unless they are more than `max_bytes`.
///
/// # Errors
/// `FileTooLarge`, with the path.
pub fn bounded(bytes: Vec<u8>, max_bytes: u64, shown: &Path) -> Result<Vec<u8>, PathError> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        let too_large = io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than the limit of {max_bytes} bytes"),
        );
        return Err(PathError::new("read", shown, too_large));
    }
    Ok(bytes)
}

/// Reads the whole of `path` as UTF-8, at most `max_bytes`.
///
/// # Errors
/// Those of [`read`]; `InvalidData` when it is not UTF-8.
pub fn read_to_string(path: &Path, max_bytes: u64) -> Result<String, PathError> {
    let bytes = read(path, max_bytes)?;
    String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        .context("read", path)
}

/// Writes `bytes` to `path`, which must be in a directory of rbuild's own, replacing an existing
/// file. Files that the user named are written with [`output`].
///
/// # Errors
/// The kernel's, with the path.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    fs::write(path, bytes).context("write", path)
}

/// Creates the directory `path` and its missing parents.
///
/// # Errors
/// The kernel's, with the path.
pub fn create_dir_all(path: &Path) -> Result<(), PathError> {
    fs::create_dir_all(path).context("create directory", path)
}

/// Renames `from` to `to` (rename(2)); the error names `to`.
///
/// # Errors
/// The kernel's, with the path.
pub fn rename(from: &Path, to: &Path) -> Result<(), PathError> {
    fs::rename(from, to).context("rename a file to", to)
}

/// Removes the file `path`, if it exists.
///
/// # Errors
/// The kernel's, with the path.
pub fn remove_file(path: &Path) -> Result<(), PathError> {
    absent_is_fine(fs::remove_file(path)).context("remove", path)
}

/// Removes the directory `path` and its contents, if it exists.
///
/// # Errors
/// The kernel's, with the path.
pub fn remove_dir_all(path: &Path) -> Result<(), PathError> {
    absent_is_fine(fs::remove_dir_all(path)).context("remove directory", path)
}

/// Removes the directory `path` and its contents, if it exists, whatever depth and modes its
/// directories have. Only for directories that no other process changes.
///
/// # Errors
/// The kernel's, with the path.
pub fn remove_tree(path: &Path) -> Result<(), PathError> {
    absent_is_fine(tree_removal::remove(path)).context("remove directory", path)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
