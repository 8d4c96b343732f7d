//! An untrusted checkout: links, FIFOs and names planted in it must neither lead rbuild out of it
//! nor make it wait.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::registry::{Answer, Scripted};

as_root_and_as_user!(
    draft_of_the_lock_file_is_not_written_through_a_planted_link,
    outputs_replace_planted_links,
    outputs_go_into_streams_that_the_caller_names,
    file_tree_is_not_written_through_a_planted_link,
    files_beside_the_dockerfile_do_not_make_rbuild_wait,
    dockerfile_that_is_a_link_is_resolved_inside_the_context,
);

const RBUILD: &str = env!("CARGO_BIN_EXE_rbuild");
const SMALL: &str = "FROM scratch\nCOPY Dockerfile /\n";
const EMPTY_LOCK: &str = "version = 1\n";

/// Runs a shell script as the builder, and kills it after 60 seconds.
fn script(env: &Env, text: &str) -> Done {
    let mut command = env.program("timeout");
    command.args(["--signal=KILL", "60", "bash", "-c", text, "bash", RBUILD]);
    Done::of(command.output().unwrap())
}

/// Creates a file that must not change.
fn victim(env: &Env) -> PathBuf {
    let path = env.path("victim");
    fs::write(&path, "precious\n").unwrap();
    env.hand_over("victim");
    path
}

fn precious(path: &PathBuf) -> bool {
    fs::read_to_string(path).unwrap() == "precious\n"
}

fn draft_of_the_lock_file_is_not_written_through_a_planted_link(who: Who) {
    let env = Env::of(who);
    let files = Scripted::new(|_, _| Answer::new(200, "content"));
    env.write("Dockerfile", format!("FROM scratch\nADD http://{}/f$(true) /f\n", files.host()));
    env.write("rbuild.lock", EMPTY_LOCK);
    env.hand_over("context");
    let victim = victim(&env);
    // An ordinary user's rbuild has the process id of a child of this shell.
    let plant = "python3 -c \"import os; [os.symlink('../victim', f'context/rbuild.lock.{n}.tmp') \
                 for n in range($$, $$ + 3000)]\"; \
                 exec $1 --root store build context -o type=cacheonly";
    script(&env, plant).ok();
    assert!(precious(&victim));
    let lock = fs::read_to_string(env.path("context/rbuild.lock")).unwrap();
    assert!(lock.contains("[[url]]"), "{lock}");
    let names = fs::read_dir(env.path("context")).unwrap().map(|entry| entry.unwrap().file_name());
    let others: Vec<_> =
        names.filter(|name| name.to_string_lossy().starts_with(".rbuild")).collect();
    assert!(others.is_empty(), "{others:?}");
}

fn outputs_replace_planted_links(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", SMALL);
    let victim = victim(&env);
    let names = ["iid", "metadata", "report", "oci.tar", "tar.tar"];
    for name in names {
        symlink("victim", env.path(name)).unwrap();
    }
    env.hand_over(".");
    let args = [
        ["--iidfile", "iid"],
        ["--metadata-file", "metadata"],
        ["--report", "report"],
        ["-o", "type=oci,dest=oci.tar"],
        ["-o", "type=tar,dest=tar.tar"],
    ];
    env.rbuild(&[&["build", "context"], args.as_flattened()].concat()).ok();
    assert!(precious(&victim));
    for name in names {
        let meta = env.path(name).symlink_metadata().unwrap();
        assert!(meta.is_file() && meta.len() > 0, "{name}");
    }
}

fn outputs_go_into_streams_that_the_caller_names(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", SMALL);
    env.hand_over(".");
    let done = script(&env, "$1 --root store build context --iidfile /dev/stdout | cat").ok();
    assert!(done.stdout.starts_with("sha256:"), "{}", done.stdout);
    let shared = "(echo one; $1 --root store build context --iidfile /dev/stdout; echo two) > out";
    script(&env, shared).ok();
    let out = fs::read_to_string(env.path("out")).unwrap();
    assert!(out.starts_with("one\nsha256:") && out.ends_with("two\n"), "{out}");
    script(&env, "echo kept > out; $1 --root store build context --iidfile /dev/fd/3 3>> out").ok();
    let out = fs::read_to_string(env.path("out")).unwrap();
    assert!(out.starts_with("kept\nsha256:"), "{out}");
    let pipe = "mkfifo pipe; cat pipe > copy & \
                $1 --root store build context -o type=tar,dest=pipe --iidfile >(cat > iid); wait";
    script(&env, pipe).ok();
    assert!(env.path("copy").metadata().unwrap().len() > 1000);
    assert!(fs::read_to_string(env.path("iid")).unwrap().starts_with("sha256:"));
}

fn file_tree_is_not_written_through_a_planted_link(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", SMALL);
    fs::create_dir(env.path("outside")).unwrap();
    fs::create_dir(env.path("layout")).unwrap();
    symlink("outside", env.path("out")).unwrap();
    symlink("../outside", env.path("layout/blobs")).unwrap();
    env.hand_over(".");
    let link = "a symbolic link is on its path";
    for dest in ["out", "out/sub"] {
        let output = format!("type=local,dest={dest}");
        env.rbuild(&["build", "context", "-o", &output]).fails(3, &[link]);
    }
    let done = env.rbuild(&["build", "context", "-o", "type=oci,dest=layout,tar=false"]);
    done.fails(3, &["layout/blobs"]);
    assert_eq!(fs::read_dir(env.path("outside")).unwrap().count(), 0);
    // Elsewhere, the caller's own links are followed: /tmp may be one.
    let output = format!("type=local,dest={}/real", env.shown("out"));
    script(
        &env,
        &format!("cd /; $1 --root {0}/store build {0}/context -o {output}", env.shown(".")),
    )
    .ok();
    assert!(env.path("outside/real/Dockerfile").is_file());
}

