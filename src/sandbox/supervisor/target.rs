//! The process that made a system call: its memory, working directory and descriptors.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{Gid, Pid, Uid};

use super::super::sys::memory;
use super::process_status::ProcessStatus;

/// `AT_FDCWD` as a system call's argument (openat(2)).
pub(super) const AT_FDCWD: i32 = -100;

/// Maximum length of a path in bytes, with its null byte (`PATH_MAX`).
const PATH_MAX: usize = 4096;
/// Size of the pages that memory is protected in, at least.
const PAGE_BYTES: u64 = 4096;
/// Number of bytes of a path that are read at first. Most paths are shorter.
const FIRST_READ_BYTES: u64 = 256;

/// Maximum number of ancestors of a process in a step.
const MAX_ANCESTORS: u32 = 10_000;

/// The thread that waits for the answer to its system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) pid: Pid,
}

impl Target {
    pub(super) fn new(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(Self { pid: pid.ok_or(Errno::SRCH)? })
    }

    /// Reads exactly `N` bytes.
    pub(super) fn bytes<const N: usize>(self, address: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(address, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read_exact(self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let len = self.with_access(|| memory::read(self.pid, address, bytes))?;
        if len == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    pub(super) fn u32(self, address: u64) -> Result<u32> {
        self.bytes(address).map(u32::from_ne_bytes)
    }

    pub(super) fn u64(self, address: u64) -> Result<u64> {
        self.bytes(address).map(u64::from_ne_bytes)
    }

    pub(super) fn write(self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let len = self.with_access(|| memory::write(self.pid, address, bytes))?;
        if len == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    /// Reads a string up to its null byte, which is not part of the result.
    ///
    /// # Errors
    /// `FAULT` if it is not readable, `NAMETOOLONG` if it is longer than [`PATH_MAX`].
    pub(super) fn string(self, address: u64) -> Result<Vec<u8>> {
        if address == 0 {
            return Err(Errno::FAULT);
        }
        let mut bytes = Vec::new();
        let mut at = address;
        let mut wanted = FIRST_READ_BYTES;
        while bytes.len() < PATH_MAX {
            // Not beyond the page: the next one may be unreadable.
            let to_page_end = PAGE_BYTES.saturating_sub(at % PAGE_BYTES);
            let len = to_page_end.min(wanted);
            let start = bytes.len();
            bytes.resize(start.saturating_add(usize::try_from(len).unwrap_or(0)), 0);
            let chunk = bytes.get_mut(start..).ok_or(Errno::FAULT)?;
            self.read_exact(at, chunk)?;
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                bytes.truncate(start.saturating_add(end));
                return Ok(bytes);
            }
            at = at.checked_add(len).ok_or(Errno::FAULT)?;
            wanted = PAGE_BYTES;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Opens its working directory.
    pub(super) fn working_directory(self) -> Result<OwnedFd> {
        self.open("cwd")
    }

    /// Opens the directory that an argument of an `*at` call stands for (openat(2)).
    pub(super) fn directory(self, number: i32) -> Result<OwnedFd> {
        if number == AT_FDCWD { self.working_directory() } else { self.descriptor(number) }
    }

    /// Opens what one of its descriptors refers to, of any type.
    pub(super) fn descriptor(self, number: i32) -> Result<OwnedFd> {
        let link = format!("fd/{number}");
        self.open(&link).map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })
    }

    /// Opens the object of a link of its directory in `/proc`.
    fn open(self, link: &str) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let path = self.proc_path(link)?;
        self.with_access(|| rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::empty()))
    }

    /// Makes a call that needs access to the process, in its user's place if that is another one: root
    /// in a container usually lacks `CAP_SYS_PTRACE` (ptrace(2), "Ptrace access mode checking").
    pub(super) fn with_access<T>(self, mut call: impl FnMut() -> Result<T>) -> Result<T> {
        match call() {
            Err(errno @ (Errno::PERM | Errno::ACCESS)) if rustix::process::geteuid().is_root() => {
                let status = self.status()?;
                let uid = status.uid().ok_or(Errno::PERM)?;
                let gid = status.gid().ok_or(Errno::PERM)?;
                if uid == 0 {
                    return Err(errno);
                }
                acting_as(uid, gid, call)
            }
            result => result,
        }
    }

    /// Reads a link of its directory in `/proc`.
    pub(super) fn link(self, link: &str) -> Result<Vec<u8>> {
        let path = self.proc_path(link)?;
        let link = self.with_access(|| rustix::fs::readlinkat(CWD, path.as_c_str(), Vec::new()))?;
        Ok(link.into_bytes())
    }

    fn proc_path(self, rest: &str) -> Result<CString> {
        let path = format!("/proc/{}/{rest}", self.pid.as_raw_nonzero());
        CString::new(path).map_err(|_error| Errno::INVAL)
    }

    /// Returns its process's id.
    pub(super) fn thread_group(self) -> u32 {
        let number = self.status().ok().and_then(|status| status.thread_group());
        number.unwrap_or_else(|| self.pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// Returns whether another process or thread belongs to the same step: both descend from one child
    /// of rbuild, the step's reaper, which is no part of the step.
    pub(super) fn shares_step_with(self, other: Self) -> bool {
        if self == other {
            return true;
        }
        let Some(reaper) = other.reaper() else { return false };
        other.thread_group() != reaper && self.reaper() == Some(reaper)
    }

    /// Returns the ancestor of this process whose parent is rbuild.
    fn reaper(self) -> Option<u32> {
        let mut process = self.thread_group();
        for _ in 0..MAX_ANCESTORS {
            let parent = Self::new(process).ok()?.status().ok()?.parent()?;
            if parent == std::process::id() {
                return Some(process);
            }
            process = parent;
        }
        None
    }

    /// Reads its status.
    pub(super) fn status(self) -> Result<ProcessStatus> {
        ProcessStatus::read(&self.proc_path("status")?)
    }
}

/// Makes a call as another user, and becomes root again. Only this thread changes its user.
fn acting_as<T>(uid: u32, gid: u32, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, Gid::ROOT)?;
    let result = rustix::thread::set_thread_res_uid(uid, uid, Uid::ROOT).and_then(|()| call());
    // The saved id of root allows both.
    let restored = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .and_then(|()| rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT));
    restored.expect("the saved user and group are root");
    result
}
