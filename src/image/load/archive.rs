//! The content of an untrusted archive or directory: tables of contents, and files by name.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::{self, ArchiveBounds, ArchiveError, EntryKind, TarReader};
use crate::image::ExportError;
use crate::image::blob_file::{open_regular, read_regular};
use crate::limits::{
    MAX_DOCUMENT_BYTES, MAX_FILES_OF_IMAGES, MAX_IMAGES_BYTES, MAX_LINKS_BETWEEN_BLOBS,
};
use crate::oci::{Descriptor, Digest};
use crate::store::Store;

use super::{LoadError, Result};

pub(super) const INDEX: &str = "index.json";
pub(super) const MANIFEST: &str = "manifest.json";
const BLOBS: &str = "blobs/sha256/";

/// The files of an archive or directory that is being loaded.
pub(super) struct ImageArchive {
    pub(super) shown: String,
    /// The bytes of `index.json` (image-spec, image-layout.md).
    pub(super) index: Option<Vec<u8>>,
    /// The bytes of docker's `manifest.json` (<https://github.com/moby/docker-image-spec>).
    pub(super) manifest: Option<Vec<u8>>,
    /// Files that were imported as blobs of the store, by their names in the archive.
    files: BTreeMap<String, Digest>,
    /// Symbolic and hard links: targets by name.
    links: BTreeMap<String, String>,
    /// The directory that blobs are imported from on demand.
    directory: Option<PathBuf>,
}

