//! Pushes images: each layer is uploaded as soon as it is compressed, the manifest last.

use std::collections::BTreeMap;
use std::io::{self, PipeWriter, Read, Write};
use std::num::NonZeroUsize;

use crate::oci::{Descriptor, DiffId, Digest, Platform, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};
use crate::store::{LayerSource, Store};

use super::documents::{
    PackedImage, compression_of, described, existing_packed, index_over, kept_layer, layer_type,
    packed_layer_beside, try_each,
};
use super::fetch::{self, BlobRelay};
use super::replaced::{RegistryRetries, check_platforms};
use super::{ExportError, ExportOptions, Image, ImageLayer, Result, config_of};

/// Minimum number of parallel uploads, even with fewer threads: most of the time they wait.
const PARALLEL_UPLOADS: usize = 4;

/// Number of requests without a body that are sent at once before the uploads.
const PARALLEL_REQUESTS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

/// Size in bytes from which a layer is uploaded during its compression. Both are fast for a smaller
/// one.
pub const LARGE_BYTES: u64 = 8 << 20;

/// Size in bytes of a new blob up to which the registry is not asked whether it has it: to send it takes less
/// time than the answer.
const UNASKED_BYTES: u64 = 16 << 10;

/// Returns whether a transfer that is not needed yet goes on.
type KeepsGoing<'a> = dyn Fn() -> bool + Sync + 'a;

/// Writes to a pipe until its reader is gone, and then discards the bytes. Fails once the transfer is
/// not to go on.
struct BestEffortWriter<'a> {
    pipe: Option<PipeWriter>,
    keeps_going: &'a KeepsGoing<'a>,
}

impl Write for BestEffortWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.keeps_going)() {
            return Err(io::Error::other("stopped"));
        }
        if let Some(pipe) = &mut self.pipe
            && pipe.write_all(bytes).is_err()
        {
            self.pipe = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The parameters of a push.
struct Pusher<'a> {
    store: &'a Store,
    registry: &'a Client,
    name: &'a Reference,
    /// Other repositories of the same registry, to mount blobs from.
    mount_from: Vec<&'a Reference>,
    options: &'a ExportOptions,
    progress: &'a (dyn Fn(u64) + Sync),
    keeps_going: &'a KeepsGoing<'a>,
}

/// An item of a push.
enum PushItem<'a> {
    Config,
    Layer(&'a ImageLayer),
}

/// A question to a registry before anything is sent.
enum Question<'a> {
    /// Does the repository have the blob?
    Blob(Digest),
    /// Does the index of this name have other platforms?
    Index(&'a Reference),
}

