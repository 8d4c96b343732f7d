//! Rebuilds a lost or damaged index from the files of the store: tags, layers, compressed blobs. Facts
//! that only the index has are lost: cached steps, downloads, resolved base images.

use std::io;
use std::path::Path;

use crate::archive::PackedListing;
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_LISTING_BYTES};
use crate::oci::{DiffId, Digest, ImageConfig, LayerCompression, Manifest, ManifestOrIndex};
use crate::pathio;
use crate::tree::{LayerContent, LayerEntries as _};

use super::images::is_document;
use super::index::Index;
use super::layer_records::OTHER_PACKER;
use super::lock_holders::in_use_path;
use super::locks::FileLock;
use super::private_files::sorted_names;
use super::reserve::Reserve;
use super::tags::LOST_LAYERS;
use super::{
    LayerRecord, OpenDamage, OpenOptions, PackedRecord, Store, StoreError, exclusive,
    private_files, root_checks, unpacked_check, version, work_directory,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Returns whether to record a layer with this listing.
type AcceptLayer<'a> = dyn Fn(DiffId, &PackedListing) -> Result<bool> + 'a;

/// Implements [`Store::open_to_verify`].
pub(super) fn open_to_verify(
    root: &Path,
    options: &OpenOptions,
    is_repairing: bool,
) -> Result<Store> {
    let root = root_checks::prepare(root)?;
    let version_damage = match version::check(&root) {
        Err(damage @ StoreError::DamagedVersion { .. }) => Some(damage),
        checked => checked.map(|()| None)?,
    };
    let in_use = FileLock::shared(&in_use_path(&root))?;
    let reserve = Reserve::keep(&root)?;
    let (path, lock) = (root.join("index.db"), root.join("locks/index"));
    let opened = Index::open(&path, &lock, options.now_s);
    let damage = match opened.and_then(|index| index.check_integrity().map(|()| index)) {
        Ok(index) => {
            work_directory::sweep(&root.join("tmp"));
            let mut store = Store::with_index_of(root, in_use, index, reserve, options)?;
            store.damage.version = version_damage;
            return Ok(store);
        }
        Err(error) if error.is_index_damage() => error,
        Err(error) => return Err(error),
    };
    let index = if is_repairing {
        if !in_use.try_upgrade() {
            return Err(exclusive::in_use(&root));
        }
        remove_index(&root)?;
        Index::unfinished(&path, options.now_s)?
    } else {
        Index::unfinished(Path::new(":memory:"), options.now_s)?
    };
    let mut store = Store::with_parts(root, in_use, index, reserve, options)?;
    fill_index(&store)?;
    store.damage = OpenDamage { version: version_damage, index: Some(damage) };
    if is_repairing {
        store.make_durable()?;
        store.in_use.downgrade();
    }
    Ok(store)
}

/// Records all tags and layers in a new index.
fn fill_index(store: &Store) -> Result<()> {
    for tag in store.tags().read_files()?.0 {
        if store.has_blob(tag.manifest) {
            store.with_index(|index| index.put_tag(&tag))?;
        }
    }
    // All layers: `Store::verify` checks them next.
    record_layers(store, &|_layer, _listing| Ok(true))?;
    store.with_index(|index| index.finish())
}

/// Restores tags that the index lost, and then records of layers.
///
/// Layers are restored only if they are intact: the reason for the loss is unknown, and after a power
/// failure files may be empty.
pub(super) fn restore_lost_records(store: &Store) -> Result<()> {
    store.tags().restore()?;
    let is_lost = |store: &Store| store.with_index(|index| index.state(LOST_LAYERS));
    // A process that cannot unpack may see other owners, and would find all layers damaged.
    if store.id_map.may_unpack() && is_lost(store)?.is_some() {
        record_layers(store, &|layer, listing| unpacked_check::is_intact(store, layer, listing))?;
        store.with_index(|index| index.remove_state(LOST_LAYERS))?;
    }
    Ok(())
}

/// Records the layers that the index lacks, if `accept` returns true for them.
fn record_layers(store: &Store, accept: &AcceptLayer<'_>) -> Result<()> {
    for blob in store.blobs()? {
        if let Some(manifest) = manifest_in(store, blob)? {
            record_packed(store, &manifest)?;
        }
    }
    let home = store.root().join("layers");
    for name in sorted_names(&home)? {
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        let layer = DiffId::new(digest);
        if store.with_index(|index| index.layer(layer))?.is_none() {
            record_layer(store, layer, &home.join(name).join("tree"), accept)?;
        }
    }
    Ok(())
}

/// Records a layer by its listing. A damaged listing is found later, by `Store::verify`.
fn record_layer(store: &Store, layer: DiffId, path: &Path, accept: &AcceptLayer<'_>) -> Result<()> {
    let Ok(bytes) = private_files::read_file(path, MAX_LISTING_BYTES) else { return Ok(()) };
    let Ok(listing) = PackedListing::new(bytes, layer) else { return Ok(()) };
    if !accept(layer, &listing)? {
        return Ok(());
    }
    let mut content = LayerContent::new();
    listing.stream().for_each(|entry| content.entry(&entry));
    let tar_bytes = match store.open_blob(layer.digest()) {
        Ok(tar) => tar.metadata().map_or(0, |metadata| metadata.len()),
        // 0 means unknown.
        Err(_not_plain) => 0,
    };
    let record = LayerRecord { content: content.finish(), tar_bytes, created_s: 0 };
    store.with_index(|index| index.put_layer(layer, &record, true))
}

/// Records the compressed layers of a manifest.
fn record_packed(store: &Store, manifest: &Manifest) -> Result<()> {
    let config = document(store, manifest.config.digest)?;
    let Some(config) = config.and_then(|bytes| ImageConfig::parse(&bytes).ok()) else {
        return Ok(());
    };
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let is_plain = layer.digest == diff_id.digest();
        let Some(compression) = layer.media_type.layer_compression() else { continue };
        if is_plain || compression == LayerCompression::None || !store.has_blob(layer.digest) {
            continue;
        }
        let (blob, bytes) = (layer.digest, layer.size);
        if store.packed(*diff_id)?.iter().any(|known| known.blob == blob) {
            continue;
        }
        let record = PackedRecord { blob, compression, level: OTHER_PACKER, bytes };
        store.with_index(|index| index.put_packed(*diff_id, &record))?;
    }
    Ok(())
}

