//! What an archive has made so far. The directory was empty, so nothing else is there.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::limits::{MAX_LINKS_FOLLOWED, MAX_REPLACE_WORK};
use crate::tree::{Entry, Item, Meta, Node, TreePath};

use super::UnpackError;

/// A directory, whose properties are set only at the end.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Properties from the archive; `None` if it only has files in it.
    pub(super) meta: Option<Meta>,
    /// True if it hides what lower layers have in it.
    pub(super) opaque: bool,
    /// True if it replaces a directory of lower layers.
    is_new: bool,
}

/// Everything made so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    directories: HashMap<TreePath, Directory>,
    is_root_opaque: bool,
    /// All but directories, in the archive's order; `None` for what was replaced.
    entries: Vec<Option<Entry>>,
    /// Where each path stands in `entries`.
    at: HashMap<TreePath, usize>,
    n_hard_links: usize,
    /// Entries that were looked at because others replace them.
    replace_work: u64,
}

impl Known {
    pub(super) fn is_directory(&self, path: &TreePath) -> bool {
        path.is_root() || self.directories.contains_key(path)
    }

    /// Whether something that is not a directory is there.
    pub(super) fn is_other(&self, path: &TreePath) -> bool {
        self.at.contains_key(path)
    }

    pub(super) fn has(&self, path: &TreePath) -> bool {
        self.is_other(path) || self.directories.contains_key(path)
    }

    pub(super) fn is_whiteout(&self, path: &TreePath) -> bool {
        matches!(self.item(path), Some(Item::Whiteout))
    }

    fn item(&self, path: &TreePath) -> Option<&Item> {
        let entry = self.entries.get(*self.at.get(path)?)?.as_ref()?;
        Some(&entry.item)
    }

    /// Notes something that is not a directory.
    pub(super) fn add(&mut self, entry: Entry) {
        self.at.insert(entry.path.clone(), self.entries.len());
        self.n_hard_links += usize::from(matches!(entry.item, Item::HardLink(_)));
        self.entries.push(Some(entry));
    }

    /// Notes a directory, or new properties of one; without any it is implied.
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

    /// Notes that what lower layers have in a directory is gone; with `is_new`, the directory that
    /// they have is, too.
    pub(super) fn make_opaque(&mut self, path: &TreePath, is_new: bool) {
        if let Some(directory) = self.directories.get_mut(path) {
            directory.opaque = true;
            directory.is_new |= is_new;
        } else {
            self.is_root_opaque = true;
        }
    }

    /// The real path of what the archive calls `named`: symbolic links above it are followed,
    /// never out of the root.
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
    /// whether each is a directory.
    ///
    /// # Errors
    /// [`UnpackError::Replaces`] when too much was replaced by now.
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
            self.pass_on(&dropped);
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

    /// All directories, those inside others first.
    pub(super) fn directories(&self) -> impl Iterator<Item = (&TreePath, &Directory)> {
        let sorted: BTreeMap<&TreePath, &Directory> = self.directories.iter().collect();
        sorted.into_iter().rev()
    }

    /// The directories that the archive does not list, sorted.
    pub(super) fn implied(&self) -> Vec<TreePath> {
        let implied = self.directories.iter().filter(|(_, directory)| directory.meta.is_none());
        let mut implied: Vec<TreePath> = implied.map(|(path, _)| path.clone()).collect();
        implied.sort_unstable();
        implied
    }

    /// Returns an entry for each path of the archive. Directories that it has files in without listing are
    /// root's, mode 0755, as docker makes them. Of those that it only removes something from, nothing
    /// is said: they stay unchanged.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let full = self.full_directories();
        let root =
            self.is_root_opaque.then(|| Entry { path: TreePath::root(), item: Item::Opaque });
        let directories = self.directories.into_iter().filter_map(|(path, directory)| {
            let Directory { meta, opaque, is_new } = directory;
            let is_made = is_new || full.contains(&path);
            let item = match meta.or_else(|| is_made.then(|| Meta::root(0o755, 0))) {
                Some(meta) => Item::Node(meta, Node::Directory { opaque }),
                None if opaque => Item::Opaque,
                None => return None,
            };
            Some(Entry { path, item })
        });
        self.entries.into_iter().flatten().chain(directories).chain(root).collect()
    }

    /// The directories that have something in them.
    fn full_directories(&self) -> HashSet<TreePath> {
        let mut full = HashSet::new();
        let files = self.entries.iter().flatten();
        let files = files.filter(|entry| entry.item != Item::Whiteout).map(|entry| &entry.path);
        let listed = self
            .directories
            .iter()
            .filter(|(_, directory)| directory.meta.is_some() || directory.is_new);
        for path in files.chain(listed.map(|(path, _)| path)) {
            let mut parent = path.parent();
            while let Some(path) = parent {
                let next = path.parent();
                // Those above one that was seen were seen with it.
                parent = if full.insert(path) { next } else { None };
            }
        }
        full
    }
}

fn reversed(path: &[u8]) -> Vec<Box<[u8]>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|name| !name.is_empty() && *name != b".")
        .map(Into::into)
        .collect()
}
