//! Pruning: removes what nobody needs, or has not used for long, or what is too much; when no other
//! process uses the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rusqlite::params;

use crate::oci::DiffId;
use crate::pathio;

use super::index::Index;
use super::inventory::{Entry, Holder, Inventory, Thing};
use super::{Store, StoreError, alone};

type Result<T> = std::result::Result<T, StoreError>;

/// What `prune` may remove. Without a time and a size, everything of these kinds goes: cached
/// steps, base images, downloads, hashes of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneOptions {
    /// Tagged images too; and the directories of `RUN --mount=type=cache`, which otherwise go only when
    /// a time or a size says so.
    pub all: bool,
    /// Only what was not used since, seconds since 1970.
    pub unused_since_s: Option<i64>,
    /// Only so much that the store is no larger than this; what was not used for longest first.
    pub max_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What `prune` removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// What was forgotten, in the order in which it was chosen.
    pub forgotten: Vec<Holder>,
    /// Unpacked layers.
    pub n_layers: usize,
    /// Blobs.
    pub n_blobs: usize,
    /// Directories of `RUN --mount=type=cache`.
    pub n_caches: usize,
    /// Bytes of all together.
    pub n_bytes: u64,
    /// Bytes of what is left.
    pub left_bytes: u64,
}

impl Store {
    /// Forgets cached steps and what else the options say, and removes blobs and layers that are
    /// then needed by nothing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process uses the store; [`StoreError::Corrupt`] when an
    /// image is damaged, so that what it needs is not known, unless all go; the kernel's, with the path.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        if options.dry_run {
            return Ok(choose(self.inventory(false)?, options).pruned);
        }
        if !self.in_use.try_upgrade() {
            return Err(alone::in_use(&self.root));
        }
        let pruned = self.prune_alone(options);
        self.in_use.downgrade();
        pruned
    }

    fn prune_alone(&self, options: &PruneOptions) -> Result<Pruned> {
        let mut inventory = self.inventory(false)?;
        if let Some(damage) = inventory.damage.take().filter(|_| !options.all) {
            return Err(damage);
        }
        let choice = choose(inventory, options);
        // First the records, so that nothing is believed to be there that is half removed.
        self.with_index(|index| {
            index.forget(&choice.pruned.forgotten)?;
            index.forget_layers(&choice.kept_layers)
        })?;
        for holder in &choice.pruned.forgotten {
            if let Holder::Image { name, .. } = holder {
                self.remove_tag_file(name)?;
            }
        }
        self.note_tag_files()?;
        let mut others = None;
        for thing in &choice.things {
            let path = self.path_of(thing);
            let removed = match thing {
                Thing::Layer(_) | Thing::CacheMount(_) => pathio::remove_dir_all(&path),
                Thing::Blob(_) | Thing::Memo(_) => pathio::remove_file(&path),
            };
            match removed {
                // All else goes first.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    others.get_or_insert(StoreError::OtherIds { path });
                }
                removed => removed?,
            }
        }
        self.remove_set_aside()?;
        others.map_or(Ok(choice.pruned), Err)
    }
}

/// What is to be removed.
struct Choice {
    pruned: Pruned,
    things: Vec<Thing>,
    /// Layers that something still needs, here or elsewhere.
    kept_layers: BTreeSet<DiffId>,
}

/// Chooses what goes: first what nothing needs, then, until enough is gone, what was not used for
/// longest. Of what was used at the same time the newest goes first: it was made from the older.
fn choose(inventory: Inventory, options: &PruneOptions) -> Choice {
    let mut left_bytes = inventory.total_bytes();
    let mut holders: BTreeMap<Thing, usize> =
        inventory.holders().into_iter().map(|(thing, n)| (thing.clone(), n)).collect();
    let unneeded = inventory.sizes.keys().filter(|thing| !holders.contains_key(thing));
    let mut things: Vec<Thing> = unneeded.cloned().collect();
    let freed: u64 = things.iter().map(|thing| inventory.bytes(thing)).sum();
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
        for thing in entry.things {
            let n_holders = holders.entry(thing.clone()).or_insert(1);
            *n_holders -= 1;
            if *n_holders == 0
                && let Some(n_bytes) = sizes.get(&thing)
            {
                left_bytes = left_bytes.saturating_sub(*n_bytes);
                things.push(thing);
            }
        }
        forgotten.push(entry.holder);
    }
    let kept_layers = kept.iter().flat_map(|entry| &entry.things).filter_map(|thing| match thing {
        Thing::Layer(diff_id) => Some(*diff_id),
        Thing::Blob(_) | Thing::CacheMount(_) | Thing::Memo(_) => None,
    });
    let kept_layers = kept_layers.collect();
    let mut pruned = Pruned { forgotten, left_bytes, ..Pruned::default() };
    for thing in &things {
        pruned.n_bytes += sizes.get(thing).copied().unwrap_or(0);
        match thing {
            Thing::Layer(_) => pruned.n_layers += 1,
            Thing::Blob(_) => pruned.n_blobs += 1,
            Thing::CacheMount(_) => pruned.n_caches += 1,
            Thing::Memo(_) => {}
        }
    }
    Choice { pruned, things, kept_layers }
}

fn may_go(entry: &Entry, options: &PruneOptions) -> bool {
    let is_chosen = options.unused_since_s.is_some() || options.max_bytes.is_some();
    let is_kind = match entry.holder {
        Holder::Image { .. } => options.all,
        Holder::CacheMount { .. } => options.all || is_chosen,
        Holder::Step { .. }
        | Holder::Base { .. }
        | Holder::Download { .. }
        | Holder::Memo { .. } => true,
    };
    is_kind && options.unused_since_s.is_none_or(|since_s| entry.used_s < since_s)
}

