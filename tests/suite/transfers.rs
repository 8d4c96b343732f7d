//! Transfers of a build in CI: its store is empty, and a registry has the base image and the cache.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::inotify;

use crate::support::byte_counter::ByteCounter;
use crate::support::certificates::{TokenRule, TokenServer};
use crate::support::env::{Done, Env};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{DockerRegistry, client};

/// The first step of the image makes a layer that is uploaded while it is compressed. The other stage is
/// in the cache alone.
const DOCKERFILE: &str = "FROM base:1 AS tools\n\
                          RUN cat /proc/sys/kernel/random/uuid > /tool\n\
                          FROM base:1\n\
                          RUN head -c 12000000 /dev/urandom > /dependencies\n\
                          WORKDIR /app\n\
                          COPY file .\n\
                          COPY --from=tools /tool /copied\n\
                          RUN cat file /copied > /result\n";

/// A registry that has the base image, behind a proxy that sees all requests to it.
struct Scene {
    env: Env,
    proxy: Proxy,
    registry: DockerRegistry,
}

/// The requests of a build, by method and path.
struct Requests {
    counts: BTreeMap<String, usize>,
}

impl Requests {
    fn count(&self, start: &str) -> usize {
        let matching = self.counts.iter().filter(|(line, _)| line.starts_with(start));
        matching.map(|(_, count)| count).sum()
    }

    /// Checks how many blobs are sent, and how many of them in several parts.
    fn sends(&self, blobs: usize, in_parts: usize) {
        let put = |name: &str| self.count(&format!("PUT /v2/{name}/blobs/uploads/"));
        let sent = (put("app") + put("cache"), self.count("PATCH "));
        assert_eq!(sent, (blobs, in_parts), "{:#?}", self.counts);
    }
}

impl Scene {
    fn new() -> Self {
        let (env, registry) = (Env::new(), DockerRegistry::open());
        env.base();
        let proxy = Proxy::new(registry.host(), |_| Fault::None);
        let scene = Self { env, proxy, registry };
        let base = scene.base();
        scene.env.build("FROM base:1\n", &["-t", &base, "--push"]).ok();
        scene.env.write("Dockerfile", DOCKERFILE.replace("base:1", &base));
        scene.env.write("file", "content\n");
        scene
    }

    /// Returns the name of the base image in the registry.
    fn base(&self) -> String {
        format!("{}/base:1", self.proxy.host())
    }

    /// Builds and pushes with an empty store.
    fn job(&self, store: &str) -> (Done, Requests) {
        let before = self.proxy.lines().len();
        let host = self.proxy.host();
        let (name, cache) = (format!("{host}/app:1"), format!("type=registry,ref={host}/cache:1"));
        let to = format!("{cache},mode=max");
        let from = format!("{cache},ignore-error=true");
        let args = ["-t", &name, "--push", "--cache-from", &from, "--cache-to", &to];
        let all = [&["build", "context"], &args[..]].concat();
        let done = Done::of(self.env.command_in(store, &all).output().unwrap()).ok();
        let mut counts = BTreeMap::new();
        for line in self.proxy.lines().into_iter().skip(before) {
            *counts.entry(line).or_default() += 1;
        }
        (done, Requests { counts })
    }
}

/// Returns the steps that were not cached.
fn made(done: &Done) -> Vec<String> {
    done.steps().into_iter().filter(|step| !step.ends_with(": CACHED")).collect()
}

#[test]
fn nothing_goes_up_that_the_registry_has() {
    let scene = Scene::new();
    let (_, cold) = scene.job("cold");
    // The config, six layers of which one is in the cache alone, and the cache's document.
    cold.sends(8, 1);

    let (unchanged, requests) = scene.job("unchanged");
    assert_eq!(made(&unchanged), [""; 0], "{}", unchanged.stderr);
    requests.sends(0, 0);
    // The config of the base image, and the document.
    let read = |name: &str| requests.count(&format!("GET /v2/{name}/blobs/"));
    assert_eq!((read("app"), read("base"), read("cache")), (0, 1, 1), "{:#?}", requests.counts);
    // The tag has the image: its layers are not asked for, and no document is written again.
    let asked = (requests.count("HEAD /v2/app/blobs/"), requests.count("PUT "));
    assert_eq!(asked, (0, 0), "{:#?}", requests.counts);

    scene.env.write("file", "other\n");
    let (source, requests) = scene.job("source");
    assert_eq!(made(&source).len(), 3, "{}", source.stderr);
    // The config, two layers, and the document: the copied tool is the same as before.
    requests.sends(4, 0);
}

