//! The image room: what it writes, read back by its own `verify` and by the tools of others.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may start programs, and ends by a panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rbuild::archive::Packing;
use rbuild::image::{self, ExportOptions, Image, Target};
use rbuild::oci::{Digest, Reference};
use rbuild::registry::{Client, Options};
use serde_json::Value;

use crate::support::image::{Fixture, jobs};
use crate::support::registry::DockerRegistry;

fn options() -> ExportOptions {
    ExportOptions {
        packing: Packing::GZIP,
        force_packing: false,
        docker_media_types: false,
        jobs: jobs(2),
        names: vec![reference("app:1")],
        created: Some("2023-11-14T22:13:20Z".to_owned()),
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn client() -> Client {
    Client::new(Options {
        mirrors: BTreeMap::new(),
        plain_http: BTreeSet::new(),
        docker_config: None,
        user_agent: "rbuild-tests".to_owned(),
        retries: 2,
        first_delay: Duration::from_millis(1),
    })
    .unwrap()
}

/// What a program that must succeed writes to its standard output.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("these tests need `{program}`: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn skopeo(args: &[&str]) -> Value {
    json(&run("skopeo", args))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The layers' packed sizes and the like differ between tools; what they hold does not.
fn diff_ids(config: &Value) -> Vec<String> {
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn diff_ids_of(image: &Image) -> Vec<String> {
    image.layers().iter().map(|layer| layer.diff_id.to_string()).collect()
}

#[test]
fn an_oci_archive_is_read_by_skopeo() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("app.tar");
    let written =
        image::export(&fixture.store, &image, &Target::OciArchive(path.clone()), &options())
            .unwrap();
    let source = format!("oci-archive:{}:1", shown(&path));
    let inspected = skopeo(&["inspect", &source]);
    assert_eq!(inspected["Digest"], written.digest.to_string());
    assert_eq!(inspected["Architecture"], "amd64");
    let config = skopeo(&["inspect", "--config", &source]);
    assert_eq!(diff_ids(&config), diff_ids_of(&image));
    // A copy unpacks every layer and compares it with the config.
    let copy = format!("dir:{}", shown(&fixture.path("copy")));
    run("skopeo", &["copy", "-q", "--dest-decompress", &source, &copy]);
}

#[test]
fn the_entries_of_an_archive_are_sorted_and_say_nothing_of_who_made_it() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("app.tar");
    image::export(&fixture.store, &image, &Target::DockerArchive(path.clone()), &options())
        .unwrap();
    let listed = run("tar", &["--utc", "--numeric-owner", "-tvf", &shown(&path)]);
    let lines: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line[5]).collect();
    assert_eq!(names[..2], ["blobs/", "blobs/sha256/"]);
    assert_eq!(names[names.len() - 3..], ["index.json", "manifest.json", "oci-layout"]);
    assert!(names.is_sorted(), "{names:?}");
    assert!(lines.iter().all(|line| line[1] == "0/0"), "{listed}");
    assert!(lines.iter().all(|line| line[3..5] == ["1970-01-01", "00:00"]), "{listed}");
    assert!(lines.iter().all(|line| ["drwxr-xr-x", "-rw-r--r--"].contains(&line[0])), "{listed}");
}

#[test]
fn the_same_image_gives_the_same_archive_with_any_number_of_threads() {
    let bytes = |n_jobs: usize| {
        let fixture = Fixture::new();
        let image = fixture.usual_image();
        let path = fixture.path("app.tar");
        let options = ExportOptions { jobs: jobs(n_jobs), ..options() };
        image::export(&fixture.store, &image, &Target::OciArchive(path.clone()), &options).unwrap();
        Digest::of(&std::fs::read(path).unwrap())
    };
    assert_eq!(bytes(1), bytes(8));
}

#[test]
fn a_pushed_image_is_what_skopeo_reads() {
    let fixture = Fixture::new();
    let registry = DockerRegistry::open();
    let image = fixture.usual_image();
    let name = reference(&format!("{}/team/app:1", registry.host()));
    let sent = AtomicU64::new(0);
    let count = |more| {
        sent.fetch_add(more, Ordering::Relaxed);
    };
    let push = |name: &Reference, from: &[Reference]| {
        image::push(&fixture.store, &client(), &image, name, from, &options(), &count).unwrap()
    };
    let digest = push(&name, &[]);
    let first = sent.swap(0, Ordering::Relaxed);
    let packed = image::pack(&fixture.store, &image, &options()).unwrap();
    assert_eq!(digest, packed.digest());
    let mut sizes: Vec<(Digest, u64)> =
        packed.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
    sizes.push((packed.config.digest, packed.config.size));
    sizes.sort();
    sizes.dedup();
    assert_eq!(first, sizes.iter().map(|(_, size)| size).sum::<u64>());

    let source = format!("docker://{name}");
    let inspected = skopeo(&["inspect", "--tls-verify=false", &source]);
    assert_eq!(inspected["Digest"], digest.to_string());
    let copy = format!("oci-archive:{}:1", shown(&fixture.path("copy.tar")));
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &copy]);
    let config = skopeo(&["inspect", "--config", &copy]);
    assert_eq!(diff_ids(&config), diff_ids_of(&image));

    // What is there is not sent again; what another repository has is mounted.
    assert_eq!(push(&name, &[]), digest);
    assert_eq!(sent.swap(0, Ordering::Relaxed), 0);
    let other = reference(&format!("{}/team/other:1", registry.host()));
    let nothing = reference(&format!("{}/team/nothing:1", registry.host()));
    assert_eq!(push(&other, &[nothing, name]), digest);
    assert_eq!(sent.swap(0, Ordering::Relaxed), packed.config.size);
}
