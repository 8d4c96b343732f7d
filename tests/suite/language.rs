//! Corner cases of the language that are visible in the image: each line was compared with
//! BuildKit.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::env::{Env, Who};
use crate::support::images::Layout;

const OCI: &str = "type=oci,dest=out,tar=false,compression=uncompressed";

/// Returns the image's whole config document.
fn config_of(env: &Env, dockerfile: &str, args: &[&str]) -> Value {
    env.build(dockerfile, &[&["-o", OCI], args].concat()).ok();
    let config = Layout::read(&env.path("out")).config;
    fs::remove_dir_all(env.path("out")).unwrap();
    config
}

#[test]
fn config_is_what_the_instructions_say() {
    let env = Env::new();
    for (lines, member, want) in [
        ("ARG A=1 B=$A\nLABEL b=$B", "Labels", json!({"b": "1"})),
        ("ARG A=1 \\\n B=${A}2 \\\n C=${B}3\nLABEL c=$C", "Labels", json!({"c": "123"})),
        ("ENV A=1 B=$A\nLABEL b=\"<$B>\"", "Labels", json!({"b": "<>"})),
        ("WORKDIR /a//b/./", "WorkingDir", json!("/a//b/./")),
        ("WORKDIR /a/\nWORKDIR b/../c", "WorkingDir", json!("/a/c")),
        ("WORKDIR /a\nWORKDIR $UNSET", "WorkingDir", json!("/a")),
        ("USER 5\nUSER $UNSET", "User", Value::Null),
        ("HEALTHCHECK --interval=5s NONE", "Healthcheck", json!({"Test": ["NONE"]})),
        (
            "EXPOSE 8000-8001:80-81 90-99:7",
            "ExposedPorts",
            json!({"80/tcp": {}, "81/tcp": {}, "7/tcp": {}}),
        ),
        ("ONBUILD  RUN  a  \\\n  b  ", "OnBuild", json!(["RUN  a    b  "])),
    ] {
        let config = config_of(&env, &format!("FROM scratch\n{lines}\n"), &[]);
        assert_eq!(config["config"][member], want, "{lines}");
    }
}

#[test]
fn scratch_is_of_the_platform_that_is_built_for() {
    let env = Env::new();
    let dockerfile = "FROM --platform=linux/s390x scratch\nLABEL a=b\n";
    let config = config_of(&env, dockerfile, &["--platform", "linux/riscv64"]);
    assert_eq!(config["architecture"], "riscv64");
}

#[test]
fn steps_see_proxies_and_a_home_whatever_the_image_says() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1\nENV HTTP_PROXY=image HOME=\nARG http_proxy=default\n\
        RUN test $HTTP_PROXY$http_proxy = givengiven && test -n \"$HOME\"\n";
    env.build(dockerfile, &["--build-arg", "http_proxy=given"]).ok();
}

#[test]
fn workdir_belongs_to_a_number_as_chown_has_it() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1\nUSER 7\nWORKDIR /seven/in\nUSER 7:8\nWORKDIR /eight\n\
        RUN test \"$(stat -c %u:%g /seven /seven/in /eight)\" = \"$(printf '7:7\\n7:7\\n7:8')\"\n";
    if Who::root().is_some() {
        env.build(dockerfile, &[]).ok();
    }
}

#[test]
fn directory_whose_contents_are_copied_gives_its_time() {
    let env = Env::new();
    env.write("d/file", "x");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let directory = File::open(env.path("context/d")).unwrap();
    directory.set_times(FileTimes::new().set_modified(then)).unwrap();
    env.build("FROM scratch\nCOPY d /new\nCOPY d/ /a/b\n", &["-o", "rootfs"]).ok();
    for path in ["rootfs/new", "rootfs/a/b"] {
        assert_eq!(fs::metadata(env.path(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
}

#[test]
fn label_of_the_command_line_has_a_name() {
    let env = Env::new();
    let bad = env.build("FROM scratch\nLABEL a=b\n", &["--label", "=x"]);
    bad.fails(2, &["error: --label =x: the name is missing"]);
}

#[test]
fn mistakes_that_show_late_name_their_line() {
    let env = Env::new();
    for (lines, message) in [
        ("COPY <<a/b /d/\n1\na/b", "a heredoc of COPY cannot create a file named `a/b`"),
        ("COPY <<.. /d/\n1\n..", "a heredoc of COPY cannot create a file named `..`"),
        ("EXPOSE 8000-8002:80-81", "the port ranges in `8000-8002:80-81` differ in length"),
        ("STOPSIGNAL SIGRTMIN+16", "invalid signal: SIGRTMIN+16"),
        ("FROM --platform=foo scratch", "`foo` is not a platform"),
        ("RUN --device=a/b=c x", "RUN --device is not supported yet"),
    ] {
        env.build(&format!("FROM scratch\n{lines}\n"), &[]).fails(1, &[message, "Dockerfile:2:"]);
    }
}
