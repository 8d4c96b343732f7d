//! Compression of the image's layers while later steps run. It takes most of the time of a push,
//! and steps often wait, as for a download.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::archive::Packing;
use crate::plan::{Base, Plan};
use crate::pool::{self, Scope};

use crate::executor::stack::Stack;
use crate::executor::{BuildOptions, CancelSwitch, Outcome, Services};

/// Compresses layers, one after the other.
#[derive(Debug)]
pub(in crate::executor) struct PackAhead {
    packings: Vec<Packing>,
    jobs: std::num::NonZeroUsize,
    /// The stages whose layers are in the images.
    stages: BTreeSet<usize>,
    queue: Mutex<PackQueue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PackQueue {
    waiting: VecDeque<Stack>,
    has_ended: bool,
}

/// Ends the work when it is dropped, also by a panic. Layers that are not begun by then are left to
/// the outputs, which compress several at once.
#[derive(Debug)]
pub(in crate::executor) struct PackAheadGuard<'a>(&'a PackAhead);

impl Drop for PackAheadGuard<'_> {
    fn drop(&mut self) {
        self.0.queue().has_ended = true;
        self.0.changed.notify_one();
    }
}

impl PackAhead {
    pub(in crate::executor) fn new(plan: &Plan, options: &BuildOptions) -> Self {
        // A caller that allows one thread wants nothing beside the steps.
        let stages = if options.jobs.get() > 1 { stages_of_images(plan) } else { BTreeSet::new() };
        Self {
            packings: options.pack_ahead.clone(),
            jobs: options.jobs,
            stages,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Starts a thread that works until the result is dropped.
    pub(in crate::executor) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        services: &'scope Services<'scope>,
    ) -> PackAheadGuard<'scope> {
        if !self.packings.is_empty() {
            // Without the thread, layers are compressed when an output needs them.
            drop(pool::start(scope, move || self.work(services)));
        }
        PackAheadGuard(self)
    }

    /// Queues the top layer of `stack`, which a step of `stage` made.
    pub(in crate::executor) fn offer(&self, stage: usize, outcome: Outcome, stack: &Stack) {
        let goes_out = outcome == Outcome::Done && self.stages.contains(&stage);
        if goes_out && !self.packings.is_empty() {
            self.queue().waiting.push_back(stack.clone());
            self.changed.notify_one();
        }
    }

    /// Compresses layers. Errors are ignored: the output that needs the layer meets the same error,
    /// and can explain it.
    fn work(&self, services: &Services<'_>) {
        let mut sink = CancellableSink(services.cancel);
        while let Some(stack) = self.next() {
            let Ok(Some(layer)) = stack.top() else { continue };
            for packing in &self.packings {
                let (store, jobs) = (services.store, self.jobs);
                drop(store.pack_and_copy(layer.diff_id, *packing, jobs, &mut sink));
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
            queue = pool::wait(&self.changed, queue);
        }
    }

    fn queue(&self) -> MutexGuard<'_, PackQueue> {
        // A queue is whole between calls.
        pool::lock(&self.queue)
    }
}

/// A sink whose writes fail once the build is cancelled.
struct CancellableSink<'a>(&'a CancelSwitch);

impl Write for CancellableSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.is_set() { Err(io::Error::other("stopped")) } else { Ok(bytes.len()) }
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
