//! Archives: reading ends, gives as much as an entry promises, and its memory is bounded.

use std::io::{self, Cursor, Read};

use rbuild::archive::{self, ListingWriter, PackedListing, TarReader};
use rbuild::oci::{DiffId, Digest};
use rbuild::tree::{LayerEntries as _, Tree};

/// How much of a stream is looked at: holes and good compression make any length of a few bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Number of bytes by which ADD recognises a tar.
const SNIFF_BYTES: u64 = 512;

/// Reads `bytes` as a compressed or plain tar, and as a stored listing.
pub(crate) fn probe(bytes: &[u8]) {
    listing(bytes);
    let (compression, mut decoded) =
        archive::decoder(Box::new(Cursor::new(bytes.to_vec())), &archive::ArchiveBounds::default())
            .expect("memory is readable");
    assert_eq!(compression, archive::detect(bytes));
    let mut first = Vec::new();
    if decoded.by_ref().take(SNIFF_BYTES).read_to_end(&mut first).is_err() {
        return;
    }
    // What is not a tar for ADD may be a layer for a registry.
    let _ = archive::is_tar(&first);
    let stream = Cursor::new(first).chain(decoded).take(MAX_BYTES);
    drop(read(&mut TarReader::new(stream)));
}

fn read<R: Read>(tar: &mut TarReader<R>) -> Result<(), archive::ArchiveError> {
    let mut n_bytes = 0;
    while let Some(mut entry) = tar.next()? {
        assert!(entry.path.len() <= 16 * 4096);
        let size = entry.size;
        if n_bytes + size.min(MAX_BYTES) >= MAX_BYTES {
            // Some of a file that may be all hole; the rest is skipped.
            io::copy(&mut entry.by_ref().take(4096), &mut io::sink()).map_err(read_error)?;
            continue;
        }
        let n_read = io::copy(&mut entry, &mut io::sink()).map_err(read_error)?;
        assert_eq!(n_read, size, "the content is as long as the entry says");
        n_bytes += size;
    }
    tar.drain().map(drop)
}

fn read_error(error: io::Error) -> archive::ArchiveError {
    archive::ArchiveError::Read(error)
}

fn listing(bytes: &[u8]) {
    let layer = DiffId::new(Digest::of(b""));
    let Ok(listing) = PackedListing::new(bytes.to_vec(), layer) else { return };
    let entries: Vec<_> = listing.stream().collect();
    let mut again = ListingWriter::new(Vec::new(), entries.len());
    for entry in &entries {
        again.entry(entry, archive::tar_at(entry)).expect("memory takes everything");
    }
    let again = again.finish().expect("memory takes everything");
    let again = PackedListing::new(again, layer).expect("what was written can be read");
    assert_eq!(again.stream().collect::<Vec<_>>(), entries);
    // The claim of a cache, whose entries may contradict each other.
    if PackedListing::from_untrusted(bytes.to_vec(), layer).is_ok() {
        let mut tree = Tree::default();
        tree.apply(&listing);
        for entry in &entries {
            drop(tree.resolve(entry.path.as_bytes()));
        }
    }
}
