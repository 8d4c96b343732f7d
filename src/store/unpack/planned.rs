//! Creates the files of a layer whose entries are known in advance. Unlike for an untrusted archive,
//! no state of the entries so far is kept in memory.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use crate::archive::{ArchiveEntry, ArchiveError, TarReader};
use crate::tree::{Entry, LayerEntries, LayerItem, Meta, Node, TreePath};

use super::{DiskTarget, Result, UnpackOptions, UnpackTarget as _};

/// Creates the files of `layer` in the empty directory `into`, as a lower directory of an overlay.
/// Contents are read from `tar`, which has the same entries; names and properties are from `layer`.
///
/// # Errors
/// [`super::UnpackError`]; files that were created before remain.
pub fn unpack_planned(
    layer: &dyn LayerEntries,
    tar: &mut dyn Read,
    into: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<()> {
    let mut planned = PlannedUnpack { disk: DiskTarget::new(into, *options)?, open: Vec::new() };
    let mut reader = TarReader::bounded(tar, options.bounds);
    for entry in layer.stream() {
        let mut content = next(&mut reader)?;
        planned.entry(&entry, &mut content)?;
        if let LayerItem::Node(_, Node::Directory { opaque: true }) = &entry.item {
            // The tar has a marker entry after it.
            next(&mut reader)?;
        }
    }
    reader.drain()?;
    planned.leave(&TreePath::root())
}

fn next<R: Read>(reader: &mut TarReader<R>) -> Result<ArchiveEntry<'_, R>> {
    let end = || ArchiveError::Read(io::ErrorKind::UnexpectedEof.into());
    Ok(reader.next()?.ok_or_else(end)?)
}

/// A directory in which more files may be created.
struct UnfinishedDirectory {
    path: TreePath,
    meta: Meta,
    is_opaque: bool,
}

struct PlannedUnpack<'a> {
    disk: DiskTarget<'a>,
    /// The path of the last entry, from the root down.
    open: Vec<UnfinishedDirectory>,
}

impl PlannedUnpack<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, content: &mut ArchiveEntry<'_, R>) -> Result<()> {
        let path = &entry.path;
        self.leave(path)?;
        self.make_parents(path)?;
        match &entry.item {
            LayerItem::Whiteout => self.disk.whiteout(path),
            LayerItem::HardLink(target) => self.disk.hard_link(path, target),
            LayerItem::Opaque => self.enter(path, &Meta::root(0o755, 0), true),
            LayerItem::Node(meta, Node::Directory { opaque }) => self.enter(path, meta, *opaque),
            LayerItem::Node(meta, Node::File(_)) => self.disk.file(path, meta, content).map(drop),
            LayerItem::Node(meta, Node::Symlink(target)) => self.disk.symlink(path, meta, target),
            LayerItem::Node(meta, node) => self.disk.special(path, meta, node),
        }
    }

    /// Sets the properties of the directories that `path` is not in: no more files are created there.
    fn leave(&mut self, path: &TreePath) -> Result<()> {
        while let Some(UnfinishedDirectory { path, meta, is_opaque }) =
            self.open.pop_if(|open| path.is_root() || path.below(&open.path).is_none())
        {
            self.disk.finish_directory(&path, &meta, is_opaque)?;
        }
        Ok(())
    }

    fn make_parents(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        let mut at = self.open.last().map_or_else(TreePath::root, |open| open.path.clone());
        for name in parent.below(&at).unwrap_or_default().names() {
            at = at.join(name);
            self.enter(&at, &Meta::root(0o755, 0), false)?;
        }
        Ok(())
    }

    fn enter(&mut self, path: &TreePath, meta: &Meta, is_opaque: bool) -> Result<()> {
        self.disk.make_directory(path)?;
        self.open.push(UnfinishedDirectory { path: path.clone(), meta: meta.clone(), is_opaque });
        Ok(())
    }
}
