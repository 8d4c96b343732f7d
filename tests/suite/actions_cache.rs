//! Build caches in the cache of GitHub Actions.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::actions_cache::{ActionsServer, MAIN, PULL, token};
use crate::support::env::{Done, Env, skip};
use crate::support::registry::Answer;

const DOCKERFILE: &str = "FROM base:1 AS tools\n\
                          RUN cat /proc/sys/kernel/random/uuid > /tool\n\
                          FROM base:1\n\
                          COPY file /\n\
                          COPY --from=tools /tool /copied\n\
                          RUN cat /proc/sys/kernel/random/uuid > /own\n";
/// Keys of blobs begin with it.
const BLOBS: &str = "rbuild-1-sha256:";
const TO: [&str; 2] = ["--cache-to", "type=gha,mode=max"];
const FROM: [&str; 2] = ["--cache-from", "type=gha"];
const NONE: [&str; 0] = [];

struct Scene {
    env: Env,
    server: ActionsServer,
}

impl Scene {
    fn new() -> Self {
        let server = ActionsServer::start();
        let mut env = Env::new();
        env.set("ACTIONS_CACHE_SERVICE_V2", "True");
        env.set("ACTIONS_RESULTS_URL", &server.url());
        env.set("GITHUB_REPOSITORY", "owner/name");
        env.write("file", "content\n");
        Self { env, server }
    }

    /// Builds in a job with these branches.
    fn run(&self, access: &str, store: &str, dockerfile: &str, args: &[&str]) -> Done {
        self.env.base_in(store);
        self.env.write("Dockerfile", dockerfile);
        let all = [&["build", "context"], args].concat();
        let mut command = self.env.command_in(store, &all);
        Done::of(command.env("ACTIONS_RUNTIME_TOKEN", token(access)).output().unwrap())
    }

    fn keys(&self, prefix: &str) -> usize {
        self.server.keys().iter().filter(|(key, _)| key.starts_with(prefix)).count()
    }
}

/// Returns the steps that were not cached.
fn made(done: &Done) -> Vec<String> {
    done.steps().into_iter().filter(|step| !step.ends_with(": CACHED")).collect()
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| *call == name).count()
}

#[test]
fn second_store_finds_every_step_and_reads_only_what_goes_out() {
    let scene = Scene::new();
    let first = scene.run(MAIN, "one", DOCKERFILE, &[&TO[..], &["-o", "first"]].concat()).ok();
    assert_eq!(made(&first).len(), 4, "{}", first.stderr);
    assert_eq!(scene.keys(BLOBS), 4, "{:?}", scene.server.keys());
    assert_eq!(scene.keys("rbuild-index-1-buildkit-"), 1);

    // Nothing is sent twice, whichever store sent it, and an unchanged document is not written again.
    let n_before = scene.server.n_requests();
    scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    let second = scene.run(MAIN, "two", DOCKERFILE, &[TO, FROM].concat()).ok();
    assert_eq!(made(&second), NONE, "{}", second.stderr);
    let calls = scene.server.calls(n_before);
    assert_eq!((count(&calls, "CreateCacheEntry"), count(&calls, "PUT")), (0, 0), "{calls:?}");

    let n_before = scene.server.n_requests();
    let third = scene.run(MAIN, "three", DOCKERFILE, &[&FROM[..], &["-o", "third"]].concat()).ok();
    assert_eq!(made(&third), NONE, "{}", third.stderr);
    let calls = scene.server.calls(n_before);
    assert_eq!(count(&calls, "GET"), 4, "the document, and all layers but the tool's: {calls:?}");
    let files = |name: &str| fs::read_to_string(scene.env.path(name)).unwrap();
    for file in ["copied", "own", "file"] {
        assert_eq!(files(&format!("first/{file}")), files(&format!("third/{file}")));
    }
    // Another scope is another cache.
    let other = ["--cache-from", "type=gha,scope=other"];
    let done = scene.run(MAIN, "four", DOCKERFILE, &other).ok();
    assert_eq!(made(&done).len(), 4, "{}", done.stderr);
    // As in BuildKit, the first job finds nothing and is not warned.
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
}

