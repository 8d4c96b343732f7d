//! Pushes and pulls as users see them: tags, digests, progress.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests panic on failure")]

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rbuild::oci::Digest;
use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{DockerRegistry, client};

fn digest_of(host: &str, rest: &str) -> Digest {
    client().digest(&format!("{host}/{rest}").parse().unwrap()).unwrap()
}

#[test]
fn layers_go_up_once_however_many_names_an_image_has() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::new(registry.host(), |_| Fault::None);
    let (env, host) = (Env::new(), proxy.host());
    env.base();
    let names = ["a:1", "a:2", "b:1"].map(|name| format!("{host}/{name}"));
    let tags: Vec<&str> = names.iter().flat_map(|name| ["-t", name.as_str()]).collect();
    let files = ["--iidfile", "iid", "--metadata-file", "metadata", "--push"];
    env.write("file", "content");
    env.build("FROM base:1\nCOPY file /\n", &[&tags[..], &files].concat()).ok();

    let lines = proxy.lines();
    let n = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    // Two layers and the config.
    assert_eq!(n("PUT /v2/a/blobs/uploads/"), 3, "{lines:?}");
    assert_eq!((n("PUT /v2/a/manifests/1"), n("PUT /v2/a/manifests/2")), (1, 1), "{lines:?}");
    let first = lines.iter().take_while(|line| *line != "PUT /v2/a/manifests/1");
    // A small layer and a config that are new are not asked for.
    assert_eq!(first.filter(|line| line.starts_with("HEAD /v2/a/blobs/")).count(), 1, "{lines:?}");
    // The other repository mounts all of them.
    assert_eq!(
        (n("POST /v2/b/blobs/uploads/"), n("PUT /v2/b/blobs/uploads/")),
        (3, 0),
        "{lines:?}"
    );
    let digests = ["a:1", "a:2", "b:1"].map(|name| digest_of(registry.host(), name));
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let metadata: Value = serde_json::from_slice(&fs::read(env.path("metadata")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], digests[0].to_string());
    assert_eq!(metadata["image.name"], names.join(","));
    let id = fs::read_to_string(env.path("iid")).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id);
}

#[test]
fn images_named_by_digest_are_pushed_unchanged() {
    let registry = DockerRegistry::open();
    let (env, host) = (Env::new(), registry.host());
    env.base();
    let name = |rest: &str| format!("{host}/{rest}");
    // A manifest that rbuild would not write by default.
    let output = "--output=type=registry,oci-mediatypes=false";
    env.build("FROM base:1\nCMD [\"x\"]\n", &["-t", &name("a:1"), output]).ok();
    let digest = digest_of(host, "a:1");

    let other = Env::new();
    other.rbuild(&["pull", &name("a:1")]).ok();
    let pushed = other.rbuild(&["push", &name(&format!("copy@{digest}"))]).ok();
    assert_eq!(pushed.stdout, format!("{host}/copy@{digest} {digest}\n"));
    other.rbuild(&["push", &name(&format!("copy:t@{digest}"))]).ok();
    assert_eq!(digest_of(host, "copy:t"), digest);
    let fetched = client().manifest(&name(&format!("copy@{digest}")).parse().unwrap()).unwrap();
    assert_eq!(fetched.media_type.as_str(), "application/vnd.docker.distribution.manifest.v2+json");

    let unknown = name(&format!("copy@{}", Digest::of(b"unknown")));
    other.rbuild(&["push", &unknown]).fails(3, &["no image ", "in the store"]);
    let args = ["push", &name(&format!("copy@{digest}")), "--compression=zstd"];
    other.rbuild(&args).fails(2, &["--compression cannot be used with a digest"]);
}

#[test]
fn transfers_of_more_than_a_second_are_shown_with_their_rate() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    // The content cannot be compressed, and exceeds the buffers of connections.
    let words = (0_u32..).flat_map(|n| Digest::of(&n.to_le_bytes()).to_string().into_bytes());
    env.write("file", words.take(30_000_000).collect::<Vec<u8>>());
    let slow = Proxy::new(registry.host(), |head| {
        let line = head.line();
        let moves = line.starts_with("PATCH ") || line.starts_with("GET /v2/a/blobs/sha256");
        if moves { Fault::Delay(Duration::from_millis(1200)) } else { Fault::None }
    });
    let name = format!("{}/a:1", slow.host());
    let pushed = env.build("FROM base:1\nCOPY file /\n", &["-t", &name, "--push"]).ok();
    let pulled = Env::new().rbuild(&["pull", &name]).ok();
    // The layer goes up while the build ends, or after it.
    for (done, what, total) in [(pushed, "push", ""), (pulled, "pull", " / ")] {
        let text = &done.stderr;
        let is_transfer =
            |line: &&str| line.contains(&format!(" [internal] {what} ")) && line.ends_with(&name);
        let has_rate = |number: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(number));
            lines.any(|line| line.ends_with("B/s") && line.contains(total))
        };
        let mut transfers = text.lines().filter(is_transfer);
        let numbered = |line: &str| has_rate(&format!("{} ", line.split(' ').next().unwrap()));
        assert!(transfers.any(numbered), "{text}");
    }
}

#[test]
fn ctrl_c_ends_a_pull_from_a_registry_that_is_silent() {
    const DELAY: Duration = Duration::from_secs(120);
    let registry = DockerRegistry::open();
    let silent =
        Proxy::new(registry.host(), |head| match head.line().starts_with("GET /v2/a/blobs") {
            true => Fault::Delay(DELAY),
            false => Fault::None,
        });
    let env = Env::new();
    env.base();
    let name = format!("{}/a:1", silent.host());
    env.build("FROM base:1\nCMD [\"x\"]\n", &["-t", &name, "--push"]).ok();

    let other = Env::new();
    other.write("Dockerfile", format!("FROM {name}\nRUN true\n"));
    let child = other.command(&["build", "context"]).stderr(Stdio::piped()).spawn().unwrap();
    while !silent.lines().iter().any(|line| line.starts_with("GET /v2/a/blobs")) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let started = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert!(started.elapsed() < DELAY, "it waited for the answer");
    done.fails(130, &["interrupted: ending the running steps", "error: interrupted"]);
    assert_eq!(other.leftovers("store"), "");
}
