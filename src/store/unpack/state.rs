//! The entries that an archive has created so far. The directory was empty at first, so it has no
//! others.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::limits::{MAX_LINKS_FOLLOWED, MAX_REPLACE_WORK};
use crate::tree::{Entry, LayerItem, Meta, Node, TreePath};

use super::UnpackError;

/// A directory whose properties are set at the end.
#[derive(Debug, Default)]
pub(super) struct DirectoryState {
    /// Properties in the archive; `None` if the archive does not list the directory.
    pub(super) meta: Option<Meta>,
    /// True if it hides entries of lower layers.
    pub(super) opaque: bool,
    /// True if it replaces an entry of lower layers.
    is_new: bool,
}

/// All entries so far.
#[derive(Debug, Default)]
pub(super) struct UnpackState {
    directories: HashMap<TreePath, DirectoryState>,
    is_root_opaque: bool,
    /// All entries but directories, in archive order; `None` for replaced ones.
    entries: Vec<Option<Entry>>,
    /// Position of each path in `entries`.
    at: HashMap<TreePath, usize>,
    n_hard_links: usize,
    /// Number of entries that were visited because others replace them.
    replace_work: u64,
}

impl UnpackState {
    pub(super) fn is_directory(&self, path: &TreePath) -> bool {
        path.is_root() || self.directories.contains_key(path)
    }

    /// Returns whether `path` is an entry other than a directory.
    pub(super) fn is_other(&self, path: &TreePath) -> bool {
        self.at.contains_key(path)
    }

    pub(super) fn has(&self, path: &TreePath) -> bool {
        self.is_other(path) || self.directories.contains_key(path)
    }

    pub(super) fn is_whiteout(&self, path: &TreePath) -> bool {
        matches!(self.item(path), Some(LayerItem::Whiteout))
    }

    fn item(&self, path: &TreePath) -> Option<&LayerItem> {
        let entry = self.entries.get(*self.at.get(path)?)?.as_ref()?;
        Some(&entry.item)
    }

    /// Adds an entry other than a directory.
    pub(super) fn add(&mut self, entry: Entry) {
        self.at.insert(entry.path.clone(), self.entries.len());
        self.n_hard_links += usize::from(matches!(entry.item, LayerItem::HardLink(_)));
        self.entries.push(Some(entry));
    }

    /// Adds a directory, or updates its properties; without properties it is implied.
    pub(super) fn add_directory(
        &mut self,
        path: &TreePath,
        meta: Option<Meta>,
        was_whiteout: bool,
    ) {
        let directory = self.directories.entry(path.clone()).or_default();
        directory.meta = meta.or(directory.meta.take());
        directory.opaque |= was_whiteout;
        directory.is_new |= was_whiteout;
    }

    /// Marks a directory as opaque; with `is_new`, it also replaces the directory of lower layers.
    pub(super) fn make_opaque(&mut self, path: &TreePath, is_new: bool) {
        if let Some(directory) = self.directories.get_mut(path) {
            directory.opaque = true;
            directory.is_new |= is_new;
        } else {
            self.is_root_opaque = true;
        }
    }