#[test]
fn branches_read_the_cache_of_the_main_branch_and_write_their_own() {
    let scene = Scene::new();
    scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    let more = format!("{DOCKERFILE}RUN echo more > /more\n");
    let pull = scene.run(PULL, "two", &more, &[TO, FROM].concat()).ok();
    assert_eq!(made(&pull).len(), 1, "{}", pull.stderr);
    let scopes: Vec<String> = scene.server.keys().into_iter().map(|(_, scope)| scope).collect();
    assert!(scopes.iter().any(|scope| scope == "refs/pull/7/merge"), "{scopes:?}");
    // The second run of the pull request finds its own step, the main branch does not.
    let again = scene.run(PULL, "three", &more, &FROM).ok();
    assert_eq!(made(&again), NONE, "{}", again.stderr);
    let main = scene.run(MAIN, "four", &more, &FROM).ok();
    assert_eq!(made(&main).len(), 1, "{}", main.stderr);
    // Nor does it in a store that a job of the pull request has used.
    scene.run(PULL, "five", &more, &FROM).ok();
    let main = scene.run(MAIN, "five", &more, &FROM).ok();
    assert_eq!(made(&main).len(), 1, "{}", main.stderr);
    let fork = r#"[{"Scope":"refs/heads/main","Permission":1}]"#;
    let done = scene.run(fork, "six", DOCKERFILE, &[TO, FROM].concat()).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
    assert!(done.stderr.contains("permits reading only"), "{}", done.stderr);
}

#[test]
fn exports_at_the_same_time_lose_nothing() {
    let scene = Scene::new();
    let dockerfiles: Vec<String> =
        (0..4).map(|n| format!("FROM base:1\nRUN echo {n} > /file-{n}\n")).collect();
    std::thread::scope(|scope| {
        for (n, dockerfile) in dockerfiles.iter().enumerate() {
            let scene = &scene;
            scope.spawn(move || {
                let store = format!("store-{n}");
                scene.env.base_in(&store);
                let file = format!("{n}.Dockerfile");
                scene.env.write(&file, dockerfile);
                let file = format!("context/{file}");
                let args = [&["build", "context", "-f", &file], &TO[..]].concat();
                let mut command = scene.env.command_in(&store, &args);
                let output = command.env("ACTIONS_RUNTIME_TOKEN", token(MAIN)).output();
                Done::of(output.unwrap()).ok();
            });
        }
    });
    for dockerfile in &dockerfiles {
        let done = scene.run(MAIN, "last", dockerfile, &FROM).ok();
        assert_eq!(made(&done), NONE, "{}", done.stderr);
    }
}

#[test]
fn large_layers_go_up_in_blocks_and_come_down_in_ranges() {
    let scene = Scene::new();
    let large = "FROM base:1\nRUN head -c 40000000 /dev/urandom > /large\n";
    let to = ["--cache-to", "type=gha,compression=uncompressed", "-o", "first"];
    // One block fails once.
    let n_blocks = AtomicUsize::new(0);
    scene.server.fault(move |request, _n_before| {
        let is_block = request.target.contains("comp=block&");
        let fails = is_block && n_blocks.fetch_add(1, Ordering::SeqCst) == 1;
        fails.then(|| Answer::new(503, "ServerBusy"))
    });
    scene.run(MAIN, "one", large, &to).ok();
    let calls = scene.server.calls(0);
    assert_eq!(count(&calls, "PUT block"), 4, "three blocks, one of them twice: {calls:?}");
    assert_eq!(count(&calls, "PUT blocklist"), 1, "{calls:?}");
    let n_before = scene.server.n_requests();
    let done = scene.run(MAIN, "two", large, &[&FROM[..], &["-o", "second"]].concat()).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
    let calls = scene.server.calls(n_before);
    assert!(count(&calls, "GET") >= 6, "the document, and parts of 8 MiB: {calls:?}");
    let content = |directory: &str| fs::read(scene.env.path(directory).join("large")).unwrap();
    assert!(content("first") == content("second"));
}

