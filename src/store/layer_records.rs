//! Types that describe layers, and the records of layers in the index.
//!
//! The directory of a layer is not synced when it is created: that costs more than creating it. Its
//! record names the boot in which it was created. Records of an earlier boot that were not marked
//! durable are ignored.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, Row, params};

use crate::oci::{DiffId, Digest, LayerCompression};
use crate::pathio::Context as _;
use crate::tree::ContentDigest;

use super::index::Index;
use super::private_files::open_directory;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// The directory of an unpacked layer, shared by all overlays that have it as a lower directory.
pub type LowerDirectory = Arc<OwnedFd>;

/// A layer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// Identity of the layer.
    pub diff_id: DiffId,
    /// Content digest, length and age of the layer.
    pub record: LayerRecord,
}

/// Options for new layers.
#[derive(Debug, Clone, Copy)]
pub struct LayerOptions {
    /// Maximum modification time of files, seconds since 1970: later times are replaced by it
    /// (`SOURCE_DATE_EPOCH`, <https://reproducible-builds.org/specs/source-date-epoch/>).
    pub clamp_s: Option<i64>,
    /// Creation time for the record, seconds since 1970.
    pub created_s: i64,
}

/// Facts about a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// Digest of its content: paths, files, modes and owners, but no times.
    pub content: ContentDigest,
    /// Length of its uncompressed tar, bytes.
    pub tar_bytes: u64,
    /// Time at which it was created, seconds since 1970.
    pub created_s: i64,
}

/// A layer as a blob, compressed or as a plain tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRecord {
    /// Digest of the blob.
    pub blob: Digest,
    /// Compression of the blob.
    pub compression: LayerCompression,
    /// Compression level, for gzip with the version of the writer; -1 if another program compressed
    /// it.
    pub level: i32,
    /// Length of the blob.
    pub bytes: u64,
}

/// Compression level of a blob that was pulled or loaded.
pub(super) const OTHER_PACKER: i32 = -1;

/// Digests of the packed blobs of each layer.
pub(super) type PackedBlobs = BTreeMap<DiffId, Vec<Digest>>;

/// Implements [`Store::make_durable`].
pub(super) fn make_durable(store: &Store) -> Result<()> {
    let layers: Vec<DiffId> = store.with_index(|index| index.volatile_layers())?;
    if layers.is_empty() {
        return Ok(());
    }
    let root = open_directory(store.root())?;
    rustix::fs::syncfs(root.as_fd()).context("sync", store.root())?;
    store.with_index(|index| index.mark_durable(&layers))
}

