//! Layers that are missing in the store: fetched from a known source, or streamed from there to
//! another destination.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::oci::{Descriptor, DiffId, Digest, LayerCompression, Reference};
use crate::pathio::{Context as _, PathError};
use crate::pool::{self, Scope};
use crate::registry::{BlobDirectory, Client, RegistryError};
use crate::store::{ArrivingBlob, LayerOptions, LayerSource, Store, StoreError};

use super::layout_reader::LayoutReader;
use super::{ExportError, LayoutError, Result};

/// A source's location, parsed from the store's text.
enum SourceLocation<'a> {
    Registry(Reference),
    Layout(&'a Path),
    /// A directory of blobs, usable only if this process has its keys.
    Blobs(&'a str),
}

impl<'a> SourceLocation<'a> {
    fn of(source: &'a LayerSource) -> Option<Self> {
        if source.place.starts_with('/') {
            return Some(Self::Layout(Path::new(&source.place)));
        }
        if source.place.contains("://") {
            return Some(Self::Blobs(&source.place));
        }
        source.place.parse().ok().map(Self::Registry)
    }
}

/// Returns the repository of a source, if a registry has it.
pub(super) fn repository(source: &LayerSource) -> Option<Reference> {
    match SourceLocation::of(source)? {
        SourceLocation::Registry(name) => Some(name),
        SourceLocation::Layout(_) | SourceLocation::Blobs(_) => None,
    }
}

/// Fetches a missing layer from the first source that has it, and unpacks it meanwhile if `unpack` says
/// how. `progress` gets the number of new bytes. A source that lost the layer, or has other content, is
/// forgotten.
///
/// # Errors
/// [`StoreError::Missing`] if no source is known; otherwise the last source's error.
pub fn fetch_layer(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    unpack: Option<&LayerOptions>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let mut last = store.missing_layer(diff_id).into();
    for source in store.layer_sources().of_layer(diff_id)? {
        match fetch_from(store, registry, diff_id, &source, unpack, progress) {
            Err(error) if is_missing(&error) || is_wrong_content(&error) => {
                store.layer_sources().remove(&source)?;
                last = error;
            }
            Err(error) => last = error,
            Ok(()) => return Ok(()),
        }
    }
    Err(last)
}

/// Returns whether a known source still has the layer. Registries and buckets are asked, layouts
/// are checked. Sources that lost it are forgotten.
///
/// # Errors
/// The last source's error, if no source could answer.
pub fn is_obtainable(store: &Store, registry: &Client, diff_id: DiffId) -> Result<bool> {
    let mut last = None;
    for source in store.layer_sources().of_layer(diff_id)? {
        let there = match SourceLocation::of(&source) {
            Some(SourceLocation::Registry(name)) => {
                registry.blob_exists(&name, source.blob.digest).map_err(|error| {
                    ExportError::Origin { place: source.place.clone(), source: error }
                })
            }
            Some(SourceLocation::Layout(directory)) => {
                Ok(LayoutReader::new(directory).open_blob(&source.blob).is_ok())
            }
            Some(SourceLocation::Blobs(place)) => match registry.blob_directory(place) {
                Some(directory) => is_in_directory(registry, directory.as_ref(), &source),
                // Not forgotten: a build with the bucket's keys may find it there.
                None => continue,
            },
            None => Ok(false),
        };
        match there {
            Ok(true) => return Ok(true),
            Ok(false) => store.layer_sources().remove(&source)?,
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(false), Err)
}

fn is_in_directory(
    registry: &Client,
    directory: &dyn BlobDirectory,
    source: &LayerSource,
) -> Result<bool> {
    let found = directory.find_blob(registry, &source.blob);
    let found = found.map_err(|error| {
        let place = directory.to_string();
        ExportError::Origin { place, source: error }
    })?;
    Ok(found.is_some_and(|object| object.n_bytes == source.blob.size))
}

fn is_missing(error: &ExportError) -> bool {
    if let ExportError::Io(error) = error {
        return error.kind() == io::ErrorKind::NotFound;
    }
    matches!(error, ExportError::Origin { source, .. } if source.is_not_found())
}

fn is_wrong_content(error: &ExportError) -> bool {
    let is_wrong = |error: &RegistryError| {
        matches!(error.own(), RegistryError::WrongDigest { .. } | RegistryError::WrongSize { .. })
    };
    // Anything but a regular file, or a file behind a link, is not a blob of a layout.
    let is_no_file = |kind: io::ErrorKind| kind == io::ErrorKind::InvalidInput;
    let is_other_size = |error: &LayoutError| matches!(error, LayoutError::WrongSize { .. });
    matches!(error, ExportError::WrongBlob { .. })
        || matches!(error, ExportError::Io(error) if is_no_file(error.kind()))
        || matches!(error, ExportError::Layout(error) if is_other_size(error))
        || matches!(error, ExportError::Origin { source, .. } if is_wrong(source))
}

/// Fetches a missing layer from one source. Unpacks it meanwhile if `unpack` says how.
///
/// # Errors
/// The source's error; [`ExportError::WrongBlob`] if it has other content.
pub fn fetch_from(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    source: &LayerSource,
    unpack: Option<&LayerOptions>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let blob = &source.blob;
    if !store.has_blob(blob.digest) {
        let arriving = store.arriving_blob(blob.size)?;
        let got = pool::scope(|scope| {
            if let Some(options) = unpack {
                let arriving = arriving.reader();
                let unpacking = pool::start(scope, move || {
                    // A mount of the layer meets the same error, and reports it.
                    if let Err(error) = store.unpack_arriving(diff_id, arriving, options) {
                        tracing::debug!(layer = %diff_id, %error, "not unpacked while it arrived");
                    }
                });
                // Without a thread, the mount unpacks it.
                drop(unpacking);
            }
            let hashing = pool::start(scope, || arriving.hash());
            let copied = copy_into(registry, source, &arriving, progress);
            arriving.end();
            let hash = hashing.map_or_else(|_no_thread| arriving.hash(), pool::join);
            copied.and_then(|()| Ok(hash.context("read a blob of", store.root())?))
        })?;
        if got != blob.digest {
            return Err(corrupt(source, got));
        }
        store.publish_arrived(arriving, got)?;
    }
    let compression = blob.media_type.layer_compression().unwrap_or(LayerCompression::None);
    Ok(store.record_pulled(diff_id, blob, compression)?)
}

/// Writes the source's blob into `arriving`. The content is not verified here.
fn copy_into(
    registry: &Client,
    source: &LayerSource,
    arriving: &ArrivingBlob,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let write_at = |offset, bytes: &[u8]| arriving.write_at(offset, bytes);
    match SourceLocation::of(source) {
        Some(SourceLocation::Registry(name)) => registry
            .pull_blob_in_parts(&name, &source.blob, &write_at, progress)
            .map_err(|error| ExportError::Origin { place: source.place.clone(), source: error }),
        Some(SourceLocation::Blobs(place))
            if let Some(directory) = registry.blob_directory(place) =>
        {
            directory.pull_blob_in_parts(registry, &source.blob, &write_at, progress).map_err(
                |error| ExportError::Origin { place: directory.to_string(), source: error },
            )
        }
        Some(SourceLocation::Layout(_) | SourceLocation::Blobs(_)) | None => {
            copy_to(registry, source, &mut InOrder { arriving, at: 0 }, progress)
        }
    }
}

/// Writes the parts of an arriving blob in order.
struct InOrder<'a> {
    arriving: &'a ArrivingBlob,
    at: u64,
}

impl Write for InOrder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arriving.write_at(self.at, bytes)?;
        self.at = self.at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Streams a blob from the first source that has it to `read`, without storing it. `read` is called
/// again for each source. `watch` gets the number of new bytes, and cancels the transfer by
/// returning false. The bytes are not verified here.
///
/// # Errors
/// [`StoreError::Missing`] if no source is known; otherwise the last source's error, or that of
/// `read`.
pub fn read_remote_blob<T>(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    watch: &(dyn Fn(u64) -> bool + Sync),
    read: &dyn Fn(Box<dyn Read + Send>) -> std::result::Result<T, StoreError>,
) -> Result<T> {
    let mut last = StoreError::Missing { what: format!("the archive {diff_id}") }.into();
    for source in store.layer_sources().of_layer(diff_id)? {
        let (reader, writer) = io::pipe().context("open a pipe for", store.root())?;
        let (read, copied) = pool::scope(|scope| {
            let mut sink = WatchedWriter { sink: writer, watch };
            let source = &source;
            let copying =
                pool::start(scope, move || copy_to(registry, source, &mut sink, &|_more| {}))
                    .context("read a blob for", store.root())?;
            Ok::<_, PathError>((read(Box::new(reader)), pool::join(copying)))
        })?;
        match (read, copied) {
            (Ok(read), _) => return Ok(read),
            (Err(_), Err(error)) if !is_hung_up(&error) => last = error,
            (Err(error), _) => last = error.into(),
        }
    }
    Err(last)
}

/// A writer that reports its bytes to `watch`, and fails when `watch` returns false.
struct WatchedWriter<'a, W> {
    sink: W,
    watch: &'a (dyn Fn(u64) -> bool + Sync),
}

