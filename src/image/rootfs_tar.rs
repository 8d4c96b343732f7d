//! Writes an image's file tree as a tar.

use std::io::{self, Read, Write};

use crate::archive::{ArchiveError, TarWriter};
use crate::tree::{Meta, Node, TreePath};

use super::Result;
use super::rootfs::{Rootfs, RootfsEntry};

/// Writes the trees in the format of a layer. A tree with a directory name goes into that
/// directory.
pub(super) fn write(rootfs: &[(Option<String>, Rootfs<'_>)], out: &mut dyn Write) -> Result<()> {
    let mut tar = TarWriter::new(out);
    for (directory, tree) in rootfs {
        let below = match directory {
            None => TreePath::root(),
            Some(directory) => {
                let directory = TreePath::clean(directory.as_bytes());
                let node = Node::Directory { opaque: false };
                tar.node(&directory, &Meta::root(0o755, 0), &node, &mut io::empty())?;
                directory
            }
        };
        put_tree(&mut tar, tree, &below)?;
    }
    tar.finish()?;
    Ok(())
}

fn put_tree(tar: &mut TarWriter<impl Write>, rootfs: &Rootfs<'_>, below: &TreePath) -> Result<()> {
    for (path, found) in rootfs.entries() {
        let path = below.join_path(&path);
        match found {
            RootfsEntry::Directory(meta) => {
                tar.node(&path, meta, &Node::Directory { opaque: false }, &mut io::empty())?
            }
            RootfsEntry::HardLink(target, meta) => {
                tar.hard_link(&path, &below.join_path(&target), meta)?
            }
            RootfsEntry::Node(meta, node) => {
                let mut content: Box<dyn Read + '_> = if let Node::File(file) = node {
                    let opened = rootfs.reader(file);
                    opened.map_err(|source| ArchiveError::Content { path: path.clone(), source })?
                } else {
                    Box::new(io::empty())
                };
                tar.node(&path, meta, node, &mut content)?
            }
        };
    }
    Ok(())
}
