//! The layers of a stage so far, as a list that stages share. A layer may still be hashed while the
//! next step runs on it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use crate::archive::PackedListing;
use crate::oci::DiffId;
use crate::plan::Chain;
use crate::pool;
use crate::sandbox;
use crate::store::{FlatDirectory, LowerDirectory, StepOrigin, Store, StoredLayer};
use crate::tree::{ContentDigest, Entry, Tree};

use super::outline::Outline;
use super::slot::Slot;
use super::{BuildError, Failure};

/// Number of lower directories collapsed into one read-only overlay. A mount costs more with each
/// directory, and so does each lookup of a name: at 300 layers a step took three times as long as
/// at ten.
const MERGED_AT: usize = 24;
/// Maximum number of layers that are mounted one by one; overlayfs takes 500 lower directories
/// (`OVL_MAX_STACK`).
const MAX_PLAIN: usize = 448;
/// Number of layers in a higher stack that become one directory of hard links.
const FLAT_LAYERS: usize = 256;

/// Returns the layers as one directory; `None` if the kernel does not stack overlays.
fn merged(layers: &[LayerDirectory]) -> Option<LowerDirectory> {
    let mut each = Vec::new();
    layers.iter().for_each(|layer| put_on_top(&mut each, layer));
    let layers: Vec<BorrowedFd<'_>> = each.iter().map(|layer| layer.open.as_fd()).collect();
    sandbox::merged_directories(&layers).ok().map(Arc::new)
}

/// A layer's unpacked form.
#[derive(Debug, Clone)]
struct LayerDirectory {
    open: LowerDirectory,
    /// Device and inode. Equal layers have the same directory.
    id: Option<(u64, u64)>,
}

impl LayerDirectory {
    fn new(open: LowerDirectory) -> Self {
        let id = rustix::fs::fstat(&open).ok().map(|stat| (stat.st_dev, stat.st_ino));
        Self { open, id }
    }
}

/// Puts a directory on top of others, and removes it further down. Overlayfs refuses a directory
/// that is listed twice, and the top one hides the other.
fn put_on_top(directories: &mut Vec<LayerDirectory>, directory: &LayerDirectory) {
    directories.retain(|below| below.id.is_none() || below.id != directory.id);
    directories.push(directory.clone());
}

/// Unpacks a layer. For a layer of a base image, gets the layers below, which decide how it is
/// unpacked.
type Unpack<'a> = dyn Fn(&StoredLayer, Option<&Stack>) -> Result<LowerDirectory, Failure> + 'a;

/// Flattens unpacked layers, base first, into one directory.
type Flatten<'a> = dyn Fn(&[LowerDirectory]) -> Result<FlatDirectory, Failure> + 'a;

/// One layer on top of others.
#[derive(Debug)]
pub(in crate::executor) struct StackLayer {
    parent: Stack,
    /// Chain of the operations that made this stack, independent of their results.
    definition: Chain,
    done: Slot<StoredLayer>,
    /// The changes that a RUN left, once they are listed. The list is freed when the layer is hashed.
    listed: Slot<Weak<Vec<Entry>>>,
    mounted: Mutex<Mounted>,
    content: OnceLock<Chain>,
    tree: OnceLock<Tree>,
    /// This layer and all below it, if one of them was not hashed yet when they were needed.
    outline: Mutex<Option<Outline>>,
    /// True for a layer of a base image, whose name by content is its DiffID.
    pulled: bool,
    /// True if it, or a layer below it, was made in this build.
    is_fresh: bool,
    /// The caches that it, or a layer below it, comes from.
    origin: StepOrigin,
    /// The caches whose listings were used in place of this layer or layers below it, for a step on top.
    claims: Mutex<StepOrigin>,
}

/// The representations of a layer that were made for mounts.
#[derive(Debug, Default)]
struct Mounted {
    /// The unpacked layer, once a mount has needed it.
    directory: Option<LayerDirectory>,
    /// This layer and all below it as one directory, if the stack is high; `Some(None)` if the
    /// kernel cannot make it.
    merged: Option<Option<LowerDirectory>>,
    /// This layer and [`FLAT_LAYERS`] - 1 below it as one directory, if the stack is very high.
    flat: Option<Arc<FlatDirectory>>,
}

