//! Stores that cannot hold an overlay: steps make their changes in memory, and on the disk if these are
//! too large. The images are those of any other store.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use crate::support::env::{Done, Env, Who, skip};
use crate::support::sandbox::has_overlays_in_memory;

/// Builds an image in a store on the overlay of a container, or on the host without `limit`. Returns the
/// digest, and what was shown.
fn build(env: &Env, limit: Option<&str>) -> (String, String) {
    const SCRIPT: &str = "rbuild=$1 files=$2 store=$3\n\
        $rbuild --root $store build $files/base -t base:1 --reproducible -q >/dev/null &&\n\
        $rbuild --root $store build $files/context --reproducible --iidfile $store/id >&2 && cat $store/id";
    let mut command = match limit {
        Some(limit) => {
            env.write_container();
            let limit = format!("--env=RBUILD_MAX_IN_MEMORY={limit}");
            let files = format!("--volume={}:/files:ro", env.shown("."));
            let options = ["--privileged", &limit, &files];
            let arguments = ["/usr/bin/rbuild", "/files", "/var/lib/rbuild"];
            env.container(&options, &[&["sh", "-c", SCRIPT, "sh"], &arguments[..]].concat())
        }
        None => {
            let mut shell = env.program("sh");
            shell.args(["-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_rbuild")]);
            shell.args([env.shown("."), env.shown("store")]);
            shell
        }
    };
    let done = Done::of(command.output().unwrap()).ok();
    (done.stdout, done.stderr)
}

/// Builds the image with each limit, and compares it with that of the host. Returns what was shown.
fn build_with<const N: usize>(dockerfile: &str, limits: [&str; N]) -> Option<[String; N]> {
    let env = Env::of(Who::root()?);
    if !has_overlays_in_memory() {
        skip("memory", "the kernel makes no overlays of detached mounts before Linux 6.15");
        return None;
    }
    env.write_base();
    env.write("Dockerfile", dockerfile);
    env.write("script", "#!/bin/sh\n");
    let (wanted, shown) = build(&env, None);
    assert!(shown.contains("isolation: namespace\n"), "{shown}");
    Some(limits.map(|limit| {
        let (id, shown) = build(&env, Some(limit));
        assert_eq!(id, wanted, "{limit}: {shown}");
        shown
    }))
}

const AGAIN: &str = "it runs again, on the disk";

#[test]
fn priv_changes_that_are_too_large_for_memory_are_made_on_the_disk() {
    let dockerfile = "FROM base:1\n\
        RUN echo a > /kept; head -c 90000000 /dev/zero > /large; echo done\n\
        RUN rm /kept /large; echo b > /after; mkdir /d; ln /after /d/after\n";
    let Some(shown) = build_with(dockerfile, ["160MiB", "400MiB", "0"]) else { return };
    let [small, enough, none] = shown;
    assert!(small.contains(AGAIN) && small.contains("changes are made in memory"), "{small}");
    assert!(!enough.contains(AGAIN) && enough.contains("changes are made in memory"), "{enough}");
    assert!(!none.contains(AGAIN) && none.contains("files are copied"), "{none}");
}

#[test]
fn priv_layers_that_are_too_large_for_memory_together_are_read_from_the_store() {
    let dockerfile = "FROM base:1\n\
        RUN head -c 30000000 /dev/zero > /one; mkdir /d; echo 1 > /d/1\n\
        RUN head -c 30000000 /dev/zero > /two; echo 2 > /d/2\n\
        RUN head -c 30000000 /dev/zero > /three; chmod 700 /d\n\
        COPY script /d/script\n\
        RUN head -c 30000000 /dev/zero > /four; rm /d/1\n\
        RUN rm -r /d; mkdir /d; echo again > /d/1\n\
        RUN ls -l /d > /list; chown 5:6 /one\n";
    let Some([shown]) = build_with(dockerfile, ["160MiB"]) else { return };
    assert!(!shown.contains(AGAIN), "{shown}");
}
