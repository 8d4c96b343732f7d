//! What an archive has made so far. The folder was empty, so nothing else is there.

use std::collections::{BTreeMap, HashMap};

use crate::limits::{MAX_LINKS_FOLLOWED, MAX_REPLACE_WORK};
use crate::tree::{Entry, Item, Meta, Node, TreePath};

use super::UnpackError;

/// A folder, whose properties are set only at the end.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) meta: Meta,
    pub(super) opaque: bool,
    is_implied: bool,
}

/// Everything made so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    folders: HashMap<TreePath, Folder>,
    /// All but folders, in the archive's order; `None` for what was replaced.
    entries: Vec<Option<Entry>>,
    /// Where each path stands in `entries`.
    at: HashMap<TreePath, usize>,
    n_hard_links: usize,
    /// Entries that were looked at because others replace them.
    replace_work: u64,
}

impl Known {
    pub(super) fn is_folder(&self, path: &TreePath) -> bool {
        path.is_root() || self.folders.contains_key(path)
    }

    /// Whether something that is no folder is there.
    pub(super) fn is_other(&self, path: &TreePath) -> bool {
        self.at.contains_key(path)
    }

    pub(super) fn has(&self, path: &TreePath) -> bool {
        self.is_other(path) || self.folders.contains_key(path)
    }

    pub(super) fn is_whiteout(&self, path: &TreePath) -> bool {
        matches!(self.item(path), Some(Item::Whiteout))
    }

    fn item(&self, path: &TreePath) -> Option<&Item> {
        let entry = self.entries.get(*self.at.get(path)?)?.as_ref()?;
        Some(&entry.item)
    }

    /// Notes something that is no folder.
    pub(super) fn add(&mut self, entry: Entry) {
        self.at.insert(entry.path.clone(), self.entries.len());
        self.n_hard_links += usize::from(matches!(entry.item, Item::HardLink(_)));
        self.entries.push(Some(entry));
    }

    /// Notes a folder, or new properties of one; without any it is implied.
    pub(super) fn add_folder(&mut self, path: &TreePath, meta: Option<Meta>, opaque: bool) {
        let was_opaque = self.folders.get(path).is_some_and(|folder| folder.opaque);
        let is_implied = meta.is_none();
        let meta = meta.unwrap_or_else(|| Meta::root(0o755, 0));
        let folder = Folder { meta, opaque: opaque || was_opaque, is_implied };
        self.folders.insert(path.clone(), folder);
    }

    pub(super) fn make_opaque(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        let folder = self.folders.get_mut(path).ok_or(UnpackError::OpaqueRoot)?;
        folder.opaque = true;
        Ok(())
    }

    /// The real path of what the archive calls `named`: symbolic links above it are followed,
    /// never out of the root.
    pub(super) fn resolve_parents(&self, named: &TreePath) -> Result<TreePath, UnpackError> {
        let (Some(name), Some(parent)) = (named.name(), named.parent()) else {
            return Ok(named.clone());
        };
        if self.is_folder(&parent) {
            return Ok(named.clone());
        }
        let mut todo: Vec<Box<[u8]>> = reversed(parent.as_bytes());
        let mut at = TreePath::root();
        let mut n_links = 0;
        while let Some(next) = todo.pop() {
            if &*next == b".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let path = at.join(&next);
            let Some(Item::Node(_, Node::Symlink(target))) = self.item_of(&path) else {
                at = path;
                continue;
            };
            n_links += 1;
            if n_links > MAX_LINKS_FOLLOWED {
                return Err(UnpackError::LinkLoop { path: named.clone() });
            }
            if target.starts_with(b"/") {
                at = TreePath::root();
            }
            todo.extend(reversed(target));
        }
        Ok(at.join(name))
    }

    /// What is at `path`; of a hard link, what it links to.
    fn item_of(&self, path: &TreePath) -> Option<&Item> {
        let item = self.item(path)?;
        if let Item::HardLink(target) = item { self.item(target) } else { Some(item) }
    }

    /// The name under which the file at `target` stands in the archive, for a new link at `path`.
    pub(super) fn first_name(&self, path: &TreePath, target: TreePath) -> TreePath {
        if let Some(Item::HardLink(first)) = self.item(&target)
            && first != path
        {
            return first.clone();
        }
        target
    }

    /// Forgets `path` and all below it. Gives what has to be removed from the disk, in order, and
    /// whether each is a folder.
    ///
    /// # Errors
    /// [`UnpackError::Replaces`] when too much was replaced by now.
    pub(super) fn remove(&mut self, path: &TreePath) -> Result<Vec<(TreePath, bool)>, UnpackError> {
        if self.n_hard_links > 0 || self.folders.contains_key(path) {
            let n_known = self.entries.len().saturating_add(self.folders.len());
            let n_known = u64::try_from(n_known).unwrap_or(u64::MAX);
            self.replace_work = self.replace_work.saturating_add(n_known);
            if self.replace_work > MAX_REPLACE_WORK {
                return Err(UnpackError::Replaces);
            }
        }
        let mut gone: Vec<TreePath> = Vec::new();
        let mut dropped: Vec<TreePath> = vec![path.clone()];
        if self.folders.contains_key(path) {
            let is_gone = |at: &TreePath| at.below(path).is_some();
            gone.extend(self.folders.extract_if(|at, _| is_gone(at)).map(|(at, _)| at));
            dropped = self.at.keys().filter(|at| is_gone(at)).cloned().collect();
        }
        let dropped: Vec<Entry> = dropped.iter().filter_map(|at| self.take(at)).collect();
        if self.n_hard_links > 0 {
            self.pass_on(&dropped);
        }
        let folders = gone.into_iter().map(|path| (path, true));
        let mut gone: Vec<(TreePath, bool)> =
            folders.chain(dropped.into_iter().map(|entry| (entry.path, false))).collect();
        gone.sort_unstable_by(|a, b| b.cmp(a));
        Ok(gone)
    }

    fn take(&mut self, path: &TreePath) -> Option<Entry> {
        let at = self.at.remove(path)?;
        self.entries.get_mut(at)?.take()
    }

    /// Makes the first remaining link of each dropped file the file itself.
    fn pass_on(&mut self, dropped: &[Entry]) {
        let files: BTreeMap<&TreePath, &Item> = dropped
            .iter()
            .filter(|entry| matches!(entry.item, Item::Node(..)))
            .map(|entry| (&entry.path, &entry.item))
            .collect();
        let mut heirs: BTreeMap<TreePath, TreePath> = BTreeMap::new();
        for entry in self.entries.iter_mut().flatten() {
            let Item::HardLink(target) = &mut entry.item else { continue };
            if let Some(heir) = heirs.get(target) {
                *target = heir.clone();
            } else if let Some(item) = files.get(target) {
                heirs.insert(target.clone(), entry.path.clone());
                entry.item = Item::clone(item);
            }
        }
    }

    /// Folders sorted, implied folders sorted, all else.
    pub(super) fn into_parts(self) -> (BTreeMap<TreePath, Folder>, Vec<TreePath>, Vec<Entry>) {
        let folders: BTreeMap<TreePath, Folder> = self.folders.into_iter().collect();
        let implied = folders.iter().filter(|(_, folder)| folder.is_implied);
        let implied = implied.map(|(path, _)| path.clone()).collect();
        (folders, implied, self.entries.into_iter().flatten().collect())
    }
}

fn reversed(path: &[u8]) -> Vec<Box<[u8]>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|name| !name.is_empty() && *name != b".")
        .map(Into::into)
        .collect()
}
