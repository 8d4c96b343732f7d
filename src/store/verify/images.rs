//! Checks tags: their files, and the documents of the images that they refer to.

use std::collections::BTreeSet;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Digest, ImageConfig, Manifest, ManifestOrIndex};
use crate::pathio;

use super::super::{Tag, private_files};
use super::{Result, Verifier};

impl Verifier<'_> {
    /// Compares the files of tags with the index.
    pub(super) fn tags(&mut self) -> Result<()> {
        let store = self.store;
        let tags = store.tags();
        let _lock = tags.lock()?;
        let in_index = tags.all()?;
        let (files, damaged) = tags.read_files()?;
        let damaged_path =
            |tag: &Tag| damaged.iter().any(|name| tags.file_path(&tag.name).ends_with(name));
        for tag in &in_index {
            let is_damaged = damaged_path(tag);
            if !is_damaged && files.iter().any(|file| file.name == tag.name) {
                // A process that was killed may have changed the file only.
                if self.is_repairing && !files.contains(tag) {
                    tags.write_file(tag)?;
                }
                continue;
            }
            let reason = if is_damaged { "it is damaged" } else { "it is missing" };
            let subject = self.tag_subject(&tag.name);
            self.damaged(&subject, format!("{reason} (tag {})", tag.name));
            self.repair(&subject, "rewritten", |store| store.tags().write_file(tag))?;
        }
        for name in &damaged {
            if in_index.iter().any(|tag| tags.file_path(&tag.name).ends_with(name)) {
                continue;
            }
            let subject = format!("tags/{name}");
            let path = store.root().join(&subject);
            self.damaged(&subject, "it is damaged, and the index does not have the tag");
            self.repair(&subject, "removed", |_store| Ok(pathio::remove_file(&path)?))?;
        }
        if self.is_repairing {
            let stale = |file: &&Tag| in_index.iter().all(|tag| tag.name != file.name);
            files.iter().filter(stale).try_for_each(|file| tags.remove_file(&file.name))?;
        }
        Ok(())
    }

    fn tag_subject(&self, name: &str) -> String {
        let path = self.store.tags().file_path(name);
        path.strip_prefix(self.store.root()).unwrap_or(&path).display().to_string()
    }

    /// Checks that the documents of each tagged image exist and can be parsed.
    pub(super) fn images(&mut self) -> Result<()> {
        for tag in self.store.tags().all()? {
            self.found.n_images += 1;
            let Some(reason) = self.image_damage(tag.manifest)? else { continue };
            self.damaged(&tag.name, reason);
            let action = "tag removed; build or pull the image again";
            self.repair(&tag.name, action, |store| {
                store.tags().remove_by_text(&tag.name).map(drop)
            })?;
        }
        if self.is_repairing {
            self.forget_damaged_bases()?;
        }
        Ok(())
    }

    /// Removes the records of base images with damaged documents: the next build asks the registry.
    fn forget_damaged_bases(&self) -> Result<()> {
        for base in self.store.with_index(|index| index.all_resolved())? {
            if self.image_damage(base.manifest)?.is_some() {
                self.store.with_index(|index| index.remove_resolved(&base.name, &base.platform))?;
            }
        }
        Ok(())
    }

    /// Returns the reason why an image cannot be used, if a document is missing or damaged.
    fn image_damage(&self, top: Digest) -> Result<Option<String>> {
        let Some(bytes) = self.document(top)? else {
            return Ok(Some(format!("its manifest {top} is not in the store")));
        };
        match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Manifest(manifest)) => self.config_damage(&manifest),
            Ok(ManifestOrIndex::Index(index)) => {
                let here: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
                // Manifests of an index in a registry are pulled for the needed platforms only.
                let here = here.into_iter().filter(|digest| self.store.has_blob(*digest));
                let here: BTreeSet<Digest> = here.collect();
                if here.is_empty() {
                    return Ok(Some(format!(
                        "none of the manifests in its index {top} is in the store"
                    )));
                }
                // Other entries, such as attestations, have configs of other types.
                let images = index.images().map(|entry| entry.digest);
                for digest in images.filter(|digest| here.contains(digest)) {
                    let bytes = self.document(digest)?.unwrap_or_default();
                    if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes)
                        && let Some(reason) = self.config_damage(&manifest)?
                    {
                        return Ok(Some(reason));
                    }
                }
                Ok(None)
            }
            Err(error) => Ok(Some(format!("its manifest {top} cannot be parsed: {error}"))),
        }
    }

    fn config_damage(&self, manifest: &Manifest) -> Result<Option<String>> {
        let digest = manifest.config.digest;
        let Some(bytes) = self.document(digest)? else {
            return Ok(Some(format!("its config {digest} is not in the store")));
        };
        // The config of an artifact has another type (image-spec, manifest.md, "Guidelines for Artifact
        // Usage").
        let is_config = ImageConfig::parse(&bytes).is_ok() || manifest.layers.is_empty();
        Ok((!is_config).then(|| format!("its config {digest} cannot be parsed")))
    }

    /// Reads a document; `None` if it does not exist. A wrong digest was reported with the blobs.
    fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        if !self.store.has_blob(digest) {
            return Ok(None);
        }
        let path = self.store.root().join("blobs/sha256").join(digest.hex());
        Ok(Some(private_files::read_file(&path, MAX_DOCUMENT_BYTES)?))
    }
}
