//! What the store takes of the disk, and what for.

use std::collections::BTreeMap;

use crate::oci::{DiffId, Digest};

use super::inventory::{Entry, Holder, Inventory, Thing};
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What things are kept for.
    pub holders: Vec<HolderUse>,
    /// The layers that are here, in whatever form.
    pub layers: Vec<LayerUse>,
    /// The bytes of each kind; together they are all that there is.
    pub kinds: BTreeMap<UsageKind, KindUse>,
    /// Bytes of everything.
    pub n_bytes: u64,
}

/// Something that things are kept for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderUse {
    /// What it is.
    pub holder: Holder,
    /// When it was made, seconds since 1970; 0 when nobody knows.
    pub created_s: i64,
    /// When it was last used, seconds since 1970.
    pub used_s: i64,
    /// Bytes of all that it needs.
    pub n_bytes: u64,
    /// Bytes of what nothing else needs.
    pub own_bytes: u64,
    /// The id of an image.
    pub id: Option<Digest>,
}

/// A layer and its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUse {
    /// Its identity.
    pub diff_id: DiffId,
    /// Bytes of all its forms.
    pub n_bytes: u64,
    /// When something that needs it was last used, seconds since 1970; `None` when nothing does.
    pub used_s: Option<i64>,
    /// How many images, steps and bases need it.
    pub n_holders: usize,
}

/// What bytes are there for. What several kinds need counts for the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageKind {
    /// Images with names.
    Images,
    /// Cached steps and base images.
    BuildCache,
    /// Directories of `RUN --mount=type=cache`.
    CacheMounts,
    /// Files that ADD downloaded.
    Downloads,
    /// Hashes of files of contexts.
    FileHashes,
    /// What nothing needs.
    Unneeded,
    /// The index itself.
    Index,
}

/// How much there is of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindUse {
    /// Names, steps, caches, files.
    pub n: usize,
    /// Their bytes.
    pub n_bytes: u64,
}

impl Store {
    /// Looks at all that is there.
    ///
    /// # Errors
    /// The index's; the kernel's, with the path.
    pub fn usage(&self) -> Result<Usage> {
        let inventory = self.inventory(true)?;
        let mut holders = Vec::with_capacity(inventory.entries.len());
        let counts = inventory.holders();
        for entry in &inventory.entries {
            let id = match entry.holder {
                Holder::Image { top, .. } if self.has_blob(top) => self.image_id(top)?,
                Holder::Image { .. }
                | Holder::Step { .. }
                | Holder::Base { .. }
                | Holder::Download { .. }
                | Holder::CacheMount { .. }
                | Holder::Memo { .. } => None,
            };
            let is_own = |thing: &&Thing| counts.get(thing) == Some(&1);
            holders.push(HolderUse {
                holder: entry.holder.clone(),
                created_s: entry.created_s,
                used_s: entry.used_s,
                n_bytes: entry.things.iter().map(|thing| inventory.bytes(thing)).sum(),
                own_bytes: entry.things.iter().filter(is_own).map(|t| inventory.bytes(t)).sum(),
                id,
            });
        }
        let packed = self.with_index(|index| index.all_packed())?;
        Ok(Usage {
            layers: layers(&inventory, &packed),
            kinds: kinds(&inventory),
            n_bytes: inventory.total_bytes(),
            holders,
        })
    }
}

fn layers(inventory: &Inventory, packed: &BTreeMap<DiffId, Vec<Digest>>) -> Vec<LayerUse> {
    let mut layers: BTreeMap<DiffId, LayerUse> = BTreeMap::new();
    for entry in &inventory.entries {
        for thing in &entry.things {
            let Thing::Layer(diff_id) = thing else { continue };
            let layer = layers.entry(*diff_id).or_insert_with(|| unused(*diff_id));
            layer.n_holders += 1;
            layer.used_s = layer.used_s.max(Some(entry.used_s));
        }
    }
    for thing in inventory.sizes.keys() {
        if let Thing::Layer(diff_id) = thing {
            layers.entry(*diff_id).or_insert_with(|| unused(*diff_id));
        }
    }
    for (diff_id, layer) in &mut layers {
        let blobs = packed.get(diff_id).into_iter().flatten().copied();
        let blobs = blobs.filter(|blob| *blob != diff_id.digest()).chain([diff_id.digest()]);
        let blob_bytes: u64 = blobs.map(|blob| inventory.bytes(&Thing::Blob(blob))).sum();
        layer.n_bytes = inventory.bytes(&Thing::Layer(*diff_id)) + blob_bytes;
    }
    layers.into_values().filter(|layer| layer.n_bytes > 0).collect()
}

const fn unused(diff_id: DiffId) -> LayerUse {
    LayerUse { diff_id, n_bytes: 0, used_s: None, n_holders: 0 }
}

fn kinds(inventory: &Inventory) -> BTreeMap<UsageKind, KindUse> {
    let mut kinds: BTreeMap<UsageKind, KindUse> = BTreeMap::new();
    let mut first: BTreeMap<&Thing, UsageKind> = BTreeMap::new();
    for entry in &inventory.entries {
        let kind = kind(entry);
        kinds.entry(kind).or_default().n += 1;
        for thing in &entry.things {
            let known = first.entry(thing).or_insert(kind);
            *known = (*known).min(kind);
        }
    }
    for (thing, n_bytes) in &inventory.sizes {
        let kind = first.get(thing).copied();
        let sum = kinds.entry(kind.unwrap_or(UsageKind::Unneeded)).or_default();
        sum.n_bytes += n_bytes;
        sum.n += usize::from(kind.is_none());
    }
    kinds.insert(UsageKind::Index, KindUse { n: 1, n_bytes: inventory.index_bytes });
    kinds
}

const fn kind(entry: &Entry) -> UsageKind {
    match entry.holder {
        Holder::Image { .. } => UsageKind::Images,
        Holder::Step { .. } | Holder::Base { .. } => UsageKind::BuildCache,
        Holder::CacheMount { .. } => UsageKind::CacheMounts,
        Holder::Download { .. } => UsageKind::Downloads,
        Holder::Memo { .. } => UsageKind::FileHashes,
    }
}
