//! Layers that are compressed and sent in the pass that hashes them.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests start threads, read files and panic on failure"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rbuild::archive::Packing;
use rbuild::oci::{DiffId, Digest};
use rbuild::store::{
    LayerOptions, PackedRecord, StoreError, StoredLayer, TarObserver, TarPacker, WorkDirectory,
};
use serde_json::Value;

use crate::support::env::{Env, Who};
use crate::support::image::{Fixture, jobs};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::DockerRegistry;

const OPTIONS: LayerOptions = LayerOptions { clamp_s: None, created_s: 1_700_000_000 };

/// Compresses the tar of a layer as far as `max_bytes`.
struct Observer {
    packer: Option<TarPacker>,
    max_bytes: usize,
    n_bytes: usize,
    diff_id: Option<DiffId>,
    /// True if the layer could be found before the DiffID was reported.
    was_known: bool,
    fixture: Arc<Fixture>,
}

impl Observer {
    fn new(fixture: &Arc<Fixture>, packer: TarPacker, max_bytes: usize) -> Self {
        let (packer, fixture) = (Some(packer), Arc::clone(fixture));
        Self { packer, max_bytes, n_bytes: 0, diff_id: None, was_known: false, fixture }
    }
}

impl TarObserver for Observer {
    fn tar_bytes(&mut self, bytes: &[u8]) {
        self.n_bytes += bytes.len();
        if self.n_bytes > self.max_bytes {
            self.packer = None;
        }
        if let Some(packer) = &mut self.packer {
            packer.add(bytes);
        }
    }

    fn hashed(&mut self, diff_id: DiffId) {
        self.diff_id = Some(diff_id);
        self.was_known = self.fixture.store.has_layer(diff_id).unwrap();
    }
}

/// Bytes of which half compress, with runs of zeros in the rest.
fn content(n_bytes: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|n| {
        let digest = Digest::of(&n.to_le_bytes()).to_string().into_bytes();
        if n % 400 < 100 { vec![0; 64] } else { digest }
    });
    words.take(n_bytes).collect()
}

/// Returns a work directory whose `fs` has files that a RUN left.
fn upper(fixture: &Fixture) -> WorkDirectory {
    let work = fixture.store.work_directory().unwrap();
    work.directory("fs").unwrap();
    let fs = work.path().join("fs");
    fs::create_dir(fs.join("etc")).unwrap();
    fs::write(fs.join("etc/first"), content(3_000_000)).unwrap();
    fs::hard_link(fs.join("etc/first"), fs.join("etc/link")).unwrap();
    fs::write(fs.join("last"), content(1_000_001)).unwrap();
    for path in ["etc/first", "etc", "last", "."] {
        let file = fs::File::open(fs.join(path)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(7)).unwrap();
    }
    work
}

/// The way in which the compressed bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Reads,
    /// It reads nothing, and stays.
    Hangs,
    Fails,
}

/// Makes the layer of [`upper`] and compresses it in the same pass. Returns the bytes that were read, too.
fn pass(
    fixture: &Arc<Fixture>,
    packing: Packing,
    jobs: NonZeroUsize,
    sink: Sink,
) -> (StoredLayer, PackedRecord, Vec<u8>) {
    let store = &fixture.store;
    let work = upper(fixture);
    let upper = fs::File::open(work.path().join("fs")).unwrap();
    let changed = store.list_upper(upper.as_fd(), &[], &OPTIONS).unwrap();
    let (packer, mut reader) = store.tar_packer(packing, jobs).unwrap();
    let mut observer = Observer::new(fixture, packer, usize::MAX);
    thread::scope(|scope| {
        let (kept, reading) = match sink {
            Sink::Reads => {
                let read = move || {
                    let mut read = Vec::new();
                    reader.read_to_end(&mut read).map(|_n_bytes| read).unwrap()
                };
                (None, Some(scope.spawn(read)))
            }
            Sink::Hangs => (Some(reader), None),
            Sink::Fails => {
                drop(reader);
                (None, None)
            }
        };
        let observer_of_tar: Option<&mut dyn TarObserver> = Some(&mut observer);
        let upper = upper.as_fd();
        let made = store.layer_from_upper(&work, upper, &changed, &OPTIONS, observer_of_tar);
        let made = made.unwrap();
        assert_eq!((observer.diff_id, observer.was_known), (Some(made.diff_id), false));
        assert_eq!(u64::try_from(observer.n_bytes).unwrap(), made.record.tar_bytes);
        let packer = observer.packer.take().unwrap();
        let record = store.finish_packing(made.diff_id, packer).unwrap();
        drop(kept);
        (made, record, reading.map_or_else(Vec::new, |reading| reading.join().unwrap()))
    })
}

