//! Leftovers of earlier and of killed builds, and builds that succeed despite them.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::env::{Done, Env, Who, as_root_and_as_user, skip};

as_root_and_as_user!(
    damaged_hash_is_forgotten_and_the_file_hashed_again,
    draft_of_a_killed_build_goes_with_the_next_write,
    failing_poll_does_not_cause_a_panic,
    failing_stat_makes_no_other_image,
    closed_terminal_ends_the_build,
    context_need_not_be_utf8,
    locks_of_a_killed_build_go_with_the_next_command,
    long_path_of_a_store_works_or_is_an_error_at_once,
    signal_to_the_whole_group_ends_the_build_in_order,
    signal_while_a_build_starts_ends_it_cleanly,
    signal_while_standard_input_is_read_ends_the_build,
);

/// Returns the only file of a directory.
fn only_file(env: &Env, directory: &str) -> PathBuf {
    let mut entries = fs::read_dir(env.path(directory)).unwrap();
    let path = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    path
}

/// Damages the content hash in the only record of a hash cache, and corrects its checksums.
fn contradict(memo: &mut [u8]) {
    const MAGIC_BYTES: usize = 20;
    let end = memo.len() - 16;
    let list = usize::try_from(u64::from_le_bytes(memo[end..end + 8].try_into().unwrap())).unwrap();
    // The number of attributes follows the hash.
    memo[list - 5] ^= 1;
    let checksum =
        |bytes: &[u8]| <[u8; 8]>::try_from(&blake3::hash(bytes).as_bytes()[..8]).unwrap();
    let of_record = checksum(&memo[MAGIC_BYTES..list]);
    memo[end - 8..end].copy_from_slice(&of_record);
    let of_list = checksum(&memo[list..end]);
    memo[end + 8..].copy_from_slice(&of_list);
}

fn damaged_hash_is_forgotten_and_the_file_hashed_again(who: Who) {
    const DOCKERFILE: &str = "FROM scratch\nCOPY dir /dir\n";
    let env = Env::of(who);
    env.write("dir/file", "content");
    // The hash of a file that was written within the last second is not cached.
    sleep(Duration::from_millis(1500));
    let build = || env.build(DOCKERFILE, &["--progress=plain", "--iidfile=id"]).ok();
    build();
    let id = fs::read_to_string(env.path("id")).unwrap();
    let path = only_file(&env, "store/memo");
    let memo = fs::read(&path).unwrap();
    let checks = |damaged: &[u8], warns: bool| {
        fs::write(&path, damaged).unwrap();
        let done = build();
        assert_eq!(done.stderr.contains("fresh hashes"), warns, "{}", done.stderr);
        assert_eq!(fs::read_to_string(env.path("id")).unwrap(), id);
        // The next build uses the right hashes.
        assert!(!build().stderr.contains("fresh hashes"));
        assert!(fs::read(&path).unwrap() == memo);
    };
    for at in (0..memo.len()).step_by(17) {
        let mut flipped = memo.clone();
        flipped[at] ^= 4;
        checks(&flipped, false);
    }
    checks(&vec![0; memo.len()], false);
    checks(&memo[..memo.len() / 2], false);
    let mut contradicting = memo.clone();
    contradict(&mut contradicting);
    checks(&contradicting, true);
}

