//! The debug log: its contents, its location, and what it must never contain.

#![expect(clippy::disallowed_methods, reason = "tests access the system directly")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::env::Env;
use crate::support::registry::DockerRegistry;

const DOCKERFILE: &str = "FROM base:1\nCOPY Dockerfile /a\nRUN echo hello\n";

#[test]
fn debug_log_holds_requests_lookups_mounts_and_times() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    let name = format!("{}/app:1", registry.host());
    env.build(DOCKERFILE, &["-t", &name, "--push", "--debug-log", "log"]).ok();
    let log = fs::read_to_string(env.path("log")).unwrap();
    for part in [
        "DEBUG rbuild::store: store root=",
        "step=\"[stage-0 2/3] COPY Dockerfile /a\"",
        "cache miss",
        "sandbox op=mount proc on /proc",
        "command ended program=Some(\"/bin/sh\") exit=Code(0) took=",
        "layer packed layer=sha256:",
        &format!("request method=Put url=http://{}/v2/app/manifests/", registry.host()),
        "status=201",
    ] {
        assert!(log.contains(part), "no `{part}` in:\n{log}");
    }
    // It contains names of the owner's files and hosts.
    assert_eq!(fs::metadata(env.path("log")).unwrap().permissions().mode() & 0o777, 0o600);

    env.build(DOCKERFILE, &["-t", &name, "--debug-log", "log"]).ok();
    let both = fs::read_to_string(env.path("log")).unwrap();
    assert!(both.starts_with(&log), "a log is added to");
    assert!(both.contains("cache hit"), "{both}");
}

#[test]
fn debug_log_goes_to_standard_error_but_not_among_json() {
    let env = Env::new();
    env.base();
    let usual = env.build(DOCKERFILE, &[]).ok();
    assert!(!usual.stderr.contains("DEBUG"), "{}", usual.stderr);
    let debug = env.build(DOCKERFILE, &["--debug"]).ok();
    assert!(debug.stderr.contains("DEBUG rbuild::"), "{}", debug.stderr);
    assert!(!debug.stdout.contains("DEBUG"), "{}", debug.stdout);

    let refused = ["both use standard error", "--debug-log FILE"];
    env.build(DOCKERFILE, &["--debug", "--progress=json"]).fails(2, &refused);
    let json = env.build(DOCKERFILE, &["--debug-log", "log", "--progress=json"]).ok();
    for line in json.stderr.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn variable_selects_what_is_logged() {
    let mut env = Env::new();
    env.base();
    env.set("RBUILD_LOG", "rbuild::store=debug");
    let done = env.build(DOCKERFILE, &[]).ok();
    assert!(done.stderr.contains("DEBUG rbuild::store"), "{}", done.stderr);
    assert!(!done.stderr.contains("DEBUG rbuild::sandbox"), "{}", done.stderr);
    env.set("RBUILD_LOG", "verbose");
    env.build(DOCKERFILE, &[])
        .fails(2, &["invalid RBUILD_LOG \"verbose\"", "error, warn, info, debug, trace"]);
}

#[test]
fn debug_log_holds_no_secret() {
    let env = Env::new();
    env.base();
    env.write("secret", "hunter2-of-a-file");
    let dockerfile = "FROM base:1\nARG TOKEN\n\
        RUN --mount=type=secret,id=s cat /run/secrets/s\n\
        ADD https://user:hunter2-of-an-address@127.0.0.1:9/x?sig=hunter2-of-a-query /x\n";
    let args =
        ["--secret", "id=s,src=context/secret", "--build-arg", "TOKEN=hunter2-of-an-argument"];
    let args = [&args[..], &["--debug-log", "log"]].concat();
    env.build(dockerfile, &args).fails(1, &["127.0.0.1"]);
    let log = fs::read_to_string(env.path("log")).unwrap();
    assert!(log.contains("rbuild::sandbox"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}
