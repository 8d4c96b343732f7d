//! The layers of a stage so far, as a list that stages share: what each holds may still be in
//! the making while the next step runs on it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::oci::DiffId;
use crate::plan::Chain;
use crate::sandbox;
use crate::store::{LayerDone, LowerFolder, StepOrigin, Store};
use crate::tree::{ContentDigest, Tree};

use super::slot::Slot;
use super::{BuildError, Failure};

/// So many folders are put together to one. A step's mount costs the more the more folders there
/// are, and so does each look for a name: at 300 layers a step took three times as long as at ten.
const MERGED_AT: usize = 24;

/// The layers as one folder; `None` where the kernel does not stack overlays: then each is used.
fn merged(layers: &[Folder]) -> Option<LowerFolder> {
    let mut each = Vec::new();
    layers.iter().for_each(|layer| put_on_top(&mut each, layer));
    let layers: Vec<BorrowedFd<'_>> = each.iter().map(|layer| layer.open.as_fd()).collect();
    sandbox::merged_folders(&layers).ok().map(Arc::new)
}

/// A layer's unpacked form.
#[derive(Debug, Clone)]
struct Folder {
    open: LowerFolder,
    /// Device and inode: layers that are equal have one folder.
    id: Option<(u64, u64)>,
}

impl Folder {
    fn new(open: LowerFolder) -> Self {
        let id = rustix::fs::fstat(&open).ok().map(|stat| (stat.st_dev, stat.st_ino));
        Self { open, id }
    }
}

/// Puts a folder on top of others. If it is among them already, it goes from there: overlayfs takes no
/// folder twice, and what is on top hides all that it would show further down.
fn put_on_top(folders: &mut Vec<Folder>, folder: &Folder) {
    folders.retain(|below| below.id.is_none() || below.id != folder.id);
    folders.push(folder.clone());
}

/// Unpacks a layer; of a base image's, the layers below it are given, on which it has to fit.
type Unpack<'a> = dyn Fn(&LayerDone, Option<&Stack>) -> Result<LowerFolder, Failure> + 'a;

/// One layer on top of others.
#[derive(Debug)]
pub(super) struct StackLayer {
    parent: Stack,
    /// What made this stack, without a look at what came of it.
    definition: Chain,
    done: Slot<LayerDone>,
    /// The unpacked form, once somebody has needed it.
    folder: Mutex<Option<Folder>>,
    /// This layer and all below it as one folder, where the stack is high.
    merged: OnceLock<Option<LowerFolder>>,
    content: OnceLock<Chain>,
    tree: OnceLock<Tree>,
    /// A layer of a base image has a name by content that needs no look into it.
    pulled: bool,
    /// Whether it, or one below it, was made in this build.
    is_fresh: bool,
    /// The caches that it, or one below it, comes from.
    origin: StepOrigin,
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
pub(super) struct Stack {
    top: Option<Arc<StackLayer>>,
}

impl Stack {
    /// The stack with a layer on top that a record from `origin` names.
    pub(super) fn with_found(
        &self,
        definition: &[u8; 32],
        done: LayerDone,
        origin: &StepOrigin,
    ) -> Self {
        self.with(definition, Slot::filled(done), None, Kind::Found, origin)
    }

    /// The stack with a layer on top that was just made.
    pub(super) fn with_done(
        &self,
        definition: &[u8; 32],
        done: LayerDone,
        folder: Option<LowerFolder>,
    ) -> Self {
        self.with(definition, Slot::filled(done), folder, Kind::Made, &StepOrigin::default())
    }

    /// The stack with a base image's layer on top.
    pub(super) fn with_pulled(&self, done: LayerDone) -> Self {
        let name = *ContentDigest::of_pulled(done.diff_id).as_bytes();
        self.with(&name, Slot::filled(done), None, Kind::Pulled, &StepOrigin::default())
    }

    /// The stack with a layer on top that is listed and hashed while the next step runs.
    pub(super) fn with_pending(&self, definition: &[u8; 32], folder: LowerFolder) -> Self {
        self.with(definition, Slot::new(), Some(folder), Kind::Made, &StepOrigin::default())
    }

    /// The stack with a layer on top that nobody makes: only its definition may be asked for.
    pub(super) fn with_unknown(&self, definition: &[u8; 32]) -> Self {
        self.with(definition, Slot::new(), None, Kind::Made, &StepOrigin::default())
    }

