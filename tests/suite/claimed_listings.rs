//! Listings that another machine wrote into a cache.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests read files and panic on failure"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rbuild::archive::{ListingError, ListingWriter, NOT_IN_ONE_PIECE, PackedListing};
use rbuild::oci::{DiffId, Digest};
use rbuild::tree::{Entry, Tree};

use serde_json::{Value, json};

use crate::support::cache::RegistryCache;
use crate::support::env::{Done, Env};
use crate::support::image::{dir, file, link, path, symlink};
use crate::support::registry::DockerRegistry;

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

/// A cached layer with a link, and steps that need to know whether `/src` is one.
const DOCKERFILE: &str =
    "FROM base:1\nRUN ln -s /etc /src && echo x > /known\nCOPY file /src/\nWORKDIR /src/inner\n";

/// Returns the encoding of a listing from its body, with the right checksum.
fn with_checksum(body: &[u8]) -> Vec<u8> {
    let bytes = [b"rbL\x03", body].concat();
    let hash = blake3::hash(&bytes);
    [&bytes[..], &hash.as_bytes()[..16]].concat()
}

/// Returns the encoding of a listing with one directory of this path, which need not be valid.
fn directory_at(path: &str) -> Vec<u8> {
    let honest = encoded(&[dir("q")]);
    let body = &honest[4..honest.len() - 16];
    let at = body.iter().position(|byte| *byte == b'q').unwrap();
    let length = u8::try_from(path.len()).unwrap();
    with_checksum(&[&body[..at - 1], &[length], path.as_bytes(), &body[at + 1..]].concat())
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Packed listings that cannot be read, by name.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    let honest = encoded(&[dir("src"), file("known", "x\n")]);
    let packed_honest = packed(&honest);
    let cut = packed_honest[..packed_honest.len() - 7].to_vec();
    let absurd = with_checksum(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let shifted = with_checksum(&[&[9], &honest[5..honest.len() - 16]].concat());
    vec![
        ("bomb", zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 3).unwrap()),
        ("zeros beyond the bound", packed(&vec![0; 17 << 20])),
        ("truncated", cut),
        ("not zstd", b"no zstd".to_vec()),
        ("empty", Vec::new()),
        ("absurd number of entries", packed(&absurd)),
        ("more entries announced than there are", packed(&shifted)),
        ("path out of the layer", packed(&directory_at("../src"))),
        ("path with dots inside", packed(&directory_at("a/../../src"))),
        ("absolute path", packed(&directory_at("/src"))),
        ("empty path", packed(&directory_at(""))),
    ]
}

/// A registry with a cache of the Dockerfile, whose listings are replaced.
struct Scene {
    env: Env,
    registry: DockerRegistry,
    cache: RegistryCache,
    layer: Value,
}

impl Scene {
    fn new() -> Self {
        let (env, registry) = (Env::new(), DockerRegistry::open());
        env.base();
        let base = format!("{}/base:1", registry.host());
        env.build("FROM base:1\n", &["-t", &base, "--push"]).ok();
        let run: Vec<&str> = DOCKERFILE.split_inclusive('\n').take(2).collect();
        env.write("Dockerfile", run.concat().replace("base:1", &base));
        let to = format!("type=registry,ref={}/cache:1,mode=max", registry.host());
        env.rbuild(&["build", "context", "--reproducible", "--cache-to", &to]).ok();
        env.write("Dockerfile", DOCKERFILE.replace("base:1", &base));
        env.write("file", "content\n");
        let mut cache = RegistryCache::read(&format!("{}/cache:1", registry.host()));
        let layer = cache.entries("steps")[0]["layer"].clone();
        Self { env, registry, cache, layer }
    }

    /// Replaces the packed listing of the cached layer.
    fn claim(&mut self, listing: &[u8]) {
        let blob = self.cache.send("application/vnd.rbuild.listing.v1+zstd", listing);
        let is_short = listing.len() <= 1000;
        let (entries, layer) = (self.cache.entries("listings"), &self.layer);
        entries.retain(|entry| entry["diffId"] != *layer);
        let mut entry = json!({"diffId": layer, "used": 1_800_000_000});
        if is_short {
            entry["data"] = BASE64.encode(listing).into();
        } else {
            entry["blob"] = blob;
        }
        entries.push(entry);
        self.cache.write("lies");
        self.cache.write_directory(&self.env.path("lies"));
    }

    /// Returns the values of `--cache-from` for the cache in the registry and in a directory.
    fn named(&self) -> [String; 2] {
        let of_registry = format!("type=registry,ref={}/cache:lies", self.registry.host());
        [of_registry, "type=local,src=lies".to_owned()].map(|from| from + ",ignore-error=false")
    }

    /// Builds, and returns the id of the image.
    fn id(&self, store: &str, from: Option<&str>) -> String {
        let mut args = vec!["build", "context", "--reproducible", "--iidfile", "id", "-o", "files"];
        args.extend(from.iter().flat_map(|from| ["--cache-from", from]));
        let done = Done::of(self.env.command_in(store, &args).output().unwrap()).ok();
        assert!(from.is_none() || done.stderr.contains("CACHED"), "{}", done.stderr);
        std::fs::remove_dir_all(self.env.path("files")).unwrap();
        std::fs::read_to_string(self.env.path("id")).unwrap()
    }

    /// Removes the store.
    fn forget(&self, store: &str) {
        std::fs::remove_dir_all(self.env.path(store)).unwrap();
    }
}

#[test]
fn unreadable_listing_of_a_cache_has_no_effect() {
    let mut scene = Scene::new();
    let want = scene.id("honest", None);
    for (name, listing) in unreadable() {
        scene.claim(&listing);
        for from in scene.named() {
            assert_eq!(scene.id("misled", Some(&from)), want, "{name}, {from}");
            scene.forget("misled");
        }
    }
}

#[test]
fn listing_that_lies_has_no_effect_on_builds_that_do_not_name_the_cache() {
    let mut scene = Scene::new();
    let want = scene.id("honest", None);
    for (name, entries) in [
        ("a directory in place of a link", vec![file("known", "x\n"), dir("src")]),
        ("nothing in place of a link", vec![file("known", "x\n")]),
        ("a link to another directory", vec![symlink("src", "/proc")]),
        ("twice", vec![symlink("src", "/etc"), dir("src"), dir("src")]),
    ] {
        scene.claim(&packed(&encoded(&entries)));
        // It may mislead builds that name the cache, whose layers could be others just as well.
        for from in scene.named() {
            scene.id("misled", Some(&from));
        }
        assert_eq!(scene.id("misled", None), want, "{name}");
        scene.forget("misled");
    }
}
