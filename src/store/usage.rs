//! Disk usage of the store, by root, by layer and by kind.

use std::collections::BTreeMap;

use crate::oci::{DiffId, Digest};

use super::inventory::{Inventory, InventoryEntry, StoredObject};
use super::{GcRoot, Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Disk usage of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Usage of each root.
    pub roots: Vec<GcRootUsage>,
    /// Usage of each layer in the store.
    pub layers: Vec<LayerUsage>,
    /// Usage of each kind; their sum is the usage of the store.
    pub kinds: BTreeMap<DiskUsageKind, KindUsage>,
    /// Usage of the store, bytes.
    pub n_bytes: u64,
}

/// Disk usage of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcRootUsage {
    /// The root.
    pub root: GcRoot,
    /// Time at which it was created, seconds since 1970; 0 if unknown.
    pub created_s: i64,
    /// Time of its last use, seconds since 1970.
    pub used_s: i64,
    /// Disk usage of all objects that it references, bytes.
    pub n_bytes: u64,
    /// Disk usage of the objects that only it references, bytes.
    pub own_bytes: u64,
    /// Id of the image, if it is one.
    pub id: Option<Digest>,
}

/// Disk usage of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Identity of the layer.
    pub diff_id: DiffId,
    /// Disk usage of all its representations, bytes.
    pub n_bytes: u64,
    /// Time of the last use of a root that references it, seconds since 1970; `None` without such a
    /// root.
    pub used_s: Option<i64>,
    /// Number of images, steps and base images that reference it.
    pub n_roots: usize,
}

/// Kind of the roots that reference an object. An object that several kinds reference counts for the
/// first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskUsageKind {
    /// Images that have a tag.
    Images,
    /// Cached steps and base images.
    BuildCache,
    /// Directories of `RUN --mount=type=cache`.
    CacheMounts,
    /// Files that ADD downloaded.
    Downloads,
    /// Hash caches of build contexts.
    FileHashes,
    /// Objects without a root.
    Unreferenced,
    /// The database of the index.
    Index,
}

/// Disk usage of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindUsage {
    /// Number of roots, or of unreferenced objects.
    pub n: usize,
    /// Disk usage, bytes.
    pub n_bytes: u64,
}

/// Implements [`Store::usage`].
pub(super) fn of_store(store: &Store) -> Result<DiskUsage> {
    let inventory = Inventory::of_store(store, true)?;
    let mut roots = Vec::with_capacity(inventory.entries.len());
    let counts = inventory.reference_counts();
    for entry in &inventory.entries {
        let id = match entry.root {
            GcRoot::Image { top, .. } if store.has_blob(top) => store.images().id_of(top)?,
            GcRoot::Image { .. }
            | GcRoot::Step { .. }
            | GcRoot::Base { .. }
            | GcRoot::Download { .. }
            | GcRoot::CacheMount { .. }
            | GcRoot::HashCache { .. } => None,
        };
        let is_own = |object: &&StoredObject| counts.get(object) == Some(&1);
        roots.push(GcRootUsage {
            root: entry.root.clone(),
            created_s: entry.created_s,
            used_s: entry.used_s,
            n_bytes: entry.objects.iter().map(|object| inventory.bytes(object)).sum(),
            own_bytes: entry
                .objects
                .iter()
                .filter(is_own)
                .map(|object| inventory.bytes(object))
                .sum(),
            id,
        });
    }
    let packed = store.with_index(|index| index.all_packed())?;
    Ok(DiskUsage {
        layers: layers(&inventory, &packed),
        kinds: kinds(&inventory),
        n_bytes: inventory.total_bytes(),
        roots,
    })
}

fn layers(inventory: &Inventory, packed: &BTreeMap<DiffId, Vec<Digest>>) -> Vec<LayerUsage> {
    let mut layers: BTreeMap<DiffId, LayerUsage> = BTreeMap::new();
    for entry in &inventory.entries {
        for object in &entry.objects {
            let StoredObject::Layer(diff_id) = object else { continue };
            let layer = layers.entry(*diff_id).or_insert_with(|| unused(*diff_id));
            layer.n_roots += 1;
            layer.used_s = layer.used_s.max(Some(entry.used_s));
        }
    }
    for object in inventory.sizes.keys() {
        if let StoredObject::Layer(diff_id) = object {
            layers.entry(*diff_id).or_insert_with(|| unused(*diff_id));
        }
    }
    for (diff_id, layer) in &mut layers {
        let blobs = packed.get(diff_id).into_iter().flatten().copied();
        let blobs = blobs.filter(|blob| *blob != diff_id.digest()).chain([diff_id.digest()]);
        let blob_bytes: u64 = blobs.map(|blob| inventory.bytes(&StoredObject::Blob(blob))).sum();
        layer.n_bytes = inventory.bytes(&StoredObject::Layer(*diff_id)) + blob_bytes;
    }
    layers.into_values().filter(|layer| layer.n_bytes > 0).collect()
}

const fn unused(diff_id: DiffId) -> LayerUsage {
    LayerUsage { diff_id, n_bytes: 0, used_s: None, n_roots: 0 }
}

fn kinds(inventory: &Inventory) -> BTreeMap<DiskUsageKind, KindUsage> {
    let mut kinds: BTreeMap<DiskUsageKind, KindUsage> = BTreeMap::new();
    let mut first: BTreeMap<&StoredObject, DiskUsageKind> = BTreeMap::new();
    for entry in &inventory.entries {
        let kind = kind(entry);
        kinds.entry(kind).or_default().n += 1;
        for object in &entry.objects {
            let known = first.entry(object).or_insert(kind);
            *known = (*known).min(kind);
        }
    }
    for (object, n_bytes) in &inventory.sizes {
        let kind = first.get(object).copied();
        let sum = kinds.entry(kind.unwrap_or(DiskUsageKind::Unreferenced)).or_default();
        sum.n_bytes += n_bytes;
        sum.n += usize::from(kind.is_none());
    }
    kinds.insert(DiskUsageKind::Index, KindUsage { n: 1, n_bytes: inventory.index_bytes });
    kinds
}

const fn kind(entry: &InventoryEntry) -> DiskUsageKind {
    match entry.root {
        GcRoot::Image { .. } => DiskUsageKind::Images,
        GcRoot::Step { .. } | GcRoot::Base { .. } => DiskUsageKind::BuildCache,
        GcRoot::CacheMount { .. } => DiskUsageKind::CacheMounts,
        GcRoot::Download { .. } => DiskUsageKind::Downloads,
        GcRoot::HashCache { .. } => DiskUsageKind::FileHashes,
    }
}