impl Index {
    /// Forgets what the holders stand for, all at once.
    fn forget(&self, holders: &[Holder]) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for holder in holders {
            let done = match holder {
                Holder::Image { name, .. } => {
                    transaction.execute("DELETE FROM tag WHERE name = ?1", params![name])
                }
                Holder::Step { definition, .. } => {
                    let key = definition.as_bytes().as_slice();
                    transaction.execute("DELETE FROM step WHERE definition = ?1", params![key])
                }
                Holder::Base { name, platform } => transaction.execute(
                    "DELETE FROM resolved WHERE name = ?1 AND platform = ?2",
                    params![name, platform],
                ),
                Holder::Download { url } => {
                    transaction.execute("DELETE FROM download WHERE url = ?1", params![url])
                }
                Holder::CacheMount { .. } | Holder::Memo { .. } => Ok(0),
            };
            self.check(done)?;
        }
        self.check(transaction.commit())
    }

    /// Forgets every layer but these.
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

    const ALL: PruneOptions =
        PruneOptions { all: false, unused_since_s: None, max_bytes: None, dry_run: true };

    fn layer(name: &str) -> DiffId {
        DiffId::new(Digest::of(name.as_bytes()))
    }

    fn step(number: u8, used_s: i64, name: &str) -> Entry {
        let (definition, layer) = (CacheKey::new([number; 32]), layer(name));
        let holder = Holder::Step { definition, components: String::new(), layer };
        let things = BTreeSet::from([Thing::Layer(layer)]);
        Entry { holder, created_s: number.into(), used_s, things }
    }

    fn image(used_s: i64, name: &str) -> Entry {
        let holder = Holder::Image { name: name.to_owned(), top: Digest::of(name.as_bytes()) };
        let things = BTreeSet::from([Thing::Layer(layer(name))]);
        Entry { holder, created_s: used_s, used_s, things }
    }

    fn cache(used_s: i64) -> Entry {
        let thing = Thing::CacheMount("c".to_owned());
        let holder = Holder::CacheMount { key: "c".to_owned(), id: None };
        Entry { holder, created_s: used_s, used_s, things: BTreeSet::from([thing]) }
    }

    /// Two steps used at 10, one at 20, an image with the layer of one of them, a cache used at 5,
    /// a layer that nothing needs: 100 bytes each.
    fn inventory() -> Inventory {
        let entries = vec![
            step(1, 10, "base"),
            step(2, 10, "middle"),
            step(3, 20, "top"),
            image(1, "base"),
            cache(5),
        ];
        let mut sizes: BTreeMap<Thing, u64> = ["base", "middle", "top", "garbage"]
            .into_iter()
            .map(|name| (Thing::Layer(layer(name)), 100))
            .collect();
        sizes.insert(Thing::CacheMount("c".to_owned()), 100);
        Inventory { entries, sizes, ..Inventory::default() }
    }

    /// What is forgotten, as numbers of steps, `i` and `c`; bytes that go, bytes that stay.
    fn chosen(options: PruneOptions) -> (String, u64, u64) {
        let choice = choose(inventory(), &options);
        let sign = |holder: &Holder| match holder {
            Holder::Step { definition, .. } => definition.as_bytes()[0].to_string(),
            Holder::Image { .. } => "i".to_owned(),
            Holder::Base { .. }
            | Holder::Download { .. }
            | Holder::CacheMount { .. }
            | Holder::Memo { .. } => "c".to_owned(),
        };
        let signs = choice.pruned.forgotten.iter().map(sign).collect();
        (signs, choice.pruned.n_bytes, choice.pruned.left_bytes)
    }

    #[test]
    fn what_is_old_or_too_much_goes_the_least_recently_used_first() {
        let since = |since_s| PruneOptions { unused_since_s: Some(since_s), ..ALL };
        let max = |max_bytes| PruneOptions { max_bytes: Some(max_bytes), ..ALL };
        for (options, want) in [
            // An image keeps its layers, and nobody said that caches may go.
            (ALL, ("213", 300, 200)),
            (PruneOptions { all: true, ..ALL }, ("ic213", 500, 0)),
            // What nothing needs goes in any case.
            (since(0), ("", 100, 400)),
            (since(6), ("c", 200, 300)),
            (since(20), ("c21", 300, 200)),
            (PruneOptions { all: true, ..since(2) }, ("i", 100, 400)),
            (max(400), ("", 100, 400)),
            (max(399), ("c", 200, 300)),
            // The later step first, which was made from the earlier; that frees nothing, as an image
            // has the same layer, so it goes on.
            (max(299), ("c2", 300, 200)),
            (max(0), ("c213", 400, 100)),
            (PruneOptions { unused_since_s: Some(20), ..max(0) }, ("c21", 300, 200)),
        ] {
            let (signs, freed, left) = chosen(options);
            assert_eq!((&*signs, freed, left), want, "{options:?}");
        }
    }

    #[test]
    fn the_layers_of_what_is_kept_are_remembered() {
        let options = PruneOptions { unused_since_s: Some(20), ..ALL };
        let kept = choose(inventory(), &options).kept_layers;
        assert_eq!(kept, BTreeSet::from([layer("base"), layer("top")]));
    }
}