/// Returns the manifest in a blob, if it is one.
fn manifest_in(store: &Store, blob: Digest) -> Result<Option<Manifest>> {
    if !is_document(store, blob)? {
        return Ok(None);
    }
    let Some(bytes) = document(store, blob)? else { return Ok(None) };
    Ok(match ManifestOrIndex::parse(&bytes) {
        Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest),
        Ok(ManifestOrIndex::Index(_)) | Err(_) => None,
    })
}

/// Reads a document; `None` if it is missing or damaged. Damage is found later, by `Store::verify`.
fn document(store: &Store, digest: Digest) -> Result<Option<Vec<u8>>> {
    if !store.has_blob(digest) {
        return Ok(None);
    }
    let path = store.root().join("blobs/sha256").join(digest.hex());
    let bytes = private_files::read_file(&path, MAX_DOCUMENT_BYTES)?;
    Ok((Digest::of(&bytes) == digest).then_some(bytes))
}

/// Removes the index and the files of SQLite beside it (<https://www.sqlite.org/tempfiles.html>), and
/// creates an empty file.
fn remove_index(root: &Path) -> Result<()> {
    for name in ["index.db-wal", "index.db-shm", "index.db-journal", "index.db"] {
        match pathio::remove_file(&root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _gone => {}
        }
    }
    Ok(private_files::create_file(&root.join("index.db")).map(drop)?)
}
