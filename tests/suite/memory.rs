//! Memory use of builds with many files.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::support::env::Env;

const N_FILES: u64 = 50_000;

/// A file takes about 135 bytes: 96 in the tree, the rest for its name, both in the tree and in its
/// source location.
const MAX_BYTES_A_FILE: u64 = 200;

/// Builds `COPY src /src`. Returns the peak memory of rbuild, in bytes.
fn peak_of_build(env: &Env) -> u64 {
    env.write("Dockerfile", "FROM scratch\nCOPY src /src\n");
    peak(env)
}

/// Builds the context. Returns the peak memory of rbuild, in bytes.
pub(crate) fn peak(env: &Env) -> u64 {
    let mut command = env.command(&["build", "context"]);
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
