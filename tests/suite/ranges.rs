//! Large blobs that are downloaded in parallel parts, from the real registry and from servers that
//! support ranges in part or wrongly.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests start threads, slice, and panic on failure"
)]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rbuild::archive::Packing;
use rbuild::image::{self, ExportError};
use rbuild::oci::{Descriptor, LayerCompression, MediaType, Reference};
use rbuild::registry::{Client, Options, RegistryError, RegistryOptions};
use rbuild::store::{LayerOptions, LayerSource};

use crate::support::image::{Fixture, file};
use crate::support::proxy::{Fault, Head, Proxy};
use crate::support::registry::{Answer, DockerRegistry, Request, Scripted, options};

const PART_BYTES: u64 = 60_000;
/// The last of its 17 parts is shorter.
const N_BYTES: usize = 1_000_000;

fn options_with_parts() -> Options {
    Options { part_bytes: NonZeroU64::new(PART_BYTES).unwrap(), ..options() }
}

fn client() -> Client {
    Client::new(options_with_parts()).unwrap()
}

fn client_with_mirror(registry: &str, mirror: &str) -> Client {
    let mirrors = vec![format!("http://{mirror}")];
    let of_registry = RegistryOptions { mirrors, ..RegistryOptions::default() };
    let registries = BTreeMap::from([(registry.to_owned(), of_registry)]);
    Client::new(Options { registries, ..options_with_parts() }).unwrap()
}

fn name(host: &str) -> Reference {
    format!("{host}/a").parse().unwrap()
}

