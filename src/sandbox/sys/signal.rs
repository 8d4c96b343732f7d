//! Signal masks and dispositions, by the kernel's own calls: the C library reserves two signals
//! (nptl(7)).

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

/// The size of the kernel's signal set in bytes: 64 signals (sigset_t, rt_sigprocmask(2)).
const SET_BYTES: usize = 8;
/// The highest signal number, `SIGRTMAX` (signal(7)).
const LAST: libc::c_int = 64;
/// An upper bound for the size of the kernel's `struct sigaction`, in words of 8 bytes.
const ACTION_WORDS: usize = 8;

/// The signal mask of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) struct Mask(u64);

impl Mask {
    /// The mask that blocks no signal.
    pub(in crate::sandbox) const NONE: Self = Self(0);
    /// The mask that blocks all signals; SIGKILL and SIGSTOP stay unblockable (signal(7)).
    pub(in crate::sandbox) const ALL: Self = Self(u64::MAX);

    /// Returns the mask that blocks exactly `signals`.
    pub(in crate::sandbox) fn of(signals: &[libc::c_int]) -> Self {
        let bit = |signal: &libc::c_int| {
            u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or(0)
        };
        Self(signals.iter().map(bit).fold(0, |all, one| all | one))
    }
}

/// Replaces the calling thread's mask; returns the previous one. rt_sigprocmask(2). Allocates
/// nothing.
pub(in crate::sandbox) fn set_mask(mask: Mask) -> rustix::io::Result<Mask> {
    let mut before = 0_u64;
    // SAFETY: both pointers point to sets of the size given, which outlive the call.
    super::checked(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask.0,
            &raw mut before,
            SET_BYTES,
        )
    })?;
    Ok(Mask(before))
}

/// Resets every signal to its default action: exec alone keeps ignored signals ignored (execve(2)).
/// rt_sigaction(2). Allocates nothing.
pub(in crate::sandbox) fn reset_actions() {
    let default = [0_u64; ACTION_WORDS];
    for signal in 1..=LAST {
        // SAFETY: `default` is no shorter than the kernel's struct, in which all zeros means
        // SIG_DFL with no flags and an empty mask. No handler is installed.
        let _fails_for_kill_and_stop = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                SET_BYTES,
            )
        };
    }
}

/// Waits until one of `signals`, which must be blocked, is pending; returns its number.
/// rt_sigtimedwait(2). Allocates nothing.
pub(in crate::sandbox) fn wait(signals: Mask) -> rustix::io::Result<libc::c_int> {
    // SAFETY: the set has the size given and outlives the call; null pointers ask for no details and
    // set no limit of time.
    let number = super::checked(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const signals.0,
            ptr::null::<libc::siginfo_t>(),
            ptr::null::<libc::timespec>(),
            SET_BYTES,
        )
    })?;
    libc::c_int::try_from(number).map_err(|_error| rustix::io::Errno::OVERFLOW)
}

/// A signal that was read from a signalfd.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct PendingSignal {
    /// The signal number, as in signal(7).
    pub(in crate::sandbox) signal: libc::c_int,
    /// True if a process sent it. A terminal's signals come from the kernel, and go to the whole
    /// foreground process group.
    pub(in crate::sandbox) from_process: bool,
}

/// Opens a descriptor that is readable while one of `signals`, which must be blocked, is pending.
/// signalfd(2), Linux 2.6.22.
pub(in crate::sandbox) fn descriptor(signals: Mask) -> rustix::io::Result<OwnedFd> {
    let new: libc::c_int = -1;
    // SAFETY: the set has the size given and outlives the call; the kernel copies it.
    let raw = super::checked(unsafe {
        libc::syscall(
            libc::SYS_signalfd4,
            new,
            &raw const signals.0,
            SET_BYTES,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )
    })?;
    let raw = RawFd::try_from(raw).map_err(|_error| rustix::io::Errno::OVERFLOW)?;
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Reads a pending signal from such a descriptor, if there is one.
pub(in crate::sandbox) fn take(descriptor: &OwnedFd) -> Option<PendingSignal> {
    // `struct signalfd_siginfo` begins with the number, an errno and the code (signalfd(2)).
    let mut about = [0; size_of::<libc::signalfd_siginfo>()];
    rustix::io::read(descriptor, &mut about).ok()?;
    let (number, rest) = about.split_first_chunk()?;
    let (_errno, rest) = rest.split_first_chunk::<4>()?;
    let (code, _) = rest.split_first_chunk()?;
    let from_process = i32::from_ne_bytes(*code) <= libc::SI_USER;
    Some(PendingSignal { signal: i32::from_ne_bytes(*number), from_process })
}
