//! Landlock rulesets that block abstract sockets (landlock(7)).

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` of `linux/landlock.h`.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;

/// `struct landlock_ruleset_attr` of `linux/landlock.h` since Linux 6.12.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Creates a ruleset that forbids connecting to abstract sockets of processes outside.
/// landlock_create_ruleset(2), with scopes since Linux 6.12.
///
/// # Errors
/// `NOSYS`, `OPNOTSUPP`, `INVAL` or `TOOBIG` where the kernel lacks Landlock or its scopes.
pub(in crate::sandbox) fn scope_of_abstract_sockets() -> rustix::io::Result<OwnedFd> {
    let attributes = RulesetAttributes {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET,
    };
    let no_flags = 0;
    // SAFETY: the struct is as large as said and outlives the call; the kernel copies it.
    let raw = super::checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            no_flags,
        )
    })?;
    let raw = RawFd::try_from(raw).map_err(|_error| Errno::OVERFLOW)?;
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Applies `rules` to the calling thread and all its future children, irrevocably.
/// landlock_restrict_self(2). Needs `CAP_SYS_ADMIN` in the user namespace. Allocates nothing.
pub(in crate::sandbox) fn restrict_self(rules: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let no_flags = 0;
    // SAFETY: two integers.
    super::checked(unsafe {
        libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), no_flags)
    })?;
    Ok(())
}
