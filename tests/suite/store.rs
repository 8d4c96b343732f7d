//! The cache: what is rebuilt and what is not; one store and many processes.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::DirEntryExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use rbuild::store::{OpenOptions, Representation, Store};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::generate::Random;
use crate::support::image::{Fixture, dir, file};
use crate::support::registry::DockerRegistry;
use crate::support::sandbox::is_root;

const TWO_STAGES: &str = "FROM base:1 AS one\nCOPY a /a\nRUN cat /a > /made\n\
                          FROM base:1\nARG WHO=me\nCOPY b /b\nENV E=1\nRUN echo $WHO $E > /who\n\
                          COPY --from=one /made /made\nRUN cat /made /b > /last\n";

const STEPS: [&str; 6] = [
    "COPY a /a",
    "RUN cat /a > /made",
    "COPY b /b",
    "RUN echo $WHO $E > /who",
    "COPY --from=one /made /made",
    "RUN cat /made /b > /last",
];

/// Checks that exactly these steps ran, and that all others were cached.
#[track_caller]
fn made(done: &Done, made: &[usize]) {
    let ends = STEPS.iter().enumerate().map(|(at, step)| {
        format!("{step}: {}", if made.contains(&at) { "DONE" } else { "CACHED" })
    });
    let ends: Vec<String> = ends.collect();
    done.ended(&ends.iter().map(String::as_str).collect::<Vec<_>>());
}

