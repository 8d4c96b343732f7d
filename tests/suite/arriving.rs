//! Layers that are unpacked while their blobs arrive.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests start threads, read files and panic on failure"
)]

use std::fs;
use std::thread;

use rbuild::archive::Packing;
use rbuild::oci::{DiffId, Digest};
use rbuild::store::{LayerOptions, Representation, StoreError};

use crate::support::image::{Fixture, dir, file};

const OPTIONS: LayerOptions = LayerOptions { clamp_s: None, created_s: 1_700_000_000 };

/// A layer, and its blob as another store has it.
fn layer() -> (DiffId, Vec<u8>) {
    let elsewhere = Fixture::new();
    let text = "some text that is neither long nor short\n".repeat(20_000);
    let entries = vec![dir("etc"), file("etc/text", &text), file("last", "the last file\n")];
    let made = elsewhere.layer(entries, Representation::Tar);
    let packing = Packing::Gzip { level: 6 };
    let packed = elsewhere.store.pack(made.diff_id, packing, std::num::NonZeroUsize::MIN).unwrap();
    let path = elsewhere.path("store/blobs/sha256").join(packed.blob.hex());
    (made.diff_id, fs::read(path).unwrap())
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

/// Unpacks a layer whose blob arrives in parts of 1000 bytes, those with odd numbers first.
fn unpack(fixture: &Fixture, diff_id: DiffId, blob: &[u8]) -> (Result<(), StoreError>, Digest) {
    let arriving = fixture.store.arriving_blob(as_u64(blob.len())).unwrap();
    thread::scope(|scope| {
        let reader = arriving.reader();
        let store = &fixture.store;
        let unpacking = scope.spawn(move || store.unpack_arriving(diff_id, reader, &OPTIONS));
        let hashing = scope.spawn(|| arriving.hash());
        let parts: Vec<&[u8]> = blob.chunks(1000).collect();
        for first in [1, 0] {
            for number in (first..parts.len()).step_by(2) {
                arriving.write_at(as_u64(number) * 1000, parts[number]).unwrap();
            }
        }
        arriving.end();
        (unpacking.join().unwrap(), hashing.join().unwrap().unwrap())
    })
}

#[test]
fn layer_is_unpacked_from_parts_in_any_order() {
    let (fixture, (diff_id, blob)) = (Fixture::new(), layer());
    let (unpacked, digest) = unpack(&fixture, diff_id, &blob);
    unpacked.unwrap();
    assert_eq!(digest, Digest::of(&blob));
    let directory = fixture.store.layer_directory(diff_id).unwrap();
    assert!(directory.is_some());
    let listing = fixture.store.listing(diff_id).unwrap();
    let paths: Vec<String> =
        rbuild::tree::LayerEntries::stream(&*listing).map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, ["/etc", "/etc/text", "/last"]);
}

#[test]
fn layer_of_other_content_is_not_published() {
    let (diff_id, blob) = layer();
    let mut flipped = blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let (_, other) = {
        let elsewhere = Fixture::new();
        let made = elsewhere.layer(vec![file("other", "content\n")], Representation::Tar);
        let mut tar = Vec::new();
        elsewhere.store.write_tar(made.diff_id, &mut tar).unwrap();
        (made, tar)
    };
    for bytes in [flipped, other, blob[..blob.len() - 9].to_vec(), Vec::new()] {
        let fixture = Fixture::new();
        let (unpacked, _digest) = unpack(&fixture, diff_id, &bytes);
        unpacked.unwrap_err();
        assert!(!fixture.store.has_layer(diff_id).unwrap());
        assert!(!fixture.path("store/layers").join(diff_id.digest().hex()).join("tree").exists());
    }
}

#[test]
fn readers_of_a_blob_that_does_not_arrive_end_with_an_error() {
    let (fixture, (diff_id, blob)) = (Fixture::new(), layer());
    for ends in [true, false] {
        let arriving = fixture.store.arriving_blob(as_u64(blob.len())).unwrap();
        let reader = arriving.reader();
        arriving.write_at(0, &blob[..blob.len() / 2]).unwrap();
        // A part behind a gap.
        arriving.write_at(as_u64(blob.len() - 10), &blob[blob.len() - 10..]).unwrap();
        arriving.write_at(as_u64(blob.len() - 5), &[0; 6]).unwrap_err();
        thread::scope(|scope| {
            let store = &fixture.store;
            let unpacking = scope.spawn(move || store.unpack_arriving(diff_id, reader, &OPTIONS));
            if ends {
                arriving.end();
                arriving.hash().unwrap_err();
            }
            drop(arriving);
            unpacking.join().unwrap().unwrap_err();
        });
        assert!(!fixture.store.has_layer(diff_id).unwrap());
    }
    // The unfinished files are gone.
    let left = walkdir::WalkDir::new(fixture.path("store/tmp")).into_iter();
    let is_blob = |entry: &walkdir::DirEntry| entry.metadata().unwrap().len() == as_u64(blob.len());
    assert_eq!(left.filter(|entry| is_blob(entry.as_ref().unwrap())).count(), 0);
}
