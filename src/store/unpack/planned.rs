//! The files of a layer whose entries are known beforehand: nothing has to be kept of what the
//! archive has made so far.

use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};

use crate::archive::{ArchiveEntry, ArchiveError, TarReader};
use crate::pathio::Context as _;
use crate::tree::{Entry, FileOrigin, Item, LayerEntries, Meta, Node, TreePath};

use super::{UnpackError, UnpackOptions, Unpacker};

/// Makes the files of `layer`, as layers of an overlay mount have them, in the empty folder `into`.
/// `tar` is the layer's own, entry for entry; contents come from there, all else from `layer`.
///
/// # Errors
/// [`UnpackError`]; what was made by then stays behind.
pub fn unpack_planned(
    layer: &dyn LayerEntries,
    tar: &mut dyn Read,
    into: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<(), UnpackError> {
    let nobody_asks = |path: &TreePath, _| FileOrigin::folder(0, path.clone());
    let mut unpacker = Unpacker::new(into, options, &nobody_asks)?;
    let mut reader = TarReader::bounded(tar, options.bounds);
    for entry in layer.stream() {
        let mut content = next(&mut reader)?;
        unpacker.planned(&entry, &mut content)?;
        if let Item::Node(_, Node::Directory { opaque: true }) = &entry.item {
            // Its marker.
            next(&mut reader)?;
        }
    }
    reader.drain()?;
    unpacker.finish().map(drop)
}

fn next<R: Read>(reader: &mut TarReader<R>) -> Result<ArchiveEntry<'_, R>, UnpackError> {
    let end = || ArchiveError::Read(io::ErrorKind::UnexpectedEof.into());
    Ok(reader.next()?.ok_or_else(end)?)
}

impl Unpacker<'_> {
    fn planned<R: Read>(
        &mut self,
        entry: &Entry,
        content: &mut ArchiveEntry<'_, R>,
    ) -> Result<(), UnpackError> {
        let path = &entry.path;
        self.make_parents(path)?;
        match &entry.item {
            Item::Whiteout => self.planned_whiteout(path),
            Item::HardLink(target) => self.planned_link(path, target),
            Item::Node(meta, node) => self.planned_node(path, meta, node, content),
        }
    }

    fn planned_node<R: Read>(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        node: &Node,
        content: &mut ArchiveEntry<'_, R>,
    ) -> Result<(), UnpackError> {
        match node {
            Node::Directory { opaque } => {
                self.make_folder(path)?;
                self.known.add_folder(path, Some(meta.clone()), *opaque);
                Ok(())
            }
            Node::File(_) => {
                let out = self.create(path)?;
                self.write_content(path, &out, content)?;
                self.finish_file(path, &out, meta)
            }
            Node::Symlink(target) => self.symlink(path, meta.clone(), target.to_vec()).map(drop),
            Node::CharDevice(device) => {
                let kind = FileType::CharacterDevice;
                self.special(path, meta, kind, device.major, device.minor)
            }
            Node::BlockDevice(device) => {
                self.special(path, meta, FileType::BlockDevice, device.major, device.minor)
            }
            Node::Fifo => self.special(path, meta, FileType::Fifo, 0, 0),
        }
    }

    fn planned_whiteout(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        let (folder, name) = self.folders.parent(path)?;
        rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0)
            .context("make a whiteout at", path.as_path())?;
        Ok(())
    }

    fn planned_link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), UnpackError> {
        let (from, from_name) = self.folders.parent(target)?;
        let from = from.try_clone_to_owned().context("open", target.as_path())?;
        let (folder, name) = self.folders.parent(path)?;
        rustix::fs::linkat(from.as_fd(), from_name, folder, name, AtFlags::empty())
            .context("link", path.as_path())?;
        Ok(())
    }
}
