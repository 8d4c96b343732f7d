//! `--check` and `--call=outline` report what would stop a build, and build nothing.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use std::fs;

use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::registry::DockerRegistry;

/// Files that cannot be built, and the error message of the build.
const REFUSED: [(&str, &str); 13] = [
    ("FROM scratch\nCOPY --chmod=64a Dockerfile /f\n", "invalid chmod parameter: '64a'"),
    ("FROM scratch\nARG A=${NOT_THERE:?is-needed}\n", "is-needed"),
    ("ARG A=${NOT_THERE:?is-needed}\nFROM scratch\n", "is-needed"),
    ("FROM scratch\nLABEL a=\"open\n", "quote"),
    ("FROM scratch AS a\nCOPY --from=b /f /f\nFROM scratch AS b\nFROM a\n", "comes later"),
    ("FROM scratch AS own\nCOPY --from=own /f /f\n", "is the stage itself"),
    ("FROM scratch\nCOPY --from=7 /f /f\n", "invalid stage index 7"),
    ("FROM scratch\nCOPY http://127.0.0.1:1/x /x\n", "source can't be a URL for COPY"),
    ("FROM scratch\nVOLUME $NOTHING\n", "a path of VOLUME is blank"),
    ("FROM layout:./x/\n", "invalid reference format"),
    ("FROM $NOTHING\n", "base name should not be blank"),
    ("FROM --platform=$NOTHING scratch\n", "--platform is blank"),
    ("FROM --platform=a/b/c/d scratch\n", "`a/b/c/d` is not a platform"),
];

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn check_and_outline_refuse_what_the_build_refuses() {
    let env = Env::new();
    for (file, message) in REFUSED {
        env.build(file, &["-q"]).fails(1, &[message]);
        // Stages that the last one does not need are checked too.
        let unneeded = format!("{file}FROM scratch\n");
        for file in [file, &unneeded] {
            let check = env.build(file, &["--check"]);
            assert_eq!(check.code, Some(1), "{file}{}", check.stderr);
            assert!(check.stdout.contains(message), "{file}{}", check.stdout);
            let check = env.build(file, &["--call=check,format=json"]);
            assert_eq!(check.code, Some(1), "{file}{}", check.stderr);
            let error = &json(&check)["buildError"];
            assert!(error["message"].as_str().unwrap().contains(message), "{file}{error}");
            assert!(error["location"]["ranges"][0]["start"]["line"].is_u64(), "{file}{error}");
        }
        let outline = env.build(file, &["--call=outline"]);
        outline.fails(1, &[message]);
        let outline = env.build(file, &["--call=outline", "--format=json"]);
        outline.fails(1, &[message]);
        let error = json(&outline)["buildError"]["message"].clone();
        assert!(error.as_str().unwrap().contains(message), "{file}{error}");
    }
    let made = fs::read_dir(env.path("store")).unwrap().count();
    assert!(made > 0, "the builds made a store");
}

#[test]
fn check_needs_neither_a_store_nor_an_image() {
    let env = Env::new();
    let file = "FROM nowhere.example/x AS one\nCOPY --from=nowhere.example/y /a /b\nRUN a\n\
                FROM one\nCOPY /b /c\n";
    let done = env.build(file, &["--check"]).ok();
    assert_eq!(done.stdout, "no warnings\n");
    assert!(!env.path("store").exists());
}

