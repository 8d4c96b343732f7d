//! An image's file tree as one tar.

use std::io::{self, Read, Write};

use crate::archive::{ArchiveError, TarWriter};
use crate::tree::Node;

use super::Result;
use super::rootfs::{Found, Rootfs};

/// Writes the whole tree, as a layer of its own would be written.
pub(super) fn write(rootfs: &Rootfs, out: &mut dyn Write) -> Result<()> {
    let mut tar = TarWriter::new(out);
    for (path, found) in rootfs.entries() {
        match found {
            Found::Folder(meta) => {
                tar.node(&path, meta, &Node::Directory { opaque: false }, &mut io::empty())?
            }
            Found::HardLink(target, meta) => tar.hard_link(&path, &target, meta)?,
            Found::Node(meta, node) => {
                let mut content: Box<dyn Read + '_> = match node {
                    Node::File(file) => rootfs
                        .reader(file)
                        .map_err(|source| ArchiveError::Content { path: path.clone(), source })?,
                    _ => Box::new(io::empty()),
                };
                tar.node(&path, meta, node, &mut content)?
            }
        };
    }
    tar.finish()?;
    Ok(())
}
