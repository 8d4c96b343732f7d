//! `rbuild inspect`: the page, the document, and other tools' view of the same image.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::images::Layout;
use crate::support::normal::normal;
use crate::support::registry::DockerRegistry;

const APP: &str = "FROM base:1\n\
    ENV GREETING=hello LONG=\"two words\"\n\
    RUN echo new > /new; echo longer > /old/file; rm -r /old/directory; chmod 700 /root\n\
    COPY data /data/\n\
    RUN head -c 6000 /dev/zero > /z; ln /z /a; rm /data/small; echo 1 > /data/b\n\
    EXPOSE 80 53/udp\n\
    VOLUME /data\n\
    LABEL a=b\n\
    HEALTHCHECK --interval=30s --retries=2 CMD true\n\
    STOPSIGNAL SIGINT\n\
    USER 1000:1000\n\
    WORKDIR /data\n\
    ENTRYPOINT [\"/bin/sh\", \"-c\"]\n\
    CMD [\"echo hi\"]\n";

/// Returns a store with `base:1` and `app:1`, and the app as a layout in `layout`.
fn with_app() -> Env {
    let env = Env::new();
    env.base();
    env.write("data/big", "x".repeat(5000));
    env.write("data/small", "y".repeat(300));
    let output = ["-t", "app:1", "--reproducible", "-o", "type=oci,dest=layout,tar=false"];
    env.build(APP, &output).ok();
    env
}

fn document(env: &Env, args: &[&str]) -> Value {
    let text = env.rbuild(&[&["inspect", "--json"], args].concat()).ok().stdout;
    serde_json::from_str(&text).unwrap()
}

#[test]
fn priv_the_page_is_for_people() {
    let env = with_app();
    let page = env.rbuild(&["inspect", "app:1"]).ok().stdout;
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
    let shown = normal(&page);
    insta::assert_snapshot!("inspect", shown);
    // The id gives the same page.
    let id = document(&env, &["app:1"])["Id"].as_str().unwrap().to_owned();
    assert_eq!(env.rbuild(&["inspect", &id]).ok().stdout, page);
}

/// The effect of a layer, computed from its tar alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effect {
    n_entries: usize,
    n_added: usize,
    n_removed: usize,
    file_bytes: u64,
    wasted_bytes: u64,
}

/// Regular files by path: the layer and the path of the content, and its length.
type Files = BTreeMap<String, Option<(usize, String, u64)>>;

fn put(tar: &[u8], at: usize, files: &mut Files) -> Effect {
    let mut effect = Effect::default();
    let below = files.clone();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        effect.n_entries += 1;
        let path = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        if let Some((directory, name)) = path.rsplit_once('/').or(Some(("", &path)))
            && let Some(name) = name.strip_prefix(".wh.")
        {
            let gone =
                if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
            let inside = format!("{gone}/");
            files.retain(|path, _| *path != gone && !path.starts_with(&inside));
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let n_bytes = u64::try_from(bytes.len()).unwrap();
        effect.file_bytes += n_bytes;
        let kind = entry.header().entry_type();
        let file = if kind.is_hard_link() {
            let target = entry.link_name().unwrap().unwrap().to_string_lossy().into_owned();
            files[&target].clone()
        } else {
            kind.is_file().then(|| (at, path.clone(), n_bytes))
        };
        files.insert(path, file);
    }
    effect.n_added = files.keys().filter(|path| !below.contains_key(*path)).count();
    effect.n_removed = below.keys().filter(|path| !files.contains_key(*path)).count();
    let mut lost: Vec<_> = below.values().flatten().collect();
    lost.sort();
    lost.dedup();
    lost.retain(|file| !files.values().flatten().any(|kept| kept == *file));
    effect.wasted_bytes = lost.iter().map(|(_, _, n_bytes)| n_bytes).sum();
    effect
}

