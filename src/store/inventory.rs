//! What the store holds, what needs it, and when that was last used.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rusqlite::Row;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex};
use crate::pathio::Context as _;
use crate::plan::CacheKey;

use super::index::Index;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// What something in the store is kept for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A name of an image.
    Image {
        /// The full name.
        name: String,
        /// Its manifest or index.
        top: Digest,
    },
    /// A step of the build cache.
    Step {
        /// Its key.
        definition: CacheKey,
        /// The operation's parts as JSON: `[[name, value], …]`; empty when they were not asked for.
        components: String,
        /// The layer that came of it.
        layer: DiffId,
    },
    /// A base image, as its registry gave it.
    Base {
        /// The full name.
        name: String,
        /// Which of its images.
        platform: String,
    },
    /// A file that was downloaded.
    Download {
        /// From where.
        url: String,
    },
    /// The directory of a `RUN --mount=type=cache`.
    CacheMount {
        /// Its key.
        key: String,
        /// What the Dockerfile calls it, if that is known.
        id: Option<String>,
    },
    /// The hashes of a context's files.
    Memo {
        /// The name of its file.
        name: String,
    },
}

/// A file or directory of the store that is kept or removed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Layer(DiffId),
    Blob(Digest),
    CacheMount(String),
    Memo(String),
}

/// A holder and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) holder: Holder,
    pub(super) created_s: i64,
    pub(super) used_s: i64,
    /// They need not all be there: a layer may be elsewhere.
    pub(super) things: BTreeSet<Thing>,
}

/// All that is in the store.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) entries: Vec<Entry>,
    /// Bytes on the disk of all that is there.
    pub(super) sizes: BTreeMap<Thing, u64>,
    /// Bytes of the index.
    pub(super) index_bytes: u64,
    /// A document of an image that is not what it should be: what else the image has is not known.
    pub(super) damage: Option<StoreError>,
}

impl Inventory {
    /// Bytes of everything.
    pub(super) fn total_bytes(&self) -> u64 {
        self.sizes.values().sum::<u64>() + self.index_bytes
    }

    /// How many entries need each thing.
    pub(super) fn holders(&self) -> BTreeMap<&Thing, usize> {
        let mut holders = BTreeMap::new();
        for thing in self.entries.iter().flat_map(|entry| &entry.things) {
            *holders.entry(thing).or_insert(0) += 1;
        }
        holders
    }

    /// Bytes of a thing; 0 when it is not there.
    pub(super) fn bytes(&self, thing: &Thing) -> u64 {
        self.sizes.get(thing).copied().unwrap_or(0)
    }
}

impl Store {
    /// Looks at all that is there; steps with their components only if `with_components`.
    pub(super) fn inventory(&self, with_components: bool) -> Result<Inventory> {
        let sizes = self.sizes()?;
        let packed = self.with_index(|index| index.all_packed())?;
        let mut entries = Vec::new();
        let mut damage = None;
        let mut things_of = |top| match self.things_of_image(top, &packed) {
            Err(error @ StoreError::Corrupt { .. }) => {
                damage = Some(error);
                Ok(BTreeSet::from([Thing::Blob(top)]))
            }
            things => things,
        };
        for tag in self.tags()? {
            let things = things_of(tag.manifest)?;
            let holder = Holder::Image { name: tag.name, top: tag.manifest };
            let (created_s, used_s) = (tag.updated_s, tag.updated_s);
            entries.push(Entry { holder, created_s, used_s, things });
        }
        for base in self.with_index(|index| index.all_resolved())? {
            let things = things_of(base.manifest)?;
            let holder = Holder::Base { name: base.name, platform: base.platform };
            entries.push(Entry { holder, created_s: 0, used_s: base.used_s, things });
        }
        for step in self.with_index(|index| index.all_steps(with_components))? {
            let mut things = BTreeSet::new();
            add_layer(step.layer, &packed, &mut things);
            let Step { definition, components, layer, created_s, used_s } = step;
            let holder = Holder::Step { definition, components, layer };
            entries.push(Entry { holder, created_s, used_s, things });
        }
        for (url, blob, used_s) in self.with_index(|index| index.all_downloads())? {
            let holder = Holder::Download { url };
            let things = BTreeSet::from([Thing::Blob(blob)]);
            entries.push(Entry { holder, created_s: used_s, used_s, things });
        }
        entries.extend(sizes.keys().filter_map(|thing| self.entry_of_its_own(thing)));
        let index_bytes = ["index.db", "index.db-wal", "index.db-shm"]
            .iter()
            .map(|name| disk_bytes(&self.root().join(name)))
            .sum();
        Ok(Inventory { entries, sizes, index_bytes, damage })
    }

