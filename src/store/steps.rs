//! Records of steps: the build cache. A step is found by its definition, or by the content that it
//! runs on.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::oci::DiffId;
use crate::plan::CacheKey;
use crate::pool;

use super::index::{Index, LAST_USE_RESOLUTION_S};
use super::{LayerRecord, LayerSource, StepOrigin, Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A step that was run, and its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Key by definition: the operation and all operations below it.
    pub definition: CacheKey,
    /// Key by content: the operation and the content of the layers below it.
    pub content: CacheKey,
    /// Key of the operation alone.
    pub operation: CacheKey,
    /// The operation's components and the layers below it, as JSON: `[[name, value], …]`.
    pub components: String,
    /// The layer that the step created.
    pub layer: DiffId,
    /// Time at which the step ended, seconds since 1970.
    pub created_s: i64,
    /// Duration of the step.
    pub duration_ms: u64,
    /// The caches that the record relies on.
    pub origin: StepOrigin,
}

/// The step records of a store.
#[derive(Debug, Clone, Copy)]
pub struct Steps<'a> {
    pub(super) store: &'a Store,
}

impl Steps<'_> {
    /// Returns the steps with this key by definition, one from each origin; that of this store's own
    /// builds comes first.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn by_definition(self, key: CacheKey) -> Result<Vec<StepRecord>> {
        let key = key.as_bytes().as_slice();
        self.store.with_index(|index| index.steps("definition = ?1 ORDER BY origin", params![key]))
    }

    /// Returns the steps with this key by content, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn by_content(self, key: CacheKey) -> Result<Vec<StepRecord>> {
        let key = key.as_bytes().as_slice();
        self.store.with_index(|index| index.steps("content = ?1 ORDER BY created_s", params![key]))
    }

    /// Returns whether a step with this operation was ever run, on any parent.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn has_operation(self, operation: CacheKey) -> Result<bool> {
        self.store.with_index(|index| index.has_operation(operation))
    }

    /// Returns at most `limit` steps, the latest used first. Their layers may have been removed.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn latest(self, limit: u32) -> Result<Vec<StepRecord>> {
        const LATEST: &str = "1 ORDER BY used_s DESC, nth DESC LIMIT ?1";
        self.store.with_index(|index| index.steps(LATEST, params![limit]))
    }

    /// Records a step that was run here. It replaces an earlier record of the same origin.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn record(self, step: &StepRecord) -> Result<()> {
        self.store.with_index(|index| index.put_step(step, false))
    }

    /// Notes that these steps, by definition, are used now.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn note_use(self, steps: impl IntoIterator<Item = CacheKey>) -> Result<()> {
        self.store.with_index(|index| {
            let mut outdated = Vec::new();
            for step in steps {
                if index.is_use_outdated(&step)? {
                    outdated.push(step);
                }
            }
            index.set_used(&outdated)
        })
    }
}

impl Store {
    /// Records layers of an imported cache with their sources, and its steps, in one transaction. The last
    /// use of known steps is kept. Sources that this process found to lack a layer are left out.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn import_cache(
        &self,
        layers: &[(DiffId, LayerRecord, LayerSource)],
        steps: &[StepRecord],
    ) -> Result<()> {
        let gone = pool::lock(&self.gone_sources).clone();
        self.with_index(|index| {
            let transaction = index.check(index.connection.unchecked_transaction())?;
            for (diff_id, record, source) in layers {
                if !gone.contains(&(source.place.clone(), source.blob.digest)) {
                    index.put_source(*diff_id, source)?;
                }
                index.claim_layer(*diff_id, record)?;
            }
            steps.iter().try_for_each(|step| index.put_step(step, true))?;
            index.check(transaction.commit())
        })
    }
}

/// Facts about a step that the inventory of the store needs.
pub(super) struct StepUse {
    pub(super) definition: CacheKey,
    /// Empty unless requested.
    pub(super) components: String,
    pub(super) layer: DiffId,
    pub(super) created_s: i64,
    pub(super) used_s: i64,
}

impl Index {
    fn steps(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<StepRecord>> {
        type StepRow = ((Vec<u8>, Vec<u8>, Vec<u8>), String, String, i64, i64, String);
        let sql = format!(
            "SELECT definition, content, operation, components, layer, created_s, duration_ms, origin FROM step WHERE {condition}"
        );
        let rows: Vec<StepRow> =
            self.check(self.connection.prepare_cached(&sql).and_then(|mut statement| {
                let read = |row: &Row<'_>| {
                    let keys = (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok((keys, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?))
                };
                statement.query_map(values, read)?.collect()
            }))?;
        let key = |bytes: Vec<u8>| self.hash(&bytes).map(CacheKey::new);
        let record = |(keys, components, layer, created_s, duration_ms, origin): StepRow| {
            let (definition, content, operation) = keys;
            Ok(StepRecord {
                definition: key(definition)?,
                content: key(content)?,
                operation: key(operation)?,
                components,
                layer: DiffId::new(self.digest(&layer)?),
                created_s,
                duration_ms: duration_ms.unsigned_abs(),
                origin: StepOrigin::from_text(&origin),
            })
        };
        rows.into_iter().map(record).collect()
    }

    fn has_operation(&self, operation: CacheKey) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM step WHERE operation = ?1 LIMIT 1";
        let found = self.connection.prepare_cached(SQL).and_then(|mut statement| {
            statement.query_row(params![operation.as_bytes().as_slice()], |_row| Ok(())).optional()
        });
        self.check(found).map(|found| found.is_some())
    }

    /// Inserts a step, or replaces the record of the same definition and origin. The step counts as
    /// used now, unless `is_import` and it was known.
    fn put_step(&self, step: &StepRecord, is_import: bool) -> Result<()> {
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
            is_import
        ];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    fn is_use_outdated(&self, step: &CacheKey) -> Result<bool> {
        const SQL: &str = "SELECT used_s FROM step WHERE definition = ?1";
        let used_s = self.connection.prepare_cached(SQL).and_then(|mut statement| {
            let key = step.as_bytes().as_slice();
            statement.query_row(params![key], |row| row.get::<_, i64>(0)).optional()
        });
        Ok(self.check(used_s)?.is_some_and(|used_s| used_s < self.now_s - LAST_USE_RESOLUTION_S))
    }

    fn set_used(&self, steps: &[CacheKey]) -> Result<()> {
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

    /// Returns every step; with its components only if `with_components`, as they can be long.
    pub(super) fn all_steps(&self, with_components: bool) -> Result<Vec<StepUse>> {
        let components = if with_components { "components" } else { "''" };
        let sql = format!("SELECT definition, {components}, layer, created_s, used_s FROM step");
        type StepUseRow = (Vec<u8>, String, String, i64, i64);
        let read = |row: &Row<'_>| -> rusqlite::Result<StepUseRow> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let step = |(definition, components, layer, created_s, used_s): StepUseRow| {
            let definition = CacheKey::new(self.hash(&definition)?);
            let layer = DiffId::new(self.digest(&layer)?);
            Ok(StepUse { definition, components, layer, created_s, used_s })
        };
        self.rows(&sql, read)?.into_iter().map(step).collect()
    }
}
