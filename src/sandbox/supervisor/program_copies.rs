//! Programs and libraries in memory, for a root on a file system that is mounted with `noexec`.
//!
//! Docker mounts `--tmpfs` so, and a container with a read-only root has nothing else to write to. The
//! kernel maps no file there as executable (mount(8)), but files in memory (memfd_create(2)) can be. So a
//! process that opens an ELF file for reading gets a copy in memory.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, Stat, StatVfsMountFlags};
use rustix::io::{Errno, Result};

use super::Rules;
use super::lookup::{Found, own_path};
use crate::sandbox::attributes::FileId;

/// What every ELF file begins with (elf(5), `e_ident`).
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// Maximum size of all copies that are kept for later use.
const MAX_KEPT_BYTES: u64 = 512 << 20;

/// A version of a file.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Version {
    file: FileId,
    size: i64,
    changed: (i64, u64),
}

impl Version {
    fn of(stat: &Stat) -> Self {
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        Self { file: FileId::of(stat), size: stat.st_size, changed }
    }
}

/// The copies of a step.
#[derive(Debug, Default)]
pub(super) struct ProgramCopies {
    kept: HashMap<Version, OwnedFd>,
    kept_bytes: u64,
    /// The files that copies stand for, by the copies.
    originals: HashMap<FileId, Stat>,
}

impl ProgramCopies {
    /// Returns an empty set of copies if programs in `root` cannot be executed.
    pub(super) fn if_needed(root: &OwnedFd, rules: Rules) -> Result<Option<Self>> {
        let flags = rustix::fs::fstatvfs(root)?.f_flag;
        let is_needed = rules.translates_paths && flags.contains(StatVfsMountFlags::NOEXEC);
        Ok(is_needed.then(Self::default))
    }

    /// Returns a copy of an open file for reading, or the file itself if it is not an ELF file.
    pub(super) fn of(&mut self, found: &Found, file: OwnedFd) -> Result<OwnedFd> {
        let version = Version::of(&found.stat);
        if let Some(kept) = self.kept.get(&version) {
            return reopened(kept);
        }
        let mut from = std::fs::File::from(file);
        let mut magic = [0; ELF_MAGIC.len()];
        let is_program = from.read_exact(&mut magic).is_ok() && magic == ELF_MAGIC;
        from.seek(SeekFrom::Start(0)).map_err(errno_of)?;
        if !is_program {
            return Ok(from.into());
        }
        let copy = match rustix::fs::memfd_create("program", MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        {
            // Before Linux 6.3 the flag is unknown, and all memfds are executable.
            Err(Errno::INVAL) => rustix::fs::memfd_create("program", MemfdFlags::CLOEXEC)?,
            made => made?,
        };
        let mut to = std::fs::File::from(copy);
        let n_bytes = std::io::copy(&mut from, &mut to).map_err(errno_of)?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(0o555))?;
        let copy = OwnedFd::from(to);
        self.originals.insert(FileId::of(&rustix::fs::fstat(&copy)?), found.stat);
        let given = reopened(&copy)?;
        if self.kept_bytes.saturating_add(n_bytes) > MAX_KEPT_BYTES {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(n_bytes);
        self.kept.insert(version, copy);
        Ok(given)
    }

    /// Returns the file that a copy stands for.
    pub(super) fn original(&self, stat: &Stat) -> Option<Stat> {
        self.originals.get(&FileId::of(stat)).copied()
    }
}

fn reopened(file: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, own_path(file.as_fd()), flags, Mode::empty())
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
