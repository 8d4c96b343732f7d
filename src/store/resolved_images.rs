//! Base images as registries resolved them: the manifest of a reference for a platform.

use rusqlite::{Row, params};

use crate::oci::{Digest, Platform, Reference};

use super::index::{Index, LAST_USE_RESOLUTION_S};
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// The resolved base images of a store.
#[derive(Debug, Clone, Copy)]
pub struct ResolvedImages<'a> {
    pub(super) store: &'a Store,
}

impl ResolvedImages<'_> {
    /// Returns the manifest that `name` had on `platform` when a registry was last asked.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn get(self, name: &Reference, platform: &Platform) -> Result<Option<Digest>> {
        let (name, platform) = (name.to_string(), platform.to_string());
        self.store.with_index(|index| index.resolved(&name, &platform))
    }

    /// Records the manifest that a registry returned for `name` on `platform`.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn record(self, name: &Reference, platform: &Platform, manifest: Digest) -> Result<()> {
        let (name, platform) = (name.to_string(), platform.to_string());
        self.store.with_index(|index| index.put_resolved(&name, &platform, manifest))
    }

    /// Notes that this base image is used now.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn note_use(self, name: &Reference, platform: &Platform) -> Result<()> {
        let (name, platform) = (name.to_string(), platform.to_string());
        self.store.with_index(|index| index.note_resolved_use(&name, &platform))
    }
}

/// A row of the resolved base images.
pub(super) struct ResolvedImage {
    pub(super) name: String,
    pub(super) platform: String,
    pub(super) manifest: Digest,
    pub(super) used_s: i64,
}

impl Index {
    fn resolved(&self, name: &str, platform: &str) -> Result<Option<Digest>> {
        const SQL: &str = "SELECT manifest FROM resolved WHERE name = ?1 AND platform = ?2";
        let texts = self.texts(SQL, params![name, platform])?;
        texts.first().map(|text| self.digest(text)).transpose()
    }

    fn put_resolved(&self, name: &str, platform: &str, manifest: Digest) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO resolved (name, platform, manifest, updated_s) VALUES (?1, ?2, ?3, ?4)";
        let values = params![name, platform, manifest.to_string(), self.now_s];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    fn note_resolved_use(&self, name: &str, platform: &str) -> Result<()> {
        const OUTDATED: &str = "SELECT 1 FROM resolved
            WHERE name = ?1 AND platform = ?2 AND updated_s < ?3";
        const USE: &str = "UPDATE resolved SET updated_s = ?3 WHERE name = ?1 AND platform = ?2";
        let before_s = self.now_s - LAST_USE_RESOLUTION_S;
        let is_outdated = self
            .connection
            .prepare_cached(OUTDATED)
            .and_then(|mut statement| statement.exists(params![name, platform, before_s]));
        if self.check(is_outdated)? {
            self.check(self.connection.execute(USE, params![name, platform, self.now_s]))?;
        }
        Ok(())
    }

    /// Returns every resolved base image.
    pub(super) fn all_resolved(&self) -> Result<Vec<ResolvedImage>> {
        let read =
            |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?));
        let image = |(name, platform, manifest, used_s): (_, _, String, _)| {
            Ok(ResolvedImage { name, platform, manifest: self.digest(&manifest)?, used_s })
        };
        let rows = self.rows("SELECT name, platform, manifest, updated_s FROM resolved", read)?;
        rows.into_iter().map(image).collect()
    }

    /// Removes a resolved base image.
    pub(super) fn remove_resolved(&self, name: &str, platform: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM resolved WHERE name = ?1 AND platform = ?2";
        self.check(self.connection.execute(SQL, params![name, platform])).map(drop)
    }
}