impl Index {
    /// Returns the record of a layer that was created or read here, and whose files are on the disk.
    pub(super) fn layer(&self, diff_id: DiffId) -> Result<Option<LayerRecord>> {
        const SQL: &str = "SELECT content, tar_bytes, created_s FROM layer
            WHERE diff_id = ?1 AND claimed = 0 AND (durable = 1 OR boot = ?2)";
        let row = self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
            let read =
                |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get(2)?));
            statement.query_row(params![diff_id.to_string(), self.boot], read).optional()
        }))?;
        let Some((content, tar_bytes, created_s)) = row else { return Ok(None) };
        let content = ContentDigest::new(self.hash(&content)?);
        Ok(Some(LayerRecord { content, tar_bytes: tar_bytes.unsigned_abs(), created_s }))
    }

    /// Records a layer that was created or read here. With `is_new`, files of it were just created
    /// and are not synced. Facts that a cache claimed are replaced.
    pub(super) fn put_layer(
        &self,
        diff_id: DiffId,
        record: &LayerRecord,
        is_new: bool,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO layer (diff_id, content, tar_bytes, created_s, boot)
            VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (diff_id) DO UPDATE SET
            content = CASE claimed WHEN 0 THEN content ELSE ?2 END,
            tar_bytes = CASE claimed WHEN 0 THEN tar_bytes ELSE ?3 END,
            created_s = CASE claimed WHEN 0 THEN created_s ELSE ?4 END,
            claimed = 0, boot = ?5, durable = 0
            WHERE ?6 OR claimed OR durable = 0 AND boot != ?5";
        let tar_bytes = i64::try_from(record.tar_bytes).unwrap_or(i64::MAX);
        let content: &[u8] = record.content.as_bytes();
        let layer = diff_id.to_string();
        let values = params![layer, content, tar_bytes, record.created_s, self.boot, is_new];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    /// Records what a cache claims about a layer that was not read here.
    pub(super) fn claim_layer(&self, diff_id: DiffId, record: &LayerRecord) -> Result<()> {
        const SQL: &str = "INSERT OR IGNORE INTO layer
            (diff_id, content, tar_bytes, created_s, boot, claimed) VALUES (?1, ?2, ?3, ?4, ?5, 1)";
        let tar_bytes = i64::try_from(record.tar_bytes).unwrap_or(i64::MAX);
        let content: &[u8] = record.content.as_bytes();
        let values = params![diff_id.to_string(), content, tar_bytes, record.created_s, self.boot];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    /// Returns the length of a layer's tar, even if only a cache claims it.
    pub(super) fn tar_bytes(&self, diff_id: DiffId) -> Result<Option<u64>> {
        const SQL: &str = "SELECT tar_bytes FROM layer WHERE diff_id = ?1";
        let found = self.connection.prepare_cached(SQL).and_then(|mut statement| {
            statement.query_row(params![diff_id.to_string()], |row| row.get::<_, i64>(0)).optional()
        });
        self.check(found).map(|n_bytes| n_bytes.map(i64::unsigned_abs))
    }

    /// Marks layers of this boot as synced.
    fn mark_durable(&self, layers: &[DiffId]) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for layer in layers {
            const SQL: &str = "UPDATE layer SET durable = 1 WHERE diff_id = ?1 AND boot = ?2";
            self.check(transaction.execute(SQL, params![layer.to_string(), self.boot]))?;
        }
        self.check(transaction.commit())
    }

    /// Returns the layers of this boot that are not synced.
    pub(super) fn volatile_layers(&self) -> Result<Vec<DiffId>> {
        const SQL: &str = "SELECT diff_id FROM layer WHERE durable = 0 AND boot = ?1";
        let texts = self.texts(SQL, params![self.boot])?;
        texts.iter().map(|text| self.digest(text).map(DiffId::new)).collect()
    }

    /// Returns the blobs of a layer, whether or not they still exist.
    pub(super) fn packed(&self, diff_id: DiffId) -> Result<Vec<PackedRecord>> {
        const SQL: &str = "SELECT blob, compression, level, bytes FROM packed WHERE diff_id = ?1";
        type PackedRow = (String, String, i32, i64);
        let rows: Vec<PackedRow> =
            self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map(params![diff_id.to_string()], read)?.collect()
            }))?;
        let record = |(blob, compression, level, bytes): PackedRow| {
            let compression = match compression.as_str() {
                "gzip" => LayerCompression::Gzip,
                "zstd" => LayerCompression::Zstd,
                _ => LayerCompression::None,
            };
            let bytes = bytes.unsigned_abs();
            Ok(PackedRecord { blob: self.digest(&blob)?, compression, level, bytes })
        };
        rows.into_iter().map(record).collect()
    }

    /// Records a blob of a layer.
    pub(super) fn put_packed(&self, diff_id: DiffId, packed: &PackedRecord) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO packed (blob, diff_id, compression, level, bytes)
            VALUES (?1, ?2, ?3, ?4, ?5)";
        let compression = match packed.compression {
            LayerCompression::None => "none",
            LayerCompression::Gzip => "gzip",
            LayerCompression::Zstd => "zstd",
        };
        let bytes = i64::try_from(packed.bytes).unwrap_or(i64::MAX);
        let values =
            params![packed.blob.to_string(), diff_id.to_string(), compression, packed.level, bytes];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    /// Returns the blobs of all layers.
    pub(super) fn all_packed(&self) -> Result<PackedBlobs> {
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let mut packed = PackedBlobs::new();
        for (layer, blob) in self.rows("SELECT diff_id, blob FROM packed", read)? {
            let layer = DiffId::new(self.digest(&layer)?);
            packed.entry(layer).or_default().push(self.digest(&blob)?);
        }
        Ok(packed)
    }
}
