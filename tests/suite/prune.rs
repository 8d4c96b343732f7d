//! `du` and `prune`: contents of the store, and their removal.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::tmux::Terminal;

const TWO_STEPS: &str = "FROM base:1
RUN --mount=type=cache,target=/c head -c 300000 /dev/zero > /c/f
RUN head -c 2000000 /dev/urandom > /big
RUN echo small > /small
";
const OLD_STEP: &str = "FROM base:1\nRUN head -c 1000000 /dev/urandom > /aged\n";

as_root_and_as_user!(what_was_not_used_for_longest_goes_first, prune_waits_for_other_processes);

fn usage(env: &Env) -> Value {
    serde_json::from_str(&env.rbuild(&["du", "--json"]).ok().stdout).unwrap()
}

/// Makes everything that was used so far an hour older.
fn age(env: &Env) {
    let index = rusqlite::Connection::open(env.path("store/index.db")).unwrap();
    for column in ["step SET used_s = used_s", "resolved SET updated_s = updated_s"] {
        index.execute(&format!("UPDATE {column} - 3600"), []).unwrap();
    }
    let caches = env.path("store/cache-mounts");
    for entry in fs::read_dir(caches).into_iter().flatten() {
        let lock = fs::File::open(entry.unwrap().path().join("0/lock")).unwrap();
        let modified = lock.metadata().unwrap().modified().unwrap();
        lock.set_modified(modified - std::time::Duration::from_secs(3600)).unwrap();
    }
}

fn bytes(usage: &Value) -> u64 {
    usage["Size"].as_u64().unwrap()
}

/// Returns the descriptions of the cached steps.
fn steps(usage: &Value) -> Vec<String> {
    let records = usage["Records"].as_array().unwrap().iter();
    let steps = records.filter(|record| record["Type"] == "step");
    let mut steps: Vec<String> =
        steps.map(|step| step["Description"].as_str().unwrap().to_owned()).collect();
    steps.sort();
    steps
}

