//! Caches shared between stores: in a registry, in a directory, in an image.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use crate::support::env::{Done, Env};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::DockerRegistry;

/// A stage that is not part of the image, and one that takes a file from it.
const DOCKERFILE: &str = "FROM base:1 AS tools\n\
                          RUN cat /proc/sys/kernel/random/uuid > /tool\n\
                          FROM base:1\n\
                          WORKDIR /app\n\
                          COPY file .\n\
                          COPY --from=tools /tool /copied\n\
                          RUN cat /proc/sys/kernel/random/uuid > /own\n";

struct Scene {
    env: Env,
    dockerfile: String,
}

impl Scene {
    /// Pushes the base to the registry, so that each store can pull it.
    fn new(registry: &DockerRegistry) -> Self {
        let env = Env::new();
        env.base();
        let base = format!("{}/base:1", registry.host());
        env.build("FROM base:1\n", &["-t", &base, "--push"]).ok();
        env.write("file", "content\n");
        Self { env, dockerfile: DOCKERFILE.replace("base:1", &base) }
    }

    fn run(&self, store: &str, args: &[&str]) -> Done {
        self.env.write("Dockerfile", &self.dockerfile);
        let all = [&["build", "context"], args].concat();
        Done::of(self.env.command_in(store, &all).output().unwrap())
    }
}

