//! Pruning: removes roots by age, size or kind, and then the objects that no root references. Requires
//! exclusive use of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rusqlite::params;

use crate::oci::DiffId;
use crate::pathio;

use super::index::Index;
use super::inventory::{self, Inventory, InventoryEntry, StoredObject};
use super::{GcRoot, Store, StoreError, exclusive, unpacked_check};

type Result<T> = std::result::Result<T, StoreError>;

/// Limits on what [`Store::prune`] removes. Without a time and a size, all cached steps, base images,
/// downloads and hash caches are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneOptions {
    /// True to remove tagged images as well, and cache mounts, which are otherwise removed only by time
    /// or size.
    pub all: bool,
    /// True to remove cache mounts.
    pub cache_mounts: bool,
    /// Remove only roots that were not used since this time, seconds since 1970.
    pub unused_since_s: Option<i64>,
    /// Remove roots, least recently used first, until the store has at most this size, bytes.
    pub max_bytes: Option<u64>,
    /// True to return what would be removed, and remove nothing.
    pub dry_run: bool,
}

/// Result of [`Store::prune`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// The removed roots, in the order in which they were chosen.
    pub forgotten: Vec<GcRoot>,
    /// Number of removed layer directories.
    pub n_layers: usize,
    /// Number of removed blobs.
    pub n_blobs: usize,
    /// Number of removed cache mounts.
    pub n_caches: usize,
    /// Disk usage of all removed objects, bytes.
    pub n_bytes: u64,
    /// Disk usage of the store afterwards, bytes.
    pub left_bytes: u64,
}

/// Implements [`Store::prune`].
pub(super) fn prune(store: &Store, options: &PruneOptions) -> Result<Pruned> {
    if options.dry_run {
        return Ok(choose(Inventory::of_store(store, false)?, options).pruned);
    }
    if !store.in_use.try_upgrade() {
        return Err(exclusive::in_use(&store.root));
    }
    let pruned = prune_exclusively(store, options);
    store.in_use.downgrade();
    pruned
}

fn prune_exclusively(store: &Store, options: &PruneOptions) -> Result<Pruned> {
    let mut inventory = Inventory::of_store(store, false)?;
    if let Some(damage) = inventory.damage.take().filter(|_| !options.all) {
        return Err(damage);
    }
    let choice = choose(inventory, options);
    // Records first, so that no record names an object that is partly removed.
    store.with_index(|index| {
        index.forget(&choice.pruned.forgotten)?;
        index.forget_layers(&choice.kept_layers)
    })?;
    for root in &choice.pruned.forgotten {
        if let GcRoot::Image { name, .. } = root {
            store.tags().remove_file(name)?;
        }
    }
    store.tags().note_files_unchanged()?;
    let mut others = None;
    for object in &choice.objects {
        let path = inventory::path_of(store, object);
        let removed = match object {
            StoredObject::Layer(_) | StoredObject::CacheMount(_) => pathio::remove_dir_all(&path),
            StoredObject::Blob(_) | StoredObject::HashCache(_) => pathio::remove_file(&path),
        };
        match removed {
            // Reported at the end, after everything else was removed.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                others.get_or_insert(StoreError::OtherIds { path });
            }
            removed => removed?,
        }
    }
    unpacked_check::remove_set_aside(store)?;
    others.map_or(Ok(choice.pruned), Err)
}

/// The roots and objects to remove.
struct PruneChoice {
    pruned: Pruned,
    objects: Vec<StoredObject>,
    /// Layers that a remaining root references, whether or not the store has them.
    kept_layers: BTreeSet<DiffId>,
}

