//! Many steps and stages; few threads, processes, ids and capabilities.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use crate::memory;
use crate::support::env::{Done, Env, Who, skip};
use crate::support::namespace::Namespace;

/// Returns a stage of `n_steps`. Some steps hide files of earlier ones, both recent and distant.
fn stage_of(n_steps: usize) -> String {
    let mut dockerfile = String::from("FROM base:1\n");
    for number in 0..n_steps {
        let change = match number {
            10 => "mkdir -p /d/e && echo ten > /d/ten && chown 3:4 /d && chmod 2711 /d/e",
            20 => "rm /old/file && echo base > /kept && echo a > /a && ln /kept /linked",
            // A whiteout, and then a directory, in one part of the stack.
            30 => "rm /a",
            40 => "mkdir /a && touch /a/inside && chmod 700 /a",
            // An opaque directory, and a file in place of a directory, over another part.
            300 => "rm -r /d && mkdir /d && echo new > /d/new && chown 5:6 /d",
            310 => "rm -r /old/directory && echo file > /old/directory",
            320 => "rm /old/directory && mkdir /old/directory && touch /old/directory/c",
            330 => "chmod 1777 /w && rm -r /w/5 && echo late >> /kept",
            _ => {
                writeln!(dockerfile, "WORKDIR /w/{number}").unwrap();
                continue;
            }
        };
        writeln!(dockerfile, "RUN {change}").unwrap();
    }
    dockerfile
}

fn stage_of_many_steps_shows_what_one_layer_shows(who: Who, n_steps: usize) {
    let env = Env::of(who);
    env.base();
    let seen = "find / -xdev -not -path '/proc*' -not -path '/sys*' -not -path '/dev*' -not -name seen -exec \
                stat -c '%n %f %u:%g %s' {} + | sort > /tmp/seen";
    let dockerfile = format!("{}RUN {seen}\n", stage_of(n_steps));
    env.build(&dockerfile, &["-o", "files", "-t", "high:1"]).ok();
    let files = |name: &str| fs::read_to_string(env.path("files").join(name)).unwrap();
    assert_eq!((&*files("d/new"), &*files("kept")), ("new\n", "base\nlate\n"));
    for gone in ["d/ten", "d/e", "old/file", "old/directory/a", "w/5"] {
        assert!(!env.path("files").join(gone).exists(), "{gone}");
    }
    let flat = format!("FROM scratch\nCOPY --from=high:1 / /\nRUN rm /tmp/seen && {seen}\n");
    env.build(&flat, &["-o", "flat"]).ok();
    let flat = fs::read_to_string(env.path("flat/tmp/seen")).unwrap();
    // The size of a directory depends on the file system.
    let sizes = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [name, mode, owner, size] if mode.starts_with('4') || size.is_empty() => {
                format!("{name} {mode} {owner}")
            }
            _ => line.to_owned(),
        });
        lines.collect()
    };
    assert_eq!(sizes(&files("tmp/seen")), sizes(&flat));
    assert!(flat.contains("/old/directory/c ") && !flat.contains("/old/file"), "{flat}");
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn priv_stage_of_2000_steps() {
    if let Some(who) = Who::root() {
        stage_of_many_steps_shows_what_one_layer_shows(who, 2000);
    }
}

#[test]
fn priv_stage_of_600_steps_of_a_user() {
    if let Some(who) = Who::user() {
        stage_of_many_steps_shows_what_one_layer_shows(who, 600);
    }
}

/// Returns stages of `step` with their number in place of `#`, and a last one that takes a file of
/// each.
fn many_stages(n_stages: usize, step: &str) -> String {
    let mut dockerfile = String::new();
    let mut last = String::from("FROM scratch\n");
    for number in 0..n_stages {
        let step = step.replace('#', &number.to_string());
        writeln!(dockerfile, "FROM base:1 AS s{number}\n{step}").unwrap();
        writeln!(last, "COPY --from=s{number} /f{number} /").unwrap();
    }
    dockerfile + &last
}

/// Memory that 500 stages may take in addition to that of five.
const MAX_BYTES: u64 = 36 << 20;