#[test]
fn priv_the_document_agrees_with_what_the_tars_hold() {
    let env = with_app();
    let shown = document(&env, &["app:1"]);
    let layout = Layout::read(&env.path("layout"));
    let details = shown["LayerDetails"].as_array().unwrap();
    assert_eq!(details.len(), layout.layers.len());
    let mut files = Files::new();
    for (at, (tar, layer)) in layout.layers.iter().zip(details).enumerate() {
        let effect = put(tar, at, &mut files);
        let got = Effect {
            n_entries: usize::try_from(layer["Entries"].as_u64().unwrap()).unwrap(),
            n_added: usize::try_from(layer["Added"].as_u64().unwrap()).unwrap(),
            n_removed: usize::try_from(layer["Removed"].as_u64().unwrap()).unwrap(),
            file_bytes: layer["FileBytes"].as_u64().unwrap(),
            wasted_bytes: layer["WastedBytes"].as_u64().unwrap(),
        };
        assert_eq!(got, effect, "layer {at}");
        assert_eq!(layer["Bytes"], json!(tar.len()), "layer {at}");
    }
    let changed: Vec<&Value> = details.iter().map(|layer| &layer["Changed"]).collect();
    assert_eq!(changed, [0, 2, 0, 0, 0], "/old/file and /root");
    // As registry tools see the compressed layers.
    let args = ["inspect", "--raw", "oci:layout"];
    let raw = Done::of(env.program("skopeo").args(args).output().unwrap()).ok().stdout;
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    let packed: Vec<&Value> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["size"]).collect();
    let got: Vec<&Value> = details.iter().map(|layer| &layer["PackedBytes"]).collect();
    assert_eq!(got, packed);
    assert_eq!(shown["Config"]["config"]["StopSignal"], "SIGINT");
    assert_eq!(shown["BiggestFiles"][0]["Path"], "/bin/busybox");
    let second = &shown["BiggestFiles"][1];
    assert_eq!(
        (&second["Path"], &second["Bytes"]),
        (&json!("/a"), &json!(6000)),
        "once, by its first name"
    );
    assert_eq!(shown["Names"], json!(["docker.io/library/app:1"]));
}

#[test]
fn priv_what_is_not_fetched_is_fetched_only_when_that_is_asked_for() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    let base = format!("{}/base:1", registry.host());
    env.rbuild(&["build", "base", "-t", &base, "--reproducible", "--push"]).ok();
    let fresh = |args: &[&str]| Done::of(env.command_in("fresh", args).output().unwrap());
    env.write("Dockerfile", format!("FROM {base}\nENV A=1\n"));
    fresh(&["build", "context", "-t", "app:1"]).ok();
    let page = fresh(&["inspect", "app:1"]).ok().stdout;
    assert!(page.contains("not fetched") && page.contains("inspect --pull app:1"), "{page}");
    assert!(page.contains("compressed, in 1 layer") && !page.contains("Largest"), "{page}");
    let text = fresh(&["inspect", "--json", "app:1"]).ok().stdout;
    let shown: Value = serde_json::from_str(&text).unwrap();
    let layer = &shown["LayerDetails"][0];
    assert_eq!((&layer["IsHere"], &layer["Bytes"]), (&json!(false), &Value::Null));
    assert_eq!(shown["Wasted"]["IsWhole"], false);
    let pulled = fresh(&["inspect", "--pull", "app:1"]).ok().stdout;
    assert!(pulled.contains("/bin/busybox") && !pulled.contains("not fetched"), "{pulled}");
    drop(registry);
    assert_eq!(fresh(&["inspect", "app:1"]).ok().stdout, pulled);
}

#[test]
fn priv_an_image_for_several_platforms_is_listed_and_one_is_chosen() {
    let env = Env::new();
    env.write("x", "x");
    let both = ["--platform", "linux/amd64,linux/arm64", "-t", "both:1"];
    env.build("FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\nCOPY x /\n", &both).ok();
    let page = env.rbuild(&["inspect", "both:1"]).ok().stdout;
    for part in ["  Index   sha256:", "  linux/amd64   sha256:", "  linux/arm64   sha256:"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(page.contains("inspect --platform OS/ARCH both:1"), "{page}");
    let one = env.rbuild(&["inspect", "both:1", "--platform", "linux/arm64"]).ok().stdout;
    assert!(one.contains("a=arm64") && one.contains("+1      COPY x /"), "{one}");
    let shown = document(&env, &["both:1", "--platform", "linux/arm64"]);
    assert_eq!(shown["Images"].as_array().unwrap().len(), 1);
    env.rbuild(&["inspect", "both:1", "--platform", "linux/s390x"])
        .fails(2, &["not available for linux/s390x", "--platform"]);
}