#[test]
fn addresses_that_expire_are_asked_for_again() {
    let scene = Scene::new();
    let n_puts = AtomicUsize::new(0);
    // The first upload is refused as if its address had expired.
    scene.server.fault(move |request, _n_before| {
        let fails = request.method == "PUT" && n_puts.fetch_add(1, Ordering::SeqCst) == 0;
        fails.then(|| Answer::new(403, "<Error><Code>AuthenticationFailed</Code></Error>"))
    });
    let first = scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    assert!(!first.stderr.contains("warning"), "{}", first.stderr);
    assert_eq!(scene.keys(BLOBS), 4, "{:?}", scene.server.keys());
    let n_gets = AtomicUsize::new(0);
    scene.server.fault(move |request, _n_before| {
        let fails = request.method == "GET" && n_gets.fetch_add(1, Ordering::SeqCst) < 2;
        fails.then(|| Answer::new(403, "<Error><Code>AuthenticationFailed</Code></Error>"))
    });
    let done = scene.run(MAIN, "two", DOCKERFILE, &[&FROM[..], &["-o", "out"]].concat());
    // The document's address fails twice, which is an error of the cache and so a warning.
    assert!(done.ok().stderr.contains("cannot import the cache"));
    scene.server.fault(|_request, _n_before| None);
    scene.server.expire_addresses();
    let done = scene.run(MAIN, "three", DOCKERFILE, &[&FROM[..], &["-o", "out"]].concat()).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
}

#[test]
fn entries_that_are_gone_or_were_never_completed_are_written_again() {
    let scene = Scene::new();
    scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    // Their keys stay reserved.
    scene.server.break_uploads(BLOBS);
    assert_eq!(scene.keys(BLOBS), 0);
    let done = scene.run(MAIN, "two", DOCKERFILE, &[&FROM[..], &["-o", "out"]].concat()).ok();
    assert!(made(&done).len() >= 4, "{}", done.stderr);
    scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    assert_eq!(scene.keys(BLOBS), 4, "{:?}", scene.server.keys());
    let done = scene.run(MAIN, "three", DOCKERFILE, &[&FROM[..], &["-o", "out"]].concat()).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
    // GitHub has removed the oldest entries.
    scene.server.evict(BLOBS);
    scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    assert_eq!(scene.keys(BLOBS), 4, "{:?}", scene.server.keys());
    let done = scene.run(MAIN, "four", DOCKERFILE, &[&FROM[..], &["-o", "out"]].concat()).ok();
    assert_eq!(made(&done), NONE, "{}", done.stderr);
}

#[test]
fn busy_server_is_waited_for_up_to_the_time_limit() {
    let scene = Scene::new();
    let n_calls = AtomicUsize::new(0);
    scene.server.fault(move |request, _n_before| {
        let fails = request.method == "POST" && n_calls.fetch_add(1, Ordering::SeqCst) < 2;
        fails.then(|| Answer::new(429, "{}").header("Retry-After", "1"))
    });
    let done = scene.run(MAIN, "one", DOCKERFILE, &TO).ok();
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    assert_eq!(scene.keys(BLOBS), 4);
    scene.server.fault(|request, _n_before| {
        (request.method == "POST").then(|| Answer::new(429, "{}").header("Retry-After", "1"))
    });
    let from = ["--cache-from", "type=gha,timeout=2s,ignore-error=false"];
    scene.run(MAIN, "two", DOCKERFILE, &from).fails(3, &["cannot import the cache", "429"]);
}