/// A part of a stack that is mounted as one directory.
enum MountPart<'a> {
    Layer(&'a Arc<StackLayer>),
    Flat(&'a Arc<StackLayer>, LayerDirectory),
}

/// The files that a layer adds to an outline.
enum LayerFiles {
    Stored(StoredLayer),
    /// Not hashed yet: the contents of the listed files are in the directory.
    Listed(Arc<Vec<Entry>>, LowerDirectory),
}

/// The listing of a layer.
#[derive(Debug)]
pub(in crate::executor) enum LayerListing {
    /// Of a layer of the store.
    Stored(Arc<PackedListing>),
    /// That of a cache, for a layer that is not in the store; and its origin.
    Claimed(Arc<PackedListing>, StepOrigin),
}

/// The origin of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayerOrigin {
    Pulled,
    Found,
    Made,
}

/// A stack of layers; cloning shares it.
#[derive(Debug, Clone, Default)]
pub(in crate::executor) struct Stack {
    top: Option<Arc<StackLayer>>,
}

impl Stack {
    /// Returns the stack with a cached layer on top, whose record is from `origin`.
    pub(in crate::executor) fn with_found(
        &self,
        definition: &[u8; 32],
        done: StoredLayer,
        origin: &StepOrigin,
    ) -> Self {
        self.with(definition, Slot::filled(done), None, LayerOrigin::Found, origin)
    }

    /// Returns the stack with a new layer on top.
    pub(in crate::executor) fn with_done(&self, definition: &[u8; 32], done: StoredLayer) -> Self {
        self.with(definition, Slot::filled(done), None, LayerOrigin::Made, &StepOrigin::default())
    }

    /// Returns the stack with a base image's layer on top.
    pub(in crate::executor) fn with_pulled(&self, done: StoredLayer) -> Self {
        let name = *ContentDigest::of_pulled(done.diff_id).as_bytes();
        self.with(&name, Slot::filled(done), None, LayerOrigin::Pulled, &StepOrigin::default())
    }

    /// Returns the stack with a layer on top that is listed and hashed later. The next step may mount
    /// `directory` meanwhile.
    pub(in crate::executor) fn with_pending(
        &self,
        definition: &[u8; 32],
        directory: Option<LowerDirectory>,
    ) -> Self {
        self.with(definition, Slot::new(), directory, LayerOrigin::Made, &StepOrigin::default())
    }

    /// Returns the stack with a layer on top that is never made: only its definition may be used.
    pub(in crate::executor) fn with_unknown(&self, definition: &[u8; 32]) -> Self {
        self.with(definition, Slot::new(), None, LayerOrigin::Made, &StepOrigin::default())
    }

    fn with(
        &self,
        definition: &[u8; 32],
        done: Slot<StoredLayer>,
        directory: Option<LowerDirectory>,
        kind: LayerOrigin,
        origin: &StepOrigin,
    ) -> Self {
        let layer = StackLayer {
            parent: self.clone(),
            definition: self.definition().push(definition),
            done,
            listed: Slot::new(),
            mounted: Mutex::new(Mounted {
                directory: directory.map(LayerDirectory::new),
                ..Mounted::default()
            }),
            content: OnceLock::new(),
            tree: OnceLock::new(),
            outline: Mutex::default(),
            pulled: kind == LayerOrigin::Pulled,
            is_fresh: kind == LayerOrigin::Made || self.is_fresh(),
            origin: self.origin().and(origin),
            claims: Mutex::default(),
        };
        Self { top: Some(Arc::new(layer)) }
    }

    /// Sets the top layer to the result of `store`, which hashes `files`; first, `list` lists what changed.
    /// Threads that wait receive the errors, too.
    pub(in crate::executor) fn finish_top<F>(
        &self,
        files: &mut F,
        list: impl FnOnce(&mut F) -> Result<Weak<Vec<Entry>>, Failure>,
        store: impl FnOnce(&mut F) -> Result<StoredLayer, Failure>,
    ) {
        if let Some(top) = &self.top {
            let _result = top.done.fill(|| {
                top.listed.fill(|| list(files))?;
                store(files)
            });
        }
    }

    /// Returns the name of the stack by the operations that made it.
    pub(in crate::executor) fn definition(&self) -> Chain {
        self.top.as_ref().map_or_else(Chain::empty, |top| top.definition)
    }

    /// Returns whether a layer of it was made in this build. Then the store's record of a
    /// definition may belong to other layers of the same definition, and only their content counts.
    pub(in crate::executor) fn is_fresh(&self) -> bool {
        self.top.as_ref().is_some_and(|top| top.is_fresh)
    }

    /// Returns the caches that its layers come from, or that claimed what is in them: a step on top of it
    /// depends on them, too.
    pub(in crate::executor) fn origin(&self) -> StepOrigin {
        let Some(top) = &self.top else { return StepOrigin::default() };
        top.origin.and(&pool::lock(&top.claims))
    }

