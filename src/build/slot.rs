//! A value that one thread makes and others wait for.

use std::sync::{Condvar, Mutex, PoisonError};

use super::Failure;

/// A place for a result that is set once.
#[derive(Debug)]
pub(super) struct Slot<T> {
    value: Mutex<Option<Result<T, Failure>>>,
    set: Condvar,
}

impl<T: Clone> Slot<T> {
    pub(super) const fn new() -> Self {
        Self { value: Mutex::new(None), set: Condvar::new() }
    }

    pub(super) const fn filled(value: T) -> Self {
        Self { value: Mutex::new(Some(Ok(value))), set: Condvar::new() }
    }

    /// Sets the result; everybody who waits goes on.
    pub(super) fn fill(&self, value: Result<T, Failure>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.set.notify_all();
    }

    /// Waits for the result.
    pub(super) fn wait(&self) -> Result<T, Failure> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = &*value {
                return value.clone();
            }
            value = self.set.wait(value).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
