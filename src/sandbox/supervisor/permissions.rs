//! Permissions of files for a process whose user is emulated (path_resolution(7), "Permissions").

use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::io::{Errno, Result};

use super::Supervisor;
use super::identity::ProcessState;
use super::lookup::Found;
use super::target::Target;
use crate::sandbox::attributes::Attributes;

pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const EXECUTE: u32 = 1;

const STICKY: u32 = 0o1000;

/// Returns whether the process may access a file so.
pub(super) fn may(state: &ProcessState, file: &Attributes, access: u32) -> bool {
    if state.uid.filesystem == 0 {
        // CAP_DAC_OVERRIDE, which does not make a file executable.
        let is_directory = FileType::from_raw_mode(file.mode) == FileType::Directory;
        return access & EXECUTE == 0 || is_directory || file.mode & 0o111 != 0;
    }
    let bits = if file.uid == state.uid.filesystem {
        file.mode >> 6
    } else if state.is_in_group(file.gid) {
        file.mode >> 3
    } else {
        file.mode
    };
    bits & access == access
}

/// Returns whether the process may change mode and times of a file.
pub(super) const fn owns(state: &ProcessState, file: &Attributes) -> bool {
    state.uid.filesystem == 0 || state.uid.filesystem == file.uid
}

/// Returns whether the sticky bit of a directory forbids to remove a file in it.
pub(super) const fn is_protected(
    state: &ProcessState,
    directory: &Attributes,
    file: &Attributes,
) -> bool {
    directory.mode & STICKY != 0 && !owns(state, directory) && !owns(state, file)
}

impl Supervisor {
    /// Checks that the process may look up names in a directory.
    pub(super) fn check_search(
        &self,
        directory: &OwnedFd,
        mount: Option<usize>,
        state: &ProcessState,
    ) -> Result<()> {
        if !self.is_checked(mount, state) {
            return Ok(());
        }
        let attributes = self.seen_attributes(&rustix::fs::fstat(directory)?);
        if may(state, &attributes, EXECUTE) { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Checks that the process may access a file.
    pub(super) fn check(&self, found: &Found, state: &ProcessState, access: u32) -> Result<()> {
        if access & WRITE != 0 {
            self.check_writable(found.mount, found)?;
        }
        if found.is_magic || !self.is_checked(found.mount, state) && access & EXECUTE == 0 {
            return Ok(());
        }
        if may(state, &self.seen_attributes(&found.stat), access) {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    /// Checks that a process may execute a file.
    pub(super) fn check_executable(&self, target: Target, found: &Found) -> Result<()> {
        if found.file_type() != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        self.check(found, &self.state(target), EXECUTE)
    }

    /// Checks that the process may create and remove names in a directory.
    pub(super) fn check_directory(
        &self,
        directory: &OwnedFd,
        mount: Option<usize>,
        state: &ProcessState,
    ) -> Result<Attributes> {
        if let Some(at) = mount.and_then(|at| self.mounts.get(at))
            && at.read_only
        {
            return Err(Errno::ROFS);
        }
        let attributes = self.seen_attributes(&rustix::fs::fstat(directory)?);
        if self.is_checked(mount, state) && !may(state, &attributes, WRITE | EXECUTE) {
            return Err(Errno::ACCESS);
        }
        Ok(attributes)
    }

    fn check_writable(&self, mount: Option<usize>, found: &Found) -> Result<()> {
        let is_device = matches!(
            found.file_type(),
            FileType::CharacterDevice | FileType::Fifo | FileType::Socket
        );
        match mount.and_then(|at| self.mounts.get(at)) {
            Some(at) if at.read_only && !is_device => Err(Errno::ROFS),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns whether permissions are the supervisor's to check: not in `/proc`, where the kernel does.
    fn is_checked(&self, mount: Option<usize>, state: &ProcessState) -> bool {
        (self.rules.emulates_owners || self.rules.has_mounts)
            && state.uid.filesystem != 0
            && !self.is_proc(mount)
    }

    pub(super) fn is_in_proc(&self, found: &Found) -> bool {
        self.is_proc(found.mount)
    }

    fn is_proc(&self, mount: Option<usize>) -> bool {
        mount.and_then(|at| self.mounts.get(at)).is_some_and(|at| at.is_proc)
    }
}