#[test]
fn what_depends_on_an_unknown_image_counts_as_right() {
    let env = Env::new();
    for line in [
        "EXPOSE $PORT",
        "VOLUME $DATA",
        "LABEL a=${SET_BELOW:?needed}",
        "STOPSIGNAL $HOW",
        "COPY --chmod=$MODE Dockerfile /f",
        "ENV A=$PORT\nEXPOSE $A",
        "ARG A=x$PORT\nSTOPSIGNAL ${A#x}",
        "RUN --mount=type=cache,target=. true",
        "RUN --mount=type=cache,target=$CACHE true",
    ] {
        let done = env.build(&format!("FROM nowhere.example/x\n{line}\n"), &["--check"]);
        assert!(!done.stdout.contains("error"), "{line}\n{}", done.stdout);
    }
    for (lines, message) in [
        ("EXPOSE port", "EXPOSE port"),
        ("ENV A=port\nEXPOSE $A", "EXPOSE port"),
        ("ENV A=$PORT\nENV A=port\nEXPOSE $A", "EXPOSE port"),
        ("ARG A=\nVOLUME $A", "a path of VOLUME is blank"),
        ("WORKDIR /\nRUN --mount=type=cache,target=. true", "cannot be `/`"),
    ] {
        let done = env.build(&format!("FROM nowhere.example/x\n{lines}\n"), &["--check"]);
        assert_eq!(done.code, Some(1), "{lines}");
        assert!(done.stdout.contains(message), "{lines}\n{}", done.stdout);
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let env = Env::new();
    let file = "FROM Bad/Name AS a\nEXPOSE x\nCOPY --from=9 /a /b\nEXPOSE $UNKNOWN\n\
                FROM a AS b\nEXPOSE y\nFROM scratch\nCOPY --from=8 / /\nVOLUME $NOTHING\n";
    let done = env.build(file, &["--check"]);
    let lines: Vec<&str> =
        done.stdout.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect();
    let starts: Vec<&str> = lines.iter().filter_map(|at| at.split(':').nth(1)).collect();
    assert_eq!(starts, ["1", "2", "3", "6", "8", "9", "9"], "{}", done.stdout);
    done.fails(1, &["6 errors, 1 warning"]);
}

#[test]
fn check_of_a_target_looks_at_what_that_needs() {
    let env = Env::new();
    let file = "FROM scratch AS good\nFROM scratch AS bad\nEXPOSE x\nCMD a\n";
    env.build(file, &["--check", "--target", "good"]).ok();
    env.build(file, &["--check", "--target", "bad"]).fails(1, &["1 error, 1 warning"]);
    let done = env.build(file, &["--check", "--target", "god"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stdout.contains("target stage \"god\" could not be found"), "{}", done.stdout);
    assert!(done.stdout.contains("did you mean `good`?"), "{}", done.stdout);
}

#[test]
fn check_uses_the_configs_that_the_store_has() {
    let env = Env::new();
    let file = "FROM base:9\nLABEL a=$GIVEN b=$NOT_GIVEN\nEXPOSE $PORT\n";
    assert_eq!(env.build(file, &["--check"]).ok().stdout, "no warnings\n");
    env.build("FROM scratch\nENV GIVEN=1 PORT=port\n", &["-t", "base:9"]).ok();
    let done = env.build(file, &["--check"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("usage of undefined variable `$NOT_GIVEN`"), "{}", done.stdout);
    assert!(!done.stdout.contains("`$GIVEN`"), "{}", done.stdout);
    assert!(done.stdout.contains("EXPOSE port"), "{}", done.stdout);
    // The store has no image for this platform.
    env.build(file, &["--check", "--platform", "linux/s390x"]).ok();
}

#[test]
fn check_may_ask_registries() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    let name = format!("{}/team/base:1", registry.host());
    env.build("FROM scratch\nENV GIVEN=1\n", &["-t", &name, "--push"]).ok();
    env.rbuild(&["rmi", &name]).ok();
    let file = format!("FROM {name}\nLABEL a=$GIVEN b=$NOT_GIVEN\n");
    let args = ["build", "--check", "context"];
    env.write("Dockerfile", &file);
    assert_eq!(env.command_in("other", &args).output().unwrap().status.code(), Some(0));
    let args = ["build", "--check=pull", "context"];
    let done = Done::of(env.command_in("other", &args).output().unwrap());
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("usage of undefined variable `$NOT_GIVEN`"), "{}", done.stdout);
    let file = file.replace("base:1", "absent:1");
    let done = env.build(&file, &["--check=pull", "--format=json"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(json(&done)["buildError"]["message"].as_str().unwrap().contains("absent"));
}

#[test]
fn empty_continuation_stands_in_json_where_buildkit_has_it() {
    let env = Env::new();
    let file = "FROM scratch\nLABEL a=1 \\\n\n  # comment\n  b=2 \\\n\n\n  c=3\nLABEL d=4\n";
    let done = env.build(file, &["--check", "--format=json"]);
    let warning = &json(&done)["warnings"][0];
    assert_eq!(warning["ruleName"], "NoEmptyContinuation");
    assert_eq!(warning["location"]["ranges"][0]["start"]["line"], 8);
}

#[test]
fn outline_has_the_last_declaration_and_the_mounts_of_secrets() {
    let env = Env::new();
    let file = "ARG VERSION=1\nARG NAME=x$VERSION\nARG UNUSED=$NAME\n\
                FROM scratch AS first\nARG TARGETARCH\nARG FLAGS=-O1\n\
                RUN --mount=type=secret,source=a/b --mount=type=ssh,target=/s true\n\
                FROM first\nARG FLAGS=-O2\nARG NAME\nARG TARGETOS=$TARGETARCH\n\
                RUN --mount=type=secret,target=/c/d,required \\\n --mount=type=ssh,id=k true\n";
    let done = env.build(file, &["--call=outline,format=json", "--platform", "linux/arm64"]).ok();
    let outline = json(&done);
    let listed = |member: &str, value: &str| -> Vec<String> {
        let one = |one: &Value| {
            let line = &one["location"]["ranges"][0]["start"]["line"];
            let shown = format!("{} {} {line}", one["name"], one[value]);
            shown.replace('"', "")
        };
        outline[member].as_array().unwrap().iter().map(one).collect()
    };
    let want = ["VERSION 1 1", "NAME x1 2", "FLAGS -O2 9", "TARGETOS arm64 11"];
    assert_eq!(listed("args", "value"), want);
    assert_eq!(listed("secrets", "required"), ["a/b false 7", "d true 12"]);
    assert_eq!(listed("ssh", "required"), ["default false 7", "k false 12"]);
}
