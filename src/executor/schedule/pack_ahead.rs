//! Compression and upload of new layers while later steps run. They take most of the time of a push, and
//! steps often wait, as for a download. A large layer of a RUN is compressed while it is hashed, and sent
//! at the same time.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::archive::Packing;
use crate::oci::Reference;
use crate::plan::{Base, Plan};
use crate::pool::{self, Scope};

use crate::executor::stack::Stack;
use crate::executor::{BuildOptions, CancelSwitch, Event, LayerUpload, Outcome, Services};
use crate::image::{self, ExportOptions};
use crate::registry::RegistryError;
use crate::store::StoredLayer;

use super::hashing_pass::HashingPass;
use super::layer_stream::{LayerStream, WantedReader};

/// Number of threads that upload layers: a small layer does not wait for a large one.
const UPLOADS_AT_ONCE: usize = 2;

/// Maximum number of threads that compress one layer. A layer may be compressed for each upload and one more
/// while it is hashed, and each thread takes 2 MiB.
const PACKING_THREADS: NonZeroUsize = NonZeroUsize::new(3).expect("it is not 0");

/// Compresses and uploads layers.
#[derive(Debug)]
pub(in crate::executor) struct PackAhead {
    packings: Vec<Packing>,
    uploads: Vec<LayerUpload>,
    /// True once an upload has failed. The output that needs the layer tries again, and can explain it.
    upload_failed: AtomicBool,
    /// Number of threads that compress one layer.
    jobs: NonZeroUsize,
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

/// The top layer of a stack, which a step of a stage has made.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct OfferedLayer<'a> {
    pub(in crate::executor) stage: usize,
    pub(in crate::executor) stack: &'a Stack,
    /// True if no step follows on this stack.
    pub(in crate::executor) is_last: bool,
}

/// A layer in the queue.
#[derive(Debug)]
struct NewLayer {
    stack: Stack,
    /// True if a stage of the images made it.
    is_of_image: bool,
    /// True if no step follows on this stack.
    is_last: bool,
    /// Of a layer that may be sent while it is hashed.
    stream: Option<Arc<LayerStream>>,
}

