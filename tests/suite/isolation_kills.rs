//! Builds without namespaces that are killed at random moments: no process and no secret stays, and the
//! next build makes the same image.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::env::{Env, Who, skip};
use crate::support::sandbox::{is_root, test_user};

/// Steps with processes that outlive them, a secret, a cache, and changes of files.
const DOCKERFILE: &str = "FROM base:1\n\
    RUN (trap '' TERM HUP; while true; do sleep 7659; done) & sh -c 'sleep 7659 & sleep 7659 &' & echo one > /one\n\
    RUN --mount=type=secret,id=key cat /run/secrets/key > /dev/null; sleep 0.05; mkdir -p /d/e; chown -R 5:6 /d\n\
    RUN --mount=type=cache,target=/cache echo x >> /cache/x; sleep 7659 & i=0; \
        while [ $i -lt 40 ]; do echo $i > /d/$i; i=$((i+1)); done; chmod 4755 /d/1; mv /d/2 /d/3\n\
    RUN sleep 0.1; rm -r /d/e; ls /d > /list\n";
const SECRET: &str = "a-secret-that-stays-in-memory-7659";

/// Number of builds that are killed; 50 take half a minute.
const N_KILLS_VARIABLE: &str = "RBUILD_KILLS";
const N_KILLS: u64 = 8;
/// Time in which a build tries kinds of isolation, milliseconds.
const TRIAL_MILLIS: u64 = 60;

fn kill_builds(who: Who, isolation: &str) {
    let mut env = Env::of(who);
    env.base();
    env.set("RBUILD_ISOLATION", isolation);
    fs::write(env.path("key"), SECRET).unwrap();
    env.hand_over("key");
    env.write("Dockerfile", DOCKERFILE);
    let args = ["build", "context", "--reproducible", "--secret", "id=key,src=key", "--quiet"];
    let whole = Instant::now();
    let want = env.rbuild(&[&args[..], &["--no-cache"]].concat()).ok().stdout;
    let millis = u64::try_from(whole.elapsed().as_millis()).unwrap();
    let n_kills = std::env::var(N_KILLS_VARIABLE).map_or(N_KILLS, |n| n.parse().unwrap());
    for n in 0..n_kills {
        // Spread over the duration of a build; the product of primes makes it irregular. Every other one
        // hits the trials of isolation.
        let within = if n % 2 == 0 { millis } else { TRIAL_MILLIS.min(millis) };
        let delay = (n * 7919 * 31) % within.max(1);
        let mut command = env.command(&[&args[..], &["--no-cache"]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !env.processes().is_empty() {
            let left = env.processes();
            assert!(Instant::now() < deadline, "killed after {delay} ms: {left:?}");
            sleep(Duration::from_millis(10));
        }
        let found = files_with(&env.path("store"), SECRET.as_bytes());
        assert!(found.is_empty(), "killed after {delay} ms: {found:?}");
    }
    let got = env.rbuild(&[&args[..], &["--no-cache"]].concat()).ok().stdout;
    assert_eq!(got, want);
    assert_eq!(env.leftovers_of_killed("store"), "");
}

/// Returns the files below a directory that contain `needle`.
fn files_with(directory: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() {
            found.extend(files_with(&path, needle));
        } else if meta.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(needle.len()).any(|part| part == needle) {
                found.push(path.as_os_str().as_bytes().escape_ascii().to_string());
            }
        }
    }
    found
}

#[test]
fn priv_builds_in_chroot_leave_nothing_when_killed() {
    if !is_root() {
        return skip("root", "chroot(2) is for root");
    }
    kill_builds(Who::Caller, "chroot");
}

#[test]
fn priv_emulated_builds_leave_nothing_when_killed() {
    if is_root() {
        match test_user() {
            Ok(user) => kill_builds(Who::User(user), "emulated"),
            Err(why) => skip("user", &why),
        }
    } else {
        kill_builds(Who::Caller, "emulated");
    }
}
