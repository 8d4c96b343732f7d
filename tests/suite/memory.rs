//! Memory use of builds with many files.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rbuild::oci::Digest;

use crate::support::container;
use crate::support::env::{Env, skip};
use crate::support::registry::DockerRegistry;

const N_FILES: u64 = 50_000;

/// A file takes about 135 bytes: 96 in the tree, the rest for its name, both in the tree and in its
/// source location.
const MAX_BYTES_A_FILE: u64 = 200;

/// Builds `COPY src /src`. Returns the peak memory of rbuild, in bytes.
fn peak_of_build(env: &Env) -> u64 {
    env.write("Dockerfile", "FROM scratch\nCOPY src /src\n");
    peak(env)
}

/// Builds the context. Returns the peak memory of rbuild, in bytes: of the shipped program, if there is
/// one, whose code takes little.
pub(crate) fn peak(env: &Env) -> u64 {
    let mut command = env.program(container::program().to_str().unwrap());
    command.args(["--root", "store", "build", "context"]);
    peak_of(command)
}

/// Runs rbuild. Returns its peak memory, in bytes.
fn peak_of(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        // The peak only grows, so at most the growth of the last millisecond is missed.
        peak = peak.max(peak_so_far(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success());
    peak
}

/// Returns the peak memory of a process or of a descendant, whichever is larger: rbuild may
/// continue in a child process.
fn peak_so_far(pid: u32) -> u64 {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let own = line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
    let children = read(&format!("task/{pid}/children"));
    let children = children.split_whitespace().map(|pid| peak_so_far(pid.parse().unwrap()));
    children.fold(own * 1024, u64::max)
}

#[test]
fn a_file_of_the_context_takes_little_memory() {
    let env = Env::new();
    env.write("src/first", "");
    let with_one = peak_of_build(&env);
    for directory in 0..N_FILES / 100 {
        for file in 0..100 {
            let name = format!("src/d{}/e{directory}/f{directory}_{file}.txt", directory / 100);
            env.write(&name, format!("file {file} of {directory}"));
        }
    }
    // Hashes of files that changed within the last second are not cached.
    std::thread::sleep(Duration::from_millis(1100));
    for what in ["COPY into a new store", "COPY with nothing changed"] {
        let each = (peak_of_build(&env) - with_one) / N_FILES;
        assert!(each > 50, "{what}: {each} bytes a file are too few to be true");
        assert!(each <= MAX_BYTES_A_FILE, "{what}: {each} bytes a file");
    }
}

/// Size of a large layer.
const LAYER_BYTES: usize = 60_000_000;
const MAX_BYTES: u64 = 64 << 20;

/// Returns bytes that gzip cannot shrink, or hexadecimal digits, which it halves.
fn large(seed: u8, is_random: bool) -> Vec<u8> {
    let block = |number: u64| {
        let digest = Digest::of(&[&[seed][..], &number.to_le_bytes()].concat());
        if is_random { digest.as_bytes().to_vec() } else { digest.hex().into_bytes() }
    };
    (0..).flat_map(block).take(LAYER_BYTES).collect()
}

#[test]
fn large_layers_are_pushed_and_pulled_in_little_memory() {
    // The code of a program without optimization takes as much memory as all else.
    let Some(program) = container::static_program() else {
        return skip("static", "RBUILD_STATIC does not name a program");
    };
    let registry = DockerRegistry::open();
    let env = Env::new();
    let run = |args: &[&str]| {
        let mut command = env.program(program.to_str().unwrap());
        command.args(["--root", "store"]).args(args);
        peak_of(command)
    };
    env.base();
    let name = format!("{}/large:1", registry.host());
    for (seed, is_random) in [(1, true), (2, false), (3, true)] {
        env.write(&format!("file{seed}"), large(seed, is_random));
    }
    env.write(
        "Dockerfile",
        "FROM base:1\nCOPY file1 /\nCOPY file2 /\nCOPY file3 /\n\
         RUN head -c 60000000 /dev/urandom > /file4\n",
    );
    // Threads compress; more of them take more memory.
    let push = ["build", "context", "--jobs", "4", "-t", &name, "--push"];
    let pushed = run(&push);
    std::fs::remove_dir_all(env.path("store")).unwrap();
    std::fs::remove_dir_all(env.path("context")).unwrap();
    let n_large = registry.blobs().values().filter(|n_bytes| **n_bytes > 16 << 20).count();
    assert_eq!(n_large, 4, "each is pulled in ranges");

    env.write("Dockerfile", format!("FROM {name}\nRUN test -s /file1 && test -s /file4\n"));
    let pulled = run(&["build", "context", "--jobs", "4"]);
    for (what, peak) in [("push", pushed), ("pull", pulled)] {
        assert!(peak <= MAX_BYTES, "{what}: {peak} bytes");
        assert!(peak > MAX_BYTES / 8, "{what}: {peak} bytes are too few to be true");
    }
}
