//! A terminal for a command, in a `/dev/pts` of the command's own (pts(4)). The command cannot
//! affect the caller's terminal, which only rbuild has open.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex};

use super::ops;
use super::step_process::StepProcess;
use crate::pathio;

/// A pseudoterminal in a new devpts (pty(7)).
#[derive(Debug)]
pub(super) struct Terminal {
    /// The devpts, a detached mount until the child attaches it.
    pub(super) directory: OwnedFd,
    /// rbuild's end, which never blocks.
    pub(super) controller: OwnedFd,
    /// The command's end. While it is open, reads from rbuild's end do not fail with `EIO`.
    pub(super) own: OwnedFd,
}

impl Terminal {
    /// Opens a terminal with the size and the control keys of `console`.
    pub(super) fn modelled_on(console: BorrowedFd<'_>) -> Result<Self> {
        let directory = devpts()?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let controller = rustix::fs::openat(&directory, c"ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&controller)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own = rustix::pty::ioctl_tiocgptpeer(&controller, flags)?;
        rustix::io::ioctl_fionbio(&controller, true)?;
        copy_key_settings(&own, console)?;
        let terminal = Self { directory, controller, own };
        terminal.resize_like(console)?;
        Ok(terminal)
    }

    /// Sets the size to that of `console` (`TIOCSWINSZ`, ioctl_tty(2)).
    pub(super) fn resize_like(&self, console: BorrowedFd<'_>) -> Result<()> {
        let size = rustix::termios::tcgetwinsize(console)?;
        rustix::termios::tcsetwinsize(&self.controller, size)
    }
}

impl Terminal {
    /// Returns whether a key in `typed` should kill the command. The kernel drops signals to pid 1
    /// of a namespace that has no handler for them (pid_namespaces(7)), so a `sleep` would ignore
    /// Ctrl-C.
    pub(super) fn interrupts(&self, typed: &[u8], step: &StepProcess) -> bool {
        let Ok(settings) = rustix::termios::tcgetattr(&self.own) else { return false };
        let keys = [SpecialCodeIndex::VINTR, SpecialCodeIndex::VQUIT];
        let is_key =
            |byte: &u8| *byte != 0 && keys.iter().any(|key| settings.special_codes[*key] == *byte);
        settings.local_modes.contains(LocalModes::ISIG)
            && typed.iter().any(is_key)
            && step.pid().is_some_and(|pid| {
                let in_front = rustix::termios::tcgetpgrp(&self.controller);
                in_front == Ok(pid) && !handles_sigint(pid)
            })
    }
}

/// Returns whether the process catches or ignores SIGINT (`SigCgt` and `SigIgn`,
/// proc_pid_status(5)).
fn handles_sigint(process: Pid) -> bool {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let text = pathio::read_to_string(Path::new(&path), MAX_STATUS_BYTES).unwrap_or_default();
    let masks = text.lines().filter_map(|line| {
        let mask = line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) & SIGINT_BIT != 0
}

/// Maximum size of `/proc/<pid>/status` that is read.
const MAX_STATUS_BYTES: u64 = 64 << 10;
/// The bit of SIGINT, signal 2, in a mask.
const SIGINT_BIT: u64 = 1 << 1;

/// Copies the control keys and the UTF-8 mode of `console` (termios(3)).
fn copy_key_settings(terminal: &OwnedFd, console: BorrowedFd<'_>) -> Result<()> {
    let theirs = rustix::termios::tcgetattr(console)?;
    let mut settings = rustix::termios::tcgetattr(terminal)?;
    settings.input_modes |= theirs.input_modes & InputModes::IUTF8;
    for key in KEYS {
        settings.special_codes[key] = theirs.special_codes[key];
    }
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &settings)
}

/// The control characters that users change, for example with stty(1).
const KEYS: [SpecialCodeIndex; 7] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VWERASE,
];

/// Creates a devpts of its own, mounted nowhere.
fn devpts() -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    let options = ops::devpts_options().into_iter();
    for (key, value) in options.filter(|(key, value)| ops::can_be_given(key, value)) {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context, key)?;
        } else {
            rustix::mount::fsconfig_set_string(context, key, value.as_str())?;
        }
    }
    rustix::mount::fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