    /// Returns the name of the stack by content; waits for unfinished layers.
    pub(in crate::executor) fn content(&self) -> Result<Chain, Failure> {
        let (mut chain, mut unknown) = (Chain::empty(), Vec::new());
        let mut next = &self.top;
        while let Some(layer) = next {
            if let Some(known) = layer.content.get() {
                chain = *known;
                break;
            }
            unknown.push(layer);
            next = &layer.parent.top;
        }
        for layer in unknown.into_iter().rev() {
            let StoredLayer { diff_id, record } = layer.done.wait()?;
            let own = if layer.pulled { ContentDigest::of_pulled(diff_id) } else { record.content };
            chain = *layer.content.get_or_init(|| chain.push(own.as_bytes()));
        }
        Ok(chain)
    }

    /// Returns the height of the stack above and including the lowest layer that is not finished; 0 if all
    /// are.
    pub(in crate::executor) fn pending_height(&self) -> usize {
        let (mut height, mut pending) = (0, 0);
        let mut next = &self.top;
        while let Some(layer) = next.as_ref().filter(|layer| layer.content.get().is_none()) {
            height += 1;
            if layer.done.peek().is_none() {
                pending = height;
            }
            next = &layer.parent.top;
        }
        pending
    }

    /// Returns the top layer; waits for it.
    pub(in crate::executor) fn top(&self) -> Result<Option<StoredLayer>, Failure> {
        self.top.as_ref().map(|top| top.done.wait()).transpose()
    }

    /// Returns the top layer if it is finished.
    pub(in crate::executor) fn ready_top(&self) -> Option<StoredLayer> {
        self.top.as_ref()?.done.peek()?.ok()
    }

    /// Returns the layers, base first; waits for unfinished ones.
    pub(in crate::executor) fn layers(&self) -> Result<Vec<StoredLayer>, Failure> {
        self.list().iter().map(|layer| layer.done.wait()).collect()
    }

    /// Returns the DiffIDs of the layers, base first.
    pub(in crate::executor) fn diff_ids(&self) -> Result<Vec<DiffId>, Failure> {
        Ok(self.layers()?.into_iter().map(|layer| layer.diff_id).collect())
    }

    /// Returns whether a finished layer of it, not of the base image, is wanted.
    pub(in crate::executor) fn has_own_layer(&self, is_wanted: impl Fn(DiffId) -> bool) -> bool {
        self.list().into_iter().any(|layer| match layer.done.peek() {
            Some(Ok(done)) => !layer.pulled && is_wanted(done.diff_id),
            Some(Err(_)) | None => false,
        })
    }

    fn list(&self) -> Vec<&Arc<StackLayer>> {
        let mut layers = Vec::new();
        let mut next = &self.top;
        while let Some(layer) = next {
            layers.push(layer);
            next = &layer.parent.top;
        }
        layers.reverse();
        layers
    }

    /// Returns the directories that together hold the layers, base first, and unpacks layers if
    /// needed. In a high stack the first directory stands for many layers.
    ///
    /// `merges` is false where the layers are on an overlay: overlayfs stacks no more than two.
    pub(in crate::executor) fn directories(
        &self,
        unpack: &Unpack<'_>,
        flatten: &Flatten<'_>,
        merges: bool,
    ) -> Result<Vec<LowerDirectory>, Failure> {
        let mut each: Vec<LayerDirectory> = Vec::new();
        let mut directories: Vec<LayerDirectory> = Vec::new();
        let list = self.list();
        for part in parts(&list, unpack, flatten)? {
            let (layer, directory) = match part {
                MountPart::Layer(layer) => (layer, layer.directory(unpack)?),
                MountPart::Flat(layer, directory) => (layer, directory),
            };
            put_on_top(&mut directories, &directory);
            each.push(directory);
            if !merges || directories.len() < MERGED_AT {
                continue;
            }
            let mut mounted = layer.mounted();
            if let Some(merged) = mounted.merged.get_or_insert_with(|| merged(&each)) {
                directories = vec![LayerDirectory { open: Arc::clone(merged), id: None }];
            }
        }
        Ok(directories.into_iter().map(|directory| directory.open).collect())
    }

    /// Returns the finished layers that are not unpacked for mounts of this build.
    pub(in crate::executor) fn not_unpacked(&self) -> Vec<(StoredLayer, Arc<StackLayer>)> {
        self.finished(|layer| layer.mounted().directory.is_none())
    }