#[test]
fn many_stages_take_little_memory() {
    let env = Env::new();
    env.base();
    // Facts about the base must be in memory only once.
    for number in 0..1000 {
        env.write(&format!("many/file{number}"), "");
    }
    env.build("FROM base:1\nCOPY many /many\n", &["-t", "base:1"]).ok();
    let peak_of = |n_stages| {
        env.write("Dockerfile", many_stages(n_stages, "COPY Dockerfile /f#"));
        memory::peak(&env)
    };
    let few = peak_of(5);
    let many = peak_of(500);
    assert!(many < few + MAX_BYTES, "{} KiB and {} KiB", few >> 10, many >> 10);
}

#[test]
fn priv_build_goes_on_with_few_processes() {
    // No other process runs as this user.
    let id = 1_700_000_000 + std::process::id();
    let Some(env) = Env::owned_by(id) else { return };
    let ids = Namespace::new(id, id + 1, 65_536);
    ids.rbuild(&env, &["build", "base", "-t", "base:1"]).ok();
    env.write("Dockerfile", many_stages(60, "RUN echo > /f#"));
    // zstd needs its own thread.
    for (n_processes, compression) in [(5, "gzip"), (16, "zstd"), (40, "zstd")] {
        let limit = format!("--nproc={n_processes}");
        let mut command = ids.program(&env, "prlimit");
        command.args([&limit, env!("CARGO_BIN_EXE_rbuild"), "--root", "store"]);
        command.args(["build", "context", "--no-cache", "--compression", compression]);
        command.args(["-o", "type=oci,tar=false,dest=context/image"]);
        let done = Done::of(command.output().unwrap());
        assert_eq!(done.code, Some(0), "{n_processes}: {}", done.stderr);
        fs::remove_dir_all(env.path("context/image")).unwrap();
    }
}

#[test]
fn priv_commands_run_in_a_namespace_of_one_id() {
    let Some(env) = Env::owned_by(1_000_000) else { return };
    let ids = Namespace::new(1_000_000, 0, 0);
    ids.rbuild(&env, &["build", "base", "-t", "base:1"]).ok();
    let seen = "stat -c %u:%g /dev/pts /f && echo x > /dev/null";
    ids.build(&env, &format!("FROM base:1\nRUN echo x > /f && {seen}\n"), &[]).ok();
    let dockerfile = "FROM base:1\nRUN echo x > /f\nCOPY --chown=7 Dockerfile /\n\
                      RUN test $(stat -c %u /Dockerfile) = 7\n";
    ids.build(&env, dockerfile, &[]).ok();
}

#[test]
fn priv_missing_capability_is_named() {
    let Some(who) = Who::root() else { return };
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN true\n");
    for (lost, shown) in
        [("mknod", "CAP_MKNOD"), ("setpcap", "CAP_SETPCAP"), ("dac_override", "CAP_DAC_OVERRIDE")]
    {
        let mut command = env.program("setpriv");
        command.args([&format!("--bounding-set=-{lost}"), &format!("--inh-caps=-{lost}")]);
        command.args([env!("CARGO_BIN_EXE_rbuild"), "--root", "store", "build", "context"]);
        let done = Done::of(command.output().unwrap());
        done.fails(3, &[&*format!("lacks {shown}"), "--cap-add"]);
    }
}

#[test]
fn silent_mirror_is_named_after_five_seconds() {
    let mut env = Env::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    env.mirror(&silent.local_addr().unwrap().to_string());
    env.write("Dockerfile", "FROM busybox\n");
    for args in [&["build", "context"][..], &["pull", "busybox"]] {
        let mut command = env.command(args);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let found = lines.find(|line| line.contains("waiting for 127.0.0.1"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.unwrap().contains("has not answered for 5 s"));
    }
}

#[test]
fn without_random_numbers_an_error_says_so() {
    let env = Env::new();
    let mut command = env.program("strace");
    command.args([
        "-f",
        "-o",
        "trace",
        "-e",
        "trace=getrandom",
        "-e",
        "inject=getrandom:error=EIO",
    ]);
    command.args([env!("CARGO_BIN_EXE_rbuild"), "--root", "store", "images"]);
    match command.output() {
        Ok(done) => Done::of(done).fails(3, &["no random numbers: getrandom(2) fails"]),
        Err(missing) => skip("strace", &missing.to_string()),
    }
}