#[test]
fn caches_that_fail_are_warnings_unless_they_must_not() {
    let scene = Scene::new();
    let build = |access: &str, args: &[&str]| scene.run(access, "one", "FROM base:1\n", args);
    scene.server.fault(|_request, _n_before| {
        Some(Answer::new(401, r#"{"code":"unauthenticated","msg":"token expired"}"#))
    });
    let done = build(MAIN, &[TO, FROM].concat()).ok();
    assert!(
        done.stderr.contains("token expired; the token is valid until its job ends"),
        "{}",
        done.stderr
    );
    build(MAIN, &["--cache-to", "type=gha,ignore-error=false"])
        .fails(3, &["cannot export the cache to the cache of GitHub Actions (scope buildkit)"]);
    for (answer, part) in [
        (Answer::new(404, "nothing"), "does not have version 2"),
        (Answer::new(200, "<html>"), "is not valid"),
        (Answer::new(500, r#"{"code":"internal","msg":"out of order"}"#), "out of order"),
    ] {
        scene.server.fault(move |_request, _n_before| Some(answer.clone()));
        let done = build(MAIN, &FROM).ok();
        assert!(done.stderr.contains("cannot import the cache"), "{}", done.stderr);
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
    scene.server.fault(|request, _n_before| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let key = body.get("key").unwrap();
        let answer = serde_json::json!({ "ok": true, "signed_download_url": "ftp://x/", "matched_key": key });
        Some(Answer::new(200, answer.to_string()))
    });
    let done = build(MAIN, &FROM).ok();
    assert!(done.stderr.contains("its address of an entry is not valid"), "{}", done.stderr);
    // Outside of GitHub, or in a step that does not get the variables.
    for name in ["ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN"] {
        let mut command = scene.env.command_in("one", &["build", "context", FROM[0], FROM[1]]);
        command.env("ACTIONS_RUNTIME_TOKEN", token(MAIN)).env_remove(name);
        let done = Done::of(command.output().unwrap()).ok();
        assert!(done.stderr.contains(&format!("it needs {name}")), "{}", done.stderr);
    }
}

#[test]
fn token_and_signatures_are_shown_nowhere_and_kept_nowhere() {
    let scene = Scene::new();
    let debug = ["--debug-log", "log", "-o", "out"];
    let first = scene.run(MAIN, "one", DOCKERFILE, &[&TO[..], &debug].concat()).ok();
    let second = scene.run(MAIN, "two", DOCKERFILE, &[&FROM[..], &debug].concat()).ok();
    scene.server.fault(|_request, _n_before| Some(Answer::new(500, "no")));
    let failed = scene.run(MAIN, "two", DOCKERFILE, &[TO, FROM].concat()).ok();
    let given = format!("type=gha,token={},url={},scoep=x", token(MAIN), scene.server.url());
    let wrong = scene.run(MAIN, "two", DOCKERFILE, &["--cache-from", &given]);
    wrong.fails(2, &["token=****", "did you mean `scope`?"]);
    for secret in ["hidden-signature", "secret%2Bsignature", "secret+signature"] {
        for done in [&first, &second, &failed, &wrong] {
            assert!(!done.stderr.contains(secret), "{}", done.stderr);
        }
        let mut grep = scene.env.program("grep");
        let found = grep.args(["-rlF", secret, "one", "two", "log"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
}

/// Saves and restores a file with GitHub's own client: the test server behaves as it expects.
#[test]
fn client_of_github_uses_the_test_server() {
    const SCRIPT: &str = "
const fs = require('fs'), assert = require('assert');
(async () => {
  const cache = await import('@actions/cache');
  const content = require('crypto').randomBytes(140_000_000);
  fs.mkdirSync('data', { recursive: true });
  fs.writeFileSync('data/file', content);
  assert.equal(await cache.restoreCache(['data'], 'absent'), undefined);
  assert.notEqual(await cache.saveCache(['data'], 'key-1', { uploadChunkSize: 32 * 1024 * 1024 }), -1);
  assert.equal(await cache.saveCache(['data'], 'key-1'), -1);
  fs.rmSync('data', { recursive: true });
  assert.equal(await cache.restoreCache(['data'], 'key-2', ['key-']), 'key-1');
  assert.ok(fs.readFileSync('data/file').equals(content));
  console.log('restored');
})().catch((error) => { console.error(error); process.exit(1); });
";
    let Some(modules) = std::env::var_os("RBUILD_TEST_ACTIONS_CACHE").map(PathBuf::from) else {
        skip(
            "actions-cache",
            "set RBUILD_TEST_ACTIONS_CACHE to a node_modules with @actions/cache",
        );
        return;
    };
    let server = ActionsServer::start();
    let directory = tempfile::tempdir().unwrap();
    let mut node = Command::new("node");
    node.args(["-e", SCRIPT]).current_dir(directory.path()).stdin(Stdio::null());
    std::os::unix::fs::symlink(modules, directory.path().join("node_modules")).unwrap();
    node.env("ACTIONS_CACHE_SERVICE_V2", "true")
        .env("ACTIONS_RESULTS_URL", server.url())
        .env("ACTIONS_RUNTIME_TOKEN", token(MAIN))
        .env("GITHUB_WORKSPACE", directory.path())
        .env("RUNNER_TEMP", directory.path());
    let done = Done::of(node.output().unwrap()).ok();
    assert!(done.stdout.ends_with("restored\n"), "{}", done.stdout);
    let calls = server.calls(0);
    assert!(count(&calls, "PUT block") >= 3 && count(&calls, "PUT blocklist") == 1, "{calls:?}");
    assert_eq!(server.keys().len(), 1);
}
