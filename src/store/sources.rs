//! Where layers can be had that are not here: a registry's repository, or an OCI layout.

use std::collections::BTreeSet;

use rusqlite::{Row, params};

use crate::oci::{Descriptor, DiffId, Digest, MediaType};

use super::index::Index;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A packed form of a layer, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSource {
    /// The blob.
    pub blob: Descriptor,
    /// A repository, as in `docker.io/library/busybox`, or the absolute path of an OCI layout.
    pub place: String,
}

impl Store {
    /// Remembers that `source` has the layer `diff_id`, unless this process knows better.
    ///
    /// # Errors
    /// The index's.
    pub fn put_source(&self, diff_id: DiffId, source: &LayerSource) -> Result<()> {
        if self.lost().contains(&(source.place.clone(), source.blob.digest)) {
            return Ok(());
        }
        self.with_index(|index| index.put_source(diff_id, source))
    }

    /// Where the layer can be had, the newest place first; nobody has been asked.
    ///
    /// # Errors
    /// The index's.
    pub fn sources(&self, diff_id: DiffId) -> Result<Vec<LayerSource>> {
        self.with_index(|index| index.sources(diff_id))
    }

    /// Forgets a place that no longer has what it had. Whoever says that it has is not believed as
    /// long as this process lives.
    ///
    /// # Errors
    /// The index's.
    pub fn forget_source(&self, source: &LayerSource) -> Result<()> {
        self.lost().insert((source.place.clone(), source.blob.digest));
        self.with_index(|index| index.remove_source(source))
    }
}

impl Store {
    fn lost(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, Digest)>> {
        // Each use is one call on the set: a panic elsewhere leaves it whole.
        self.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Index {
    fn put_source(&self, diff_id: DiffId, source: &LayerSource) -> Result<()> {
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
        type Raw = (String, String, String, i64);
        let rows: Vec<Raw> =
            self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map(params![diff_id.to_string()], read)?.collect()
            }))?;
        let source = |(place, blob, media_type, bytes): Raw| {
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
