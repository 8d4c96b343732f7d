//! COPY and WORKDIR on the layer of a RUN that is still hashed: they do not wait, and make the same
//! layers.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

as_root_and_as_user!(layers_on_a_pending_one_are_those_on_a_finished_one);

/// Its first two steps leave a link, a removed directory, an opaque one, one of another owner, and a new
/// account. Only the time of `/etc` depends on the clock: mount points are made there.
const FILE: &str = "FROM base:1
RUN mkdir -p /real /gone/dir /theirs && touch /gone/dir/file && ln -s /nowhere /dangling && \
    touch -d @7 /real /gone/dir/file /gone/dir /gone /theirs && touch -h -d @7 /dangling
RUN dd of=/large bs=1M seek=512 count=0 && ln -s real /link && ln -sfn theirs /dangling && \
    rm -r /gone && rm -r /old && mkdir /old && echo new > /old/new && \
    chown 7:8 /theirs && chmod 2750 /theirs && \
    echo app:x:1234:1234::/:/bin/sh >> /etc/passwd && echo app:x:1234: >> /etc/group && \
    touch -h -d @7 /link /dangling && \
    touch -d @7 /large /real /old/new /old /theirs /etc/passwd /etc/group /etc
WORKDIR /link/made
COPY f /link/
COPY f /gone/dir/
COPY f /old/directory
COPY f /dangling/
COPY --chown=app f /theirs/app
USER app
WORKDIR /theirs/home
USER root
RUN test $(stat -c %u:%g:%a /theirs /theirs/app /theirs/home | tr '\\n' ,) = \
        7:8:2750,1234:1234:644,1234:1234:755, && cat /real/f /gone/dir/f /old/directory /theirs/f && \
    test ! -e /gone/dir/file
";

fn env_of(who: Who) -> Env {
    let mut env = Env::of(who);
    env.set("SOURCE_DATE_EPOCH", "1000000000");
    for store in ["one", "two"] {
        env.base_in(store);
    }
    env.write("f", "content\n");
    env.write("Dockerfile", FILE);
    env
}

/// Builds the context; returns the layers of the steps, and the events.
fn build(env: &Env, store: &str, args: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let args = [&["build", "context", "--progress=json"], args].concat();
    let done = Done::of(env.command_in(store, &args).output().unwrap()).ok();
    let lines = done.stderr.lines().map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<Value> = lines.collect();
    let made = events.iter().filter(|event| event["event"] == "step_layer");
    let layers: BTreeMap<u64, Value> =
        made.map(|event| (event["step"].as_u64().unwrap(), event["layer"].clone())).collect();
    (layers.into_values().collect(), events)
}

/// Returns the number of the step whose name contains `text`.
fn step(events: &[Value], text: &str) -> Value {
    let has_name = |event: &&Value| event["name"].as_str().is_some_and(|name| name.contains(text));
    events.iter().find(has_name).map_or(Value::Null, |event| event["step"].clone())
}

/// Returns the position of an event about a step.
fn position(events: &[Value], kind: &str, step: &Value) -> usize {
    let is_it = |event: &Value| event["event"] == kind && event["step"] == *step;
    events.iter().position(is_it).unwrap()
}

fn layers_on_a_pending_one_are_those_on_a_finished_one(who: Who) {
    let env = env_of(who);
    let (one, _) = build(&env, "one", &["--jobs", "1"]);
    let (two, events) = build(&env, "two", &[]);
    // All but that of the second step.
    assert_eq!((&two[..1], &two[2..]), (&one[..1], &one[2..]));
    assert_eq!(two.len(), 10);
    if matches!(who, Who::Caller) {
        let hashed = position(&events, "step_layer", &step(&events, "RUN dd"));
        for file_step in ["WORKDIR /theirs/home", "COPY --chown=app"] {
            let done = position(&events, "step_finished", &step(&events, file_step));
            assert!(done < hashed, "{file_step} waited: {events:?}");
        }
    }
    let (again, events) = build(&env, "two", &[]);
    assert_eq!(again, two);
    let outcomes = events.iter().filter(|event| event["event"] == "step_finished");
    assert!(!outcomes.clone().any(|event| event["outcome"] == "done" && event["step"] != 0));
    // Found by content: the first step is another one with the same result.
    env.write("Dockerfile", FILE.replace("RUN mkdir -p /real", "RUN mkdir -p /real /real"));
    let (again, events) = build(&env, "two", &[]);
    assert_eq!(again, two);
    let last = step(&events, "RUN test");
    assert_eq!(events[position(&events, "step_finished", &last)]["outcome"], "cached");
}

/// Returns the files named `large` in the work directories of the store.
fn large_files(env: &Env) -> Vec<PathBuf> {
    let mut open = vec![env.path("one/tmp")];
    let mut found = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_file() && entry.file_name() == "large" => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn priv_build_fails_if_a_pending_layer_cannot_be_hashed() {
    let Some(who) = Who::root() else { return };
    let env = env_of(who);
    let file = "FROM base:1\nRUN dd of=/large bs=1M seek=16384 count=0\nWORKDIR /w\nCOPY f /w/\n";
    env.write("Dockerfile", file);
    let mut command = env.command_in("one", &["build", "context", "--progress=json"]);
    let mut building = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(building.stderr.take().unwrap());
    let (mut events, mut line) = (Vec::new(), String::new());
    let is_copied = |events: &[Value]| {
        let is_end = |event: &&Value| event["event"] == "step_finished";
        events.iter().filter(is_end).any(|event| event["step"] == step(events, "COPY"))
    };
    while !is_copied(&events) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "{events:?}");
        events.push(serde_json::from_str::<Value>(&line).unwrap());
    }
    let large = large_files(&env);
    assert_eq!(large.len(), 1, "{large:?}");
    fs::OpenOptions::new().write(true).open(&large[0]).unwrap().set_len(0).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(building.wait().unwrap().code(), Some(3), "{rest}");
    assert!(rest.contains("/large is not"), "{rest}");
    assert_eq!(env.leftovers("one"), "");
}
