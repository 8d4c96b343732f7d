//! The user namespace of an ordinary user's rbuild.

/// The inode of the initial user namespace on every machine (`PROC_USER_INIT_INO`).
const INITIAL: u64 = 0xEFFF_FFFD;

/// Whether this process is in a user namespace other than the initial one. There overlayfs names
/// its attributes `user.overlay.*`, not `trusted.overlay.*`.
#[must_use]
pub fn in_user_namespace() -> bool {
    rustix::fs::stat(c"/proc/self/ns/user").is_ok_and(|about| about.st_ino != INITIAL)
}
