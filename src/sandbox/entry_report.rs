//! Reports of the process that enters a user namespace to its parent outside, which continues without
//! a namespace if that fails.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// A report of the child: the first after it created its namespaces, the second after it became user 0
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryReport {
    /// It is in its new namespaces, or it is user 0 there and may mount.
    Done,
    /// The system refuses the namespace, or refuses rights in it.
    Refused(Errno),
    /// Another system call failed.
    Failed(Errno),
}

impl EntryReport {
    /// Number of bytes of a report in the pipe.
    pub(super) const N_BYTES: usize = 5;

    /// Returns the bytes of the report. They fit into one write(2) to a pipe, which is atomic (pipe(7)).
    pub(super) fn to_bytes(self) -> [u8; Self::N_BYTES] {
        let (kind, errno) = match self {
            Self::Done => (0, 0),
            Self::Refused(errno) => (1, errno.raw_os_error()),
            Self::Failed(errno) => (2, errno.raw_os_error()),
        };
        let [a, b, c, d] = errno.to_ne_bytes();
        [kind, a, b, c, d]
    }

    /// Reads a report; `None` if the child ended without one.
    pub(super) fn read(pipe: &OwnedFd) -> Option<Self> {
        let mut bytes = [0; Self::N_BYTES];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut bytes));
        if read != Ok(Self::N_BYTES) {
            return None;
        }
        let [kind, a, b, c, d] = bytes;
        let errno = || Errno::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
        Some(match kind {
            0 => Self::Done,
            1 => Self::Refused(errno()),
            _ => Self::Failed(errno()),
        })
    }
}
