//! Pruning: removes what no tag needs, when no other process uses the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::params;

use crate::oci::{DiffId, Digest, ImageConfig, Manifest, Parsed};
use crate::pathio::{self, Context as _};

use super::index::Index;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A manifest or config is no longer than this (4 MiB is what registries take).
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// What `prune` may remove.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// Tagged images and the folders of `RUN --mount=type=cache` too.
    pub all: bool,
}

/// What `prune` removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Unpacked layers.
    pub n_layers: usize,
    /// Blobs.
    pub n_blobs: usize,
    /// Folders of `RUN --mount=type=cache`.
    pub n_caches: usize,
    /// Bytes of all together.
    pub n_bytes: u64,
}

/// What tagged images consist of.
#[derive(Debug, Default)]
struct Kept {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<DiffId>,
}

impl Store {
    /// Forgets every cached step, and removes blobs and layers that no tagged image has.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process uses the store; the kernel's, with the path.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        if !self.in_use.try_upgrade() {
            return Err(StoreError::InUse { root: self.root.clone() });
        }
        let pruned = self.prune_alone(options);
        self.in_use.downgrade();
        pruned
    }

    fn prune_alone(&self, options: &PruneOptions) -> Result<Pruned> {
        if options.all {
            self.with_index(|index| index.remove_tags())?;
        }
        let kept = self.kept()?;
        self.with_index(|index| index.forget())?;
        for layer in self.with_index(|index| index.layers())? {
            if !kept.layers.contains(&layer) {
                self.with_index(|index| index.remove_layer(layer))?;
            }
        }
        for memo in names_not_in(&self.root.join("memo"), &BTreeSet::new())? {
            pathio::remove_file(&memo)?;
        }
        let mut pruned = Pruned::default();
        let layers: BTreeSet<String> = kept.layers.iter().map(|l| l.digest().hex()).collect();
        for folder in names_not_in(&self.root.join("layers"), &layers)? {
            pruned.n_bytes += size_of(&folder);
            pathio::remove_dir_all(&folder)?;
            pruned.n_layers += 1;
        }
        let blobs: BTreeSet<String> = kept.blobs.iter().map(Digest::hex).collect();
        for blob in names_not_in(&self.root.join("blobs/sha256"), &blobs)? {
            pruned.n_bytes += size_of(&blob);
            pathio::remove_file(&blob)?;
            pruned.n_blobs += 1;
        }
        if options.all {
            for cache in names_not_in(&self.root.join("cache-mounts"), &BTreeSet::new())? {
                pruned.n_bytes += size_of(&cache);
                pathio::remove_dir_all(&cache)?;
                pruned.n_caches += 1;
            }
        }
        Ok(pruned)
    }

    fn kept(&self) -> Result<Kept> {
        let mut kept = Kept::default();
        for tag in self.with_index(|index| index.tags())? {
            let bytes = self.read_blob(tag.manifest, MAX_DOCUMENT_BYTES)?;
            kept.blobs.insert(tag.manifest);
            match Parsed::parse(&bytes) {
                Ok(Parsed::Manifest(manifest)) => self.keep_image(&manifest, &mut kept)?,
                Ok(Parsed::Index(index)) => {
                    for entry in &index.manifests {
                        // What a registry's index lists need not have been pulled.
                        if !self.has_blob(entry.digest) || !kept.blobs.insert(entry.digest) {
                            continue;
                        }
                        let bytes = self.read_blob(entry.digest, MAX_DOCUMENT_BYTES)?;
                        if let Ok(Parsed::Manifest(manifest)) = Parsed::parse(&bytes) {
                            self.keep_image(&manifest, &mut kept)?;
                        }
                    }
                }
                Err(_no_image) => {}
            }
        }
        Ok(kept)
    }

    fn keep_image(&self, manifest: &Manifest, kept: &mut Kept) -> Result<()> {
        kept.blobs.insert(manifest.config.digest);
        kept.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
        let config = self.read_blob(manifest.config.digest, MAX_DOCUMENT_BYTES)?;
        let Ok(config) = ImageConfig::parse(&config) else { return Ok(()) };
        for layer in config.rootfs.diff_ids {
            kept.layers.insert(layer);
            kept.blobs.insert(layer.digest());
            kept.blobs.extend(self.packed(layer)?.iter().map(|packed| packed.blob));
        }
        Ok(())
    }
}

impl Index {
    /// Every layer that anything is known of.
    fn layers(&self) -> Result<Vec<DiffId>> {
        const SQL: &str = "SELECT diff_id FROM layer UNION SELECT diff_id FROM source";
        let texts = self.texts(SQL, [])?;
        texts.iter().map(|text| self.digest(text).map(DiffId::new)).collect()
    }

    /// Forgets every step, every resolved base image and every download.
    fn forget(&self) -> Result<()> {
        const SQL: &str = "DELETE FROM step; DELETE FROM resolved; DELETE FROM download;";
        self.check(self.connection.execute_batch(SQL))
    }

    fn remove_layer(&self, diff_id: DiffId) -> Result<()> {
        let text = diff_id.to_string();
        self.check(self.connection.execute("DELETE FROM layer WHERE diff_id = ?1", params![text]))?;
        for sql in
            ["DELETE FROM packed WHERE diff_id = ?1", "DELETE FROM source WHERE diff_id = ?1"]
        {
            self.check(self.connection.execute(sql, params![text]))?;
        }
        Ok(())
    }

    fn remove_tags(&self) -> Result<()> {
        self.check(self.connection.execute("DELETE FROM tag", [])).map(drop)
    }
}

/// The entries of `folder` whose names are not among `kept`.
fn names_not_in(folder: &Path, kept: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
    let mut rest = Vec::new();
    for entry in std::fs::read_dir(folder).context("list", folder)? {
        let entry = entry.context("list", folder)?;
        if !kept.contains(&*entry.file_name().to_string_lossy()) {
            rest.push(entry.path());
        }
    }
    Ok(rest)
}

fn size_of(path: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(path).into_iter().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}
