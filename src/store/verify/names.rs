//! Checks the names of images: their files, and the documents that they stand for.

use std::collections::BTreeSet;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Digest, ImageConfig, Manifest, ManifestOrIndex};
use crate::pathio;

use super::super::{Tag, guard};
use super::{Result, Verifier};

impl Verifier<'_> {
    /// Compares the files of names with the index.
    pub(super) fn tags(&mut self) -> Result<()> {
        let store = self.store;
        let _alone = store.lock_tags()?;
        let in_index = store.tags()?;
        let (files, damaged) = store.tag_files()?;
        let damaged_path =
            |tag: &Tag| damaged.iter().any(|name| store.tag_path(&tag.name).ends_with(name));
        for tag in &in_index {
            let is_damaged = damaged_path(tag);
            if !is_damaged && files.iter().any(|file| file.name == tag.name) {
                // A process that ended in between has changed only one of the two.
                if self.is_repairing && !files.contains(tag) {
                    store.write_tag(tag)?;
                }
                continue;
            }
            let reason = if is_damaged { "it cannot be read" } else { "it is not there" };
            let subject = self.tag_subject(&tag.name);
            self.damaged(&subject, format!("{reason} (the name {})", tag.name));
            self.repair(&subject, "written again", |store| store.write_tag(tag))?;
        }
        for name in &damaged {
            if in_index.iter().any(|tag| store.tag_path(&tag.name).ends_with(name)) {
                continue;
            }
            let subject = format!("tags/{name}");
            let path = store.root().join(&subject);
            self.damaged(&subject, "it cannot be read, and the index does not have the name");
            self.repair(&subject, "removed", |_store| Ok(pathio::remove_file(&path)?))?;
        }
        if self.is_repairing {
            let stale = |file: &&Tag| in_index.iter().all(|tag| tag.name != file.name);
            files.iter().filter(stale).try_for_each(|file| store.remove_tag_file(&file.name))?;
        }
        Ok(())
    }

    fn tag_subject(&self, name: &str) -> String {
        let path = self.store.tag_path(name);
        path.strip_prefix(self.store.root()).unwrap_or(&path).display().to_string()
    }

    /// Checks that the documents of each image are there and can be read.
    pub(super) fn images(&mut self) -> Result<()> {
        for tag in self.store.tags()? {
            self.found.n_images += 1;
            let Some(reason) = self.lacks(tag.manifest)? else { continue };
            self.damaged(&tag.name, reason);
            let action = "the name was removed; build or pull the image again";
            self.repair(&tag.name, action, |store| store.remove_tag_named(&tag.name).map(drop))?;
        }
        if self.is_repairing {
            self.forget_bases()?;
        }
        Ok(())
    }

    /// Forgets base images without documents: the next build asks their registry.
    fn forget_bases(&self) -> Result<()> {
        for base in self.store.with_index(|index| index.all_resolved())? {
            if self.lacks(base.manifest)?.is_some() {
                self.store.with_index(|index| index.remove_resolved(&base.name, &base.platform))?;
            }
        }
        Ok(())
    }

    /// The reason why an image cannot be used, if its documents are not complete.
    fn lacks(&self, top: Digest) -> Result<Option<String>> {
        let Some(bytes) = self.document(top)? else {
            return Ok(Some(format!("its manifest {top} is not in the store")));
        };
        match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Manifest(manifest)) => self.lacks_config(&manifest),
            Ok(ManifestOrIndex::Index(index)) => {
                let here: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
                // What a registry's index lists need not have been pulled.
                let here = here.into_iter().filter(|digest| self.store.has_blob(*digest));
                let here: BTreeSet<Digest> = here.collect();
                if here.is_empty() {
                    return Ok(Some(format!("no manifest of its index {top} is in the store")));
                }
                // Other entries, such as attestations, have configs of any kind.
                let images = index.images().map(|entry| entry.digest);
                for digest in images.filter(|digest| here.contains(digest)) {
                    let bytes = self.document(digest)?.unwrap_or_default();
                    if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes)
                        && let Some(reason) = self.lacks_config(&manifest)?
                    {
                        return Ok(Some(reason));
                    }
                }
                Ok(None)
            }
            Err(error) => Ok(Some(format!("its manifest {top} cannot be read: {error}"))),
        }
    }

    fn lacks_config(&self, manifest: &Manifest) -> Result<Option<String>> {
        let digest = manifest.config.digest;
        let Some(bytes) = self.document(digest)? else {
            return Ok(Some(format!("its config {digest} is not in the store")));
        };
        // An attestation has a config of another kind.
        let is_config = ImageConfig::parse(&bytes).is_ok() || manifest.layers.is_empty();
        Ok((!is_config).then(|| format!("its config {digest} cannot be read")))
    }

    /// A document that is there and whole: a damaged one was reported as a blob.
    fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        if !self.store.has_blob(digest) {
            return Ok(None);
        }
        let path = self.store.root().join("blobs/sha256").join(digest.hex());
        Ok(Some(guard::read_file(&path, MAX_DOCUMENT_BYTES)?))
    }
}