fn names_in(env: &Env, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(env.path(directory)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Counts the locks of steps that run, or ran when their process ended.
fn n_step_locks(env: &Env) -> usize {
    names_in(env, "store/locks").iter().filter(|name| name.len() >= 64).count()
}

/// Waits until a condition holds.
#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("{what} does not happen");
}

/// A process that is killed when the test ends.
struct Started(Child);

impl Started {
    fn new(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn locks_of_a_killed_build_go_with_the_next_command(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN sleep 78\n");
    let mut build = Started::new(env.command(&["build", "context"]));
    let locks = || names_in(&env, "store/locks");
    let of_steps = || n_step_locks(&env);
    wait_for("the step", || of_steps() > 0);
    // The lock of a running build stays.
    env.rbuild(&["images"]).ok();
    assert!(of_steps() > 0, "{:?}", locks());
    build.kill();
    wait_for("the end of the step", || env.processes().is_empty());
    assert!(of_steps() > 0, "{:?}", locks());
    env.rbuild(&["images"]).ok();
    assert_eq!(locks(), ["in-use", "index"]);
}

fn draft_of_a_killed_build_goes_with_the_next_write(who: Who) {
    const DRAFT: &str = ".rbuild-0123456789abcdef";
    const LIVE: &str = ".rbuild-0000000000000000";
    let env = Env::of(who);
    fs::create_dir(env.path("out")).unwrap();
    let others = [LIVE, "other", ".rbuild-0123", ".rbuild-0123456789ABCDEF", ".rbuild-x"];
    others.iter().for_each(|name| fs::write(env.path("out").join(name), "x").unwrap());
    let link = ".rbuild-1111111111111111";
    std::os::unix::fs::symlink("other", env.path("out").join(link)).unwrap();
    // Left behind by a killed process.
    fs::write(env.path("out").join(DRAFT), "half").unwrap();
    env.hand_over("out");
    let live = fs::File::open(env.path("out").join(LIVE)).unwrap();
    live.lock().unwrap();
    env.build("FROM scratch\nLABEL a=1\n", &["-o", "type=tar,dest=out/new.tar"]).ok();
    let mut want: Vec<&str> = [&others[..], &["new.tar", link]].concat();
    want.sort_unstable();
    assert_eq!(names_in(&env, "out"), want);
    // rbuild does not remove files of other owners.
    if let Who::User(_) = who {
        fs::write(env.path("out").join(DRAFT), "half").unwrap();
        env.rbuild(&["build", "context", "-o", "type=tar,dest=out/new.tar"]).ok();
        assert!(env.path("out").join(DRAFT).exists());
    }
}

/// Injects a failure into one stat call after the other. A build that still succeeds gives the same
/// image.
fn failing_stat_makes_no_other_image(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN rm -f /etc/hosts /etc/resolv.conf\n");
    let build = |strace: &[&str]| {
        let mut program = env.program(strace.first().unwrap_or(&env!("CARGO_BIN_EXE_rbuild")));
        program.args(strace.iter().skip(1));
        if !strace.is_empty() {
            program.arg(env!("CARGO_BIN_EXE_rbuild"));
        }
        let args = ["--root", "store", "build", "context", "--reproducible", "--no-cache", "-q"];
        program.args(args).output()
    };
    let clean = build(&[]).unwrap();
    let mut n_failed = 0;
    for nth in 1..=40 {
        let inject = format!("inject=newfstatat:error=EMFILE:when={nth}");
        let strace =
            ["strace", "-qq", "-o", "/dev/null", "-f", "-b", "execve", "-e", "trace=newfstatat"];
        let done = match build(&[&strace[..], &["-e", &inject]].concat()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return skip("strace", "it is not installed");
            }
            done => done.unwrap(),
        };
        if done.status.success() {
            assert_eq!(done.stdout, clean.stdout, "the call {nth}");
        } else {
            n_failed += 1;
        }
    }
    assert!(n_failed > 0);
}

fn failing_poll_does_not_cause_a_panic(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /a\n");
    let git = |args: &[&str]| {
        let mut git = env.program("git");
        git.args(["-C", "context", "-c", "user.name=a", "-c", "user.email=a@example.org"]);
        assert!(git.args(args).stdout(Stdio::null()).status().unwrap().success(), "{args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "a"]);
    let mut traced = env.program("strace");
    traced.args(["-qq", "-o", "/dev/null", "-f", "-e", "trace=poll,ppoll"]);
    traced.args(["-e", "inject=poll,ppoll:error=ENOMEM"]);
    traced.arg(env!("CARGO_BIN_EXE_rbuild"));
    traced.args(["--root", "store", "build", "context", "--reproducible"]);
    match traced.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("strace", "it is not installed");
        }
        done => {
            let done = Done::of(done.unwrap());
            assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
            assert!(done.code.is_some_and(|code| code < 100), "{done:?}");
        }
    }
}

/// Starts the program as the leader of its own process group.
fn in_own_group(mut command: Command) -> Child {
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal_to_the_whole_group_ends_the_build_in_order(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN echo be''gun; sleep 79\n");
    for _ in 0..5 {
        let mut child = in_own_group(env.command(&["build", "context", "--progress=plain"]));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" begun")), "the step does not start");
        kill_process_group(Pid::from_child(&child), Signal::TERM).unwrap();
        // As timeout(1) does: a signal to the process, and one to its group, which arrives at the
        // very end.
        sleep(Duration::from_millis(30));
        let _ended = kill_process_group(Pid::from_child(&child), Signal::TERM);
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
        assert_eq!(env.leftovers("store"), "");
    }
}

fn signal_while_a_build_starts_ends_it_cleanly(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN sleep 79\n");
    for delay_ms in (0..120).step_by(3) {
        let child = in_own_group(env.command(&["build", "context", "--progress=plain"]));
        let group = Pid::from_child(&child);
        sleep(Duration::from_millis(delay_ms));
        kill_process_group(group, Signal::TERM).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let is_ended = matches!(output.status.code(), Some(130 | 143))
            || output.status.signal() == Some(Signal::TERM.as_raw());
        assert!(is_ended, "after {delay_ms} ms: {:?}, {said}", output.status);
        assert!(!said.contains("cannot"), "{said}");
    }
}