    /// What is kept for nothing but itself.
    fn entry_of_its_own(&self, thing: &Thing) -> Option<Entry> {
        let (holder, used_s) = match thing {
            Thing::Layer(_) | Thing::Blob(_) => return None,
            Thing::CacheMount(key) => (
                Holder::CacheMount { key: key.clone(), id: self.cache_id(key) },
                self.cache_mount_used_s(key),
            ),
            Thing::Memo(name) => {
                (Holder::Memo { name: name.clone() }, modified_s(&self.path_of(thing)))
            }
        };
        let things = BTreeSet::from([thing.clone()]);
        Some(Entry { holder, created_s: used_s, used_s, things })
    }

    /// When a step last had the cache: then its lock was taken.
    fn cache_mount_used_s(&self, key: &str) -> i64 {
        let home = self.root().join("cache-mounts").join(key);
        let Ok(copies) = std::fs::read_dir(&home) else { return 0 };
        copies.flatten().map(|copy| modified_s(&copy.path().join("lock"))).max().unwrap_or(0)
    }

    /// The documents and layers of an image, or of all images of an index.
    fn things_of_image(&self, top: Digest, packed: &PackedForms) -> Result<BTreeSet<Thing>> {
        let mut things = BTreeSet::from([Thing::Blob(top)]);
        if !self.has_blob(top) {
            return Ok(things);
        }
        let bytes = self.read_blob(top, MAX_DOCUMENT_BYTES)?;
        match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Manifest(manifest)) => {
                self.add_image(&manifest, packed, &mut things)?;
            }
            Ok(ManifestOrIndex::Index(index)) => {
                for entry in &index.manifests {
                    // What a registry's index lists need not have been pulled.
                    if !self.has_blob(entry.digest) || !things.insert(Thing::Blob(entry.digest)) {
                        continue;
                    }
                    let bytes = self.read_blob(entry.digest, MAX_DOCUMENT_BYTES)?;
                    if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes)
                    {
                        self.add_image(&manifest, packed, &mut things)?;
                    }
                }
            }
            Err(_no_image) => {}
        }
        Ok(things)
    }

    fn add_image(
        &self,
        manifest: &Manifest,
        packed: &PackedForms,
        things: &mut BTreeSet<Thing>,
    ) -> Result<()> {
        things.insert(Thing::Blob(manifest.config.digest));
        things.extend(manifest.layers.iter().map(|layer| Thing::Blob(layer.digest)));
        if !self.has_blob(manifest.config.digest) {
            return Ok(());
        }
        let config = self.read_blob(manifest.config.digest, MAX_DOCUMENT_BYTES)?;
        let Ok(config) = ImageConfig::parse(&config) else { return Ok(()) };
        config.rootfs.diff_ids.iter().for_each(|layer| add_layer(*layer, packed, things));
        Ok(())
    }

    /// Everything that is there, with its size on the disk.
    fn sizes(&self) -> Result<BTreeMap<Thing, u64>> {
        let mut sizes = BTreeMap::new();
        let digest = |name: &str| format!("sha256:{name}").parse::<Digest>().ok();
        let thing = |directory: &str, name: String| match directory {
            "layers" => digest(&name).map(|digest| Thing::Layer(DiffId::new(digest))),
            "blobs/sha256" => digest(&name).map(Thing::Blob),
            "cache-mounts" => Some(Thing::CacheMount(name)),
            _ => Some(Thing::Memo(name)),
        };
        for kind in ["layers", "blobs/sha256", "cache-mounts", "memo"] {
            let directory = self.root().join(kind);
            for entry in std::fs::read_dir(&directory).context("list", &directory)? {
                let entry = entry.context("list", &directory)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                if let Some(thing) = thing(kind, name) {
                    sizes.insert(thing, disk_bytes(&entry.path()));
                }
            }
        }
        Ok(sizes)
    }

    /// Where a thing is.
    pub(super) fn path_of(&self, thing: &Thing) -> PathBuf {
        let root = self.root();
        match thing {
            Thing::Layer(diff_id) => root.join("layers").join(diff_id.digest().hex()),
            Thing::Blob(digest) => root.join("blobs/sha256").join(digest.hex()),
            Thing::CacheMount(key) => root.join("cache-mounts").join(key),
            Thing::Memo(name) => root.join("memo").join(name),
        }
    }
}

