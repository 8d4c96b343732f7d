//! A pipeline: build, push, pull elsewhere, run. Other tools read the same image.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use crate::support::env::{Done, Env, Who, skip};
use crate::support::registry::DockerRegistry;

/// Owners, modes, links, removals, and a name that is too long for a tar header.
const ONE: &str = "FROM base:1
WORKDIR /srv
COPY --chown=7:8 --chmod=640 f .
RUN rm -r /old && ln -s ../srv/f /bin/link && chown -h 5:6 /bin/link && ln f hard && \
    chmod 4711 /bin/busybox && mkdir -p /long/$(head -c 120 /dev/zero | tr '\\0' a)/b
CMD [\"/bin/cat\", \"/srv/f\"]
";
/// A Dockerfile that needs no emulator to be built for another platform.
const TWO: &str = "FROM scratch
ARG TARGETARCH
COPY busybox /bin/cat
COPY --chown=7:8 --chmod=640 f /srv/
LABEL arch=$TARGETARCH
CMD [\"/bin/cat\", \"/srv/f\"]
";

struct Scene {
    env: Env,
    registry: DockerRegistry,
}

impl Scene {
    /// Returns `None` without root: only root can unpack files of other owners.
    fn new() -> Option<Self> {
        let env = Env::of(Who::root()?);
        env.base();
        env.write("f", "content\n");
        env.write("busybox", fs::read("/bin/busybox").unwrap());
        fs::set_permissions(env.path("context/busybox"), fs::Permissions::from_mode(0o755))
            .unwrap();
        Some(Self { env, registry: DockerRegistry::open() })
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/team/app:{tag}", self.registry.host())
    }

    /// Builds an image and pushes it.
    fn push(&self, tag: &str, compression: &str, platforms: &str) {
        let dockerfile = if platforms.contains(',') { TWO } else { ONE };
        let name = self.name(tag);
        let args = ["-t", &name, "--push", "--compression", compression, "--platform", platforms];
        self.env.build(dockerfile, &[&args[..], &["--force-compression"]].concat()).ok();
    }

    fn other(&self, args: &[&str]) -> Done {
        Done::of(self.env.command_in("other", args).output().unwrap())
    }

    fn run(&self, program: &str, args: &[&str]) -> Done {
        Done::of(self.env.program(program).args(args).output().unwrap())
    }

    /// Returns the files of the pulled image as rbuild writes them.
    fn own_files(&self, name: &str, directory: &str) -> String {
        let dockerfile = format!("FROM {name}\n");
        fs::create_dir_all(self.env.path("empty")).unwrap();
        fs::write(self.env.path("empty/Dockerfile"), dockerfile).unwrap();
        let as_it_is = ["--allow", "local.special"];
        self.other(&[&["build", "empty", "-o", directory][..], &as_it_is].concat()).ok();
        self.listing(directory)
    }

    /// Returns the files of the image in the registry, as skopeo and umoci unpack them.
    fn others_files(&self, name: &str, directory: &str) -> String {
        let from = format!("docker://{name}");
        let layout = format!("oci:{directory}.oci:x");
        // This umoci does not support zstd.
        let repack = ["--dest-compress-format", "gzip", "--src-tls-verify=false"];
        self.run("skopeo", &[&["copy", "-q"][..], &repack, &[&from, &layout]].concat()).ok();
        self.run("umoci", &["unpack", "--image", &format!("{directory}.oci:x"), directory]).ok();
        self.listing(&format!("{directory}/rootfs"))
    }

    /// Lists every file: mode, owner, links, size, target, name, and the hash of its content.
    fn listing(&self, directory: &str) -> String {
        let script = "cd \"$1\" && find . -mindepth 1 ! -type d -printf '%M %U:%G %n %s %l %p\\n' -o \
                      -mindepth 1 -type d -printf '%M %U:%G %p\\n' | sort && \
                      find . -type f -print0 | sort -z | xargs -0 sha256sum";
        self.run("sh", &["-c", script, "sh", directory]).ok().stdout
    }
}

fn config(shown: &str) -> Value {
    serde_json::from_str::<Value>(shown).unwrap()["Config"].clone()
}

#[test]
fn priv_pushed_images_are_pulled_and_read_unchanged_by_other_tools() {
    let Some(scene) = Scene::new() else { return };
    for compression in ["gzip", "zstd"] {
        for (kind, platforms) in [("one", "linux/amd64"), ("two", "linux/amd64,linux/arm64")] {
            let tag = format!("{kind}-{compression}");
            let name = scene.name(&tag);
            scene.push(&tag, compression, platforms);
            for platform in platforms.split(',') {
                let (os, arch) = platform.split_once('/').unwrap();
                scene.other(&["pull", "--platform", platform, &name]).ok();
                let pulled = scene.other(&["inspect", "--json", &name]).ok().stdout;
                assert_eq!(config(&pulled)["architecture"], arch, "{tag}");
                let which = [&*format!("--override-os={os}"), &format!("--override-arch={arch}")];
                let remote = format!("docker://{name}");
                let args = ["inspect", "--config", "--raw", "--tls-verify=false", &remote];
                let raw = scene.run("skopeo", &[&which[..], &args[..]].concat()).ok().stdout;
                let raw: Value = serde_json::from_str(&raw).unwrap();
                assert_eq!(config(&pulled), raw, "{tag} {platform}");
            }
            if kind == "one" {
                let own = scene.own_files(&name, &format!("own-{tag}"));
                assert!(own.contains("-rws--x--x 0:0"), "{own}");
                assert_eq!(own, scene.others_files(&name, &format!("others-{tag}")), "{tag}");
            }
            let raw = format!("docker://{name}");
            let raw = scene.run("skopeo", &["inspect", "--raw", "--tls-verify=false", &raw]).ok();
            let top: Value = serde_json::from_str(&raw.stdout).unwrap();
            match kind {
                "one" => {
                    let layers = top["layers"].as_array().unwrap().iter();
                    let types: Vec<&str> =
                        layers.map(|layer| layer["mediaType"].as_str().unwrap()).collect();
                    let want = format!("application/vnd.oci.image.layer.v1.tar+{compression}");
                    assert!(types.iter().all(|found| *found == want), "{types:?}");
                }
                _ => assert_eq!(top["manifests"].as_array().unwrap().len(), 2, "{top}"),
            }
        }
    }
    assert_eq!(scene.env.leftovers("other"), "");
}

/// Runs Debian's podman with its own storage.
fn podman(scene: &Scene, args: &[&str]) -> Done {
    // Paths must be absolute.
    let (root, run) = (scene.env.shown("podman"), scene.env.shown("podman-run"));
    let storage = ["--root", &*root, "--runroot", &run, "--storage-driver", "vfs"];
    let runtime = ["--cgroup-manager", "cgroupfs", "--runtime", "runc"];
    scene.run("podman", &[&storage[..], &runtime, args].concat())
}

#[test]
fn priv_what_was_pushed_is_run_by_podman() {
    let Some(scene) = Scene::new() else { return };
    let is_there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !is_there("podman") || !is_there("runc") {
        skip("podman", "podman or runc is not installed");
        return;
    }
    // Where limits cannot be raised, podman must not try to.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let run = |name: &str| {
        let flags = ["run", "--rm", "--network=none", "--pull=never"];
        podman(&scene, &[&flags[..], &limits[..], &[name]].concat())
    };
    for compression in ["gzip", "zstd"] {
        for (kind, platforms) in [("one", "linux/amd64"), ("two", "linux/amd64,linux/arm64")] {
            let tag = format!("{kind}-{compression}");
            let name = scene.name(&tag);
            scene.push(&tag, compression, platforms);
            podman(&scene, &["pull", "-q", "--tls-verify=false", &name]).ok();
            let done = run(&name);
            // Podman exits with these codes if the container did not start.
            if matches!(done.code, Some(125..=127)) {
                skip("podman", &format!("podman runs nothing here: {}", done.stderr));
                return;
            }
            assert_eq!(done.stdout, "content\n", "{tag}: {}", done.stderr);
        }
    }
}