impl<W: Write> Write for WatchedWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.sink.write(bytes)?;
        if (self.watch)(u64::try_from(n_written).unwrap_or(u64::MAX)) {
            return Ok(n_written);
        }
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Returns whether the reader closed the pipe early.
fn is_hung_up(error: &ExportError) -> bool {
    matches!(error, ExportError::Origin { source, .. } if source.is_local())
        || matches!(error, ExportError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// Fetches a blob from the first source that has it, for the lifetime of this process.
///
/// # Errors
/// The same as [`fetch_layer`].
pub fn fetch_temporarily(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    blob: &Descriptor,
) -> Result<()> {
    let mut last = StoreError::Missing { what: format!("the archive {diff_id}") }.into();
    for source in store
        .layer_sources()
        .of_layer(diff_id)?
        .iter()
        .filter(|from| from.blob.digest == blob.digest)
    {
        let mut draft = store.draft()?;
        match copy_to(registry, source, &mut draft, &|_more| {}) {
            Err(error) => last = error,
            Ok(()) => match store.keep_private(draft).0 {
                got if got == blob.digest => return Ok(()),
                got => last = corrupt(source, got),
            },
        }
    }
    Err(last)
}

/// Reads a blob of at most `max_bytes`. Its content is not verified here.
///
/// # Errors
/// The source's error; [`ExportError::Io`] if it is longer.
pub fn read_small_blob(registry: &Client, source: &LayerSource, max_bytes: u64) -> Result<Vec<u8>> {
    if source.blob.size > max_bytes {
        let error = io::Error::from(io::ErrorKind::FileTooLarge);
        return Err(PathError::new("read a blob of", &source.place, error).into());
    }
    let mut bytes = Vec::new();
    copy_to(registry, source, &mut bytes, &|_more| {})?;
    Ok(bytes)
}

fn corrupt(source: &LayerSource, got: Digest) -> ExportError {
    let (place, want) = (source.place.clone(), source.blob.digest);
    if let Some(name) = repository(source) {
        let what = format!("blob {want} of {}", name.name());
        return ExportError::Origin {
            place,
            source: RegistryError::WrongDigest { what, want, got },
        };
    }
    ExportError::WrongBlob { place, want, got }
}

/// Writes the source's blob into `sink`. The content of a layout is not verified here.
fn copy_to(
    registry: &Client,
    source: &LayerSource,
    sink: &mut dyn Write,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let place = || source.place.clone();
    match SourceLocation::of(source) {
        Some(SourceLocation::Registry(name)) => registry
            .pull_blob(&name, &source.blob, sink, progress)
            .map_err(|source| ExportError::Origin { place: place(), source }),
        Some(SourceLocation::Layout(directory)) => {
            let blob = LayoutReader::new(directory).open_blob(&source.blob)?;
            // A file that grows meanwhile is truncated here, and its digest differs.
            io::copy(&mut blob.take(source.blob.size), sink)
                .context("copy a blob of", directory)?;
            Ok(())
        }
        Some(SourceLocation::Blobs(place))
            if let Some(directory) = registry.blob_directory(place) =>
        {
            directory
                .pull_blob(registry, &source.blob, sink, progress)
                .map_err(|source| ExportError::Origin { place: directory.to_string(), source })
        }
        Some(SourceLocation::Blobs(_)) | None => {
            Err(StoreError::Missing { what: format!("a layer at {}", source.place) }.into())
        }
    }
}

/// Relays a blob from one registry to another, through memory only.
pub(super) struct BlobRelay<'a> {
    registry: &'a Client,
    source: &'a LayerSource,
    /// The source's error. The receiver notices only that the stream ends.
    failure: Mutex<Option<ExportError>>,
}

impl<'a> BlobRelay<'a> {
    pub(super) const fn new(registry: &'a Client, source: &'a LayerSource) -> Self {
        Self { registry, source, failure: Mutex::new(None) }
    }

    /// Starts a transfer from the beginning of the blob.
    pub(super) fn open<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<Box<dyn Read + Send>> {
        let (reader, mut writer) = io::pipe()?;
        pool::start(scope, move || {
            let copied = copy_to(self.registry, self.source, &mut writer, &|_more| {});
            if let Err(error) = copied
                && let Ok(mut failure) = self.failure.lock()
            {
                failure.get_or_insert(error);
            }
        })?;
        Ok(Box::new(reader))
    }

    /// Returns the source's own error, unless the receiver just closed the stream.
    pub(super) fn failure(self) -> Option<ExportError> {
        let failure = self.failure.into_inner().ok().flatten();
        failure.filter(|error| !is_hung_up(error))
    }
}

/// Returns the first of `sources` that has `blob`.
pub(super) fn holding<'a>(
    sources: &'a [LayerSource],
    blob: &Descriptor,
) -> Option<&'a LayerSource> {
    sources.iter().find(|source| source.blob.digest == blob.digest)
}

impl From<LayoutError> for ExportError {
    fn from(error: LayoutError) -> Self {
        if let LayoutError::Io(error) = error {
            return Self::Io(error);
        }
        Self::Layout(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    #[test]
    fn source_locations_are_distinguished() {
        let source = |place: &str| LayerSource {
            blob: Descriptor::of(MediaType::OciLayer(LayerCompression::Gzip), b""),
            place: place.to_owned(),
        };
        let name = |place: &str| repository(&source(place)).map(|name| name.name());
        assert_eq!(name("docker.io/library/x").as_deref(), Some("docker.io/library/x"));
        assert_eq!(name("/srv/layout"), None);
        assert_eq!(name("s3:https://s3.example/b/blobs/"), None);
        assert_eq!(name("Not A Name"), None);
    }
}
