//! Looks up a path as a step sees it: below its root, through its mounts.
//!
//! Most lookups are one openat2(2) with `RESOLVE_IN_ROOT`; `walk` does the others.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};

use super::Supervisor;
use super::mounts::{VirtualMount, below, id_at, id_of, path_of};
use super::target::{AT_FDCWD, Target};
use super::walk::{Last, Walk, Walked};
use crate::sandbox::attributes::FileId;

/// The object that a lookup found.
#[derive(Debug)]
pub(super) struct Found {
    /// A descriptor (`O_PATH`); of the link itself if the last component is one that was not followed.
    pub(super) file: OwnedFd,
    pub(super) stat: Stat,
    /// The mount that it is in; `None` for the root.
    pub(super) mount: Option<usize>,
    /// True if a magic link of `/proc` led to it.
    pub(super) is_magic: bool,
}

impl Found {
    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn id(&self) -> FileId {
        FileId::of(&self.stat)
    }

    /// Returns a path by which this process can open the object itself.
    pub(super) fn own_path(&self) -> CString {
        own_path(self.file.as_fd())
    }
}

/// Returns the path of a descriptor of this process, which leads to its object.
pub(super) fn own_path(file: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// A name in a directory, which may exist or not.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) directory: OwnedFd,
    /// The name; empty for the directory itself, where no name can be created or removed.
    pub(super) name: CString,
    pub(super) mount: Option<usize>,
    /// True if a slash follows the name.
    pub(super) wants_directory: bool,
}

