//! Recorded builds: `history ls|show|logs|rm`, and `explain`.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

as_root_and_as_user!(builds_are_remembered_with_steps_logs_and_reasons);

const FILE: &str = "FROM base:1 as b\nRUN echo one; sleep 0.01; printf 'tw\\337\\033[2J\\033[31mo'\n\
                    COPY f /f\nRUN cat /f; test ! -s /f\n";

fn env_of(who: Who) -> Env {
    let env = Env::of(who);
    env.base();
    env.rbuild(&["history", "rm", "--all"]).ok();
    env.write("f", "");
    env
}

/// Returns the rows of `history ls`, as JSON.
fn listed(env: &Env) -> Vec<Value> {
    let done = env.rbuild(&["history", "ls", "--json"]).ok();
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn builds_are_remembered_with_steps_logs_and_reasons(who: Who) {
    let env = env_of(who);
    env.build(FILE, &["-t", "app:1"]).ok();
    env.write("f", "content");
    env.build(FILE, &["-t", "app:1", "--target", "b"]).fails(1, &["exit code: 1"]);

    let [failed, built] = listed(&env).try_into().unwrap();
    let of = |build: &Value, name: &str| build[name].to_string();
    assert_eq!(of(&failed, "status"), "\"failed\"");
    assert_eq!([of(&failed, "steps"), of(&failed, "cached")], ["3", "1"]);
    assert_eq!(of(&failed, "names"), "[\"app:1\"]");
    assert_eq!(of(&failed, "target"), "\"b\"");
    assert!(of(&failed, "context").ends_with("/context\""), "{failed}");
    assert!(of(&failed, "message").contains("exit code: 1"), "{failed}");
    assert_eq!(of(&built, "status"), "\"built\"");
    let inspected = env.rbuild(&["history", "-q", "app:1"]).ok().stdout;
    let id = built["image"].as_str().unwrap();
    assert!(id.contains(inspected.lines().next().unwrap()), "{id} {inspected}");

    let table = env.rbuild(&["history"]).ok().stdout;
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[0], failed["id"].as_str().unwrap());
    assert_eq!(words[3..4], ["failed"]);
    assert_eq!(words[5..], ["3", "1", "app:1", "--target", "b"]);

    let shown = env.rbuild(&["history", "show"]).ok().stdout;
    for part in [
        "Steps: 3, 1 cached\n",
        "COPY f /f\n        not cached: /f changed\n",
        "not cached: an earlier step was rebuilt: [b 3/4] COPY f /f\n",
        "context/Dockerfile:1: casing of `as` and `FROM` does not match [FromAsCasing]\n",
        "last lines of the failed step:\n  content\n",
        "error[E0404]",
        "Dockerfile:4:1\n",
    ] {
        assert!(shown.contains(part), "{part:?} in\n{shown}");
    }

    let explained = env.rbuild(&["explain"]).ok().stdout;
    assert!(explained.contains("1 of 3 steps cached\n"), "{explained}");
    assert!(explained.contains(" [b 3/4] COPY f /f\n    /f changed\n"), "{explained}");
    let earlier = env.rbuild(&["explain", "^1"]).ok().stdout;
    assert!(earlier.contains("    first time this step has run here\n"), "{earlier}");

    let logs = env.rbuild(&["history", "logs", built["id"].as_str().unwrap()]).ok().stdout;
    let lines: Vec<&str> = logs.lines().filter(|line| !line.contains("[internal]")).collect();
    assert!(lines.iter().any(|line| line.ends_with(" one")), "{logs}");
    assert!(lines.iter().any(|line| line.ends_with(" tw\u{fffd}o")), "{logs}");
    let run = lines.iter().find(|line| line.contains("RUN echo one")).unwrap();
    let (number, _) = run.split_once(' ').unwrap();
    let raw = env.command(&["history", "logs", "^1", "--step", number]).output().unwrap();
    assert_eq!(raw.stdout, b"one\ntw\xdf\x1b[2J\x1b[31mo");
    for_people_and_programs(&env, number.trim_start_matches('#'));

    let events = env.rbuild(&["history", "show", "--json"]).ok().stdout;
    let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "failed");

    let short: String = built["id"].as_str().unwrap().chars().take(7).collect();
    env.rbuild(&["history", "rm", &short]).ok();
    assert_eq!(listed(&env), [failed]);
    env.rbuild(&["history", "show", "^1"]).fails(2, &["the store has only 1 recorded build"]);
    env.rbuild(&["history", "show", "0000"])
        .fails(2, &["no build 0000 in the store", "history ls"]);
    env.rbuild(&["history", "rm", "--all"]).ok();
    env.rbuild(&["explain"]).fails(3, &["the store has no recorded builds"]);
}