fn signal_while_standard_input_is_read_ends_the_build(who: Who) {
    let env = Env::of(who);
    for args in [&["build", "-"][..], &["build", "context", "-f", "-"]] {
        let mut command = env.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        // `wait` would close the pipe, which ends the build, too.
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{args:?}: SIGTERM does not end it");
            sleep(Duration::from_millis(10));
        }
    }
}

/// Only the session leader of a terminal is notified when the terminal closes.
fn closed_terminal_ends_the_build(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN sleep 80\n");
    let (terminal, name) = new_terminal();
    let mut leader = env.program("setsid");
    leader.args(["--ctty", env!("CARGO_BIN_EXE_rbuild"), "--root", "store", "build", "context"]);
    let side = fs::File::options().read(true).write(true).open(name).unwrap();
    leader.stdin(side.try_clone().unwrap()).stdout(side.try_clone().unwrap()).stderr(side);
    let mut child = leader.spawn().unwrap();
    drop(leader);
    wait_for("the step", || n_step_locks(&env) > 0);
    drop(terminal);
    let mut code = None;
    for _ in 0..200 {
        code = child.try_wait().unwrap();
        if code.is_some() {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    drop(child.kill());
    assert_eq!(code.and_then(|status| status.code()), Some(130), "{code:?}");
    assert_eq!(env.leftovers("store"), "");
}

/// Opens a terminal. Returns it, and the path of the side that programs use.
fn new_terminal() -> (OwnedFd, PathBuf) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    (terminal, PathBuf::from(name.into_string().unwrap()))
}

/// Fills the file system of the store.
fn fill(env: &Env, name: &str) {
    let mut file = fs::File::create(env.path("store").join(name)).unwrap();
    let mut piece = vec![7_u8; 1 << 20];
    while !piece.is_empty() {
        while file.write_all(&piece).is_ok() {}
        piece.truncate(piece.len() / 2);
    }
}

/// A store on its own file system, which is unmounted on drop.
struct SmallStore<'a>(&'a Env);

impl<'a> SmallStore<'a> {
    fn new(env: &'a Env) -> Self {
        Self::with_options(env, "size=32m")
    }

    fn with_options(env: &'a Env, options: &str) -> Self {
        fs::create_dir(env.path("store")).unwrap();
        let mut mount = Command::new("mount");
        let options = format!("mode=700,{options}");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(env.path("store"));
        assert!(mount.status().unwrap().success());
        Self(env)
    }
}

impl Drop for SmallStore<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path("store")).status());
    }
}

#[test]
fn priv_full_disk_can_be_freed() {
    let Some(who) = Who::root() else { return };
    let env = Env::of(who);
    let store = SmallStore::new(&env);
    env.base();
    env.build(DOCKERFILE_OF_NUMBERS, &["-t", "app"]).ok();
    fill(&env, "filler");
    // Other commands fail, and the error gives the reason.
    let failed = env.rbuild(&["tag", "app", "other"]);
    failed.fails(
        3,
        &["file system of the store is full", "the index needs", "more", "with `rbuild prune`"],
    );
    for _ in 0..2 {
        env.rbuild(&["du"]).ok();
        env.rbuild(&["images"]).ok();
    }
    env.rbuild(&["rmi", "app"]).ok();
    env.rbuild(&["prune", "--all"]).ok();
    let images = env.rbuild(&["images"]).ok();
    assert!(!images.stdout.contains("app"), "{}", images.stdout);
    // Space is reserved for the next time.
    assert!(env.path("store/reserve-1").exists() && env.path("store/reserve-2").exists());
    fs::remove_file(env.path("store/filler")).unwrap();
    env.base();
    env.build(DOCKERFILE_OF_NUMBERS, &["-t", "app"]).ok();
    drop(store);
}

