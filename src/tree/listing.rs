//! The entries of a layer, and the listing of all of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{ContentDigest, ContentWriter, File, Meta, Node, TreePath};

/// The content of a layer at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerItem {
    /// A file of any type with its properties.
    Node(Meta, Node),
    /// A further name of the file at this path, which comes earlier in the layer.
    HardLink(TreePath),
    /// Removes the path of lower layers (image-spec, layer.md, "Whiteouts").
    Whiteout,
    /// An opaque marker for a directory that the layer does not list: hides the directory's lower
    /// contents, but keeps its properties. The only item that the root can have.
    Opaque,
}

/// One path of a layer and its item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path; the root only for [`LayerItem::Opaque`].
    pub path: TreePath,
    /// The content at the path.
    pub item: LayerItem,
}

/// A layer's entries in the order of its tar: depth-first, names in byte order, each path once, a
/// hard link after its target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerListing {
    entries: Vec<Entry>,
}

/// A layer that is not written yet: the contents of its entries are elsewhere.
pub type Layer = LayerListing;

/// A layer's entries in the order of a [`LayerListing`], generated on each request: a layer of a
/// million files is written without a list of them.
pub trait LayerEntries {
    /// Iterates over the entries, in order.
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_>;

    /// Returns the number of entries.
    fn n_entries(&self) -> usize;
}

impl LayerEntries for &[Entry] {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        Box::new(self.iter().map(Cow::Borrowed))
    }

    fn n_entries(&self) -> usize {
        self.len()
    }
}

impl LayerEntries for LayerListing {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        Box::new(self.entries.iter().map(Cow::Borrowed))
    }

    fn n_entries(&self) -> usize {
        self.entries.len()
    }
}

impl LayerListing {
    /// Sorts `entries` into layer order. Of several entries for a path the last one counts, as when
    /// a tar is unpacked.
    ///
    /// A hard link that sorts before its target is swapped with it, so the file is at its first
    /// path.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.retain(|entry| !entry.path.is_root() || entry.item == LayerItem::Opaque);
        // A stable sort keeps the order of equal paths, so the last of them can be kept.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.reverse();
        entries.dedup_by(|later, kept| later.path == kept.path);
        entries.reverse();
        link_forward(&mut entries);
        Self { entries }
    }

    /// Returns the entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Iterates mutably over the entries, to set values that are known only after the layer is
    /// written.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// Returns the item at `path`.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&LayerItem> {
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        self.entries.get(at).map(|entry| &entry.item)
    }

    /// Returns the digest of the layer's content.
    #[must_use]
    pub fn content_digest(&self) -> ContentDigest {
        let mut content = LayerContent::new();
        self.entries.iter().for_each(|entry| content.entry(entry));
        content.finish()
    }
}

/// Moves the file of each group of hard links to the first of its paths.
fn link_forward(entries: &mut [Entry]) {
    let mut moved: BTreeMap<TreePath, TreePath> = BTreeMap::new();
    for at in 0..entries.len() {
        let Some((done, rest)) = entries.split_at_mut_checked(at) else { return };
        let Some((entry, later)) = rest.split_first_mut() else { return };
        let LayerItem::HardLink(target) = &mut entry.item else { continue };
        if let Some(first) = moved.get(target) {
            *target = first.clone();
        }
        if *target == entry.path {
            continue;
        }
        let earlier = done.binary_search_by(|other| other.path.cmp(target)).is_ok();
        if earlier {
            continue;
        }
        let Ok(found) = later.binary_search_by(|other| other.path.cmp(target)) else { continue };
        if let Some(file) = later.get_mut(found) {
            moved.insert(file.path.clone(), entry.path.clone());
            std::mem::swap(&mut file.item, &mut entry.item);
            file.item = LayerItem::HardLink(entry.path.clone());
        }
    }
}

impl LayerItem {
    /// Returns the regular file, if it is one.
    #[must_use]
    pub const fn file(&self) -> Option<&File> {
        match self {
            Self::Node(_, Node::File(file)) => Some(file),
            Self::Node(..) | Self::HardLink(_) | Self::Whiteout | Self::Opaque => None,
        }
    }

    /// Returns whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        matches!(self, Self::Node(_, Node::Directory { .. }))
    }
}

/// Computes a layer's content digest from its entries, in order. It covers everything but times, in
/// a fixed encoding: a domain tag, then for each entry its path, type and properties, each preceded
/// by its length.
#[derive(Debug)]
pub struct LayerContent(ContentWriter);

impl LayerContent {
    /// Starts a digest without entries.
    #[must_use]
    pub fn new() -> Self {
        Self(ContentWriter::new("rbuild/layer-content/v1"))
    }

    /// Appends an entry to the digest.
    pub fn entry(&mut self, entry: &Entry) {
        self.0.field(entry.path.as_bytes());
        self.0.item(&entry.item);
    }

    /// Returns the digest of the appended entries.
    #[must_use]
    pub fn finish(self) -> ContentDigest {
        self.0.finish()
    }
}

impl Default for LayerContent {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tree::{ContentHash, FileOrigin};

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn file(text: &str, mtime_s: i64) -> LayerItem {
        let bytes: Arc<[u8]> = text.as_bytes().into();
        let content = ContentHash::of(&bytes);
        let origin = FileOrigin::Inline(bytes);
        let size = u64::try_from(text.len()).unwrap();
        LayerItem::Node(Meta::root(0o644, mtime_s), Node::File(File { size, content, origin }))
    }

    fn entry(at: &str, item: LayerItem) -> Entry {
        Entry { path: path(at), item }
    }

    #[test]
    fn listing_sorts_and_keeps_the_last_entry_of_a_path() {
        let listing = LayerListing::new(vec![
            entry("b", file("1", 0)),
            entry("a", file("2", 0)),
            entry("b", file("3", 0)),
        ]);
        assert_eq!(listing.entries(), [entry("a", file("2", 0)), entry("b", file("3", 0))]);
    }

    #[test]
    fn listing_puts_a_hard_linked_file_at_its_first_path() {
        let listing = LayerListing::new(vec![
            entry("z", file("1", 0)),
            entry("a", LayerItem::HardLink(path("z"))),
            entry("m", LayerItem::HardLink(path("z"))),
        ]);
        let want = [
            entry("a", file("1", 0)),
            entry("m", LayerItem::HardLink(path("a"))),
            entry("z", LayerItem::HardLink(path("a"))),
        ];
        assert_eq!(listing.entries(), want);
    }

    #[test]
    fn content_digest_ignores_only_times() {
        let digest = |at: &str, text: &str, mtime_s| {
            LayerListing::new(vec![entry(at, file(text, mtime_s))]).content_digest()
        };
        assert_eq!(digest("a", "x", 1), digest("a", "x", 2));
        assert_ne!(digest("a", "x", 1), digest("b", "x", 1));
        assert_ne!(digest("a", "x", 1), digest("a", "y", 1));
        assert_eq!(
            format!("{:?}", LayerListing::default().content_digest()),
            "095e0b7de623a57532f7c37263fd0b0b4a11d3aebccdf618c5b8f69ef86a93b6"
        );
    }
}