fn what_was_not_used_for_longest_goes_first(who: Who) {
    let env = Env::of(who);
    env.base();
    env.build(OLD_STEP, &[]).ok();
    age(&env);
    env.build(TWO_STEPS, &["-t", "app:1"]).ok();
    env.rbuild(&["rmi", "app:1"]).ok();
    age(&env);
    // A cache hit counts as a use.
    env.build(OLD_STEP, &[]).ok().ended(&["RUN head -c 1000000 /dev/urandom > /aged: CACHED"]);

    let before = usage(&env);
    assert_eq!(steps(&before).len(), 5, "{before:#}");
    let types: Vec<&Value> = before["Types"].as_array().unwrap().iter().collect();
    let sum: u64 = types.iter().map(|kind| kind["Size"].as_u64().unwrap()).sum();
    assert_eq!(sum, bytes(&before), "{before:#}");

    let dry = env.rbuild(&["prune", "--dry-run", "--older-than", "30m"]).ok().stdout;
    assert!(
        dry.starts_with("Would remove cache mount: /c\nwould remove 4 cached steps, "),
        "{dry}"
    );
    assert_eq!(bytes(&usage(&env)), bytes(&before));

    // Removing the cache mount and the big layer is enough; the old step was used since.
    let max = (bytes(&before) - 1_500_000).to_string();
    env.rbuild(&["prune", "--keep-storage", &max]).ok();
    let after = usage(&env);
    assert!(bytes(&after) <= max.parse().unwrap(), "{after:#}");
    let left = steps(&after);
    assert!(left.iter().any(|step| step.contains("/aged")), "{left:?}");
    assert!(!left.iter().any(|step| step.contains("/big")), "{left:?}");
    env.build(OLD_STEP, &[]).ok().ended(&["RUN head -c 1000000 /dev/urandom > /aged: CACHED"]);

    let pruned = env.rbuild(&["prune", "--filter", "until=30m"]).ok().stdout;
    assert!(pruned.contains(" cached step"), "{pruned}");
    let left = steps(&usage(&env));
    assert_eq!(left, ["RUN /bin/sh -c head -c 1000000 /dev/urandom > /aged"]);
    let types = usage(&env)["Types"].clone();
    let caches = types.as_array().unwrap().iter().find(|kind| kind["Type"] == "Cache Mounts");
    assert_eq!(caches.unwrap()["TotalCount"], 0);
    // The remaining store is usable.
    env.build(TWO_STEPS, &["-t", "app:1", "-o", "type=oci,dest=app.tar"]).ok();
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn priv_du_shows_what_there_is() {
    let env = Env::new();
    env.base();
    env.build(TWO_STEPS, &["-t", "app:1", "-t", "app:2"]).ok();
    let summary = env.rbuild(&["du"]).ok().stdout;
    let rows: Vec<Vec<&str>> = summary
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert_eq!(rows[0], ["TYPE", "TOTAL", "ON DISK", "RECLAIMABLE"]);
    assert_eq!(rows[1][..2], ["Images", "3"]);
    assert_eq!(rows[2][..2], ["Build Cache", "4"]);
    // The layers of the steps belong to the images.
    assert_eq!(rows[2][3], "0B");
    assert_eq!(rows[3][..2], ["Cache Mounts", "1"]);
    assert_eq!(rows.last().unwrap()[0], "Total");
    let verbose = env.rbuild(&["du", "-v"]).ok().stdout;
    for part in ["app:1", "RUN /bin/sh -c echo small > /small", "cache mount   /c ", "Layers:"] {
        assert!(verbose.contains(part), "{verbose}");
    }
    let all = usage(&env);
    let image =
        all["Records"].as_array().unwrap().iter().find(|r| r["Name"] == "docker.io/library/app:1");
    // The other name shares all of it.
    assert_eq!(image.unwrap()["Size"], image.unwrap()["SharedSize"]);
}

#[test]
fn priv_prune_wants_to_be_alone_and_says_what_it_does_not_know() {
    let env = Env::new();
    env.base();
    env.rbuild(&["prune", "--filter", "label=x"])
        .fails(2, &["--filter label=x: unknown filter", "until=TIME"]);
    env.rbuild(&["prune", "--keep-storage", "much"]).fails(2, &["expected a size such as 10GB"]);
    env.rbuild(&["prune", "--older-than", "long"]).fails(2, &["expected a duration such as 24h"]);
    let index = env.path("store/blobs/sha256");
    // The image is damaged, so what it needs is unknown.
    let inspected = env.rbuild(&["inspect", "--json", "base:1"]).ok().stdout;
    let shown: Value = serde_json::from_str(&inspected).unwrap();
    let manifest = shown["Manifest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    fs::write(index.join(manifest), "{}").unwrap();
    env.rbuild(&["prune"]).fails(3, &["is damaged", "prune --all"]);
    let done: Done = env.rbuild(&["prune", "--all", "--force"]).ok();
    assert!(done.stdout.starts_with("Untagged: base:1\nremoved "), "{}", done.stdout);
    assert_eq!(fs::read_dir(index).unwrap().count(), 0);
}

fn prune_waits_for_other_processes(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN echo begun && sleep 3\n");
    let mut build = env.command(&["build", "context"]);
    let mut build = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !env.rbuild(&["history", "logs"]).stdout.contains("begun") {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(20));
    }
    let pruned = env.rbuild(&["prune"]);
    let is_over = build.try_wait().unwrap().is_some();
    assert!(build.wait().unwrap().success());
    let pruned = pruned.ok();
    assert!(is_over && pruned.stdout.contains("removed 2 cached steps"), "{pruned:?}");
    let remark = "waiting for the store, in use by process ";
    assert!(pruned.stderr.starts_with(remark) && pruned.stderr.contains(" (rbuild)"), "{pruned:?}");
}

#[test]
fn priv_prune_names_the_process_that_keeps_it_waiting() {
    let env = Env::new();
    env.base();
    let lock = env.path("store/locks/in-use");
    let mut holder = env.program("flock");
    let mut holder = holder.arg("-s").arg(&lock).args(["sleep", "60"]).spawn().unwrap();
    let is_free = || {
        let mut probe = env.program("flock");
        probe.arg("-n").arg(&lock).arg("true").status().unwrap().success()
    };
    while is_free() {
        thread::sleep(Duration::from_millis(5));
    }
    let done = env.rbuild(&["prune"]);
    let dry = env.rbuild(&["prune", "--dry-run"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let named = format!("process {} (flock)", holder.id());
    done.fails(3, &["is in use by", &named, "try again when it has ended"]);
    dry.ok();
}

#[test]
fn priv_prune_of_all_asks_on_a_terminal() {
    let env = Env::new();
    env.base();
    env.build(TWO_STEPS, &["-t", "app:1"]).ok();
    let prune = ["prune", "--all"];
    let terminal = Terminal::rbuild(&env, (100, 30), &prune);
    let question = "Remove all of this? [y/N]";
    let screen = terminal.until(|screen| screen.contains(question));
    for part in
        ["Would untag: app:1", "Would remove cache mount: /c", "would remove 4 cached steps"]
    {
        assert!(screen.contains(part), "{screen}");
    }
    terminal.keys("Enter");
    let screen = terminal.until(|screen| screen.contains("exit="));
    assert!(screen.contains("error: nothing was removed\nexit=1"), "{screen}");
    assert!(env.rbuild(&["images"]).ok().stdout.contains("app"));
    let terminal = Terminal::rbuild(&env, (100, 30), &prune);
    terminal.until(|screen| screen.contains(question));
    terminal.keys("y");
    terminal.keys("Enter");
    let screen = terminal.until(|screen| screen.contains("exit="));
    assert!(screen.contains("Untagged: app:1\n") && screen.contains("exit=0"), "{screen}");
    // Without a terminal, and with -f on one, rbuild does not ask, and lists what it removes.
    env.base();
    let done = env.rbuild(&prune).ok();
    assert!(done.stdout.starts_with("Untagged: base:1\n") && done.stderr.is_empty(), "{done:?}");
    env.base();
    let terminal = Terminal::rbuild(&env, (100, 30), &["prune", "--all", "-f"]);
    let screen = terminal.until(|screen| screen.contains("exit="));
    assert!(screen.contains("exit=0") && !screen.contains(question), "{screen}");
}