#[test]
fn tag_that_moved_gets_the_image_again() {
    let scene = Scene::new();
    scene.job("cold");
    let name = format!("{}/app:1", scene.proxy.host());
    let in_registry = format!("{}/app:1", scene.registry.host()).parse().unwrap();
    let digest = || client().digest(&in_registry).unwrap();
    let cold = digest();
    scene.env.build("FROM scratch\nCOPY file /other\n", &["-t", &name, "--push"]).ok();
    assert_ne!(digest(), cold);
    scene.env.write("Dockerfile", DOCKERFILE.replace("base:1", &scene.base()));
    let (_, unchanged) = scene.job("unchanged");
    assert_eq!(unchanged.count("PUT /v2/app/manifests/1"), 1, "{:#?}", unchanged.counts);
    assert_eq!(digest(), cold);

    // A push by itself asks for each layer, so that it can repair a registry.
    let before = scene.proxy.lines().len();
    Done::of(scene.env.command_in("unchanged", &["push", &name]).output().unwrap()).ok();
    let lines = scene.proxy.lines().split_off(before);
    let asked = lines.iter().filter(|line| line.starts_with("HEAD /v2/app/blobs/")).count();
    assert_eq!(asked, 7, "six layers and the config: {lines:?}");
}

#[test]
fn files_of_the_context_are_read_while_a_registry_answers() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    let base = format!("{}/base:1", registry.host());
    env.build("FROM base:1\n", &["-t", &base, "--push"]).ok();
    env.write("file", "content\n");
    env.write("unused", "content\n");
    let opened = Arc::new(OpenedFile::watch(&env.path("context/file")));
    let not_needed = OpenedFile::watch(&env.path("context/unused"));
    let seen = Arc::clone(&opened);
    let proxy = Proxy::new(registry.host(), move |head| {
        if head.line().contains("/base/manifests/") {
            assert!(seen.is_opened_within(Duration::from_secs(30)), "not read meanwhile");
        }
        Fault::None
    });
    let dockerfile = format!(
        "FROM {host}/base:1 AS unneeded\nCOPY unused /\nFROM {host}/base:1\nCOPY file /\n",
        host = proxy.host()
    );
    let cache = format!("type=registry,ref={}/none:1,ignore-error=true", registry.host());
    env.write("Dockerfile", dockerfile);
    let mut build = env.command_in("fresh", &["build", "context", "--cache-from", &cache]);
    Done::of(build.output().unwrap()).ok();
    assert!(!not_needed.is_opened_within(Duration::ZERO));
}

/// Tells whether a file was opened.
struct OpenedFile {
    inotify: OwnedFd,
}

