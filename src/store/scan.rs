//! Lists a layer from its tar, without unpacking it.

use std::collections::HashSet;
use std::io::Read;

use crate::archive::{
    ArchiveBounds, ArchiveEntry, EntryKind, HashingReader, OPAQUE_NAME, TarReader,
    WHITEOUT_META_PREFIX, WHITEOUT_PREFIX,
};
use crate::tree::{Entry, File, Item, LayerListing, Meta, Node, TreePath};

use super::unpack::{Origin, UnpackError};

/// Reads `tar` to its end and lists what it holds.
///
/// Unlike unpacking, this follows no link on the way to an entry: layers name their files by real
/// paths, and one that does not is listed as written.
pub(super) fn list(
    tar: &mut dyn Read,
    bounds: ArchiveBounds,
    origin: Origin<'_>,
) -> Result<LayerListing, UnpackError> {
    let mut reader = TarReader::bounded(tar, bounds);
    let mut entries: Vec<Entry> = Vec::new();
    let mut opaque: HashSet<TreePath> = HashSet::new();
    while let Some(mut entry) = reader.next()? {
        let path = TreePath::clean(&entry.path);
        let Some(name) = path.name() else { continue };
        let parent = path.parent().unwrap_or_default();
        if name == OPAQUE_NAME {
            opaque.insert(parent);
        } else if name.starts_with(WHITEOUT_META_PREFIX) {
            // Bookkeeping of another storage driver.
        } else if let Some(gone) = name.strip_prefix(WHITEOUT_PREFIX).filter(|n| !n.is_empty()) {
            entries.push(Entry { path: parent.join(gone), item: Item::Whiteout });
        } else {
            let item = item(&mut entry, &path, origin)?;
            entries.push(Entry { path, item });
        }
    }
    reader.drain()?;
    let mut listing = LayerListing::new(entries);
    for entry in listing.entries_mut().filter(|entry| opaque.contains(&entry.path)) {
        if let Item::Node(_, Node::Directory { opaque }) = &mut entry.item {
            *opaque = true;
        }
    }
    Ok(listing)
}

fn item<R: Read>(
    entry: &mut ArchiveEntry<'_, R>,
    path: &TreePath,
    origin: Origin<'_>,
) -> Result<Item, UnpackError> {
    let meta: Meta = entry.meta.clone();
    let node = match entry.kind.clone() {
        EntryKind::HardLink(target) => return Ok(Item::HardLink(TreePath::clean(&target))),
        EntryKind::File => {
            let (size, tar_at) = (entry.size, entry.content_at);
            let mut content = HashingReader::new(entry);
            std::io::copy(&mut content, &mut std::io::sink())
                .map_err(crate::archive::ArchiveError::Read)?;
            Node::File(File { size, content: content.hash(), origin: origin(path, tar_at) })
        }
        EntryKind::Directory => Node::Directory { opaque: false },
        EntryKind::Symlink(target) => Node::Symlink(target.into()),
        EntryKind::CharDevice(device) => Node::CharDevice(device),
        EntryKind::BlockDevice(device) => Node::BlockDevice(device),
        EntryKind::Fifo => Node::Fifo,
    };
    Ok(Item::Node(meta, node))
}