/// Chooses unreferenced objects, and then roots, least recently used first, until the store is small
/// enough. Of roots that were used at the same time, the newest is chosen first: it was built on the
/// older ones.
fn choose(inventory: Inventory, options: &PruneOptions) -> PruneChoice {
    let mut left_bytes = inventory.total_bytes();
    let mut counts: BTreeMap<StoredObject, usize> =
        inventory.reference_counts().into_iter().map(|(object, n)| (object.clone(), n)).collect();
    let unreferenced = inventory.sizes.keys().filter(|object| !counts.contains_key(object));
    let mut objects: Vec<StoredObject> = unreferenced.cloned().collect();
    let freed: u64 = objects.iter().map(|object| inventory.bytes(object)).sum();
    left_bytes = left_bytes.saturating_sub(freed);
    let Inventory { mut entries, sizes, .. } = inventory;
    entries.sort_by_key(|entry| (entry.used_s, std::cmp::Reverse(entry.created_s)));
    let (mut forgotten, mut kept) = (Vec::new(), Vec::new());
    for entry in entries {
        let is_enough = options.max_bytes.is_some_and(|max_bytes| left_bytes <= max_bytes);
        if is_enough || !may_go(&entry, options) {
            kept.push(entry);
            continue;
        }
        for object in entry.objects {
            let n_roots = counts.entry(object.clone()).or_insert(1);
            *n_roots -= 1;
            if *n_roots == 0
                && let Some(n_bytes) = sizes.get(&object)
            {
                left_bytes = left_bytes.saturating_sub(*n_bytes);
                objects.push(object);
            }
        }
        forgotten.push(entry.root);
    }
    let kept_layers =
        kept.iter().flat_map(|entry| &entry.objects).filter_map(|object| match object {
            StoredObject::Layer(diff_id) => Some(*diff_id),
            StoredObject::Blob(_) | StoredObject::CacheMount(_) | StoredObject::HashCache(_) => {
                None
            }
        });
    let kept_layers = kept_layers.collect();
    let mut pruned = Pruned { forgotten, left_bytes, ..Pruned::default() };
    for object in &objects {
        pruned.n_bytes += sizes.get(object).copied().unwrap_or(0);
        match object {
            StoredObject::Layer(_) => pruned.n_layers += 1,
            StoredObject::Blob(_) => pruned.n_blobs += 1,
            StoredObject::CacheMount(_) => pruned.n_caches += 1,
            StoredObject::HashCache(_) => {}
        }
    }
    PruneChoice { pruned, objects, kept_layers }
}

fn may_go(entry: &InventoryEntry, options: &PruneOptions) -> bool {
    let is_chosen = options.unused_since_s.is_some() || options.max_bytes.is_some();
    let is_kind = match entry.root {
        GcRoot::Image { .. } => options.all,
        GcRoot::CacheMount { .. } => options.all || options.cache_mounts || is_chosen,
        GcRoot::Step { .. }
        | GcRoot::Base { .. }
        | GcRoot::Download { .. }
        | GcRoot::HashCache { .. } => true,
    };
    is_kind && options.unused_since_s.is_none_or(|since_s| entry.used_s < since_s)
}

