//! The layers of a stage so far, as a list that stages share: what each holds may still be in
//! the making while the next step runs on it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::oci::DiffId;
use crate::plan::Chain;
use crate::sandbox;
use crate::store::{FlatDirectory, LayerDone, LowerDirectory, StepOrigin, Store};
use crate::tree::{ContentDigest, Tree};

use super::slot::Slot;
use super::{BuildError, Failure};

/// So many directories are put together to one. A step's mount costs the more the more directories there
/// are, and so does each look for a name: at 300 layers a step took three times as long as at ten.
const MERGED_AT: usize = 24;
/// Layers of a stack that are mounted one by one; the kernel takes 500 lower directories.
const MAX_PLAIN: usize = 448;
/// Layers of a higher stack that become one directory.
const FLAT_LAYERS: usize = 256;

/// The layers as one directory; `None` where the kernel does not stack overlays: then each is used.
fn merged(layers: &[Directory]) -> Option<LowerDirectory> {
    let mut each = Vec::new();
    layers.iter().for_each(|layer| put_on_top(&mut each, layer));
    let layers: Vec<BorrowedFd<'_>> = each.iter().map(|layer| layer.open.as_fd()).collect();
    sandbox::merged_directories(&layers).ok().map(Arc::new)
}

/// A layer's unpacked form.
#[derive(Debug, Clone)]
struct Directory {
    open: LowerDirectory,
    /// Device and inode: layers that are equal have one directory.
    id: Option<(u64, u64)>,
}

impl Directory {
    fn new(open: LowerDirectory) -> Self {
        let id = rustix::fs::fstat(&open).ok().map(|stat| (stat.st_dev, stat.st_ino));
        Self { open, id }
    }
}

/// Puts a directory on top of others. If it is among them already, it goes from there: overlayfs takes no
/// directory twice, and what is on top hides all that it would show further down.
fn put_on_top(directories: &mut Vec<Directory>, directory: &Directory) {
    directories.retain(|below| below.id.is_none() || below.id != directory.id);
    directories.push(directory.clone());
}

/// Unpacks a layer; of a base image's, the layers below it are given, on which it has to fit.
type Unpack<'a> = dyn Fn(&LayerDone, Option<&Stack>) -> Result<LowerDirectory, Failure> + 'a;

/// Puts unpacked layers, base first, together into one directory.
type Flatten<'a> = dyn Fn(&[LowerDirectory]) -> Result<FlatDirectory, Failure> + 'a;

/// One layer on top of others.
#[derive(Debug)]
pub(in crate::executor) struct StackLayer {
    parent: Stack,
    /// What made this stack, without a look at what came of it.
    definition: Chain,
    done: Slot<LayerDone>,
    mounted: Mutex<Mounted>,
    content: OnceLock<Chain>,
    tree: OnceLock<Tree>,
    /// A layer of a base image has a name by content that needs no look into it.
    pulled: bool,
    /// Whether it, or one below it, was made in this build.
    is_fresh: bool,
    /// The caches that it, or one below it, comes from.
    origin: StepOrigin,
}

/// The representations of a layer that were made for mounts.
#[derive(Debug, Default)]
struct Mounted {
    /// The unpacked form, once a mount has needed it.
    directory: Option<Directory>,
    /// This layer and all below it as one directory, where the stack is high; `Some(None)` where the
    /// kernel does not make it.
    merged: Option<Option<LowerDirectory>>,
    /// This layer and [`FLAT_LAYERS`] - 1 below it as one directory, where the stack is very high.
    flat: Option<Arc<FlatDirectory>>,
}

