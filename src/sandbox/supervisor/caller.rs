//! Facts about the process whose call the supervisor answers.
//!
//! One call asks for the same facts several times. The process waits meanwhile, so its identity cannot
//! change. A directory that another thread replaces is the one that was found first.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Result;

use super::Supervisor;
use super::identity::ProcessState;
use super::mounts::id_of;
use super::target::Target;
use crate::sandbox::attributes::FileId;

/// Facts about a caller, each looked up once.
#[derive(Debug, Default)]
pub(super) struct Caller {
    states: RefCell<Vec<(Target, Arc<ProcessState>)>>,
    starts: RefCell<Vec<(Target, i32, Arc<Start>)>>,
}

/// A directory at which relative paths start.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) directory: OwnedFd,
    pub(super) id: FileId,
    /// The mount that it is in; `None` for the root.
    pub(super) mount: Option<usize>,
}

impl Caller {
    /// Forgets everything: the call was answered.
    pub(super) fn forget(&mut self) {
        self.states.get_mut().clear();
        self.starts.get_mut().clear();
    }

    /// Returns the state of a process, which `read` looks up.
    pub(super) fn state(
        &self,
        target: Target,
        read: impl FnOnce() -> ProcessState,
    ) -> Arc<ProcessState> {
        let mut states = self.states.borrow_mut();
        if let Some((_, state)) = states.iter().find(|(of, _)| *of == target) {
            return Arc::clone(state);
        }
        let state = Arc::new(read());
        states.push((target, Arc::clone(&state)));
        state
    }
}

impl Supervisor {
    /// Returns the directory that an argument of an `*at` call stands for.
    pub(super) fn start(&self, target: Target, number: i32) -> Result<Arc<Start>> {
        let mut starts = self.caller.starts.borrow_mut();
        let is_this = |of: Target, at: i32| of == target && at == number;
        if let Some((.., start)) = starts.iter().find(|(of, at, _)| is_this(*of, *at)) {
            return Ok(Arc::clone(start));
        }
        let directory = target.directory(number)?;
        let id = id_of(&directory)?;
        let start = Arc::new(Start { id, mount: self.mount_of(&directory), directory });
        starts.push((target, number, Arc::clone(&start)));
        Ok(start)
    }
}
