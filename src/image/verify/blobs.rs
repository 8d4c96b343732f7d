//! The files of a layout, in a directory or at offsets of a tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Digest, Hasher};
use crate::pathio::{self, Context as _};

use super::{Result, VerifyError};

/// The files of a layout by their paths in it.
pub(super) enum Blobs {
    Directory(PathBuf),
    /// Offset and length of each file.
    Archive(PathBuf, BTreeMap<String, (u64, u64)>),
}

impl Blobs {
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut archive = tar::Archive::new(pathio::open(path)?);
        let mut files = BTreeMap::new();
        for entry in archive.entries_with_seek().context("read", path)? {
            let entry = entry.context("read", path)?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let name = name.trim_start_matches("./").to_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Self::Archive(path.to_owned(), files))
    }

    pub(super) fn has(&self, file: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(file).is_file(),
            Self::Archive(_, files) => files.contains_key(file),
        }
    }

    /// Opens a file of the layout. The reader ends with the file.
    pub(super) fn open_file(&self, file: &str) -> Result<Box<dyn Read>> {
        let missing = || VerifyError::Missing { file: file.to_owned() };
        match self {
            Self::Directory(directory) => {
                let path = directory.join(file);
                let opened: File = match pathio::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                    other => other?,
                };
                Ok(Box::new(opened))
            }
            Self::Archive(path, files) => {
                let (at, n_bytes) = *files.get(file).ok_or_else(missing)?;
                let mut opened = pathio::open(path)?;
                opened.seek(SeekFrom::Start(at)).context("read", path)?;
                Ok(Box::new(opened.take(n_bytes)))
            }
        }
    }

    /// Reads a document of limited size.
    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut source = self.open_file(file)?.take(MAX_DOCUMENT_BYTES + 1);
        let n_bytes = source.read_to_end(&mut bytes).map_err(|error| unreadable(file, error))?;
        if u64::try_from(n_bytes).unwrap_or(u64::MAX) > MAX_DOCUMENT_BYTES {
            let max_bytes = MAX_DOCUMENT_BYTES;
            return Err(VerifyError::TooLarge { file: file.to_owned(), max_bytes });
        }
        Ok(bytes)
    }

    /// Checks length and digest of a blob, and returns its path in the layout.
    pub(super) fn checked(&self, blob: &Descriptor) -> Result<String> {
        let want = digest_of(blob)?;
        let file = format!("blobs/sha256/{}", want.hex());
        let mut hasher = Hasher::new();
        let mut source = self.open_file(&file)?;
        io::copy(&mut source, &mut hasher).map_err(|error| unreadable(&file, error))?;
        if hasher.n_bytes() != blob.size() {
            return Err(VerifyError::Size { file, want: blob.size(), got: hasher.n_bytes() });
        }
        match hasher.finish() {
            got if got == want => Ok(file),
            got => Err(VerifyError::Digest { file, got }),
        }
    }
}

pub(super) fn unreadable(file: &str, source: io::Error) -> VerifyError {
    VerifyError::Read { file: file.to_owned(), source }
}

pub(super) fn digest_of(blob: &Descriptor) -> Result<Digest> {
    let text = blob.digest().to_string();
    text.parse().map_err(|_bad: crate::oci::DigestError| VerifyError::BadDigest { digest: text })
}