impl ImageArchive {
    /// Reads a whole archive and imports its files as blobs.
    pub(super) fn of_archive(
        store: &Store,
        stream: Box<dyn Read + Send>,
        shown: &str,
    ) -> Result<Self> {
        let mut contents = Self::new(shown);
        let failed = |source| LoadError::Archive { shown: shown.to_owned(), source };
        let bounds = ArchiveBounds {
            max_bytes: MAX_IMAGES_BYTES.max(store.archive_bounds().max_bytes),
            ..store.archive_bounds()
        };
        let (_found, tar) =
            archive::decoder(stream, &bounds).map_err(|error| failed(ArchiveError::Read(error)))?;
        let mut tar = TarReader::bounded(tar, bounds);
        while let Some(mut entry) = tar.next().map_err(failed)? {
            let Some(name) = plain_name(&entry.path) else { continue };
            match &entry.kind {
                EntryKind::File => contents.add_file(store, name, &mut entry)?,
                EntryKind::Symlink(target) => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let joined = format!("{parent}/{}", String::from_utf8_lossy(target));
                    contents.links.extend(resolved(&joined).map(|target| (name, target)));
                }
                EntryKind::HardLink(target) => {
                    contents.links.extend(plain_name(target).map(|target| (name, target)));
                }
                EntryKind::Directory
                | EntryKind::CharDevice(_)
                | EntryKind::BlockDevice(_)
                | EntryKind::Fifo => {}
            }
            if contents.files.len() + contents.links.len() > MAX_FILES_OF_IMAGES {
                return Err(
                    contents.bad("the archive", format!("it has over {MAX_FILES_OF_IMAGES} files"))
                );
            }
        }
        Ok(contents)
    }

    /// Opens a directory. Its blobs are imported on demand.
    pub(super) fn of_directory(directory: &Path, shown: &str) -> Result<Self> {
        let index = match read_regular(directory, INDEX, MAX_DOCUMENT_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            bytes => Some(bytes?),
        };
        Ok(Self { index, directory: Some(directory.to_owned()), ..Self::new(shown) })
    }

    fn new(shown: &str) -> Self {
        Self {
            shown: shown.to_owned(),
            index: None,
            manifest: None,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            directory: None,
        }
    }

    fn add_file(&mut self, store: &Store, name: String, content: &mut dyn Read) -> Result<()> {
        match name.as_str() {
            INDEX => self.index = Some(self.document(&name, content)?),
            MANIFEST => self.manifest = Some(self.document(&name, content)?),
            // Files of docker's oldest format, whose content the manifest repeats.
            "oci-layout" | "repositories" | "VERSION" => {}
            old if old.ends_with("/VERSION") || old.ends_with("/json") => {}
            _ => {
                let digest = self.add_blob(store, &name, content)?;
                self.files.insert(name, digest);
            }
        }
        Ok(())
    }

    fn document(&self, name: &str, content: &mut dyn Read) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limited = content.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes);
        limited.map_err(|error| self.unreadable(error))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_DOCUMENT_BYTES {
            return Err(self.bad(name, format!("it is longer than {MAX_DOCUMENT_BYTES} bytes")));
        }
        Ok(bytes)
    }

    fn add_blob(&self, store: &Store, name: &str, content: &mut dyn Read) -> Result<Digest> {
        let want = blob_of(name);
        // An existing blob need not be read.
        if let Some(digest) = want.filter(|digest| store.has_blob(*digest)) {
            return Ok(digest);
        }
        let mut draft = store.draft()?;
        io::copy(content, &mut draft).map_err(|error| self.unreadable(error))?;
        let (got, _n_bytes) = store.publish(draft)?;
        if want.is_some_and(|want| want != got) {
            return Err(LoadError::WrongBlob {
                shown: self.shown.clone(),
                name: name.to_owned(),
                got,
            });
        }
        Ok(got)
    }

    /// Returns the blob that a file of the archive was imported as.
    pub(super) fn file(&self, name: &str, by: &str) -> Result<Digest> {
        let mut at = resolved(name).unwrap_or_default();
        for _ in 0..MAX_LINKS_BETWEEN_BLOBS {
            if let Some(digest) = self.files.get(&at) {
                return Ok(*digest);
            }
            match self.links.get(&at) {
                Some(next) => at.clone_from(next),
                None => break,
            }
        }
        Err(self.missing(name, by))
    }

    /// Imports a blob if the store lacks it. Returns false if the source lacks it, too.
    pub(super) fn import_blob(&self, store: &Store, blob: &Descriptor) -> Result<bool> {
        let (digest, size) = (blob.digest, blob.size);
        if store.has_blob(digest) {
            return Ok(true);
        }
        let Some(directory) = &self.directory else { return Ok(false) };
        let name = format!("{BLOBS}{}", digest.hex());
        let (file, n_bytes) = match open_regular(directory, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(self.bad(&name, "it is not a regular file".to_owned()));
            }
            opened => opened?,
        };
        if n_bytes != size {
            let reason = format!("it has {n_bytes} bytes, not the {size} of its descriptor");
            return Err(self.bad(&name, reason));
        }
        self.add_blob(store, &name, &mut file.take(n_bytes)).map(|_digest| true)
    }

    /// Reads a document that is a blob, which must exist.
    pub(super) fn blob(&self, store: &Store, entry: &Descriptor, by: &str) -> Result<Vec<u8>> {
        if !self.import_blob(store, entry)? {
            return Err(self.missing(&entry.digest.to_string(), by));
        }
        Ok(store.read_blob(entry.digest, MAX_DOCUMENT_BYTES)?)
    }

    pub(super) fn missing(&self, name: &str, by: &str) -> LoadError {
        let (shown, name, by) = (self.shown.clone(), name.to_owned(), by.to_owned());
        LoadError::Missing { shown, name, by }
    }

    pub(super) fn bad(&self, name: &str, reason: String) -> LoadError {
        LoadError::Document { shown: self.shown.clone(), name: name.to_owned(), reason }
    }

    pub(super) fn bad_image(&self, source: ExportError) -> LoadError {
        LoadError::Image { shown: self.shown.clone(), source: Box::new(source) }
    }

    fn unreadable(&self, error: io::Error) -> LoadError {
        LoadError::Archive { shown: self.shown.clone(), source: ArchiveError::Read(error) }
    }
}

/// Returns the digest in the name of an OCI layout's blob.
fn blob_of(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix(BLOBS)?).parse().ok()
}

/// Normalizes a name: no `./`, no doubled slashes. `None` if it leads out of the archive or is not
/// UTF-8.
fn plain_name(path: &[u8]) -> Option<String> {
    resolved(str::from_utf8(path).ok()?)
}

/// Normalizes a name and resolves `..`.
fn resolved(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_archive() {
        for (path, want) in [
            ("./blobs//sha256/x", Some("blobs/sha256/x")),
            ("a/../b", Some("b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("../etc/passwd", None),
            ("a/../../b", None),
            (".", None),
        ] {
            assert_eq!(resolved(path).as_deref(), want, "{path}");
        }
    }
}
