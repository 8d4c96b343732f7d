//! The file `/proc/PID/status` (proc_pid_status(5)).

use std::ffi::CStr;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};

/// Number of bytes that are read at once. Most files are shorter.
const READ_BYTES: usize = 4096;
/// Maximum size of the file, which has a number for each supplementary group.
const MAX_BYTES: usize = 1 << 20;

/// The status of a process or thread.
#[derive(Debug, Default)]
pub(super) struct ProcessStatus {
    text: String,
}

impl ProcessStatus {
    pub(super) fn read(path: &CStr) -> Result<Self> {
        let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        loop {
            let len = bytes.len();
            if len >= MAX_BYTES {
                return Err(Errno::FBIG);
            }
            bytes.resize(len.saturating_add(READ_BYTES), 0);
            let n_read = rustix::io::read(&file, bytes.get_mut(len..).unwrap_or_default())?;
            bytes.truncate(len.saturating_add(n_read));
            if n_read == 0 {
                break;
            }
        }
        // The name of the program may contain any bytes.
        Ok(Self { text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    pub(super) fn thread_group(&self) -> Option<u32> {
        self.line("Tgid:")?.parse().ok()
    }

    pub(super) fn parent(&self) -> Option<u32> {
        self.line("PPid:")?.parse().ok()
    }

    /// Returns the user id for access to files.
    pub(super) fn uid(&self) -> Option<u32> {
        file_system_id(self.line("Uid:")?)
    }

    /// Returns the group id for access to files.
    pub(super) fn gid(&self) -> Option<u32> {
        file_system_id(self.line("Gid:")?)
    }

    /// Returns the supplementary groups.
    pub(super) fn groups(&self) -> Vec<u32> {
        let groups = self.line("Groups:").unwrap_or_default();
        groups.split_ascii_whitespace().filter_map(|gid| gid.parse().ok()).collect()
    }

    pub(super) fn umask(&self) -> Option<u32> {
        u32::from_str_radix(self.line("Umask:")?, 8).ok()
    }

    fn line(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }
}

/// Returns the last of the four ids: real, effective, saved and for file systems.
fn file_system_id(ids: &str) -> Option<u32> {
    ids.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::ProcessStatus;

    #[test]
    fn ids_are_those_for_files() {
        let text = "Name:\tUid:\t9\nUmask:\t0027\nTgid:\t7\nPid:\t8\nPPid:\t5\n\
                    Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 11 \n";
        let status = ProcessStatus { text: text.to_owned() };
        assert_eq!((status.uid(), status.gid()), (Some(4), Some(8)));
        assert_eq!((status.thread_group(), status.parent()), (Some(7), Some(5)));
        assert_eq!((status.groups(), status.umask()), (vec![10, 11], Some(0o027)));
    }

    #[test]
    fn a_process_that_has_ended_has_no_ids() {
        let status = ProcessStatus::default();
        assert_eq!((status.uid(), status.gid(), status.umask()), (None, None, None));
    }

    #[test]
    fn the_own_status_is_read() {
        let status = ProcessStatus::read(c"/proc/self/status").expect("it exists");
        assert_eq!(status.thread_group(), Some(std::process::id()));
        assert_eq!(status.uid(), Some(rustix::process::geteuid().as_raw()));
    }
}
