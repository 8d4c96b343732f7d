//! Layers of the build's stacks: reports of finished layers, and access to them as directories and
//! trees.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::diag::Span;
use crate::oci::DiffId;
use crate::plan::{self, CopyFrom, ImageRequest};
use crate::pool::{self, Scope};
use crate::store::{LayerOptions, LowerDirectory, StoredLayer};
use crate::tree::{LayerEntries as _, LayerItem, Tree};

use super::BuildState;
use super::root_directories::RootKind;
use crate::executor::active_step::ActiveStep;
use crate::executor::error::unshared;
use crate::executor::inputs::image_layers::PULLS_AT_ONCE;
use crate::executor::outline::Outline;
use crate::executor::stack::{LayerListing, Stack, StackLayer};
use crate::executor::{BuildError, Event, Failure, Outcome, StepId};

type Result<T> = std::result::Result<T, Failure>;

impl BuildState<'_> {
    /// Reports the layer of a step. An equal step of another stage may still be making it.
    pub(in crate::executor) fn report_layer<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        step: StepId,
        stack: &Stack,
    ) {
        if let Some(layer) = stack.ready_top() {
            return self.report_made(step, &layer);
        }
        let stack = stack.clone();
        pool::start_or_run(scope, move || {
            // The step that makes the layer reports its error.
            if let Ok(Some(layer)) = stack.top() {
                self.report_made(step, &layer);
            }
        });
    }

    /// Reports that this is the step's layer.
    pub(in crate::executor) fn report_made(&self, step: StepId, layer: &StoredLayer) {
        let (layer, n_bytes) = (layer.diff_id, layer.record.tar_bytes);
        self.services.event(Event::Made { step, layer, n_bytes });
    }

    /// Returns the directories to mount, base first, and unpacks layers if needed: shows a step if a
    /// base image is unpacked. `span` is the instruction that needs them.
    pub(in crate::executor) fn shown_directories(
        &self,
        stack: &Stack,
        span: Span,
    ) -> Result<Vec<LowerDirectory>> {
        let unpacking = OnceCell::new();
        let directories = self.directories_with(stack, span, &|layer| {
            unpacking.get_or_init(|| self.start_unpacking(layer));
        });
        if let Some(step) = unpacking.into_inner() {
            self.services
                .finish(step, if directories.is_ok() { Outcome::Done } else { Outcome::Failed });
        }
        directories
    }

    /// Returns the directories to mount, base first, and shows no step if a base image is unpacked.
    pub(in crate::executor) fn directories(
        &self,
        stack: &Stack,
        span: Span,
    ) -> Result<Vec<LowerDirectory>> {
        self.directories_with(stack, span, &|_layer| {})
    }

    /// Returns the directories; calls `begin` before a base image's layer is unpacked.
    fn directories_with(
        &self,
        stack: &Stack,
        span: Span,
        begin: &dyn Fn(&StoredLayer),
    ) -> Result<Vec<LowerDirectory>> {
        let options = self.options.layer_options();
        let store = self.services.store;
        let unpack = |layer: &StoredLayer, below: Option<&Stack>| {
            self.ensure_layer(layer, Some(&options))?;
            let unpacked = match below {
                Some(below) => {
                    let below = below.diff_ids()?;
                    store.unpacked_on(layer.diff_id, &below, &options, &|| begin(layer))
                }
                None => store.unpacked(layer.diff_id, &options),
            };
            let span =
                self.images.image_of(layer.diff_id).and_then(|image| image.span).unwrap_or(span);
            Ok(unpacked.map_err(|error| BuildError::from(error).at(span))?)
        };
        let flatten = |layers: &[LowerDirectory]| {
            let flat = store.flat_directory(layers);
            Ok(flat.map_err(|error| BuildError::from(error).at(span))?)
        };
        let merges = self.root_kind() == RootKind::Overlay;
        self.while_fetching(stack.not_unpacked(), Some(&options), || {
            stack.directories(&unpack, &flatten, merges)
        })
    }

    /// Runs `work`, and fetches those of its layers that are missing meanwhile, several at once. Unpacks them
    /// if `unpack` says how.
    fn while_fetching<R>(
        &self,
        layers: Vec<(StoredLayer, Arc<StackLayer>)>,
        unpack: Option<&LayerOptions>,
        work: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let missing = self.missing(layers)?;
        // The first is fetched by `work` itself.
        let Some(n_ahead) = missing.len().checked_sub(1) else { return work() };
        let missing = Mutex::new(missing.into_iter().skip(1));
        let failed = AtomicBool::new(false);
        pool::scope(|scope| {
            for _ in 0..n_ahead.min(PULLS_AT_ONCE - 1) {
                let started = pool::start(scope, || {
                    while !failed.load(Ordering::Relaxed) {
                        let Some((diff_id, layer)) = pool::lock(&missing).next() else { break };
                        if self.images.fetch_ahead(self.services, diff_id, unpack)
                            && let Some(options) = unpack
                        {
                            let store = self.services.store;
                            layer.unpack_ahead(|layer| store.unpacked(layer, options).ok());
                        }
                    }
                });
                // Without further threads `work` fetches one layer after the other.
                if started.is_err() {
                    break;
                }
            }
            let done = work();
            failed.store(done.is_err(), Ordering::Relaxed);
            done
        })
    }

    /// Returns the layers that the store lacks, of each image only one: they are pulled together.
    fn missing(
        &self,
        layers: Vec<(StoredLayer, Arc<StackLayer>)>,
    ) -> Result<Vec<(DiffId, Arc<StackLayer>)>> {
        let mut missing = Vec::new();
        let mut images = BTreeSet::new();
        for (StoredLayer { diff_id, .. }, layer) in layers {
            if self.services.store.has_layer(diff_id).map_err(BuildError::from)? {
                continue;
            }
            let image = self.images.image_of(diff_id).map(|image| image.digest);
            if image.is_none_or(|image| images.insert(image)) {
                missing.push((diff_id, layer));
            }
        }
        Ok(missing)
    }

    /// Returns whether a file system that is an overlay itself can hold the unpacked layers: there are no
    /// whiteouts on it (`ovl_mknod`, fs/overlayfs/dir.c).
    pub(in crate::executor) fn is_unpackable_on_overlay(&self, stack: &Stack) -> Result<bool> {
        stack.are_mounted_singly(&|layer| {
            self.ensure_layer(layer, None)?;
            let listing = self.services.store.listing(layer.diff_id).map_err(BuildError::from)?;
            let removes =
                |item: &LayerItem| matches!(item, LayerItem::Whiteout | LayerItem::Opaque);
            Ok(!listing.stream().any(|entry| removes(&entry.item)))
        })
    }

    /// Starts the step that shows the unpacking of a base image, of which this is the first layer.
    fn start_unpacking(&self, layer: &StoredLayer) -> ActiveStep {
        let image = self.images.image_of(layer.diff_id).map(|image| image.name.to_string());
        let image = image.unwrap_or_else(|| format!("layer {}", layer.diff_id.digest()));
        self.services.start(format!("[internal] unpack {image}"))
    }

    /// Returns the merged file tree of a stack.
    pub(in crate::executor) fn tree(&self, stack: &Stack) -> Result<Tree> {
        self.while_fetching(stack.without_tree(), None, || {
            stack.tree(self.services.store, &|layer| self.ensure_layer(layer, None))
        })
    }

    /// Returns the merged file tree of a stack without the contents of layers that are still hashed. Layers
    /// that are missing are fetched, unless a cache has their listings.
    pub(in crate::executor) fn outline(&self, stack: &Stack) -> Result<Outline> {
        let (store, caches) = (self.services.store, self.caches);
        let mut missing = stack.without_tree();
        missing.retain(|(layer, _)| !store.has_layer(layer.diff_id).unwrap_or_default());
        caches.read_listings(self.services, missing.iter().map(|(layer, _)| layer.diff_id));
        missing.retain(|(layer, _)| caches.claimed_listing(layer.diff_id).is_none());
        self.while_fetching(missing, None, || {
            stack.outline(&|layer| {
                if !store.has_layer(layer.diff_id)?
                    && let Some((listing, origin)) = caches.claimed_listing(layer.diff_id)
                {
                    return Ok(LayerListing::Claimed(listing, origin));
                }
                self.ensure_layer(layer, None)?;
                Ok(LayerListing::Stored(store.listing(layer.diff_id)?))
            })
        })
    }

    /// Returns the outline of a stack that a later step mounts: layers that are missing are unpacked at
    /// once, which lists them, too; in `scope` if caches list all of them already. `span` is the instruction
    /// that needs the outline.
    pub(in crate::executor) fn outline_to_mount<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        stack: &Stack,
        span: Span,
    ) -> Result<Outline> {
        let missing = self.missing(stack.not_unpacked())?;
        if missing.is_empty() {
            return self.outline(stack);
        }
        if missing.iter().all(|(layer, _)| self.caches.lists(*layer)) {
            let stack = stack.clone();
            // The mount meets the same error, and reports it.
            let fetching = pool::start(scope, move || drop(self.shown_directories(&stack, span)));
            drop(fetching);
        } else {
            self.shown_directories(stack, span)?;
        }
        self.outline(stack)
    }

    /// Pulls the base image that a layer belongs to, if the store lacks the layer. Unpacks it meanwhile if
    /// `unpack` says how.
    fn ensure_layer(
        &self,
        layer: &StoredLayer,
        unpack: Option<&LayerOptions>,
    ) -> std::result::Result<(), BuildError> {
        if self.services.store.has_layer(layer.diff_id)? {
            return Ok(());
        }
        self.images.fetch_layer(self.services, layer.diff_id, unpack)
    }

    /// Returns the layers that a COPY takes its sources from; `None` for a context.
    pub(in crate::executor) fn source_stack(
        &self,
        operation: &plan::CopyOperation,
    ) -> Result<Option<Stack>> {
        Ok(match &operation.from {
            CopyFrom::Context | CopyFrom::Named(_) => None,
            CopyFrom::Stage(number) => Some(self.stage(*number)?.stack),
            CopyFrom::Image(request) => Some(self.images.stack(request)),
        })
    }

    pub(in crate::executor) fn stage_tree(
        &self,
        number: usize,
    ) -> std::result::Result<Tree, BuildError> {
        let tree = self.stage(number).and_then(|done| self.tree(&done.stack));
        tree.map_err(unshared)
    }

    pub(in crate::executor) fn image_tree(
        &self,
        request: &ImageRequest,
    ) -> std::result::Result<Tree, BuildError> {
        self.tree(&self.images.stack(request)).map_err(unshared)
    }
}