    /// Returns the real path of the name `named`: symbolic links in its parent directories are followed
    /// inside the root, as chroot(2) would.
    ///
    /// # Errors
    /// [`UnpackError::LinkLoop`] after too many links.
    pub(super) fn resolve_parents(&self, named: &TreePath) -> Result<TreePath, UnpackError> {
        let (Some(name), Some(parent)) = (named.name(), named.parent()) else {
            return Ok(named.clone());
        };
        if self.is_directory(&parent) {
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
            let Some(LayerItem::Node(_, Node::Symlink(target))) = self.item_of(&path) else {
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

    /// Returns the item at `path`; for a hard link, its target.
    fn item_of(&self, path: &TreePath) -> Option<&LayerItem> {
        let item = self.item(path)?;
        if let LayerItem::HardLink(target) = item { self.item(target) } else { Some(item) }
    }

    /// Returns the first name of the file at `target`, for a new link at `path`.
    pub(super) fn first_name(&self, path: &TreePath, target: TreePath) -> TreePath {
        if let Some(LayerItem::HardLink(first)) = self.item(&target)
            && first != path
        {
            return first.clone();
        }
        target
    }

    /// Removes `path` and everything below it. Returns the paths to remove from the disk, in order, and
    /// whether each is a directory.
    ///
    /// # Errors
    /// [`UnpackError::Replaces`] if the archive has replaced too many entries.
    pub(super) fn remove(&mut self, path: &TreePath) -> Result<Vec<(TreePath, bool)>, UnpackError> {
        if self.n_hard_links > 0 || self.directories.contains_key(path) {
            let n_known = self.entries.len().saturating_add(self.directories.len());
            let n_known = u64::try_from(n_known).unwrap_or(u64::MAX);
            self.replace_work = self.replace_work.saturating_add(n_known);
            if self.replace_work > MAX_REPLACE_WORK {
                return Err(UnpackError::Replaces);
            }
        }
        let mut gone: Vec<TreePath> = Vec::new();
        let mut dropped: Vec<TreePath> = vec![path.clone()];
        if self.directories.contains_key(path) {
            let is_gone = |at: &TreePath| at.below(path).is_some();
            gone.extend(self.directories.extract_if(|at, _| is_gone(at)).map(|(at, _)| at));
            dropped = self.at.keys().filter(|at| is_gone(at)).cloned().collect();
        }
        let dropped: Vec<Entry> = dropped.iter().filter_map(|at| self.take(at)).collect();
        if self.n_hard_links > 0 {
            self.promote_links(&dropped);
        }
        let directories = gone.into_iter().map(|path| (path, true));
        let mut gone: Vec<(TreePath, bool)> =
            directories.chain(dropped.into_iter().map(|entry| (entry.path, false))).collect();
        gone.sort_unstable_by(|a, b| b.cmp(a));
        Ok(gone)
    }

    fn take(&mut self, path: &TreePath) -> Option<Entry> {
        let at = self.at.remove(path)?;
        self.entries.get_mut(at)?.take()
    }

    /// Turns the first remaining link to each dropped file into the file itself.
    fn promote_links(&mut self, dropped: &[Entry]) {
        let files: BTreeMap<&TreePath, &LayerItem> = dropped
            .iter()
            .filter(|entry| matches!(entry.item, LayerItem::Node(..)))
            .map(|entry| (&entry.path, &entry.item))
            .collect();
        let mut heirs: BTreeMap<TreePath, TreePath> = BTreeMap::new();
        for entry in self.entries.iter_mut().flatten() {
            let LayerItem::HardLink(target) = &mut entry.item else { continue };
            if let Some(heir) = heirs.get(target) {
                *target = heir.clone();
            } else if let Some(item) = files.get(target) {
                heirs.insert(target.clone(), entry.path.clone());
                entry.item = LayerItem::clone(item);
            }
        }
    }

    /// Returns all directories, subdirectories before their parents.
    pub(super) fn directories(&self) -> impl Iterator<Item = (&TreePath, &DirectoryState)> {
        let sorted: BTreeMap<&TreePath, &DirectoryState> = self.directories.iter().collect();
        sorted.into_iter().rev()
    }

    /// Returns the directories that the archive does not list, sorted.
    pub(super) fn implied(&self) -> Vec<TreePath> {
        let implied = self.directories.iter().filter(|(_, directory)| directory.meta.is_none());
        let mut implied: Vec<TreePath> = implied.map(|(path, _)| path.clone()).collect();
        implied.sort_unstable();
        implied
    }

    /// Returns an entry for each path. Unlisted directories with files in them get owner 0:0 and mode
    /// 0755, as docker creates them. Unlisted directories with only whiteouts in them get no entry: the
    /// layer does not change their properties.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let full = self.full_directories();
        let root =
            self.is_root_opaque.then(|| Entry { path: TreePath::root(), item: LayerItem::Opaque });
        let directories = self.directories.into_iter().filter_map(|(path, directory)| {
            let DirectoryState { meta, opaque, is_new } = directory;
            let is_made = is_new || full.contains(&path);
            let item = match meta.or_else(|| is_made.then(|| Meta::root(0o755, 0))) {
                Some(meta) => LayerItem::Node(meta, Node::Directory { opaque }),
                None if opaque => LayerItem::Opaque,
                None => return None,
            };
            Some(Entry { path, item })
        });
        self.entries.into_iter().flatten().chain(directories).chain(root).collect()
    }

    /// Returns the directories that contain an entry other than whiteouts.
    fn full_directories(&self) -> HashSet<TreePath> {
        let mut full = HashSet::new();
        let files = self.entries.iter().flatten();
        let files =
            files.filter(|entry| entry.item != LayerItem::Whiteout).map(|entry| &entry.path);
        let listed = self
            .directories
            .iter()
            .filter(|(_, directory)| directory.meta.is_some() || directory.is_new);
        for path in files.chain(listed.map(|(path, _)| path)) {
            let mut parent = path.parent();
            while let Some(path) = parent {
                let next = path.parent();
                // The parents of a known directory are known as well.
                parent = if full.insert(path) { next } else { None };
            }
        }
        full
    }
}

/// Returns the names of a path, last first, without empty ones and `.`.
fn reversed(path: &[u8]) -> Vec<Box<[u8]>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|name| !name.is_empty() && *name != b".")
        .map(Into::into)
        .collect()
}