/// Returns the steps that were not cached.
fn made(done: &Done) -> Vec<String> {
    done.steps().into_iter().filter(|step| !step.ends_with(": CACHED")).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn second_store_finds_every_step_in_the_registry_and_pulls_only_what_goes_out() {
    let registry = DockerRegistry::open();
    let scene = Scene::new(&registry);
    let cache = format!("{}/cache:main", registry.host());
    let to = format!("type=registry,ref={cache},mode=max");
    let from = format!("type=registry,ref={cache}");
    let first = scene.run("one", &["--cache-to", &to, "-o", "first"]).ok();
    assert_eq!(made(&first).len(), 5, "{}", first.stderr);

    let name = format!("{}/app:1", registry.host());
    let args = ["--cache-from", &from, "-t", &name, "--push"];
    let second = scene.run("two", &args).ok();
    assert_eq!(made(&second), NONE, "{}", second.stderr);
    // The registry has everything, so nothing is pulled.
    assert!(!second.stderr.contains("[internal] pull"), "{}", second.stderr);

    let third = scene.run("three", &["--cache-from", &from, "-o", "third"]).ok();
    assert_eq!(made(&third), NONE, "{}", third.stderr);
    let files = |name: &str| std::fs::read_to_string(scene.env.path(name)).unwrap();
    for file in ["copied", "own", "app/file"] {
        assert_eq!(files(&format!("first/{file}")), files(&format!("third/{file}")));
    }

    // Steps after a change run on top of cached layers.
    scene.env.write("file", "other\n");
    let fourth = scene.run("four", &["--cache-from", &from, "-o", "fourth"]).ok();
    assert_eq!(made(&fourth).len(), 3, "{}", fourth.stderr);
    assert_eq!(files("fourth/copied"), files("first/copied"));
    assert_eq!(files("fourth/app/file"), "other\n");
}

#[test]
fn smaller_caches_know_the_image_and_not_what_it_was_made_with() {
    let registry = DockerRegistry::open();
    let scene = Scene::new(&registry);
    let name = format!("{}/app:1", registry.host());
    let inline = "BUILDKIT_INLINE_CACHE=1";
    let args = ["--build-arg", inline, "--cache-to", "type=local,dest=cache"];
    scene.run("one", &[&args, ["-t", &name, "--push"].as_slice()].concat()).ok();
    for (store, from) in
        [("two", format!("type=registry,ref={name}")), ("three", "type=local,src=cache".to_owned())]
    {
        let done = scene.run(store, &["--cache-from", &from, "-o", store]).ok();
        // The `tools` stage is rebuilt. Its file then differs, and so does the copy.
        let want = [
            "COPY --from=tools /tool /copied: DONE",
            "RUN cat /proc/sys/kernel/random/uuid > /own: DONE",
            "RUN cat /proc/sys/kernel/random/uuid > /tool: DONE",
        ];
        assert_eq!(made(&done), want, "{}", done.stderr);
    }
}

#[test]
fn failed_build_leaves_its_finished_steps_in_the_cache() {
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    let good = scene.dockerfile.clone();
    scene.dockerfile.push_str("RUN exit 7\n");
    let to = "type=local,dest=cache,mode=max";
    scene.run("one", &["--cache-to", to]).fails(1, &["exit code: 7"]);
    scene.dockerfile = good;
    let done = scene.run("two", &["--cache-from", "type=local,src=cache"]).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
    // Another export keeps the step that is not part of the image. Replaced documents are removed.
    scene.run("two", &["--cache-to", "type=local,dest=cache"]).ok();
    let blobs = std::fs::read_dir(scene.env.path("cache/blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 5 + 2, "five layers, manifest and document");
}

/// A Dockerfile of one writer of a cache, with two steps of its own.
fn of_writer(registry: &DockerRegistry, number: usize) -> String {
    format!(
        "FROM {}/base:1\nRUN echo {number} > /number\nRUN cat /proc/sys/kernel/random/uuid > /own\n",
        registry.host()
    )
}

/// Checks that an empty store finds all steps of these writers in a cache.
fn finds_all(scene: &mut Scene, registry: &DockerRegistry, writers: usize, from: &str) {
    for number in 0..writers {
        scene.dockerfile = of_writer(registry, number);
        let done = scene.run(&format!("reader-{number}"), &["--cache-from", from]).ok();
        assert_eq!(made(&done), NONE, "writer {number}, {from}: {}", done.stderr);
    }
}

#[test]
fn export_keeps_the_steps_of_other_builds_and_other_tags() {
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    let name = format!("type=registry,ref={}/cache:1", registry.host());
    for (kind, from, to) in [
        ("registry", name.as_str(), name.as_str()),
        ("local", "type=local,src=shared,tag=a", "type=local,dest=shared,tag=a"),
        ("other tag", "type=local,src=shared,tag=b", "type=local,dest=shared,tag=b"),
    ] {
        for number in 0..2 {
            scene.dockerfile = of_writer(&registry, number);
            scene.run(&format!("{kind}-{number}"), &["--cache-to", to]).ok();
        }
        finds_all(&mut scene, &registry, 2, from);
        std::fs::remove_dir_all(scene.env.path("reader-0")).unwrap();
        std::fs::remove_dir_all(scene.env.path("reader-1")).unwrap();
    }
    finds_all(&mut scene, &registry, 2, "type=local,src=shared,tag=a");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    const WRITERS: usize = 6;
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    let name = format!("type=registry,ref={}/cache:1", registry.host());
    for (from, to) in
        [(name.as_str(), name.as_str()), ("type=local,src=shared", "type=local,dest=shared")]
    {
        let running: Vec<std::process::Child> = (0..WRITERS)
            .map(|number| {
                let file = format!("Dockerfile.{number}");
                scene.env.write(&file, of_writer(&registry, number));
                let file = format!("context/{file}");
                let args = ["build", "context", "-f", &file, "--cache-to", to];
                scene.env.command_in(&format!("writer-{number}"), &args).spawn().unwrap()
            })
            .collect();
        for mut child in running {
            assert!(child.wait().unwrap().success());
        }
        finds_all(&mut scene, &registry, WRITERS, from);
        for number in 0..WRITERS {
            std::fs::remove_dir_all(scene.env.path(&format!("reader-{number}"))).unwrap();
        }
    }
}

/// A cached RUN that leaves links, and steps that need to know them.
const ON_LINKS: &str = "FROM base:1\n\
                        RUN mkdir /real && ln -s /real /link && ln -s real /other && cd /real && \
                            for a in 1 2 3 4 5 6 7 8 9; do for b in 1 2 3 4 5 6 7 8 9; do \
                            cat /proc/sys/kernel/random/uuid > $a$b; done; done\n\
                        COPY file /link/\n\
                        WORKDIR /other/inner\n\
                        COPY --chown=7:8 file .\n";

#[test]
fn copy_and_workdir_on_cached_layers_pull_none_of_them() {
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    let proxy = Proxy::new(registry.host(), |_| Fault::None);
    let host = proxy.host();
    scene.dockerfile = ON_LINKS.replace("base:1", &format!("{host}/base:1"));
    let cache = format!("type=registry,ref={host}/cache:1");
    scene.run("one", &["--cache-to", &format!("{cache},mode=max")]).ok();
    let name = format!("{host}/app:1");
    let pulled = |since: usize| {
        let lines = proxy.lines().split_off(since);
        let reads = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        (reads("GET /v2/base/blobs/"), reads("GET /v2/cache/blobs/"))
    };
    for (store, content) in [("two", "second\n"), ("without", "third\n")] {
        scene.env.write("file", content);
        let since = proxy.lines().len();
        let args = ["--cache-from", &cache, "-t", &name, "--push"];
        let done = scene.run(store, &args).ok();
        assert_eq!(made(&done).len(), 3, "{}", done.stderr);
        // The config of the base. The cache's document, which has short listings in it, and that of the RUN.
        // If that is gone, the layer.
        let want = if store == "two" { (1, 2) } else { (1, 3) };
        assert_eq!(pulled(since), want, "{store}: {}", done.stderr);
        // Another store writes the image out.
        let out = format!("{store}-files");
        scene.run(&out, &["--cache-from", &cache, "-o", &out]).ok();
        let made = scene.run("whole", &["--no-cache", "-o", "whole-files"]).ok();
        let read = |path: &str| std::fs::read_to_string(scene.env.path(path)).unwrap();
        assert_eq!(read(&format!("{out}/real/file")), content, "{}", made.stderr);
        for path in ["real/file", "real/inner/file"] {
            let both = [out.as_str(), "whole-files"].map(|top| format!("{top}/{path}"));
            assert_eq!(read(&both[0]), read(&both[1]), "{path}");
        }
        if store == "two" {
            registry.remove_blobs("cache", &[0x28, 0xb5, 0x2f, 0xfd]);
        }
    }
}

#[test]
fn step_on_a_claimed_listing_counts_only_where_the_cache_is_named() {
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    let base = format!("{}/base:1", registry.host());
    let cache = format!("type=registry,ref={}/cache:1", registry.host());
    scene.dockerfile = format!("FROM {base}\nRUN true\n");
    scene.run("one", &["--cache-to", &cache]).ok();
    scene.dockerfile = format!("FROM {base}\nCOPY file /new/\n");
    let first = scene.run("two", &["--cache-from", &cache]).ok();
    assert!(!first.stderr.contains("[internal] pull"), "{}", first.stderr);
    let named = scene.run("two", &["--cache-from", &cache]).ok();
    assert_eq!(made(&named), NONE, "{}", named.stderr);
    let without = scene.run("two", &[]).ok();
    assert_eq!(made(&without), ["COPY file /new/: DONE"], "{}", without.stderr);
}

#[test]
fn cache_whose_blobs_the_registry_removed_is_written_again() {
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    let cache = format!("type=registry,ref={}/cache:1,ignore-error=false", registry.host());
    scene.dockerfile = of_writer(&registry, 0);
    scene.run("one", &["--cache-to", &cache]).ok();
    registry.remove_layers("cache");
    // The steps are found, and executed once it is known that their layers are gone.
    let done = scene.run("lost", &["--cache-from", &cache, "-o", "lost-files"]).ok();
    assert_eq!(made(&done).len(), 2, "{}", done.stderr);
    assert!(!done.stderr.contains("retrying"), "{}", done.stderr);
    assert!(scene.env.path("lost-files/own").exists());
    let plan = ["plan", "context", "--cache-from", &cache];
    let plan = Done::of(scene.env.command_in("planned", &plan).output().unwrap()).ok();
    assert!(plan.stdout.contains("its layer is no longer in the store"), "{}", plan.stdout);
    scene.dockerfile = of_writer(&registry, 1);
    scene.run("two", &["--cache-to", &cache]).ok();
    let done = scene.run("three", &["--cache-from", &cache]).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
}

#[test]
fn caches_that_fail_are_warnings_unless_they_must_not() {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let gone = ["--cache-from", "type=local,src=nowhere"];
    let done = env.rbuild(&[&["build", "context"], gone.as_slice()].concat()).ok();
    assert!(
        done.stderr.contains("cannot import the cache from nowhere (latest)"),
        "{}",
        done.stderr
    );
    let strict = ["build", "context", "--cache-from", "type=local,src=nowhere,ignore-error=false"];
    env.rbuild(&strict).fails(3, &["cannot import the cache from nowhere"]);
    let to = "type=local,dest=context/Dockerfile/cache";
    let done = env.rbuild(&["build", "context", "--cache-to", to]).ok();
    assert!(done.stderr.contains("cannot export the cache to"), "{}", done.stderr);
    let strict = format!("{to},ignore-error=false");
    env.rbuild(&["build", "context", "--cache-to", &strict]).fails(3, &["cannot export the cache"]);
    let blob = ["build", "context", "--cache-to", "type=azblob"];
    env.rbuild(&blob).fails(2, &["type=azblob is not supported: use registry, local, s3, gha or"]);
}

#[test]
fn layer_that_left_the_registry_is_made_again() {
    let registry = DockerRegistry::open();
    let scene = Scene::new(&registry);
    scene.run("one", &["--cache-to", "type=local,dest=cache,mode=max"]).ok();
    let found = scene.run("two", &["--cache-from", "type=local,src=cache"]).ok();
    assert_eq!(made(&found), NONE, "{}", found.stderr);
    std::fs::remove_dir_all(scene.env.path("cache/blobs")).unwrap();
    let done = scene.run("two", &["-o", "files"]).ok();
    assert_eq!(made(&done).len(), 5, "{}", done.stderr);
    assert!(scene.env.path("files/own").exists());
}

#[test]
fn caches_of_every_type_may_fail() {
    let registry = DockerRegistry::with_password();
    let env = Env::new();
    env.base();
    env.write(
        "Dockerfile",
        "FROM base:1\nCOPY Dockerfile /\nRUN --mount=type=cache,target=/c touch /c/f\n",
    );
    let closed = format!("type=registry,ref={}/cache", registry.host());
    let mounts = "type=local,dest=context/Dockerfile/cache,mounts=true".to_owned();
    for (flag, cache, message) in [
        ("--cache-from", &closed, "cannot import the cache from"),
        ("--cache-to", &closed, "cannot export the cache to"),
        ("--cache-to", &format!("{closed},mounts=true"), "cannot export the cache to"),
        ("--cache-to", &mounts, "cannot export the cache to context/Dockerfile/cache"),
        ("--cache-from", &"type=local,src=none".to_owned(), "cannot import the cache from none"),
    ] {
        let done = env.rbuild(&["build", "context", flag, cache]).ok();
        assert!(done.stderr.contains(&format!("warning: {message}")), "{}", done.stderr);
        let strict = format!("{cache},ignore-error=false");
        env.rbuild(&["build", "context", flag, &strict]).fails(3, &["error: ", message]);
        // A build that fails anyway reports its own error, not that of the export. A failed import
        // comes first.
        let failing = ["build", "context", flag, &strict, "--build-arg", "X=1", "--target", "none"];
        let code = if flag == "--cache-to" { 1 } else { 3 };
        assert_eq!(env.rbuild(&failing).code, Some(code));
    }
    // An image without an inline cache.
    let open = DockerRegistry::open();
    let name = format!("{}/app:1", open.host());
    env.rbuild(&["build", "context", "-t", &name, "--push"]).ok();
    let from = format!("type=registry,ref={name}");
    let done = env.rbuild(&["build", "context", "--cache-from", &from]).ok();
    assert!(done.stderr.contains("the image has no inline cache"), "{}", done.stderr);
    let strict = format!("{from},ignore-error=false");
    env.rbuild(&["build", "context", "--cache-from", &strict])
        .fails(3, &["the image has no inline cache"]);
}

/// The layer is rebuilt, whether an output or a step needs it.
#[test]
fn damaged_layer_of_a_cache_is_made_again() {
    let registry = DockerRegistry::open();
    let mut scene = Scene::new(&registry);
    scene.run("one", &["--cache-to", "type=local,dest=cache,mode=max"]).ok();
    let directory = scene.env.path("cache/blobs/sha256");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let from = ["--cache-from", "type=local,src=cache"];
    let found = scene.run("two", &from).ok();
    assert_eq!(made(&found), NONE, "{}", found.stderr);
    let done = scene.run("three", &[&from, ["-o", "files"].as_slice()].concat()).ok();
    assert!(done.stderr.contains("retrying without it: cannot get the layer"), "{}", done.stderr);
    assert!(scene.env.path("files/own").exists());
    scene.dockerfile.push_str("RUN test -s /own && test -s /copied\n");
    let done = scene.run("four", &from).ok();
    assert!(done.stderr.contains("retrying without it: cannot get the layer"), "{}", done.stderr);
}

#[test]
fn cache_that_was_named_once_has_no_effect_on_builds_that_do_not_name_it() {
    let registry = DockerRegistry::open();
    let scene = Scene::new(&registry);
    let base = format!("{}/base:1", registry.host());
    // Each store creates a different file, which shows whose layers an image has.
    let first = format!("FROM {base} AS first\nRUN cat /proc/sys/kernel/random/uuid > /one\n");
    let both = format!("{first}FROM first\nRUN cp /one /two\n");
    let file = |directory: &str, name: &str| {
        std::fs::read_to_string(scene.env.path(&format!("{directory}/{name}"))).unwrap()
    };
    let named = ["--cache-from", "type=local,src=cache"];
    let run = |dockerfile: &str, store: &str, more: &[&str], out: &str| {
        scene.env.write("Dockerfile", dockerfile);
        let all = [&["build", "context"], more, &["-o", out]].concat();
        Done::of(scene.env.command_in(store, &all).output().unwrap()).ok()
    };
    run(&first, "foreign", &["--cache-to", "type=local,dest=cache,mode=max"], "foreign-out");
    let foreign = file("foreign-out", "one");

    // A build that names the cache uses it, runs further steps on top, and finds both the next
    // time.
    let done = run(&both, "own", &named, "named");
    assert_eq!(made(&done), ["RUN cp /one /two: DONE"], "{}", done.stderr);
    assert_eq!(file("named", "two"), foreign);
    let done = run(&both, "own", &named, "again");
    assert_eq!(made(&done), NONE, "{}", done.stderr);

    // A build that does not name it runs its own step. The second step is then not cached either:
    // it has the same definition, but ran on the other layer.
    let done = run(&first, "own", &[], "unnamed");
    assert_eq!(made(&done).len(), 1, "{}", done.stderr);
    let own = file("unnamed", "one");
    assert_ne!(own, foreign);
    let done = run(&both, "own", &[], "unnamed-both");
    assert_eq!(made(&done), ["RUN cp /one /two: DONE"], "{}", done.stderr);
    assert_eq!(file("unnamed-both", "two"), own);
    // Now the store has both steps of its own, and they take precedence over the cache.
    let done = run(&both, "own", &named, "last");
    assert_eq!(made(&done), NONE, "{}", done.stderr);
    assert_eq!(file("last", "two"), own);
}
