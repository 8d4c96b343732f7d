//! Layers of the image are packed as they will go out while the steps after them run: packing takes
//! the longest of all that a push does, and steps often wait, as for a download.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::archive::Packing;
use crate::plan::{Base, Plan};
use crate::pool::{self, Scope};

use crate::executor::stack::Stack;
use crate::executor::{BuildOptions, Outcome, Services, Stop};

/// Packs layers one after the other.
#[derive(Debug)]
pub(in crate::executor) struct PackAhead {
    packings: Vec<Packing>,
    jobs: std::num::NonZeroUsize,
    /// The stages whose layers the images have.
    stages: BTreeSet<usize>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Stack>,
    has_ended: bool,
}

/// Ends the work when it is dropped, if only because of a panic. What is not begun by then is left to
/// those who need it, who pack several layers at once.
#[derive(Debug)]
pub(in crate::executor) struct Ending<'a>(&'a PackAhead);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.queue().has_ended = true;
        self.0.changed.notify_one();
    }
}

impl PackAhead {
    pub(in crate::executor) fn new(plan: &Plan, options: &BuildOptions) -> Self {
        // Somebody who allows one thread wants nothing beside the steps.
        let stages = if options.jobs.get() > 1 { stages_of_images(plan) } else { BTreeSet::new() };
        Self {
            packings: options.pack_ahead.clone(),
            jobs: options.jobs,
            stages,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Works on a thread of its own until the result is dropped.
    pub(in crate::executor) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        services: &'scope Services<'scope>,
    ) -> Ending<'scope> {
        if !self.packings.is_empty() {
            // Without the thread, layers are packed when they are needed.
            drop(pool::start(scope, move || self.work(services)));
        }
        Ending(self)
    }

    /// A step of `stage` has put a layer on top of `stack`.
    pub(in crate::executor) fn offer(&self, stage: usize, outcome: Outcome, stack: &Stack) {
        let goes_out = outcome == Outcome::Done && self.stages.contains(&stage);
        if goes_out && !self.packings.is_empty() {
            self.queue().waiting.push_back(stack.clone());
            self.changed.notify_one();
        }
    }

    /// What fails is left, too: those who need the layer meet the error again, and can say what it
    /// means.
    fn work(&self, services: &Services<'_>) {
        let mut until_stopped = UntilStopped(services.stop);
        while let Some(stack) = self.next() {
            let Ok(Some(layer)) = stack.top() else { continue };
            for packing in &self.packings {
                let (store, jobs) = (services.store, self.jobs);
                drop(store.pack_beside(layer.diff_id, *packing, jobs, &mut until_stopped));
            }
        }
    }

    fn next(&self) -> Option<Stack> {
        let mut queue = self.queue();
        loop {
            if queue.has_ended {
                return None;
            }
            if let Some(stack) = queue.waiting.pop_front() {
                return Some(stack);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole between calls.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails once the build is stopped.
struct UntilStopped<'a>(&'a Stop);

impl Write for UntilStopped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.is_thrown() { Err(io::Error::other("stopped")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stages_of_images(plan: &Plan) -> BTreeSet<usize> {
    let mut stages = BTreeSet::new();
    let mut left: Vec<usize> = plan.targets.iter().map(|target| target.stage).collect();
    while let Some(number) = left.pop() {
        let stage = plan.stages.get(number);
        if stages.insert(number)
            && let Some(Base::Stage(parent)) = stage.map(|stage| &stage.base)
        {
            left.push(*parent);
        }
    }
    stages
}
