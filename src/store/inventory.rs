//! The objects of the store, the roots that reference them, and when these were last used.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex};
use crate::pathio::Context as _;
use crate::plan::CacheKey;

use super::layer_records::PackedBlobs;
use super::steps::StepUse;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A record that keeps objects of the store from being pruned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GcRoot {
    /// A tag, which keeps the documents and layers of an image.
    Image {
        /// Full name of the image.
        name: String,
        /// Digest of its manifest or index.
        top: Digest,
    },
    /// A step of the build cache, which keeps its layer.
    Step {
        /// Key of the step by definition.
        definition: CacheKey,
        /// Components of the operation as JSON: `[[name, value], …]`; empty unless requested.
        components: String,
        /// The layer that the step created.
        layer: DiffId,
    },
    /// A base image as a registry resolved it, which keeps its documents and layers.
    Base {
        /// Full name of the image.
        name: String,
        /// Platform for which it was resolved.
        platform: String,
    },
    /// A downloaded file, which keeps its blob.
    Download {
        /// URL of the file.
        url: String,
    },
    /// The directory of a `RUN --mount=type=cache`, which keeps itself.
    CacheMount {
        /// Name of the directory: the key of the cache, with a suffix for the map of ids.
        key: String,
        /// Id in the Dockerfile, if it was recorded.
        id: Option<String>,
    },
    /// The file hashes of a context, which keep themselves.
    HashCache {
        /// Name of the file.
        name: String,
    },
}

/// A file or directory of the store that is kept or removed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StoredObject {
    Layer(DiffId),
    Blob(Digest),
    CacheMount(String),
    HashCache(String),
}

/// A root, and the objects that it references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InventoryEntry {
    pub(super) root: GcRoot,
    pub(super) created_s: i64,
    pub(super) used_s: i64,
    /// They need not all be in the store: a layer may be elsewhere.
    pub(super) objects: BTreeSet<StoredObject>,
}

/// All roots and objects of the store.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) entries: Vec<InventoryEntry>,
    /// Disk usage of each object that exists, bytes.
    pub(super) sizes: BTreeMap<StoredObject, u64>,
    /// Disk usage of the index, bytes.
    pub(super) index_bytes: u64,
    /// Damage of an image's document: the other objects of the image are then unknown.
    pub(super) damage: Option<StoreError>,
}

impl Inventory {
    /// Reads the index and the directories of the store. Steps have components only if
    /// `with_components`.
    pub(super) fn of_store(store: &Store, with_components: bool) -> Result<Self> {
        let sizes = sizes(store)?;
        let packed = store.with_index(|index| index.all_packed())?;
        let mut entries = Vec::new();
        let mut damage = None;
        let mut objects_of = |top| match image_objects(store, top, &packed) {
            Err(error @ StoreError::Corrupt { .. }) => {
                damage = Some(error);
                Ok(BTreeSet::from([StoredObject::Blob(top)]))
            }
            objects => objects,
        };
        for tag in store.tags().all()? {
            let objects = objects_of(tag.manifest)?;
            let root = GcRoot::Image { name: tag.name, top: tag.manifest };
            let (created_s, used_s) = (tag.updated_s, tag.updated_s);
            entries.push(InventoryEntry { root, created_s, used_s, objects });
        }
        for base in store.with_index(|index| index.all_resolved())? {
            let objects = objects_of(base.manifest)?;
            let root = GcRoot::Base { name: base.name, platform: base.platform };
            entries.push(InventoryEntry { root, created_s: 0, used_s: base.used_s, objects });
        }
        for step in store.with_index(|index| index.all_steps(with_components))? {
            let mut objects = BTreeSet::new();
            add_layer(step.layer, &packed, &mut objects);
            let StepUse { definition, components, layer, created_s, used_s } = step;
            let root = GcRoot::Step { definition, components, layer };
            entries.push(InventoryEntry { root, created_s, used_s, objects });
        }
        for (url, blob, used_s) in store.with_index(|index| index.all_downloads())? {
            let root = GcRoot::Download { url };
            let objects = BTreeSet::from([StoredObject::Blob(blob)]);
            entries.push(InventoryEntry { root, created_s: used_s, used_s, objects });
        }
        entries.extend(sizes.keys().filter_map(|object| own_root(store, object)));
        let index_bytes = ["index.db", "index.db-wal", "index.db-shm"]
            .iter()
            .map(|name| disk_bytes(&store.root().join(name)))
            .sum();
        Ok(Self { entries, sizes, index_bytes, damage })
    }

    /// Returns the disk usage of all objects and the index, bytes.
    pub(super) fn total_bytes(&self) -> u64 {
        self.sizes.values().sum::<u64>() + self.index_bytes
    }

    /// Returns how many roots reference each object.
    pub(super) fn reference_counts(&self) -> BTreeMap<&StoredObject, usize> {
        let mut counts = BTreeMap::new();
        for object in self.entries.iter().flat_map(|entry| &entry.objects) {
            *counts.entry(object).or_insert(0) += 1;
        }
        counts
    }

    /// Returns the disk usage of an object, bytes; 0 if it does not exist.
    pub(super) fn bytes(&self, object: &StoredObject) -> u64 {
        self.sizes.get(object).copied().unwrap_or(0)
    }
}

