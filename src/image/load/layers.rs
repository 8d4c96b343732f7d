//! Untrusted layers: detects their compression and verifies their DiffIDs.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;

use crate::archive::{self, Compression, DigestWriter};
use crate::oci::{Descriptor, DiffId, Digest, LayerCompression};
use crate::pathio::Context as _;
use crate::pool;
use crate::store::{Store, StoreError};

use super::Result;
use super::archive::ImageArchive;

/// Number of bytes that identify a compression format.
const MAGIC_BYTES: u64 = 6;

/// A layer's blob, and its DiffID according to the config.
pub(super) struct UntrustedLayer {
    pub(super) diff_id: DiffId,
    pub(super) blob: Descriptor,
}

/// Detects the compression of a layer's file and its length. A format without a media type is
/// converted to a plain tar.
pub(super) fn detect_compression(
    store: &Store,
    contents: &ImageArchive,
    name: &str,
    blob: Digest,
) -> Result<(Digest, LayerCompression, u64)> {
    let path = Path::new(name);
    let mut file = store.open_blob(blob)?;
    let n_bytes = file.metadata().context("examine", path)?.len();
    let mut first = Vec::new();
    (&file).take(MAGIC_BYTES).read_to_end(&mut first).context("read", path)?;
    let compression = match archive::detect(&first) {
        Compression::None => LayerCompression::None,
        Compression::Gzip => LayerCompression::Gzip,
        Compression::Zstd => LayerCompression::Zstd,
        Compression::Bzip2 | Compression::Xz => {
            file.rewind().context("read", path)?;
            let (_found, tar) = archive::decoder(Box::new(file), &store.archive_bounds())
                .context("unpack", path)?;
            let mut draft = store.draft()?;
            io::copy(&mut { tar }, &mut draft)
                .map_err(|error| contents.bad(name, error.to_string()))?;
            let (plain, n_bytes) = store.publish(draft)?;
            return Ok((plain, LayerCompression::None, n_bytes));
        }
    };
    Ok((blob, compression, n_bytes))
}

/// Verifies the DiffIDs of layers and records that the store has them.
pub(super) fn check(store: &Store, layers: &[UntrustedLayer], jobs: NonZeroUsize) -> Result<()> {
    let checked = pool::map_in_order(layers, jobs, |layer| check_one(store, layer));
    checked.into_iter().collect()
}

fn check_one(store: &Store, layer: &UntrustedLayer) -> Result<()> {
    let UntrustedLayer { diff_id, blob } = layer;
    let known = store.packed(*diff_id)?;
    if known.iter().any(|packed| packed.blob == blob.digest) {
        return Ok(());
    }
    let compression = blob.media_type.layer_compression().unwrap_or(LayerCompression::None);
    // The digest of a plain tar was verified when it was read.
    let got =
        if compression == LayerCompression::None { blob.digest } else { unpacked(store, blob)? };
    if DiffId::new(got) != *diff_id {
        let (want, got) = (*diff_id, DiffId::new(got));
        return Err(StoreError::WrongDiffId { want, got }.into());
    }
    Ok(store.record_pulled(*diff_id, blob, compression)?)
}

/// Returns the digest of the uncompressed blob.
fn unpacked(store: &Store, blob: &Descriptor) -> Result<Digest> {
    let name = blob.digest.to_string();
    let path = Path::new(&name);
    let file = store.open_blob(blob.digest)?;
    let (_found, mut tar) =
        archive::decoder(Box::new(file), &store.archive_bounds()).context("unpack", path)?;
    let mut hashed = DigestWriter::new(io::sink());
    io::copy(&mut tar, &mut hashed).context("unpack", path)?;
    hashed.flush().context("unpack", path)?;
    let (_sink, digest, _n_bytes) = hashed.finish();
    Ok(digest)
}
