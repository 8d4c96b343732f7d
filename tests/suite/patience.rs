//! Limits on durations: `--step-timeout`, `--timeout`, and the comment `# rbuild:` above a RUN.

use std::time::{Duration, Instant};

use crate::support::env::Env;

/// A step that ends only if it is killed. The test waits for its result, not for the time.
const STUCK: &str = "FROM base:1\nRUN echo before; sh -c 'echo inner; sleep 3600; true'\n";

fn env() -> Env {
    let env = Env::new();
    env.base();
    env
}

#[test]
fn priv_timed_out_step_says_what_it_was_doing() {
    for isolation in ["namespace", "chroot", "emulated"] {
        let env = env();
        let isolated = format!("--isolation={isolation}");
        let failed = env.build(STUCK, &["--step-timeout=900ms", &isolated]);
        assert_eq!(failed.code, Some(124), "{}", failed.stderr);
        for part in [
            "timed out after 900ms, while `sleep 3600` was running; its last output came",
            "last lines of the failed step:\n  before\n  inner\n",
            "--step-timeout",
        ] {
            assert!(failed.stderr.contains(part), "{isolation}: {part}: {}", failed.stderr);
        }
    }
}

#[test]
fn priv_secret_in_a_command_line_is_masked() {
    let env = env();
    env.write("secret", "hunter2-hunter2");
    let text = "FROM base:1\n\
                RUN --mount=type=secret,id=s mkfifo /f && cat /f \"$(cat /run/secrets/s)\"\n";
    let failed = env.build(text, &["--step-timeout=900ms", "--secret=id=s,src=context/secret"]);
    assert!(failed.stderr.contains("while `cat /f ****` was running"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("hunter2"), "{}", failed.stderr);
}

#[test]
fn priv_build_that_takes_too_long_ends_and_keeps_finished_steps() {
    let env = env();
    let text = "FROM base:1\nRUN echo 1 > /x\nRUN sleep 3600\n";
    let started = Instant::now();
    let failed = env.build(text, &["--timeout=3s"]);
    assert_eq!(failed.code, Some(124), "{}", failed.stderr);
    let part = "the build took longer than 3s (--timeout), while `sleep 3600` was running; it printed nothing";
    assert!(failed.stderr.contains(part), "{}", failed.stderr);
    assert!(started.elapsed() < Duration::from_secs(600));
    let again = env.build("FROM base:1\nRUN echo 1 > /x\n", &[]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}

#[test]
fn priv_comment_overrides_the_option_and_is_not_part_of_the_key() {
    let env = env();
    let text = "FROM base:1\n# rbuild: timeout=10m\nRUN sleep 1.5; echo done > /x\n";
    env.build(text, &["--step-timeout=1s"]).ok();
    let without = "FROM base:1\nRUN sleep 1.5; echo done > /x\n";
    let again = env.build(without, &["--step-timeout=1ms"]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}

#[test]
fn priv_failed_step_runs_again_on_unchanged_files() {
    for isolation in ["namespace", "emulated"] {
        let env = env();
        let isolated = format!("--isolation={isolation}");
        // The cache mount outlives the attempt; the other file does not.
        let text = "FROM base:1\n# rbuild: retry=2\n\
                    RUN --mount=type=cache,target=/n test ! -e /half && echo > /half && echo x >> /n/tries && \
                    test $(wc -l < /n/tries) = 3\n";
        let built = env.build(text, &[&isolated]).ok();
        let retries = built.stderr.matches("it runs again on unchanged files (retry ").count();
        assert_eq!(retries, 2, "{isolation}: {}", built.stderr);
        let text = "FROM base:1\n# rbuild: retry=1\nRUN echo attempt; exit 7\n";
        let failed = env.build(text, &[&isolated]);
        assert_eq!(failed.code, Some(1), "{}", failed.stderr);
        assert!(failed.stderr.contains("exit code: 7"), "{}", failed.stderr);
        let attempts = failed.stderr.lines().filter(|line| line.ends_with(" attempt")).count();
        assert_eq!(attempts, 3, "two in the log and one in the error: {}", failed.stderr);
    }
}

#[test]
fn bad_durations_are_usage_errors() {
    let env = Env::new();
    for (option, part) in [
        ("--timeout=5", "expected a duration such as 90s or 1h30m"),
        ("--timeout=0s", "must be at least 1ms"),
        ("--step-timeout=-5s", "expected a duration"),
    ] {
        let failed = env.build("FROM scratch\n", &[option]);
        assert_eq!(failed.code, Some(2), "{}", failed.stderr);
        assert!(failed.stderr.contains(part), "{}", failed.stderr);
    }
}