/// Returns the root of an object that is its own root.
fn own_root(store: &Store, object: &StoredObject) -> Option<InventoryEntry> {
    let (root, used_s) = match object {
        StoredObject::Layer(_) | StoredObject::Blob(_) => return None,
        StoredObject::CacheMount(key) => {
            let id = store.cache_mounts().id(key);
            (GcRoot::CacheMount { key: key.clone(), id }, cache_mount_used_s(store, key))
        }
        StoredObject::HashCache(name) => {
            let used_s = modified_s(&path_of(store, object));
            (GcRoot::HashCache { name: name.clone() }, used_s)
        }
    };
    let objects = BTreeSet::from([object.clone()]);
    Some(InventoryEntry { root, created_s: used_s, used_s, objects })
}

/// Returns when a step last used a cache mount: its lock file then gets a new time.
fn cache_mount_used_s(store: &Store, key: &str) -> i64 {
    let home = store.root().join("cache-mounts").join(key);
    let Ok(copies) = std::fs::read_dir(&home) else { return 0 };
    copies.flatten().map(|copy| modified_s(&copy.path().join("lock"))).max().unwrap_or(0)
}

/// Returns the documents and layers of an image, or of all images of an index.
fn image_objects(
    store: &Store,
    top: Digest,
    packed: &PackedBlobs,
) -> Result<BTreeSet<StoredObject>> {
    let mut objects = BTreeSet::from([StoredObject::Blob(top)]);
    if !store.has_blob(top) {
        return Ok(objects);
    }
    let bytes = store.read_blob(top, MAX_DOCUMENT_BYTES)?;
    match ManifestOrIndex::parse(&bytes) {
        Ok(ManifestOrIndex::Manifest(manifest)) => {
            add_image(store, &manifest, packed, &mut objects)?;
        }
        Ok(ManifestOrIndex::Index(index)) => {
            for entry in &index.manifests {
                // Manifests of an index in a registry are pulled for the needed platforms only.
                if !store.has_blob(entry.digest)
                    || !objects.insert(StoredObject::Blob(entry.digest))
                {
                    continue;
                }
                let bytes = store.read_blob(entry.digest, MAX_DOCUMENT_BYTES)?;
                if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes) {
                    add_image(store, &manifest, packed, &mut objects)?;
                }
            }
        }
        Err(_neither) => {}
    }
    Ok(objects)
}

fn add_image(
    store: &Store,
    manifest: &Manifest,
    packed: &PackedBlobs,
    objects: &mut BTreeSet<StoredObject>,
) -> Result<()> {
    objects.insert(StoredObject::Blob(manifest.config.digest));
    objects.extend(manifest.layers.iter().map(|layer| StoredObject::Blob(layer.digest)));
    if !store.has_blob(manifest.config.digest) {
        return Ok(());
    }
    let config = store.read_blob(manifest.config.digest, MAX_DOCUMENT_BYTES)?;
    let Ok(config) = ImageConfig::parse(&config) else { return Ok(()) };
    config.rootfs.diff_ids.iter().for_each(|layer| add_layer(*layer, packed, objects));
    Ok(())
}

/// Adds a layer in all its representations.
fn add_layer(diff_id: DiffId, packed: &PackedBlobs, objects: &mut BTreeSet<StoredObject>) {
    objects.insert(StoredObject::Layer(diff_id));
    objects.insert(StoredObject::Blob(diff_id.digest()));
    objects.extend(packed.get(&diff_id).into_iter().flatten().copied().map(StoredObject::Blob));
}

/// Returns the disk usage of every object that exists.
fn sizes(store: &Store) -> Result<BTreeMap<StoredObject, u64>> {
    let mut sizes = BTreeMap::new();
    let digest = |name: &str| format!("sha256:{name}").parse::<Digest>().ok();
    let object = |directory: &str, name: String| match directory {
        "layers" => digest(&name).map(|digest| StoredObject::Layer(DiffId::new(digest))),
        "blobs/sha256" => digest(&name).map(StoredObject::Blob),
        "cache-mounts" => Some(StoredObject::CacheMount(name)),
        _ => Some(StoredObject::HashCache(name)),
    };
    for kind in ["layers", "blobs/sha256", "cache-mounts", "memo"] {
        let directory = store.root().join(kind);
        for entry in std::fs::read_dir(&directory).context("list", &directory)? {
            let entry = entry.context("list", &directory)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(object) = object(kind, name) {
                sizes.insert(object, disk_bytes(&entry.path()));
            }
        }
    }
    Ok(sizes)
}

/// Returns the path of an object.
pub(super) fn path_of(store: &Store, object: &StoredObject) -> PathBuf {
    let root = store.root();
    match object {
        StoredObject::Layer(diff_id) => root.join("layers").join(diff_id.digest().hex()),
        StoredObject::Blob(digest) => root.join("blobs/sha256").join(digest.hex()),
        StoredObject::CacheMount(key) => root.join("cache-mounts").join(key),
        StoredObject::HashCache(name) => root.join("memo").join(name),
    }
}

/// Returns the disk usage of a file, or of a directory and everything in it, bytes.
fn disk_bytes(path: &Path) -> u64 {
    let mut linked = BTreeSet::new();
    let metas = walkdir::WalkDir::new(path).into_iter().flatten();
    let metas = metas.filter_map(|entry| entry.metadata().ok());
    // A file with several names counts once.
    let mut is_new = |meta: &std::fs::Metadata| {
        meta.is_dir() || meta.nlink() < 2 || linked.insert((meta.dev(), meta.ino()))
    };
    // `st_blocks` is in units of 512 bytes on every file system (stat(3type)).
    metas.filter(|meta| is_new(meta)).map(|meta| meta.blocks() * 512).sum()
}

/// Returns the modification time of a file, seconds since 1970; 0 if it cannot be read.
fn modified_s(path: &Path) -> i64 {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let age = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    age.and_then(|age| i64::try_from(age.as_secs()).ok()).unwrap_or(0)
}
