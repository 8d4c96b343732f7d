//! The report that a step's child sends through the status pipe when it cannot execute the command.

use std::os::fd::BorrowedFd;

/// The child's report to its parent: three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// The index of the failed operation, or [`EXEC`].
    pub(super) op: u32,
    /// The error number that the kernel returned.
    pub(super) errno: i32,
    /// For [`EXEC`]: 1 if the program exists. For `SetupOp::Verify`: the number of the wrong
    /// `SandboxPart`. Otherwise 0.
    pub(super) detail: u32,
}

/// Stands for execve(2) in [`Report::op`]. The launcher's machine code contains the same value.
pub(super) const EXEC: u32 = u32::MAX;

impl Report {
    /// The length of an encoded report in bytes.
    pub(super) const BYTES: usize = 12;

    /// Decodes the bytes that [`Report::send`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (op, rest) = bytes.split_first_chunk()?;
        let (errno, rest) = rest.split_first_chunk()?;
        let (detail, _) = rest.split_first_chunk()?;
        Some(Self {
            op: u32::from_ne_bytes(*op),
            errno: i32::from_ne_bytes(*errno),
            detail: u32::from_ne_bytes(*detail),
        })
    }

    /// Writes the report in one piece: writes of up to `PIPE_BUF` bytes are atomic (pipe(7)).
    /// Allocates nothing.
    pub(super) fn send(self, status: BorrowedFd<'_>) {
        let mut bytes = [0; Self::BYTES];
        let words = [self.op.to_ne_bytes(), self.errno.to_ne_bytes(), self.detail.to_ne_bytes()];
        for (to, from) in bytes.iter_mut().zip(words.as_flattened()) {
            *to = *from;
        }
        // If the parent is gone, no process reads the report.
        let _ = rustix::io::write(status, &bytes);
    }
}
