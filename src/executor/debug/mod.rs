//! Debug sessions: `rbuild enter`, and a shell in the rootfs of a failed step.

pub(super) mod enter;
pub(super) mod fallback_shell;
pub(super) mod session;
