//! Which steps run, when, and how often: seen from outside.

use std::time::{Duration, Instant};

use crate::support::env::Env;

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
fn independent_stages_run_at_once() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1 AS one\nRUN sleep 1 && echo 1 > /1\n\
                      FROM base:1 AS two\nRUN sleep 1 && echo 2 > /2\n\
                      FROM base:1\nCOPY --from=one /1 /\nCOPY --from=two /2 /\nRUN cat /1 /2\n";
    env.write("Dockerfile", dockerfile);
    let started = Instant::now();
    env.rbuild(&["build", "context", "--jobs", "1"]).ok();
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
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
    let dockerfile = "FROM base:1 AS slow\nRUN sleep 30\n\
                      FROM base:1 AS bad\nRUN sleep 0.1; echo oh no; exit 4\n\
                      FROM base:1\nCOPY --from=slow /etc /a\nCOPY --from=bad /etc /b\n";
    let started = Instant::now();
    let done = env.build(dockerfile, &[]);
    assert!(started.elapsed() < Duration::from_secs(10));
    done.fails(1, &["last lines of the failed step:\n  oh no\n", "exit code: 4\n", ":4:1\n"]);
    done.ended(&["RUN sleep 30: CANCELED", "RUN sleep 0.1; echo oh no; exit 4: ERROR"]);
    assert_eq!(env.leftovers("store"), "");
}
