//! The projects of `examples/`: runs the commands of their READMEs. Images from Docker Hub are
//! replaced by one small base, in which Python, Node and the compiler are stand-ins that print
//! their arguments. `examples/ci` has its own tests, `examples/hello` is run by the gate.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::Path;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::source;

as_root_and_as_user!(every_example_builds_as_its_readme_says);

/// The base images of the examples.
const BASES: [&str; 4] = ["python:3.12-slim", "node:22-alpine", "gcc:14", "busybox"];

/// Prints its arguments; writes the file after `-o`, as a compiler does.
const STAND_IN: &str = "#!/bin/sh\necho \"${0##*/} $*\"\nwhile [ $# -gt 0 ]; do\n  \
                        [ \"$1\" != -o ] || echo program > \"$2\"\n  shift\ndone\n";

fn every_example_builds_as_its_readme_says(who: Who) {
    let env = Env::of(who);
    let replaced = bases(&env);
    let mut log = String::new();
    let mut n_commands = 0;
    for name in ["python", "node", "static-c", "monorepo"] {
        let directory = format!("examples/{name}");
        copy(&source::root().join(&directory), &env.path(&directory));
        env.hand_over("examples");
        let readme = source::text_of(&format!("{directory}/README.md"));
        let commands = readme.lines().filter_map(|line| line.strip_prefix("    rbuild "));
        for command in commands {
            let done = run(&env, &directory, command, &replaced);
            log.push_str(&done.stderr);
            n_commands += 1;
        }
    }
    assert_eq!(n_commands, 8);
    for part in [
        "pip install --no-compile -r requirements.txt",
        "python -m unittest",
        "npm ci",
        "npm test",
        "cc -O2 -Wall -static -s -o /hello hello.c",
        "good day, test",
    ] {
        assert!(log.lines().any(|line| line.ends_with(part)), "no `{part}` in {log}");
    }
    let out = env.path("examples/static-c/out/hello");
    assert_eq!(fs::read_to_string(out).unwrap(), "program\n");
    let served = env.rbuild(&["enter", "web", "--", "cat", "/srv/greeting.txt"]).ok();
    assert_eq!(served.stdout, "good day, web\n");
}

/// Builds the base. Returns the options that substitute it for the images of `BASES`.
fn bases(env: &Env) -> Vec<String> {
    env.base();
    let links = "RUN for name in python pip node npm; do ln -s cc /bin/$name; done\n";
    env.write("cc", STAND_IN);
    env.build(
        &format!("FROM base:1\nCOPY --chmod=755 cc /bin/cc\n{links}"),
        &["-o", "type=oci,tar=false,dest=base-layout"],
    )
    .ok();
    let layout = env.shown("base-layout");
    BASES.iter().map(|name| format!("--build-context={name}=oci-layout://{layout}")).collect()
}

/// Runs a command line of a README in the directory of its example.
fn run(env: &Env, directory: &str, command: &str, replaced: &[String]) -> Done {
    let mut rbuild = env.program(env!("CARGO_BIN_EXE_rbuild"));
    rbuild.args(["--root", &env.shown("store")]).current_dir(env.path(directory));
    let layout = replaced.last().and_then(|option| option.split_once("busybox=")).unwrap().1;
    let command = command.replace("docker-image://busybox", layout);
    rbuild.args(command.split(' '));
    if !command.starts_with("inspect") {
        rbuild.args(replaced);
    }
    Done::of(rbuild.output().unwrap()).ok()
}

/// Copies a directory of text files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
