//! Lists a layer from its tar, without unpacking it.

use std::io::{self, Read};

use crate::archive::{ArchiveEntry, ArchiveError, HashingReader};
use crate::tree::{ContentHash, LayerListing, Meta, Node, TreePath};

use super::unpack::{self, FileOriginOf, UnpackError, UnpackOptions, UnpackTarget};

type Result<T> = std::result::Result<T, UnpackError>;

/// Reads `tar` to its end and returns its listing, the same as [`unpack::unpack`] returns.
pub(super) fn list(
    tar: &mut dyn Read,
    options: &UnpackOptions,
    origin: FileOriginOf<'_>,
) -> Result<LayerListing> {
    Ok(unpack::read(tar, NoFiles, options, origin)?.listing)
}

/// Creates no files; contents are read for their hashes.
struct NoFiles;

impl UnpackTarget for NoFiles {
    fn check_space(&mut self, _path: &TreePath) -> Result<()> {
        Ok(())
    }

    fn make_directory(&mut self, _path: &TreePath) -> Result<()> {
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        _path: &TreePath,
        _meta: &Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash> {
        let mut content = HashingReader::new(entry);
        io::copy(&mut content, &mut io::sink()).map_err(ArchiveError::Read)?;
        Ok(content.hash())
    }

    fn hard_link(&mut self, _path: &TreePath, _target: &TreePath) -> Result<()> {
        Ok(())
    }

    fn symlink(&mut self, _path: &TreePath, _meta: &Meta, _target: &[u8]) -> Result<()> {
        Ok(())
    }

    fn special(&mut self, _path: &TreePath, _meta: &Meta, _node: &Node) -> Result<()> {
        Ok(())
    }

    fn whiteout(&mut self, _path: &TreePath) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, _path: &TreePath, _is_directory: bool) -> Result<()> {
        Ok(())
    }

    fn finish_directory(&mut self, _path: &TreePath, _meta: &Meta, _is_opaque: bool) -> Result<()> {
        Ok(())
    }
}
