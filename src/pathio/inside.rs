//! Files in a directory whose content is untrusted, such as a checkout.
//!
//! Their names resolve with the directory as root (openat2(2), `RESOLVE_IN_ROOT`), as BuildKit
//! resolves the Dockerfile in a context: no symbolic link leads out of it. Only regular files are
//! read, up to a bound. None is opened before its type is known, so a FIFO or a device cannot make
//! rbuild wait.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits;

use super::output::Output;
use super::{Context as _, PathError, read_bounded};

/// A file in a directory that its path cannot leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInside {
    root: PathBuf,
    name: PathBuf,
    shown: PathBuf,
}

impl FileInside {
    /// Names the file `name` in the directory `root`; errors show it as `shown`.
    pub fn new(
        root: impl Into<PathBuf>,
        name: impl Into<PathBuf>,
        shown: impl Into<PathBuf>,
    ) -> Self {
        Self { root: root.into(), name: name.into(), shown: shown.into() }
    }

    /// Names a file beside this one.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Self {
        Self {
            root: self.root.clone(),
            name: self.name.with_file_name(name),
            shown: self.shown.with_file_name(name),
        }
    }

    /// Names the file whose name is this one's with `suffix` at its end.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let longer = |path: &Path| {
            let mut text = path.as_os_str().to_owned();
            text.push(suffix);
            PathBuf::from(text)
        };
        Self { root: self.root.clone(), name: longer(&self.name), shown: longer(&self.shown) }
    }

    /// Returns the path for messages.
    #[must_use]
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Those of [`FileInside::open`]; `FileTooLarge` when it is longer than `max_bytes`.
    pub fn read(&self, max_bytes: u64) -> Result<Vec<u8>, PathError> {
        read_bounded(self.open()?, max_bytes, &self.shown)
    }

    /// Opens the file for reading.
    ///
    /// # Errors
    /// The kernel's, with the path; `IsADirectory` or `InvalidInput` when it is not a regular file,
    /// or a dangling symbolic link.
    pub fn open(&self) -> Result<File, PathError> {
        let root = self.root()?;
        match resolve(&root, &self.name, OFlags::PATH | OFlags::CLOEXEC) {
            Ok(opened) => regular(&opened, &self.shown),
            // Treating a dangling link as a missing file would hide what its author meant.
            Err(Errno::NOENT) if self.is_link(&root) => {
                let inside = self.root.display();
                let text =
                    format!("it is a symbolic link to a path that does not exist inside {inside}");
                let error = io::Error::new(io::ErrorKind::InvalidInput, text);
                Err(PathError::new("open", &self.shown, error))
            }
            Err(error) => Err(PathError::new("open", &self.shown, error)),
        }
    }

    fn is_link(&self, root: &OwnedFd) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        resolve(root, &self.name, flags).is_ok()
    }

    /// Starts a file that will replace this one. A symbolic link stays, and its target inside the
    /// directory is replaced.
    ///
    /// # Errors
    /// The kernel's, with the path; `NotFound` when a link leads to a directory that does not exist
    /// inside.
    pub fn replace(&self) -> Result<Output, PathError> {
        let root = self.root()?;
        let (directory, name) = parent_of(&root, &self.name).context("write", &self.shown)?;
        Output::replace(directory, &name, &self.shown)
    }

    fn root(&self) -> Result<OwnedFd, PathError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        rustix::fs::openat(CWD, root, flags, Mode::empty()).context("open the directory of", root)
    }
}

/// Opens `name` with `root` as the root of every path and link.
fn resolve(root: impl AsFd, name: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..limits::MAX_RESOLVE_RETRIES {
        match rustix::fs::openat2(&root, name, flags, Mode::empty(), inside) {
            // A rename elsewhere while `..` was being resolved (openat2(2)).
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// Returns the directory and the name that `name` refers to below `root`, with its own links
/// resolved.
fn parent_of(root: &OwnedFd, name: &Path) -> rustix::io::Result<(OwnedFd, OsString)> {
    let mut path = name.to_owned();
    for _ in 0..limits::MAX_LINKS_FOLLOWED {
        let last = path.file_name().ok_or(Errno::ISDIR)?.to_owned();
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let at = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
        let directory = resolve(root, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        match rustix::fs::readlinkat(&directory, &last, Vec::new()) {
            // An absolute target replaces the parent.
            Ok(target) => path = parent.join(std::ffi::OsStr::from_bytes(target.to_bytes())),
            Err(Errno::INVAL | Errno::NOENT) => return Ok((directory, last)),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::LOOP)
}

/// Opens the file of an `O_PATH` descriptor for reading, if it is a regular file.
fn regular(opened: &OwnedFd, shown: &Path) -> Result<File, PathError> {
    let stat = rustix::fs::fstat(opened).context("examine", shown)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::RegularFile {
        return reopen(opened).context("open", shown);
    }
    let error = if kind == FileType::Directory { Errno::ISDIR.into() } else { not_regular(kind) };
    Err(PathError::new("read", shown, error))
}

fn reopen(opened: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map(File::from)
}

fn not_regular(kind: FileType) -> io::Error {
    let what = match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::RegularFile | FileType::Unknown => "a special file",
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file"))
}

/// Reads a config file, at most `max_bytes`. It must be a regular file, which symbolic links may
/// lead to; a FIFO, whose reader would wait, is refused.
///
/// # Errors
/// The kernel's, with the path; `InvalidInput` when it is not a regular file, `FileTooLarge` when
/// it is longer than `max_bytes`.
pub fn read_regular(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PathError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty()).context("open", path)?;
    read_bounded(regular(&opened, path)?, max_bytes, path)
}

/// Reads a file that the user named outside of any untrusted directory. It must be a regular file,
/// or a pipe or character device as in `-f <(command)` and `-f /dev/stdin`, which is read to its
/// end. No other file is opened.
///
/// # Errors
/// Those of [`FileInside::read`].
pub fn read_given(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PathError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty()).context("open", path)?;
    let stat = rustix::fs::fstat(&opened).context("examine", path)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_stream = matches!(kind, FileType::Fifo | FileType::CharacterDevice);
    if !is_stream || !path.is_absolute() {
        return read_bounded(regular(&opened, path)?, max_bytes, path);
    }
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let by_number = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let stream = rustix::fs::openat(CWD, by_number, flags, Mode::empty()).context("open", path)?;
    let mut bytes = Vec::new();
    let most = max_bytes.saturating_add(1);
    File::from(stream).take(most).read_to_end(&mut bytes).context("read", path)?;
    super::bounded(bytes, max_bytes, path)
}
