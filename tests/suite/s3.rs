//! Build caches in S3, on a real server.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;

use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::s3::S3Server;

const DOCKERFILE: &str = "FROM base:1 AS tools\n\
                          RUN cat /proc/sys/kernel/random/uuid > /tool\n\
                          FROM base:1\n\
                          COPY file /\n\
                          COPY --from=tools /tool /copied\n\
                          RUN cat /proc/sys/kernel/random/uuid > /own\n";

struct Scene {
    env: Env,
    server: S3Server,
    dockerfile: String,
}

impl Scene {
    fn new(dockerfile: &str) -> Option<Self> {
        let server = S3Server::start()?;
        let mut env = Env::new();
        env.set("AWS_ACCESS_KEY_ID", "some-id");
        env.set("AWS_SECRET_ACCESS_KEY", "top-secret");
        env.write("file", "content\n");
        Some(Self { env, server, dockerfile: dockerfile.to_owned() })
    }

    fn run(&self, store: &str, args: &[&str]) -> Done {
        self.env.base_in(store);
        self.env.write("Dockerfile", &self.dockerfile);
        let all = [&["build", "context"], args].concat();
        Done::of(self.env.command_in(store, &all).output().unwrap())
    }

    fn cache(&self, more: &str) -> String {
        format!("{},{more}", self.server.cache()).trim_end_matches(',').to_owned()
    }
}

