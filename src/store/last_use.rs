//! When steps, base images and caches were last used, which is what `prune` goes by.

use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, params};

use crate::oci::{Platform, Reference};
use crate::pathio::{self, Context as _, PathError};
use crate::plan::CacheKey;

use super::index::Index;
use super::{Store, StoreError, guard};

type Result<T> = std::result::Result<T, StoreError>;

/// What was used within so many seconds before is not written again: most rebuilds only read.
const GRAIN_S: i64 = 60;

impl Store {
    /// Notes that these steps were used now.
    ///
    /// # Errors
    /// The index's.
    pub fn note_steps_used(&self, steps: impl IntoIterator<Item = CacheKey>) -> Result<()> {
        self.with_index(|index| {
            let mut old = Vec::new();
            for step in steps {
                if index.is_older("SELECT used_s FROM step WHERE definition = ?1", &step)? {
                    old.push(step);
                }
            }
            index.use_steps(&old)
        })
    }

    /// Notes that this base image was used now.
    ///
    /// # Errors
    /// The index's.
    pub fn note_base_used(&self, name: &Reference, platform: &Platform) -> Result<()> {
        let (name, platform) = (name.to_string(), platform.to_string());
        self.with_index(|index| index.use_base(&name, &platform))
    }
}

impl Index {
    fn is_older(&self, sql: &str, step: &CacheKey) -> Result<bool> {
        let used_s = self.connection.prepare_cached(sql).and_then(|mut statement| {
            let key = step.as_bytes().as_slice();
            statement.query_row(params![key], |row| row.get::<_, i64>(0)).optional()
        });
        Ok(self.check(used_s)?.is_some_and(|used_s| used_s < self.now_s - GRAIN_S))
    }

    fn use_steps(&self, steps: &[CacheKey]) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for step in steps {
            const SQL: &str = "UPDATE step SET used_s = ?2 WHERE definition = ?1";
            let values = params![step.as_bytes().as_slice(), self.now_s];
            self.check(transaction.execute(SQL, values))?;
        }
        self.check(transaction.commit())
    }

    fn use_base(&self, name: &str, platform: &str) -> Result<()> {
        const OLD: &str = "SELECT 1 FROM resolved
            WHERE name = ?1 AND platform = ?2 AND updated_s < ?3";
        const USE: &str = "UPDATE resolved SET updated_s = ?3 WHERE name = ?1 AND platform = ?2";
        let before_s = self.now_s - GRAIN_S;
        let is_old = self
            .connection
            .prepare_cached(OLD)
            .and_then(|mut statement| statement.exists(params![name, platform, before_s]));
        if self.check(is_old)? {
            self.check(self.connection.execute(USE, params![name, platform, self.now_s]))?;
        }
        Ok(())
    }
}

impl Store {
    /// Notes what the cache with this key is called, for those who look at what the store holds.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn note_cache_id(&self, key: CacheKey, id: &str) -> Result<()> {
        let path = self.cache_id_path(&self.cache_name(key));
        if rustix::fs::access(&path, rustix::fs::Access::EXISTS).is_ok() {
            return Ok(());
        }
        let draft = self.process_directory()?.fresh();
        guard::write_file(&draft, id.as_bytes())?;
        Ok(pathio::rename(&draft, &path)?)
    }

    /// What the cache with this key is called, if anybody said.
    pub(super) fn cache_id(&self, key: &str) -> Option<String> {
        let bytes = guard::read_file(&self.cache_id_path(key), MAX_ID_BYTES).ok()?;
        String::from_utf8(bytes).ok()
    }

    fn cache_id_path(&self, key: &str) -> PathBuf {
        self.root().join("cache-mounts").join(key).join("id")
    }
}

/// A cache's id is no longer than this: a line of a Dockerfile.
const MAX_ID_BYTES: u64 = 64 << 10;

/// Notes that the cache with this lock is used now.
pub(super) fn note_cache_used(lock: &Path, now_s: i64) -> std::result::Result<(), PathError> {
    let now = rustix::fs::Timespec { tv_sec: now_s, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let (here, flags) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    rustix::fs::utimensat(here, lock, &times, flags).context("change the time of", lock)
}
