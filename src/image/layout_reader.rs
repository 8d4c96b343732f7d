//! Reads images from an untrusted OCI layout.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::limits::{MAX_DOCUMENT_BYTES, MAX_INDEX_DEPTH};
use crate::oci::{Descriptor, Digest, Index, ManifestError, ManifestOrIndex, Platform};
use crate::pathio::PathError;

use super::blob_file::{open_regular, read_regular};

/// The tag (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name: an annotation of containerd and docker.
const FULL_NAME: &str = "io.containerd.image.name";

/// An OCI layout on the disk (image-spec, image-layout.md).
#[derive(Debug)]
pub struct LayoutReader {
    directory: PathBuf,
}

/// The reason why an image could not be read from a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A manifest or index is invalid.
    #[error("{} has an invalid manifest or index", directory.display())]
    Document {
        /// The directory of the layout.
        directory: PathBuf,
        /// The error that caused this one.
        source: ManifestError,
    },
    /// The layout has no such image.
    #[error("{} has no image {wanted}; {has}", directory.display())]
    NotFound {
        /// The directory of the layout.
        directory: PathBuf,
        /// The requested tag, digest or platform.
        wanted: String,
        /// The available tags, or the reason why nothing matches.
        has: String,
    },
    /// A blob does not have the size in its descriptor.
    #[error("the blob {digest} in {} has {got} bytes, not the {want} of its descriptor", directory.display())]
    WrongSize {
        /// The directory of the layout.
        directory: PathBuf,
        /// The digest of the blob.
        digest: Digest,
        /// Size in bytes according to the descriptor.
        want: u64,
        /// Size of the file in bytes.
        got: u64,
    },
    /// A blob does not match the digest in its name.
    #[error("the blob {want} in {} is damaged: its digest is {got}", directory.display())]
    Corrupt {
        /// The directory of the layout.
        directory: PathBuf,
        /// The digest in its name.
        want: Digest,
        /// The digest of its content.
        got: Digest,
    },
}

type Result<T> = std::result::Result<T, LayoutError>;

impl LayoutReader {
    /// Creates a reader of the layout in `directory`. Nothing is read yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Returns digest and bytes of the manifest for `platform`: the image with this digest, or else
    /// with this tag, or else tagged `latest`, or else the first one.
    ///
    /// # Errors
    /// [`LayoutError::NotFound`]; [`LayoutError::Document`]; [`LayoutError::Corrupt`];
    /// [`LayoutError::Io`].
    pub fn manifest(
        &self,
        tag: Option<&str>,
        digest: Option<Digest>,
        platform: &Platform,
    ) -> Result<(Digest, Vec<u8>)> {
        let top = read_regular(&self.directory, "index.json", MAX_DOCUMENT_BYTES)?;
        let ManifestOrIndex::Index(top) = self.parse(&top)? else {
            return Err(
                self.not_found("index".to_owned(), "its index.json is not an index".to_owned())
            );
        };
        let mut at = match digest {
            Some(digest) => digest,
            None => self.find_tagged(&top, tag, platform)?,
        };
        for _ in 0..MAX_INDEX_DEPTH {
            let bytes = self.document(at)?;
            match self.parse(&bytes)? {
                ManifestOrIndex::Manifest(_) => return Ok((at, bytes)),
                ManifestOrIndex::Index(index) => {
                    at = index.select(platform).map(|entry| entry.digest).ok_or_else(|| {
                        let has = "its index has other platforms".to_owned();
                        self.not_found(format!("for {platform}"), has)
                    })?;
                }
            }
        }
        Err(self.not_found(at.to_string(), "its indexes are nested too deep".to_owned()))
    }

    /// Returns the entries of its index.
    ///
    /// # Errors
    /// [`LayoutError::Document`]; [`LayoutError::Io`].
    pub(super) fn entries(&self) -> Result<Vec<Descriptor>> {
        let top = read_regular(&self.directory, "index.json", MAX_DOCUMENT_BYTES)?;
        match self.parse(&top)? {
            ManifestOrIndex::Index(index) => Ok(index.manifests),
            ManifestOrIndex::Manifest(_) => Ok(Vec::new()),
        }
    }

    fn find_tagged(&self, top: &Index, tag: Option<&str>, platform: &Platform) -> Result<Digest> {
        let wanted = tag.unwrap_or("latest");
        let mut found: Vec<&Descriptor> =
            top.manifests.iter().filter(|entry| has_tag(entry, wanted)).collect();
        if found.is_empty() && tag.is_none() {
            found.extend(&top.manifests);
        }
        if let [_, _, ..] = found.as_slice() {
            let several = Index {
                manifests: found.iter().map(|entry| (*entry).clone()).collect(),
                ..top.clone()
            };
            if let Some(entry) = several.select(platform) {
                return Ok(entry.digest);
            }
        }
        found.first().map(|entry| entry.digest).ok_or_else(|| {
            let names: Vec<&str> = top.manifests.iter().filter_map(tag_of).collect();
            let has = match names.as_slice() {
                [] => "its images have no tags".to_owned(),
                names => format!("its tags are {}", names.join(", ")),
            };
            self.not_found(format!("with the tag {wanted}"), has)
        })
    }

    /// Reads a small blob and verifies it.
    ///
    /// # Errors
    /// [`LayoutError::NotFound`]; [`LayoutError::Document`]; [`LayoutError::Corrupt`];
    /// [`LayoutError::Io`].
    pub fn document(&self, digest: Digest) -> Result<Vec<u8>> {
        let bytes = read_regular(&self.directory, &blob_name(digest), MAX_DOCUMENT_BYTES)?;
        match Digest::of(&bytes) {
            got if got == digest => Ok(bytes),
            got => Err(self.corrupt(digest, got)),
        }
    }

    /// Opens a blob and checks its size. The caller has to verify its digest.
    ///
    /// # Errors
    /// [`LayoutError::WrongSize`]; [`LayoutError::Io`], also for anything but a regular file.
    pub fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let (file, got) = open_regular(&self.directory, &blob_name(blob.digest))?;
        if got == blob.size {
            return Ok(file);
        }
        let (directory, digest, want) = (self.directory.clone(), blob.digest, blob.size);
        Err(LayoutError::WrongSize { directory, digest, want, got })
    }

    /// Makes the error for a blob with another digest.
    fn corrupt(&self, want: Digest, got: Digest) -> LayoutError {
        LayoutError::Corrupt { directory: self.directory.clone(), want, got }
    }

    fn parse(&self, bytes: &[u8]) -> Result<ManifestOrIndex> {
        let directory = || self.directory.clone();
        ManifestOrIndex::parse(bytes)
            .map_err(|source| LayoutError::Document { directory: directory(), source })
    }

    fn not_found(&self, wanted: String, has: String) -> LayoutError {
        LayoutError::NotFound { directory: self.directory.clone(), wanted, has }
    }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn tag_of(entry: &Descriptor) -> Option<&str> {
    let annotation = |name| entry.annotations.get(name).map(String::as_str);
    annotation(REF_NAME).or_else(|| annotation(FULL_NAME))
}

/// Returns whether the entry has the tag, alone or at the end of a full name.
fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    [REF_NAME, FULL_NAME]
        .iter()
        .filter_map(|name| entry.annotations.get(*name))
        .any(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, found)| found == tag))
}
