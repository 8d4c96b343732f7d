//! `rbuild.lock`, `--locked` and `--offline`.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::git::GitServer;
use crate::support::images::{Layout, entries};
use crate::support::registry::{Answer, DockerRegistry, Scripted};

const OCI: &str = "type=oci,dest=out,tar=false";

/// Everything that a build takes from outside, all of it changeable.
struct World {
    registry: DockerRegistry,
    files: Scripted,
    content: Arc<Mutex<&'static str>>,
    git: GitServer,
}

impl World {
    fn new() -> Self {
        let content = Arc::new(Mutex::new("one"));
        let shown = Arc::clone(&content);
        let files = Scripted::new(move |_, _| Answer::new(200, *shown.lock().unwrap()));
        let git = GitServer::new();
        git.repository("r", "echo one > file; git add .; git commit -qm one");
        Self { registry: DockerRegistry::open(), files, content, git }
    }

    fn base(&self) -> String {
        format!("{}/base:1", self.registry.host())
    }

    /// Pushes a base image from its own store. Returns its digest.
    fn push_base(&self, env: &Env, version: &str, more: &[&str]) -> String {
        fs::create_dir_all(env.path("made")).unwrap();
        let dockerfile = format!("FROM scratch\nLABEL version={version}\nCOPY Dockerfile /base\n");
        fs::write(env.path("made/Dockerfile"), dockerfile).unwrap();
        let base = self.base();
        let args = ["build", "made", "-t", &base, "--push", "--metadata-file", "metadata"];
        let done = env.command_in("makers", &[&args, more].concat()).output().unwrap();
        Done::of(done).ok();
        let metadata: Value =
            serde_json::from_slice(&fs::read(env.path("metadata")).unwrap()).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_owned()
    }

    fn dockerfile(&self) -> String {
        let (base, files, git) = (self.base(), self.files.host(), self.git.url("r"));
        format!(
            "FROM {base}\nADD http://{files}/f /f\nADD {git}#main /git/\nCOPY --from={base} /base /copied\n"
        )
    }

    fn change(&self, env: &Env) -> String {
        *self.content.lock().unwrap() = "two";
        self.git.commit_on("r", "echo two > file; git commit -qam two");
        self.push_base(env, "2", &[])
    }
}

fn lock_of(env: &Env) -> String {
    fs::read_to_string(env.path("context/rbuild.lock")).unwrap()
}