/// A part of a stack that is mounted as one directory.
enum Part<'a> {
    Layer(&'a Arc<StackLayer>),
    Flat(&'a Arc<StackLayer>, Directory),
}

/// Where a layer is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
    /// The stack with a layer on top that a record from `origin` names.
    pub(in crate::executor) fn with_found(
        &self,
        definition: &[u8; 32],
        done: LayerDone,
        origin: &StepOrigin,
    ) -> Self {
        self.with(definition, Slot::filled(done), None, Kind::Found, origin)
    }

    /// The stack with a layer on top that was just made.
    pub(in crate::executor) fn with_done(&self, definition: &[u8; 32], done: LayerDone) -> Self {
        self.with(definition, Slot::filled(done), None, Kind::Made, &StepOrigin::default())
    }

    /// The stack with a base image's layer on top.
    pub(in crate::executor) fn with_pulled(&self, done: LayerDone) -> Self {
        let name = *ContentDigest::of_pulled(done.diff_id).as_bytes();
        self.with(&name, Slot::filled(done), None, Kind::Pulled, &StepOrigin::default())
    }

    /// The stack with a layer on top that is listed and hashed while the next step runs.
    pub(in crate::executor) fn with_pending(
        &self,
        definition: &[u8; 32],
        directory: LowerDirectory,
    ) -> Self {
        self.with(definition, Slot::new(), Some(directory), Kind::Made, &StepOrigin::default())
    }

    /// The stack with a layer on top that nobody makes: only its definition may be asked for.
    pub(in crate::executor) fn with_unknown(&self, definition: &[u8; 32]) -> Self {
        self.with(definition, Slot::new(), None, Kind::Made, &StepOrigin::default())
    }

    fn with(
        &self,
        definition: &[u8; 32],
        done: Slot<LayerDone>,
        directory: Option<LowerDirectory>,
        kind: Kind,
        origin: &StepOrigin,
    ) -> Self {
        let layer = StackLayer {
            parent: self.clone(),
            definition: self.definition().push(definition),
            done,
            mounted: Mutex::new(Mounted {
                directory: directory.map(Directory::new),
                ..Mounted::default()
            }),
            content: OnceLock::new(),
            tree: OnceLock::new(),
            pulled: kind == Kind::Pulled,
            is_fresh: kind == Kind::Made || self.is_fresh(),
            origin: self.origin().and(origin),
        };
        Self { top: Some(Arc::new(layer)) }
    }

    /// Fills in the top layer. That it failed, those learn who wait for it.
    pub(in crate::executor) fn finish_top(
        &self,
        work: impl FnOnce() -> Result<LayerDone, Failure>,
    ) {
        if let Some(top) = &self.top {
            drop(top.done.fill(work));
        }
    }

    /// The name of the stack by what made it.
    pub(in crate::executor) fn definition(&self) -> Chain {
        self.top.as_ref().map_or_else(Chain::empty, |top| top.definition)
    }

    /// Whether a layer of it was made in this build: then what the store remembers by definition
    /// may lie on another layer of the same definition, and only its content counts.
    pub(in crate::executor) fn is_fresh(&self) -> bool {
        self.top.as_ref().is_some_and(|top| top.is_fresh)
    }

    /// The caches that a layer of it comes from: a step on top of it relies on them, too.
    pub(in crate::executor) fn origin(&self) -> StepOrigin {
        self.top.as_ref().map(|top| top.origin.clone()).unwrap_or_default()
    }

    /// The name of the stack by what it holds; waits for layers in the making.
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
            let LayerDone { diff_id, record } = layer.done.wait()?;
            let own = if layer.pulled { ContentDigest::of_pulled(diff_id) } else { record.content };
            chain = *layer.content.get_or_init(|| chain.push(own.as_bytes()));
        }
        Ok(chain)
    }

    /// The layer on top; waits for it.
    pub(in crate::executor) fn top(&self) -> Result<Option<LayerDone>, Failure> {
        self.top.as_ref().map(|top| top.done.wait()).transpose()
    }

    /// The layer on top, if it is not still in the making.
    pub(in crate::executor) fn ready_top(&self) -> Option<LayerDone> {
        self.top.as_ref()?.done.peek()?.ok()
    }

    /// The layers, base first; waits for those in the making.
    pub(in crate::executor) fn layers(&self) -> Result<Vec<LayerDone>, Failure> {
        self.list().iter().map(|layer| layer.done.wait()).collect()
    }

    /// Their identities, base first.
    pub(in crate::executor) fn diff_ids(&self) -> Result<Vec<DiffId>, Failure> {
        Ok(self.layers()?.into_iter().map(|layer| layer.diff_id).collect())
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

    /// Directories that together hold the layers, base first; layers that are not unpacked yet are now.
    /// In a high stack the first of them stands for many layers.
    pub(in crate::executor) fn directories(
        &self,
        unpack: &Unpack<'_>,
        flatten: &Flatten<'_>,
    ) -> Result<Vec<LowerDirectory>, Failure> {
        let mut each: Vec<Directory> = Vec::new();
        let mut directories: Vec<Directory> = Vec::new();
        let list = self.list();
        for part in parts(&list, unpack, flatten)? {
            let (layer, directory) = match part {
                Part::Layer(layer) => (layer, layer.directory(unpack)?),
                Part::Flat(layer, directory) => (layer, directory),
            };
            put_on_top(&mut directories, &directory);
            each.push(directory);
            if directories.len() < MERGED_AT {
                continue;
            }
            let mut mounted = layer.mounted();
            if let Some(merged) = mounted.merged.get_or_insert_with(|| merged(&each)) {
                directories = vec![Directory { open: Arc::clone(merged), id: None }];
            }
        }
        Ok(directories.into_iter().map(|directory| directory.open).collect())
    }

    /// The merged file tree; waits for layers in the making. `prepare` sees that a layer's listing
    /// can be read.
    pub(in crate::executor) fn tree(
        &self,
        store: &Store,
        prepare: &dyn Fn(&LayerDone) -> Result<(), BuildError>,
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
            // Another thread may have been first; both trees are the same.
            let _same = layer.tree.set(tree.clone());
        }
        Ok(tree)
    }
}