impl Index {
    /// Removes the records of roots, in one transaction.
    fn forget(&self, roots: &[GcRoot]) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for root in roots {
            let done = match root {
                GcRoot::Image { name, .. } => {
                    transaction.execute("DELETE FROM tag WHERE name = ?1", params![name])
                }
                GcRoot::Step { definition, .. } => {
                    let key = definition.as_bytes().as_slice();
                    transaction.execute("DELETE FROM step WHERE definition = ?1", params![key])
                }
                GcRoot::Base { name, platform } => transaction.execute(
                    "DELETE FROM resolved WHERE name = ?1 AND platform = ?2",
                    params![name, platform],
                ),
                GcRoot::Download { url } => {
                    transaction.execute("DELETE FROM download WHERE url = ?1", params![url])
                }
                GcRoot::CacheMount { .. } | GcRoot::HashCache { .. } => Ok(0),
            };
            self.check(done)?;
        }
        self.check(transaction.commit())
    }

    /// Removes the records of all layers but these.
    fn forget_layers(&self, kept: &BTreeSet<DiffId>) -> Result<()> {
        const ALL: &str = "SELECT diff_id FROM layer UNION SELECT diff_id FROM source
            UNION SELECT diff_id FROM packed";
        let known = self.texts(ALL, [])?;
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for text in known {
            if kept.contains(&DiffId::new(self.digest(&text)?)) {
                continue;
            }
            for table in ["layer", "packed", "source", "stacked", "checked"] {
                let sql = format!("DELETE FROM {table} WHERE diff_id = ?1");
                self.check(transaction.execute(&sql, params![text]))?;
            }
        }
        self.check(transaction.commit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::plan::CacheKey;

    const ALL: PruneOptions = PruneOptions {
        all: false,
        cache_mounts: false,
        unused_since_s: None,
        max_bytes: None,
        dry_run: true,
    };

    fn layer(name: &str) -> DiffId {
        DiffId::new(Digest::of(name.as_bytes()))
    }

    fn step(number: u8, used_s: i64, name: &str) -> InventoryEntry {
        let (definition, layer) = (CacheKey::new([number; 32]), layer(name));
        let root = GcRoot::Step { definition, components: String::new(), layer };
        let objects = BTreeSet::from([StoredObject::Layer(layer)]);
        InventoryEntry { root, created_s: number.into(), used_s, objects }
    }

    fn image(used_s: i64, name: &str) -> InventoryEntry {
        let root = GcRoot::Image { name: name.to_owned(), top: Digest::of(name.as_bytes()) };
        let objects = BTreeSet::from([StoredObject::Layer(layer(name))]);
        InventoryEntry { root, created_s: used_s, used_s, objects }
    }

    fn cache(used_s: i64) -> InventoryEntry {
        let object = StoredObject::CacheMount("c".to_owned());
        let root = GcRoot::CacheMount { key: "c".to_owned(), id: None };
        InventoryEntry { root, created_s: used_s, used_s, objects: BTreeSet::from([object]) }
    }

    /// Returns two steps used at 10, one at 20, an image with the layer of one of them, a cache mount
    /// used at 5, and an unreferenced layer: 100 bytes each.
    fn inventory() -> Inventory {
        let entries = vec![
            step(1, 10, "base"),
            step(2, 10, "middle"),
            step(3, 20, "top"),
            image(1, "base"),
            cache(5),
        ];
        let mut sizes: BTreeMap<StoredObject, u64> = ["base", "middle", "top", "garbage"]
            .into_iter()
            .map(|name| (StoredObject::Layer(layer(name)), 100))
            .collect();
        sizes.insert(StoredObject::CacheMount("c".to_owned()), 100);
        Inventory { entries, sizes, ..Inventory::default() }
    }

    /// Returns the removed roots as numbers of steps, `i` and `c`; bytes removed, bytes left.
    fn chosen(options: PruneOptions) -> (String, u64, u64) {
        let choice = choose(inventory(), &options);
        let sign = |root: &GcRoot| match root {
            GcRoot::Step { definition, .. } => definition.as_bytes()[0].to_string(),
            GcRoot::Image { .. } => "i".to_owned(),
            GcRoot::Base { .. }
            | GcRoot::Download { .. }
            | GcRoot::CacheMount { .. }
            | GcRoot::HashCache { .. } => "c".to_owned(),
        };
        let signs = choice.pruned.forgotten.iter().map(sign).collect();
        (signs, choice.pruned.n_bytes, choice.pruned.left_bytes)
    }

    #[test]
    fn roots_are_removed_by_age_and_size_least_recently_used_first() {
        let since = |since_s| PruneOptions { unused_since_s: Some(since_s), ..ALL };
        let max = |max_bytes| PruneOptions { max_bytes: Some(max_bytes), ..ALL };
        for (options, want) in [
            // An image keeps its layers; cache mounts are not removed by default.
            (ALL, ("213", 300, 200)),
            (PruneOptions { all: true, ..ALL }, ("ic213", 500, 0)),
            (PruneOptions { cache_mounts: true, ..ALL }, ("c213", 400, 100)),
            // Unreferenced objects are always removed.
            (since(0), ("", 100, 400)),
            (since(6), ("c", 200, 300)),
            (since(20), ("c21", 300, 200)),
            (PruneOptions { all: true, ..since(2) }, ("i", 100, 400)),
            (max(400), ("", 100, 400)),
            (max(399), ("c", 200, 300)),
            // Step 2 first, which was created after step 1. Step 1 would free nothing, because the image
            // has the same layer.
            (max(299), ("c2", 300, 200)),
            (max(0), ("c213", 400, 100)),
            (PruneOptions { unused_since_s: Some(20), ..max(0) }, ("c21", 300, 200)),
        ] {
            let (signs, freed, left) = chosen(options);
            assert_eq!((&*signs, freed, left), want, "{options:?}");
        }
    }

    #[test]
    fn layers_of_remaining_roots_keep_their_records() {
        let options = PruneOptions { unused_since_s: Some(20), ..ALL };
        let kept = choose(inventory(), &options).kept_layers;
        assert_eq!(kept, BTreeSet::from([layer("base"), layer("top")]));
    }
}
