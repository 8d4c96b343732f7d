//! Opens files of an untrusted layout.
//!
//! A layout's directory may be part of an untrusted checkout. A blob in it can be a symbolic link
//! to a file of the host, a FIFO or a device. None of them is opened for reading.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::pathio::{self, Context as _, PathError};

/// Opens the regular file `name` below `directory`, which the caller named, and returns its length.
/// Only `directory` may contain symbolic links (openat2(2), `RESOLVE_NO_SYMLINKS`).
///
/// # Errors
/// The kernel's error, with the path; `InvalidInput` for a symbolic link and anything else that is
/// not a regular file.
pub(super) fn open_regular(directory: &Path, name: &str) -> Result<(File, u64), PathError> {
    let path = shown(directory, name);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd =
        rustix::fs::openat(CWD, directory, flags, Mode::empty()).context("open", directory)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |flags: OFlags| -> Result<OwnedFd, PathError> {
        match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
            Err(Errno::LOOP) => Err(refused(&path, "a symbolic link leads to it")),
            opened => opened.context("open", &path),
        }
    };
    // Opening a device can have side effects, so it is first examined through an `O_PATH`
    // descriptor (open(2)).
    check_kind(&open(OFlags::PATH | OFlags::CLOEXEC)?, &path)?;
    let file = open(flags)?;
    let n_bytes = check_kind(&file, &path)?;
    Ok((file.into(), n_bytes))
}

/// Reads a file like [`open_regular`], of at most `max_bytes`.
///
/// # Errors
/// The same as [`open_regular`]; `FileTooLarge` if it is longer.
pub(super) fn read_regular(
    directory: &Path,
    name: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, PathError> {
    let (file, _n_bytes) = open_regular(directory, name)?;
    pathio::read_bounded(file, max_bytes, &shown(directory, name))
}

/// Returns the length of an open file, which must be a regular one.
fn check_kind(file: &OwnedFd, path: &Path) -> Result<u64, PathError> {
    let stat = rustix::fs::fstat(file).context("examine", path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(u64::try_from(stat.st_size).unwrap_or(0));
    }
    Err(refused(path, "it is not a regular file"))
}

fn refused(path: &Path, why: &str) -> PathError {
    PathError::new("read", path, io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn shown(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests use `std::fs` directly")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_inside_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        std::fs::create_dir_all(at.join("blobs/sha256")).unwrap();
        std::fs::write(at.join("blobs/sha256/file"), "abc").unwrap();
        symlink("file", at.join("blobs/sha256/link")).unwrap();
        symlink("/dev/zero", at.join("blobs/sha256/zero")).unwrap();
        symlink("blobs", at.join("other")).unwrap();
        rustix::fs::mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        let read = |name: &str| read_regular(at, name, 3).map_err(|error| error.kind());
        assert_eq!(read("blobs/sha256/file"), Ok(b"abc".to_vec()));
        let loops = Err(io::ErrorKind::InvalidInput);
        assert_eq!(read("blobs/sha256/link"), loops);
        assert_eq!(read("blobs/sha256/zero"), loops);
        assert_eq!(read("other/sha256/file"), loops);
        assert_eq!(read("fifo"), Err(io::ErrorKind::InvalidInput));
        assert_eq!(read("blobs"), Err(io::ErrorKind::InvalidInput));
        assert_eq!(read("none"), Err(io::ErrorKind::NotFound));
        let small = read_regular(at, "blobs/sha256/file", 2).unwrap_err();
        assert_eq!(small.kind(), io::ErrorKind::FileTooLarge);
    }
}
