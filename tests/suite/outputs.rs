//! Outputs with their attributes, the image names that they set, and annotations.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::images::Layout;
use crate::support::registry::DockerRegistry;

const APP: &str = "FROM base:1\nRUN echo 1 > /one\n";
/// A Dockerfile for any number of platforms.
const ANY: &str = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /\n";
const BOTH: &str = "linux/amd64,linux/arm64";

fn env() -> Env {
    let env = Env::new();
    env.base();
    env.write("f", "content");
    env
}

fn names(env: &Env) -> Vec<String> {
    let listed = env.rbuild(&["images"]).ok().stdout;
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let names = listed.lines().skip(1).filter_map(name);
    names.filter(|name| name != "base:1").collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn raw(env: &Env, name: &str) -> Value {
    let remote = format!("docker://{name}");
    let args = ["inspect", "--raw", "--tls-verify=false", &remote];
    let done = Done::of(env.program("skopeo").args(args).output().unwrap()).ok();
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn priv_an_image_is_pushed_without_a_tag() {
    let (env, registry) = (env(), DockerRegistry::open());
    let name = format!("{}/team/app", registry.host());
    let output =
        format!("type=image,name={name},push-by-digest=true,name-canonical=true,push=true");
    let done = env.build(APP, &["-o", &output, "--metadata-file", "meta.json"]).ok();
    let meta = json(&env.path("meta.json"));
    let pinned = format!("{name}@{}", meta["containerimage.digest"].as_str().unwrap());
    assert!(done.stderr.contains(&format!("pushed {pinned}\n")), "{}", done.stderr);
    assert!(!done.stderr.contains("latest"), "{}", done.stderr);
    assert_eq!(meta["image.name"], pinned.as_str());
    assert_eq!(raw(&env, &pinned)["layers"].as_array().unwrap().len(), 2);
    let tags = ["list-tags", "--tls-verify=false", &format!("docker://{name}")];
    let listed = env.program("skopeo").args(tags).output().unwrap();
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("latest"));
    assert_eq!(names(&env), std::slice::from_ref(&pinned));
    // The store has the image under that name.
    env.write("Dockerfile", format!("FROM {pinned}\nRUN cat /one\n"));
    env.rbuild(&["build", "context"]).ok();
    env.rbuild(&["rmi", &pinned]).ok();

    let tagged = format!("type=registry,name={name}:1,push-by-digest=true");
    env.build(APP, &["-o", &tagged]).fails(2, &["push-by-digest needs names without a tag"]);
}

#[test]
fn priv_outputs_say_which_names_the_store_keeps() {
    let (env, registry) = (env(), DockerRegistry::open());
    let remote = |tag: &str| format!("{}/app:{tag}", registry.host());
    env.build(APP, &["-t", "a:1", "-o", "type=cacheonly"]).ok();
    assert_eq!(names(&env), Vec::<String>::new());
    env.build(APP, &["-t", &remote("1"), "-o", "type=registry,store=false"]).ok();
    assert_eq!(names(&env), Vec::<String>::new());
    let several = format!("type=image,\"name={},{}\",push=true", remote("2"), remote("3"));
    env.build(APP, &["-t", "a:1", "-o", &several, "-o", "type=oci,dest=x.tar,name=other:5"]).ok();
    assert_eq!(names(&env), [remote("2"), remote("3"), "a:1".to_owned()]);
    for tag in ["1", "2", "3"] {
        assert_eq!(raw(&env, &remote(tag))["layers"].as_array().unwrap().len(), 2, "{tag}");
    }
    let done = Done::of(env.command_in("other", &["load", "-i", "x.tar"]).output().unwrap()).ok();
    assert_eq!(done.stdout, "Loaded image: other:5\n");
    for name in [remote("2"), remote("3"), "a:1".to_owned()] {
        env.rbuild(&["rmi", &name]).ok();
    }
    env.build(APP, &["-o", "type=image,dangling-name-prefix=built,unpack=true"]).ok();
    let found = names(&env);
    assert!(found.len() == 1 && found[0].starts_with("built@sha256:"), "{found:?}");
    // Layers are unpacked even if nothing else needs their directories.
    let config: Value =
        serde_json::from_str(&env.rbuild(&["inspect", "--json", &found[0]]).ok().stdout).unwrap();
    for layer in config["Layers"].as_array().unwrap() {
        let hex = layer.as_str().unwrap().trim_start_matches("sha256:");
        assert!(env.path("store/layers").join(hex).join("fs").is_dir());
    }
}

#[test]
fn files_of_platforms_are_apart_or_together() {
    let env = env();
    env.build(ANY, &["--platform", BOTH, "-o", "type=local,dest=together,platform-split=false"])
        .ok();
    assert!(env.path("together/f").is_file());
    env.build(ANY, &["-o", "type=local,dest=apart,platform-split=true"]).ok();
    assert!(env.path("apart/linux_amd64/f").is_file());
    let piped = env.build(ANY, &["-o", "type=tar"]).ok();
    assert!(piped.stdout.contains("content"));
    env.build(ANY, &["--platform", BOTH, "-o", "type=tar,platform-split=false"])
        .fails(2, &["needs type=local"]);
}

#[test]
fn mode_delete_leaves_nothing_but_the_image_in_the_directory() {
    const FILES: &str = "FROM scratch\nCOPY f /d/f\nCOPY f /\n";
    let env = env();
    let output = "type=local,dest=out,mode=delete";
    env.build(FILES, &["-o", output])
        .fails(2, &["mode=delete", "out", "--allow buildx.local.delete"]);
    assert!(!env.path("out").exists());
    env.build(FILES, &["-o", "out"]).ok();
    let listing = |directory: &str| {
        let mut found = Vec::new();
        let mut left = vec![env.path(directory)];
        while let Some(at) = left.pop() {
            for entry in fs::read_dir(at).unwrap().flatten() {
                found.push(entry.path());
                left.extend(entry.file_type().unwrap().is_dir().then(|| entry.path()));
            }
        }
        found.sort();
        found
    };
    let image = listing("out");
    fs::create_dir(env.path("kept")).unwrap();
    fs::write(env.path("kept/file"), "kept").unwrap();
    let directory = image.iter().find(|path| path.is_dir()).unwrap();
    fs::create_dir_all(directory.join("old/deep")).unwrap();
    fs::write(directory.join("old/deep/file"), "old").unwrap();
    fs::write(env.path("out/old"), "old").unwrap();
    // What a link leads to is not removed.
    std::os::unix::fs::symlink(env.path("kept"), env.path("out/link")).unwrap();
    let allow = ["--allow", "buildx.local.delete"];
    env.build(FILES, &[&["-o", output], &allow[..]].concat()).ok();
    assert_eq!(listing("out"), image);
    assert_eq!(fs::read_to_string(env.path("kept/file")).unwrap(), "kept");
    // With a directory for each platform, others go, too.
    let split = "type=local,dest=out,mode=delete,platform-split=true";
    env.build(FILES, &[&["-o", split], &allow[..]].concat()).ok();
    let names: Vec<_> = fs::read_dir(env.path("out")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn outputs_may_have_an_epoch_of_their_own() {
    let env = env();
    let created = |args: &[&str]| {
        env.build(ANY, &[&["-t", "app:1"], args].concat()).ok();
        let shown = env.rbuild(&["inspect", "--json", "app:1"]).ok().stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["Created"].clone()
    };
    let output = "type=oci,dest=a,source-date-epoch=1700000000";
    assert_eq!(created(&["-o", output]), "2023-11-14T22:13:20Z");
    assert_eq!(created(&["-o", output, "--build-arg=SOURCE_DATE_EPOCH=1"]), "2023-11-14T22:13:20Z");
    env.build(ANY, &["-o", output, "-o", "type=oci,dest=b"])
        .fails(2, &["all outputs need the same source-date-epoch"]);
}

#[test]
fn annotations_stand_where_they_were_asked_for() {
    let (env, registry) = (env(), DockerRegistry::open());
    let name = format!("{}/app:1", registry.host());
    let args = [
        "--platform",
        BOTH,
        "-t",
        &name,
        "--push",
        "-o",
        "type=oci,tar=false,dest=layout,annotation.only.here=yes",
        "--annotation",
        "org.example.a=1",
        "--annotation",
        "manifest[linux/arm64]:org.example.arm=2",
        "--annotation",
        "index,manifest-descriptor:org.example.b=3",
        "--annotation",
        "index-descriptor:org.example.c=4",
    ];
    env.build(ANY, &args).ok();
    let check = |index: &Value, manifest: &dyn Fn(&str) -> Value, only_here: bool| {
        assert_eq!(index["annotations"]["org.example.b"], "3", "{index}");
        for (at, arm) in [(0, Value::Null), (1, "2".into())] {
            let entry = &index["manifests"][at];
            assert_eq!(entry["annotations"]["org.example.b"], "3", "{index}");
            let manifest = manifest(entry["digest"].as_str().unwrap());
            assert_eq!(manifest["annotations"]["org.example.a"], "1", "{manifest}");
            assert_eq!(manifest["annotations"]["org.example.arm"], arm, "{manifest}");
            assert_eq!(manifest["annotations"]["only.here"] == "yes", only_here, "{manifest}");
        }
    };
    let remote = |digest: &str| raw(&env, &format!("{}/app@{digest}", registry.host()));
    check(&raw(&env, &name), &remote, false);
    let blob = |digest: &str| {
        json(&env.path("layout/blobs/sha256").join(digest.trim_start_matches("sha256:")))
    };
    let top = json(&env.path("layout/index.json"));
    assert_eq!(top["manifests"][0]["annotations"]["org.example.c"], "4", "{top}");
    check(&blob(top["manifests"][0]["digest"].as_str().unwrap()), &blob, true);

    // The annotations belong to the image: it keeps them when it is pushed, saved and loaded.
    let again = format!("{}/app:2", registry.host());
    env.rbuild(&["tag", &name, &again]).ok();
    env.rbuild(&["push", &again]).ok();
    check(&raw(&env, &again), &remote, false);
    env.rbuild(&["save", "--format", "oci", &name, "-o", "saved.tar"]).ok();
    let other = |args: &[&str]| Done::of(env.command_in("other", args).output().unwrap()).ok();
    other(&["load", "-i", "saved.tar"]);
    let third = format!("{}/app:3", registry.host());
    other(&["tag", &name, &third]);
    other(&["push", &third]);
    check(&raw(&env, &third), &remote, false);
}

#[test]
fn annotations_that_would_stand_nowhere_are_errors() {
    let env = env();
    for (args, want) in [
        (&["--annotation", "index:a=b"][..], "needs an index"),
        (&["--annotation", "layer:a=b"], "`layer` is not a level"),
        (&["--annotation", "a"], "the format is [LEVEL:]KEY=VALUE"),
        (
            &["-o", "type=docker,dest=x,oci-mediatypes=false,annotation.a=b"],
            "do not support annotations",
        ),
        (&["-o", "type=local,dest=x,annotation.a=b"], "type=local does not support annotations"),
    ] {
        env.build(ANY, args).fails(2, &[want]);
    }
    // For a single image, annotations of the descriptor appear in the layout only.
    let args = ["--annotation", "manifest-descriptor:a=b", "-o", "type=oci,tar=false,dest=one"];
    env.build(ANY, &args).ok();
    let top = json(&env.path("one/index.json"));
    assert_eq!(top["manifests"][0]["annotations"]["a"], "b", "{top}");
}

#[test]
fn priv_outputs_without_compression_leave_no_second_copy_in_the_store() {
    let env = env();
    let file = "FROM base:1\nRUN head -c 3000000 /dev/urandom > /f\nCOPY f /one\n";
    env.build(file, &["-t", "a:1"]).ok();
    let used = || {
        let usage = env.rbuild(&["du", "--json"]).ok().stdout;
        let usage: Value = serde_json::from_str(&usage).unwrap();
        usage["Size"].as_u64().unwrap()
    };
    let before = used();
    for output in [
        "type=oci,dest=x.tar,compression=uncompressed",
        "type=docker,dest=y.tar,compression=uncompressed",
        "type=tar,dest=z.tar",
    ] {
        env.build(file, &["-o", output]).ok();
        assert!(used() < before + 100_000, "{output}: {before} {}", used());
    }
    // A layer of the same build is packed during the build, with the same result.
    let again = ["--no-cache", "-o", "type=oci,dest=out,tar=false,compression=uncompressed"];
    env.build(&file.replace("/f", "/g"), &again).ok();
    let tars: Vec<usize> = Layout::read(&env.path("out")).layers.iter().map(Vec::len).collect();
    assert!(used() < before + 3_200_000 && tars.iter().any(|n| *n > 3_000_000), "{tars:?}");
    assert_eq!(env.leftovers("store"), "");
}
