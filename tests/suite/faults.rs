//! Two hundred pulls, two hundred pushes and forty builds that push through a bad network: each ends in a
//! correct image, or in an error that leaves the store intact.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests read files, print counts and panic on failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild::archive::Packing;
use rbuild::executor::{
    self, BuildError, CancelSwitch, LockedInputs, Provided, Services, StepNumbers,
};
use rbuild::image::{self, ExportError, ExportOptions, Image};
use rbuild::oci::{Descriptor, Digest, LayerCompression, Manifest, MediaType, Platform, Reference};
use rbuild::pool;
use rbuild::registry::{Client, Options, RegistryError};
use rbuild::store::{LayerOptions, LayerSource, OpenOptions, Store};

use crate::support::certificates::TokenServer;
use crate::support::env::{Done, Env};
use crate::support::image::{Fixture, file, jobs};
use crate::support::proxy::{Fault, Head, Proxy};
use crate::support::registry::{self, DockerRegistry};

/// Number of pulls, and of pushes.
const N_RUNS: usize = 200;
/// Number of requests out of a thousand that get a fault.
const FAULTS_PER_MILLE: u64 = 300;

/// Size of the parts in which layers are downloaded.
const PART_BYTES: u64 = 200_000;

fn client() -> Client {
    let part_bytes = NonZeroU64::new(PART_BYTES).unwrap();
    Client::new(Options { retries: 3, part_bytes, ..registry::options() }).unwrap()
}

/// Returns a pseudo-random number that depends only on the words.
fn mixed(words: &[&str]) -> u64 {
    let digest = Digest::of(words.join("\n").as_bytes()).to_string();
    let hex: String = digest.chars().skip("sha256:".len()).take(15).collect();
    u64::from_str_radix(&hex, 16).unwrap()
}

/// Chooses the fault of each request by its first line and range and the number of equal requests before it,
/// so that the order of threads does not matter.
struct Weather {
    seed: &'static str,
    is_bad: AtomicBool,
    seen: Mutex<BTreeMap<String, u64>>,
}

impl Weather {
    fn new(seed: &'static str) -> Arc<Self> {
        Arc::new(Self { seed, is_bad: AtomicBool::new(false), seen: Mutex::default() })
    }

    fn set(&self, is_bad: bool) {
        self.is_bad.store(is_bad, Ordering::SeqCst);
    }

    fn fault(&self, head: &Head) -> Fault {
        if !self.is_bad.load(Ordering::SeqCst) {
            return Fault::None;
        }
        let line = head.line() + head.header("range").unwrap_or_default();
        let number = {
            let mut seen = self.seen.lock().unwrap();
            let number = seen.entry(line.clone()).or_default();
            *number += 1;
            number.to_string()
        };
        let dice = |what| mixed(&[self.seed, &line, &number, what]);
        if dice("whether") % 1000 >= FAULTS_PER_MILLE {
            return Fault::None;
        }
        // From a few bytes to a few megabytes.
        let at = dice("at") % (16 << (dice("scale") % 19));
        match dice("kind") % 10 {
            0 => Fault::Drop,
            1 => Fault::LoseAnswer,
            2 => Fault::CutRequest(at),
            3 => Fault::CutAnswer(at),
            // These end many runs, and are rare in real networks.
            4 if dice("rare") % 4 == 0 => Fault::FlipRequest(at),
            4 => Fault::CutAnswer(at),
            5 if dice("rare") % 4 == 0 => Fault::FlipAnswer(at),
            5 => Fault::CutRequest(at),
            6 => Fault::Delay(Duration::from_millis(dice("delay") % 30)),
            7 => Fault::Expire,
            8 => Fault::Status(429, Some(0)),
            _ => Fault::Status([500, 503][usize::from(dice("status") % 2 == 0)], None),
        }
    }
}