/// The parts in which these layers, base first, are mounted: one by one, unless they are too many for
/// the kernel.
fn parts<'a>(
    list: &[&'a Arc<StackLayer>],
    unpack: &Unpack<'_>,
    flatten: &Flatten<'_>,
) -> Result<Vec<Part<'a>>, Failure> {
    if list.len() <= MAX_PLAIN {
        return Ok(list.iter().map(|layer| Part::Layer(layer)).collect());
    }
    // Base images have few layers and many files.
    let n_pulled = list.iter().take_while(|layer| layer.pulled).count();
    let n_plain = if n_pulled <= MAX_PLAIN - FLAT_LAYERS { n_pulled } else { 0 };
    let (plain, rest) = list.split_at_checked(n_plain).unwrap_or((&[], list));
    let mut parts: Vec<Part<'_>> = plain.iter().map(|layer| Part::Layer(layer)).collect();
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
        let directory = flat.map(|flat| Directory::new(Arc::clone(flat.directory())));
        parts.extend(directory.map(|directory| Part::Flat(top, directory)));
    }
    parts.extend(chunks.remainder().iter().map(|layer| Part::Layer(layer)));
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
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unpacked form; unpacks it if needed.
    fn directory(&self, unpack: &Unpack<'_>) -> Result<Directory, Failure> {
        // Held meanwhile: another stage may want the same.
        let mut mounted = self.mounted();
        if let Some(directory) = &mounted.directory {
            return Ok(directory.clone());
        }
        let below = self.pulled.then_some(&self.parent);
        let directory = Directory::new(unpack(&self.done.wait()?, below)?);
        Ok(mounted.directory.insert(directory).clone())
    }

    /// Gives up what only a mount of a lower stack needs: it can be opened again.
    fn close(&self) {
        let mut mounted = self.mounted();
        mounted.merged = None;
        if matches!(self.done.peek(), Some(Ok(_))) {
            mounted.directory = None;
        }
    }
}

impl Drop for StackLayer {
    /// Drops the layers below one by one: as many calls in each other as a stack is high would not fit
    /// on a thread's stack.
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
    fn stack_of_100000_layers_has_a_name_and_ends() {
        let layer = |number: u32| LayerDone {
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
