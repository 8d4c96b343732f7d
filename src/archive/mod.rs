//! Deterministic tar, compression and digesting over streams.
//!
//! Pure over `Read` and `Write`: it opens no file. What a layer's tar looks like is decided in
//! `writer` and nowhere else; what may come out of a foreign archive is decided in `reader`.

mod bounds;
mod compress;
mod content;
mod digesting;
mod entry;
mod error;
mod extra;
mod fields;
mod gzip;
mod header;
mod layer;
mod listing;
mod pack;
mod pax;
mod read_ahead;
mod reader;
mod sparse;
mod writer;

pub use bounds::{ArchiveBounds, TooLarge};
pub use compress::{Compression, decoder, detect};
pub use digesting::{DigestWriter, Mismatch, Pipelined, PipelinedHasher, VerifyReader};
pub use entry::{ArchiveEntry, EntryKind, Piece};
pub use error::{ArchiveError, ListingError};
pub use header::is_tar;
pub(crate) use layer::LinkMetas;
pub use layer::{HashingReader, OpenFile, write_listing, write_listing_checked};
pub use listing::{ListingWriter, PackedListing, tar_at};
pub use pack::{PackWriter, Packing, packer};
pub use read_ahead::ReadAhead;
pub use reader::TarReader;
pub use writer::TarWriter;

/// What a whiteout's name begins with (image-spec, layer.md, "Whiteouts").
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that makes its directory opaque (image-spec, layer.md, "Opaque Whiteout").
pub const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// What AUFS's own bookkeeping begins with; nothing of it is for us but [`OPAQUE_NAME`].
pub const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";

/// Stands for the offset of a file whose bytes are not in the tar as one piece (sparse files).
pub const NOT_IN_ONE_PIECE: u64 = u64::MAX;

#[cfg(test)]
mod tests;