#[test]
fn priv_store_of_a_nearly_full_disk_can_be_freed_or_is_not_created() {
    let Some(who) = Who::root() else { return };
    for (kib, is_created) in [(60, false), (900, false), (1100, true), (4000, true)] {
        let env = Env::of(who);
        let store = SmallStore::new(&env);
        fill(&env, "filler");
        let filler = fs::File::options().write(true).open(env.path("store/filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - (kib << 10)).unwrap();
        drop(filler);
        let built = env.build("FROM scratch\nCOPY Dockerfile /a\n", &["-t", "app"]);
        let index_bytes = fs::metadata(env.path("store/index.db")).unwrap().len();
        assert_eq!(index_bytes > 0, is_created, "{kib} KiB: {}", built.stderr);
        if is_created {
            fill(&env, "second");
            for command in [&["du"][..], &["images"], &["prune"], &["prune", "--all"]] {
                env.rbuild(command).ok();
            }
            fs::remove_file(env.path("store/second")).unwrap();
        } else {
            built.fails(3, &["file system of the store is full", "more", "--root DIR"]);
        }
        fs::remove_file(env.path("store/filler")).unwrap();
        env.build("FROM scratch\nCOPY Dockerfile /a\n", &["-t", "app"]).ok();
        drop(store);
    }
}

/// If a layer is unpacked while it is written, the writer gets EPIPE when the unpacker finds the
/// disk full.
#[test]
fn priv_store_with_few_inodes_can_be_freed_or_is_not_created() {
    let Some(who) = Who::root() else { return };
    let mut n_created = 0;
    for n_inodes in 8..48 {
        let env = Env::of(who);
        let store = SmallStore::with_options(&env, &format!("size=32m,nr_inodes={n_inodes}"));
        let built = env.build("FROM scratch\nCOPY Dockerfile /a\n", &["-t", "app"]);
        let index = fs::metadata(env.path("store/index.db"));
        if built.code != Some(0) {
            let causes = ["inodes left", "No space left on device"];
            let is_told = causes.iter().any(|cause| built.stderr.contains(cause));
            assert!(is_told, "{n_inodes}: {}", built.stderr);
        }
        if index.is_ok_and(|found| found.len() > 0) {
            n_created += 1;
            for number in 0..n_inodes {
                drop(fs::File::create(env.path("store").join(format!("filler-{number}"))));
            }
            for command in [&["du"][..], &["images"], &["prune"], &["prune", "--all"]] {
                env.rbuild(command).ok();
            }
        }
        drop(store);
    }
    assert!((10..35).contains(&n_created), "{n_created}");
}

#[test]
fn priv_full_disk_is_not_reported_as_a_broken_pipe() {
    let Some(who) = Who::root() else { return };
    let env = Env::of(who);
    let store = SmallStore::new(&env);
    env.base();
    env.write("large", vec![7_u8; 40 << 20]);
    let built = env.build("FROM base:1\nCOPY large /\nRUN true\n", &[]);
    built.fails(3, &["free some space"]);
    assert!(!built.stderr.contains("roken pipe"), "{}", built.stderr);
    drop(store);
}

#[test]
fn priv_disk_full_of_leftovers_is_freed_by_any_command() {
    let Some(who) = Who::root() else { return };
    let env = Env::of(who);
    let store = SmallStore::new(&env);
    env.base();
    // Left behind by a killed process: the lock is free.
    fs::create_dir(env.path("store/tmp/999999.abcdef")).unwrap();
    fs::write(env.path("store/tmp/999999.abcdef/lock"), "").unwrap();
    fill(&env, "tmp/999999.abcdef/0");
    // Another test that forks now holds these descriptors, and thus the space, until it calls exec.
    std::thread::sleep(Duration::from_millis(300));
    env.build(DOCKERFILE_OF_NUMBERS, &["-t", "app"]).ok();
    assert_eq!(env.leftovers("store").lines().filter(|line| line.contains("tmp/")).count(), 0);
    drop(store);
}

const DOCKERFILE_OF_NUMBERS: &str = "FROM base:1\nRUN seq 20000 > /numbers\n";

fn long_path_of_a_store_works_or_is_an_error_at_once(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /a\n");
    let at = |n_bytes: usize| {
        let mut root = env.shown("store");
        while root.len() < n_bytes {
            let n_more = (n_bytes - root.len() - 1).min(100);
            root = format!("{root}/{}", "d".repeat(n_more));
        }
        (root.clone(), Done::of(env.command_in(&root, &["build", "context"]).output().unwrap()))
    };
    at(480).1.ok();
    for n_bytes in [482, 600, 3500, 4080, 5000] {
        let (root, done) = at(n_bytes);
        done.fails(3, &["the path of the store has", "bytes", "up to 480", "--root DIR"]);
        assert!(!PathBuf::from(root).exists());
    }
}

fn context_need_not_be_utf8(who: Who) {
    let env = Env::of(who);
    let name = OsStr::from_bytes(b"context/\xff");
    let directory = env.path("context").join(OsStr::from_bytes(b"\xff"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("Dockerfile"), "FROM scratch\nCOPY . /a\n").unwrap();
    fs::write(directory.join(OsStr::from_bytes(b"\xfe")), "x").unwrap();
    let build = |more: &[&OsStr]| Done::of(env.command(&["build"]).args(more).output().unwrap());
    build(&[name]).ok();
    build(&[name, "--check".as_ref()]).ok();
    build(&[OsStr::from_bytes(b"no\xff")]).fails(2, &["context \"no", "does not exist"]);
    env.rbuild(&["history"]).ok();
}