/// Ends the work when it is dropped, also by a panic. Layers that are not begun by then are left to
/// the outputs, which handle several at once. Those that are still hashed are sent meanwhile.
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
            jobs: options.jobs.min(PACKING_THREADS),
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

    /// Queues a layer.
    pub(in crate::executor) fn offer(&self, layer: OfferedLayer<'_>) {
        if self.is_wanted(layer.stage) {
            self.queue_layer(layer, None);
        }
    }

    /// Queues a layer that the RUN `step` made and that is not hashed yet. The caller hashes it with the
    /// result.
    pub(in crate::executor) fn offer_pending<'a>(
        &self,
        services: &'a Services<'a>,
        layer: OfferedLayer<'_>,
        step: String,
    ) -> Option<HashingPass<'a>> {
        if !self.is_wanted(layer.stage) {
            return None;
        }
        let stream = Arc::new(LayerStream::new(step));
        self.queue_layer(layer, Some(Arc::clone(&stream)));
        let is_of_image = self.stages.contains(&layer.stage);
        let to = self.uploads_of(is_of_image).next().filter(|_to| self.keeps_going(services));
        let first_packing = self.packings.first().filter(|_| is_of_image).copied();
        let packing = to.map(|to| to.packing).or(first_packing);
        Some(HashingPass::new(services, stream, (packing, self.jobs), to))
    }

    fn is_wanted(&self, stage: usize) -> bool {
        let is_of_image = self.stages.contains(&stage);
        is_of_image && !self.packings.is_empty() || self.uploads_of(is_of_image).next().is_some()
    }

    /// Returns the uploads of a layer.
    fn uploads_of(&self, is_of_image: bool) -> impl Iterator<Item = &LayerUpload> {
        self.uploads.iter().filter(move |to| is_of_image || to.all_stages)
    }

    fn queue_layer(&self, layer: OfferedLayer<'_>, stream: Option<Arc<LayerStream>>) {
        let OfferedLayer { stage, stack, is_last } = layer;
        let (stack, is_of_image) = (stack.clone(), self.stages.contains(&stage));
        self.queue().waiting.push_back(NewLayer { stack, is_of_image, is_last, stream });
        self.changed.notify_one();
    }

    /// Compresses and uploads layers. Errors are ignored: the output that needs the layer meets the same
    /// error, and can explain it.
    fn work(&self, services: &Services<'_>) {
        let mut sink = CancellableSink(services.cancel);
        while let Some((layer, is_late)) = self.next() {
            let NewLayer { stack, is_of_image, is_last, stream } = layer;
            let sent = stream.and_then(|stream| self.send_stream(services, &stream));
            if is_late {
                continue;
            }
            let Ok(Some(layer)) = stack.top() else { continue };
            // The build would wait for it; the outputs send it together with the documents.
            if is_last && layer.record.tar_bytes <= image::LARGE_BYTES {
                continue;
            }
            for to in self.uploads_of(is_of_image).filter(|to| sent.as_ref() != Some(&to.name)) {
                self.upload(services, &layer, to);
            }
            for packing in self.packings.iter().filter(|_| is_of_image) {
                let (store, jobs) = (services.store, self.jobs);
                drop(store.pack_and_copy(layer.diff_id, *packing, jobs, &mut sink));
            }
        }
    }

    /// Sends a layer while it is hashed and compressed, and waits for its end. Returns the name in the
    /// repository that has got the blob.
    fn send_stream(&self, services: &Services<'_>, stream: &LayerStream) -> Option<Reference> {
        let Some((reader, to)) = stream.take() else {
            stream.wait();
            return None;
        };
        let keeps_going = || self.keeps_going(services);
        let mut reader = WantedReader { reader, stream, keeps_going: &keeps_going };
        let what = format!("layer of {}", stream.step());
        let sent = shown(services, &what, &to.name, true, |progress| {
            let mut upload = services.registry.start_upload(&to.name)?;
            upload.send(&mut reader, progress)?;
            let complete = stream.wait();
            let record = complete.as_ref().map(|blob| &blob.record);
            match record.filter(|record| record.bytes == upload.n_bytes()) {
                Some(record) => Ok(upload.finish(record.blob)?),
                // It was given up.
                None => Err(None::<RegistryError>),
            }
        });
        if let Err(error) = &sent {
            tracing::debug!(step = stream.step(), to = %to.name, ?error, "layer not sent early");
        }
        stream.wait();
        sent.is_ok().then_some(to.name)
    }

    fn keeps_going(&self, services: &Services<'_>) -> bool {
        !services.cancel.is_set() && !self.upload_failed.load(Ordering::Relaxed)
    }

    /// Uploads a layer; shows a step if that may take a while.
    fn upload(&self, services: &Services<'_>, layer: &StoredLayer, to: &LayerUpload) {
        let keeps_going = || self.keeps_going(services);
        if !keeps_going() {
            return;
        }
        let (diff_id, name) = (layer.diff_id, &to.name);
        let is_large = layer.record.tar_bytes > image::LARGE_BYTES;
        let what = format!("layer {}", diff_id.digest());
        let options = ExportOptions::of_layers(to.packing, self.jobs);
        let (store, registry) = (services.store, services.registry);
        let sent = shown(services, &what, name, is_large, |progress| {
            image::push_layer(store, registry, diff_id, name, &options, &keeps_going, progress)
        });
        if let Err(error) = sent {
            tracing::debug!(layer = %diff_id, to = %name, %error, "layer not uploaded early");
            self.upload_failed.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for a layer. Once the work has ended, returns only those that are still hashed, and true.
    fn next(&self) -> Option<(NewLayer, bool)> {
        let mut queue = self.queue();
        loop {
            if queue.has_ended {
                queue.waiting.retain(|layer| layer.stream.is_some());
                return queue.waiting.pop_front().map(|layer| (layer, true));
            }
            if let Some(layer) = queue.waiting.pop_front() {
                return Some((layer, false));
            }
            queue = pool::wait(&self.changed, queue);
        }
    }

    fn queue(&self) -> MutexGuard<'_, PackQueue> {
        // A queue is whole between calls.
        pool::lock(&self.queue)
    }
}

/// Pushes `what` to `name`, shown as a step if `is_shown`.
fn shown<T, E>(
    services: &Services<'_>,
    what: &str,
    name: &Reference,
    is_shown: bool,
    push: impl FnOnce(&(dyn Fn(u64) + Sync)) -> Result<T, E>,
) -> Result<T, E> {
    let step = is_shown.then(|| services.start(format!("[internal] push {what} to {name}")));
    let done_bytes = AtomicU64::new(0);
    let progress = |more: u64| {
        let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if let Some(step) = &step {
            // The size of a layer that is not compressed yet is not known.
            services.event(Event::Progress { step: step.id, done_bytes, total_bytes: 0 });
        }
    };
    let pushed = push(&progress);
    if let Some(step) = step {
        services.finish(step, if pushed.is_ok() { Outcome::Done } else { Outcome::Cancelled });
    }
    pushed
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
