//! Images for several platforms: replacing one is reported, and a push removes none by accident.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests panic on failure")]

use std::fs;
use std::io::Cursor;

use rbuild::oci::{Descriptor, Digest, MediaType, Reference};
use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::registry::{DockerRegistry, client};

/// Needs no emulation, because nothing runs.
const FILES: &str = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n";
const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

/// Returns an environment, and the name of an image for two platforms in a registry.
fn with_index(registry: &DockerRegistry) -> (Env, String) {
    let env = Env::new();
    let name = format!("{}/m:1", registry.host());
    env.build(FILES, &[&BOTH[..], &["-t", &name, "--push"]].concat()).ok();
    (env, name)
}

fn reference(name: &str) -> Reference {
    name.parse().unwrap()
}

fn digest_of(name: &str) -> Digest {
    client().digest(&reference(name)).unwrap()
}

fn in_store(env: &Env, store: &str, args: &[&str]) -> Done {
    Done::of(env.command_in(store, args).output().unwrap())
}

/// Returns parts of the message of a push that would remove the platform `lost`.
fn lost(left: &str, lost: &str) -> [String; 4] {
    [
        format!("the push would remove {lost} from the index "),
        ", which has linux/amd64, linux/arm64, ".to_owned(),
        format!("and leave {left}; "),
        "--replace-index".to_owned(),
    ]
}

#[test]
fn a_push_of_one_platform_does_not_replace_an_index() {
    let registry = DockerRegistry::open();
    let (env, name) = with_index(&registry);
    let index = digest_of(&name);
    let pulled = env.rbuild(&["pull", &name, "--platform", "linux/arm64"]).ok();
    let said = "was for linux/amd64, linux/arm64 and is now for linux/arm64 only; the earlier image keeps its ID sha256:";
    assert!(pulled.stderr.contains(said), "{}", pulled.stderr);
    assert!(pulled.stderr.contains("--all-platforms"), "{}", pulled.stderr);
    let want = lost("linux/arm64", "linux/amd64");
    let parts: Vec<&str> = want.iter().map(String::as_str).collect();
    env.rbuild(&["push", &name]).fails(3, &parts);
    // A push that names the image by its digest is refused too.
    let own = &pulled.stdout.trim().rsplit_once(' ').unwrap().1;
    env.rbuild(&["push", &format!("{name}@{own}")]).fails(3, &parts);
    assert_eq!(digest_of(&name), index);
    env.rbuild(&["push", "--replace-index", &name]).ok();
    assert_ne!(digest_of(&name), index);
    // Replacing an image by another image is allowed.
    env.build(FILES, &["-t", &name, "--push"]).ok();
}

