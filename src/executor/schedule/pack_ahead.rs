//! Compression and upload of new layers while later steps run. They take most of the time of a push, and
//! steps often wait, as for a download.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::archive::Packing;
use crate::plan::{Base, Plan};
use crate::pool::{self, Scope};

use crate::executor::stack::Stack;
use crate::executor::{BuildOptions, CancelSwitch, Event, LayerUpload, Outcome, Services};
use crate::image::{self, ExportOptions};
use crate::store::StoredLayer;

/// Number of threads that upload layers: a small layer does not wait for a large one.
const UPLOADS_AT_ONCE: usize = 2;

/// Compresses and uploads layers.
#[derive(Debug)]
pub(in crate::executor) struct PackAhead {
    packings: Vec<Packing>,
    uploads: Vec<LayerUpload>,
    /// True once an upload has failed. The output that needs the layer tries again, and can explain it.
    upload_failed: AtomicBool,
    jobs: std::num::NonZeroUsize,
    /// The stages whose layers are in the images.
    stages: BTreeSet<usize>,
    queue: Mutex<PackQueue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PackQueue {
    waiting: VecDeque<NewLayer>,
    has_ended: bool,
}

/// The top layer of a stack, which a step has made.
#[derive(Debug)]
struct NewLayer {
    stack: Stack,
    /// True if a stage of the images made it.
    is_of_image: bool,
    /// True if no step follows on this stack.
    is_last: bool,
}

/// Ends the work when it is dropped, also by a panic. Layers that are not begun by then are left to
/// the outputs, which handle several at once.
#[derive(Debug)]
pub(in crate::executor) struct PackAheadGuard<'a>(&'a PackAhead);

impl Drop for PackAheadGuard<'_> {
    fn drop(&mut self) {
        self.0.queue().has_ended = true;
        self.0.changed.notify_all();
    }
}

impl PackAhead {
    pub(in crate::executor) fn new(plan: &Plan, options: &BuildOptions) -> Self {
        // A caller that allows one thread wants nothing beside the steps.
        let (packings, uploads) = if options.jobs.get() > 1 {
            (options.pack_ahead.clone(), options.upload_ahead.clone())
        } else {
            (Vec::new(), Vec::new())
        };
        Self {
            packings,
            uploads,
            upload_failed: AtomicBool::new(false),
            jobs: options.jobs,
            stages: stages_of_images(plan),
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Starts threads that work until the result is dropped.
    pub(in crate::executor) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        services: &'scope Services<'scope>,
    ) -> PackAheadGuard<'scope> {
        let n_threads = match (self.uploads.is_empty(), self.packings.is_empty()) {
            (false, _) => UPLOADS_AT_ONCE,
            (true, false) => 1,
            (true, true) => 0,
        };
        for _ in 0..n_threads {
            // Without the thread, layers are handled when an output needs them.
            drop(pool::start(scope, move || self.work(services)));
        }
        PackAheadGuard(self)
    }

    /// Queues the top layer of `stack`, which a step of `stage` made.
    pub(in crate::executor) fn offer(
        &self,
        stage: usize,
        outcome: Outcome,
        stack: &Stack,
        is_last: bool,
    ) {
        let is_of_image = self.stages.contains(&stage);
        let is_packed = is_of_image && !self.packings.is_empty();
        let is_uploaded = self.uploads.iter().any(|to| is_of_image || to.all_stages);
        if outcome == Outcome::Done && (is_packed || is_uploaded) {
            let stack = stack.clone();
            self.queue().waiting.push_back(NewLayer { stack, is_of_image, is_last });
            self.changed.notify_one();
        }
    }

    /// Compresses and uploads layers. Errors are ignored: the output that needs the layer meets the same
    /// error, and can explain it.
    fn work(&self, services: &Services<'_>) {
        let mut sink = CancellableSink(services.cancel);
        while let Some(NewLayer { stack, is_of_image, is_last }) = self.next() {
            let Ok(Some(layer)) = stack.top() else { continue };
            // The build would wait for it; the outputs send it together with the documents.
            if is_last && layer.record.tar_bytes <= image::LARGE_BYTES {
                continue;
            }
            for to in self.uploads.iter().filter(|to| is_of_image || to.all_stages) {
                self.upload(services, &layer, to);
            }
            for packing in self.packings.iter().filter(|_| is_of_image) {
                let (store, jobs) = (services.store, self.jobs);
                drop(store.pack_and_copy(layer.diff_id, *packing, jobs, &mut sink));
            }
        }
    }

    /// Uploads a layer; shows a step if that may take a while.
    fn upload(&self, services: &Services<'_>, layer: &StoredLayer, to: &LayerUpload) {
        let keeps_going =
            || !services.cancel.is_set() && !self.upload_failed.load(Ordering::Relaxed);
        if !keeps_going() {
            return;
        }
        let (diff_id, name) = (layer.diff_id, &to.name);
        let step = (layer.record.tar_bytes > image::LARGE_BYTES).then(|| {
            services.start(format!("[internal] push layer {} to {name}", diff_id.digest()))
        });
        let done_bytes = AtomicU64::new(0);
        let progress = |more: u64| {
            let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
            if let Some(step) = &step {
                // The size of a layer that is not compressed yet is not known.
                services.event(Event::Progress { step: step.id, done_bytes, total_bytes: 0 });
            }
        };
        let options = ExportOptions::of_layers(to.packing, self.jobs);
        let (store, registry) = (services.store, services.registry);
        let sent =
            image::push_layer(store, registry, diff_id, name, &options, &keeps_going, &progress);
        if let Some(step) = step {
            services.finish(step, if sent.is_ok() { Outcome::Done } else { Outcome::Cancelled });
        }
        if let Err(error) = sent {
            tracing::debug!(layer = %diff_id, to = %name, %error, "layer not uploaded early");
            self.upload_failed.store(true, Ordering::Relaxed);
        }
    }

    fn next(&self) -> Option<NewLayer> {
        let mut queue = self.queue();
        loop {
            if queue.has_ended {
                return None;
            }
            if let Some(layer) = queue.waiting.pop_front() {
                return Some(layer);
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
