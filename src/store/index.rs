//! The index: one SQLite database in WAL mode (<https://www.sqlite.org/wal.html>), which several
//! processes read and write at once.
//!
//! A layer's directory is not synced to the disk when it is made: that would cost more than making
//! it. Its row says in which boot it was made; after a crash of the machine, rows of an earlier
//! boot that were never marked durable are not believed.

mod open;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::oci::{DiffId, Digest, LayerCompression};
use crate::plan::CacheKey;
use crate::tree::ContentDigest;

use super::{NoSpace, StepOrigin, StoreError};

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// Its name by content.
    pub content: ContentDigest,
    /// Length of its tar, uncompressed.
    pub tar_bytes: u64,
    /// When it was made, seconds since 1970.
    pub created_s: i64,
}

/// A packed form of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRecord {
    /// The blob.
    pub blob: Digest,
    /// How it is packed.
    pub compression: LayerCompression,
    /// At which level; -1 when somebody else packed it.
    pub level: i32,
    /// The blob's length.
    pub bytes: u64,
}

/// A step that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Its key by definition: operation and all that was before it.
    pub definition: CacheKey,
    /// Its key by content: operation and what the parent's layers hold.
    pub content: CacheKey,
    /// The operation alone.
    pub operation: CacheKey,
    /// The operation's parts, and what it stood on, as JSON: `[[name, value], …]`.
    pub components: String,
    /// The layer that came of it.
    pub layer: DiffId,
    /// When, seconds since 1970.
    pub created_s: i64,
    /// How long it took.
    pub duration_ms: u64,
    /// The caches that it relies on.
    pub origin: StepOrigin,
}

/// A name and the image that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The full reference.
    pub name: String,
    /// The image's manifest in the store.
    pub manifest: Digest,
    /// When it was set, seconds since 1970.
    pub updated_s: i64,
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) connection: Connection,
    path: PathBuf,
    pub(super) boot: String,
    pub(super) now_s: i64,
    /// True if an earlier version had made it.
    pub(super) is_upgraded: bool,
    /// True after an error that the connection does not get over by itself.
    is_stuck: Cell<bool>,
}

type Result<T> = std::result::Result<T, StoreError>;

/// Describes an error of the index at `path`; on a full disk SQLite reports any of several.
fn index_error(path: &Path, source: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    let code = source.sqlite_error_code();
    let may_be_full = matches!(code, Some(CannotOpen | DiskFull | SystemIoFailure));
    let directory = path.parent().filter(|_| may_be_full);
    match directory.and_then(NoSpace::of_index) {
        Some(full) => StoreError::NoSpace(full),
        None => StoreError::Index { path: path.to_owned(), source },
    }
}