/// Returns the steps that were not cached.
fn made(done: &Done) -> Vec<String> {
    done.steps().into_iter().filter(|step| !step.ends_with(": CACHED")).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn second_store_finds_every_step_in_the_bucket_and_reads_only_what_goes_out() {
    let Some(scene) = Scene::new(DOCKERFILE) else { return };
    let (to, from) = (scene.cache("prefix=p/,mode=max"), scene.cache("prefix=p/"));
    let first = scene.run("one", &["--cache-to", &to, "-o", "first"]).ok();
    assert_eq!(made(&first).len(), 4, "{}", first.stderr);
    assert_eq!(scene.server.asked("PUT", "p/blobs/sha256:").len(), 4);
    assert_eq!(scene.server.asked("PUT", "p/manifests/"), ["p/manifests/latest.rbuild.json"]);

    // Existing objects are not sent again, whichever store sent them.
    scene.server.forget();
    scene.run("one", &["--cache-to", &to]).ok();
    let second = scene.run("two", &["--cache-from", &from, "--cache-to", &to]).ok();
    assert_eq!(made(&second), NONE, "{}", second.stderr);
    assert_eq!(scene.server.asked("PUT", "p/blobs/"), NONE);
    assert_eq!(scene.server.asked("GET", "p/blobs/"), NONE);

    let third = scene.run("three", &["--cache-from", &from, "-o", "third"]).ok();
    assert_eq!(made(&third), NONE, "{}", third.stderr);
    assert_eq!(scene.server.asked("GET", "p/blobs/").len(), 3, "all but the tool's own layer");
    let files = |name: &str| fs::read_to_string(scene.env.path(name)).unwrap();
    for file in ["copied", "own", "file"] {
        assert_eq!(files(&format!("first/{file}")), files(&format!("third/{file}")));
    }
    // Without the option, the bucket is not available, so the steps run.
    let fourth = scene.run("two", &["-o", "fourth"]).ok();
    assert_eq!(made(&fourth).len(), 4, "{}", fourth.stderr);
}

#[test]
fn cache_mounts_of_a_failed_build_travel_through_the_bucket() {
    let mount = "FROM base:1\nRUN --mount=type=cache,target=/c,uid=4";
    let Some(mut scene) = Scene::new(&format!("{mount} echo x > /c/f && exit 3\n")) else { return };
    let to = scene.cache("name=a;b,mounts=true");
    scene.run("one", &["--cache-to", &to]).fails(1, &["exit code: 3"]);
    let names = ["manifests/a.rbuild.json", "manifests/b.rbuild.json"];
    assert_eq!(scene.server.asked("PUT", "manifests/"), names);
    scene.dockerfile = format!("{mount} test $(cat /c/f) = x && test $(stat -c %u /c) = 4\n");
    for (store, from) in [("two", "name=b"), ("three", "name=absent;a")] {
        let done = scene.run(store, &["--cache-from", &scene.cache(from)]).ok();
        assert!(done.stderr.contains("restore the cache mount `/c`"), "{}", done.stderr);
    }
}

#[test]
fn finished_steps_of_a_failed_build_are_in_the_bucket() {
    let Some(mut scene) = Scene::new(&format!("{DOCKERFILE}RUN exit 7\n")) else { return };
    scene.run("one", &["--cache-to", &scene.cache("mode=max")]).fails(1, &["exit code: 7"]);
    scene.dockerfile = DOCKERFILE.to_owned();
    let done = scene.run("two", &["--cache-from", &scene.cache("")]).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
}

#[test]
fn buckets_that_fail_are_warnings_unless_they_must_not() {
    let Some(scene) = Scene::new("FROM base:1\nCOPY file /\n") else { return };
    let absent = scene.server.cache().replace("bucket=cache", "bucket=absent");
    let from = ["--cache-from", &absent];
    let done = scene.run("one", &from).ok();
    let warning = "cannot import the cache from s3://absent/manifests/latest";
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    assert!(done.stderr.contains("the bucket absent does not exist"), "{}", done.stderr);
    let done = scene.run("one", &["--cache-to", &absent]).ok();
    assert!(done.stderr.contains("cannot export the cache to s3://absent/"), "{}", done.stderr);
    let strict = format!("{absent},ignore-error=false");
    scene.run("one", &["--cache-from", &strict]).fails(3, &[warning]);
    scene.run("one", &["--cache-to", &strict]).fails(3, &["cannot export the cache to"]);
    let nothing = scene.cache("name=nothing");
    let done = scene.run("one", &["--cache-from", &nothing]).ok();
    assert!(done.stderr.contains("nothing.rbuild.json does not exist"), "{}", done.stderr);
    assert_eq!(scene.server.request("PUT", "/cache/manifests/bad.rbuild.json", b"{").0, 200);
    let done = scene.run("one", &["--cache-from", &scene.cache("name=bad")]).ok();
    assert!(done.stderr.contains("it is not a build cache"), "{}", done.stderr);
}

#[test]
fn secrets_of_a_bucket_are_shown_nowhere_and_kept_nowhere() {
    let Some(scene) = Scene::new(DOCKERFILE) else { return };
    let keys = "access_key_id=public-id,secret_access_key=hidden-key,session_token=hidden-token";
    let to = scene.cache(keys);
    let done = scene.run("one", &["--cache-to", &to, "--cache-from", &to]).ok();
    let wrong = scene.cache(&format!("{keys},regoin=x"));
    let wrong = scene.run("one", &["--cache-to", &wrong]);
    wrong.fails(
        2,
        &["secret_access_key=****", "unknown attribute `regoin`; did you mean `region`?"],
    );
    let absent = to.replace("bucket=cache", "bucket=absent");
    let failed = scene.run("one", &["--cache-to", &absent]).ok();
    for secret in ["hidden-", "top-secret", "X-Amz-Signature"] {
        for done in [&done, &wrong, &failed] {
            assert!(!done.stderr.contains(secret), "{}", done.stderr);
        }
        let mut grep = scene.env.program("grep");
        let found = grep.args(["-rlF", secret, "one"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
    let mut command = scene.env.command_in("one", &["build", "context", "--cache-to"]);
    command.arg(scene.cache("")).env_remove("AWS_SECRET_ACCESS_KEY");
    Done::of(command.output().unwrap()).fails(2, &["type=s3 needs AWS_ACCESS_KEY_ID and"]);
}

#[test]
fn large_blobs_go_up_in_parts_and_old_ones_are_made_young() {
    let dockerfile = "FROM base:1\nRUN head -c 70000000 /dev/urandom > /large\n";
    let Some(scene) = Scene::new(dockerfile) else { return };
    let to = scene.cache("compression=uncompressed,touch_refresh=0s");
    scene.run("one", &["--cache-to", &to, "-o", "first"]).ok();
    assert_eq!(scene.server.asked("PUT", "blobs/").len(), 2, "two parts");
    assert_eq!(scene.server.asked("POST", "blobs/").len(), 2, "begun and ended");
    // On a second export, the blob is only copied onto itself.
    scene.server.forget();
    scene.run("one", &["--cache-to", &to]).ok();
    assert_eq!(scene.server.asked("PUT", "blobs/").len(), 1);
    assert_eq!(scene.server.asked("POST", "blobs/"), NONE);
    let from = scene.cache("");
    let done = scene.run("two", &["--cache-from", &from, "-o", "second"]).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
    let large = |directory: &str| fs::read(scene.env.path(directory).join("large")).unwrap();
    assert!(large("first") == large("second"));
}

#[test]
fn expired_blobs_are_written_again_by_the_next_export() {
    // Its listing is a blob of its own.
    let many = "RUN for i in $(seq 300); do echo $i > /some-file-with-a-long-name-$i; done\n";
    let Some(scene) = Scene::new(&format!("FROM base:1\n{many}")) else { return };
    let to = scene.cache("touch_refresh=0s");
    scene.run("one", &["--cache-to", &to]).ok();
    let blobs = scene.server.asked("PUT", "blobs/");
    assert_eq!(blobs.len(), 2, "layer and listing: {blobs:?}");

    scene.server.forget();
    scene.run("one", &["--cache-to", &to]).ok();
    assert_eq!(scene.server.asked("PUT", "blobs/"), blobs, "made young");

    for blob in &blobs {
        assert_eq!(scene.server.request("DELETE", &format!("/cache/{blob}"), b"").0, 204);
    }
    scene.run("one", &["--cache-to", &to]).ok();
    for blob in &blobs {
        assert_eq!(scene.server.request("HEAD", &format!("/cache/{blob}"), b"").0, 200, "{blob}");
    }
    let done = scene.run("two", &["--cache-from", &scene.cache(""), "-o", "out"]).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
}

#[test]
fn blob_that_is_gone_or_another_one_is_not_used() {
    let Some(scene) = Scene::new("FROM base:1\nRUN cat /proc/uptime > /own\n") else { return };
    scene.run("one", &["--cache-to", &scene.server.cache()]).ok();
    let document = scene.server.request("GET", "/cache/manifests/latest.rbuild.json", b"").1;
    let document: Value = serde_json::from_slice(&document).unwrap();
    let blob = &document["layers"][0]["blob"];
    let key = format!("/cache/blobs/{}", blob["digest"].as_str().unwrap());
    let other = vec![7; usize::try_from(blob["size"].as_u64().unwrap()).unwrap()];
    assert_eq!(scene.server.request("PUT", &key, &other).0, 200);
    let from = scene.server.cache();
    let done = scene.run("two", &["--cache-from", &from, "-o", "out"]).ok();
    assert_eq!(made(&done).len(), 1, "{}", done.stderr);
    let warning = "warning: retrying without it: cannot get the layer sha256:";
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    assert!(done.stderr.contains("wrong digest"), "{}", done.stderr);
    assert_eq!(scene.server.request("DELETE", &key, b"").0, 204);
    let done = scene.run("three", &["--cache-from", &from, "-o", "out"]).ok();
    assert_eq!(made(&done).len(), 1, "{}", done.stderr);
}