    fn with(
        &self,
        definition: &[u8; 32],
        done: Slot<LayerDone>,
        folder: Option<LowerFolder>,
        kind: Kind,
        origin: &StepOrigin,
    ) -> Self {
        let layer = StackLayer {
            parent: self.clone(),
            definition: self.definition().push(definition),
            done,
            folder: Mutex::new(folder.map(Folder::new)),
            merged: OnceLock::new(),
            content: OnceLock::new(),
            tree: OnceLock::new(),
            pulled: kind == Kind::Pulled,
            is_fresh: kind == Kind::Made || self.is_fresh(),
            origin: self.origin().and(origin),
        };
        Self { top: Some(Arc::new(layer)) }
    }

    /// Fills in the top layer. That it failed, those learn who wait for it.
    pub(super) fn finish_top(&self, work: impl FnOnce() -> Result<LayerDone, Failure>) {
        if let Some(top) = &self.top {
            drop(top.done.fill(work));
        }
    }

    /// The name of the stack by what made it.
    pub(super) fn definition(&self) -> Chain {
        self.top.as_ref().map_or_else(Chain::empty, |top| top.definition)
    }

    /// Whether a layer of it was made in this build: then what the store remembers by definition
    /// may lie on another layer of the same definition, and only its content counts.
    pub(super) fn is_fresh(&self) -> bool {
        self.top.as_ref().is_some_and(|top| top.is_fresh)
    }

    /// The caches that a layer of it comes from: a step on top of it relies on them, too.
    pub(super) fn origin(&self) -> StepOrigin {
        self.top.as_ref().map(|top| top.origin.clone()).unwrap_or_default()
    }

    /// The name of the stack by what it holds; waits for layers in the making.
    pub(super) fn content(&self) -> Result<Chain, Failure> {
        let Some(top) = &self.top else { return Ok(Chain::empty()) };
        if let Some(known) = top.content.get() {
            return Ok(*known);
        }
        let done = top.done.wait()?;
        let own =
            if top.pulled { ContentDigest::of_pulled(done.diff_id) } else { done.record.content };
        let chain = top.parent.content()?.push(own.as_bytes());
        Ok(*top.content.get_or_init(|| chain))
    }

    /// The layer on top; waits for it.
    pub(super) fn top(&self) -> Result<Option<LayerDone>, Failure> {
        self.top.as_ref().map(|top| top.done.wait()).transpose()
    }

    /// The layer on top, if it is not still in the making.
    pub(super) fn ready_top(&self) -> Option<LayerDone> {
        self.top.as_ref()?.done.peek()?.ok()
    }

    /// The layers, base first; waits for those in the making.
    pub(super) fn layers(&self) -> Result<Vec<LayerDone>, Failure> {
        self.list().iter().map(|layer| layer.done.wait()).collect()
    }

    /// Their identities, base first.
    pub(super) fn diff_ids(&self) -> Result<Vec<DiffId>, Failure> {
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

    /// Folders that together hold the layers, base first; layers that are not unpacked yet are now.
    /// In a high stack the first of them stands for many layers.
    pub(super) fn folders(&self, unpack: &Unpack<'_>) -> Result<Vec<LowerFolder>, Failure> {
        let mut each: Vec<Folder> = Vec::new();
        let mut folders: Vec<Folder> = Vec::new();
        for layer in self.list() {
            let mut folder = layer.folder.lock().unwrap_or_else(PoisonError::into_inner);
            if folder.is_none() {
                let below = layer.pulled.then_some(&layer.parent);
                *folder = Some(Folder::new(unpack(&layer.done.wait()?, below)?));
            }
            each.extend(folder.clone());
            folder.iter().for_each(|folder| put_on_top(&mut folders, folder));
            if folders.len() < MERGED_AT {
                continue;
            }
            if let Some(merged) = layer.merged.get_or_init(|| merged(&each)) {
                folders = vec![Folder { open: Arc::clone(merged), id: None }];
            }
        }
        Ok(folders.into_iter().map(|folder| folder.open).collect())
    }

    /// The merged file tree; waits for layers in the making. `prepare` sees that a layer's listing
    /// can be read.
    pub(super) fn tree(
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
