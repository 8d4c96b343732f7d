//! Sources of layers that are not in the store: repositories, OCI layouts and buckets that hold them
//! compressed.

use rusqlite::{Row, params};

use crate::oci::{Descriptor, DiffId, Digest, MediaType};
use crate::pool;

use super::index::Index;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A compressed layer, and a location that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSource {
    /// Descriptor of the compressed layer.
    pub blob: Descriptor,
    /// A repository, as in `docker.io/library/busybox`, or the absolute path of an OCI layout.
    pub place: String,
}

/// The sources of layers that a store knows.
#[derive(Debug, Clone, Copy)]
pub struct LayerSources<'a> {
    pub(super) store: &'a Store,
}

impl LayerSources<'_> {
    /// Records that `source` holds the layer `diff_id`, unless this process has found that it does
    /// not.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn record(self, diff_id: DiffId, source: &LayerSource) -> Result<()> {
        let gone = (source.place.clone(), source.blob.digest);
        if pool::lock(&self.store.gone_sources).contains(&gone) {
            return Ok(());
        }
        self.store.with_index(|index| index.put_source(diff_id, source))
    }

    /// Returns the recorded sources of the layer, latest record first. No request is sent to check
    /// them.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn of_layer(self, diff_id: DiffId) -> Result<Vec<LayerSource>> {
        self.store.with_index(|index| index.sources(diff_id))
    }

    /// Removes a source that no longer holds the layer. This process ignores later records of it,
    /// for example from an imported cache.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn remove(self, source: &LayerSource) -> Result<()> {
        let gone = (source.place.clone(), source.blob.digest);
        pool::lock(&self.store.gone_sources).insert(gone);
        self.store.with_index(|index| index.remove_source(source))
    }
}

impl Index {
    pub(super) fn put_source(&self, diff_id: DiffId, source: &LayerSource) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO source
            (place, blob, diff_id, media_type, bytes, updated_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let LayerSource { blob, place } = source;
        let bytes = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let (digest, layer) = (blob.digest.to_string(), diff_id.to_string());
        let values = params![place, digest, layer, blob.media_type.as_str(), bytes, self.now_s];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    fn sources(&self, diff_id: DiffId) -> Result<Vec<LayerSource>> {
        const SQL: &str = "SELECT place, blob, media_type, bytes FROM source
            WHERE diff_id = ?1 ORDER BY updated_s DESC, place";
        type SourceRow = (String, String, String, i64);
        let rows: Vec<SourceRow> =
            self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map(params![diff_id.to_string()], read)?.collect()
            }))?;
        let source = |(place, blob, media_type, bytes): SourceRow| {
            let digest: Digest = self.digest(&blob)?;
            let blob = Descriptor::new(MediaType::from(media_type), digest, bytes.unsigned_abs());
            Ok(LayerSource { blob, place })
        };
        rows.into_iter().map(source).collect()
    }

    fn remove_source(&self, source: &LayerSource) -> Result<()> {
        const SQL: &str = "DELETE FROM source WHERE place = ?1 AND blob = ?2";
        let values = params![source.place, source.blob.digest.to_string()];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }
}
