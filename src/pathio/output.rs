//! Output files: the only way in which rbuild writes a file that the user named.
//!
//! The parent directory is opened once, the draft gets a random name in it with `O_EXCL`, and a
//! rename moves it into place. So a reader never sees half a file, and a symbolic link that another
//! user planted under the name is replaced, never written through. The draft is locked while it is
//! written: an unlocked one was left by a killed process, and the next write in that directory
//! removes it. Files that cannot be replaced are written to directly: a FIFO, a device, and the
//! caller's own descriptors below `/dev` and `/proc`, as in `--iidfile /dev/stdout` or `-o
//! dest=>(command)`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::limits;

use super::{Context as _, PathError, drafts, interrupt};

/// The file system type of procfs, `f_type` (statfs(2)).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// The permission bits that let users other than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// The mode of a new directory, before the umask (umask(2)).
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o777);
/// Flags to open a directory for calls relative to it.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The interval for checking a FIFO without a reader, or with a full buffer. Between checks the
/// process can be asked to end.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// An output file being written.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// `None` if the file is written to directly.
    draft: Option<Draft>,
    shown: PathBuf,
}

/// A file that does not have its final name yet; removed when dropped before.
#[derive(Debug)]
struct Draft {
    directory: OwnedFd,
    draft: OsString,
    name: OsString,
    renamed: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.renamed {
            let _gone = rustix::fs::unlinkat(&self.directory, &self.draft, AtFlags::empty());
        }
    }
}

impl Output {
    /// Starts the file at `path`. A regular file keeps its permission bits; a symbolic link is
    /// replaced.
    ///
    /// # Errors
    /// The kernel's, with the path; `ELOOP` if the path to the file passes through a symbolic link
    /// that another user could have made.
    pub fn create(path: &Path) -> Result<Self, PathError> {
        let name = path.file_name().ok_or(Errno::ISDIR).context("write", path)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let directory = open_directory(parent).context("open the directory of", path)?;
        let is_special = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => false,
            Err(error) => return Err(PathError::new("write", path, error)),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => return Err(PathError::new("write", path, Errno::ISDIR)),
                FileType::RegularFile => false,
                FileType::Symlink => holds_descriptors(&directory).context("write", path)?,
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => true,
            },
        };
        if !is_special {
            return Self::replace(directory, name, path);
        }
        if let Some(file) = standard_stream(path).context("open", path)? {
            return Ok(Self { file, draft: None, shown: path.to_owned() });
        }
        let file = open_special(&directory, name).context("open", path)?;
        Ok(Self { file, draft: None, shown: path.to_owned() })
    }

    /// Starts a file that will replace the file `name` in `directory`.
    ///
    /// # Errors
    /// The kernel's, with `shown` as the path.
    pub fn replace(directory: OwnedFd, name: &OsStr, shown: &Path) -> Result<Self, PathError> {
        drafts::sweep(&directory);
        let (draft, file) = drafts::create(&directory).context("create a file beside", shown)?;
        let old = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let draft = Draft { directory, draft, name: name.to_owned(), renamed: false };
        if let Some(old) = old.filter(is_own_file) {
            let mode = Mode::from_raw_mode(old.st_mode & 0o777);
            rustix::fs::fchmod(&file, mode).context("change the mode of a file beside", shown)?;
        }
        Ok(Self { file, draft: Some(draft), shown: shown.to_owned() })
    }

    /// Returns the open file, to change its owner and mode.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Renames the draft to the final name (rename(2)).
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn finish(mut self) -> Result<(), PathError> {
        let Some(draft) = &mut self.draft else { return Ok(()) };
        let Draft { directory, draft: from, name, renamed } = draft;
        rustix::fs::renameat(&*directory, &*from, &*directory, &*name)
            .context("rename a file to", &self.shown)?;
        *renamed = true;
        Ok(())
    }

    /// Renames the draft to the final name once its content is on the disk (fsync(2)).
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn finish_synced(self) -> Result<(), PathError> {
        if self.draft.is_some() {
            self.file.sync_all().context("write", &self.shown)?;
        }
        self.finish()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                // Only files that are written to directly are opened non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    interrupt::check()?;
                    let mut reader = [PollFd::new(&self.file, PollFlags::OUT)];
                    let pause = Timespec::try_from(RETRY_INTERVAL).ok();
                    rustix::io::retry_on_intr(|| poll(&mut reader, pause.as_ref()))?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a file that cannot be replaced. Waits for a FIFO's reader, like open(2) without
/// `O_NONBLOCK` (fifo(7)), but not after the process was asked to end.
fn open_special(directory: &OwnedFd, name: &OsStr) -> io::Result<File> {
    // Append: the caller's own descriptor may refer to a file that is not empty.
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            // For a socket or a missing device, `ENXIO` does not mean that no process reads yet.
            Err(Errno::NXIO) if is_fifo(directory, name) => {
                interrupt::check()?;
                std::thread::sleep(RETRY_INTERVAL);
            }
            opened => return Ok(opened?.into()),
        }
    }
}

