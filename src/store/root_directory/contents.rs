//! The contents of the files of layers, for copies: from an unpacked layer, its plain tar, or the
//! stream of a compressed one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use crate::archive::{self, EntryKind, TarReader};
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
    /// Only compressed: read from start to end.
    Packed,
}

impl<'a> LayerContents<'a> {
    /// Opens layers.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Record`] or [`StoreError::Io`].
    pub(super) fn open(store: &'a Store, layers: BTreeSet<DiffId>) -> Result<Self> {
        let open = |layer: DiffId| {
            if let Some(directory) = store.layer_directory(layer)? {
                return Ok((layer, LayerFiles::Directory(directory)));
            }
            if !store.has_blob(layer.digest()) {
                return Ok((layer, LayerFiles::Packed));
            }
            Ok((layer, LayerFiles::Tar(store.open_blob(layer.digest())?)))
        };
        Ok(Self { store, layers: layers.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Returns the offset of a content in the tar of a compressed layer, to be found by
    /// [`Self::stream`]; `None` for a content that [`Self::copy`] can read at once.
    pub(super) fn streamed(&self, file: &File) -> Option<(DiffId, u64)> {
        let FileOrigin::Layer(place) = &file.origin else { return None };
        let is_packed = matches!(self.layers.get(&place.layer), Some(LayerFiles::Packed));
        let in_one_piece = place.tar_at != archive::NOT_IN_ONE_PIECE;
        (is_packed && in_one_piece && file.size > 0).then_some((place.layer, place.tar_at))
    }

    /// Calls `visit` with the offset and the content of each file of a compressed layer.
    ///
    /// # Errors
    /// Those of `visit`; the damage of the layer; [`StoreError::Missing`] or [`StoreError::Io`].
    pub(super) fn stream(
        &self,
        layer: DiffId,
        visit: &mut dyn FnMut(u64, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut tar = self.store.open_tar(layer)?;
        let mut reader = TarReader::bounded(&mut tar, self.store.archive_bounds());
        loop {
            let entry = reader.next().map_err(|error| self.store.damage_or(layer, error.into()));
            let Some(mut entry) = entry? else { return Ok(()) };
            if entry.kind == EntryKind::File {
                visit(entry.content_at, &mut entry)?;
            }
        }
    }

    /// Copies a content from a stream, as [`Self::copy`] does.
    ///
    /// # Errors
    /// The damage of the layer; [`StoreError::Io`].
    pub(super) fn copy_stream(
        &self,
        (file, path): (&File, &TreePath),
        source: &mut dyn Read,
        out: &fs::File,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        interrupt::check().context("copy", path.as_path())?;
        let mut read = |piece: &mut [u8], _at| source.read_exact(piece);
        let hash =
            copy_checked(&mut read, file.size, out, buffer).context("copy", path.as_path())?;
        match &file.origin {
            FileOrigin::Layer(place) if hash != file.content => {
                Err(self.store.damaged_content(place.layer, &place.path))
            }
            FileOrigin::Layer(_) | FileOrigin::Directory(_) | FileOrigin::Inline(_) => Ok(()),
        }
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
            FileOrigin::Inline(bytes) => {
                Ok(out.write_all_at(bytes, 0).context("write", path.as_path())?)
            }
            FileOrigin::Layer(place) => {
                let n_copied = match self.layers.get(&place.layer) {
                    Some(LayerFiles::Tar(tar)) if place.tar_at != archive::NOT_IN_ONE_PIECE => {
                        let mut read = |piece: &mut [u8], at| {
                            tar.read_exact_at(piece, place.tar_at.saturating_add(at))
                        };
                        let hash = copy_checked(&mut read, file.size, out, buffer)
                            .context("copy", path.as_path())?;
                        if hash == file.content { file.size } else { 0 }
                    }
                    Some(LayerFiles::Directory(directory)) => {
                        let source = private_files::open_layer_file(directory.as_fd(), &place.path)
                            .context("open", place.path.as_path())?;
                        copy_file(&source, file.size, out).context("copy", path.as_path())?
                    }
                    Some(LayerFiles::Tar(_) | LayerFiles::Packed) | None => {
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
            FileOrigin::Directory(_) => {
                Err(StoreError::Missing { what: format!("the file {path}") })
            }
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

/// Fills a buffer with the bytes at an offset of a content.
type ReadAt<'a> = dyn FnMut(&mut [u8], u64) -> std::io::Result<()> + 'a;

/// Copies a content of `n_bytes` bytes, each read once and in order; returns its hash.
fn copy_checked(
    read: &mut ReadAt<'_>,
    n_bytes: u64,
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
        read(piece, at)?;
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
