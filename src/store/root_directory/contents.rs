//! The contents of the files of layers, for copies: from an unpacked layer, or from its plain tar.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use crate::archive;
use crate::oci::DiffId;
use crate::pathio::holes::{self, ByteRun};
use crate::pathio::{Context as _, interrupt};
use crate::store::{LowerDirectory, Store, StoreError, private_files};
use crate::tree::{ContentHash, File, FileOrigin, TreePath};

type Result<T> = std::result::Result<T, StoreError>;

/// Size of the buffer for contents, bytes: smaller files are written with one call.
const BUFFER_BYTES: u64 = 1 << 20;

/// The opened layers of a tree.
#[derive(Debug)]
pub(super) struct LayerContents<'a> {
    store: &'a Store,
    layers: BTreeMap<DiffId, LayerFiles>,
}

/// A layer's files.
#[derive(Debug)]
enum LayerFiles {
    Directory(LowerDirectory),
    Tar(fs::File),
}

impl<'a> LayerContents<'a> {
    /// Opens layers. The plain tar of a compressed layer is stored first.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::WrongDiffId`] or [`StoreError::Io`].
    pub(super) fn open(store: &'a Store, layers: BTreeSet<DiffId>) -> Result<Self> {
        let open = |layer: DiffId| {
            if let Some(directory) = store.layer_directory(layer)? {
                return Ok((layer, LayerFiles::Directory(directory)));
            }
            if !store.has_blob(layer.digest()) {
                store.store_plain_tar(layer)?;
            }
            Ok((layer, LayerFiles::Tar(store.open_blob(layer.digest())?)))
        };
        Ok(Self { store, layers: layers.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Copies the content of `file` into the empty file `out`, for `path`. Holes stay holes. Bytes of
    /// a tar are checked against the listing; an unpacked layer was checked when it was opened.
    ///
    /// # Errors
    /// The damage of the layer; [`StoreError::Io`].
    pub(super) fn copy(
        &self,
        file: &File,
        path: &TreePath,
        out: &fs::File,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        if file.size == 0 {
            return Ok(());
        }
        interrupt::check().context("copy", path.as_path())?;
        match &file.origin {
            FileOrigin::Inline(bytes) => Ok(out.write_all_at(bytes, 0).context("write", path.as_path())?),
            FileOrigin::Layer(place) => {
                let n_copied = match self.layers.get(&place.layer) {
                    Some(LayerFiles::Tar(tar)) if place.tar_at != archive::NOT_IN_ONE_PIECE => {
                        let hash = copy_checked(tar, (place.tar_at, file.size), out, buffer);
                        let hash = hash.context("copy", path.as_path())?;
                        if hash == file.content { file.size } else { 0 }
                    }
                    Some(LayerFiles::Directory(directory)) => {
                        let source = private_files::open_layer_file(directory.as_fd(), &place.path)
                            .context("open", place.path.as_path())?;
                        copy_file(&source, file.size, out).context("copy", path.as_path())?
                    }
                    Some(LayerFiles::Tar(_)) | None => {
                        let source = self.store.unpack_layer_file(place.layer, &place.path)?;
                        copy_file(&source, file.size, out).context("copy", path.as_path())?
                    }
                };
                if n_copied == file.size {
                    return Ok(());
                }
                Err(self.store.damaged_content(place.layer, &place.path))
            }
            // Listings of the store name layers only.
            FileOrigin::Directory(_) => Err(StoreError::Missing { what: format!("the file {path}") }),
        }
    }
}

/// Copies a file of an unpacked layer: as a reflink where the file system has them
/// (ioctl_ficlone(2)). Returns its length.
fn copy_file(source: &fs::File, n_bytes: u64, out: &fs::File) -> std::io::Result<u64> {
    if rustix::fs::ioctl_ficlone(out, source).is_ok() {
        return Ok(out.metadata()?.len());
    }
    holes::copy(source, 0, n_bytes, out)
}

/// Copies a part of a tar, whose offset and length are given; returns its hash.
fn copy_checked(
    tar: &fs::File,
    (tar_at, n_bytes): (u64, u64),
    out: &fs::File,
    buffer: &mut Vec<u8>,
) -> std::io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let (mut at, mut has_holes) = (0, false);
    while at < n_bytes {
        let n_piece = usize::try_from((n_bytes - at).min(BUFFER_BYTES)).unwrap_or(0);
        if buffer.len() < n_piece {
            buffer.resize(n_piece, 0);
        }
        let piece = buffer.get_mut(..n_piece).unwrap_or_default();
        tar.read_exact_at(piece, tar_at.saturating_add(at))?;
        hasher.update(piece);
        let mut rest: &[u8] = piece;
        while !rest.is_empty() {
            let n_run = match holes::first_run(rest, at) {
                ByteRun::Hole(n_run) => {
                    has_holes = true;
                    n_run
                }
                ByteRun::Data(n_run) => {
                    out.write_all_at(rest.get(..n_run).unwrap_or_default(), at)?;
                    n_run
                }
            };
            rest = rest.get(n_run..).unwrap_or_default();
            at += u64::try_from(n_run).unwrap_or(u64::MAX);
        }
    }
    if has_holes {
        out.set_len(n_bytes)?;
    }
    Ok(ContentHash::new(hasher.finalize().into()))
}
