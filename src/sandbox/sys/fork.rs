//! Forks the program for its move into a user namespace.

use rustix::process::Pid;

/// The process in which [`fork`] returned.
#[derive(Debug)]
pub(in crate::sandbox) enum Forked {
    /// The calling process, with the pid of its child.
    Parent(Pid),
    /// The new child process.
    Child,
}

/// Duplicates the calling process (fork(2)).
///
/// The caller must ensure that the process has a single thread: only then may the child call any
/// function (signal-safety(7)).
pub(in crate::sandbox) fn fork() -> rustix::io::Result<Forked> {
    // SAFETY: no arguments. By the C library's own fork, so that its notes about the thread are
    // right in the child.
    let pid = unsafe { libc::fork() };
    super::checked(libc::c_long::from(pid))?;
    Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent))
}

/// Moves the calling process into a new user namespace and a new mount namespace owned by it.
/// unshare(2), Linux 3.8.
pub(in crate::sandbox) fn unshare_user_and_mounts() -> rustix::io::Result<()> {
    // SAFETY: one integer. Nothing here relies on sharing files or memory with a former self.
    super::checked(libc::c_long::from(unsafe {
        libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
    }))?;
    Ok(())
}

/// Moves the calling process into a new mount namespace, and its children into a new pid namespace.
/// unshare(2), Linux 3.8.
pub(in crate::sandbox) fn unshare_mounts_and_pids() -> rustix::io::Result<()> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    // SAFETY: one integer. Nothing here relies on sharing mounts with a former self.
    super::checked(libc::c_long::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Moves the calling thread into a new network namespace. unshare(2), Linux 2.6.24.
pub(in crate::sandbox) fn unshare_network() -> rustix::io::Result<()> {
    // SAFETY: one integer. The caller's thread uses no socket of its former namespace.
    super::checked(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWNET) }))?;
    Ok(())
}

/// Gives the calling thread a root and a working directory of its own (unshare(2), `CLONE_FS`).
#[cfg(test)]
pub(in crate::sandbox) fn unshare_working_directory() -> rustix::io::Result<()> {
    // SAFETY: one integer. Nothing that the thread runs afterwards relies on the sharing.
    super::checked(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_FS) }))?;
    Ok(())
}
