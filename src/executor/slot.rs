//! A value that one thread makes and others wait for.

use std::sync::{Condvar, Mutex};

use crate::pool;

use super::{BuildError, Failure};

/// A result that is set once.
#[derive(Debug)]
pub(in crate::executor) struct Slot<T> {
    value: Mutex<Option<Result<T, Failure>>>,
    set: Condvar,
}

/// Sets the result when it is dropped, also by a panic.
struct Filling<'a, T: Clone> {
    slot: &'a Slot<T>,
    value: Result<T, Failure>,
}

impl<T: Clone> Drop for Filling<'_, T> {
    fn drop(&mut self) {
        let value = Some(self.value.clone());
        *pool::lock(&self.slot.value) = value;
        self.slot.set.notify_all();
    }
}

impl<T: Clone> Slot<T> {
    pub(in crate::executor) const fn new() -> Self {
        Self { value: Mutex::new(None), set: Condvar::new() }
    }

    pub(in crate::executor) const fn filled(value: T) -> Self {
        Self { value: Mutex::new(Some(Ok(value))), set: Condvar::new() }
    }

    /// Sets the result to that of `work`, and wakes all threads that wait. A panic of `work` passes
    /// through; the waiting threads get [`BuildError::Stopped`].
    pub(in crate::executor) fn fill(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut filling = Filling { slot: self, value: Err(Failure::new(BuildError::Stopped)) };
        filling.value = work();
        filling.value.clone()
    }

    /// Returns the result if it is set already.
    pub(in crate::executor) fn peek(&self) -> Option<Result<T, Failure>> {
        pool::lock(&self.value).clone()
    }

    /// Waits for the result and returns it.
    pub(in crate::executor) fn wait(&self) -> Result<T, Failure> {
        let mut value = pool::lock(&self.value);
        loop {
            if let Some(value) = &*value {
                return value.clone();
            }
            value = pool::wait(&self.set, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_threads_continue_after_a_panic() {
        let slot: Slot<u32> = Slot::new();
        pool::scope(|scope| {
            let filling = scope.spawn(|| slot.fill(|| panic!("on purpose")));
            let waited = slot.wait();
            assert!(matches!(*waited.unwrap_err(), BuildError::Stopped));
            assert!(filling.join().is_err());
        });
        let empty: Slot<u32> = Slot::new();
        assert!(empty.peek().is_none());
        assert_eq!(slot.fill(|| Ok(7)).unwrap(), 7);
        assert_eq!(slot.peek().unwrap().unwrap(), 7);
        assert_eq!(slot.wait().unwrap(), 7);
    }
}
