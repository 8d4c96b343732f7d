//! Order and number of the steps that run, observed from outside.

#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use crate::support::env::{Done, Env, Who};

#[test]
fn stages_that_the_target_does_not_need_never_run() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1 AS unneeded\nRUN exit 9\n\
                      FROM base:1 AS needed\nRUN echo a > /a\n\
                      FROM needed AS middle\nRUN echo b > /b\n\
                      FROM middle\nRUN exit 9\n";
    let done = env.build(dockerfile, &["--target", "middle"]).ok();
    done.ended(&["RUN echo a > /a: DONE", "RUN echo b > /b: DONE"]);
    let done = env.build(dockerfile, &["--target", "1"]).ok();
    done.ended(&["RUN echo a > /a: CACHED"]);
    env.build(dockerfile, &["--target", "unneeded"]).fails(1, &["exit code: 9"]);
}

#[test]
fn targetstage_is_the_target_or_the_last_stage() {
    let env = Env::new();
    for (last, target, want) in [
        ("FROM work AS Last", None, "last"),
        ("FROM work", None, "default"),
        ("FROM work AS last", Some("work"), "work"),
        ("FROM work AS last", Some("0"), "0"),
    ] {
        let file = format!("FROM scratch AS work\nARG TARGETSTAGE\nLABEL a=$TARGETSTAGE\n{last}\n");
        let target: Vec<&str> = target.into_iter().flat_map(|name| ["--target", name]).collect();
        env.build(&file, &[&["-t", "x:1"], target.as_slice()].concat()).ok();
        let shown = env.rbuild(&["inspect", "--json", "x:1"]).ok().stdout;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["Config"]["config"]["Labels"]["a"], want, "{last} {target:?}");
        // The outline shows the same value.
        let file = format!("FROM scratch AS work\nARG TARGETSTAGE A=$TARGETSTAGE\n{last}\n");
        let outline = env.build(&file, &[&["--call=outline"], target.as_slice()].concat()).ok();
        assert!(outline.stdout.contains(&format!("A           {want}")), "{}", outline.stdout);
    }
}

#[test]
fn independent_stages_run_at_once() {
    let env = Env::new();
    env.base();
    // Each stage waits until the other one has begun.
    let stage = |own: u8, other: u8| {
        format!(
            "RUN --mount=type=cache,id=c,target=/c touch /c/{own} /{own}; \
             n=0; until test -e /c/{other}; do n=$((n+1)); test $n -lt 6000; sleep 0.01; done\n"
        )
    };
    let (one, two) = (stage(1, 2), stage(2, 1));
    let dockerfile = format!(
        "FROM base:1 AS one\nSHELL [\"/bin/sh\", \"-ec\"]\n{one}\
         FROM base:1 AS two\nSHELL [\"/bin/sh\", \"-ec\"]\n{two}\
         FROM base:1\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n"
    );
    env.write("Dockerfile", dockerfile);
    env.rbuild(&["build", "context", "--jobs", "1"]).ok();
}

#[test]
fn equal_steps_of_several_stages_run_once() {
    let env = Env::new();
    env.base();
    let both = "RUN sleep 0.2; cat /proc/sys/kernel/random/uuid > /id\n";
    let dockerfile = format!(
        "FROM base:1 AS one\n{both}FROM base:1 AS two\n{both}FROM base:1\n\
         COPY --from=one /id /1\nCOPY --from=two /id /2\n\
         RUN test \"$(cat /1)\" = \"$(cat /2)\"\n"
    );
    let done = env.build(&dockerfile, &[]).ok();
    done.ended(&[
        "RUN sleep 0.2; cat /proc/sys/kernel/random/uuid > /id: DONE",
        "RUN sleep 0.2; cat /proc/sys/kernel/random/uuid > /id: CACHED",
        "COPY --from=one /id /1: DONE",
        "COPY --from=two /id /2: DONE",
        "RUN test \"$(cat /1)\" = \"$(cat /2)\": DONE",
    ]);
}

#[test]
fn failure_of_one_stage_ends_the_others_and_is_the_one_that_is_told() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1 AS slow\nRUN sleep 1000\n\
                      FROM base:1 AS bad\nRUN sleep 0.1; echo oh no; exit 4\n\
                      FROM base:1\nCOPY --from=slow /etc /a\nCOPY --from=bad /etc /b\n";
    let done = env.build(dockerfile, &[]);
    done.fails(1, &["last lines of the failed step:\n  oh no\n", "exit code: 4\n", ":4:1\n"]);
    done.ended(&["RUN sleep 1000: CANCELED", "RUN sleep 0.1; echo oh no; exit 4: ERROR"]);
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn planning_that_takes_long_ends_with_the_first_signal() {
    let env = Env::new();
    let line = "ENV b=${a%%*a*b}\n".repeat(50_000);
    env.write("Dockerfile", format!("FROM scratch\nENV a={}\n{line}", "a".repeat(60_000)));
    for args in [["build", "--quiet", "context"], ["build", "--check", "context"]] {
        let mut child = env.command(&args).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        let is_ended = status.code() == Some(130) || status.signal() == Some(15);
        assert!(is_ended, "{args:?}: {status:?}");
    }
}

/// Builds as an ordinary user with a limit on processes and threads; for root it has no effect.
fn with_few_threads(env: &Env, n_most: usize, args: &[&str]) -> Done {
    let mut command = env.program("prlimit");
    command.arg(format!("--nproc={n_most}")).arg(env!("CARGO_BIN_EXE_rbuild"));
    Done::of(command.args(["--root", "store", "build", "context"]).args(args).output().unwrap())
}

/// Returns `n_stages` stages that begin with `start`, and one that takes a file from each.
fn many_stages(n_stages: usize, start: &str) -> String {
    let mut dockerfile = String::new();
    for number in 0..n_stages {
        let make = format!("COPY <<EOF /n\n{number}\nEOF\n");
        dockerfile.push_str(&format!("FROM {start} AS s{number}\n{make}"));
    }
    dockerfile.push_str("FROM scratch\n");
    for number in 0..n_stages {
        dockerfile.push_str(&format!("COPY --from=s{number} /n /{number}\n"));
    }
    dockerfile
}

#[test]
fn priv_many_stages_need_few_threads() {
    let Some(who) = Who::user() else { return };
    let env = Env::of(who);
    env.write("Dockerfile", many_stages(600, "scratch"));
    env.hand_over("context");
    with_few_threads(&env, 400, &[]).ok();
}

#[test]
fn priv_threads_that_cannot_start_do_not_cause_a_panic() {
    let Some(who) = Who::user() else { return };
    let env = Env::of(who);
    env.base();
    let bomb = "base:1\nRUN f() { f | f & }; f; sleep 1; true\nCOPY . /context\n\
                RUN head -c 20000000 /dev/zero > /large\nFROM base:1";
    env.write("Dockerfile", many_stages(20, "base:1").replacen("base:1", bomb, 1));
    for number in 0..100 {
        env.write(&format!("files/{number}"), vec![b'x'; 20_000]);
    }
    env.hand_over("context");
    for n_most in [2, 3, 4, 6, 9, 14, 25, 60] {
        let done = with_few_threads(&env, n_most, &["--no-cache", "-o", "type=oci,dest=out"]);
        assert!(!done.stderr.contains("panicked"), "{n_most}: {}", done.stderr);
        // Exit code 3: with two processes, none is left to map the user's ids.
        assert!(matches!(done.code, Some(0 | 1 | 3)), "{n_most}: {:?} {}", done.code, done.stderr);
    }
}
