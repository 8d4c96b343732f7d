//! Cancellation of a build, by the caller (Ctrl-C) or by the first step that fails.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;

use crate::registry::Cancellation;

const RUNNING: u8 = 0;
const FAILED: u8 = 1;
const INTERRUPTED: u8 = 2;
const TIMED_OUT: u8 = 3;

/// A switch that cancels a build. Running commands watch its descriptor.
#[derive(Debug)]
pub struct CancelSwitch {
    state: AtomicU8,
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// True while the build computes a plan or reads standard input, which never look at the switch.
    ends_at_once: AtomicBool,
    /// True if several builds share the switch: while one of them plans, others may run steps.
    is_shared: bool,
    /// Cancels transfers if the caller interrupts. After a failed step they go on, since caches are
    /// exported then.
    transfers: Option<Cancellation>,
    /// Time at which the caller of a build gives up, and the duration until then.
    deadline: Option<(Instant, Duration)>,
}

impl CancelSwitch {
    /// Returns a switch of a build that runs.
    ///
    /// # Errors
    /// The error of pipe2(2) if the process has too many open files.
    pub fn new() -> std::io::Result<Self> {
        let (read_end, write_end) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (state, ends_at_once) = (AtomicU8::new(RUNNING), AtomicBool::new(false));
        Ok(Self {
            state,
            read_end,
            write_end,
            ends_at_once,
            is_shared: false,
            transfers: None,
            deadline: None,
        })
    }

    /// Makes the switch one of several builds that run at once.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Makes an interrupt cancel the transfers of a client, too.
    #[must_use]
    pub fn with_transfers(self, transfers: Cancellation) -> Self {
        Self { transfers: Some(transfers), ..self }
    }

    /// Sets the maximum duration of the build, which begins now. The caller must call
    /// [`Self::time_out`] then.
    #[must_use]
    pub fn with_timeout(self, limit: Option<Duration>) -> Self {
        let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Self { deadline, ..self }
    }

    /// Returns the time at which the build must have ended, and its maximum duration.
    #[must_use]
    pub const fn deadline(&self) -> Option<(Instant, Duration)> {
        self.deadline
    }

    /// Cancels the build because it takes longer than its maximum duration.
    pub fn time_out(&self) {
        self.set(TIMED_OUT);
        if let Some(transfers) = &self.transfers {
            transfers.cancel();
        }
    }

    /// Returns whether the build took longer than its maximum duration.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.state.load(Ordering::SeqCst) == TIMED_OUT
    }

    /// Cancels the build on behalf of the caller.
    pub fn interrupt(&self) {
        self.set(INTERRUPTED);
        if let Some(transfers) = &self.transfers {
            transfers.cancel();
        }
    }

    /// Cancels the build because a step failed.
    pub fn fail(&self) {
        self.set(FAILED);
    }

    fn set(&self, state: u8) {
        let first = self.state.compare_exchange(RUNNING, state, Ordering::SeqCst, Ordering::SeqCst);
        // A step that fails because the build ends is not the reason for its end.
        if first.is_ok() || state != FAILED {
            self.state.store(state, Ordering::SeqCst);
            // The byte is never read: the descriptor stays readable for every step that watches it.
            let _written = rustix::io::write(&self.write_end, b"x");
        }
    }

    /// Undoes [`Self::fail`]. Returns false if the caller has interrupted the build.
    pub(in crate::executor) fn undo_failure(&self) -> bool {
        let mut byte = [0; 1];
        // Without a byte in the pipe there is nothing to undo.
        let _read = rustix::io::read(&self.read_end, &mut byte);
        let state =
            self.state.compare_exchange(FAILED, RUNNING, Ordering::SeqCst, Ordering::SeqCst);
        if let Err(state @ (INTERRUPTED | TIMED_OUT)) = state {
            self.set(state);
            return false;
        }
        true
    }

    /// Does work that neither reads the switch nor leaves anything to clean up: a signal may end
    /// the process meanwhile.
    pub fn end_at_once_during<R>(&self, work: impl FnOnce() -> R) -> R {
        self.ends_at_once.store(!self.is_shared, Ordering::SeqCst);
        let done = work();
        self.ends_at_once.store(false, Ordering::SeqCst);
        done
    }

    /// True while a cancellation would have no effect, and the process can be ended without harm.
    #[must_use]
    pub fn ends_at_once(&self) -> bool {
        self.ends_at_once.load(Ordering::SeqCst)
    }

    /// Returns whether the build is cancelled, for any reason.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::SeqCst) != RUNNING
    }

    /// Returns whether the caller has cancelled the build.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.state.load(Ordering::SeqCst) == INTERRUPTED
    }

    /// Returns a descriptor that is readable once the build is cancelled.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}