fn is_fifo(directory: &OwnedFd, name: &OsStr) -> bool {
    let found = rustix::fs::statat(directory, name, AtFlags::empty());
    found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Duplicates the standard stream that the path names. If it were opened by path, a regular file
/// behind it would be written from another offset than the stream's.
fn standard_stream(path: &Path) -> io::Result<Option<File>> {
    let stream = match path.to_str() {
        Some("/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => rustix::stdio::stdout(),
        Some("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => rustix::stdio::stderr(),
        Some(_) | None => return Ok(None),
    };
    Ok(Some(stream.try_clone_to_owned()?.into()))
}

/// Writes a complete output file.
///
/// # Errors
/// Those of [`Output::create`].
pub fn write_output(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let mut output = Output::create(path)?;
    output.write_all(bytes).context("write", path)?;
    output.finish()
}

/// Opens a directory component by component. Follows a symbolic link on the way unless another user
/// could have made it, like the kernel's `fs.protected_symlinks` (proc_sys_fs(5)), but in any
/// directory that others can write to and not only in sticky ones.
///
/// # Errors
/// The kernel's; `ELOOP` for such a link.
pub fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let start = if path.is_absolute() { Path::new("/") } else { Path::new(".") };
    Walk { at: open_start(start)?, follows: true, creates: false }.to(path)
}

/// Opens the directory that a tree of files is written into, and creates it and its missing
/// parents. Below the current directory no symbolic link is followed: in a checkout, a link would
/// let the checkout's author choose where a whole file tree is written.
///
/// # Errors
/// The kernel's, with the path; `InvalidInput` for such a link.
pub fn open_tree(path: &Path) -> Result<OwnedFd, PathError> {
    let here = std::path::absolute(".").context("find", Path::new("."))?;
    let absolute = std::path::absolute(path).context("find", path)?;
    // The root directory is not a checkout: absolute paths are not restricted to it.
    let is_below = path.is_relative() || here != Path::new("/");
    let (start, rest, follows) = match absolute.strip_prefix(&here) {
        Ok(rest) if is_below => (here.as_path(), rest, false),
        Ok(_) | Err(_) => (Path::new("/"), absolute.as_path(), true),
    };
    let opened = open_start(start).and_then(|at| Walk { at, follows, creates: true }.to(rest));
    match opened {
        Err(Errno::LOOP) => {
            let text = "a symbolic link is on its path: give the directory that it leads to";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            Err(PathError::new("write into", path, error))
        }
        opened => opened.context("open directory", path),
    }
}

/// Opens a directory inside an open one, and creates it if it is missing; refuses a symbolic link.
///
/// # Errors
/// The kernel's, with `shown` as the path.
pub fn open_subdirectory(at: &OwnedFd, name: &str, shown: &Path) -> Result<OwnedFd, PathError> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    match rustix::fs::mkdirat(at, name, NEW_DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(PathError::new("create directory", shown, error)),
    }
    rustix::fs::openat(at, name, flags, Mode::empty()).context("open directory", shown)
}

fn open_start(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
}

/// The state of a walk along a path.
struct Walk {
    at: OwnedFd,
    /// True to follow links that only the caller or root can have made.
    follows: bool,
    /// True to create missing directories.
    creates: bool,
}

impl Walk {
    fn to(mut self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let mut names = reversed(path);
        let mut n_links = 0;
        while let Some(name) = names.pop() {
            match self.step(&name, OFlags::NOFOLLOW) {
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(Errno::NOENT) if self.creates => {
                    match rustix::fs::mkdirat(&self.at, &name, NEW_DIRECTORY) {
                        Ok(()) | Err(Errno::EXIST) => self.step(&name, OFlags::NOFOLLOW)?,
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                walked => {
                    walked?;
                    continue;
                }
            }
            n_links += 1;
            let target = rustix::fs::readlinkat(&self.at, &name, Vec::new())
                .map_err(|error| if error == Errno::INVAL { Errno::NOTDIR } else { error })?;
            let is_good = self.follows && is_trusted_link(&self.at, &name)?;
            if n_links > limits::MAX_LINKS_FOLLOWED || !is_good {
                return Err(Errno::LOOP);
            }
            if is_procfs(&self.at)? {
                // The text of links such as `/proc/self/cwd` is not where they lead (magic links,
                // symlink(7)).
                self.step(&name, OFlags::empty())?;
                continue;
            }
            let target = Path::new(OsStr::from_bytes(target.to_bytes()));
            if target.is_absolute() {
                self.at = open_start(Path::new("/"))?;
            }
            names.extend(reversed(target));
        }
        Ok(self.at)
    }

    fn step(&mut self, name: &OsStr, more: OFlags) -> rustix::io::Result<()> {
        self.at = rustix::fs::openat(&self.at, name, DIRECTORY | more, Mode::empty())?;
        Ok(())
    }
}

/// Returns the components of a path, last first, without the root.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::ParentDir => Some("..".into()),
        Component::Normal(name) => Some(name.to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// Returns whether only root and the caller could have made the link `name`.
fn is_trusted_link(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    let link = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if link.st_uid == 0 || link.st_uid == rustix::process::geteuid().as_raw() {
        return Ok(true);
    }
    let around = rustix::fs::fstat(directory)?;
    Ok(is_trusted_owner(around.st_uid)? && around.st_mode & OTHERS_WRITE == 0)
}

/// Returns whether the user is root, the caller, or the owner of `/`. In a user namespace the
/// machine's root appears as the latter (user_namespaces(7), "Unmapped user and group IDs").
///
/// # Errors
/// The kernel's error for `/`.
pub fn is_trusted_owner(uid: u32) -> rustix::io::Result<bool> {
    let is_own = uid == 0 || uid == rustix::process::geteuid().as_raw();
    Ok(is_own || uid == rustix::fs::stat("/")?.st_uid)
}

/// Returns whether links in the directory are the system's names for open descriptors.
fn holds_descriptors(directory: &OwnedFd) -> rustix::io::Result<bool> {
    if is_procfs(directory)? {
        return Ok(true);
    }
    let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
    let devices = rustix::fs::stat("/dev").map(identity);
    Ok(devices == Ok(identity(rustix::fs::fstat(directory)?)))
}

fn is_procfs(directory: impl AsFd) -> rustix::io::Result<bool> {
    let kind = rustix::fs::fstatfs(directory)?.f_type;
    #[allow(clippy::useless_conversion, reason = "the type depends on the architecture")]
    Ok(i64::from(kind) == PROC_SUPER_MAGIC)
}

/// Returns whether it is a regular file owned by the caller.
pub(super) fn is_own_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == rustix::process::geteuid().as_raw()
}