    /// Returns the finished layers from which no file tree was made in this build.
    pub(in crate::executor) fn without_tree(&self) -> Vec<(StoredLayer, Arc<StackLayer>)> {
        self.finished(|layer| layer.tree.get().is_none() && layer.outline().is_none())
    }

    fn finished(
        &self,
        is_wanted: impl Fn(&StackLayer) -> bool,
    ) -> Vec<(StoredLayer, Arc<StackLayer>)> {
        let list = self.list();
        let wanted = list.into_iter().filter(|layer| is_wanted(layer));
        wanted.filter_map(|layer| Some((layer.done.peek()?.ok()?, Arc::clone(layer)))).collect()
    }

    /// Returns whether the layers can be mounted one by one, and `is_plain` for those that are not
    /// unpacked yet; waits for these.
    pub(in crate::executor) fn are_mounted_singly(
        &self,
        is_plain: &dyn Fn(&StoredLayer) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let layers = self.list();
        if layers.len() > MAX_PLAIN {
            return Ok(false);
        }
        for layer in layers {
            let is_unpacked = layer.mounted().directory.is_some();
            if !is_unpacked && !is_plain(&layer.done.wait()?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the merged file tree; waits for unfinished layers. `prepare` makes sure that a
    /// layer's listing can be read.
    pub(in crate::executor) fn tree(
        &self,
        store: &Store,
        prepare: &dyn Fn(&StoredLayer) -> Result<(), BuildError>,
    ) -> Result<Tree, Failure> {
        let mut tree = Tree::default();
        for layer in self.list() {
            if let Some(known) = layer.tree.get() {
                tree = known.clone();
                continue;
            }
            let done = layer.done.wait()?;
            prepare(&done)?;
            tree.apply(&*store.listing(done.diff_id).map_err(BuildError::from)?);
            layer.set_tree(&tree);
        }
        Ok(tree)
    }

    /// Returns the merged file tree without the contents of layers that are still hashed; waits until the
    /// changes of each are listed. `list` returns a layer's listing.
    pub(in crate::executor) fn outline(
        &self,
        list: &dyn Fn(&StoredLayer) -> Result<LayerListing, BuildError>,
    ) -> Result<Outline, Failure> {
        let mut outline = Outline::default();
        for layer in self.list() {
            if let Some(known) = layer.tree.get() {
                outline = Outline::of_tree(known.clone());
                continue;
            }
            if let Some(known) = &*layer.outline() {
                outline = known.clone();
                continue;
            }
            match layer.files()? {
                LayerFiles::Listed(changes, directory) => outline.add_listed(&changes, directory),
                LayerFiles::Stored(done) => match list(&done)? {
                    LayerListing::Stored(listing) => outline.apply(&*listing),
                    LayerListing::Claimed(listing, origin) => {
                        outline.apply_claim(&*listing, &origin);
                    }
                },
            }
            match outline.as_tree() {
                Some(tree) => layer.set_tree(tree),
                None => *layer.outline() = Some(outline.clone()),
            }
        }
        if let Some(top) = self.top.as_ref().filter(|_| !outline.claims().is_own()) {
            let mut claims = pool::lock(&top.claims);
            *claims = claims.and(outline.claims());
        }
        Ok(outline)
    }
}

/// Splits layers, base first, into parts to mount: one by one, unless they are too many for the
/// kernel.
fn parts<'a>(
    list: &[&'a Arc<StackLayer>],
    unpack: &Unpack<'_>,
    flatten: &Flatten<'_>,
) -> Result<Vec<MountPart<'a>>, Failure> {
    if list.len() <= MAX_PLAIN {
        return Ok(list.iter().map(|layer| MountPart::Layer(layer)).collect());
    }
    // Base images have few layers and many files.
    let n_pulled = list.iter().take_while(|layer| layer.pulled).count();
    let n_plain = if n_pulled <= MAX_PLAIN - FLAT_LAYERS { n_pulled } else { 0 };
    let (plain, rest) = list.split_at_checked(n_plain).unwrap_or((&[], list));
    let mut parts: Vec<MountPart<'_>> = plain.iter().map(|layer| MountPart::Layer(layer)).collect();
    let mut chunks = rest.chunks_exact(FLAT_LAYERS);
    for chunk in chunks.by_ref() {
        let Some(top) = chunk.last() else { continue };
        let mut flat = top.mounted().flat.clone();
        if flat.is_none() {
            let made = flat_directory(chunk, unpack, flatten)?;
            // Another thread may have been first; both are the same.
            flat = Some(Arc::clone(top.mounted().flat.get_or_insert(made)));
            chunk.iter().for_each(|layer| layer.close());
        }
        let directory = flat.map(|flat| LayerDirectory::new(Arc::clone(flat.directory())));
        parts.extend(directory.map(|directory| MountPart::Flat(top, directory)));
    }
    parts.extend(chunks.remainder().iter().map(|layer| MountPart::Layer(layer)));
    Ok(parts)
}

fn flat_directory(
    layers: &[&Arc<StackLayer>],
    unpack: &Unpack<'_>,
    flatten: &Flatten<'_>,
) -> Result<Arc<FlatDirectory>, Failure> {
    let directories: Result<Vec<LowerDirectory>, Failure> = layers
        .iter()
        .map(|layer| layer.directory(unpack).map(|directory| directory.open))
        .collect();
    Ok(Arc::new(flatten(&directories?)?))
}

impl StackLayer {
    fn mounted(&self) -> MutexGuard<'_, Mounted> {
        // Each use sets one member to a whole value.
        pool::lock(&self.mounted)
    }

    fn outline(&self) -> MutexGuard<'_, Option<Outline>> {
        // Each use reads or sets the whole value.
        pool::lock(&self.outline)
    }

