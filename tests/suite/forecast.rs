//! `rbuild plan` and `--dry-run`: the forecast matches the build.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::env::{Env, Who, as_root_and_as_user};
use crate::support::registry::DockerRegistry;

as_root_and_as_user!(what_is_foreseen_is_what_happens);

const FILE: &str = "FROM base:1 AS tools\nRUN echo tool > /tool; sleep 0.2\nCOPY --link fixed /fixed\n\
    FROM base:1 AS app\nARG WHO=one\nWORKDIR /w\nCOPY src /src\nRUN wc -l < /src/a > /lines\nRUN echo $WHO > /who\n\
    COPY --from=tools /tool /tool\nRUN --mount=from=tools,source=/fixed,target=/f cat /f > /g\n";

fn plan(env: &Env, args: &[&str]) -> Value {
    let done = env.rbuild(&[&["plan", "context", "--json"], args].concat()).ok();
    serde_json::from_str(&done.stdout).unwrap()
}

/// Returns the forecast of each instruction.
fn fates(plan: &Value) -> BTreeMap<String, String> {
    let steps = plan["stages"].as_array().unwrap().iter().flat_map(|stage| {
        let steps = stage["steps"].as_array().unwrap();
        steps.iter().map(|step| (text(&step["instruction"]), text(&step["fate"])))
    });
    steps.collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An edit: its name, the change, further arguments, and how many steps are then cached, run, and
/// perhaps run.
type Edit<'a> = (&'static str, &'a dyn Fn(), &'a [&'a str], [usize; 3]);

fn what_is_foreseen_is_what_happens(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("fixed", "fixed");
    env.write("src/a", "one\n");
    env.write("Dockerfile", FILE);
    let arg = ["--build-arg", "WHO=two"];
    let edits: [Edit<'_>; 7] = [
        ("first", &|| {}, &[], [0, 8, 0]),
        ("nothing", &|| {}, &[], [8, 0, 0]),
        ("file", &|| env.write("src/a", "two\n"), &[], [3, 5, 0]),
        ("argument", &|| {}, &arg, [4, 3, 1]),
        ("all", &|| {}, &["--no-cache"], [0, 8, 0]),
        ("stage", &|| env.write("fixed", "another"), &[], [5, 1, 2]),
        (
            "below",
            &|| env.write("Dockerfile", FILE.replace("echo tool", "echo other")),
            &[],
            [4, 1, 3],
        ),
    ];
    for (name, edit, args, want) in edits {
        edit();
        let foreseen = fates(&plan(&env, args));
        let count = |fate: &str| foreseen.values().filter(|one| *one == fate).count();
        let counted = ["cached", "runs", "perhaps"].map(count);
        assert_eq!(counted, want, "{name}: {foreseen:?}");
        let built = env.rbuild(&[&["build", "context"], args].concat()).ok();
        let mut happened = BTreeMap::new();
        for step in built.steps() {
            let (step, outcome) = step.rsplit_once(": ").unwrap();
            happened.insert(step.to_owned(), outcome.to_owned());
        }
        for (step, fate) in &foreseen {
            let outcome = happened.get(step).map(String::as_str);
            match fate.as_str() {
                "cached" => assert_eq!(outcome, Some("CACHED"), "{name}: {step}"),
                "runs" => assert_eq!(outcome, Some("DONE"), "{name}: {step}"),
                "perhaps" => assert!(outcome.is_some(), "{name}: {step}"),
                other => panic!("{name}: {step}: {other}"),
            }
        }
    }
}

/// Returns every file of a directory, with its length.
fn files(directory: &std::path::Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name() {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(directory).unwrap().display().to_string();
        // SQLite changes its own files.
        if entry.file_type().is_file() && !name.starts_with("index.db") {
            found.push((name, entry.metadata().unwrap().len()));
        }
    }
    found
}

#[test]
fn priv_a_plan_pulls_and_makes_nothing() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    let base = format!("{}/base:1", registry.host());
    env.build("FROM base:1\n", &["-t", &base, "--push"]).ok();
    env.write("f", "f");
    env.write("Dockerfile", format!("FROM {base} AS b\nRUN true\nFROM scratch AS c\nCOPY f /\nCOPY --from=b /bin/busybox /b\n"));
    let of = |args: &[&str]| env.command_in("other", args).output().unwrap();
    let done = of(&["--dry-run", "context", "-t", "app:1"]);
    let text = String::from_utf8(done.stdout).unwrap();
    let size =
        text.split_once(" (").and_then(|(_, rest)| rest.split_once(" not in the store")).unwrap().0;
    let want = format!(
        "b: from {base} ({size} not in the store)\n  runs             [b 2/2] RUN true\n\
         \x20                    first time this step has run here\n\n\
         c: from scratch, with files from b\n  runs             [c 2/3] COPY f /\n\
         \x20                    first time this step has run here\n\
         \x20 runs             [c 3/3] COPY --from=b /bin/busybox /b\n\
         \x20                    depends on [c 2/3] COPY f /\n\n\
         0 of 3 steps cached, 3 to run: no estimate yet; up to {size} to pull\n"
    );
    assert_eq!(text, want);
    let kept = files(&env.path("other"));
    let blobs: Vec<_> = kept.iter().filter(|(name, _)| name.starts_with("blobs/")).collect();
    assert!(blobs.iter().all(|(_, size)| *size < 10_000), "manifest and config only: {kept:?}");
    assert!(
        !kept.iter().any(|(name, _)| name.starts_with("layers/") || name.starts_with("builds/"))
    );
    let images = String::from_utf8(of(&["images"]).stdout).unwrap();
    assert!(!images.contains("app"), "{images}");

    // A mount needs the image's files. Without them, the step is unknown.
    env.write(
        "Dockerfile",
        format!("FROM scratch\nRUN --mount=from={base},target=/m /m/bin/busybox true\n"),
    );
    of(&["plan", "context"]);
    assert_eq!(files(&env.path("other")), kept);

    // The forecast includes the duration of steps.
    let slow = "FROM base:1\nRUN sleep 0.3\nRUN sleep 0.2; echo > /f\nCOPY f /g\n";
    env.build(slow, &[]).ok();
    env.write("Dockerfile", slow.replace("0.3", "0.30"));
    let foreseen = plan(&env, &[]);
    let seconds = foreseen["estimate_seconds"].as_f64().unwrap();
    assert!((0.5..5.0).contains(&seconds), "{foreseen:#}");
    // Hashes of files may be stored once the files are old enough.
    let made = || {
        let mut made = files(&env.path("store"));
        made.retain(|(name, _)| !name.starts_with("memo/"));
        made
    };
    let again = made();
    plan(&env, &[]);
    assert_eq!(made(), again);
    env.write("Dockerfile", "FROM base:1\nCOPY absent /\n");
    env.rbuild(&["plan", "context"]).fails(1, &["absent", "Dockerfile:2:6"]);
    fs::remove_file(env.path("context/Dockerfile")).unwrap();
    env.rbuild(&["plan", "context"]).fails(1, &["no Dockerfile found"]);
}

#[test]
fn what_a_plan_cannot_do_is_refused() {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\n");
    for (args, part) in [
        (
            &["--report", "/nonexistent/x"][..],
            "error: --report cannot be used here: nothing is built",
        ),
        (&["--fix"], "error: --fix can only be used with --check"),
        (&["--format", "json"], "error: --format can only be used with --check"),
        (&["--iidfile", "id"], "error: --iidfile cannot be used here: nothing is built"),
        (&["--metadata-file", "m"], "error: --metadata-file cannot be used here: nothing is built"),
        (&["--on-error=shell"], "error: --on-error cannot be used here: nothing is built"),
    ] {
        for command in [&["plan"][..], &["build", "--dry-run"]] {
            env.rbuild(&[command, &["context"], args].concat()).fails(2, &[part]);
        }
        let option = args[0].split('=').next().unwrap();
        assert!(!env.rbuild(&["plan", "--help"]).ok().stdout.contains(option), "{option}");
    }
    assert!(!env.path("store").exists());
}