fn id(done: &Done) -> String {
    let (_, rest) = done.stderr.split_once("built ").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn only_what_depends_on_a_change_is_rebuilt() {
    let env = Env::new();
    env.base();
    env.write("a", "a");
    env.write("b", "b");
    let first = env.build(TWO_STAGES, &["-t", "app"]).ok();
    made(&first, &[0, 1, 2, 3, 4, 5]);
    let again = env.build(TWO_STAGES, &["-t", "app"]).ok();
    made(&again, &[]);
    assert_eq!(id(&again), id(&first));

    env.write("unused", "x");
    let now = SystemTime::now() + Duration::from_secs(100);
    fs::File::options().write(true).open(env.path("context/a")).unwrap().set_modified(now).unwrap();
    made(&env.build(TWO_STAGES, &["-t", "other:2", "-t", "third:3"]).ok(), &[]);

    env.write("b", "changed");
    made(&env.build(TWO_STAGES, &[]).ok(), &[2, 3, 4, 5]);
    env.write("b", "b");
    let back = env.build(TWO_STAGES, &[]).ok();
    made(&back, &[]);
    assert_eq!(id(&back), id(&first));

    env.write("a", "changed");
    made(&env.build(TWO_STAGES, &[]).ok(), &[0, 1, 4, 5]);
    env.write("a", "a");
    fs::set_permissions(env.path("context/a"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    // The mode is part of the file, but the output of `cat` is the same.
    made(&env.build(TWO_STAGES, &[]).ok(), &[0, 1]);
}

#[test]
fn arguments_and_environment_change_the_steps_after_them() {
    let env = Env::new();
    env.base();
    env.write("a", "a");
    env.write("b", "b");
    env.build(TWO_STAGES, &[]).ok();
    made(&env.build(TWO_STAGES, &["--build-arg", "WHO=you"]).ok(), &[3, 4, 5]);
    made(&env.build(TWO_STAGES, &["--build-arg", "WHO=me"]).ok(), &[]);
    let other = TWO_STAGES.replace("ENV E=1", "ENV E=2");
    made(&env.build(&other, &[]).ok(), &[3, 4, 5]);
    let label = TWO_STAGES.replace("ENV E=1", "ENV E=1\nLABEL x=y");
    let labelled = env.build(&label, &[]).ok();
    made(&labelled, &[]);
    let all = env.build(TWO_STAGES, &["--no-cache"]).ok();
    made(&all, &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn run_that_makes_the_same_files_keeps_what_follows_cached() {
    let env = Env::new();
    env.base();
    env.write("a", "a");
    let dockerfile = |comment: &str| {
        format!(
            "FROM base:1\nCOPY a /tmp/a\nRUN rm /tmp/a; echo same > /same {comment}\n\
             RUN cat /same > /next\nCOPY a /last\n"
        )
    };
    env.build(&dockerfile(""), &[]).ok();
    std::thread::sleep(Duration::from_millis(1100));
    env.build(&dockerfile("# again"), &[]).ok().ended(&[
        "COPY a /tmp/a: CACHED",
        "RUN rm /tmp/a; echo same > /same # again: DONE",
        "RUN cat /same > /next: CACHED",
        "COPY a /last: CACHED",
    ]);
}

as_root_and_as_user!(
    second_build_asks_no_registry,
    many_processes_share_one_store,
    builds_killed_at_any_moment_leave_a_good_store,
    store_is_its_owners_alone,
);

fn second_build_asks_no_registry(who: Who) {
    let mut env = Env::of(who);
    env.base();
    let registry = DockerRegistry::open();
    let name = format!("{}/library/shared:1", registry.host());
    env.build("FROM base:1\n", &["-t", &name, "--push"]).ok();
    env.mirror(registry.host());
    env.write("Dockerfile", "FROM shared:1\nRUN echo a > /a\n");
    let build = |args: &[&str]| {
        let args = [&["build", "context"], args].concat();
        Done::of(env.command_in("fresh", &args).output().unwrap())
    };
    build(&[]).ok().ended(&["RUN echo a > /a: DONE"]);
    build(&["--pull"]).ok().ended(&["RUN echo a > /a: CACHED"]);
    drop(registry);
    let offline = build(&[]).ok();
    offline.ended(&["RUN echo a > /a: CACHED"]);
    assert!(!offline.stderr.contains("[internal]"), "{}", offline.stderr);
    build(&["-o", "type=oci,dest=out.tar"]).ok();
    build(&["--pull"]).fails(3, &["cannot get the image shared:1", "cannot be reached"]);
}

fn many_processes_share_one_store(who: Who) {
    const N: usize = 8;
    let env = Env::of(who);
    env.base();
    env.write("a", vec![b'x'; 300_000]);
    env.write(
        "Dockerfile",
        "FROM base:1 AS one\nRUN sleep 0.3; cat /proc/sys/kernel/random/uuid > /id\n\
         FROM base:1\nCOPY a /\nCOPY --from=one /id /\nRUN sleep 0.1; echo run >> /log\n",
    );
    let start = |at: usize| {
        let tag = format!("app:{at}");
        let args = ["build", "context", "-t", &tag];
        env.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..N).map(start).collect();
    let done: Vec<Done> = children
        .into_iter()
        .map(|child| Done::of(child.wait_with_output().unwrap()).ok())
        .collect();
    let all = |step: &str| {
        let ends = |end: &str| {
            let want = format!("{step}: {end}");
            done.iter().flat_map(Done::steps).filter(|step| *step == want).count()
        };
        (ends("DONE"), ends("CACHED"))
    };
    for step in [
        "RUN sleep 0.3; cat /proc/sys/kernel/random/uuid > /id",
        "RUN sleep 0.1; echo run >> /log",
        "COPY a /",
        "COPY --from=one /id /",
    ] {
        assert_eq!(all(step), (1, N - 1), "{step}");
    }
    let first = id(done.first().unwrap());
    assert!(done.iter().all(|done| id(done) == first));
    assert_eq!(env.leftovers("store"), "");
}

/// Steps of every kind, some slow enough to be killed midway.
const KILLED: &str = "FROM base:1 AS one\nCOPY many /many\nRUN sleep 0.05; cat /many/* > /all\n\
    RUN rm -r /many; seq 1 20000 > /seq\n\
    FROM base:1\nWORKDIR /w\nCOPY --from=one /all /seq /w/\nRUN for i in 1 2 3; do cp seq $i; done\n\
    ADD many.tar /tar\nRUN sha256sum * > sums; rm seq\n";

fn builds_killed_at_any_moment_leave_a_good_store(who: Who) {
    const N: usize = 20;
    let env = Env::of(who);
    for at in 0..300 {
        env.write(&format!("many/{at}"), format!("{at}").repeat(at * 10));
    }
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("many", env.path("context/many")).unwrap();
    env.write("many.tar", tar.into_inner().unwrap());
    env.write("Dockerfile", KILLED);
    env.base_in("never-killed");
    env.base();
    let args = &NO_CACHE[..NO_CACHE.len() - 1];
    let started = Instant::now();
    Done::of(env.command_in("never-killed", args).output().unwrap()).ok();
    let whole = started.elapsed();
    let want = fs::read(env.path("app.tar")).unwrap();

    let mut random = Random(seed());
    for at in 0..N {
        // Finished steps stay cached: each time, a part of the work is left.
        let mut command = env.command(if at % 4 == 3 { &NO_CACHE } else { args });
        let mut child = command.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let moment = whole.mul_f64(f64::from(u32::try_from(random.below(1000)).unwrap()) / 1000.0);
        std::thread::sleep(moment);
        // As an ordinary user, rbuild is two processes: both are killed, at once or one before the
        // other.
        let pid = rustix::process::Pid::from_child(&child);
        if at % 2 == 0 {
            rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
    }
    wait_until(|| env.processes().is_empty(), &|| env.processes().join("\n"));
    let done = env.rbuild(args).ok();
    assert!(fs::read(env.path("app.tar")).unwrap() == want, "{}", done.stderr);
    let again = env.rbuild(args).ok();
    assert!(again.steps().iter().all(|step| step.ends_with("CACHED")), "{}", again.stderr);
    assert_eq!(env.leftovers_of_killed("store"), "");
    env.rbuild(&NO_CACHE).ok();
    assert!(fs::read(env.path("app.tar")).unwrap() == want);
}

const NO_CACHE: [&str; 8] = [
    "build",
    "context",
    "--reproducible",
    "-t",
    "app",
    "-o",
    "type=oci,dest=app.tar",
    "--no-cache",
];

/// Returns a fixed seed, or the value of `RBUILD_TEST_SEED`.
fn seed() -> u64 {
    std::env::var("RBUILD_TEST_SEED").map_or(7, |seed| seed.parse().unwrap())
}

/// Waits until a condition holds.
#[track_caller]
fn wait_until(done: impl Fn() -> bool, what: &dyn Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn store_is_its_owners_alone(who: Who) {
    use std::os::unix::fs::PermissionsExt as _;

    let env = Env::of(who);
    env.base();
    let inside = fs::read_dir(env.path("store")).unwrap().map(|entry| entry.unwrap().path());
    for path in inside.filter(|path| path.is_dir()).chain([env.path("store")]) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }
}

/// The process that publishes a layer first may have mounted its directory before it can record it:
/// the index may be busy while another process writes to it.
#[test]
fn priv_directory_that_waits_for_the_index_is_not_replaced() {
    if !is_root() {
        return;
    }
    let entries = || vec![dir("d"), file("d/f", "text")];
    let diff_id = Fixture::new().layer(entries(), Representation::Tar).diff_id;
    let first = Fixture::new();
    let options = OpenOptions { user_namespace: false, now_s: 1_700_000_000 };
    let root = first.path("store");
    let second = Fixture {
        store: Store::open(&root, &options).unwrap(),
        directory: tempfile::tempdir().unwrap(),
    };
    let layer = root.join("layers").join(diff_id.digest().hex());
    let directory = || {
        let entries = fs::read_dir(&layer).into_iter().flatten().map(|entry| entry.unwrap());
        let mut directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        directories.next().map(|entry| entry.ino())
    };
    let mut index = rusqlite::Connection::open(root.join("index.db")).unwrap();
    let held = index.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| first.layer(entries(), Representation::Directory));
        let until = Instant::now() + Duration::from_secs(20);
        let published = loop {
            if let Some(inode) = directory() {
                break inode;
            }
            assert!(Instant::now() < until, "no directory is published");
            std::thread::sleep(Duration::from_millis(5));
        };
        scope.spawn(|| second.layer(entries(), Representation::Directory));
        // Gives the second one time to unpack the layer, and to reach the point where the first one
        // waits.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(directory(), Some(published));
        held.rollback().unwrap();
    });
    assert_eq!(fs::read_dir(&layer).unwrap().count(), 2, "a listing and a directory");
}
