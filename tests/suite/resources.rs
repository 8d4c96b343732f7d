//! Limits on the memory and the processors of RUN steps.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::env::{Done, Env, Who, skip};

/// Fills a tmpfs, whose pages count as memory of the step and cannot be written elsewhere.
const GREEDY: &str = "FROM base:1\nRUN cd /dev/shm && head -c 100000000 /dev/zero > x\n";

fn env() -> Option<Env> {
    let env = Env::of(Who::root()?);
    env.base();
    Some(env)
}

/// Returns whether the machine lets root limit a step; a build says so with an error.
fn is_refused(done: &Done) -> bool {
    let refused = done.stderr.contains("cannot enforce --");
    if refused {
        skip("cgroup", &done.stderr);
    }
    refused
}

/// Returns the control groups of steps of the rbuild with this pid.
fn groups(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("rbuild-step-{pid}-");
    let all = walkdir::WalkDir::new("/sys/fs/cgroup").into_iter().filter_map(Result::ok);
    let own = all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    own.filter(|entry| entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn priv_step_that_exceeds_its_memory_says_so() {
    for isolation in ["namespace", "chroot", "emulated"] {
        let Some(env) = env() else { return };
        let isolated = format!("--isolation={isolation}");
        let enough = env.build(GREEDY, &["--shm-size=200m", "-m", "512m", &isolated]);
        if is_refused(&enough) {
            return;
        }
        enough.ok();
        let options = ["--shm-size=200m", "--resource=memory=16m", "--no-cache", &isolated];
        let failed = env.build(GREEDY, &options);
        assert_eq!(failed.code, Some(1), "{isolation}: {}", failed.stderr);
        let part = "out of memory: the limit of 16.7MB (--memory) was reached";
        assert!(failed.stderr.contains(part), "{isolation}: {}", failed.stderr);
    }
}

#[test]
fn priv_step_has_the_processors_that_it_was_given() {
    let Some(env) = env() else { return };
    let text = "FROM base:1\nRUN test $(nproc) = 1\n";
    let options = [
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "-c",
        "512",
        "--cpu-quota=50000",
        "--cpu-period=100000",
    ];
    let built = env.build(text, &options);
    if is_refused(&built) {
        return;
    }
    built.ok();
    // Limits are not part of the key.
    let again = env.build(text, &["-m", "64m"]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}

#[test]
fn priv_groups_are_gone_after_the_step_and_after_a_killed_build() {
    let Some(env) = env() else { return };
    let limited = ["build", "context", "--progress=plain", "-m", "64m"];
    env.write("Dockerfile", "FROM base:1\nRUN echo started; sleep 600\n");
    let mut building = env.command(&limited).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(building.stderr.take().unwrap());
    for line in log.lines().map(Result::unwrap) {
        if line.contains("cannot enforce --") {
            building.wait().unwrap();
            return skip("cgroup", &line);
        }
        if line.ends_with(" started") {
            break;
        }
    }
    let killed = building.id();
    assert_eq!(groups(killed).len(), 1);
    building.kill().unwrap();
    building.wait().unwrap();
    env.write("Dockerfile", "FROM base:1\nRUN true\n");
    let next = env.command(&limited).stderr(Stdio::piped()).spawn().unwrap();
    let own = next.id();
    let done = next.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(groups(own), Vec::<PathBuf>::new());
    assert_eq!(groups(killed), Vec::<PathBuf>::new());
}

#[test]
fn priv_named_parent_is_made() {
    let Some(env) = env() else { return };
    let parent = format!("/rbuild-test-{}", std::process::id());
    let option = format!("--cgroup-parent={parent}");
    let built = env.build(
        "FROM base:1\nRUN grep -q rbuild-step- /proc/self/cgroup\n",
        &["-m", "64m", &option],
    );
    if is_refused(&built) {
        return;
    }
    built.ok();
    let all = walkdir::WalkDir::new("/sys/fs/cgroup").into_iter().filter_map(Result::ok);
    let made: Vec<PathBuf> = all
        .filter(|entry| {
            parent.ends_with(&*entry.file_name().to_string_lossy()) && entry.depth() > 0
        })
        .map(walkdir::DirEntry::into_path)
        .collect();
    assert!(!made.is_empty());
    for path in made {
        std::fs::remove_dir(path).unwrap();
    }
}

#[test]
fn priv_limit_that_cannot_be_enforced_is_an_error() {
    let Some(who) = Who::user() else { return };
    if !rustix::process::geteuid().is_root() {
        return skip("root", "the caller's groups may be delegated");
    }
    let env = Env::of(who);
    env.base();
    let failed = env.build("FROM base:1\nRUN true\n", &["-m", "64m"]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert!(failed.stderr.contains("cannot enforce --memory: /sys/fs/cgroup"), "{}", failed.stderr);
}

#[test]
fn contradicting_limits_are_usage_errors() {
    let env = Env::new();
    for (options, part) in [
        (["--memory-swap=1g", "-q"], "--memory-swap needs --memory"),
        (["-m=2g", "--memory-swap=1g"], "must not be less than"),
        (["--resource=cpus=2", "-q"], "expected memory, memory-swap, cpu-shares"),
        (["--cpuset-cpus=a", "-q"], "expected a list such as 0-3"),
        (["--memory=lots", "-q"], "expected a size such as 512m"),
    ] {
        let failed = env.build("FROM scratch\n", &options);
        assert_eq!(failed.code, Some(2), "{}", failed.stderr);
        assert!(failed.stderr.contains(part), "{}", failed.stderr);
    }
}
