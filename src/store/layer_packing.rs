//! Blobs for layers: compresses them once, and records the result.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use crate::archive::{self, GZIP_VERSION, Packing};
use crate::oci::{DiffId, LayerCompression};
use crate::pathio::Context as _;

use super::layer_records::OTHER_PACKER;
use super::{BlobDraft, PackedRecord, Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Returns the layer as a blob with this packing, and creates the blob if there is none. A plain
    /// tar is a private blob of this process: it is fast to write, and the store has the layer in
    /// another representation already.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] or [`StoreError::Io`] (source [`StoreError::Corrupt`]) if the layer
    /// is damaged; [`StoreError::Missing`], [`StoreError::NoSpace`].
    pub fn pack(
        &self,
        diff_id: DiffId,
        packing: Packing,
        jobs: NonZeroUsize,
    ) -> Result<PackedRecord> {
        self.pack_and_copy(diff_id, packing, jobs, &mut io::sink())
    }

    /// Packs a layer as [`Store::pack`] does, and copies the blob's bytes to `copy` as they are
    /// produced. If the blob exists, nothing is copied.
    ///
    /// # Errors
    /// The errors of [`Store::pack`]; [`StoreError::Io`] if `copy` fails.
    pub fn pack_and_copy(
        &self,
        diff_id: DiffId,
        packing: Packing,
        jobs: NonZeroUsize,
        copy: &mut (dyn Write + Send),
    ) -> Result<PackedRecord> {
        if let Some(found) = self.find_packed(diff_id, packing)? {
            return Ok(found);
        }
        let started = Instant::now();
        let tee = TeeDraft { draft: self.draft()?, copy };
        let mut packer =
            archive::packer(tee, packing, jobs).context("pack a layer of", self.root())?;
        self.write_tar(diff_id, &mut packer)?;
        let tee = packer.finish().context("pack a layer of", self.root())?;
        tracing::debug!(layer = %diff_id, ?packing, took = ?started.elapsed(), "layer packed");
        self.publish_packed(diff_id, packing, tee.draft)
    }

    /// Makes the finished draft the blob of a layer with this packing, and records it.
    pub(super) fn publish_packed(
        &self,
        diff_id: DiffId,
        packing: Packing,
        draft: BlobDraft,
    ) -> Result<PackedRecord> {
        let (compression, level) = compression_and_level(packing);
        if packing == Packing::None {
            let (blob, bytes) = self.keep_private(draft);
            return Ok(PackedRecord { blob, compression, level, bytes });
        }
        let (blob, bytes) = self.publish(draft)?;
        let record = PackedRecord { blob, compression, level, bytes };
        self.with_index(|index| index.put_packed(diff_id, &record))?;
        Ok(record)
    }

    /// Returns the layer as a blob with this packing, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Record`] or [`StoreError::Io`].
    pub fn find_packed(&self, diff_id: DiffId, packing: Packing) -> Result<Option<PackedRecord>> {
        let (compression, level) = compression_and_level(packing);
        if packing == Packing::None && self.has_blob(diff_id.digest()) {
            let blob = diff_id.digest();
            let bytes = self.open_blob(blob)?.metadata().context("examine", self.root())?.len();
            return Ok(Some(PackedRecord { blob, compression, level, bytes }));
        }
        let same =
            |packed: &PackedRecord| packed.compression == compression && packed.level == level;
        Ok(self.packed(diff_id)?.into_iter().find(same))
    }

    /// Returns the layer as a blob with this compression that another program made, or this one on
    /// another machine, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn find_pulled(
        &self,
        diff_id: DiffId,
        compression: LayerCompression,
    ) -> Result<Option<PackedRecord>> {
        let same = |packed: &PackedRecord| {
            packed.level == OTHER_PACKER && packed.compression == compression
        };
        Ok(self.packed(diff_id)?.into_iter().find(same))
    }
}

/// Distance of the recorded levels of two versions of the gzip writer; levels have two digits.
const LEVELS_PER_VERSION: u32 = 100;

/// Returns the compression and level of a record. The level of gzip includes the writer's version: a
/// blob that an earlier rbuild packed at the same level may have other bytes.
fn compression_and_level(packing: Packing) -> (LayerCompression, i32) {
    match packing {
        Packing::None => (LayerCompression::None, 0),
        Packing::Gzip { level } => {
            let level = level.saturating_add(GZIP_VERSION * LEVELS_PER_VERSION);
            (LayerCompression::Gzip, i32::try_from(level).unwrap_or(i32::MAX))
        }
        Packing::Zstd { level } => (LayerCompression::Zstd, level),
    }
}

/// Writes the same bytes to a draft and to a second writer.
struct TeeDraft<'a> {
    draft: BlobDraft,
    copy: &'a mut (dyn Write + Send),
}

impl Write for TeeDraft<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.draft.write(bytes)?;
        self.copy.write_all(bytes.get(..n_bytes).unwrap_or_default())?;
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()?;
        self.copy.flush()
    }
}