#[test]
fn a_build_for_fewer_platforms_does_not_replace_an_index() {
    let registry = DockerRegistry::open();
    let (env, name) = with_index(&registry);
    let index = digest_of(&name);
    let want = lost("linux/amd64", "linux/arm64");
    let parts: Vec<&str> = want.iter().map(String::as_str).collect();
    let one = format!("type=registry,name={name}");
    let other = format!("type=image,name={name},push=true");
    let amd64 = ["--platform", "linux/amd64"];
    for output in [&["-t", &name, "--push"][..], &["-o", &one], &["-o", &other]] {
        let text = format!("{FILES}COPY Dockerfile /b\n");
        let done = env.build(&text, &[&amd64[..], output].concat());
        // The push was refused before anything was built.
        assert!(!done.stderr.contains("COPY Dockerfile /b"), "{}", done.stderr);
        done.fails(3, &parts);
    }
    // An index with one image is refused too.
    let args = ["-t", &name, "--push", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"];
    env.build(FILES, &[&amd64[..], &args].concat()).fails(3, &parts);
    // Without its tag, nothing is replaced.
    let repository = name.trim_end_matches(":1");
    let by_digest = format!("type=registry,name={repository},push-by-digest=true");
    env.build(FILES, &[&amd64[..], &["-o", &by_digest]].concat()).ok();
    assert_eq!(digest_of(&name), index);
    let more = ["--platform", "linux/amd64,linux/arm64,linux/s390x", "-t", &name, "--push"];
    env.build(FILES, &more).ok();
    let all = digest_of(&name);
    assert_ne!(all, index);
    env.build(FILES, &[&BOTH[..], &["-t", &name, "--push"]].concat())
        .fails(3, &["the push would remove linux/s390x from the index "]);
    assert_eq!(digest_of(&name), all);
    let done =
        env.build(FILES, &[&amd64[..], &["-t", &name, "--push", "--replace-index"]].concat());
    let done = done.ok();
    assert!(done.stderr.contains("and is now for linux/amd64 only"), "{}", done.stderr);
    assert_ne!(digest_of(&name), all);
    env.build(FILES, &["-t", "a", "--replace-index"]).fails(2, &["--replace-index is for pushes"]);
}

/// Adds an attestation to an index, as BuildKit does. Returns the new index's digest.
fn attest(name: &str) -> Digest {
    let (client, name) = (client(), reference(name));
    let blob = |media_type: &str, bytes: &'static [u8]| {
        let blob = Descriptor::of(MediaType::from(media_type.to_owned()), bytes);
        let open = || -> std::io::Result<Box<dyn std::io::Read + Send>> {
            Ok(Box::new(Cursor::new(bytes)))
        };
        client.push_blob(&name, &blob, None, &open, &|_| {}).unwrap();
        blob
    };
    let config = blob("application/vnd.oci.image.config.v1+json", b"{}");
    let layer = blob("application/vnd.in-toto+json", b"{\"_type\":\"statement\"}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(),
        "config": config, "layers": [layer],
    })
    .to_string();
    let by_digest = name.with_digest(Digest::of(manifest.as_bytes()));
    client.push_manifest(&by_digest, &MediaType::OciManifest, manifest.as_bytes()).unwrap();
    let fetched = client.manifest(&name).unwrap();
    let mut index: Value = serde_json::from_slice(&fetched.bytes).unwrap();
    let mut entry =
        serde_json::to_value(Descriptor::of(MediaType::OciManifest, manifest.as_bytes())).unwrap();
    entry["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    entry["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    index["manifests"].as_array_mut().unwrap().push(entry);
    client.push_manifest(&name, &MediaType::OciIndex, index.to_string().as_bytes()).unwrap()
}