/// A registry behind a proxy, and images to push to it and to pull from it.
struct Place {
    registry: DockerRegistry,
    proxy: Proxy,
    weather: Arc<Weather>,
    fixture: Fixture,
    images: Vec<(Image, Digest)>,
}

/// Returns text that hardly compresses.
fn noise(seed: &str, n_bytes: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = mixed(&[seed]);
    let letter = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(alphabet[usize::try_from(state >> 58).unwrap()])
    };
    (0..n_bytes).map(letter).collect()
}

fn export_options() -> ExportOptions {
    ExportOptions {
        packing: Packing::GZIP,
        force_packing: false,
        docker_media_types: false,
        always_index: false,
        jobs: jobs(2),
        names: Vec::new(),
        created: None,
        annotations: Vec::new(),
        by_digest: false,
        guarded_names: Vec::new(),
        ignores_immutable_tags: false,
        trusts_tag: false,
        split: None,
        keeps_special: false,
        deletes_others: false,
    }
}

fn push(
    place: &Place,
    client: &Client,
    image: &Image,
    name: &Reference,
) -> Result<Digest, ExportError> {
    let store = &place.fixture.store;
    image::push_all(
        store,
        client,
        std::slice::from_ref(image),
        name,
        &[],
        &export_options(),
        &|_| {},
    )
    .map(|pushed| pushed.digest)
}

impl Place {
    fn new(registry: DockerRegistry, seed: &'static str) -> Self {
        let weather = Weather::new(seed);
        let plan = Arc::clone(&weather);
        let proxy = Proxy::new(registry.host(), move |head| plan.fault(head));
        let mut place =
            Self { registry, proxy, weather, fixture: Fixture::new(), images: Vec::new() };
        for number in 0..4 {
            let sizes = [900, 40_000, 600_000, if number == 0 { 5_000_000 } else { 10_000 }];
            let layers = sizes.map(|n_bytes| {
                let name = format!("{number}-{n_bytes}");
                let packing = if n_bytes > 1_000_000 { Packing::None } else { Packing::GZIP };
                place.fixture.pulled(vec![file(&name, &noise(&name, n_bytes))], packing)
            });
            let layers: Vec<_> =
                layers.iter().map(|(layer, blob)| (layer, Some(blob.clone()))).collect();
            let manifest = place.fixture.image(&layers);
            let image = Image::load(&place.fixture.store, manifest).unwrap();
            let name = place.pull_name(number);
            let pushed = push(&place, &client(), &image, &name).unwrap();
            place.images.push((image, pushed));
        }
        place
    }

    /// Returns the name of an image that can be pulled.
    fn pull_name(&self, number: usize) -> Reference {
        format!("{}/pulled/{number}:1", self.proxy.host()).parse().unwrap()
    }