impl Supervisor {
    /// Finds the object at `path`. A relative path starts at `directory`, or at the working directory.
    pub(super) fn find(
        &self,
        target: Target,
        directory: i32,
        path: &[u8],
        follows: bool,
    ) -> Result<Found> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let place = (directory, path);
        if !self.needs_walk(target, path)
            && let Some(found) = self.find_at_once(target, place, follows)?
        {
            return Ok(found);
        }
        let state = self.state(target);
        let last = if follows { Last::Follow } else { Last::NoFollow };
        match Walk::start(self, target, &state, place)?.run(last)? {
            Walked::Found(found) => Ok(found),
            Walked::Name(_) => Err(Errno::NOENT),
        }
    }

    /// Finds the object of a descriptor, or the working directory.
    pub(super) fn find_descriptor(&self, target: Target, number: i32) -> Result<Found> {
        let file = target.directory(number)?;
        let mut stat = rustix::fs::fstat(&file)?;
        let mount = self.mount_of(&file);
        if let Some(original) = self.copies.as_ref().and_then(|copies| copies.original(&stat)) {
            stat = original;
        }
        Ok(Found { file, stat, mount, is_magic: false })
    }

    /// Finds the directory of the last component of `path`.
    pub(super) fn find_name(&self, target: Target, directory: i32, path: &[u8]) -> Result<Name> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let place = (directory, path);
        if !self.needs_walk(target, path)
            && let Some(name) = self.find_name_at_once(target, place)?
        {
            return Ok(name);
        }
        let state = self.state(target);
        match Walk::start(self, target, &state, place)?.run(Last::Parent)? {
            Walked::Name(name) => Ok(name),
            Walked::Found(_) => Err(Errno::NOENT),
        }
    }

    /// Finds the directory of a name by one system call; `None` if that cannot decide.
    fn find_name_at_once(
        &self,
        target: Target,
        (directory, path): (i32, &[u8]),
    ) -> Result<Option<Name>> {
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let (trimmed, slashes) = path.split_at(end);
        let start = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = trimmed.split_at(start);
        if name.is_empty() || name == b"." {
            return Ok(None);
        }
        let (file, mount) = if parent.is_empty() {
            let start = self.start(target, directory)?;
            if self.needs_permission(target, start.mount) {
                return Ok(None);
            }
            (rustix::io::fcntl_dupfd_cloexec(&start.directory, 3)?, start.mount)
        } else {
            match self.find_at_once(target, (directory, parent), true)? {
                Some(found) => (found.file, found.mount),
                None => return Ok(None),
            }
        };
        let name = CString::new(name).map_err(|_error| Errno::INVAL)?;
        Ok(Some(Name { directory: file, name, mount, wants_directory: !slashes.is_empty() }))
    }

    /// Returns whether each component must be looked at: for mounts, `..`, and permissions.
    fn needs_walk(&self, target: Target, path: &[u8]) -> bool {
        if self.hides_files || path.windows(2).any(|pair| pair == b"..") {
            return true;
        }
        if self.rules.emulates_owners {
            let state = self.state(target);
            if state.uid.filesystem != 0 || !state.root.is_empty() {
                return true;
            }
        }
        path.first() == Some(&b'/')
            && self.mounts.iter().any(|mount| below(path, &mount.target).is_some())
    }

    /// Returns whether a lookup that starts in a mount must check the permissions of each directory: the
    /// supervisor makes it with its own rights.
    fn needs_permission(&self, target: Target, mount: Option<usize>) -> bool {
        mount.is_some() && self.state(target).uid.filesystem != 0
    }

    /// Finds the object by one system call; `None` if that cannot decide.
    fn find_at_once(
        &self,
        target: Target,
        (directory, path): (i32, &[u8]),
        follows: bool,
    ) -> Result<Option<Found>> {
        let is_absolute = path.first() == Some(&b'/');
        let start;
        let (from, within, mount) = if is_absolute {
            let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            (self.root.as_fd(), within, None)
        } else {
            start = self.start(target, directory)?;
            // Mounts, and `/proc`, may be below it.
            let may_leave =
                self.above_mounts.contains(&start.id) || self.proc_device == Some(start.id.device);
            if may_leave || self.needs_permission(target, start.mount) {
                return Ok(None);
            }
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            (start.directory.as_fd(), within, start.mount)
        };
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follows {
            flags |= OFlags::NOFOLLOW;
        }
        let file = match rustix::fs::openat2(from, path, flags, Mode::empty(), within) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) if is_absolute => {
                let strict = within | ResolveFlags::NO_SYMLINKS;
                return match rustix::fs::openat2(from, path, flags, Mode::empty(), strict) {
                    // No link is on the way, so no mount is either.
                    Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => Err(errno),
                    _ => Ok(None),
                };
            }
            Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)) => return Err(errno),
            Err(_) => return Ok(None),
        };
        let stat = rustix::fs::fstat(&file)?;
        let id = FileId::of(&stat);
        if self.points.contains(&id) {
            return Ok(None);
        }
        Ok(Some(Found { file, stat, mount, is_magic: false }))
    }

    /// Returns the mount that an open object is in, by its path outside.
    pub(super) fn mount_of(&self, file: &OwnedFd) -> Option<usize> {
        if self.mounts.is_empty() {
            return None;
        }
        let path = path_of(file).ok()?;
        if below(&path, &self.root_path).is_some() {
            return None;
        }
        let is_in = |mount: &VirtualMount| below(&path, &mount.source_path).is_some();
        self.mounts.iter().rposition(is_in)
    }

    /// Translates a path outside to the step's view; `None` if the step cannot see it.
    pub(super) fn inside_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let join = |directory: &[u8], rest: &[u8]| {
            let mut joined = directory.to_vec();
            if !rest.is_empty() && joined.last() != Some(&b'/') {
                joined.push(b'/');
            }
            joined.extend_from_slice(rest);
            joined
        };
        if let Some(rest) = below(path, &self.root_path) {
            return Some(join(b"/", rest));
        }
        let longest = self
            .mounts
            .iter()
            .filter_map(|mount| Some((mount, below(path, &mount.source_path)?)))
            .max_by_key(|(mount, _)| mount.source_path.len());
        longest.map(|(mount, rest)| join(&mount.target, rest))
    }

    /// Returns the mount whose mount point is `name` in `directory`.
    pub(super) fn covering(&self, directory: &OwnedFd, name: &[u8]) -> Option<usize> {
        if self.mounts.is_empty() {
            return None;
        }
        let parent = id_of(directory).ok()?;
        if !self.above_mounts.contains(&parent) {
            return None;
        }
        let point = id_at(directory, name);
        self.mounts.iter().rposition(|mount| match mount.point {
            Some(id) => point == Some(id),
            // The mount point does not exist: its directory and name identify it.
            None => {
                mount.target.rsplit(|byte| *byte == b'/').next() == Some(name)
                    && id_of(&mount.parent).is_ok_and(|id| id == parent)
            }
        })
    }

    pub(super) fn parent_of(
        &self,
        current: OwnedFd,
        mount: Option<usize>,
        root: FileId,
    ) -> Result<(OwnedFd, Option<usize>)> {
        let id = id_of(&current)?;
        if id == root || id == self.root_id {
            return Ok((current, None));
        }
        if let Some(at) = mount.and_then(|at| self.mounts.get(at))
            && at.source_id == id
        {
            let parent = rustix::io::fcntl_dupfd_cloexec(&at.parent, 3)?;
            let mount = self.mount_of(&parent);
            return Ok((parent, mount));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((rustix::fs::openat(&current, c"..", flags, Mode::empty())?, mount))
    }

    pub(super) fn follow_magic(
        &self,
        target: Target,
        directory: &OwnedFd,
        name: &[u8],
    ) -> Result<OwnedFd> {
        match name {
            b"root" => return rustix::io::fcntl_dupfd_cloexec(&self.root, 3),
            b"exe" if self.rules.translates_paths => {
                let process = process_of(directory).unwrap_or(target);
                let program = self.state(process).program.clone();
                let own = Target { pid: rustix::process::getpid() };
                return Ok(self.find(own, AT_FDCWD, &program, true)?.file);
            }
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        target.with_access(|| rustix::fs::openat(directory, name, flags, Mode::empty()))
    }
}

/// Returns whether a link in `/proc` leads to an object itself, not to a path
/// (symlink(7), "Magic links").
pub(super) fn is_magic_link(directory: &OwnedFd, name: &[u8]) -> bool {
    if matches!(name, b"exe" | b"cwd" | b"root") {
        return true;
    }
    let path = path_of(directory).unwrap_or_default();
    matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"fd" | b"ns" | b"map_files"))
}

/// Returns the process of an open directory of `/proc`.
pub(super) fn process_of(directory: &OwnedFd) -> Option<Target> {
    let path = path_of(directory).ok()?;
    let pid = path.split(|byte| *byte == b'/').nth(2)?;
    Target::new(std::str::from_utf8(pid).ok()?.parse().ok()?).ok()
}