    /// Keeps the merged tree of this layer and all below it.
    fn set_tree(&self, tree: &Tree) {
        // Another thread may have been first; both trees are the same.
        let _same = self.tree.set(tree.clone());
        *self.outline() = None;
    }

    /// Returns the files of the layer; waits until they are listed.
    fn files(&self) -> Result<LayerFiles, Failure> {
        if let Some(done) = self.done.peek() {
            return done.map(LayerFiles::Stored);
        }
        let directory = self.mounted().directory.clone();
        if let Some(directory) = directory
            && let Some(changes) = self.listed.wait()?.upgrade()
        {
            return Ok(LayerFiles::Listed(changes, directory.open));
        }
        self.done.wait().map(LayerFiles::Stored)
    }

    /// Returns the unpacked layer; unpacks it if needed.
    fn directory(&self, unpack: &Unpack<'_>) -> Result<LayerDirectory, Failure> {
        // Locked meanwhile: another stage may need the same layer.
        let mut mounted = self.mounted();
        if let Some(directory) = &mounted.directory {
            return Ok(directory.clone());
        }
        let below = self.pulled.then_some(&self.parent);
        let directory = LayerDirectory::new(unpack(&self.done.wait()?, below)?);
        Ok(mounted.directory.insert(directory).clone())
    }

    /// Unpacks the layer with `unpack` unless it belongs to a base image: then the layers below decide how.
    /// An error has no effect: whoever needs the directory meets it, too.
    pub(in crate::executor) fn unpack_ahead(
        &self,
        unpack: impl FnOnce(DiffId) -> Option<LowerDirectory>,
    ) {
        if self.pulled {
            return;
        }
        // Locked meanwhile, as in `directory`.
        let mut mounted = self.mounted();
        if mounted.directory.is_none()
            && let Some(Ok(layer)) = self.done.peek()
        {
            mounted.directory = unpack(layer.diff_id).map(LayerDirectory::new);
        }
    }

    /// Closes the descriptors that only a mount of a lower stack needs. They can be opened again.
    fn close(&self) {
        *self.outline() = None;
        let mut mounted = self.mounted();
        mounted.merged = None;
        if matches!(self.done.peek(), Some(Ok(_))) {
            mounted.directory = None;
        }
    }
}

impl Drop for StackLayer {
    /// Drops the layers below in a loop: a recursion as deep as a stack is high would overflow the
    /// thread's stack.
    fn drop(&mut self) {
        let mut next = self.parent.top.take();
        while let Some(layer) = next {
            next = Arc::into_inner(layer).and_then(|mut layer| layer.parent.top.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::store::LayerRecord;

    #[test]
    fn stack_of_100000_layers_has_a_name_and_can_be_dropped() {
        let layer = |number: u32| StoredLayer {
            diff_id: DiffId::new(Digest::of(&number.to_le_bytes())),
            record: LayerRecord {
                content: ContentDigest::new([0; 32]),
                tar_bytes: 0,
                created_s: 0,
            },
        };
        let mut stack = Stack::default();
        for number in 0..100_000 {
            stack = stack.with_found(&[1; 32], layer(number), &StepOrigin::default());
        }
        let below = Stack::default().with_found(&[1; 32], layer(0), &StepOrigin::default());
        assert_ne!(stack.content().unwrap(), below.content().unwrap());
        drop(stack);
    }
}