/// The packed forms of each layer.
type PackedForms = BTreeMap<DiffId, Vec<Digest>>;

/// A layer in all its forms.
fn add_layer(diff_id: DiffId, packed: &PackedForms, things: &mut BTreeSet<Thing>) {
    things.insert(Thing::Layer(diff_id));
    things.insert(Thing::Blob(diff_id.digest()));
    things.extend(packed.get(&diff_id).into_iter().flatten().copied().map(Thing::Blob));
}

/// A row of the build cache.
pub(super) struct Step {
    definition: CacheKey,
    components: String,
    layer: DiffId,
    created_s: i64,
    used_s: i64,
}

/// A row of the base images.
pub(super) struct ResolvedBase {
    pub(super) name: String,
    pub(super) platform: String,
    pub(super) manifest: Digest,
    pub(super) used_s: i64,
}

impl Index {
    /// Reads every record that says what the store needs.
    ///
    /// # Errors
    /// [`StoreError::Record`] for the first that cannot be read.
    pub(super) fn read_all(&self) -> Result<()> {
        self.tags()?;
        self.all_packed()?;
        self.all_resolved()?;
        self.all_steps(false)?;
        self.all_downloads()?;
        self.volatile_layers().map(drop)
    }

    fn rows<T>(&self, sql: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        self.check(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_map([], |row| read(row))?.collect()),
        )
    }

    pub(super) fn all_packed(&self) -> Result<PackedForms> {
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let mut packed = PackedForms::new();
        for (layer, blob) in self.rows("SELECT diff_id, blob FROM packed", read)? {
            let layer = DiffId::new(self.digest(&layer)?);
            packed.entry(layer).or_default().push(self.digest(&blob)?);
        }
        Ok(packed)
    }

    fn all_steps(&self, with_components: bool) -> Result<Vec<Step>> {
        let components = if with_components { "components" } else { "''" };
        let sql = format!("SELECT definition, {components}, layer, created_s, used_s FROM step");
        type Raw = (Vec<u8>, String, String, i64, i64);
        let read = |row: &Row<'_>| -> rusqlite::Result<Raw> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let step = |(definition, components, layer, created_s, used_s): Raw| {
            let definition = CacheKey::new(self.hash(&definition)?);
            let layer = DiffId::new(self.digest(&layer)?);
            Ok(Step { definition, components, layer, created_s, used_s })
        };
        self.rows(&sql, read)?.into_iter().map(step).collect()
    }

    pub(super) fn all_resolved(&self) -> Result<Vec<ResolvedBase>> {
        let read =
            |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?));
        let base = |(name, platform, manifest, used_s): (_, _, String, _)| {
            Ok(ResolvedBase { name, platform, manifest: self.digest(&manifest)?, used_s })
        };
        let rows = self.rows("SELECT name, platform, manifest, updated_s FROM resolved", read)?;
        rows.into_iter().map(base).collect()
    }

    fn all_downloads(&self) -> Result<Vec<(String, Digest, i64)>> {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
        let rows = self.rows("SELECT url, blob, used_s FROM download", read)?;
        rows.into_iter().map(|(url, blob, used_s)| Ok((url, self.digest(&blob)?, used_s))).collect()
    }
}

/// What a file, or a directory with all that it holds, takes of the disk.
fn disk_bytes(path: &Path) -> u64 {
    let mut linked = BTreeSet::new();
    let metas = walkdir::WalkDir::new(path).into_iter().flatten();
    let metas = metas.filter_map(|entry| entry.metadata().ok());
    // A file with several names is there once.
    let mut is_new = |meta: &std::fs::Metadata| {
        meta.is_dir() || meta.nlink() < 2 || linked.insert((meta.dev(), meta.ino()))
    };
    // The unit of `st_blocks` is fixed (stat(2)).
    metas.filter(|meta| is_new(meta)).map(|meta| meta.blocks() * 512).sum()
}

fn modified_s(path: &Path) -> i64 {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let age = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    age.and_then(|age| i64::try_from(age.as_secs()).ok()).unwrap_or(0)
}
