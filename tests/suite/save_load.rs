//! `rbuild save` and `rbuild load`: archives that other tools read, and that other tools wrote.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rbuild::oci::Digest;
use serde_json::{Value, json};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

const APP: &str = "FROM base:1\nRUN echo 1 > /one\nCMD [\"/bin/cat\", \"/one\"]\n";
const TWO_PLATFORMS: &str = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /\n";

as_root_and_as_user!(what_is_saved_is_loaded_again);

fn env_with_app(who: Who) -> (Env, String) {
    let env = Env::of(who);
    env.base();
    env.write("f", "content");
    let id = env.build(APP, &["-t", "app:1", "-q"]).ok().stdout.trim().to_owned();
    env.build("FROM base:1\nLABEL a=b\n", &["-t", "example.org/team/other:2"]).ok();
    (env, id)
}

fn in_store(env: &Env, store: &str, args: &[&str]) -> Done {
    Done::of(env.command_in(store, args).output().unwrap())
}

/// Returns the id of an image in a store.
fn id(env: &Env, store: &str, name: &str) -> String {
    let shown = in_store(env, store, &["inspect", "--json", name]).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["Id"].as_str().unwrap().to_owned()
}

fn skopeo(env: &Env, args: &[&str]) -> String {
    Done::of(env.program("skopeo").args(args).output().unwrap()).ok().stdout
}

/// Loads from standard input.
fn piped(env: &Env, store: &str, path: &Path) -> Done {
    let file = fs::File::open(path).unwrap();
    let mut command = env.command_in(store, &["load"]);
    Done::of(command.stdin(Stdio::from(file)).output().unwrap())
}

fn what_is_saved_is_loaded_again(who: Who) {
    let (env, app) = env_with_app(who);
    let other = id(&env, "store", "example.org/team/other:2");
    env.rbuild(&["tag", "app:1", "app:latest"]).ok();
    let images = ["app:1", "example.org/team/other:2", "app"];
    env.rbuild(&[&["save", "-o", "all.tar"], &images[..]].concat()).ok();
    for (name, want) in
        [("app:1", &app), ("app:latest", &app), ("example.org/team/other:2", &other)]
    {
        let source = format!("docker-archive:all.tar:{name}");
        let config = skopeo(&env, &["inspect", "--config", "--raw", &source]);
        assert_eq!(Digest::of(config.as_bytes()).to_string(), *want, "{name}");
    }
    let done = in_store(&env, "second", &["load", "-i", "all.tar"]).ok();
    let want = "Loaded image: app:1\nLoaded image: app:latest\n\
                Loaded image: example.org/team/other:2\n";
    assert_eq!(done.stdout, want);
    assert_eq!(id(&env, "second", "app"), app);

    // The base's layer is stored once, and saving the loaded images gives the same archive.
    let listed = Command::new("tar").args(["tf"]).arg(env.path("all.tar")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().filter(|line| line.starts_with("blobs/sha256/")).count(), 7);
    in_store(&env, "second", &[&["save", "-o", "again.tar"], &images[..]].concat()).ok();
    assert_eq!(fs::read(env.path("all.tar")).unwrap(), fs::read(env.path("again.tar")).unwrap());

    // An image saved by its id has no name in the archive, and gets none.
    let saved = env.command(&["save", &app]).output().unwrap();
    fs::write(env.path("nameless.tar"), &saved.stdout).unwrap();
    let done = piped(&env, "third", &env.path("nameless.tar")).ok();
    assert_eq!(done.stdout, format!("Loaded image ID: {app}\n"));
    in_store(&env, "third", &["tag", &app, "now:1"]).ok();
    // The image can be used.
    env.write("Dockerfile", "FROM now:1\nRUN cat /one > /two\n");
    in_store(&env, "third", &["build", "context"]).ok();
    assert_eq!(env.leftovers("third"), "");
}