impl OpenedFile {
    fn watch(path: &Path) -> Self {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&inotify, path, inotify::WatchFlags::OPEN).unwrap();
        Self { inotify }
    }

    fn is_opened_within(&self, limit: Duration) -> bool {
        let started = Instant::now();
        let mut buffer = [MaybeUninit::uninit(); 512];
        while inotify::Reader::new(&self.inotify, &mut buffer).next().is_err() {
            if started.elapsed() >= limit {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// Bytes of a job for the heads of requests and for documents.
const OVERHEAD_BYTES: u64 = 60_000;

#[test]
fn no_byte_goes_twice() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    let counter = ByteCounter::new(registry.host());
    let host = counter.host();
    env.build("FROM base:1\n", &["-t", &format!("{host}/base:1"), "--push"]).ok();
    let base_bytes = counter.take().0;
    env.write("Dockerfile", DOCKERFILE.replace("base:1", &format!("{host}/base:1")));
    let cache = format!("type=registry,ref={host}/cache:1");
    let (app, to) = (format!("{host}/app:1"), format!("{cache},mode=max"));
    let args =
        ["build", "context", "-t", &app, "--push", "--cache-from", &cache, "--cache-to", &to];
    // The layer of 12 MB that the last step of `source` mounts.
    for (job, file, mounted_bytes) in
        [("cold", "content\n", 0), ("unchanged", "content\n", 0), ("source", "other\n", 12_000_000)]
    {
        env.write("file", file);
        let before = registry.blobs();
        Done::of(env.command_in(job, &args).output().unwrap()).ok();
        let (up, down) = counter.take();
        let new_bytes: u64 = registry
            .blobs()
            .into_iter()
            .filter(|(digest, _)| !before.contains_key(digest))
            .map(|(_, n_bytes)| n_bytes)
            .sum();
        assert!(new_bytes > 12_000_000 || job != "cold", "{new_bytes}");
        let range = new_bytes..new_bytes + OVERHEAD_BYTES;
        assert!(
            range.contains(&up) || new_bytes == 0 && up < OVERHEAD_BYTES,
            "{job}: {up} {range:?}"
        );
        let needed = mounted_bytes + if job == "unchanged" { 0 } else { base_bytes };
        assert!(down < needed + OVERHEAD_BYTES, "{job}: {down} of {needed} bytes went down");
    }
}

#[test]
fn layers_go_up_while_later_steps_run_unless_they_are_to_go_up_late() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    for (push, goes_up) in [("--push", true), ("--push=true", true), ("--push=late", false)] {
        let proxy = Proxy::new(registry.host(), |_| Fault::None);
        let dockerfile = format!("FROM base:1\nRUN echo {push} > /new\nRUN sleep 2; exit 7\n");
        let done = env.build(&dockerfile, &["-t", &format!("{}/app:1", proxy.host()), push]);
        done.fails(1, &["exit code: 7"]);
        let lines = proxy.lines();
        let sent = lines.iter().filter(|line| line.starts_with("PUT /v2/app/blobs/uploads/"));
        assert_eq!(sent.count(), usize::from(goes_up), "{push}: {lines:#?}");
        let named = lines.iter().any(|line| line.starts_with("PUT /v2/app/manifests/"));
        assert!(!named, "{push}: {lines:#?}");
    }
}

#[test]
fn one_token_serves_a_build_unless_the_server_grants_less() {
    for (rule, most) in
        [(TokenRule::All, 2), (TokenRule::GrantsFirst, 20), (TokenRule::RefusesMany, 20)]
    {
        let tokens = TokenServer::with_rule(rule);
        let registry = DockerRegistry::with_tokens(&tokens);
        let env = Env::new();
        env.base();
        let host = registry.host();
        env.build("FROM base:1\n", &["-t", &format!("{host}/base:1"), "--push"]).ok();
        env.write("Dockerfile", DOCKERFILE.replace("base:1", &format!("{host}/base:1")));
        env.write("file", "content\n");
        let cache = format!("type=registry,ref={host}/cache:1");
        let (app, to) = (format!("{host}/app:1"), format!("{cache},mode=max,ignore-error=false"));
        for job in ["cold", "unchanged"] {
            let before = tokens.n_tokens();
            let args = ["-t", &app, "--push", "--cache-from", &cache, "--cache-to", &to];
            let all = [&["build", "context"], &args[..]].concat();
            let done = Done::of(env.command_in(job, &all).output().unwrap()).ok();
            assert_eq!(made(&done).is_empty(), job == "unchanged", "{}", done.stderr);
            let n_tokens = tokens.n_tokens() - before;
            assert!(n_tokens <= most, "{rule:?}, {job}: {n_tokens} tokens");
        }
    }
}

#[test]
fn push_can_be_switched_off() {
    let env = Env::new();
    env.base();
    // No registry answers there.
    env.build("FROM base:1\nRUN true\n", &["-t", "127.0.0.1:1/app", "--push=false"]).ok();
}