/// Pushes `image` as `name` and returns the descriptor of its manifest. Blobs that the registry has, or
/// can mount from the repositories `mount_from`, are not sent; nothing is sent if the tag was just seen with
/// this manifest. `progress` gets the number of new bytes.
///
/// # Errors
/// [`ExportError::Registry`]; [`ExportError::Store`] if a layer is missing or damaged;
/// [`ExportError::Dropped`] if an index would lose platforms.
pub fn push(
    store: &Store,
    registry: &Client,
    image: &Image,
    name: &Reference,
    mount_from: &[Reference],
    options: &ExportOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Descriptor> {
    let pusher = Pusher::new(store, registry, name, mount_from, options, progress);
    if let Some(tagged) = pusher.tagged(image)? {
        return Ok(tagged);
    }
    let packed = pusher.blobs(image, &[image.platform()])?;
    pusher.top(packed.descriptor, &packed.manifest)
}

/// Pushes one image, or one for each of several platforms, like [`push`]. Several get an index
/// under `name`, whose descriptor is returned.
///
/// # Errors
/// The same as [`push`]; [`ExportError::ImageCount`] without any image.
pub fn push_all(
    store: &Store,
    registry: &Client,
    images: &[Image],
    name: &Reference,
    mount_from: &[Reference],
    options: &ExportOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Descriptor> {
    match images {
        [] => return Err(ExportError::ImageCount { n_images: 0 }),
        [only] if !options.always_index => {
            return push(store, registry, only, name, mount_from, options, progress);
        }
        _ => {}
    }
    let pusher = Pusher::new(store, registry, name, mount_from, options, progress);
    let platforms: Vec<Platform> = images.iter().map(Image::platform).collect();
    let mut pushed = Vec::with_capacity(images.len());
    for image in images {
        let packed = pusher.blobs(image, if pushed.is_empty() { &platforms } else { &[] })?;
        let own_name = name.with_digest(packed.digest());
        pusher.document(&own_name, &packed.descriptor, &packed.manifest)?;
        pushed.push(packed);
    }
    let (index, descriptor) = index_over(&pushed, &BTreeMap::new(), options);
    pusher.top(descriptor, &index)
}

/// Ensures that the repository of `name` has these layers, and returns their blobs there.
///
/// # Errors
/// The same as [`push`].
pub fn push_layers(
    store: &Store,
    registry: &Client,
    name: &Reference,
    layers: &[ImageLayer],
    options: &ExportOptions,
) -> Result<Vec<Descriptor>> {
    let pusher = Pusher::new(store, registry, name, &[], options, &|_more| {});
    let mut known = Vec::new();
    for layer in layers {
        known.extend(pusher.known_blob(layer)?.map(|blob| blob.digest));
    }
    pool::map_in_order(&known, PARALLEL_REQUESTS, |blob| registry.find_before_push(name, *blob));
    let jobs = NonZeroUsize::new(PARALLEL_UPLOADS).unwrap_or(NonZeroUsize::MIN);
    try_each(layers, jobs.max(options.jobs), |layer| pusher.layer(layer))
}

/// Sends a document to the repository of `name` as a blob. The repository is not expected to have it.
///
/// # Errors
/// [`ExportError::Registry`].
pub fn push_bytes(
    registry: &Client,
    name: &Reference,
    blob: &Descriptor,
    bytes: &[u8],
) -> Result<()> {
    registry.expect_absent(name, blob.digest);
    let pushed = registry.push_blob(name, blob, None, &open_bytes(bytes), &|_more| {});
    let failed = |source| ExportError::Registry { name: name.familiar(), source };
    pushed.map(drop).map_err(failed)
}

/// Returns a function that opens the bytes for a transfer.
fn open_bytes(bytes: &[u8]) -> impl Fn() -> io::Result<Box<dyn Read + Send>> + Sync {
    let bytes = bytes.to_vec();
    move || Ok(Box::new(io::Cursor::new(bytes.clone())))
}

/// Compresses a layer that an image or a cache will have, and sends it to the repository of `name`,
/// unless the registry can mount it there. Stops when `keeps_going` returns false. `progress` gets the
/// number of new bytes.
///
/// # Errors
/// The same as [`push`].
pub fn push_layer(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    name: &Reference,
    options: &ExportOptions,
    keeps_going: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let pusher =
        Pusher { keeps_going, ..Pusher::new(store, registry, name, &[], options, progress) };
    let size = store.layer(diff_id)?.map_or(0, |layer| layer.tar_bytes);
    pusher.layer(&ImageLayer { diff_id, size, pulled: None }).map(drop)
}

/// Returns each layer once: an image may contain the same one twice, such as an empty one.
fn distinct(layers: &[ImageLayer]) -> Vec<&ImageLayer> {
    let mut distinct: Vec<&ImageLayer> = Vec::with_capacity(layers.len());
    for layer in layers {
        if !distinct.iter().any(|other| other.diff_id == layer.diff_id) {
            distinct.push(layer);
        }
    }
    distinct
}

impl<'a> Pusher<'a> {
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
        Self { store, registry, name, mount_from, options, progress, keeps_going: &|| true }
    }

    /// Ensures that the registry has the config and all layers. Checks meanwhile, unless `platforms` is empty,
    /// that no index loses another platform.
    fn blobs(&self, image: &Image, platforms: &[Platform]) -> Result<PackedImage> {
        self.ask(image, platforms)?;
        let mut items = vec![PushItem::Config];
        items.extend(distinct(image.layers()).into_iter().map(PushItem::Layer));
        let jobs = NonZeroUsize::new(PARALLEL_UPLOADS).unwrap_or(NonZeroUsize::MIN);
        let sent = try_each(&items, jobs.max(self.options.jobs), |item| match item {
            PushItem::Config => {
                self.bytes(&config_of(image, self.options), image.config_bytes()).map(|()| None)
            }
            PushItem::Layer(layer) => self.layer(layer).map(|sent| Some((layer.diff_id, sent))),
        })?;
        let sent: Vec<(DiffId, Descriptor)> = sent.into_iter().flatten().collect();
        let layers = image.layers().iter().map(|layer| {
            let found = sent.iter().find(|(diff_id, _)| *diff_id == layer.diff_id);
            found.expect("every layer was sent").1.clone()
        });
        Ok(PackedImage::new(image, layers.collect(), self.options))
    }

    /// Returns the image's manifest if the registry has just shown it under the tag.
    fn tagged(&self, image: &Image) -> Result<Option<Descriptor>> {
        let is_wanted = self.options.trusts_tag && !self.options.by_digest;
        let seen = self.registry.seen_tag(self.name).filter(|seen| is_wanted && seen.is_recent());
        let Some(seen) = seen.and_then(|seen| seen.digest) else { return Ok(None) };
        let layers = image.layers().iter().map(|layer| self.known_blob(layer));
        let Some(layers) = layers.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
        let manifest = PackedImage::new(image, layers, self.options).descriptor;
        Ok(Some(manifest).filter(|manifest| manifest.digest == seen))
    }

    /// Asks the registry all that must be known before the first upload, at once. The config of an image
    /// with a layer that is not compressed yet is new.
    fn ask(&self, image: &Image, platforms: &[Platform]) -> Result<()> {
        let layers = distinct(image.layers()).into_iter().map(|layer| self.known_blob(layer));
        let layers: Vec<Option<Descriptor>> = layers.collect::<Result<_>>()?;
        let config = config_of(image, self.options);
        let is_new = layers.iter().any(Option::is_none);
        if is_new {
            self.registry.expect_absent(self.name, config.digest);
        }
        let known = layers.into_iter().flatten().chain((!is_new).then_some(config));
        let mut questions: Vec<_> = known.map(|blob| Question::Blob(blob.digest)).collect();
        if !platforms.is_empty() {
            questions.extend(self.options.guarded_names.iter().map(Question::Index));
        }
        let ask = |question: &Question<'_>| match question {
            Question::Blob(digest) => {
                self.registry.find_before_push(self.name, *digest);
                Ok(())
            }
            Question::Index(name) => {
                check_platforms(self.registry, name, platforms, RegistryRetries::Retries)
            }
        };
        try_each(&questions, PARALLEL_REQUESTS, ask).map(drop)
    }

    /// Returns the blob under which the layer will be pushed, if that is known before it is compressed.
    fn known_blob(&self, layer: &ImageLayer) -> Result<Option<Descriptor>> {
        if let Some(kept) = kept_layer(layer, self.options) {
            return Ok(Some(kept));
        }
        if let Some(packed) = existing_packed(self.store, layer.diff_id, self.options)? {
            return Ok(Some(described(&packed, self.options)));
        }
        let sources = self.store.layer_sources().of_layer(layer.diff_id)?;
        Ok(self.source_blob(&sources))
    }

    /// Returns the blob of a source that is compressed as the options say.
    fn source_blob(&self, sources: &[LayerSource]) -> Option<Descriptor> {
        let LayerSource { blob, .. } = self.source_to_push(sources)?;
        let media_type = layer_type(compression_of(self.options.packing), self.options);
        Some(Descriptor::new(media_type, blob.digest, blob.size))
    }

    /// Returns the source whose blob is compressed as the options say.
    fn source_to_push<'s>(&self, sources: &'s [LayerSource]) -> Option<&'s LayerSource> {
        let wanted = Some(compression_of(self.options.packing));
        sources.iter().find(|source| source.blob.media_type.layer_compression() == wanted)
    }

    /// Sends the document that the name refers to. Returns its descriptor.
    fn top(&self, what: Descriptor, bytes: &[u8]) -> Result<Descriptor> {
        let by_digest = self.options.by_digest.then(|| self.name.with_digest(what.digest));
        self.document(by_digest.as_ref().unwrap_or(self.name), &what, bytes)?;
        Ok(what)
    }

    fn document(&self, name: &Reference, what: &Descriptor, bytes: &[u8]) -> Result<()> {
        let pushed = self.registry.push_manifest(name, &what.media_type, bytes);
        let shown = if self.options.by_digest { name.name() } else { name.familiar() };
        pushed.map(drop).map_err(|error| ExportError::of_push(shown, what.clone(), error))
    }

    fn failed(&self, source: RegistryError) -> ExportError {
        let is_untagged = self.options.by_digest;
        let name = if is_untagged { self.name.name() } else { self.name.familiar() };
        ExportError::Registry { name, source }
    }

    /// Ensures that the registry has these bytes.
    fn bytes(&self, what: &Descriptor, bytes: &[u8]) -> Result<()> {
        self.send(what, None, &open_bytes(bytes)).map_err(|error| self.failed(error))
    }

    /// Ensures that the registry has the layer, and returns its blob there.
    fn layer(&self, layer: &ImageLayer) -> Result<Descriptor> {
        let _alone = self.registry.lock_sending(self.name, layer.diff_id);
        let sources = self.store.layer_sources().of_layer(layer.diff_id)?;
        let blob = self.blob_of(layer, &sources)?;
        let known = fetch::holding(&sources, &blob);
        let repository = known.and_then(fetch::repository);
        let same = |other: &Reference| other.registry() == self.name.registry();
        let from = match repository.filter(same) {
            Some(other) => Some(other.repository().to_owned()),
            None => self.mount_source(&blob)?.map(|other| other.repository().to_owned()),
        };
        match known.filter(|_| !self.store.has_blob(blob.digest)) {
            Some(source) => self.mount_or_relay(&blob, from.as_deref(), source)?,
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

    /// Returns the blob under which the layer is pushed, which may be missing in the store.
    fn blob_of(&self, layer: &ImageLayer, sources: &[LayerSource]) -> Result<Descriptor> {
        // A base image's blob that the store lacks may exist in the registry.
        if let Some(kept) = kept_layer(layer, self.options)
            && (self.store.has_blob(kept.digest)
                || fetch::holding(sources, &kept).is_some()
                || self.is_in_registry(&kept)?)
        {
            return Ok(kept);
        }
        if !self.store.has_layer(layer.diff_id)? {
            if let Some(blob) = self.source_blob(sources) {
                return Ok(blob);
            }
            fetch::fetch_layer(self.store, self.registry, layer.diff_id, None, self.progress)?;
        }
        let was_packed = existing_packed(self.store, layer.diff_id, self.options)?.is_some();
        let blob = self.packed(layer, was_packed)?;
        if !was_packed && blob.size <= UNASKED_BYTES {
            self.registry.expect_absent(self.name, blob.digest);
        }
        Ok(blob)
    }

    /// Compresses the layer. A large one is uploaded meanwhile. Errors of that upload are ignored:
    /// the registry is asked for the blob before it is sent.
    fn packed(&self, layer: &ImageLayer, is_packed: bool) -> Result<Descriptor> {
        let is_large =
            self.store.layer(layer.diff_id)?.is_some_and(|it| it.tar_bytes > LARGE_BYTES);
        let keeps_going = self.keeps_going;
        let packed = |pipe| {
            let mut beside = BestEffortWriter { pipe, keeps_going };
            packed_layer_beside(self.store, layer, self.options, &mut beside)
        };
        let (false, true, Ok((mut reader, writer))) = (is_packed, is_large, io::pipe()) else {
            return packed(None);
        };
        pool::scope(|scope| {
            let upload = pool::start(scope, move || {
                let mut upload = self.registry.start_upload(self.name)?;
                upload.send(&mut reader, self.progress).map(|_n_bytes| upload)
            });
            let Ok(upload) = upload else { return packed(None) };
            // The writer closes the pipe, which ends the upload.
            let packed = packed(Some(writer));
            let uploaded = pool::join(upload);
            if let (Ok(packed), Ok(upload)) = (&packed, uploaded)
                && upload.n_bytes() == packed.size
            {
                drop(upload.finish(packed.digest));
            }
            packed
        })
    }

    /// Lets the registry mount the blob from its source, or relays it from there.
    fn mount_or_relay(
        &self,
        blob: &Descriptor,
        from: Option<&str>,
        source: &LayerSource,
    ) -> Result<()> {
        let relay = BlobRelay::new(self.registry, source);
        let sent = pool::scope(|scope| {
            self.send(blob, from, &|| relay.open(scope)).map_err(|error| self.failed(error))
        });
        match relay.failure() {
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

    fn is_in_registry(&self, blob: &Descriptor) -> Result<bool> {
        let own = self.registry.blob_exists(self.name, blob.digest);
        Ok(own.map_err(|error| self.failed(error))? || self.repository_with(blob).is_some())
    }

    /// Returns the repository to mount a blob from. A single candidate is tried without a check. Of
    /// several, the first that has the blob is chosen.
    fn mount_source(&self, blob: &Descriptor) -> Result<Option<&Reference>> {
        match self.mount_from.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            _ if self.registry.knows_location_of(self.name, blob.digest) => Ok(None),
            _ => {
                let own = self.registry.blob_exists(self.name, blob.digest);
                let own = own.map_err(|error| self.failed(error))?;
                Ok(if own { None } else { self.repository_with(blob) })
            }
        }
    }

    /// Returns a repository to mount from that has the blob. One that refuses access counts as
    /// lacking it.
    fn repository_with(&self, blob: &Descriptor) -> Option<&Reference> {
        let has =
            |other: &&&Reference| self.registry.blob_exists(other, blob.digest).unwrap_or(false);
        self.mount_from.iter().find(has).copied()
    }
}
