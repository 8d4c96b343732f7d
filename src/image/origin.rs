//! Layers that are not in the store: fetched from where they are known to be, or read there on
//! their way to somewhere else.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::oci::{Descriptor, DiffId, Digest, LayerCompression, Reference};
use crate::pathio::{Context as _, PathError};
use crate::pool::{self, Scope};
use crate::registry::{BucketDirectory, Client, RegistryError};
use crate::store::{LayerSource, Store, StoreError};

use super::reader::LayoutReader;
use super::{ExportError, LayoutError, Result};

/// Where a source is, as the store's text says.
enum Place<'a> {
    Registry(Reference),
    Layout(&'a Path),
    /// A directory of a bucket, which is asked only if this process knows how.
    Bucket(&'a str),
}

impl<'a> Place<'a> {
    fn of(source: &'a LayerSource) -> Option<Self> {
        if source.place.starts_with('/') {
            return Some(Self::Layout(Path::new(&source.place)));
        }
        if source.place.contains("://") {
            return Some(Self::Bucket(&source.place));
        }
        source.place.parse().ok().map(Self::Registry)
    }
}

/// The repository that the source is in, if it is one of a registry.
pub(super) fn repository(source: &LayerSource) -> Option<Reference> {
    match Place::of(source)? {
        Place::Registry(name) => Some(name),
        Place::Layout(_) | Place::Bucket(_) => None,
    }
}

/// Brings a layer that the store lacks from the first place that has it; `progress` is told the
/// number of bytes as they come. A place that no longer has it, or has something else, is forgotten.
///
/// # Errors
/// [`StoreError::Missing`] when no place is known; the last place's error.
pub fn fetch_layer(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let mut last = store.missing_layer(diff_id).into();
    for source in store.layer_sources().of_layer(diff_id)? {
        match fetch_from(store, registry, diff_id, &source, progress) {
            Err(error) if is_gone(&error) || is_another(&error) => {
                store.layer_sources().remove(&source)?;
                last = error;
            }
            Err(error) => last = error,
            Ok(()) => return Ok(()),
        }
    }
    Err(last)
}

/// Whether one of the places where the layer is known to be still has it. A registry is asked, a
/// layout looked at; places that have lost it are forgotten.
///
/// # Errors
/// The last place's, when none could say.
pub fn is_obtainable(store: &Store, registry: &Client, diff_id: DiffId) -> Result<bool> {
    let mut last = None;
    for source in store.layer_sources().of_layer(diff_id)? {
        let there = match Place::of(&source) {
            Some(Place::Registry(name)) => {
                registry.blob_exists(&name, source.blob.digest).map_err(|error| {
                    ExportError::Origin { place: source.place.clone(), source: error }
                })
            }
            Some(Place::Layout(directory)) => {
                Ok(LayoutReader::new(directory).open_blob(&source.blob).is_ok())
            }
            Some(Place::Bucket(place)) => match registry.known_directory(place) {
                Some(directory) => is_in_bucket(registry, &directory, &source),
                // A build that names the bucket may find it there yet.
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

fn is_in_bucket(
    registry: &Client,
    directory: &BucketDirectory,
    source: &LayerSource,
) -> Result<bool> {
    let found = registry.find_object(&directory.bucket, &directory.key(source.blob.digest));
    let found = found.map_err(|error| {
        let place = directory.to_string();
        ExportError::Origin { place, source: error }
    })?;
    Ok(found.is_some_and(|object| object.n_bytes == source.blob.size))
}

fn is_gone(error: &ExportError) -> bool {
    if let ExportError::Io(error) = error {
        return error.kind() == io::ErrorKind::NotFound;
    }
    matches!(error, ExportError::Origin { source, .. } if source.is_not_found())
}

fn is_another(error: &ExportError) -> bool {
    let is_wrong = |error: &RegistryError| {
        matches!(error.own(), RegistryError::WrongDigest { .. } | RegistryError::WrongSize { .. })
    };
    // What is no regular file, or is reached through a link, is not a blob of a layout.
    let is_no_file = |kind: io::ErrorKind| kind == io::ErrorKind::InvalidInput;
    let is_other_size = |error: &LayoutError| matches!(error, LayoutError::WrongSize { .. });
    matches!(error, ExportError::WrongBlob { .. })
        || matches!(error, ExportError::Io(error) if is_no_file(error.kind()))
        || matches!(error, ExportError::Layout(error) if is_other_size(error))
        || matches!(error, ExportError::Origin { source, .. } if is_wrong(source))
}

/// Brings a layer that the store lacks from one place.
///
/// # Errors
/// The place's; [`ExportError::WrongBlob`] when it gives something else.
pub fn fetch_from(
    store: &Store,
    registry: &Client,
    diff_id: DiffId,
    source: &LayerSource,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let blob = &source.blob;
    if !store.has_blob(blob.digest) {
        let mut draft = store.draft()?;
        copy_to(registry, source, &mut draft, progress)?;
        let (got, _n_bytes) = store.publish(draft)?;
        if got != blob.digest {
            return Err(corrupt(source, got));
        }
    }
    let compression = blob.media_type.layer_compression().unwrap_or(LayerCompression::None);
    Ok(store.record_pulled(diff_id, blob, compression)?)
}

/// Reads a blob from the first place that has it, without keeping it; `read` is begun anew for each
/// place. `watch` is told the number of bytes as they come, and says whether more may. The bytes are
/// not checked here.
///
/// # Errors
/// [`StoreError::Missing`] when no place is known; the last place's error, or that of `read`.
pub fn read_elsewhere<T>(
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
            let mut sink = Watched { sink: writer, watch };
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

/// Tells of what passes, and lets nothing pass when it is told so.
struct Watched<'a, W> {
    sink: W,
    watch: &'a (dyn Fn(u64) -> bool + Sync),
}

impl<W: Write> Write for Watched<'_, W> {
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

/// Whether nobody wanted the rest.
fn is_hung_up(error: &ExportError) -> bool {
    matches!(error, ExportError::Origin { source, .. } if source.is_local())
        || matches!(error, ExportError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// Brings a blob from the first place that has it, for this process alone.
///
/// # Errors
/// As [`fetch_layer`].
pub fn fetch_for_now(
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

fn corrupt(source: &LayerSource, got: Digest) -> ExportError {
    let (place, want) = (source.place.clone(), source.blob.digest);
    ExportError::WrongBlob { place, want, got }
}

/// Writes the source's blob into `sink`. What a layout holds is not checked here.
fn copy_to(
    registry: &Client,
    source: &LayerSource,
    sink: &mut dyn Write,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let place = || source.place.clone();
    match Place::of(source) {
        Some(Place::Registry(name)) => registry
            .pull_blob(&name, &source.blob, sink, progress)
            .map_err(|source| ExportError::Origin { place: place(), source }),
        Some(Place::Layout(directory)) => {
            let blob = LayoutReader::new(directory).open_blob(&source.blob)?;
            // A file that grows meanwhile does not grow here, and has another digest.
            io::copy(&mut blob.take(source.blob.size), sink)
                .context("copy a blob of", directory)?;
            Ok(())
        }
        Some(Place::Bucket(place)) if let Some(directory) = registry.known_directory(place) => {
            registry
                .pull_object(&directory, &source.blob, sink, progress)
                .map_err(|source| ExportError::Origin { place: directory.to_string(), source })
        }
        Some(Place::Bucket(_)) | None => {
            Err(StoreError::Missing { what: format!("a layer at {}", source.place) }.into())
        }
    }
}

/// A blob that flows from one registry into another, through memory only.
pub(super) struct Passage<'a> {
    registry: &'a Client,
    source: &'a LayerSource,
    /// What went wrong at the source's end: the other end sees only that the stream stops.
    failure: Mutex<Option<ExportError>>,
}

impl<'a> Passage<'a> {
    pub(super) const fn new(registry: &'a Client, source: &'a LayerSource) -> Self {
        Self { registry, source, failure: Mutex::new(None) }
    }

    /// Starts the flow; a new one from the start each time.
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

    /// The source's own error, if it had one that is not just the other end's hanging up.
    pub(super) fn failure(self) -> Option<ExportError> {
        let failure = self.failure.into_inner().ok().flatten();
        failure.filter(|error| !is_hung_up(error))
    }
}

/// The first of `sources` that holds `blob`.
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
    fn places_are_told_apart() {
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