#[test]
fn an_index_is_pulled_and_pushed_whole() {
    let registry = DockerRegistry::open();
    let (env, name) = with_index(&registry);
    let index = attest(&name);
    let pulled = in_store(&env, "pulled", &["pull", "--all-platforms", &name]).ok();
    assert_eq!(pulled.stdout, format!("{name} {index}\n"));
    let shown = in_store(&env, "pulled", &["inspect", "--json", &name]).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let platforms: Vec<&str> = shown["Images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["Platform"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert!(shown["Images"][1]["LayerDetails"][0]["IsHere"].as_bool().unwrap());
    assert_eq!(shown["OtherEntries"], 1);
    let page = in_store(&env, "pulled", &["inspect", &name]).ok().stdout;
    assert!(page.contains("Entries that are not images, such as attestations: 1"), "{page}");
    in_store(&env, "pulled", &["store", "verify"]).ok();
    // Every platform is available to a build.
    env.write("Dockerfile", format!("FROM {name}\nCOPY Dockerfile /new\n"));
    in_store(&env, "pulled", &[&["build", "--offline", "context"], &BOTH[..]].concat()).ok();
    // The contents that `prune` keeps suffice for a push to another registry.
    in_store(&env, "pulled", &["prune", "--force"]).ok();
    let other = DockerRegistry::open();
    let copy = format!("{}/copy:1", other.host());
    in_store(&env, "pulled", &["tag", &name, &copy]).ok();
    drop(registry);
    let pushed = in_store(&env, "pulled", &["push", &copy]).ok();
    assert_eq!(pushed.stdout, format!("{copy} {index}\n"));
    in_store(&env, "fresh", &["pull", "--all-platforms", &copy]).ok();
    // Attestations refer to manifests by digest, so they do not apply to changed manifests.
    let zstd = in_store(&env, "pulled", &["push", &copy, "--compression", "zstd"]).ok();
    assert!(zstd.stderr.contains("without 1 entry of its index"), "{}", zstd.stderr);
    let saved = in_store(&env, "pulled", &["save", "--format", "oci", "-o", "saved.tar", &name]);
    assert!(saved.ok().stderr.contains("without 1 entry of its index"));
}

#[test]
fn an_image_of_a_registry_is_inspected_without_being_kept() {
    let registry = DockerRegistry::open();
    let (env, name) = with_index(&registry);
    let index = attest(&name);
    let look = |args: &[&str]| in_store(&env, "none", &[&["inspect", "--remote"], args].concat());
    let page = look(&[&name]).ok().stdout;
    for part in ["linux/amd64", "linux/arm64", &index.to_string(), "inspect --remote --platform"] {
        assert!(page.contains(part), "{page}");
    }
    let page = look(&["--platform", "linux/arm64", &name]).ok().stdout;
    for part in ["Platform   linux/arm64", "COPY Dockerfile /arm64", " compressed, in 1 layer"] {
        assert!(page.contains(part), "{page}");
    }
    let document: Value = serde_json::from_str(&look(&["--json", &name]).ok().stdout).unwrap();
    let here: Value =
        serde_json::from_str(&env.rbuild(&["inspect", "--json", &name]).ok().stdout).unwrap();
    for at in [0, 1] {
        let (there, here) = (&document["Images"][at], &here["Images"][at]);
        for member in ["Id", "Config", "Layers", "PackedBytes", "Platform"] {
            assert_eq!(there[member], here[member], "{member}");
        }
    }
    look(&["--platform", "linux/s390x", &name])
        .fails(3, &["has no image for linux/s390x, only for linux/amd64"]);
    look(&[&name.replace(":1", ":2")]).fails(3, &["cannot read", "does not exist"]);
    look(&["--pull", &name]).fails(2, &["cannot be used with"]);
    assert!(fs::symlink_metadata(env.path("none")).is_err(), "no store was made");
}

#[test]
fn names_that_change_hands_are_said() {
    let env = Env::new();
    env.build(FILES, &["-t", "a:1", "-o", "type=docker,dest=a.tar"]).ok();
    env.build(&format!("{FILES}LABEL b=c\n"), &["-t", "b:1"]).ok();
    let tagged = env.rbuild(&["tag", "b:1", "a:1"]).ok();
    let said = "a:1 was another image; the earlier image keeps its ID sha256:";
    assert!(tagged.stderr.contains(said), "{}", tagged.stderr);
    let loaded = env.rbuild(&["load", "-i", "a.tar"]).ok();
    assert!(loaded.stderr.contains(said), "{}", loaded.stderr);
    let again = env.rbuild(&["load", "-i", "a.tar"]).ok();
    assert_eq!(again.stderr, "");
    // Replacing a damaged image is not reported.
    let shown: Value =
        serde_json::from_str(&env.rbuild(&["inspect", "--json", "a:1"]).ok().stdout).unwrap();
    let manifest = shown["Manifest"].as_str().unwrap().replace(':', "/");
    rbuild::pathio::write(&env.path("store/blobs").join(manifest), b"{}").unwrap();
    let tagged = env.rbuild(&["tag", "b:1", "a:1"]).ok();
    assert_eq!(tagged.stderr, "");
}

#[test]
fn a_registry_that_does_not_answer_is_said_before_the_build() {
    let env = Env::new();
    // Port 1 is privileged: no user's program listens there.
    let names = ["-t", "127.0.0.1:1/a:1", "-t", "127.0.0.1:1/a:2", "--push"];
    let done = env.build(FILES, &names);
    let (before, after) = done.stderr.split_once("COPY Dockerfile").unwrap();
    let warning = "warning: cannot push 127.0.0.1:1/a:1: cannot reach 127.0.0.1:1;";
    assert!(before.contains(warning) && !before.contains("a:2"), "{before}");
    assert!(before.contains("the check is repeated after the build"), "{before}");
    assert!(after.contains("error: cannot push 127.0.0.1:1/a:1"), "{after}");
    done.fails(3, &["cannot reach 127.0.0.1:1"]);
}