/// Checks the output of `history` on a terminal and on a full disk.
fn for_people_and_programs(env: &Env, number: &str) {
    // On a terminal, the text is valid UTF-8 and colours are reset.
    let line =
        format!("{} --root store history logs ^1 --step {number}", env!("CARGO_BIN_EXE_rbuild"));
    let typed = env.program("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    assert_eq!(
        String::from_utf8(typed.stdout).unwrap(),
        "one\r\ntw\u{fffd}\u{1b}[31mo\u{1b}[0m\r\n"
    );
    for args in [&["show", "--json"][..], &["logs", "^1", "--step", number], &["logs"]] {
        let mut command = env.command(&[&["history"], args].concat());
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        Done::of(command.stdout(full).output().unwrap())
            .fails(3, &["error: cannot write to standard output: No space left on device"]);
    }
}

/// A build that waits in its RUN; killed on drop.
struct Waiting(Child);

impl Waiting {
    fn start(env: &Env) -> Self {
        env.write("Dockerfile", "FROM base:1\nRUN echo begun; sleep 1000\n");
        let mut command = env.command(&["build", "context", "--secret", "id=s,src=secret"]);
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let waiting = Self(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !env.rbuild(&["history", "logs"]).stdout.contains("RUN echo begun") {
            assert!(Instant::now() < deadline, "the build does not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn priv_a_build_that_runs_is_seen_and_one_that_was_killed_too() {
    let env = env_of(Who::Caller);
    fs::write(env.path("secret"), "word").unwrap();
    let waiting = Waiting::start(&env);
    assert_eq!(listed(&env)[0]["status"], "running");
    let id = listed(&env)[0]["id"].as_str().unwrap().to_owned();
    env.rbuild(&["history", "rm", &id]).fails(2, &["is still running"]);
    env.rbuild(&["history", "rm", "--all"]).ok();
    assert_eq!(listed(&env).len(), 1);
    drop(waiting);
    // A process that it had started holds the file for a moment longer.
    let deadline = Instant::now() + Duration::from_secs(60);
    while listed(&env)[0]["status"] == "running" {
        assert!(Instant::now() < deadline, "the build is still thought to run");
    }
    assert_eq!(listed(&env)[0]["status"], "killed");
    env.rbuild(&["history", "rm", &id]).ok();
    assert!(listed(&env).is_empty());
}

#[test]
fn priv_the_history_keeps_no_secret_and_not_everything_for_ever() {
    let env = env_of(Who::Caller);
    fs::write(env.path("secret"), "geheim-wort").unwrap();
    for n in 0..205 {
        fs::write(env.path(&format!("store/builds/{n:010}-{n:08x}.jsonl")), "").unwrap();
    }
    let file = "FROM base:1\nARG TOKEN\nRUN --mount=type=secret,id=s cat /run/secrets/s\n";
    let secret = ["--secret", "id=s,src=secret"];
    env.build(file, &[&secret[..], &["--build-arg", "TOKEN=first-wort"]].concat()).ok();
    let page = ["--build-arg", "TOKEN=another-wort", "--report", "page.html"];
    env.build(file, &[&secret[..], &page].concat()).ok();
    let explained = env.rbuild(&["explain"]).ok().stdout;
    assert!(explained.contains("    ENV or ARG TOKEN changed\n"), "{explained}");
    let page = fs::read_to_string(env.path("page.html")).unwrap();
    assert!(page.contains("ENV or ARG TOKEN changed") && !page.contains("-wort"), "{page}");
    let records: Vec<_> = fs::read_dir(env.path("store/builds")).unwrap().flatten().collect();
    assert_eq!(records.len(), 200);
    let text = env.rbuild(&["history", "show", "--json"]).ok().stdout;
    assert!(text.contains("****") && !text.contains("geheim-wort"), "{text}");
    assert!(!text.contains("-wort"), "{text}");
}

#[test]
fn priv_what_builds_nothing_is_not_remembered() {
    let env = env_of(Who::Caller);
    env.write("Dockerfile", "FROM base:1\n");
    env.rbuild(&["build", "context", "--check"]).ok();
    env.rbuild(&["lock", "context"]).ok();
    assert!(listed(&env).is_empty());
    env.build("FROM base:1\nRNU x\n", &[]).fails(1, &["RNU"]);
    assert_eq!(listed(&env)[0]["status"], "failed");
}

#[test]
fn priv_steps_have_one_name_everywhere() {
    let env = Env::new();
    env.base();
    let file = "FROM base:1 AS made\nRUN echo hello\nRUN true\nFROM base:1\nCOPY --from=made /old /o\n\
                RUN echo out && false\n";
    let failed = env.build(file, &["-t", "app:1"]);
    let last = "  = help: step stage-1:3: `rbuild history logs --step stage-1:3` shows its output, \
                `rbuild enter --step stage-1:3 context` opens a shell before it runs\n";
    assert!(failed.stderr.ends_with(last), "{}", failed.stderr);
    let number = |part: &str| {
        let line = failed.stderr.lines().find(|line| line.contains(part)).unwrap();
        line.split(' ').next().unwrap().to_owned()
    };
    let number = [number("[made 2/3]"), number("[made 3/3]"), number("[stage-1 3/3]")];
    for (name, printed) in [("made:2", "hello\n"), (&*number[0], "hello\n"), ("stage-1:3", "out\n")]
    {
        assert_eq!(env.rbuild(&["history", "logs", "--step", name]).ok().stdout, printed, "{name}");
        assert_eq!(env.rbuild(&["history", "logs", name]).ok().stdout, printed, "{name}");
    }
    for name in ["made:3", &*number[1]] {
        let silent = env.rbuild(&["history", "logs", "--step", name]).ok();
        assert_eq!([&*silent.stdout, &*silent.stderr], ["", "step made:3 has no output\n"]);
    }
    for name in ["made:2", &*number[0]] {
        let explained = env.rbuild(&["explain", "--step", name]).ok().stdout;
        let want = format!("{} [made 2/3] RUN echo hello\n    first time this step", number[0]);
        assert!(explained.starts_with(&want), "{explained}");
        assert_eq!(env.rbuild(&["explain", name]).ok().stdout, explained);
        let json = env.rbuild(&["explain", "--json", "--step", name]).ok().stdout;
        let json: Value = serde_json::from_str(&json).unwrap();
        let names = json["not_cached"].as_array().unwrap().iter().map(|step| &step["name"]);
        assert_eq!(names.collect::<Vec<_>>(), ["[made 2/3] RUN echo hello"]);
    }
    for name in ["stage-1:3", &*number[2]] {
        let args = ["enter", "--step", name, "context", "--", "ls", "/o/file"];
        assert!(env.rbuild(&args).ok().stdout.contains("/o/file"), "{name}");
    }
    let logs = |name: &str| env.rbuild(&["history", "logs", "--step", name]);
    logs("made:9").fails(2, &["has no step made:9; `rbuild history show"]);
    logs("build").fails(2, &["such as build:3", "such as #8"]);
    let enter = |name: &str| env.rbuild(&["enter", "--step", name, "context", "--", "true"]);
    enter("#99").fails(2, &["has no step #99"]);
    let pull = failed.stderr.lines().find(|line| line.contains("[internal]"));
    if let Some((number, _)) = pull.and_then(|line| line.split_once(' ')) {
        enter(number).fails(2, &["is not an instruction: [internal]"]);
    }
    std::fs::create_dir(env.path("other")).unwrap();
    std::fs::write(env.path("other/Dockerfile"), "FROM base:1\n").unwrap();
    env.rbuild(&["enter", "--step", "#1", "other", "--", "true"])
        .fails(2, &["the store has no recorded build of", "/other", "such as build:3"]);
}
