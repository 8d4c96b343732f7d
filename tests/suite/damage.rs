//! A store that is damaged, was used by another version, or is in use by other processes; and
//! limits and signals that could end a build midway.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

as_root_and_as_user!(
    damaged_blob_is_not_exported_and_is_rebuilt,
    index_of_a_later_version_is_refused,
    layer_that_others_unpack_at_the_same_time_stays,
    limit_on_the_length_of_files_is_an_error,
    open_files_of_steps_are_not_the_callers,
    signal_that_comes_twice_at_once_ends_the_build_in_order,
);

const DOCKERFILE: &str = "FROM base:1\nRUN seq 20000 > /numbers\n";

/// Returns the compressed layers of the store: documents and plain tars are not gzip.
fn packed_layers(env: &Env) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.path("store/blobs/sha256")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b])).collect()
}

fn damage(env: &Env) {
    let blobs = packed_layers(env);
    assert!(!blobs.is_empty(), "the store has no packed layers");
    for blob in blobs {
        let mut bytes = fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes.get_mut(middle).map(|byte| *byte ^= 4).unwrap();
        fs::write(&blob, bytes).unwrap();
    }
}

fn damaged_blob_is_not_exported_and_is_rebuilt(who: Who) {
    let env = Env::of(who);
    env.base();
    let archive = |name: &str| format!("type=oci,dest={name}");
    let args = ["-t", "app", "--reproducible", "-o"];
    env.build(DOCKERFILE, &[&args[..], &[&archive("first.tar")]].concat()).ok();
    damage(&env);
    let again = env.build(DOCKERFILE, &[&args[..], &[&archive("second.tar")]].concat()).ok();
    assert!(again.stderr.contains("is damaged"), "{}", again.stderr);
    assert!(fs::read(env.path("first.tar")).unwrap() == fs::read(env.path("second.tar")).unwrap());
    // Other commands report the damage, and the next attempt succeeds.
    env.rbuild(&["save", "app", "-o", "whole.tar"]).ok();
    damage(&env);
    let saved = env.rbuild(&["save", "app", "-o", "bad.tar"]);
    saved.fails(saved.code.unwrap(), &["is damaged", "run the command again"]);
    assert_ne!(saved.code, Some(0));
    assert!(!env.path("bad.tar").exists());
    env.build(DOCKERFILE, &[&args[..], &[&archive("third.tar")]].concat()).ok();
    assert!(fs::read(env.path("first.tar")).unwrap() == fs::read(env.path("third.tar")).unwrap());
}

fn index_of_a_later_version_is_refused(who: Who) {
    let env = Env::of(who);
    env.base();
    let version = || -> i64 {
        let index = rusqlite::Connection::open(env.path("store/index.db")).unwrap();
        index.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    let known = version();
    let index = rusqlite::Connection::open(env.path("store/index.db")).unwrap();
    index.pragma_update(None, "user_version", 99).unwrap();
    drop(index);
    env.hand_over("store/index.db");
    let known = format!("has version 99, but this rbuild supports version {known}");
    for args in [&["build", "context"][..], &["images"], &["prune", "--all"]] {
        env.write("Dockerfile", DOCKERFILE);
        let done = env.rbuild(args);
        done.fails(done.code.unwrap(), &[&known, "--root DIR"]);
        assert_ne!(done.code, Some(0));
    }
    assert_eq!(version(), 99);
}

/// Locks the index repeatedly, as a process on a slow disk does.
fn hold_index(env: &Env, until: &AtomicBool) {
    let mut index = rusqlite::Connection::open(env.path("store/index.db")).unwrap();
    index.busy_timeout(Duration::from_secs(30)).unwrap();
    while !until.load(Ordering::SeqCst) {
        let held = index.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        std::thread::sleep(Duration::from_millis(60));
        held.unwrap().rollback().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn layer_that_others_unpack_at_the_same_time_stays(who: Who) {
    let env = Env::of(who);
    env.base();
    env.build(DOCKERFILE, &["-o", "type=oci,dest=base.tar"]).ok();
    fs::create_dir(env.path("layout")).unwrap();
    env.hand_over("layout");
    let unpacked = env.program("tar").args(["-xf", "base.tar", "-C", "layout"]).status().unwrap();
    assert!(unpacked.success());
    env.hand_over("layout");
    let context = format!("other=oci-layout://{}", env.shown("layout"));
    // Each step reads the whole layer for a while after mounting it.
    let look = "for n in 1 2 3 4 5 6 7 8; do wc -l < /numbers; usleep 50000; done";
    for round in 0..2 {
        fs::remove_dir_all(env.path("store")).unwrap();
        env.rbuild(&["images"]).ok();
        env.hand_over("store/index.db");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| hold_index(&env, &done));
            let builds: Vec<Child> = (0..4)
                .map(|number| {
                    let dockerfile = format!("FROM other\nRUN : {number}; {look}\n");
                    env.write(&format!("{number}/Dockerfile"), dockerfile);
                    let context_of = format!("context/{number}");
                    let args =
                        ["build", &context_of, "--progress=plain", "--build-context", &context];
                    let mut command = env.command(&args);
                    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
                })
                .collect();
            let ended: Vec<Done> = builds
                .into_iter()
                .map(|build| Done::of(build.wait_with_output().unwrap()))
                .collect();
            done.store(true, Ordering::SeqCst);
            for build in ended {
                let build = build.ok();
                let n_seen = build.stderr.lines().filter(|line| line.ends_with(" 20000")).count();
                assert_eq!(n_seen, 8, "round {round}: {}", build.stderr);
            }
        });
    }
}

fn limited(env: &Env, limit: &str, args: &[&str]) -> Done {
    let script = format!("ulimit {limit}; exec \"$0\" --root store \"$@\"");
    let mut command = env.program("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_rbuild")]).args(args);
    Done::of(command.output().unwrap())
}

fn limit_on_the_length_of_files_is_an_error(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("large", vec![b'x'; 4 << 20]);
    env.write("Dockerfile", "FROM base:1\nCOPY large /\n");
    let done = limited(&env, "-f 2048", &["build", "context", "-o", "type=cacheonly"]);
    done.fails(done.code.expect("it was ended by a signal"), &["File too large"]);
}

fn open_files_of_steps_are_not_the_callers(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN echo soft $(ulimit -Sn)\n");
    let args = ["build", "context", "--progress=plain", "--no-cache"];
    for limit in ["-Sn 300", "-Sn 4000"] {
        let done = limited(&env, limit, &args).ok();
        assert!(done.stderr.contains(" soft 1024"), "{limit}: {}", done.stderr);
    }
    // A hundred steps, each of which keeps the layers below it open.
    let steps = (0..100).map(|n| format!("RUN echo {n} > /n{n}\n")).collect::<String>();
    env.write("Dockerfile", format!("FROM base:1\n{steps}"));
    limited(&env, "-Sn 64", &args).ok();
}

fn signal_that_comes_twice_at_once_ends_the_build_in_order(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN echo be''gun; sleep 77\n");
    let mut command = env.command(&["build", "context", "--progress=plain"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with(" begun")), "the step does not start");
    // The build ends within a few milliseconds.
    for _ in 0..8 {
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let rest: Vec<String> = lines.collect();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    assert_eq!(env.leftovers("store"), "");
}
