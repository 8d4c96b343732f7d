//! One switch that ends a build: thrown by the caller (Ctrl-C) or by the first step that fails.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustix::pipe::PipeFlags;

use crate::registry::Halt;

const RUNNING: u8 = 0;
const FAILED: u8 = 1;
const INTERRUPTED: u8 = 2;

/// A switch that is thrown once. Running commands watch its descriptor.
#[derive(Debug)]
pub struct Stop {
    state: AtomicU8,
    watched: OwnedFd,
    thrown: OwnedFd,
    /// True while the build computes a plan, which never looks at the switch.
    is_planning: AtomicBool,
    /// Ends transfers when the caller wants it; for a failed step's sake they go on, since caches
    /// are written then.
    transfers: Option<Halt>,
}

impl Stop {
    /// A switch that is not thrown.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn new() -> std::io::Result<Self> {
        let (watched, thrown) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (state, is_planning) = (AtomicU8::new(RUNNING), AtomicBool::new(false));
        Ok(Self { state, watched, thrown, is_planning, transfers: None })
    }

    /// Has the caller's interrupt end the transfers of a client, too.
    #[must_use]
    pub fn with_transfers(self, transfers: Halt) -> Self {
        Self { transfers: Some(transfers), ..self }
    }

    /// Ends the build because the caller wants it.
    pub fn interrupt(&self) {
        self.throw(INTERRUPTED);
        if let Some(transfers) = &self.transfers {
            transfers.set();
        }
    }

    /// Ends the build because a step failed.
    pub fn fail(&self) {
        self.throw(FAILED);
    }

    fn throw(&self, state: u8) {
        let first = self.state.compare_exchange(RUNNING, state, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_ok() || state == INTERRUPTED {
            self.state.store(state, Ordering::SeqCst);
            // Nobody reads: the descriptor stays readable for every step that watches it.
            let _written = rustix::io::write(&self.thrown, b"x");
        }
    }

    /// Takes back that a step failed; false when the caller wants the end.
    pub(in crate::executor) fn take_back(&self) -> bool {
        let mut byte = [0; 1];
        // What is not there need not be read.
        let _read = rustix::io::read(&self.watched, &mut byte);
        let state =
            self.state.compare_exchange(FAILED, RUNNING, Ordering::SeqCst, Ordering::SeqCst);
        if state == Err(INTERRUPTED) {
            self.throw(INTERRUPTED);
            return false;
        }
        true
    }

    /// Does work that neither looks at the switch nor leaves anything to clean up: a signal may end
    /// the process meanwhile.
    pub fn planning<R>(&self, work: impl FnOnce() -> R) -> R {
        self.is_planning.store(true, Ordering::SeqCst);
        let done = work();
        self.is_planning.store(false, Ordering::SeqCst);
        done
    }

    /// True while throwing the switch would have no effect, and ending the process does no harm.
    #[must_use]
    pub fn is_planning(&self) -> bool {
        self.is_planning.load(Ordering::SeqCst)
    }

    /// Whether it was thrown.
    #[must_use]
    pub fn is_thrown(&self) -> bool {
        self.state.load(Ordering::SeqCst) != RUNNING
    }

    /// Whether the caller threw it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.state.load(Ordering::SeqCst) == INTERRUPTED
    }

    /// Readable once it is thrown.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}