#[test]
fn priv_archives_of_others_are_loaded_in_any_packing() {
    let (env, app) = env_with_app(Who::Caller);
    env.rbuild(&["save", "app:1", "-o", "app.tar"]).ok();
    for (kind, pack, suffix) in [
        ("docker-archive", "gzip", "gz"),
        ("docker-archive", "bzip2", "bz2"),
        ("oci-archive", "xz", "xz"),
        ("oci-archive", "zstd", "zst"),
        ("dir-of-oci", "", ""),
    ] {
        let (name, store) = (format!("{kind}.of.{suffix}.tar"), format!("store-{kind}-{suffix}"));
        let to = match kind {
            "docker-archive" => format!("docker-archive:{name}:docker.io/library/app:1"),
            "oci-archive" => format!("oci-archive:{name}:docker.io/library/app:1"),
            _ => format!("oci:{name}:app:1"),
        };
        skopeo(&env, &["copy", "-q", "docker-archive:app.tar", &to]);
        let mut path = env.path(&name);
        if !pack.is_empty() {
            let status = Command::new(pack).arg("-q").arg(&path).status().unwrap();
            assert!(status.success());
            path = env.path(&format!("{name}.{suffix}"));
        }
        let path = path.display().to_string();
        let done = in_store(&env, &store, &["load", "--input", &path]).ok();
        assert_eq!(done.stdout, "Loaded image: app:1\n", "{name}");
        // Skopeo rewrites the config of an OCI image.
        if kind == "docker-archive" {
            assert_eq!(id(&env, &store, "app:1"), app, "{name}");
        }
        env.write("Dockerfile", "FROM app:1\nRUN cat /one > /two\n");
        in_store(&env, &store, &["build", "context"]).ok();
    }
}

