//! Base images whose files no step needs: their layers are not pulled.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::path::PathBuf;

use rbuild::image::verify_layout;
use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::registry::DockerRegistry;

/// A base image in a registry, and stores that do not have it.
struct Scene {
    env: Env,
    base: String,
    /// The digest of the base's only layer in the registry.
    layer: String,
}

impl Scene {
    fn new(registry: &DockerRegistry) -> Self {
        let env = Env::new();
        env.base();
        let base = format!("{}/base:1", registry.host());
        let push = ["-t", &base, "--push", "--target", "base"];
        env.build("FROM base:1 AS base\n", &push).ok();
        let shown = skopeo(&env, &["inspect", "--raw", "--tls-verify=false"], &base);
        let layer = shown["layers"][0]["digest"].as_str().unwrap().to_owned();
        Self { env, base, layer }
    }

    /// Builds on the base in another store, without a RUN.
    fn build(&self, store: &str, args: &[&str]) -> Done {
        self.env.write(
            "Dockerfile",
            format!("FROM {}\nCOPY --link file /\nCMD [\"true\"]\n", self.base),
        );
        self.env.write("file", "new\n");
        let all = [&["build", "context"], args].concat();
        Done::of(self.env.command_in(store, &all).output().unwrap()).ok()
    }

    fn blob(&self, store: &str) -> PathBuf {
        self.env.path(store).join("blobs/sha256").join(self.layer.trim_start_matches("sha256:"))
    }
}

fn skopeo(env: &Env, args: &[&str], name: &str) -> Value {
    let image = format!("docker://{name}");
    let done = Done::of(env.program("skopeo").args(args).arg(image).output().unwrap()).ok();
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn base_is_mounted_in_its_own_registry_and_streamed_to_another() {
    let (own, other) = (DockerRegistry::open(), DockerRegistry::open());
    let scene = Scene::new(&own);
    for (store, registry) in [("second", &own), ("third", &other)] {
        let name = format!("{}/team/app:1", registry.host());
        let done = scene.build(store, &["-t", &name, "--push"]);
        assert!(!done.stderr.contains("[internal] pull"), "{}", done.stderr);
        assert!(!scene.blob(store).exists(), "the base's layer is in the store");
        let pushed = skopeo(&scene.env, &["inspect", "--raw", "--tls-verify=false"], &name);
        assert_eq!(pushed["layers"][0]["digest"], *scene.layer);
        let image = format!("docker://{name}");
        let args = ["--insecure-policy", "copy", "--src-tls-verify=false", &image];
        let copied = format!("oci:copied-{store}:1");
        Done::of(scene.env.program("skopeo").args(args).arg(&copied).output().unwrap()).ok();
        let copied = scene.env.path(&format!("copied-{store}"));
        assert_eq!(verify_layout(&copied).unwrap().len(), 1);
    }
}

#[test]
fn base_is_fetched_when_the_image_is_written_out() {
    let own = DockerRegistry::open();
    let scene = Scene::new(&own);
    scene.build("second", &["-t", "app:1"]);
    assert!(!scene.blob("second").exists(), "the base's layer is in the store");
    let done = scene.build("second", &["-o", "type=oci,tar=false,dest=layout", "-o", "files"]);
    assert!(done.stderr.contains("[internal] pull layer"), "{}", done.stderr);
    verify_layout(&scene.env.path("layout")).unwrap();
    assert!(scene.env.path("files/bin/busybox").exists());
    // An image that `prune` keeps can be exported, although its base was never pulled.
    scene.build("third", &["-t", "app:1"]);
    let prune = scene.env.command_in("third", &["prune"]).output().unwrap();
    Done::of(prune).ok();
    scene.build("third", &["-o", "again"]);
    assert!(scene.env.path("again/bin/busybox").exists());
}

#[test]
fn image_on_a_base_that_stayed_away_is_itself_a_base() {
    let own = DockerRegistry::open();
    let scene = Scene::new(&own);
    scene.build("second", &["-t", "app:1"]);
    assert!(!scene.blob("second").exists(), "the base's layer is in the store");
    scene.env.write("Dockerfile", "FROM app:1\nRUN test -x /bin/busybox && cat /file > /seen\n");
    let build = ["build", "context", "-o", "files"];
    Done::of(scene.env.command_in("second", &build).output().unwrap()).ok();
    assert_eq!(std::fs::read_to_string(scene.env.path("files/seen")).unwrap(), "new\n");
}