fn files_beside_the_dockerfile_do_not_make_rbuild_wait(who: Who) {
    for (name, args) in [
        ("Dockerfile", ""),
        ("Dockerfile", "-f context/Dockerfile"),
        (".dockerignore", ""),
        ("Dockerfile.dockerignore", ""),
        ("rbuild.lock", ""),
        ("rbuild.lock", "--lockfile context/rbuild.lock"),
    ] {
        let env = Env::of(who);
        if name != "Dockerfile" {
            env.write("Dockerfile", SMALL);
        }
        env.hand_over(".");
        let text = format!("mkfifo context/{name}; $1 --root store build context {args}");
        let done = script(&env, &text);
        assert!(matches!(done.code, Some(1 | 2)), "{name} {args}: {done:?}");
        assert!(done.stderr.contains("it is a FIFO, not a regular file"), "{}", done.stderr);
    }
}

fn dockerfile_that_is_a_link_is_resolved_inside_the_context(who: Who) {
    let env = Env::of(who);
    env.write("first", "secret line of the host\n");
    fs::rename(env.path("context/first"), env.path("secret")).unwrap();
    let secret = env.shown("secret");
    for (name, target) in
        [("Dockerfile", &*secret), ("up", "../secret"), ("magic", "/proc/self/cwd/secret")]
    {
        symlink(target, env.path("context").join(name)).unwrap();
    }
    env.hand_over(".");
    for file in ["Dockerfile", "up", "magic"] {
        let done = env.rbuild(&["build", "context", "-f", &format!("context/{file}")]);
        done.fails(1, &["it is a symbolic link to a path that does not exist inside"]);
        assert!(!done.stderr.contains("secret line"), "{}", done.stderr);
    }
    let done = env.rbuild(&["build", "context"]);
    done.fails(1, &["it is a symbolic link to a path that does not exist inside"]);
    // The same links, with targets that exist inside.
    let inside = secret.trim_start_matches('/').to_owned();
    env.write(&inside, SMALL);
    env.write("secret", SMALL);
    env.hand_over(".");
    env.rbuild(&["build", "context"]).ok();
    env.rbuild(&["build", "context", "-f", "context/up"]).ok();
}

#[test]
fn dockerfile_elsewhere_may_be_a_pipe_of_the_caller() {
    let env = Env::new();
    env.write("Dockerfile", SMALL);
    for args in [
        "-f <(cat context/Dockerfile)",
        "-f /dev/stdin < context/Dockerfile",
        "-f - < context/Dockerfile",
    ] {
        script(&env, &format!("$1 --root store build context {args}")).ok();
    }
    // Next to a context in a checkout, rbuild does not wait for a FIFO.
    let done = script(&env, "mkfifo pipe; $1 --root store build context -f pipe");
    done.fails(1, &["it is a FIFO, not a regular file"]);
}

#[test]
fn a_large_file_beside_the_dockerfile_is_not_read_whole() {
    for name in ["Dockerfile", ".dockerignore", "rbuild.lock"] {
        let env = Env::new();
        env.write("Dockerfile", SMALL);
        let file = fs::File::create(env.path("context").join(name)).unwrap();
        file.set_len(1 << 40).unwrap();
        let done = script(&env, "ulimit -v 4000000; $1 --root store build context");
        assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
        assert!(done.stderr.contains("larger than the limit of 16777216 bytes"), "{}", done.stderr);
    }
}

#[test]
fn lock_file_error_quotes_nothing_of_what_a_link_leads_to() {
    let env = Env::new();
    env.write("Dockerfile", SMALL);
    fs::write(env.path("secret"), "password = hunter2\n").unwrap();
    symlink("../secret", env.path("context/rbuild.lock")).unwrap();
    let named = ["--lockfile", "context/rbuild.lock"];
    for args in [&[][..], &named] {
        let done = env.rbuild(&[&["build", "context"], args].concat());
        done.fails(
            2,
            &["rbuild.lock", "it is a symbolic link to a path that does not exist inside"],
        );
        assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
    }
    let done = env.rbuild(&["build", "context", "--lockfile", "secret"]);
    done.fails(2, &["secret: line 1: "]);
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}

#[test]
fn fix_does_not_rewrite_a_file_outside_of_the_context() {
    let env = Env::new();
    let old = "FROM scratch as base\n";
    fs::write(env.path("victim"), old).unwrap();
    symlink("../victim", env.path("context/Dockerfile")).unwrap();
    env.rbuild(&["--check", "--fix", "context"])
        .fails(1, &["it is a symbolic link to a path that does not exist"]);
    // A file that is named explicitly is read, but not written through the link.
    fs::create_dir(env.path("other")).unwrap();
    symlink("../victim", env.path("other/Dockerfile")).unwrap();
    let done = env.rbuild(&["--check", "--fix", "-f", "other/Dockerfile", "context"]);
    done.fails(3, &["it is a symbolic link to a path that does not exist inside other"]);
    assert_eq!(fs::read_to_string(env.path("victim")).unwrap(), old);
}
