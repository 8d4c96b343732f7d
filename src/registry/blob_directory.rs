//! Directories of blobs outside of registries: in buckets, and in the cache of GitHub Actions.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};

use super::pull::as_u64;
use super::{Client, RegistryError};
use crate::oci::{Descriptor, Digest};

/// Opens the file of a blob, once for each request.
pub type OpenFile<'a> = &'a (dyn Fn() -> io::Result<File> + Sync);

/// Size and age of a stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length in bytes.
    pub n_bytes: u64,
    /// Time of the last write, seconds since 1970, if the server sent it.
    pub modified_s: Option<i64>,
}

/// A directory that has blobs under their digests. Its `Display` text is for messages.
pub trait BlobDirectory: fmt::Debug + fmt::Display + Send + Sync {
    /// Returns the name of the directory in the store's index. It contains `://`, so that it cannot be
    /// mistaken for an image name or a path.
    fn location(&self) -> String;

    /// Returns size and age of a blob, or `None` if it is not there.
    ///
    /// # Errors
    /// The server's error, except [`RegistryError::NotFound`].
    fn find_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
    ) -> Result<Option<ObjectInfo>, RegistryError>;

    /// Renews the modification time of a blob, so that rules of the server do not expire it.
    ///
    /// # Errors
    /// The server's error.
    fn renew_blob(&self, client: &Client, digest: Digest) -> Result<(), RegistryError>;

    /// Uploads a blob. `open` opens its file, again for each attempt.
    ///
    /// # Errors
    /// [`RegistryError::Local`] if the file cannot be read; otherwise the server's error.
    fn push_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        open: OpenFile<'_>,
    ) -> Result<(), RegistryError>;

    /// Streams a blob into `sink`. Resumes after a broken connection. After an error, discard what was
    /// written.
    ///
    /// # Errors
    /// [`RegistryError::WrongDigest`] or [`RegistryError::WrongSize`] if the content is not the blob;
    /// [`RegistryError::Local`] if `sink` fails; otherwise the server's error.
    fn pull_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError>;

    /// Downloads a blob, possibly several parts at once. `write_at` gets each byte once, at its offset.
    /// The content is not verified.
    ///
    /// # Errors
    /// Those of [`Self::pull_blob`], except that the digest is not compared.
    fn pull_blob_in_parts(
        &self,
        client: &Client,
        blob: &Descriptor,
        write_at: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        self.pull_blob(client, blob, &mut InOrder { write_at, at: 0 }, progress)
    }
}

/// Writes what arrives in order.
struct InOrder<'a> {
    write_at: &'a (dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
    at: u64,
}

impl Write for InOrder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.write_at)(self.at, bytes)?;
        self.at = self.at.saturating_add(as_u64(bytes.len()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