/// Returns the label `version` of the image in the directory `out`.
fn label(env: &Env) -> String {
    Layout::read(&env.path("out")).config["config"]["Labels"]["version"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_locked_build_takes_what_was_locked() {
    let (env, world) = (Env::new(), World::new());
    let first = world.push_base(&env, "1", &[]);
    let commit = world.git.commit("r", "main");
    env.write("Dockerfile", world.dockerfile());
    let done = env.rbuild(&["lock", "context"]).ok();
    assert!(done.stderr.contains("locked 3 inputs in context/rbuild.lock"), "{}", done.stderr);
    let lock = lock_of(&env);
    for part in [&first, &commit, "platform = \"linux/amd64\"", "reference = \"main\""] {
        assert!(lock.contains(part), "{part} in {lock}");
    }
    let second = world.change(&env);
    assert_ne!(first, second);

    // With and without --locked, in an empty store.
    for (store, more) in [("store1", ["--locked"].as_slice()), ("store2", &[])] {
        let args = [&["build", "context", "-o", OCI], more].concat();
        let done = Done::of(env.command_in(store, &args).output().unwrap());
        // The server no longer has the old file. The error gives the location and both checksums.
        let one = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        done.fails(1, &["E0409", "rbuild.lock says", "Dockerfile:2:5", "rbuild lock --update"]);
        assert!(done.stderr.contains(one), "{}", done.stderr);
    }
    // A store that already has the locked inputs uses them.
    env.rbuild(&["build", "context", "--locked", "-o", OCI]).ok();
    assert_eq!(label(&env), "1");
    let layout = Layout::read(&env.path("out"));
    let files: Vec<_> = layout.layers.iter().flat_map(|layer| entries(layer)).collect();
    let size = |name: &str| files.iter().find(|(path, _)| path == name).unwrap().1.clone();
    assert!(size("git/file").contains(" 4 "), "{}", size("git/file"));
    assert_eq!(lock_of(&env), lock);

    // `--pull` detects new versions.
    let pulled = env.rbuild(&["build", "context", "--locked", "--pull"]);
    pulled.fails(1, &["E0411", &second, &first, "Dockerfile:1:6"]);
    let pulled = env.rbuild(&["build", "context", "--pull"]).ok();
    assert!(pulled.stderr.contains("rbuild lock --update"), "{}", pulled.stderr);
    env.rbuild(&["lock", "context"]).ok();
    assert_eq!(lock_of(&env), lock, "what is locked stays");
    env.rbuild(&["lock", "context", "--update"]).ok();
    assert!(lock_of(&env).contains(&second) && !lock_of(&env).contains(&commit));
    env.rbuild(&["build", "context", "--locked", "-o", OCI]).ok();
    assert_eq!(label(&env), "2");
}

#[test]
fn a_new_input_is_locked_unless_the_build_is() {
    let (env, world) = (Env::new(), World::new());
    let digest = world.push_base(&env, "1", &[]);
    env.build("FROM scratch\n", &["--locked"]).fails(2, &["--locked needs", "rbuild.lock"]);
    env.rbuild(&["lock", "context"]).ok();
    let dockerfile = format!("FROM {}\n", world.base());
    let locked = env.build(&dockerfile, &["--locked"]);
    locked.fails(1, &["E0411", "context/rbuild.lock has no entry for", "Dockerfile:1:6"]);
    env.build(&dockerfile, &[]).ok();
    assert!(lock_of(&env).contains(&digest));
    env.build(&dockerfile, &["--locked"]).ok();
    let other = dockerfile.replace(":1", ":2");
    let changed = env.build(&other, &["--locked"]);
    changed.fails(1, &["base:2", "only one for", "base:1 for linux/amd64", "rbuild lock"]);
    let added = format!("FROM {}\nADD http://{}/f /\n", world.base(), world.files.host());
    env.build(&added, &["--locked"]).fails(1, &["E0411", "/f", "Dockerfile:2:5"]);
    // The Dockerfile's own checksum differs from the locked one.
    env.build(&added, &[]).ok();
    let sum = format!("ADD --checksum=sha256:{}", "0".repeat(64));
    let differs = env.build(&added.replace("ADD", &sum), &["--locked"]);
    differs.fails(1, &["E0411", &"0".repeat(64), "7692c3ad3540", "Dockerfile:2:"]);
    env.write("rbuild.lock", "version = 9\n");
    env.build(&dockerfile, &[]).fails(2, &["context/rbuild.lock", "version 9"]);
}

#[test]
fn every_stage_and_platform_is_locked() {
    let (env, world) = (Env::new(), World::new());
    let both = ["--platform", "linux/amd64,linux/arm64"];
    world.push_base(&env, "1", &both);
    let dockerfile = format!(
        "FROM {0} AS test\nADD http://{1}/test /\nFROM {0}\n\
         RUN --mount=from=mounted,target=/m true\n",
        world.base(),
        world.files.host()
    );
    env.write("Dockerfile", &dockerfile);
    let mounted = format!("mounted=docker-image://{}", world.base());
    let context = ["--build-context", &mounted];
    env.rbuild(&[&["lock", "context"], &both[..], &context[..]].concat()).ok();
    let lock = lock_of(&env);
    assert_eq!(lock.matches("[[image]]").count(), 2, "{lock}");
    assert!(
        lock.contains("/test\"") && lock.contains("[\"linux/amd64\", \"linux/arm64\"]"),
        "{lock}"
    );
    world.push_base(&env, "2", &both);
    env.rbuild(&[&["lock", "context", "--update"], &context[..]].concat()).ok();
    let updated = lock_of(&env);
    assert_eq!(updated.matches("[[image]]").count(), 2, "{updated}");
    let same = lock.lines().filter(|line| line.starts_with("digest") && updated.contains(line));
    assert_eq!(same.count(), 1, "only the file is the same: {updated}");
}

#[test]
fn what_was_locked_and_is_gone_is_said() {
    let (env, world) = (Env::new(), World::new());
    let first = world.push_base(&env, "1", &[]);
    let dockerfile = format!("FROM {}\n", world.base());
    env.write("Dockerfile", &dockerfile);
    env.rbuild(&["lock", "context"]).ok();
    let zeros = format!("sha256:{}", "0".repeat(64));
    env.write("rbuild.lock", lock_of(&env).replace(&first, &zeros));
    let gone = env.rbuild(&["build", "context"]);
    gone.fails(1, &["E0411", &zeros, "no longer available", &first, "Dockerfile:1:6"]);

    // A base that was only built locally resolves to what its tag names.
    env.write("base/Dockerfile", "FROM scratch\nLABEL version=1\n");
    let base = |n: &str| {
        env.write("base/Dockerfile", format!("FROM scratch\nLABEL version={n}\n"));
        env.rbuild(&["build", "context/base", "-t", "mine:1"]).ok();
    };
    base("1");
    env.write("Dockerfile", "FROM mine:1\n");
    let locked = env.rbuild(&["lock", "context"]).ok();
    assert!(locked.stderr.contains("only in this store"), "{}", locked.stderr);
    env.rbuild(&["build", "context", "--locked", "-o", OCI]).ok();
    base("2");
    env.rbuild(&["build", "context", "--locked"]).fails(1, &["E0411", "mine:1", "Dockerfile:1:6"]);
    env.rbuild(&["build", "context", "-o", OCI]).ok();
    assert_eq!(label(&env), "2");
    env.rbuild(&["build", "context", "--locked", "-o", OCI]).ok();
}

#[test]
fn a_context_can_be_locked_and_can_bring_its_lock() {
    let (env, world) = (Env::new(), World::new());
    let script = |n: &str| {
        format!(
            "printf 'FROM scratch\\nADD http://{}/f /f\\nLABEL version={n}\\n' > Dockerfile; \
         echo 'version = 1' > rbuild.lock; git add .; git commit -qm {n}",
            world.files.host()
        )
    };
    world.git.repository("c", &script("1"));
    let context = format!("{}#main", world.git.url("c"));
    let own = env.rbuild(&["build", &context, "--locked"]);
    own.fails(1, &["E0411", "rbuild.lock of the context", "Dockerfile:2:5"]);
    env.rbuild(&["lock", &context]).fails(2, &["--lockfile"]);
    let lock = ["--lockfile", "my.lock"];
    env.rbuild(&[&["lock", &context], &lock[..]].concat()).ok();
    let text = fs::read_to_string(env.path("my.lock")).unwrap();
    assert!(text.contains(&world.git.commit("c", "main")), "{text}");
    world.git.commit_on("c", &script("2"));
    env.rbuild(&[&["build", &context, "--locked", "-o", OCI], &lock[..]].concat()).ok();
    assert_eq!(label(&env), "1");
    env.rbuild(&["build", &context, "-o", OCI]).ok();
    assert_eq!(label(&env), "2");
}

#[test]
fn an_offline_build_sends_no_requests() {
    let (env, world) = (Env::new(), World::new());
    world.push_base(&env, "1", &[]);
    let dockerfile = format!(
        "FROM {}\nADD http://{}/f /f\nCOPY Dockerfile /d\n",
        world.base(),
        world.files.host()
    );
    let offline = env.build(&dockerfile, &["--offline"]);
    offline.fails(
        3,
        &["E0412", "base:1 for linux/amd64: --offline forbids network access", "Dockerfile:1:6"],
    );
    env.build(&dockerfile, &["-o", OCI]).ok();
    let n_asked = world.files.requests().len();
    let again = env.build(&dockerfile, &["--offline", "-o", OCI]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    env.build(&dockerfile, &["--offline", "--no-cache", "-o", OCI]).ok();
    assert_eq!(world.files.requests().len(), n_asked);
    let other = dockerfile.replace("/f /f", "/other /f");
    env.build(&other, &["--offline"]).fails(1, &["E0412", "/other", "Dockerfile:2:5"]);
    let git = format!("FROM scratch\nADD {}#main /\n", world.git.url("r"));
    let n_asked = world.git.n_requests();
    env.build(&git, &["--offline"]).fails(1, &["E0412", "r.git#main", "Dockerfile:2:5"]);
    assert_eq!(world.git.n_requests(), n_asked);
    // A repository that is locked and was built is cached; its files are not kept in addition to
    // the layer.
    env.rbuild(&["lock", "context"]).ok();
    env.build(&git, &[]).ok();
    let n_asked = world.git.n_requests();
    env.build(&git, &["--offline", "--locked"]).ok();
    env.build(&git, &["--offline", "--no-cache"]).fails(1, &["E0412", "Dockerfile:2:5"]);
    assert_eq!(world.git.n_requests(), n_asked);
    env.build(&git, &["--offline", "--push", "-t", "a"]).fails(2, &["cannot be used with"]);
    env.build("FROM scratch\n", &["--offline", "-o", "type=registry", "-t", "a"])
        .fails(3, &["--offline"]);
    let context = world.git.url("r");
    env.rbuild(&["build", &context, "--offline"]).fails(3, &["--offline"]);
}

#[test]
fn priv_an_offline_step_has_no_network() {
    let env = Env::new();
    env.base();
    let dockerfile =
        "FROM base:1\nRUN ls /sys/class/net | wc -l > /n; cat /proc/net/route | wc -l > /routes\n";
    env.build(dockerfile, &["--offline", "-o", "out"]).ok();
    assert_eq!(fs::read_to_string(env.path("out/routes")).unwrap(), "1\n", "a head and no route");
    // A build with network access finds its result in the cache.
    let again = env.build(dockerfile, &[]).ok();
    assert_eq!(again.steps().len(), 1);
    assert!(again.steps()[0].ends_with("CACHED"), "{}", again.stderr);
}

#[test]
fn every_place_that_was_asked_is_listed_and_the_lock_file_named() {
    let env = Env::new();
    let mirror = Scripted::new(|_, _| Answer::new(404, ""));
    // Port 1 is privileged: no user's program listens there.
    let name = "127.0.0.1:1/app:1";
    let option = format!("127.0.0.1:1,mirror=http://{}", mirror.host());
    let asked = format!(
        "http://{} does not have it; http://127.0.0.1:1 cannot be reached: Connection refused",
        mirror.host()
    );
    env.write("Dockerfile", format!("FROM {name}\n"));
    let build = || env.rbuild(&["build", "--registry", &option, "context"]);
    build().fails(3, &["E0401", &asked, "Dockerfile:1:6"]);
    env.rbuild(&["pull", "--registry", &option, name]).fails(3, &[&asked]);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let lock = format!(
        "version = 1\n\n[[image]]\nname = \"{name}\"\nplatform = \"linux/amd64\"\ndigest = \"{zeros}\"\n"
    );
    env.write("rbuild.lock", lock);
    let from = format!("context/rbuild.lock has {zeros} for {name} for linux/amd64");
    build().fails(3, &["E0401", &asked, &from]);
    // A digest that does not exist: both registries report this.
    let own = Scripted::new(|_, _| Answer::new(404, ""));
    let name = format!("{}/app:1", own.host());
    let option = format!("{},mirror=http://{}", own.host(), mirror.host());
    env.write("Dockerfile", format!("FROM {name}\n"));
    let asked = format!(
        "http://{} does not have it; http://{} does not have it",
        mirror.host(),
        own.host()
    );
    fs::remove_file(env.path("context/rbuild.lock")).unwrap();
    env.rbuild(&["build", "--registry", &option, "context"])
        .fails(1, &["E0401", &asked, "check the name and the tag"]);
    env.write(
        "rbuild.lock",
        format!(
            "version = 1\n\n[[image]]\nname = \"{name}\"\nplatform = \"linux/amd64\"\ndigest = \"{zeros}\"\n"
        ),
    );
    env.rbuild(&["build", "--registry", &option, "context"])
        .fails(1, &["E0411", "context/rbuild.lock has", "no longer available", &asked]);
}
