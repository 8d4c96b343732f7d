//! Compression of a new layer in the pass that hashes it, so that each file is read once.

use std::fmt;
use std::io::{self, Write as _};
use std::mem;
use std::num::NonZeroUsize;

use crate::archive::{self, PackWriter, Packing, Pipelined};
use crate::oci::DiffId;
use crate::pathio::Context as _;

use super::arriving_blob::GrowingBlob;
use super::{ArrivingReader, PackedRecord, Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Gets the tar of a new layer while it is hashed. It cannot fail the layer.
pub trait TarObserver {
    /// Gets the next bytes of the tar.
    fn tar_bytes(&mut self, bytes: &[u8]);

    /// Gets the DiffID, before other threads and processes can find the layer.
    fn hashed(&mut self, diff_id: DiffId);
}

/// A packer on a thread of its own: the compressed bytes are hashed and written there.
type BlobPacker = Pipelined<Box<dyn PackWriter<GrowingBlob> + Send>>;

/// Compresses a tar into a blob that can be read meanwhile. Without [`Store::finish_packing`] the blob is
/// removed.
pub struct TarPacker {
    packing: Packing,
    /// The first error, if there was one.
    packer: io::Result<BlobPacker>,
}

impl fmt::Debug for TarPacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TarPacker({:?})", self.packing)
    }
}

impl TarPacker {
    /// Compresses more bytes. After an error it ignores them.
    pub fn add(&mut self, bytes: &[u8]) {
        if let Ok(packer) = &mut self.packer
            && let Err(error) = packer.write_all(bytes)
        {
            self.packer = Err(error);
        }
    }

    /// Takes the packer out.
    fn take(&mut self) -> io::Result<BlobPacker> {
        mem::replace(&mut self.packer, Err(io::Error::other("it has ended")))
    }
}

impl Drop for TarPacker {
    /// Waits for the thread, so that the blob is gone afterwards.
    fn drop(&mut self) {
        drop(self.take().and_then(Pipelined::finish));
    }
}

impl Store {
    /// Returns a packer for the tar of a new layer, on up to `jobs` threads, and a reader of the compressed
    /// bytes. The reader waits for bytes, the packer never for the reader.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file of the blob cannot be created, or there is not enough memory.
    pub fn tar_packer(
        &self,
        packing: Packing,
        jobs: NonZeroUsize,
    ) -> Result<(TarPacker, ArrivingReader)> {
        let blob = self.growing_blob()?;
        let reader = blob.reader();
        let packer =
            archive::packer(blob, packing, jobs).context("pack a layer of", self.root())?;
        Ok((TarPacker { packing, packer: Ok(Pipelined::new(packer)) }, reader))
    }

    /// Ends the blob of a layer whose whole tar was compressed, publishes and records it. Its bytes are those
    /// of [`Store::pack`].
    ///
    /// # Errors
    /// The first error of the packer; [`StoreError::Io`], [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn finish_packing(&self, diff_id: DiffId, mut packer: TarPacker) -> Result<PackedRecord> {
        let packed = packer.take().and_then(Pipelined::finish).and_then(|packer| packer.finish());
        let blob = packed.context("pack a layer of", self.root())?;
        self.publish_packed(diff_id, packer.packing, blob.complete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packer_ignores_bytes_after_an_error() {
        struct FullDisk;
        impl io::Write for FullDisk {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl PackWriter<GrowingBlob> for FullDisk {
            fn finish(self: Box<Self>) -> io::Result<GrowingBlob> {
                Err(io::ErrorKind::Other.into())
            }
        }
        let full: Box<dyn PackWriter<GrowingBlob> + Send> = Box::new(FullDisk);
        let mut packer = TarPacker { packing: Packing::GZIP, packer: Ok(Pipelined::new(full)) };
        for _ in 0..50 {
            packer.add(&[7; 100_000]);
        }
        assert_eq!(packer.take().err().unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