    /// Counts the faults of each kind.
    fn faults(&self) -> BTreeMap<String, usize> {
        let log = self.proxy.log().into_iter().filter(|(_, fault)| *fault != Fault::None);
        count(log.map(|(_, fault)| fault.kind()))
    }
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Returns an error's variant, after checking that its message is useful.
fn kind(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    assert!(text.contains("127.0.0.1:") && text.len() > 30, "{text}");
    let debug = format!("{error:?}");
    let name = debug.split([' ', '(', '{']).next().unwrap();
    if let RegistryError::Status { status, .. } = error {
        return format!("{name} {status}");
    }
    name.to_owned()
}

fn open(directory: &Path) -> Store {
    let options = OpenOptions { user_namespace: false, now_s: 1_700_000_000 };
    Store::open(directory, &options).unwrap()
}

/// Pulls an image. Reduces an error to its kind.
fn pull(store: &Store, client: &Client, name: &Reference) -> Result<Digest, String> {
    let stop = CancelSwitch::new().unwrap();
    let services = Services {
        store,
        registry: client,
        cancel: &stop,
        environment: &BTreeMap::new(),
        provided: &Provided::default(),
        locked: &LockedInputs::none(),
        numbers: &StepNumbers::default(),
        events: &|_| {},
    };
    let platform: Platform = "linux/amd64".parse().unwrap();
    executor::pull(&services, name, &platform).map_err(|failure| {
        let BuildError::Image { source, .. } = &*failure else { panic!("{failure:?}") };
        kind(source)
    })
}

/// Fetches the layers of an image, and unpacks them meanwhile. Reduces an error to its kind.
fn unpack(store: &Store, client: &Client, name: &Reference, image: &Image) -> Result<(), String> {
    let options = LayerOptions { clamp_s: None, created_s: 1_700_000_000 };
    let fetched = pool::map_in_order(image.layers(), jobs(4), |layer| {
        let source = LayerSource { blob: layer.pulled.clone().unwrap(), place: name.name() };
        let diff_id = layer.diff_id;
        image::fetch_from(store, client, diff_id, &source, Some(&options), &|_| {}).map_err(
            |error| {
                let ExportError::Origin { source, .. } = &error else { panic!("{error:?}") };
                kind(source)
            },
        )?;
        assert!(store.layer_directory(diff_id).unwrap().is_some());
        Ok(())
    });
    fetched.into_iter().collect()
}

/// Checks that every blob matches its name, and that no partial files are left.
fn check_store(directory: &Path) {
    for entry in fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = Digest::of(&fs::read(&path).unwrap()).to_string();
        assert_eq!(digest.strip_prefix("sha256:"), path.file_name().unwrap().to_str());
    }
    // While a store is open, the process has a directory there.
    let own = fs::read_dir(directory.join("tmp")).unwrap().map(|entry| entry.unwrap().path());
    let left = own.flat_map(|own| fs::read_dir(own).unwrap()).map(|entry| entry.unwrap().path());
    let left: Vec<_> = left.filter(|path| !path.ends_with("lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Checks that the store has the image, and that all its layers match the config.
fn check_image(store: &Store, name: &Reference, want: Digest) {
    assert_eq!(store.tags().get(name).unwrap(), Some(want));
    let image = Image::load(store, want).unwrap();
    for layer in image.layers() {
        let mut tar = Vec::new();
        store.write_tar(layer.diff_id, &mut tar).unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id.digest());
    }
}

/// Pulls into a new store each time. Every other image is unpacked while it arrives. Returns the
/// results.
fn pulls(place: &Place, runs: std::ops::Range<usize>) -> Vec<String> {
    runs.map(|run| {
        let directory = tempfile::tempdir().unwrap();
        let number = run % place.images.len();
        let (name, (image, want)) = (place.pull_name(number), &place.images[number]);
        let want = *want;
        place.weather.set(true);
        let store = open(directory.path());
        let client = client();
        let unpacked =
            if run / 4 % 2 == 0 { Ok(()) } else { unpack(&store, &client, &name, image) };
        let pulled = unpacked.and_then(|()| pull(&store, &client, &name));
        if pulled.is_ok() {
            check_image(&store, &name, want);
        } else {
            assert_eq!(store.tags().get(&name).unwrap(), None);
        }
        drop(store);
        check_store(directory.path());
        place.weather.set(false);
        let store = open(directory.path());
        assert_eq!(pull(&store, &client, &name), Ok(want));
        check_image(&store, &name, want);
        drop(store);
        check_store(directory.path());
        pulled.map_or_else(|kind| kind, |got| ended_well(got, want))
    })
    .collect()
}

fn ended_well(got: Digest, want: Digest) -> String {
    assert_eq!(got, want);
    "ok".to_owned()
}

/// Pushes to a new repository each time. Returns the results.
fn pushes(place: &Place, runs: std::ops::Range<usize>) -> Vec<String> {
    runs.map(|run| {
        let (image, want) = &place.images[run % place.images.len()];
        let name = |host: &str| format!("{host}/pushed/{run}:1").parse::<Reference>().unwrap();
        let bad = name(&place.proxy.host());
        place.weather.set(true);
        let pushed = push(place, &client(), image, &bad).map_err(|error| {
            let ExportError::Registry { source, .. } = &error else { panic!("{error:?}") };
            kind(source)
        });
        place.weather.set(false);
        if pushed.is_err() {
            // An interrupted push does not prevent the next one.
            assert_eq!(push(place, &client(), image, &bad).unwrap(), *want);
        }
        check_pushed(&client(), &name(place.registry.host()), *want);
        pushed.map_or_else(|kind| kind, |got| ended_well(got, *want))
    })
    .collect()
}

/// Checks that the registry has the image, and that each of its blobs matches its digest.
fn check_pushed(client: &Client, name: &Reference, want: Digest) {
    let fetched = client.manifest(name).unwrap();
    assert_eq!(fetched.digest, want);
    let manifest: Manifest = serde_json::from_slice(&fetched.bytes).unwrap();
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        client.pull_blob(name, blob, &mut std::io::sink(), &|_| ()).unwrap();
    }
}

#[test]
fn pulls_and_pushes_through_a_bad_network_end_well_or_say_why() {
    let started = Instant::now();
    let tokens = TokenServer::new();
    let places = [
        Place::new(DockerRegistry::open(), "open"),
        Place::new(DockerRegistry::with_tokens(&tokens), "tokens"),
    ];
    let half = N_RUNS / 2;
    let numbered: Vec<(usize, &Place)> = places.iter().enumerate().collect();
    let ended = pool::map_in_order(&numbered, jobs(places.len()), |(number, place)| {
        let runs = number * half..(number + 1) * half;
        let ended = (pulls(place, runs.clone()), pushes(place, runs));
        check_store(place.fixture.store.root());
        ended
    });
    let (pulled, pushed): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    let (pulled, pushed) = (count(pulled.concat().into_iter()), count(pushed.concat().into_iter()));
    let faults = places.each_ref().map(Place::faults);
    // Not with a macro: output that is printed that way is hidden when the test passes.
    let (n_tokens, took) = (tokens.n_tokens(), started.elapsed().as_secs_f64());
    let n_parts =
        places.iter().flat_map(|place| place.proxy.ranges()).filter(|range| !range.is_empty());
    assert!(n_parts.count() > N_RUNS * 3);
    let text = format!(
        "{N_RUNS} pulls: {pulled:?}\n{N_RUNS} pushes: {pushed:?}\nfaults without tokens: {:?}\n\
         faults with tokens: {:?}; {n_tokens} tokens\n{took:.1} s\n",
        faults[0], faults[1]
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    for (ended, all) in [(&pulled, N_RUNS), (&pushed, N_RUNS)] {
        assert_eq!(ended.values().sum::<usize>(), all);
        // Most succeed and some fail; otherwise the test would not cover both.
        assert!((all * 3 / 4..all).contains(&ended["ok"]), "{ended:?}");
    }
    let kinds: BTreeSet<&String> = faults.iter().flat_map(BTreeMap::keys).collect();
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}

#[test]
fn streams_through_a_bad_network_arrive_or_say_why() {
    let registry = DockerRegistry::open();
    let weather = Weather::new("streams");
    let plan = Arc::clone(&weather);
    let proxy = Proxy::new(registry.host(), move |head| plan.fault(head));
    weather.set(true);
    let kinds = (0..100_usize).map(|run| {
        let bytes = noise(&run.to_string(), [90_000, 500_000, 1_500_000][run % 3]).into_bytes();
        let name = |host: &str| format!("{host}/streams/{run}:1").parse::<Reference>().unwrap();
        let send = |client: &Client| {
            let mut upload = client.start_upload(&name(&proxy.host()))?;
            upload.send(&mut bytes.as_slice(), &|_| ())?;
            upload.finish(Digest::of(&bytes))
        };
        let sent = send(&client());
        let there = client().blob_exists(&name(registry.host()), Digest::of(&bytes)).unwrap();
        assert!(there || sent.is_err());
        if there {
            let blob = Descriptor::of(MediaType::OciLayer(LayerCompression::None), &bytes);
            let own = name(registry.host());
            client().pull_blob(&own, &blob, &mut std::io::sink(), &|_| ()).unwrap();
        }
        sent.map_or_else(|error| kind(&error), |()| "ok".to_owned())
    });
    let kinds = count(kinds);
    let faults = proxy.log().into_iter().filter(|(_, fault)| *fault != Fault::None);
    let faults = count(faults.map(|(_, fault)| fault.kind()));
    let text = format!("100 streams: {kinds:?}\nfaults: {faults:?}\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(kinds["ok"] >= 75, "{kinds:?}");
}

/// Number of builds that push.
const N_BUILDS: usize = 40;
/// Larger than the layers that are compressed before they go up.
const STREAMED_BYTES: usize = 9_000_000;

/// Builds and pushes an image of three layers, which go up while later steps run.
fn build(env: &Env, run: usize, store: &str, name: &str) -> Done {
    let dockerfile = format!("context/Dockerfile.{run}");
    let common = ["build", "context", "-f", &dockerfile, "--reproducible", "--progress=plain"];
    let args = [&common[..], &["-t", name, "--push"]].concat();
    Done::of(env.command_in(store, &args).output().unwrap())
}

/// Builds through the proxy, and then without it in another store. Returns the result of the first build.
fn build_and_compare(env: &Env, run: usize, proxy: &str, registry: &str) -> String {
    let n_bytes = if run.is_multiple_of(4) { STREAMED_BYTES } else { 90_000 };
    env.write(&format!("file{run}"), noise(&run.to_string(), n_bytes));
    let dockerfile = format!(
        "FROM base:1\nCOPY file{run} /\nRUN echo {run} > /second && sleep 0.2\n\
         RUN sleep 0.2 && cat /second > /third\n"
    );
    env.write(&format!("Dockerfile.{run}"), dockerfile);
    let built = build(env, run, "store", &format!("{proxy}/built/{run}:1"));
    build(env, run, "other", &format!("{registry}/right/{run}:1")).ok();
    let name = |top: &str| format!("{registry}/{top}/{run}:1").parse::<Reference>().unwrap();
    let want = client().digest(&name("right")).unwrap();
    if built.code != Some(0) {
        built.fails(3, &["error: ", proxy]);
        // The answer to the last request may have been lost.
        let left = client().digest(&name("built"));
        assert!(left.is_err() || left.is_ok_and(|digest| digest == want), "{}", built.stderr);
        return "failed".to_owned();
    }
    check_pushed(&client(), &name("built"), want);
    "ok".to_owned()
}

#[test]
fn builds_that_push_through_a_bad_network_push_the_right_image_or_say_why() {
    let started = Instant::now();
    let registry = DockerRegistry::open();
    let weather = Weather::new("builds");
    let plan = Arc::clone(&weather);
    let proxy = Proxy::new(registry.host(), move |head| plan.fault(head));
    let env = Env::new();
    env.base();
    env.base_in("other");
    weather.set(true);
    let runs: Vec<usize> = (0..N_BUILDS).collect();
    let ended = pool::map_in_order(&runs, jobs(4), |run| {
        build_and_compare(&env, *run, &proxy.host(), registry.host())
    });
    let ended = count(ended.into_iter());
    let faults = proxy.log().into_iter().filter(|(_, fault)| *fault != Fault::None);
    let faults = count(faults.map(|(_, fault)| fault.kind()));
    let took = started.elapsed().as_secs_f64();
    let text = format!("{N_BUILDS} builds: {ended:?}\nfaults: {faults:?}\n{took:.1} s\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(ended["ok"] >= N_BUILDS / 2, "{ended:?}");
    let streams = proxy.lines().into_iter().filter(|line| line.starts_with("PATCH "));
    assert!(streams.count() >= N_BUILDS / 4);
}
