//! Options and variables of docker: command lines that are written for `docker buildx build` work.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and read files as a user would"
)]

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::env::{Done, Env};

const TWO_STAGES: &str = "FROM base:1 AS First\n\
                          RUN --mount=type=cache,target=/c ls /c > /seen && echo x > /c/x\n\
                          FROM base:1\n\
                          COPY --from=first /seen /seen\n\
                          RUN cat /seen > /copied\n";

fn env() -> Env {
    let env = Env::new();
    env.base();
    env
}

#[test]
fn options_without_effect_change_nothing() {
    let env = env();
    let dockerfile = "FROM base:1\nCOPY Dockerfile /\n";
    let plain = env.build(dockerfile, &["-q", "--reproducible"]).ok().stdout;
    let options = [
        "--provenance=false",
        "--sbom=false",
        "--attest=type=provenance,disabled=true",
        "--builder=default",
        "--rm",
        "--force-rm=true",
        "--compress",
        "--security-opt=seccomp=unconfined",
        "--no-cache=false",
        "--load=0",
        "--push=false",
    ];
    let args = [&["-q", "--reproducible"], &options[..]].concat();
    assert_eq!(env.build(dockerfile, &args).ok().stdout, plain);
    for (option, part) in [
        ("--provenance=true", "does not create attestations; only `false` is accepted"),
        ("--sbom=generator=x", "does not create attestations; only `false` is accepted"),
        ("--attest=type=sbom", "only `disabled=true` is accepted"),
        ("--rm=perhaps", "must be true or false"),
    ] {
        env.build(dockerfile, &[option]).fails(2, &[option.split_once('=').unwrap().0, part]);
    }
}

