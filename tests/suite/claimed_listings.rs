//! Listings that another machine wrote into a cache.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use rbuild::archive::{ListingError, ListingWriter, NOT_IN_ONE_PIECE, PackedListing};
use rbuild::oci::{DiffId, Digest};
use rbuild::tree::{Entry, Tree};

use crate::support::image::{file, link, path, symlink};

/// Returns the encoding of a listing with these entries.
fn encoded(entries: &[Entry]) -> Vec<u8> {
    let mut writer = ListingWriter::new(Vec::new(), entries.len());
    for entry in entries {
        writer.entry(entry, NOT_IN_ONE_PIECE).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn listings_of_other_machines_may_contradict_themselves_but_not_be_too_deep() {
    let layer = DiffId::new(Digest::of(b"layer"));
    let entries = [
        file("a", "a file\n"),
        file("a/b", "below a file\n"),
        link("c", "missing"),
        link("d", "a"),
        symlink("e", "e"),
    ];
    let listing = PackedListing::from_untrusted(encoded(&entries), layer).unwrap();
    let mut tree = Tree::default();
    tree.apply(&listing);
    assert!(tree.dir(&path("a")).is_some() && tree.get(&path("c")).is_none());
    tree.resolve(b"e").unwrap_err();

    let deep = "d/".repeat(40_000) + "file";
    let bytes = encoded(&[file(&deep, "content\n")]);
    assert_eq!(PackedListing::from_untrusted(bytes, layer), Err(ListingError::TooLarge));
    let mut bytes = encoded(&entries);
    bytes[10] ^= 1;
    assert_eq!(PackedListing::from_untrusted(bytes, layer), Err(ListingError::WrongChecksum));
}
