//! Landlock rulesets: what a step cannot reach (landlock(7)).

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
    create(&attributes)
}

/// Creates a ruleset. landlock_create_ruleset(2), Linux 5.13.
fn create(attributes: &RulesetAttributes) -> rustix::io::Result<OwnedFd> {
    let no_flags = 0;
    // SAFETY: the struct is as large as said and outlives the call; the kernel copies it.
    let raw = super::checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(attributes),
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

/// `LANDLOCK_SCOPE_SIGNAL` of `linux/landlock.h`.
const SCOPE_SIGNAL: u64 = 1 << 1;
/// `LANDLOCK_CREATE_RULESET_VERSION` of `linux/landlock.h`.
const VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH` of `linux/landlock.h`.
const PATH_BENEATH: libc::c_uint = 1;
/// `LANDLOCK_ACCESS_FS_*` by the first version of the interface that has them.
const FILE_ACCESS: [(libc::c_long, u64); 4] =
    [(1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15)];
/// The rights on a file that is not a directory: execute, write, read, truncate, device control.
const ON_FILES: u64 = 0b111 | 1 << 14 | 1 << 15;
/// The version that has scopes, Linux 6.12.
pub(in crate::sandbox) const SCOPES: libc::c_long = 6;

/// Returns the version of the kernel's interface. landlock_create_ruleset(2), Linux 5.13.
///
/// # Errors
/// `NOSYS` or `OPNOTSUPP` where the kernel lacks Landlock.
pub(in crate::sandbox) fn version() -> rustix::io::Result<libc::c_long> {
    let no_attributes = std::ptr::null::<RulesetAttributes>();
    // SAFETY: with this flag the kernel reads no attributes and returns a number.
    super::checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, 0_usize, VERSION)
    })
}

/// The rights on files of which a rule grants some: all that the kernel knows.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct FileAccess(u64);

/// `struct landlock_path_beneath_attr` of `linux/landlock.h`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Creates a ruleset that forbids all access to files, except below `directories`, and signals to
/// processes outside and, with `fences_sockets`, their abstract sockets. Access by open descriptors
/// stays. landlock_create_ruleset(2), landlock_add_rule(2), Linux 5.13; scopes since Linux 6.12.
///
/// # Errors
/// `NOSYS` or `OPNOTSUPP` where the kernel lacks Landlock.
pub(in crate::sandbox) fn fence(
    directories: &[BorrowedFd<'_>],
    fences_sockets: bool,
) -> rustix::io::Result<OwnedFd> {
    let version = version()?;
    let known = FILE_ACCESS.iter().filter(|(since, _)| version >= *since);
    let access = FileAccess(known.map(|(_, bits)| bits).fold(0, |all, bits| all | bits));
    let sockets = if fences_sockets { SCOPE_ABSTRACT_UNIX_SOCKET } else { 0 };
    let scoped = if version >= SCOPES { SCOPE_SIGNAL | sockets } else { 0 };
    let attributes =
        RulesetAttributes { handled_access_fs: access.0, handled_access_net: 0, scoped };
    // Older kernels know a shorter structure, and accept this one if the rest is zero (Linux 5.13).
    let rules = create(&attributes)?;
    let no_flags = 0;
    for directory in directories {
        let stat = rustix::fs::fstat(directory)?;
        let is_directory =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let allowed_access = if is_directory { access.0 } else { access.0 & ON_FILES };
        let rule = PathBeneath { allowed_access, parent_fd: directory.as_raw_fd() };
        // SAFETY: `rule` is a structure of the kernel's type and outlives the call; the kernel copies it.
        super::checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                no_flags,
            )
        })?;
    }
    Ok(rules)
}