fn blob_of(fixture: &Fixture, record: &PackedRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    fixture.store.open_checked_blob(record.blob).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn layer_packed_while_it_is_hashed_is_the_blob_that_is_packed_afterwards() {
    for packing in [Packing::GZIP, Packing::ZSTD, Packing::Gzip { level: 0 }] {
        let later = Arc::new(Fixture::new());
        let work = upper(&later);
        let fs = fs::File::open(work.path().join("fs")).unwrap();
        let changed = later.store.list_upper(fs.as_fd(), &[], &OPTIONS).unwrap();
        let made = later.store.layer_from_upper(&work, fs.as_fd(), &changed, &OPTIONS, None);
        let made = made.unwrap();
        let want = later.store.pack(made.diff_id, packing, jobs(1)).unwrap();
        for (sink, n_threads) in [(Sink::Reads, 2), (Sink::Hangs, 1), (Sink::Fails, 3)] {
            let fixture = Arc::new(Fixture::new());
            let (layer, record, read) = pass(&fixture, packing, jobs(n_threads), sink);
            assert_eq!((&layer, &record), (&made, &want), "{packing:?} {sink:?}");
            let blob = blob_of(&fixture, &record);
            assert!(blob == blob_of(&later, &want), "{packing:?} {sink:?}");
            assert!(sink != Sink::Reads || read == blob, "{packing:?}");
            assert_eq!(fixture.store.find_packed(layer.diff_id, packing).unwrap(), Some(record));
        }
    }
}

/// Returns the number of unfinished blobs in the store.
fn drafts(fixture: &Fixture) -> usize {
    let left = walkdir::WalkDir::new(fixture.path("store/tmp")).into_iter().map(Result::unwrap);
    let files = left.filter(|entry| entry.file_type().is_file());
    files.filter(|entry| fs::read(entry.path()).unwrap().starts_with(&[0x1f, 0x8b])).count()
}

#[test]
fn packing_that_is_given_up_does_not_fail_the_layer() {
    let fixture = Arc::new(Fixture::new());
    let work = upper(&fixture);
    let fs = fs::File::open(work.path().join("fs")).unwrap();
    let changed = fixture.store.list_upper(fs.as_fd(), &[], &OPTIONS).unwrap();
    let (packer, mut reader) = fixture.store.tar_packer(Packing::GZIP, jobs(2)).unwrap();
    let mut observer = Observer::new(&fixture, packer, 2_000_000);
    let observer_of_tar: Option<&mut dyn TarObserver> = Some(&mut observer);
    let made =
        fixture.store.layer_from_upper(&work, fs.as_fd(), &changed, &OPTIONS, observer_of_tar);
    let made = made.unwrap();
    assert!(observer.packer.is_none());
    // A reader must not take the bytes so far for the blob.
    reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(drafts(&fixture), 0);
    assert!(fixture.store.packed(made.diff_id).unwrap().is_empty());
}

#[test]
fn file_that_changes_fails_the_layer_and_its_packing() {
    let fixture = Arc::new(Fixture::new());
    let work = upper(&fixture);
    let fs = fs::File::open(work.path().join("fs")).unwrap();
    let changed = fixture.store.list_upper(fs.as_fd(), &[], &OPTIONS).unwrap();
    fs::write(work.path().join("fs/last"), "short").unwrap();
    let (packer, mut reader) = fixture.store.tar_packer(Packing::GZIP, jobs(2)).unwrap();
    let mut observer = Observer::new(&fixture, packer, usize::MAX);
    let observer_of_tar: Option<&mut dyn TarObserver> = Some(&mut observer);
    let made =
        fixture.store.layer_from_upper(&work, fs.as_fd(), &changed, &OPTIONS, observer_of_tar);
    assert!(matches!(made.unwrap_err(), StoreError::Layer(_)));
    assert_eq!(observer.diff_id, None);
    drop(observer);
    reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(drafts(&fixture), 0);
}

/// A build whose events are read while it runs.
struct Building {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    events: Vec<Value>,
}

impl Building {
    fn start(env: &Env, args: &[&str]) -> Self {
        let args = [&["build", "context", "--progress=json"], args].concat();
        let mut command = env.command_in("store", &args);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, events: Vec::new() }
    }

    /// Reads events until one of this kind about the first step whose name contains `name`.
    fn wait_for(&mut self, kind: &str, name: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "{:#?}", self.events);
            let event: Value = serde_json::from_str(&line).unwrap();
            let is_kind = event["event"] == kind;
            self.events.push(event);
            let has_name =
                |event: &&Value| event["name"].as_str().is_some_and(|own| own.contains(name));
            let step = self.events.iter().find(has_name).map(|event| event["step"].clone());
            if is_kind && step.is_some() && step == self.events.last().map(|it| it["step"].clone())
            {
                return;
            }
        }
    }

    /// Waits for the end; returns the exit status and the rest of the events.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn count(proxy: &Proxy, start: &str) -> usize {
    proxy.lines().iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn priv_upload_begins_before_the_layer_is_hashed() {
    let Some(who) = Who::root() else { return };
    let (env, registry) = (Env::of(who), DockerRegistry::open());
    env.base();
    let proxy = Proxy::new(registry.host(), |_| Fault::None);
    // The second file takes long to hash.
    env.write(
        "Dockerfile",
        "FROM base:1\nRUN head -c 9000000 /dev/urandom > /first && \
         dd of=/large bs=1M seek=32768 count=0\n",
    );
    let name = format!("{}/app:1", proxy.host());
    let mut building = Building::start(&env, &["-t", &name, "--push"]);
    building.wait_for("step_finished", "RUN head");
    wait_until("sent", || count(&proxy, "PATCH /v2/app/blobs/uploads/") == 1);
    let left = walkdir::WalkDir::new(env.path("store/tmp")).into_iter().flatten();
    let large: Vec<_> = left.filter(|entry| entry.file_name() == "large").collect();
    assert_eq!(large.len(), 1, "the layer is hashed already");
    fs::OpenOptions::new().write(true).open(large[0].path()).unwrap().set_len(0).unwrap();
    let (code, rest) = building.end();
    assert_eq!(code, Some(3), "{rest}");
    assert!(rest.contains("/large is not"), "{rest}");
    let lines = proxy.lines();
    assert_eq!(count(&proxy, "PUT "), 0, "{lines:#?}");
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn registry_that_hangs_does_not_delay_the_layer() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    let (has_come, goes_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let proxy = {
        let (has_come, goes_on) = (Arc::clone(&has_come), Arc::clone(&goes_on));
        Proxy::new(registry.host(), move |head| {
            if head.line().starts_with("PATCH ") {
                has_come.store(true, Ordering::SeqCst);
                wait_until("released", || goes_on.load(Ordering::SeqCst));
            }
            Fault::None
        })
    };
    // More than all buffers on the way to the registry.
    let file = "FROM base:1\nRUN head -c 40000000 /dev/urandom > /large\nRUN test -s /large\n";
    env.write("Dockerfile", file);
    let name = format!("{}/app:1", proxy.host());
    let mut building = Building::start(&env, &["-t", &name, "--push"]);
    building.wait_for("step_layer", "RUN head");
    wait_until("sent", || has_come.load(Ordering::SeqCst));
    goes_on.store(true, Ordering::SeqCst);
    let (code, rest) = building.end();
    assert_eq!(code, Some(0), "{rest}");
    // The config, and the layers of the base image and of two steps.
    let counts = (count(&proxy, "PATCH "), count(&proxy, "PUT /v2/app/blobs/uploads/"));
    assert_eq!(counts, (1, 4), "{:#?}", proxy.lines());
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn upload_that_fails_is_repeated_after_the_layer_is_hashed() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    let failed = AtomicBool::new(false);
    let proxy = Proxy::new(registry.host(), move |head| {
        let is_first = || !failed.swap(true, Ordering::SeqCst);
        match head.line().starts_with("PATCH ") && is_first() {
            true => Fault::Status(403, None),
            false => Fault::None,
        }
    });
    let name = format!("{}/app:1", proxy.host());
    let file = "FROM base:1\nRUN head -c 12000000 /dev/urandom > /large\n";
    env.build(file, &["-t", &name, "--push"]).ok();
    let counts = (count(&proxy, "PATCH "), count(&proxy, "PUT /v2/app/blobs/uploads/"));
    assert_eq!(counts, (2, 3), "{:#?}", proxy.lines());
    Env::new().rbuild(&["pull", &name]).ok();
}

/// Two steps leave the same layer, in stages that run at once. The first is in the cache alone.
const EQUAL: &str = "FROM base:1 AS other\n\
    RUN --mount=target=/c cp /c/large /copy && touch -d @7 /copy\n\
    FROM base:1\n\
    RUN --mount=target=/c true && cp /c/large /copy && touch -d @7 /copy\n\
    COPY --from=other /copy /again\n";

#[test]
fn equal_layers_become_one_blob_and_a_known_one_is_not_completed_again() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    env.write("large", content(12_000_000));
    let proxy = Proxy::new(registry.host(), |_| Fault::None);
    let host = proxy.host();
    let (name, cache) = (format!("{host}/app:1"), format!("type=registry,ref={host}/cache:1"));
    let to = format!("{cache},mode=max");
    let args = ["-t", name.as_str(), "--push", "--cache-to", &to];
    env.build(EQUAL, &args).ok();
    let large = |registry: &DockerRegistry| {
        // Other names are those of uploads.
        let is_large = |(name, n_bytes): &(String, u64)| name.len() == 64 && *n_bytes > 3_000_000;
        registry.blobs().into_iter().filter(is_large).count()
    };
    let puts = |repository: &str| count(&proxy, &format!("PUT /v2/{repository}/blobs/uploads/"));
    // The large layer, that of the COPY, the base image's and the config; the document of the cache.
    assert_eq!((large(&registry), puts("app") + puts("cache")), (2, 5), "{:#?}", proxy.lines());

    let before = proxy.lines().len();
    env.build(EQUAL, &[&args[..], &["--no-cache"]].concat()).ok();
    assert_eq!(large(&registry), 2);
    let new: Vec<String> = proxy.lines().split_off(before);
    let puts = new.iter().filter(|line| line.starts_with("PUT ") && line.contains("/blobs/"));
    // The document and the config have new times.
    assert!(puts.count() <= 2, "{new:#?}");
}
