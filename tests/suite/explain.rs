//! `--explain`: why a step was not cached.
#![expect(clippy::disallowed_methods, reason = "tests change files as a user would")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::env::Env;

const FILE: &str = "FROM base:1\nARG WHO=one\nENV A=$WHO\nCOPY src /src\n\
                    RUN cat /src/a > /all\nRUN touch /more\n";

/// Returns the reasons that `--explain` gives for each step that ran, without the step's number.
fn reasons(env: &Env, file: &str, args: &[&str]) -> Vec<String> {
    let done = env.build(file, &[&["--explain", "--progress=plain"], args].concat()).ok();
    let said = |line: &str| line.split_once(" not cached: ").map(|(_, why)| why.to_owned());
    done.stderr.lines().filter_map(said).collect()
}

fn env() -> Env {
    let env = Env::new();
    env.base();
    for name in ["a", "b", "c"] {
        env.write(&format!("src/{name}"), name);
    }
    env
}

#[test]
fn each_step_that_is_made_has_its_reason() {
    const NEW: &str = "first time this step has run here";
    let below = |step: &str| format!("an earlier step was rebuilt: {step}");
    let env = env();
    assert_eq!(reasons(&env, FILE, &[]), [NEW; 3]);
    assert_eq!(reasons(&env, FILE, &[]), [""; 0]);

    env.write("src/a", "another");
    let copy = "[stage-0 2/4] COPY src /src";
    let want = ["/src/a changed".to_owned(), below(copy), below(copy)];
    assert_eq!(reasons(&env, FILE, &[]), want);

    fs::remove_file(env.path("context/src/b")).unwrap();
    env.write("src/new", "n");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(env.path("context/src/c"), mode).unwrap();
    let found = reasons(&env, FILE, &[]);
    let want = "/src/b is gone, /src/c has another mode, /src/new is new";
    assert_eq!(found.first().map(String::as_str), Some(want));

    let found = reasons(&env, FILE, &["--build-arg", "WHO=two"]);
    assert_eq!(found, ["ENV or ARG WHO changed: `one` → `two`"; 2]);

    let edited = FILE.replace("touch /more", "touch /most");
    let want = ["the command changed: `touch /more` → `touch /most`"];
    assert_eq!(reasons(&env, &edited, &[]), want);

    let found = reasons(&env, &edited, &["--no-cache"]);
    assert_eq!(found, ["--no-cache was given"; 3]);
}

#[test]
fn another_base_image_is_named_with_both_digests() {
    let env = env();
    env.build("FROM base:1\nRUN echo 1 > /f\n", &["-t", "own:1"]).ok();
    let file = "FROM own:1\nRUN true\n";
    env.build(file, &[]).ok();
    env.build("FROM base:1\nRUN echo 2 > /f\n", &["-t", "own:1"]).ok();
    let found = reasons(&env, file, &[]);
    let (why, digests) = found.first().unwrap().split_once("changed: ").unwrap();
    assert_eq!(why, "the base image ");
    let (old, new) = digests.split_once(" → ").unwrap();
    assert!(old.starts_with("own:1@sha256:") && new.starts_with("own:1@sha256:"), "{digests}");
    assert_ne!(old, new);
}

#[test]
fn mounts_users_and_networks_are_reasons_and_a_platform_is_none_for_files() {
    let env = env();
    let run = |options: &str| format!("FROM base:1\nRUN {options} true\n");
    let bind = "--mount=type=bind,source=src/a,target=/a";
    reasons(&env, &run("--mount=type=tmpfs,target=/t"), &[]);
    let found = reasons(&env, &run("--mount=type=tmpfs,target=/u"), &[]);
    assert_eq!(found, ["mount /u is new: `writable tmpfs 0`"]);
    reasons(&env, &run(bind), &[]);
    env.write("src/a", "another");
    assert_eq!(reasons(&env, &run(bind), &[]), ["files at /a changed"]);
    let as_user = run(bind).replace("RUN", "USER 1\nRUN");
    assert_eq!(reasons(&env, &as_user, &[]), ["user changed: nothing → `1`"]);
    let found = reasons(&env, &as_user, &["--network=none"]);
    assert_eq!(found, ["network changed: `host` → `none`"]);

    let copy = "FROM scratch\nCOPY src /there\nWORKDIR /there/w\n";
    reasons(&env, copy, &["--platform=linux/amd64"]);
    // Files are the same for every platform.
    assert_eq!(reasons(&env, copy, &["--platform=linux/arm64"]), [""; 0]);
}
