//! An image's file tree as one tar.

use std::io::{self, Read, Write};

use crate::archive::{ArchiveError, TarWriter};
use crate::tree::{Meta, Node, TreePath};

use super::Result;
use super::rootfs::{Found, Rootfs};

/// Writes the whole tree, as a layer of its own would be written. With several images, each is in
/// a folder of its platform's name.
pub(super) fn write(rootfs: &[(String, Rootfs)], out: &mut dyn Write) -> Result<()> {
    let mut tar = TarWriter::new(out);
    if let [(_platform, only)] = rootfs {
        put_tree(&mut tar, only, &TreePath::root())?;
    } else {
        for (platform, one) in rootfs {
            let folder = TreePath::clean(platform.as_bytes());
            let node = Node::Directory { opaque: false };
            tar.node(&folder, &Meta::root(0o755, 0), &node, &mut io::empty())?;
            put_tree(&mut tar, one, &folder)?;
        }
    }
    tar.finish()?;
    Ok(())
}

fn put_tree(tar: &mut TarWriter<impl Write>, rootfs: &Rootfs, below: &TreePath) -> Result<()> {
    for (path, found) in rootfs.entries() {
        let path = below.join_path(&path);
        match found {
            Found::Folder(meta) => {
                tar.node(&path, meta, &Node::Directory { opaque: false }, &mut io::empty())?
            }
            Found::HardLink(target, meta) => {
                tar.hard_link(&path, &below.join_path(&target), meta)?
            }
            Found::Node(meta, node) => {
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