#[test]
fn priv_several_platforms_are_saved_and_loaded_as_an_index() {
    let env = Env::new();
    env.write("f", "content");
    let both = ["--platform", "linux/amd64,linux/arm64", "-t", "both:1"];
    env.build(TWO_PLATFORMS, &both).ok();
    env.rbuild(&["save", "both:1", "-o", "x.tar"]).fails(
        2,
        &[
            "both:1 is for several platforms (linux/amd64, linux/arm64)",
            "--platform",
            "--format oci",
        ],
    );
    env.rbuild(&["save", "both:1", "--format", "oci", "-o", "both.tar"]).ok();
    in_store(&env, "second", &["load", "-i", "both.tar"]).ok();
    let shown = |store: &str| -> Value {
        let text = in_store(&env, store, &["inspect", "--json", "both:1"]).ok().stdout;
        serde_json::from_str(&text).unwrap()
    };
    let ids = |shown: &Value| -> Vec<String> {
        let images = shown["Images"].as_array().unwrap().iter();
        images.map(|image| image["Id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&shown("second")), ids(&shown("store")));

    // One of the platforms, selected on save or on load.
    let arm = ids(&shown("store"))[1].clone();
    env.rbuild(&["save", "both:1", "--platform", "linux/arm64", "-o", "arm.tar"]).ok();
    let config = skopeo(&env, &["inspect", "--config", "--raw", "docker-archive:arm.tar"]);
    assert_eq!(Digest::of(config.as_bytes()).to_string(), arm);
    in_store(&env, "third", &["load", "-i", "both.tar", "--platform", "linux/arm64"]).ok();
    assert_eq!(shown("third")["Id"], arm.as_str());
    in_store(&env, "third", &["load", "-i", "both.tar", "--platform", "linux/s390x"])
        .fails(3, &["both.tar has no image for linux/s390x"]);
}

/// Names and contents of the files in an archive.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// Writes an archive of these files.
fn archive(path: &Path, files: Files<'_>) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        // Unchecked: the builder would reject some names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len().try_into().unwrap());
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn priv_bad_archives_are_refused_and_name_nothing() {
    let env = Env::new();
    let layer: &[u8] = &[0; 1024];
    let config = |diff_id: &Digest| {
        let rootfs = json!({ "type": "layers", "diff_ids": [diff_id] });
        json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string()
    };
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"] }]);
    let manifest = manifest.to_string();
    let (good, wrong) = (config(&Digest::of(layer)), config(&Digest::of(b"other")));
    let path = env.path("bad.tar");
    let blob = format!("blobs/sha256/{}", Digest::of(b"x").hex());
    let empty = json!({ "schemaVersion": 2, "manifests": [] }).to_string();
    let cases: [(Files<'_>, &str); 9] = [
        (&[("a", b"b")], "holds no images"),
        (&[("index.json", b"[")], "index.json in bad.tar cannot be used"),
        (&[("index.json", empty.as_bytes())], "holds no images"),
        (&[("manifest.json", b"{}")], "manifest.json in bad.tar cannot be used"),
        (
            &[("manifest.json", manifest.as_bytes())],
            "bad.tar lacks c.json, which manifest.json refers to",
        ),
        (
            &[("manifest.json", manifest.as_bytes()), ("c.json", good.as_bytes())],
            "bad.tar lacks l.tar",
        ),
        (
            &[
                ("manifest.json", manifest.as_bytes()),
                ("c.json", wrong.as_bytes()),
                ("l.tar", layer),
            ],
            "the image is damaged",
        ),
        (&[(&blob, b"y")], "is damaged"),
        (
            &[("../../c.json", good.as_bytes()), ("manifest.json", manifest.as_bytes())],
            "bad.tar lacks c.json",
        ),
    ];
    for (files, want) in cases {
        archive(&path, files);
        env.rbuild(&["load", "-i", "bad.tar"]).fails(3, &[want]);
        assert_eq!(env.rbuild(&["images"]).ok().stdout.lines().count(), 1, "{want}");
        assert!(!env.path("c.json").exists());
    }
    // The complete archive can be loaded, a truncated one cannot.
    let whole: [(&str, &[u8]); 3] =
        [("l.tar", layer), ("c.json", good.as_bytes()), ("manifest.json", manifest.as_bytes())];
    archive(&path, &whole);
    let bytes = fs::read(&path).unwrap();
    for cut in [700, 1600, 3000] {
        fs::write(&path, &bytes[..cut]).unwrap();
        env.rbuild(&["load", "-i", "bad.tar"]).fails(3, &["bad.tar"]);
    }
    fs::write(&path, &bytes).unwrap();
    let done = env.rbuild(&["load", "-i", "bad.tar"]).ok();
    assert_eq!(done.stdout, "Loaded image: x:1\n");
    env.rbuild(&["load", "-i", "nothing.tar"]).fails(3, &["cannot open nothing.tar"]);
    fs::create_dir(env.path("empty")).unwrap();
    env.rbuild(&["load", "-i", "empty"]).fails(3, &["empty holds no images"]);
}

#[test]
fn priv_links_in_an_archive_lead_only_to_its_files() {
    let env = Env::new();
    let layer: &[u8] = &[0; 1024];
    let rootfs = json!({ "type": "layers", "diff_ids": [Digest::of(layer), Digest::of(layer)] });
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string();
    let names = ["b/layer.tar", "a/layer.tar"];
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": names }]);
    for (target, works) in [("../a/layer.tar", true), ("/etc/passwd", false), ("layer.tar", false)]
    {
        let mut tar = tar::Builder::new(fs::File::create(env.path("links.tar")).unwrap());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, names[0], target).unwrap();
        for (name, content) in [
            (names[1], layer),
            ("c.json", config.as_bytes()),
            ("manifest.json", manifest.to_string().as_bytes()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len().try_into().unwrap());
            tar.append_data(&mut header, name, content).unwrap();
        }
        tar.finish().unwrap();
        drop(tar);
        let done =
            in_store(&env, target.trim_start_matches(['.', '/']), &["load", "-i", "links.tar"]);
        if works {
            assert_eq!(done.ok().stdout, "Loaded image: x:1\n");
        } else {
            done.fails(3, &["links.tar lacks b/layer.tar"]);
        }
    }
}