impl Index {
    pub(super) fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        use rusqlite::ErrorCode::{DatabaseBusy, FileLockingProtocolFailed};
        result.map_err(|source| {
            let code = source.sqlite_error_code();
            if matches!(code, Some(DatabaseBusy | FileLockingProtocolFailed)) {
                self.is_stuck.set(true);
            }
            index_error(&self.path, source)
        })
    }

    /// Connects anew if the last statement waited in vain for a lock. Statements do not wait for
    /// other processes from then on, so that the work that remains ends soon.
    ///
    /// An fcntl(2) that fails while SQLite gives a lock back leaves it held by this very process,
    /// and every later statement would try for 10 s (`SQLITE_PROTOCOL`, wal.c). Closing the
    /// database releases the lock.
    pub(super) fn reconnect_if_stuck(&mut self) {
        if !self.is_stuck.replace(false) {
            return;
        }
        // Connections of one process share their locks: the old one is closed first. Without a new
        // one, the statements that remain fail for want of tables.
        if let Ok(closed) = Connection::open_in_memory() {
            self.connection = closed;
        }
        if let Ok(connection) = open::connect(&self.path, Duration::ZERO) {
            self.connection = connection;
        }
    }

    fn damaged(&self, reason: impl ToString) -> StoreError {
        StoreError::Record { path: self.path.clone(), reason: reason.to_string() }
    }

    pub(super) fn digest(&self, text: &str) -> Result<Digest> {
        text.parse().map_err(|error: crate::oci::DigestError| self.damaged(error))
    }

    pub(super) fn hash(&self, bytes: &[u8]) -> Result<[u8; 32]> {
        bytes.try_into().map_err(|_wrong_length| self.damaged("a key is not 32 bytes long"))
    }

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

    /// Remembers a layer that was read here; `is_new` says that a form of it was just made, which is
    /// not synced yet. What a cache claimed of it is replaced.
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

    /// Remembers what a cache says of a layer that nobody here has read.
    pub(super) fn claim_layer(&self, diff_id: DiffId, record: &LayerRecord) -> Result<()> {
        const SQL: &str = "INSERT OR IGNORE INTO layer
            (diff_id, content, tar_bytes, created_s, boot, claimed) VALUES (?1, ?2, ?3, ?4, ?5, 1)";
        let tar_bytes = i64::try_from(record.tar_bytes).unwrap_or(i64::MAX);
        let content: &[u8] = record.content.as_bytes();
        let values = params![diff_id.to_string(), content, tar_bytes, record.created_s, self.boot];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    /// The length of a layer's tar, even if only a cache says so.
    pub(super) fn tar_bytes(&self, diff_id: DiffId) -> Result<Option<u64>> {
        const SQL: &str = "SELECT tar_bytes FROM layer WHERE diff_id = ?1";
        let found = self.connection.prepare_cached(SQL).and_then(|mut statement| {
            statement.query_row(params![diff_id.to_string()], |row| row.get::<_, i64>(0)).optional()
        });
        self.check(found).map(|n_bytes| n_bytes.map(i64::unsigned_abs))
    }

    /// Marks what was made in this boot until now as synced.
    pub(super) fn mark_durable(&self, layers: &[DiffId]) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for layer in layers {
            const SQL: &str = "UPDATE layer SET durable = 1 WHERE diff_id = ?1 AND boot = ?2";
            self.check(transaction.execute(SQL, params![layer.to_string(), self.boot]))?;
        }
        self.check(transaction.commit())
    }

    pub(super) fn volatile_layers(&self) -> Result<Vec<DiffId>> {
        const SQL: &str = "SELECT diff_id FROM layer WHERE durable = 0 AND boot = ?1";
        let texts = self.texts(SQL, params![self.boot])?;
        texts.iter().map(|text| self.digest(text).map(DiffId::new)).collect()
    }

    pub(super) fn texts(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<String>> {
        self.check(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_map(values, |row| row.get(0))?.collect()),
        )
    }

    pub(super) fn packed(&self, diff_id: DiffId) -> Result<Vec<PackedRecord>> {
        const SQL: &str = "SELECT blob, compression, level, bytes FROM packed WHERE diff_id = ?1";
        type Raw = (String, String, i32, i64);
        let rows: Vec<Raw> =
            self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map(params![diff_id.to_string()], read)?.collect()
            }))?;
        let record = |(blob, compression, level, bytes): Raw| {
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

    pub(super) fn steps_by_definition(&self, key: CacheKey) -> Result<Vec<StepRecord>> {
        self.steps("definition = ?1 ORDER BY origin", params![key.as_bytes().as_slice()])
    }

    pub(super) fn steps_by_content(&self, key: CacheKey) -> Result<Vec<StepRecord>> {
        self.steps("content = ?1 ORDER BY created_s", params![key.as_bytes().as_slice()])
    }

    /// The steps that were used last, latest first.
    pub(super) fn latest_steps(&self, n_most: u32) -> Result<Vec<StepRecord>> {
        self.steps("1 ORDER BY used_s DESC, nth DESC LIMIT ?1", params![n_most])
    }

    fn steps(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<StepRecord>> {
        type Raw = ((Vec<u8>, Vec<u8>, Vec<u8>), String, String, i64, i64, String);
        let sql = format!(
            "SELECT definition, content, operation, components, layer, created_s, duration_ms, origin FROM step WHERE {condition}"
        );
        let rows: Vec<Raw> =
            self.check(self.connection.prepare_cached(&sql).and_then(|mut statement| {
                let read = |row: &Row<'_>| {
                    let keys = (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok((keys, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?))
                };
                statement.query_map(values, read)?.collect()
            }))?;
        let key = |bytes: Vec<u8>| self.hash(&bytes).map(CacheKey::new);
        let record = |(keys, components, layer, created_s, took, origin): Raw| {
            let (definition, content, operation) = keys;
            Ok(StepRecord {
                definition: key(definition)?,
                content: key(content)?,
                operation: key(operation)?,
                components,
                layer: DiffId::new(self.digest(&layer)?),
                created_s,
                duration_ms: took.unsigned_abs(),
                origin: StepOrigin::from_text(&origin),
            })
        };
        rows.into_iter().map(record).collect()
    }

    pub(super) fn has_operation(&self, operation: CacheKey) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM step WHERE operation = ?1 LIMIT 1";
        let found = self.connection.prepare_cached(SQL).and_then(|mut statement| {
            statement.query_row(params![operation.as_bytes().as_slice()], |_row| Ok(())).optional()
        });
        self.check(found).map(|found| found.is_some())
    }

    /// Remembers a step, in place of what was known of it from the same origin. It counts as used
    /// now, unless `is_learned` and it was known.
    pub(super) fn put_step(&self, step: &StepRecord, is_learned: bool) -> Result<()> {
        const SQL: &str = "INSERT INTO step (definition, content, operation, components, layer,
            created_s, duration_ms, used_s, nth, origin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
            (SELECT COALESCE(MAX(nth), 0) + 1 FROM step WHERE used_s = ?8), ?9)
            ON CONFLICT (definition, origin) DO UPDATE SET content = ?2, operation = ?3,
            components = ?4, layer = ?5, created_s = ?6, duration_ms = ?7,
            used_s = CASE WHEN ?10 THEN used_s ELSE excluded.used_s END,
            nth = CASE WHEN ?10 THEN nth ELSE excluded.nth END";
        let duration = i64::try_from(step.duration_ms).unwrap_or(i64::MAX);
        let values = params![
            step.definition.as_bytes().as_slice(),
            step.content.as_bytes().as_slice(),
            step.operation.as_bytes().as_slice(),
            step.components,
            step.layer.to_string(),
            step.created_s,
            duration,
            self.now_s,
            step.origin.to_text(),
            is_learned
        ];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    pub(super) fn tags(&self) -> Result<Vec<Tag>> {
        const SQL: &str = "SELECT name, manifest, updated_s FROM tag ORDER BY name";
        let rows: Vec<(String, String, i64)> =
            self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                statement.query_map([], read)?.collect()
            }))?;
        let tag = |(name, manifest, updated_s): (String, String, i64)| {
            Ok(Tag { name, manifest: self.digest(&manifest)?, updated_s })
        };
        rows.into_iter().map(tag).collect()
    }

    pub(super) fn tag(&self, name: &str) -> Result<Option<Digest>> {
        let texts = self.texts("SELECT manifest FROM tag WHERE name = ?1", params![name])?;
        texts.first().map(|text| self.digest(text)).transpose()
    }

    pub(super) fn resolved(&self, name: &str, platform: &str) -> Result<Option<Digest>> {
        const SQL: &str = "SELECT manifest FROM resolved WHERE name = ?1 AND platform = ?2";
        let texts = self.texts(SQL, params![name, platform])?;
        texts.first().map(|text| self.digest(text)).transpose()
    }

    pub(super) fn put_resolved(&self, name: &str, platform: &str, manifest: Digest) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO resolved (name, platform, manifest, updated_s) VALUES (?1, ?2, ?3, ?4)";
        let values = params![name, platform, manifest.to_string(), self.now_s];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }
}