/// Returns bytes that do not repeat.
fn some_bytes(n_bytes: usize) -> Vec<u8> {
    (1_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(n_bytes).collect()
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OciLayer(LayerCompression::None), bytes)
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

fn push(host: &str, blob: &Descriptor, bytes: &[u8]) {
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
    client().push_blob(&name(host), blob, None, &open, &|_| ()).unwrap();
}

/// Returns the `Range` headers that ask for each part once.
fn whole_parts(n_bytes: usize) -> Vec<String> {
    let n_bytes = as_u64(n_bytes);
    let starts = (0..n_bytes).step_by(usize::try_from(PART_BYTES).unwrap());
    starts.map(|start| format!("bytes={start}-{}", (start + PART_BYTES).min(n_bytes) - 1)).collect()
}

fn sorted(mut ranges: Vec<String>) -> Vec<String> {
    ranges.sort_by_key(|range| {
        let start = range.trim_start_matches("bytes=").split('-').next().unwrap();
        start.parse::<u64>().unwrap_or(0)
    });
    ranges
}

/// A blob as it arrives.
struct Arrival {
    bytes: Mutex<Vec<u8>>,
    n_written: AtomicU64,
    n_reported: AtomicU64,
}

impl Arrival {
    /// Pulls the blob.
    fn of(client: &Client, host: &str, blob: &Descriptor) -> (Self, Result<(), RegistryError>) {
        let bytes = Mutex::new(vec![0; usize::try_from(blob.size).unwrap()]);
        let arrival = Self { bytes, n_written: AtomicU64::new(0), n_reported: AtomicU64::new(0) };
        let write_at = |offset: u64, bytes: &[u8]| {
            let start = usize::try_from(offset).unwrap();
            arrival.bytes.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
            arrival.n_written.fetch_add(as_u64(bytes.len()), Ordering::SeqCst);
            Ok(())
        };
        let progress = |more| {
            arrival.n_reported.fetch_add(more, Ordering::SeqCst);
        };
        let result = client.pull_blob_in_parts(&name(host), blob, &write_at, &progress);
        (arrival, result)
    }

    /// Checks that each byte arrived once.
    fn assert_is(self, want: &[u8]) {
        let counts = [self.n_written, self.n_reported].map(AtomicU64::into_inner);
        assert_eq!(counts, [as_u64(want.len()); 2]);
        assert!(self.bytes.into_inner().unwrap() == want);
    }
}

/// The real registry with a blob, behind a proxy.
struct Scene {
    proxy: Proxy,
    bytes: Vec<u8>,
    _registry: DockerRegistry,
}

impl Scene {
    fn new(n_bytes: usize, plan: impl Fn(&Head) -> Fault + Send + Sync + 'static) -> Self {
        let (registry, bytes) = (DockerRegistry::open(), some_bytes(n_bytes));
        push(registry.host(), &layer(&bytes), &bytes);
        Self { proxy: Proxy::new(registry.host(), plan), bytes, _registry: registry }
    }

    /// Pulls the blob, checks it, and returns the ranges that were requested, in order.
    fn pull(&self) -> Vec<String> {
        let (arrival, result) = Arrival::of(&client(), &self.proxy.host(), &layer(&self.bytes));
        result.unwrap();
        arrival.assert_is(&self.bytes);
        self.proxy.ranges()
    }
}

/// Answers a request for a range of `bytes`.
fn ranged(request: &Request, bytes: &[u8]) -> Answer {
    let Some((start, end)) = range_of(request) else { return Answer::new(200, bytes) };
    let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
    Answer::new(206, &bytes[start..end]).header("Content-Range", range)
}

fn range_of(request: &Request) -> Option<(usize, usize)> {
    let (start, last) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((start.parse().unwrap(), last.parse::<usize>().unwrap() + 1))
}

#[test]
fn large_blob_is_requested_in_parts_each_once() {
    let scene = Scene::new(N_BYTES, |_| Fault::None);
    let ranges = scene.pull();
    assert_eq!(ranges[0], "bytes=0-59999");
    assert_eq!(sorted(ranges), whole_parts(N_BYTES));
}

#[test]
fn blob_of_less_than_two_parts_is_requested_whole() {
    for (n_bytes, want) in [
        (0, vec![]),
        (1, vec![String::new()]),
        (119_999, vec![String::new()]),
        (120_000, whole_parts(120_000)),
    ] {
        let scene = Scene::new(n_bytes, |_| Fault::None);
        assert_eq!(sorted(scene.pull()), want, "{n_bytes}");
    }
}

#[test]
fn parts_are_requested_at_once_as_far_as_transfers_are_allowed() {
    for (n_transfers, want) in [(1, 1), (3, 3), (8, 4)] {
        let bytes = some_bytes(N_BYTES);
        let (n_now, n_most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Arc::new((n_now, n_most));
        let (all, seen) = (bytes.clone(), Arc::clone(&counts));
        let server = Scripted::new(move |request, _| {
            seen.1.fetch_max(seen.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(30));
            seen.0.fetch_sub(1, Ordering::SeqCst);
            ranged(request, &all)
        });
        let transfers_per_host = NonZeroUsize::new(n_transfers).unwrap();
        let client = Client::new(Options { transfers_per_host, ..options_with_parts() }).unwrap();
        let (arrival, result) = Arrival::of(&client, &server.host(), &layer(&bytes));
        result.unwrap();
        arrival.assert_is(&bytes);
        assert_eq!(counts.1.load(Ordering::SeqCst), want, "{n_transfers}");
    }
}

#[test]
fn server_without_ranges_is_asked_once() {
    let scene = Scene::new(N_BYTES, |_| Fault::IgnoreRange);
    assert_eq!(scene.pull(), ["bytes=0-59999"]);
}

#[test]
fn server_that_ignores_some_ranges_sends_each_byte_once() {
    for ignored in ["bytes=60000-119999", "bytes=300000-359999", "bytes=960000-999999"] {
        let scene = Scene::new(N_BYTES, move |head| match head.header("range") {
            Some(range) if range == ignored => Fault::IgnoreRange,
            _ => Fault::None,
        });
        let ranges = scene.pull();
        assert!(ranges.contains(&ignored.to_owned()), "{ranges:?}");
    }
}

#[test]
fn broken_part_is_resumed_at_its_own_offset() {
    let n_before = AtomicUsize::new(0);
    let scene = Scene::new(N_BYTES, move |head| match head.header("range") {
        Some("bytes=0-59999") => Fault::CutAnswer(10_000),
        Some("bytes=180000-239999") => Fault::CutAnswer(40_000),
        Some("bytes=300000-359999") if n_before.fetch_add(1, Ordering::SeqCst) < 2 => {
            Fault::Status(503, None)
        }
        _ => Fault::None,
    });
    let ranges = sorted(scene.pull());
    let resumed: Vec<String> =
        ranges.iter().filter(|range| !whole_parts(N_BYTES).contains(range)).cloned().collect();
    assert_eq!(resumed, ["bytes=10000-59999", "bytes=220000-239999"]);
    assert_eq!(ranges.len(), 17 + 2 + 2);
}

#[test]
fn part_that_never_arrives_fails_the_pull() {
    for fault in [Fault::LoseAnswer, Fault::Status(503, None), Fault::CutAnswer(0)] {
        let scene = Scene::new(N_BYTES, move |head| match head.header("range") {
            Some("bytes=240000-299999") => fault,
            _ => Fault::None,
        });
        let (_, result) = Arrival::of(&client(), &scene.proxy.host(), &layer(&scene.bytes));
        result.unwrap_err();
        let ranges = scene.proxy.ranges();
        let n_attempts = ranges.iter().filter(|range| *range == "bytes=240000-299999").count();
        assert_eq!(n_attempts, 3, "{fault:?}");
    }
}

#[test]
fn stream_of_a_server_without_ranges_is_resumed() {
    let n_before = AtomicUsize::new(0);
    let bytes = some_bytes(N_BYTES);
    let all = bytes.clone();
    let server = Scripted::new(move |_, _| {
        let answer = Answer::new(200, &all);
        if n_before.fetch_add(1, Ordering::SeqCst) < 2 { answer.cut_at(400_000) } else { answer }
    });
    let (arrival, result) = Arrival::of(&client(), &server.host(), &layer(&bytes));
    result.unwrap();
    arrival.assert_is(&bytes);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn responses_with_another_part_or_size_are_refused() {
    let bytes = some_bytes(N_BYTES);
    let blob = layer(&bytes);
    let violates =
        "violates the registry protocol: it sent another range of the blob than requested";
    let wrong_size = "expected 1000000 bytes, got ";
    for (number, range, n_body, want) in [
        (0, "bytes 1-60000/1000000", 60_000, violates.to_owned()),
        (0, "bytes 0-59998/1000000", 59_999, violates.to_owned()),
        (0, "bytes 0-60000/1000000", 60_001, violates.to_owned()),
        (0, "bytes 0-59999/1000000", 59_999, violates.to_owned()),
        (0, "", 60_000, violates.to_owned()),
        (0, "bytes 0-59999/999999", 60_000, format!("{wrong_size}999999")),
        (2, "bytes 0-59999/1000000", 60_000, violates.to_owned()),
        (2, "bytes 120000-179999/2000000", 60_000, format!("{wrong_size}2000000")),
    ] {
        let all = bytes.clone();
        let server = Scripted::new(move |request, _| match range_of(request) {
            Some((start, _)) if start == number * 60_000 => {
                Answer::new(206, &all[..n_body]).header("Content-Range", range)
            }
            _ => ranged(request, &all),
        });
        let (_, result) = Arrival::of(&client(), &server.host(), &blob);
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with(&want), "{range}: {error}");
    }
    for (n_bytes, got) in [(999_999, 999_999), (1_000_001, 1_000_001)] {
        let server = Scripted::new(move |_, _| Answer::new(200, some_bytes(n_bytes)));
        let (_, result) = Arrival::of(&client(), &server.host(), &blob);
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with(&format!("{wrong_size}{got}")), "{error}");
    }
}

#[test]
fn first_error_ends_the_other_parts_soon() {
    let bytes = some_bytes(N_BYTES);
    let all = bytes.clone();
    let server = Scripted::new(move |request, _| match range_of(request) {
        // Another thread sleeps meanwhile.
        Some((60_000, _)) => Answer::new(503, "").header("Retry-After", "100"),
        Some((120_000, _)) => {
            thread::sleep(Duration::from_millis(300));
            Answer::new(403, "")
        }
        _ => ranged(request, &all),
    });
    let started = Instant::now();
    let (_, result) = Arrival::of(&client(), &server.host(), &layer(&bytes));
    assert!(matches!(result, Err(RegistryError::Denied { .. })), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn destination_that_fails_ends_the_pull_without_another_server() {
    let bytes = some_bytes(N_BYTES);
    let all = bytes.clone();
    let server = Scripted::new(move |request, _| ranged(request, &all));
    let other = Scripted::new(|_, _| Answer::new(500, ""));
    let client = client_with_mirror(&other.host(), &server.host());
    let write_at = |offset: u64, _: &[u8]| match offset {
        0..300_000 => Ok(()),
        _ => Err(io::ErrorKind::StorageFull.into()),
    };
    let blob = layer(&bytes);
    let result = client.pull_blob_in_parts(&name(&other.host()), &blob, &write_at, &|_| ());
    assert!(matches!(result, Err(RegistryError::Local { verb: "store", .. })), "{result:?}");
    assert_eq!(other.requests().len(), 0);
    assert!(server.requests().len() < 17);
}

#[test]
fn registry_sends_the_parts_that_a_mirror_did_not() {
    let bytes = some_bytes(N_BYTES);
    let (some, all) = (bytes.clone(), bytes.clone());
    let mirror = Scripted::new(move |request, _| match range_of(request).unwrap() {
        (0..240_000, _) => ranged(request, &some),
        (240_000, _) => ranged(request, &some).cut_at(1000),
        _ => Answer::new(404, ""),
    });
    let own = Scripted::new(move |request, _| ranged(request, &all));
    let client = client_with_mirror(&own.host(), &mirror.host());
    let (arrival, result) = Arrival::of(&client, &own.host(), &layer(&bytes));
    result.unwrap();
    arrival.assert_is(&bytes);
    let n_own = own.requests().len();
    assert!((12..17).contains(&n_own), "{n_own}");
}

#[test]
fn cancellation_ends_all_parts() {
    let n_answered = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&n_answered);
    let scene = Scene::new(N_BYTES, move |_| {
        if seen.fetch_add(1, Ordering::SeqCst) < 3 {
            return Fault::None;
        }
        Fault::Delay(Duration::from_secs(20))
    });
    let client = client();
    let started = Instant::now();
    let (host, blob) = (scene.proxy.host(), layer(&scene.bytes));
    thread::scope(|scope| {
        let pulling = scope.spawn(|| Arrival::of(&client, &host, &blob).1);
        while n_answered.load(Ordering::SeqCst) < 5 {
            thread::sleep(Duration::from_millis(5));
        }
        client.cancellation().cancel();
        pulling.join().unwrap().unwrap_err();
    });
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn layer_with_a_flipped_bit_is_not_published_and_its_source_is_forgotten() {
    let elsewhere = Fixture::new();
    let text: String = some_bytes(N_BYTES).iter().map(|byte| char::from(byte % 64 + 32)).collect();
    let (made, blob) = elsewhere.pulled(vec![file("text", &text)], Packing::Gzip { level: 1 });
    let path = elsewhere.path("store/blobs/sha256").join(blob.digest.hex());
    let packed = std::fs::read(path).unwrap();
    let registry = DockerRegistry::open();
    push(registry.host(), &blob, &packed);
    let options = LayerOptions { clamp_s: None, created_s: 1_700_000_000 };
    for flipped in [Some("bytes=0-59999"), Some("bytes=300000-359999"), None] {
        let proxy = Proxy::new(registry.host(), move |head| match head.header("range") {
            Some(range) if Some(range) == flipped => Fault::FlipAnswer(30_000),
            _ => Fault::None,
        });
        let fixture = Fixture::new();
        let (store, place) = (&fixture.store, name(&proxy.host()).name());
        let source = LayerSource { blob: blob.clone(), place };
        store.layer_sources().record(made.diff_id, &source).unwrap();
        let fetched = image::fetch_layer(store, &client(), made.diff_id, Some(&options), &|_| ());
        let ranges = proxy.ranges();
        assert!(ranges.len() > 10 && ranges.iter().all(|range| !range.is_empty()), "{ranges:?}");
        if flipped.is_none() {
            fetched.unwrap();
            assert!(store.has_blob(blob.digest));
            assert!(store.layer_directory(made.diff_id).unwrap().is_some());
            continue;
        }
        let Err(ExportError::Origin { source, .. }) = fetched else { panic!("{fetched:?}") };
        let RegistryError::WrongDigest { what, want, got } = &source else { panic!("{source:?}") };
        assert_eq!(*what, format!("blob {want} of {}/a", proxy.host()));
        assert!(*want == blob.digest && got != want);
        assert!(!store.has_blob(blob.digest) && !store.has_blob(*got));
        assert!(!store.has_layer(made.diff_id).unwrap());
        assert!(store.layer_directory(made.diff_id).unwrap().is_none());
        assert_eq!(store.layer_sources().of_layer(made.diff_id).unwrap(), []);
    }
}
