//! A process that is stopped for a moment to change its registers (ptrace(2)).

use std::mem;
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

/// A thread that this thread traces. It continues, no longer traced, when this is dropped.
#[derive(Debug)]
pub(in crate::sandbox) struct Traced(Pid);

impl Traced {
    /// Attaches to a thread and asks it to stop before it returns to user space
    /// (`PTRACE_SEIZE`, `PTRACE_INTERRUPT`; Linux 3.4).
    pub(in crate::sandbox) fn attach(pid: Pid) -> rustix::io::Result<Self> {
        request(libc::PTRACE_SEIZE, pid)?;
        let traced = Self(pid);
        request(libc::PTRACE_INTERRUPT, pid)?;
        Ok(traced)
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// `SRCH` if it ended instead.
    pub(in crate::sandbox) fn wait_until_stopped(&self) -> rustix::io::Result<()> {
        let mut status = 0;
        let pid = self.0.as_raw_nonzero().get();
        loop {
            // SAFETY: `status` is a writable integer.
            let result = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
            match super::checked(result.into()) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) if libc::WIFSTOPPED(status) => return Ok(()),
                Ok(_) => return Err(Errno::SRCH),
            }
        }
    }

    /// Returns its registers.
    pub(in crate::sandbox) fn registers(&self) -> rustix::io::Result<libc::user_regs_struct> {
        // SAFETY: a structure of integers, which may all be zero.
        let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
        let mut part = libc::iovec {
            iov_base: (&raw mut registers).cast(),
            iov_len: size_of::<libc::user_regs_struct>(),
        };
        self.register_set(libc::PTRACE_GETREGSET, &mut part)?;
        Ok(registers)
    }

    /// Replaces its registers.
    pub(in crate::sandbox) fn set_registers(
        &self,
        mut registers: libc::user_regs_struct,
    ) -> rustix::io::Result<()> {
        let mut part = libc::iovec {
            iov_base: (&raw mut registers).cast(),
            iov_len: size_of::<libc::user_regs_struct>(),
        };
        self.register_set(libc::PTRACE_SETREGSET, &mut part)
    }

    fn register_set(
        &self,
        request: libc::c_uint,
        part: &mut libc::iovec,
    ) -> rustix::io::Result<()> {
        const GENERAL: usize = 1;
        let pid = self.0.as_raw_nonzero().get();
        let kind: *mut libc::c_void = ptr::without_provenance_mut(GENERAL);
        // SAFETY: `part` describes a live structure of the kernel's type and size; the kernel writes
        // to nothing else.
        super::checked(unsafe { libc::ptrace(request, pid, kind, ptr::from_mut(part)) }).map(drop)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have been killed.
        let _gone = request(libc::PTRACE_DETACH, self.0);
    }
}

fn request(request: libc::c_uint, pid: Pid) -> rustix::io::Result<()> {
    let none: *mut libc::c_void = ptr::null_mut();
    // SAFETY: these requests read and write no memory of this process.
    super::checked(unsafe { libc::ptrace(request, pid.as_raw_nonzero().get(), none, none) })
        .map(drop)
}
