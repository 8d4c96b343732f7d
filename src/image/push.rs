//! Images into registries: each layer goes up as soon as it is packed, the manifest last.

use std::collections::BTreeMap;
use std::io::{self, PipeWriter, Read, Write};
use std::num::NonZeroUsize;

use crate::oci::{Descriptor, DiffId, Digest, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};
use crate::store::{LayerSource, Store};

use super::documents::{
    Artifact, Packed, compression_of, index_over, kept_layer, layer_type, packed_layer,
    packed_layer_beside, try_each,
};
use super::origin::{self, Passage};
use super::{ExportError, ExportOptions, Image, ImageLayer, Result, config_of};

/// So many uploads go on at once, even with fewer threads to work: most of the time they wait.
const UPLOADS_AT_ONCE: usize = 4;

/// A layer whose tar is longer goes up while it is packed; of a shorter one both take no time.
const LARGE_BYTES: u64 = 8 << 20;

/// Passes bytes on until nobody takes them any more.
struct WhileItTakes(Option<PipeWriter>);

impl Write for WhileItTakes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(pipe) = &mut self.0
            && pipe.write_all(bytes).is_err()
        {
            self.0 = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a push works with.
struct Push<'a> {
    store: &'a Store,
    registry: &'a Client,
    name: &'a Reference,
    /// Other repositories of the same registry.
    mount_from: Vec<&'a Reference>,
    options: &'a ExportOptions,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// Something to be sent: it is packed first if it must be.
enum Part<'a> {
    Config,
    Layer(&'a ImageLayer),
}

/// Pushes `image` as `name` and gives the digest of its manifest. Blobs that the registry has, or
/// can take from the repositories `mount_from`, are not sent; `progress` is told the number of
/// bytes as they are.
///
/// # Errors
/// [`ExportError::Registry`]; the store's when a layer is not there or damaged.
pub fn push(
    store: &Store,
    registry: &Client,
    image: &Image,
    name: &Reference,
    mount_from: &[Reference],
    options: &ExportOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Digest> {
    let push = Push::new(store, registry, name, mount_from, options, progress);
    let packed = push.blobs(image)?;
    push.top(&packed.descriptor, &packed.manifest)
}

/// As [`push`], for one image or one for each of several platforms; `name` then stands for an
/// index, whose digest is the result.
///
/// # Errors
/// As there; [`ExportError::ImageCount`] without any image.
pub fn push_all(
    store: &Store,
    registry: &Client,
    images: &[Image],
    name: &Reference,
    mount_from: &[Reference],
    options: &ExportOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Digest> {
    match images {
        [] => return Err(ExportError::ImageCount { n_images: 0 }),
        [only] if !options.always_index => {
            return push(store, registry, only, name, mount_from, options, progress);
        }
        _ => {}
    }
    let push = Push::new(store, registry, name, mount_from, options, progress);
    let mut pushed = Vec::with_capacity(images.len());
    for image in images {
        let packed = push.blobs(image)?;
        let own_name = name.with_digest(packed.digest());
        push.document(&own_name, &packed.descriptor, &packed.manifest)?;
        pushed.push(packed);
    }
    let (index, descriptor) = index_over(&pushed, &BTreeMap::new(), options);
    push.top(&descriptor, &index)
}

/// Pushes an artifact as `name` and gives the digest of its manifest.
///
/// # Errors
/// As [`push`].
pub fn push_artifact(
    store: &Store,
    registry: &Client,
    name: &Reference,
    artifact: &Artifact<'_>,
    options: &ExportOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Digest> {
    let push = Push::new(store, registry, name, &[], options, progress);
    let jobs = NonZeroUsize::new(UPLOADS_AT_ONCE).unwrap_or(NonZeroUsize::MIN);
    let layers = try_each(artifact.layers, jobs.max(options.jobs), |layer| push.layer(layer))?;
    let document = (artifact.document)(&layers);
    let config = Descriptor::of(artifact.media_type.clone(), &document);
    push.bytes(&config, &document)?;
    let packed = Packed::over(config, layers, options);
    push.document(name, &packed.descriptor, &packed.manifest)
}

/// Each layer once: an image may have the same one twice, such as an empty one.
fn distinct(layers: &[ImageLayer]) -> Vec<&ImageLayer> {
    let mut distinct: Vec<&ImageLayer> = Vec::with_capacity(layers.len());
    for layer in layers {
        if !distinct.iter().any(|other| other.diff_id == layer.diff_id) {
            distinct.push(layer);
        }
    }
    distinct
}

impl<'a> Push<'a> {
    fn new(
        store: &'a Store,
        registry: &'a Client,
        name: &'a Reference,
        mount_from: &'a [Reference],
        options: &'a ExportOptions,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let same_registry = |other: &&Reference| {
            other.registry() == name.registry() && other.repository() != name.repository()
        };
        let mount_from = mount_from.iter().filter(same_registry).collect();
        Self { store, registry, name, mount_from, options, progress }
    }

    /// Sees to it that the registry has the config and all layers.
    fn blobs(&self, image: &Image) -> Result<Packed> {
        let mut parts = vec![Part::Config];
        parts.extend(distinct(image.layers()).into_iter().map(Part::Layer));
        let jobs = NonZeroUsize::new(UPLOADS_AT_ONCE).unwrap_or(NonZeroUsize::MIN);
        let sent = try_each(&parts, jobs.max(self.options.jobs), |part| match part {
            Part::Config => {
                self.bytes(&config_of(image, self.options), image.config_bytes()).map(|()| None)
            }
            Part::Layer(layer) => self.layer(layer).map(|sent| Some((layer.diff_id, sent))),
        })?;
        let sent: Vec<(DiffId, Descriptor)> = sent.into_iter().flatten().collect();
        let layers = image.layers().iter().map(|layer| {
            let found = sent.iter().find(|(diff_id, _)| *diff_id == layer.diff_id);
            found.expect("every layer was sent").1.clone()
        });
        Ok(Packed::new(image, layers.collect(), self.options))
    }

    /// Sends what the name is to stand for.
    fn top(&self, what: &Descriptor, bytes: &[u8]) -> Result<Digest> {
        let by_digest = self.options.by_digest.then(|| self.name.with_digest(what.digest));
        self.document(by_digest.as_ref().unwrap_or(self.name), what, bytes)
    }

    fn document(&self, name: &Reference, what: &Descriptor, bytes: &[u8]) -> Result<Digest> {
        let pushed = self.registry.push_manifest(name, &what.media_type, bytes);
        pushed.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: RegistryError) -> ExportError {
        let is_untagged = self.options.by_digest;
        let name = if is_untagged { self.name.name() } else { self.name.familiar() };
        ExportError::Registry { name, source }
    }

    /// Sees to it that the registry has these bytes.
    fn bytes(&self, what: &Descriptor, bytes: &[u8]) -> Result<()> {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(bytes.to_vec())))
        };
        self.send(what, None, &open).map_err(|error| self.failed(error))
    }

    /// Sees to it that the registry has the layer; gives the blob that it has there.
    fn layer(&self, layer: &ImageLayer) -> Result<Descriptor> {
        let sources = self.store.layer_sources().of_layer(layer.diff_id)?;
        let blob = self.blob_of(layer, &sources)?;
        let known = origin::holding(&sources, &blob);
        let repository = known.and_then(origin::repository);
        let same = |other: &Reference| other.registry() == self.name.registry();
        let from = match repository.filter(same) {
            Some(other) => Some(other.repository().to_owned()),
            None => self.mountable(&blob)?.map(|other| other.repository().to_owned()),
        };
        match known.filter(|_| !self.store.has_blob(blob.digest)) {
            Some(source) => self.pass_on(&blob, from.as_deref(), source)?,
            None => {
                let open = || -> io::Result<Box<dyn Read + Send>> {
                    let opened = self.store.open_checked_blob(blob.digest);
                    Ok(Box::new(opened.map_err(|error| io::Error::new(error.kind(), error))?))
                };
                self.send(&blob, from.as_deref(), &open).map_err(|error| self.failed(error))?;
            }
        }
        Ok(blob)
    }

    /// The blob that the layer is pushed as; it may be elsewhere than in the store.
    fn blob_of(&self, layer: &ImageLayer, sources: &[LayerSource]) -> Result<Descriptor> {
        // A base's blob that the store does not have may yet be in the registry.
        if let Some(kept) = kept_layer(layer, self.options)
            && (self.store.has_blob(kept.digest)
                || origin::holding(sources, &kept).is_some()
                || self.is_there(&kept)?)
        {
            return Ok(kept);
        }
        if !self.store.has_layer(layer.diff_id)? {
            let wanted = compression_of(self.options.packing);
            let fits =
                |source: &&LayerSource| source.blob.media_type.layer_compression() == Some(wanted);
            if let Some(source) = sources.iter().find(fits) {
                let media_type = layer_type(wanted, self.options);
                return Ok(Descriptor::new(media_type, source.blob.digest, source.blob.size));
            }
            origin::fetch_layer(self.store, self.registry, layer.diff_id, self.progress)?;
        }
        self.packed(layer)
    }

    /// Packs the layer. A large one goes up while it is packed; whether that went well need not be
    /// known here: the registry is asked whether it has the blob before it is sent.
    fn packed(&self, layer: &ImageLayer) -> Result<Descriptor> {
        let is_large =
            self.store.layer(layer.diff_id)?.is_some_and(|it| it.tar_bytes > LARGE_BYTES);
        let is_packed = self.store.find_packed(layer.diff_id, self.options.packing)?.is_some();
        let (false, true, Ok((mut reader, writer))) = (is_packed, is_large, io::pipe()) else {
            return packed_layer(self.store, layer, self.options);
        };
        pool::scope(|scope| {
            let upload = pool::start(scope, move || {
                let mut upload = self.registry.start_upload(self.name)?;
                upload.send(&mut reader, self.progress).map(|_n_bytes| upload)
            });
            let Ok(upload) = upload else {
                return packed_layer(self.store, layer, self.options);
            };
            let mut beside = WhileItTakes(Some(writer));
            let packed = packed_layer_beside(self.store, layer, self.options, &mut beside);
            // The upload ends where the pipe does.
            drop(beside);
            let uploaded = pool::join(upload);
            if let (Ok(packed), Ok(upload)) = (&packed, uploaded)
                && upload.n_bytes() == packed.size
            {
                drop(upload.finish(packed.digest));
            }
            packed
        })
    }

    /// Has the registry take the blob from where it is, or sends it on as it comes from there.
    fn pass_on(&self, blob: &Descriptor, from: Option<&str>, source: &LayerSource) -> Result<()> {
        let passage = Passage::new(self.registry, source);
        let sent = pool::scope(|scope| {
            self.send(blob, from, &|| passage.open(scope)).map_err(|error| self.failed(error))
        });
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
    ) -> std::result::Result<(), RegistryError> {
        self.registry.push_blob(self.name, blob, from, open, self.progress).map(drop)
    }

    fn is_there(&self, blob: &Descriptor) -> Result<bool> {
        let own = self.registry.blob_exists(self.name, blob.digest);
        Ok(own.map_err(|error| self.failed(error))? || self.holder(blob).is_some())
    }

    /// The repository to mount a blob from. One is simply tried; of several, the first that has
    /// the blob.
    fn mountable(&self, blob: &Descriptor) -> Result<Option<&Reference>> {
        match self.mount_from.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            _ => {
                let own = self.registry.blob_exists(self.name, blob.digest);
                let own = own.map_err(|error| self.failed(error))?;
                Ok(if own { None } else { self.holder(blob) })
            }
        }
    }

    /// A repository to mount from that has the blob. One that does not let us look has nothing.
    fn holder(&self, blob: &Descriptor) -> Option<&Reference> {
        let has =
            |other: &&&Reference| self.registry.blob_exists(other, blob.digest).unwrap_or(false);
        self.mount_from.iter().find(has).copied()
    }
}
