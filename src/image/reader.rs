//! Reads an image out of an OCI layout that somebody else wrote.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::limits::{MAX_DOCUMENT_BYTES, MAX_INDEX_DEPTH};
use crate::oci::{Descriptor, Digest, Index, ManifestError, Parsed, Platform};
use crate::pathio::PathError;

use super::blob_file::{open_regular, read_regular};

/// The tag (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and docker write it.
const FULL_NAME: &str = "io.containerd.image.name";

/// An OCI layout on the disk (image-spec, image-layout.md).
#[derive(Debug)]
pub struct LayoutReader {
    directory: PathBuf,
}

/// Why a layout does not give an image.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A document is no good.
    #[error("{} has a bad manifest or index", directory.display())]
    Document {
        /// The layout.
        directory: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// There is no such image.
    #[error("{} has no image {wanted}; {has}", directory.display())]
    NotFound {
        /// The layout.
        directory: PathBuf,
        /// A tag, digest or platform.
        wanted: String,
        /// What is there.
        has: String,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("the blob {digest} in {} has {got} bytes, not the {want} of its descriptor", directory.display())]
    WrongSize {
        /// The layout.
        directory: PathBuf,
        /// The blob.
        digest: Digest,
        /// Bytes that the descriptor says.
        want: u64,
        /// Bytes that it has.
        got: u64,
    },
    /// A blob is not what its name says.
    #[error("the blob {want} in {} holds {got}", directory.display())]
    Corrupt {
        /// The layout.
        directory: PathBuf,
        /// Its name.
        want: Digest,
        /// The kind of file.
        got: Digest,
    },
}

type Result<T> = std::result::Result<T, LayoutError>;

impl LayoutReader {
    /// The layout in `directory`; nothing is read yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The manifest of the image for `platform`: the one with this digest, or else with this tag,
    /// or else the one called `latest`, or else the first.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn manifest(
        &self,
        tag: Option<&str>,
        digest: Option<Digest>,
        platform: &Platform,
    ) -> Result<(Digest, Vec<u8>)> {
        let top = read_regular(&self.directory, "index.json", MAX_DOCUMENT_BYTES)?;
        let Parsed::Index(top) = self.parse(&top)? else {
            return Err(self.not_found("index".to_owned(), "its index.json is none".to_owned()));
        };
        let mut at = match digest {
            Some(digest) => digest,
            None => self.named(&top, tag, platform)?,
        };
        for _ in 0..MAX_INDEX_DEPTH {
            let bytes = self.document(at)?;
            match self.parse(&bytes)? {
                Parsed::Manifest(_) => return Ok((at, bytes)),
                Parsed::Index(index) => {
                    at = index.select(platform).map(|entry| entry.digest).ok_or_else(|| {
                        let has = "its index has others".to_owned();
                        self.not_found(format!("for {platform}"), has)
                    })?;
                }
            }
        }
        Err(self.not_found(at.to_string(), "its indexes name each other".to_owned()))
    }

    fn named(&self, top: &Index, tag: Option<&str>, platform: &Platform) -> Result<Digest> {
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

    /// A small blob, checked.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn document(&self, digest: Digest) -> Result<Vec<u8>> {
        let bytes = read_regular(&self.directory, &blob_name(digest), MAX_DOCUMENT_BYTES)?;
        match Digest::of(&bytes) {
            got if got == digest => Ok(bytes),
            got => Err(self.corrupt(digest, got)),
        }
    }

    /// Opens a blob of the size that its descriptor says. Its digest is for the caller to check.
    ///
    /// # Errors
    /// [`LayoutError::WrongSize`]; the kernel's, with the path, also for what is not a regular
    /// file.
    pub fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let (file, got) = open_regular(&self.directory, &blob_name(blob.digest))?;
        if got == blob.size {
            return Ok(file);
        }
        let (directory, digest, want) = (self.directory.clone(), blob.digest, blob.size);
        Err(LayoutError::WrongSize { directory, digest, want, got })
    }

    /// The error of a blob that holds something else.
    fn corrupt(&self, want: Digest, got: Digest) -> LayoutError {
        LayoutError::Corrupt { directory: self.directory.clone(), want, got }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Parsed> {
        let directory = || self.directory.clone();
        Parsed::parse(bytes)
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

/// The tag may stand alone, or at the end of a full name.
fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    [REF_NAME, FULL_NAME]
        .iter()
        .filter_map(|name| entry.annotations.get(*name))
        .any(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, found)| found == tag))
}
