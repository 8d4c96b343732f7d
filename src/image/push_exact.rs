//! What the store has under a digest, into a registry as it is: the same bytes, the same digest.

use std::io::{self, Read};
use std::num::NonZeroUsize;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Descriptor, DiffId, Digest, MediaType, Parsed, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};
use crate::store::{LayerSource, Store, StoreError};

use super::documents::try_each;
use super::origin::{self, Passage};
use super::{ExportError, Image, Result};

/// So many blobs go up at once.
const UPLOADS_AT_ONCE: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// Pushes the manifest or index `digest`, with all that it names, as `name`. Layers that the store
/// does not have are passed on from where they are known to be.
///
/// # Errors
/// [`ExportError::Registry`]; the store's when something is not there.
pub fn push_exact(
    store: &Store,
    registry: &Client,
    digest: Digest,
    name: &Reference,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let bytes = store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
    let parsed = Parsed::parse(&bytes);
    let parsed = parsed.map_err(|source| ExportError::Manifest { manifest: digest, source })?;
    let media_type = match parsed {
        Parsed::Manifest(manifest) => {
            let image = Image::load(store, digest)?;
            let push = Push { store, registry, name, progress };
            push.bytes(&manifest.config, image.config_bytes())?;
            let layers: Vec<_> =
                image.layers().iter().map(|layer| layer.diff_id).zip(&manifest.layers).collect();
            try_each(&layers, UPLOADS_AT_ONCE, |(diff_id, blob)| push.layer(*diff_id, blob))?;
            manifest.media_type.unwrap_or(MediaType::OciManifest)
        }
        Parsed::Index(index) => {
            for entry in &index.manifests {
                let own = name.with_digest(entry.digest);
                push_exact(store, registry, entry.digest, &own, progress)?;
            }
            index.media_type.unwrap_or(MediaType::OciIndex)
        }
    };
    let pushed = registry.push_manifest(name, &media_type, &bytes);
    pushed.map(drop).map_err(|error| failed(name, error))
}

struct Push<'a> {
    store: &'a Store,
    registry: &'a Client,
    name: &'a Reference,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Push<'_> {
    fn bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(bytes.to_vec())))
        };
        self.send(blob, None, &open)
    }

    fn layer(&self, diff_id: DiffId, blob: &Descriptor) -> Result<()> {
        let store = self.store;
        if store.has_blob(blob.digest) {
            let open = || -> io::Result<Box<dyn Read + Send>> {
                let opened = store.open_checked_blob(blob.digest);
                Ok(Box::new(opened.map_err(|error| io::Error::new(error.kind(), error))?))
            };
            return self.send(blob, None, &open);
        }
        let sources = store.sources(diff_id)?;
        let source = origin::holding(&sources, blob).ok_or_else(|| {
            let what =
                format!("the layer {} in just this form; push the image by its tag", blob.digest);
            StoreError::Missing { what }
        })?;
        self.pass_on(blob, source)
    }

    fn pass_on(&self, blob: &Descriptor, source: &LayerSource) -> Result<()> {
        let same = |other: &Reference| other.registry() == self.name.registry();
        let from = origin::repository(source).filter(same);
        let from = from.as_ref().map(Reference::repository);
        let passage = Passage::new(self.registry, source);
        let sent = pool::scope(|scope| self.send(blob, from, &|| passage.open(scope)));
        match passage.failure() {
            Some(failure) if sent.is_err() => Err(failure),
            _ => sent,
        }
    }

    fn send(
        &self,
        blob: &Descriptor,
        from: Option<&str>,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<()> {
        let pushed = self.registry.push_blob(self.name, blob, from, open, self.progress);
        pushed.map(drop).map_err(|error| failed(self.name, error))
    }
}

fn failed(name: &Reference, source: RegistryError) -> ExportError {
    ExportError::Registry { name: name.familiar(), source }
}
