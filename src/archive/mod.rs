//! Deterministic tar, compression and digesting over streams.
//!
//! Pure over `Read` and `Write`: opens no file. `writer` alone decides the bytes of a layer's tar;
//! `reader` alone decides what is accepted from an untrusted archive.

mod bounds;
mod compress;
mod content;
mod digesting;
mod entry;
mod error;
mod fields;
mod gzip;
mod header;
mod layer;
mod listing;
mod overrides;
mod pack;
mod pax;
mod read_ahead;
mod reader;
mod sparse;
mod writer;

pub use bounds::{ArchiveBounds, TooLarge};
pub use compress::{Compression, decoder, detect};
pub use digesting::{DigestWriter, Mismatch, Pipelined, PipelinedHasher, VerifyReader};
pub use entry::{ArchiveEntry, ContentRun, EntryKind};
pub use error::{ArchiveError, ListingError};
pub use header::is_tar;
pub(crate) use layer::LinkMetas;
pub use layer::{HashingReader, OpenFile, write_listing, write_listing_checked};
pub use listing::{ListingWriter, PackedListing, tar_at};
pub use pack::{GZIP_VERSION, PackWriter, Packing, packer};
pub use read_ahead::ReadAhead;
pub use reader::TarReader;
pub use writer::TarWriter;

/// The prefix of a whiteout's name (image-spec, layer.md, "Whiteouts").
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name of the file that makes its directory opaque (image-spec, layer.md, "Opaque Whiteout").
pub const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// The prefix of AUFS metadata files. All are ignored but [`OPAQUE_NAME`].
pub const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";

/// Stands for the offset of a file whose bytes are not contiguous in the tar (sparse files).
pub const NOT_IN_ONE_PIECE: u64 = u64::MAX;

#[cfg(test)]
mod tests;