#[test]
fn steps_of_a_filtered_stage_are_executed_and_others_are_cached() {
    let env = env();
    let ended = |args: &[&str], run: &str, copy: &str, last: &str| {
        let args = [&["--progress=plain", "--explain", "-o", "out"], args].concat();
        let done = env.build(TWO_STAGES, &args).ok();
        done.ended(&[
            &format!("RUN --mount=type=cache,target=/c ls /c > /seen && echo x > /c/x: {run}"),
            &format!("COPY --from=first /seen /seen: {copy}"),
            &format!("RUN cat /seen > /copied: {last}"),
        ]);
        // What the first stage saw in its cache mount.
        assert_eq!(fs::read_to_string(env.path("out/copied")).unwrap(), "");
        done.stderr
    };
    ended(&[], "DONE", "DONE", "DONE");
    ended(&[], "CACHED", "CACHED", "CACHED");
    // The cache mount begins empty, so the same file is made and the other stage is cached.
    let stderr = ended(&["--no-cache-filter", "FIRST,other"], "DONE", "CACHED", "CACHED");
    for part in [
        "not cached: --no-cache-filter names its stage",
        "--no-cache-filter other is unused: the Dockerfile has no stage other",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    ended(&["--no-cache-filter", "stage-1"], "CACHED", "DONE", "DONE");
    // A plan says the same.
    let plan = env.rbuild(&["plan", "context", "--no-cache-filter=first", "--json"]).ok().stdout;
    assert!(plan.contains("--no-cache-filter names its stage"), "{plan}");
}

#[test]
fn steps_of_a_filtered_stage_are_not_taken_from_an_equal_stage() {
    const STEPS: &str = "RUN sleep 0.3; cat /proc/sys/kernel/random/uuid > /id\n\
                         RUN cat /proc/sys/kernel/random/uuid > /later\n";
    let env = env();
    let dockerfile = format!(
        "FROM base:1 AS a\n{STEPS}FROM base:1 AS b\n{STEPS}\
         FROM scratch\nCOPY --from=a /id /a\nCOPY --from=b /id /later /\n"
    );
    let ids = |args: &[&str]| {
        env.build(&dockerfile, &[&["-o", "out"], args].concat()).ok();
        ["out/a", "out/id", "out/later"].map(|name| fs::read_to_string(env.path(name)).unwrap())
    };
    let [a, id, later] = ids(&[]);
    assert_eq!(a, id);
    // While the first step of `b` is executed, both steps of `a` are found in the cache.
    let [_, new_id, new_later] = ids(&["--no-cache-filter=b"]);
    assert!(new_id != id && new_later != later, "{id} {later} {new_id} {new_later}");
}

#[test]
fn variables_of_docker_stand_for_options() {
    let mut env = env();
    env.set("DOCKER_DEFAULT_PLATFORM", "linux/arm64");
    let dockerfile = "FROM scratch\nCOPY Dockerfile /\n";
    env.build(dockerfile, &["-t", "a:1"]).ok();
    let shown = env.rbuild(&["inspect", "a:1", "--json"]).ok().stdout;
    assert!(shown.contains("linux/arm64"), "{shown}");
    env.build(dockerfile, &["-t", "b:1", "--platform", "linux/amd64"]).ok();
    let shown = env.rbuild(&["inspect", "b:1", "--json"]).ok().stdout;
    assert!(shown.contains("linux/amd64"), "{shown}");

    env.set("BUILDKIT_PROGRESS", "none");
    let done = env.build(dockerfile, &[]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    assert!(env.build(dockerfile, &["-q"]).ok().stdout.starts_with("sha256:"));
    assert!(env.build(dockerfile, &["--progress=plain"]).ok().stderr.contains("CACHED"));
    env.set("BUILDKIT_PROGRESS", "loud");
    env.build(dockerfile, &[])
        .fails(2, &["BUILDKIT_PROGRESS is `loud`: it must be one of auto, tty"]);
    env.set("DOCKER_DEFAULT_PLATFORM", "linux/quantum");
    env.build(dockerfile, &["-q"]).fails(2, &["DOCKER_DEFAULT_PLATFORM is `linux/quantum`: "]);
}

#[test]
fn raw_json_is_the_solve_status_of_buildkit_and_errors_are_text() {
    let env = env();
    let dockerfile = "FROM base:1\nMAINTAINER me\nRUN echo out; echo err >&2\nRUN false\n";
    let done = env.build(dockerfile, &["--progress=rawjson"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    let (json, text): (Vec<&str>, Vec<&str>) =
        done.stderr.lines().partition(|line| line.starts_with('{'));
    let statuses: Vec<Value> =
        json.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all = |member: &str| -> Vec<&Value> {
        statuses.iter().filter_map(|status| status[member].as_array()).flatten().collect()
    };
    let ended = |name: &str| -> &Value {
        let is_it = |vertex: &&Value| {
            vertex["name"].as_str().unwrap().ends_with(name) && !vertex["completed"].is_null()
        };
        all("vertexes").into_iter().rfind(|vertex| is_it(vertex)).unwrap()
    };
    let (echo, failed) = (ended("RUN echo out; echo err >&2"), ended("RUN false"));
    assert_eq!((&echo["error"], &echo["cached"]), (&Value::Null, &Value::Null));
    assert!(failed["error"].as_str().unwrap().contains("exit"), "{failed}");
    // The input of a step is the one before it.
    assert_eq!(failed["inputs"], json!([echo["digest"]]));
    for time in ["started", "completed"] {
        let time = echo[time].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }
    let logs: Vec<(i64, String)> = all("logs")
        .iter()
        .filter(|log| log["vertex"] == echo["digest"])
        .map(|log| (log["stream"].as_i64().unwrap(), decoded(&log["data"])))
        .collect();
    let of = |wanted: i64| -> String {
        logs.iter().filter(|(stream, _)| *stream == wanted).map(|(_, text)| text.as_str()).collect()
    };
    assert_eq!((of(1).as_str(), of(2).as_str()), ("out\n", "err\n"));
    let warning = all("warnings")[0];
    assert!(decoded(&warning["short"]).starts_with("MaintainerDeprecated: "));
    assert_eq!(warning["range"], json!([{ "start": { "line": 2 }, "end": { "line": 2 } }]));
    assert!(text.iter().any(|line| line.starts_with("error")), "{text:?}");
}

#[test]
fn metadata_has_the_members_of_buildx() {
    let mut env = env();
    let dockerfile = "FROM base:1\nMAINTAINER me\n";
    let read = |env: &Env| -> Value {
        let args = ["-o", "type=oci,dest=a.tar", "--metadata-file", "m", "--print=build"];
        env.build(dockerfile, &args).ok();
        serde_json::from_slice(&fs::read(env.path("m")).unwrap()).unwrap()
    };
    let plain = read(&env);
    assert_eq!(plain["containerimage.descriptor"]["digest"], plain["containerimage.digest"]);
    assert!(plain["containerimage.descriptor"]["size"].as_u64().unwrap() > 100);
    let id = plain["buildx.build.ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    env.rbuild(&["history", "show", &id]).ok();
    assert_eq!(plain["buildx.build.warnings"], Value::Null);
    env.set("BUILDX_METADATA_WARNINGS", "true");
    let warnings = read(&env)["buildx.build.warnings"].clone();
    assert!(decoded(&warnings[0]["short"]).contains("(line 2)"), "{warnings}");
    assert!(warnings[0]["url"].as_str().unwrap().ends_with("/maintainer-deprecated/"));
}

#[test]
fn labels_name_the_commit_and_the_repository_if_asked() {
    let mut env = env();
    env.write("Dockerfile", "FROM base:1\n");
    let script = "git init -q . && git -c user.name=n -c user.email=e commit -q --allow-empty -m m && \
                  git remote add origin https://me:secret@git.example/a.git && git rev-parse HEAD";
    let commit = env.program("sh").args(["-c", script]).output().unwrap();
    let commit = Done::of(commit).ok().stdout.trim().to_owned();
    let labels = |env: &Env, args: &[&str]| -> Value {
        env.rbuild(&[&["build", "context", "-t", "app:1"], args].concat()).ok();
        let shown = env.rbuild(&["inspect", "--json", "app:1"]).ok().stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["Config"]["config"]["Labels"].clone()
    };
    assert_eq!(labels(&env, &[]), Value::Null);
    env.set("BUILDX_GIT_LABELS", "1");
    let want = json!({
        "com.docker.image.source.entrypoint": "context/Dockerfile",
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.source": "https://git.example/a.git",
    });
    assert_eq!(labels(&env, &[]), want);
    let own = labels(&env, &["--label", "org.opencontainers.image.revision=mine"]);
    assert_eq!(own["org.opencontainers.image.revision"], "mine");
}

/// Returns the text of a member that is encoded as Go encodes bytes.
fn decoded(value: &Value) -> String {
    String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
}
