//! A terminal for a command, in a `/dev/pts` of the command's own: what it does to it stays there, and
//! the caller's terminal is seen by rbuild alone.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex};

use super::ops;
use super::run::Step;
use crate::pathio;

/// A terminal in a new devpts.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The devpts, a mount without a place until the child gives it one.
    pub(super) directory: OwnedFd,
    /// rbuild's end; it never blocks.
    pub(super) controller: OwnedFd,
    /// The command's end. While this is open rbuild's end does not report the terminal gone.
    pub(super) own: OwnedFd,
}

impl Terminal {
    /// A terminal with the size and the keys of `console`.
    pub(super) fn like(console: BorrowedFd<'_>) -> Result<Self> {
        let directory = devpts()?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let controller = rustix::fs::openat(&directory, c"ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&controller)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own = rustix::pty::ioctl_tiocgptpeer(&controller, flags)?;
        rustix::io::ioctl_fionbio(&controller, true)?;
        type_like(&own, console)?;
        let terminal = Self { directory, controller, own };
        terminal.resize_like(console)?;
        Ok(terminal)
    }

    /// Takes the size of `console` over.
    pub(super) fn resize_like(&self, console: BorrowedFd<'_>) -> Result<()> {
        let size = rustix::termios::tcgetwinsize(console)?;
        rustix::termios::tcsetwinsize(&self.controller, size)
    }
}

impl Terminal {
    /// Whether keys among `typed` would end the command, had it not the rights of an init: the kernel
    /// sends it no signal that it does not wait for, and a `sleep` would not end with Ctrl-C.
    pub(super) fn interrupts(&self, typed: &[u8], step: &Step) -> bool {
        let Ok(settings) = rustix::termios::tcgetattr(&self.own) else { return false };
        let keys = [SpecialCodeIndex::VINTR, SpecialCodeIndex::VQUIT];
        let is_key =
            |byte: &u8| *byte != 0 && keys.iter().any(|key| settings.special_codes[*key] == *byte);
        settings.local_modes.contains(LocalModes::ISIG)
            && typed.iter().any(is_key)
            && step.pid().is_some_and(|pid| {
                let in_front = rustix::termios::tcgetpgrp(&self.controller);
                in_front == Ok(pid) && !heeds_interrupts(pid)
            })
    }
}

/// Whether the process catches or ignores SIGINT (proc(5), `SigCgt` and `SigIgn`).
fn heeds_interrupts(process: Pid) -> bool {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let text = pathio::read_to_string(Path::new(&path), MAX_STATUS_BYTES).unwrap_or_default();
    let masks = text.lines().filter_map(|line| {
        let mask = line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) & SIGINT_BIT != 0
}

/// A process's status is no longer than this.
const MAX_STATUS_BYTES: u64 = 64 << 10;
/// SIGINT, number 2, in a mask.
const SIGINT_BIT: u64 = 1 << 1;

/// Has the same keys end lines and programs as at `console`.
fn type_like(terminal: &OwnedFd, console: BorrowedFd<'_>) -> Result<()> {
    let theirs = rustix::termios::tcgetattr(console)?;
    let mut settings = rustix::termios::tcgetattr(terminal)?;
    settings.input_modes |= theirs.input_modes & InputModes::IUTF8;
    for key in KEYS {
        settings.special_codes[key] = theirs.special_codes[key];
    }
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &settings)
}

/// Keys that people change.
const KEYS: [SpecialCodeIndex; 7] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VWERASE,
];

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
