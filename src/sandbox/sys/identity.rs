//! Reads credentials and state of the calling process without allocating (credentials(7)).

use std::ffi::c_long;

use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid};

/// Maximum length of a working directory's path that the kernel returns (getcwd(2), `PATH_MAX`).
pub(in crate::sandbox) const MAX_PATH_BYTES: usize = 4096;

/// Maximum number of groups that are compared; a user with more is not checked. The kernel allows
/// 65,536 (`NGROUPS_MAX`), which do not fit on the child's stack.
const MAX_GROUPS: usize = 4096;

/// `SECCOMP_MODE_FILTER` of `linux/seccomp.h`.
const MODE_FILTER: c_long = 2;

/// Returns whether all user ids are `uid`, all group ids `gid`, and the supplementary groups are
/// `groups` in any order (getresuid(2), getresgid(2), getgroups(2)).
pub(in crate::sandbox) fn is(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<bool> {
    let mut users = [u32::MAX; 3];
    let [real, effective, saved] = &mut users;
    // SAFETY: three pointers to integers that outlive the call.
    super::checked(unsafe {
        libc::syscall(libc::SYS_getresuid, &raw mut *real, &raw mut *effective, &raw mut *saved)
    })?;
    let mut own_groups = [u32::MAX; 3];
    let [real, effective, saved] = &mut own_groups;
    // SAFETY: likewise.
    super::checked(unsafe {
        libc::syscall(libc::SYS_getresgid, &raw mut *real, &raw mut *effective, &raw mut *saved)
    })?;
    Ok(users == [uid.as_raw(); 3]
        && own_groups == [gid.as_raw(); 3]
        && supplementary_groups_are(groups)?)
}

fn supplementary_groups_are(expected: &[Gid]) -> Result<bool> {
    if expected.len() > MAX_GROUPS {
        return Ok(true);
    }
    let mut groups = [0_u32; MAX_GROUPS];
    // SAFETY: a pointer to as many integers as said, which outlive the call.
    let len = super::checked(unsafe {
        libc::syscall(libc::SYS_getgroups, MAX_GROUPS, groups.as_mut_ptr())
    })?;
    let len = usize::try_from(len).map_err(|_error| Errno::OVERFLOW)?;
    let groups = groups.get(..len).ok_or(Errno::OVERFLOW)?;
    // The kernel sorts them.
    let is_expected = |group: &u32| expected.iter().any(|gid| gid.as_raw() == *group);
    Ok(groups.iter().all(is_expected) && expected.iter().all(|gid| groups.contains(&gid.as_raw())))
}

/// Returns whether a seccomp filter is in force (prctl(2), `PR_GET_SECCOMP`).
pub(in crate::sandbox) fn is_filtered() -> Result<bool> {
    // SAFETY: one integer.
    let mode = super::checked(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_SECCOMP) })?;
    Ok(mode == MODE_FILTER)
}

/// Returns the path of the working directory as the kernel reports it, without the null byte at its
/// end (getcwd(2)).
///
/// # Errors
/// `NAMETOOLONG` for a path of more than [`MAX_PATH_BYTES`]; `NOENT` when it has been removed.
pub(in crate::sandbox) fn working_directory(path: &mut [u8; MAX_PATH_BYTES]) -> Result<&[u8]> {
    // SAFETY: a pointer to as many bytes as said, which outlive the call.
    let len = super::checked(unsafe {
        libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), MAX_PATH_BYTES)
    })?;
    let len = usize::try_from(len).map_err(|_error| Errno::OVERFLOW)?;
    path.get(..len.saturating_sub(1)).ok_or(Errno::OVERFLOW)
}
