//! Caches of a thousand steps, as fifty branches make them.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests read files and panic on failure"
)]

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;

use rbuild::oci::Digest;
use rbuild::pool;
use serde_json::{Value, json};

use crate::support::cache::RegistryCache;
use crate::support::env::{Done, Env};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::DockerRegistry;

/// Number of steps of one branch.
const N_STEPS: usize = 20;
const N_BRANCHES: usize = 50;
const PARALLEL_UPLOADS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// Returns 64 hexadecimal digits that depend on a text and the number of a branch.
fn other(text: &Value, branch: usize) -> String {
    Digest::of(format!("{text} {branch}").as_bytes()).hex()
}

/// A step of another branch, with its layer and its listing.
struct Copied {
    step: Value,
    layer: Value,
    listing: Value,
}

/// Returns a step as another branch has it: the same operation on other layers.
fn copied(cache: &RegistryCache, step: &Value, branch: usize) -> Copied {
    let entry = |list: &str| {
        let entries = cache.document[list].as_array().unwrap();
        entries.iter().find(|entry| entry["diffId"] == step["layer"]).unwrap().clone()
    };
    let (mut step, mut layer, mut listing) = (step.clone(), entry("layers"), entry("listings"));
    let diff_id = format!("sha256:{}", other(&step["layer"], branch));
    for key in ["definition", "content"] {
        step[key] = other(&step[key], branch).into();
    }
    step["layer"] = json!(diff_id);
    layer["content"] = other(&layer["content"], branch).into();
    let media_type = layer["blob"]["mediaType"].as_str().unwrap().to_owned();
    layer["blob"] = cache.send(&media_type, diff_id.as_bytes());
    layer["diffId"] = json!(diff_id);
    listing["diffId"] = json!(diff_id);
    Copied { step, layer, listing }
}

/// Adds the steps of other branches to a cache of one.
fn add_branches(cache: &mut RegistryCache) {
    let steps = cache.entries("steps").clone();
    assert_eq!(steps.len(), N_STEPS);
    let branches = (1..N_BRANCHES).flat_map(|branch| steps.iter().map(move |step| (step, branch)));
    let branches: Vec<(&Value, usize)> = branches.collect();
    let copies = pool::map_in_order(&branches, PARALLEL_UPLOADS, |(step, branch)| {
        copied(cache, step, *branch)
    });
    for Copied { step, layer, listing } in copies {
        cache.name_blobs([layer["blob"].clone()]);
        cache.entries("steps").push(step);
        cache.entries("layers").push(layer);
        cache.entries("listings").push(listing);
    }
    cache.entries("steps").sort_by_key(|step| step["definition"].to_string());
    assert_eq!(cache.entries("steps").len(), N_STEPS * N_BRANCHES);
}

/// Returns a Dockerfile of one branch; its step `changed` differs from that of the others.
fn dockerfile(base: &str, changed: Option<usize>) -> String {
    let mut text = format!("FROM {base}\n");
    for number in 0..N_STEPS {
        let note = if changed == Some(number) { "; true" } else { "" };
        writeln!(text, "RUN cat /proc/sys/kernel/random/uuid > /file{number}{note}").unwrap();
    }
    text
}

#[test]
fn cache_of_a_thousand_steps_costs_no_more_requests_than_one_of_twenty() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    let proxy = Proxy::new(registry.host(), |_| Fault::None);
    let host = proxy.host();
    let base = format!("{host}/base:1");
    env.build("FROM base:1\n", &["-t", &base, "--push"]).ok();
    let build = |store: &str, changed, args: &[&str]| {
        env.write("Dockerfile", dockerfile(&base, changed));
        let before = proxy.lines().len();
        let all = [&["build", "context"], args].concat();
        let done = Done::of(env.command_in(store, &all).output().unwrap()).ok();
        let made = done.steps().iter().filter(|step| !step.ends_with(": CACHED")).count();
        (made, proxy.lines().split_off(before))
    };
    let to = format!("type=registry,ref={host}/cache:small,mode=max,ignore-error=false");
    assert_eq!(build("made", None, &["--cache-to", &to, "-o", "made-files"]).0, N_STEPS);
    let mut cache = RegistryCache::read(&format!("{}/cache:small", registry.host()));
    add_branches(&mut cache);
    cache.write("large");

    for (changed, n_made) in [(None, 0), (Some(12), N_STEPS - 12)] {
        let jobs = ["small", "large"].map(|tag| {
            let from = format!("type=registry,ref={host}/cache:{tag},ignore-error=false");
            let (store, files) = (format!("{tag}-{n_made}"), format!("{tag}-{n_made}-files"));
            let (made, requests) = build(&store, changed, &["--cache-from", &from, "-o", &files]);
            assert_eq!(made, n_made, "{tag}");
            let read = |top: &str, number| {
                fs::read_to_string(env.path(&format!("{top}/file{number}"))).unwrap()
            };
            for number in 0..N_STEPS - n_made {
                assert_eq!(read(&files, number), read("made-files", number), "{tag}, {number}");
            }
            requests
        });
        assert_eq!(jobs[0].len(), jobs[1].len(), "{jobs:#?}");
    }
}
