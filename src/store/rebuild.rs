//! A new index, made from the objects of the store: tags, layers, packed blobs. What only the index
//! knew is lost: cached steps, downloads, what registries said that names are.

use std::io;
use std::path::Path;

use crate::archive::PackedListing;
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_LISTING_BYTES};
use crate::oci::{DiffId, Digest, ImageConfig, LayerCompression, Manifest, ManifestOrIndex};
use crate::pathio;
use crate::tree::{LayerContent, LayerEntries as _};

use super::index::Index;
use super::lock::Lease;
use super::reserve::Reserve;
use super::verify::names_in;
use super::{
    FoundDamage, LayerRecord, OpenOptions, PackedRecord, Store, StoreError, alone, guard, version,
    work,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Returns whether a layer with this listing is recorded.
type AcceptLayer<'a> = dyn Fn(DiffId, &PackedListing) -> Result<bool> + 'a;

impl Store {
    /// Opens the store at `root` to check it. If its index cannot be used, one is made of the objects:
    /// in place of it if `is_repairing`, else in memory.
    ///
    /// # Errors
    /// As [`Store::open`]; [`StoreError::InUse`] when the index is to be replaced and another process
    /// uses the store.
    pub fn open_to_verify(root: &Path, options: &OpenOptions, is_repairing: bool) -> Result<Self> {
        let root = guard::open(root)?;
        let version_damage = match version::check(&root) {
            Err(damage @ StoreError::DamagedVersion { .. }) => Some(damage),
            checked => checked.map(|()| None)?,
        };
        let in_use = Lease::shared(&Lease::of_store(&root))?;
        let reserve = Reserve::keep(&root);
        let (path, lock) = (root.join("index.db"), root.join("locks/index"));
        let opened = Index::open(&path, &lock, options.now_s);
        let damage = match opened.and_then(|index| index.check_integrity().map(|()| index)) {
            Ok(index) => {
                work::sweep(&root.join("tmp"));
                let mut store = Self::with_index_of(root, in_use, index, reserve, options)?;
                store.damage.version = version_damage;
                return Ok(store);
            }
            Err(error) if error.is_of_index() => error,
            Err(error) => return Err(error),
        };
        let index = if is_repairing {
            if !in_use.try_upgrade() {
                return Err(alone::in_use(&root));
            }
            remove_index(&root)?;
            Index::unfinished(&path, options.now_s)?
        } else {
            Index::unfinished(Path::new(":memory:"), options.now_s)?
        };
        let mut store = Self::with_parts(root, in_use, index, reserve, options)?;
        store.rebuild()?;
        store.damage = FoundDamage { version: version_damage, index: Some(damage) };
        if is_repairing {
            store.make_durable()?;
            store.in_use.downgrade();
        }
        Ok(store)
    }

    /// Fills a new index.
    fn rebuild(&self) -> Result<()> {
        for tag in self.tag_files()?.0 {
            if self.has_blob(tag.manifest) {
                self.with_index(|index| index.put_tag(&tag))?;
            }
        }
        // They are checked after this.
        self.record_layers(&|_layer, _listing| Ok(true))?;
        self.with_index(|index| index.finish())
    }

    /// Records the layers that are in the store and not in the index, if they are not damaged: it is not
    /// known why the index lacks them, and after a power failure files may be empty.
    pub(super) fn restore_layers(&self) -> Result<()> {
        self.record_layers(&|layer, listing| self.is_whole(layer, listing))
    }

    fn record_layers(&self, accept: &AcceptLayer<'_>) -> Result<()> {
        for blob in self.blobs()? {
            if let Some(manifest) = self.manifest_in(blob)? {
                self.rebuild_packed(&manifest)?;
            }
        }
        let home = self.root().join("layers");
        for name in names_in(&home)? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            let layer = DiffId::new(digest);
            if self.with_index(|index| index.layer(layer))?.is_none() {
                self.record_layer(layer, &home.join(name).join("tree"), accept)?;
            }
        }
        Ok(())
    }

    /// Records a layer by its listing. One that cannot be read is found when it is checked.
    fn record_layer(&self, layer: DiffId, path: &Path, accept: &AcceptLayer<'_>) -> Result<()> {
        let Ok(bytes) = guard::read_file(path, MAX_LISTING_BYTES) else { return Ok(()) };
        let Ok(listing) = PackedListing::new(bytes, layer) else { return Ok(()) };
        if !accept(layer, &listing)? {
            return Ok(());
        }
        let mut content = LayerContent::new();
        listing.stream().for_each(|entry| content.entry(&entry));
        let tar_bytes = match self.open_blob(layer.digest()) {
            Ok(tar) => tar.metadata().map_or(0, |metadata| metadata.len()),
            // As of a layer that was never measured.
            Err(_not_plain) => 0,
        };
        let record = LayerRecord { content: content.finish(), tar_bytes, created_s: 0 };
        self.with_index(|index| index.put_layer(layer, &record, true))
    }

    /// The layers of an image that others packed.
    fn rebuild_packed(&self, manifest: &Manifest) -> Result<()> {
        let config = self.document(manifest.config.digest)?;
        let Some(config) = config.and_then(|bytes| ImageConfig::parse(&bytes).ok()) else {
            return Ok(());
        };
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let is_plain = layer.digest == diff_id.digest();
            let Some(compression) = layer.media_type.layer_compression() else { continue };
            if is_plain || compression == LayerCompression::None || !self.has_blob(layer.digest) {
                continue;
            }
            let (blob, bytes) = (layer.digest, layer.size);
            if self.packed(*diff_id)?.iter().any(|known| known.blob == blob) {
                continue;
            }
            let record = PackedRecord { blob, compression, level: -1, bytes };
            self.with_index(|index| index.put_packed(*diff_id, &record))?;
        }
        Ok(())
    }

    fn manifest_in(&self, blob: Digest) -> Result<Option<Manifest>> {
        if !self.is_document(blob)? {
            return Ok(None);
        }
        let Some(bytes) = self.document(blob)? else { return Ok(None) };
        Ok(match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest),
            Ok(ManifestOrIndex::Index(_)) | Err(_) => None,
        })
    }

    /// A document that is what its name says; a damaged one stays, and is found when it is checked.
    fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        if !self.has_blob(digest) {
            return Ok(None);
        }
        let path = self.root().join("blobs/sha256").join(digest.hex());
        let bytes = guard::read_file(&path, MAX_DOCUMENT_BYTES)?;
        Ok((Digest::of(&bytes) == digest).then_some(bytes))
    }
}

/// Removes the index and what SQLite keeps beside it.
fn remove_index(root: &Path) -> Result<()> {
    for name in ["index.db-wal", "index.db-shm", "index.db-journal", "index.db"] {
        match pathio::remove_file(&root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _gone => {}
        }
    }
    Ok(guard::create_file(&root.join("index.db")).map(drop)?)
}
