//! Progress output: lines, JSON, groups of CI systems, the step summary.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::registry::DockerRegistry;
use crate::support::source;

/// A step that prints commands of CI systems, which a log must not pass on.
const HOSTILE: &str = "FROM base:1\n\
    RUN printf 'first\\n::set-output name=a::b\\n##[error]x\\ra\\r::error::c\\n' && \
    printf '\\033[31mred\\033[0m\\n\\033[2J\\rsection_end:1:rbuild\\r\\033[0Kx\\n'\n";

fn secret_env(dockerfile: &str) -> Env {
    let env = Env::new();
    env.base();
    fs::write(env.path("password"), "geheimes-wort\n").unwrap();
    env.write("Dockerfile", dockerfile);
    env
}

/// Returns the lines that a CI system reads as commands: at the start of a line, ignoring blanks,
/// or after `##[`.
fn commands(log: &str) -> Vec<&str> {
    let mut stopped: Option<&str> = None;
    let mut found = Vec::new();
    // The CI system ends lines at each of these.
    for line in log.split(['\n', '\r']) {
        let line = line.trim_start();
        if let Some(token) = line.strip_prefix("::stop-commands::") {
            assert!(stopped.is_none() && token.len() > 30, "{log}");
            stopped = Some(token);
        } else if stopped.is_some_and(|token| line == format!("::{token}::")) {
            stopped = None;
        } else if stopped.is_none() && (line.starts_with("::") || line.contains("##[")) {
            found.push(line);
        }
    }
    assert_eq!(stopped, None, "commands work again at the end");
    found
}

fn schema() -> (jsonschema::Validator, BTreeSet<String>) {
    let mut schema: Value =
        serde_json::from_str(&source::text_of("docs/schemas/progress.schema.json")).unwrap();
    let kinds = schema["$defs"].as_object().unwrap().keys().cloned().collect();
    // Readers of these documents accept unknown members; here each must be described.
    for kind in schema["$defs"].as_object_mut().unwrap().values_mut() {
        kind["additionalProperties"] = json!(false);
    }
    (jsonschema::options().should_validate_formats(true).build(&schema).unwrap(), kinds)
}

/// Runs of rbuild whose lines are validated against the schema.
struct Runs<'a> {
    env: &'a Env,
    validator: jsonschema::Validator,
    seen: BTreeSet<String>,
}

impl Runs<'_> {
    fn run(&mut self, store: &str, dockerfile: &str, args: &[&str], code: i32) -> Vec<Value> {
        self.env.write("Dockerfile", dockerfile);
        let mut command = self.env.command_in(store, &[args, &["--progress=json"]].concat());
        let done = Done::of(command.output().unwrap());
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        self.events(&done.stderr)
    }

    fn events(&mut self, text: &str) -> Vec<Value> {
        let events: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        for event in &events {
            if let Err(error) = self.validator.validate(event) {
                panic!("{event}: {error}");
            }
            self.seen.insert(event["event"].as_str().unwrap().to_owned());
        }
        assert_eq!(events[0]["event"], "started");
        events
    }
}

/// Returns the standard output of the steps.
fn printed(events: &[Value]) -> String {
    let told = events.iter().filter(|event| event["stream"] == "stdout");
    told.map(|event| event["text"].as_str().unwrap()).collect()
}

/// Returns the layers that events name, each with its length.
fn layers(events: &[Value]) -> BTreeSet<String> {
    let told = events.iter().filter(|event| event["event"] == "step_layer");
    told.map(|event| format!("{} {}", event["layer"], event["bytes"])).collect()
}

#[test]
fn priv_json_is_what_its_schema_says() {
    let (validator, kinds) = schema();
    let registry = DockerRegistry::open();
    let env = secret_env("");
    let base = format!("{}/base:1", registry.host());
    let push = env.command(&["build", "base", "-t", &base, "--reproducible", "--push"]).output();
    Done::of(push.unwrap()).ok();

    let mut runs = Runs { env: &env, validator, seen: BTreeSet::new() };
    let name = format!("{}/app:1", registry.host());
    let good =
        format!("FROM {base} as b\nWORKDIR /w\nRUN echo out; printf '\\377' >&2; echo err >&2\n");
    let events = runs.run(
        "other",
        &good,
        &[
            "build",
            "context",
            "-t",
            &name,
            "--push",
            "-o",
            "type=oci,dest=o.tar",
            "--build-arg",
            "BUILDKIT_SYNTAX=example.org/other",
            "--explain",
        ],
        0,
    );
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let started = of("step_started");
    let run_step = started
        .iter()
        .find(|step| step["instruction"] == "RUN echo out; printf '\\377' >&2; echo err >&2");
    let run_step = run_step.expect("the RUN starts");
    assert_eq!(
        (&run_step["stage"], &run_step["number"], &run_step["of"]),
        (&json!("b"), &json!(3), &json!(3))
    );
    assert_eq!(printed(&events), "out\n");
    assert!(of("output").iter().any(|event| event["base64"].is_string()), "{events:?}");
    assert_eq!(of("diagnostic")[0]["code"], "FromAsCasing");
    assert_eq!(of("diagnostic")[0]["file"], "context/Dockerfile");
    let built = of("built")[0];
    assert_eq!(built["names"], json!([name]));
    assert_eq!(built["digest"], of("pushed")[0]["digest"]);
    let again = runs.run("other", &good, &["build", "context"], 0);
    assert_eq!(layers(&events).len(), 2, "of WORKDIR and RUN");
    assert_eq!(layers(&again), layers(&events), "a layer that is found is told of, too");
    assert!(again.iter().any(|event| event["outcome"] == "cached"));
    runs.run("other", &good, &["lock", "context"], 0);
    let failed =
        runs.run("store", "FROM base:1\nRUN echo last words; false\n", &["build", "context"], 1);
    let last = failed.last().unwrap();
    assert_eq!((&last["event"], &last["last_lines"]), (&json!("failed"), &json!(["last words"])));
    assert!(failed.iter().any(|event| event["code"] == "E0404" && event["line"] == 2));
    let kept = runs.events(&env.rbuild(&["history", "show", "--json"]).ok().stdout);
    let dockerfile = kept.iter().find(|event| event["event"] == "dockerfile").unwrap();
    assert_eq!(dockerfile["text"], "FROM base:1\nRUN echo last words; false\n");
    runs.run("store", "FROM base:1\nCOPPY a b\n", &["build", "context"], 1);
    runs.run("store", "FROM base:1\n", &["build", "context", "--locked", "--lockfile=none"], 2);
    assert_eq!(runs.seen, kinds, "every kind of event is seen, and none that the schema lacks");
}

#[test]
fn priv_secrets_are_in_no_kind_of_output() {
    let dockerfile = "FROM base:1\nRUN --mount=type=secret,id=p cat /run/secrets/p; \
                      cat /run/secrets/p >&2; false\n";
    let mut env = secret_env(dockerfile);
    let summary = env.shown("summary.md");
    env.set("GITHUB_STEP_SUMMARY", &summary);
    let styles = [
        ("plain", ""),
        ("json", ""),
        ("quiet", ""),
        ("auto", "GITHUB_ACTIONS"),
        ("auto", "GITLAB_CI"),
    ];
    for (style, variable) in styles {
        if !variable.is_empty() {
            env.set(variable, "true");
        }
        let progress = format!("--progress={style}");
        let secret = "id=p,src=password";
        let done = env.rbuild(&["build", "context", &progress, "--secret", secret]);
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        let all =
            format!("{}{}{}", done.stdout, done.stderr, fs::read_to_string(&summary).unwrap());
        assert!(all.contains("****") && !all.contains("geheimes"), "{style}: {all}");
        env.set("GITHUB_ACTIONS", "");
    }
}

#[test]
fn priv_plain_lines_have_their_step_and_no_control_characters() {
    let env = secret_env(HOSTILE);
    let long = "x".repeat(200_000);
    env.write("long", &long);
    env.write(
        "Dockerfile",
        format!("{HOSTILE}RUN --mount=target=/c cat /c/long; printf 'no end'\n"),
    );
    let done = env.rbuild(&["build", "context", "--progress=plain"]).ok();
    assert!(!done.stderr.contains(['\u{1b}', '\r']), "{}", done.stderr);
    let step = |line: &str| {
        let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
        number.parse::<u32>().ok()?;
        Some(rest.to_owned())
    };
    let lines: Vec<&str> = done.stderr.lines().collect();
    let (last, lines) = lines.split_last().unwrap();
    assert!(last.starts_with("built sha256:"), "{last}");
    let end = lines.iter().position(|line| line.starts_with("2 steps, ")).unwrap();
    let steps = &lines[..end];
    let is_shown_well = |line: &&str| step(line).is_some() || line.starts_with("isolation: ");
    assert!(steps.iter().all(is_shown_well), "{steps:?}");
    let timed = steps
        .iter()
        .filter_map(|line| step(line)?.split_once(' ').map(|(t, r)| (t.to_owned(), r.to_owned())));
    let printed: Vec<String> =
        timed.filter(|(time, _)| time.parse::<f64>().is_ok()).map(|(_, rest)| rest).collect();
    assert_eq!(printed[..3], ["first", "::set-output name=a::b", "::error::c"], "{printed:?}");
    assert_eq!(printed.iter().map(|line| line.matches('x').count()).sum::<usize>(), 200_001);
    assert!(printed.last().unwrap().ends_with("no end"));
    assert!(steps.iter().any(|line| line.contains("[stage-0 2/3] RUN ")), "{steps:?}");
}

#[test]
fn priv_github_folds_steps_and_marks_mistakes() {
    let mut env = secret_env(&format!("{HOSTILE}RUN echo 'never ends\n"));
    env.set("GITHUB_ACTIONS", "true");
    let top = env.path("").display().to_string();
    env.set("GITHUB_WORKSPACE", top.trim_end_matches('/'));
    let workspace = env.path("context").canonicalize().unwrap();
    let failed = env.rbuild(&["build", workspace.to_str().unwrap()]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let found = commands(&failed.stderr);
    let groups: Vec<&&str> = found.iter().filter(|line| line.starts_with("::group::")).collect();
    assert_eq!(groups.len(), 2, "{found:?}");
    assert_eq!(found.iter().filter(|line| **line == "::endgroup::").count(), 2);
    let errors: Vec<&&str> = found.iter().filter(|line| line.starts_with("::error ")).collect();
    assert_eq!(errors.len(), 1, "{found:?}");
    assert!(
        errors[0]
            .starts_with("::error file=context/Dockerfile,title=E0404,line=3,endLine=3,col=1,"),
        "{errors:?}"
    );
    assert!(
        found.iter().all(|line| ["::group::", "::endgroup::", "::error "]
            .iter()
            .any(|own| line.starts_with(own))),
        "{found:?}"
    );
    assert!(failed.stderr.contains("\u{1b}[31mred"), "colours are shown there");

    // Without -q the id is in the log, with -q it is the only output. Output of a failed step is
    // guarded too.
    env.write("Dockerfile", "FROM base:1\nRUN echo ::error::no; false\n");
    let quiet = env.rbuild(&["build", "context", "-q"]);
    assert_eq!(quiet.code, Some(1));
    assert_eq!(commands(&quiet.stderr).len(), 1, "{}", quiet.stderr);
    env.write("Dockerfile", "FROM base:1 as b\nRUN true\n");
    let warned = env.rbuild(&["build", "context", "--build-arg", "BUILDKIT_SYNTAX=a,b:c%d/e"]).ok();
    let found = commands(&warned.stderr);
    assert!(found.contains(&"::warning title=rbuild::BUILDKIT_SYNTAX=a,b:c%25d/e is ignored; the file is read as a Dockerfile"), "{found:?}");
    assert!(
        found
            .iter()
            .any(|line| line
                .starts_with("::warning file=context/Dockerfile,title=FromAsCasing,line=1,")),
        "{found:?}"
    );
}

#[test]
fn priv_gitlab_folds_steps_and_nothing_else_can() {
    let mut env = secret_env(HOSTILE);
    env.set("GITLAB_CI", "true");
    env.set("NO_COLOR", "1");
    let done = env.rbuild(&["build", "context"]).ok();
    // GitLab's format: a section marker ends with a carriage return and this sequence.
    let marks: Vec<&str> = done
        .stderr
        .split("\r\u{1b}[0K")
        .filter_map(|before| before.rsplit_once("\u{1b}[0Ksection_").map(|(_, mark)| mark))
        .collect();
    assert_eq!(marks.len(), 2, "{:?}", done.stderr);
    let name = |mark: &str| mark.splitn(3, ':').nth(2).unwrap().to_owned();
    assert!(marks[0].starts_with("start:") && marks[0].ends_with("[collapsed=true]"), "{marks:?}");
    assert_eq!(name(marks[0]).trim_end_matches("[collapsed=true]"), name(marks[1]));
    let time: i64 = marks[1].split(':').nth(1).unwrap().parse().unwrap();
    assert!(time > 1_600_000_000);
    assert!(done.stderr.contains("section_end:1:rbuild") || done.stderr.contains(" x\n"));
    assert!(!done.stderr.contains("\u{1b}[31m"), "NO_COLOR");
    // The last lines of a failed step are repeated, and must not act as markers there either.
    let last = env.build(
        &format!("{HOSTILE}RUN printf 'section_end:1:x\\r\\033[0K\\033[2Jend'; false\n"),
        &[],
    );
    assert_eq!(last.code, Some(1));
    assert!(last.stderr.contains("  end\n"), "{:?}", last.stderr);
    assert_eq!(last.stderr.matches('\r').count(), 2, "{:?}", last.stderr);
}

#[test]
fn priv_the_step_summary_reports_the_result() {
    let registry = DockerRegistry::open();
    let mut env = secret_env("FROM base:1 as b\nRUN echo '<b>|`x`' > /f\n");
    env.set("GITHUB_STEP_SUMMARY", "summary.md");
    fs::write(env.path("summary.md"), "# before\n").unwrap();
    let name = format!("{}/app:1", registry.host());
    let done = env.rbuild(&["build", "context", "-t", &name, "--push", "-q"]).ok();
    let text = fs::read_to_string(env.path("summary.md")).unwrap();
    assert!(text.starts_with("# before\n\n### rbuild built "), "{text}");
    for part in
        [done.stdout.trim(), "| Image | ", "pushed ", "FromAsCasing", "Steps | 1, 0 of them cached"]
    {
        assert!(text.replace("&#58;", ":").contains(part), "{part} in {text}");
    }
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("RUN echo")).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].matches('|').count(), 3, "{rows:?}");
    assert!(!rows[0].contains("<b>") && rows[0].contains("&#60;b&#62;&#124;&#96;x"), "{rows:?}");

    env.build("FROM base:1\nRUN false\n", &[]).fails(1, &["E0404"]);
    let text = fs::read_to_string(env.path("summary.md")).unwrap();
    assert!(text.contains("### rbuild failed") && text.contains("exit code: 1"), "{text}");
    // A summary that is too long for GitHub is not written; one that nearly is gets truncated.
    fs::write(env.path("summary.md"), "x".repeat(1 << 20)).unwrap();
    env.build("FROM base:1\n", &[]).ok();
    assert_eq!(fs::metadata(env.path("summary.md")).unwrap().len(), 1 << 20);
    env.set("GITHUB_STEP_SUMMARY", "none/summary.md");
    let done = env.build("FROM base:1\n", &[]).ok();
    assert!(done.stderr.contains("step summary is not written"), "{}", done.stderr);
}

#[test]
fn priv_time_of_a_run_is_that_of_its_command() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    let base = format!("{}/base:1", registry.host());
    env.rbuild(&["build", "base", "-t", &base, "--push"]).ok();
    env.write("Dockerfile", format!("FROM {base}\nRUN sleep 0.2\n"));
    let mut build = env.command_in("fresh", &["build", "context", "--progress=json"]);
    let done = Done::of(build.output().unwrap()).ok();
    let events: Vec<Value> =
        done.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |part: &str| {
        let is_it = |event: &&Value| event["name"].as_str().is_some_and(|name| name.contains(part));
        events.iter().find(is_it).map(|event| event["step"].as_u64().unwrap()).unwrap()
    };
    let at = |kind: &str, step: u64| {
        let is_it = |event: &&Value| event["event"] == kind && event["step"] == step;
        events.iter().find(is_it).unwrap()
    };
    let run = number("RUN sleep");
    let executing = at("step_executing", run)["seconds"].as_f64().unwrap();
    let pulled = at("step_finished", number("[internal] pull"))["seconds"].as_f64().unwrap();
    assert!(pulled <= executing, "{pulled} {executing}");
    let end = at("step_finished", run);
    let took = end["took_seconds"].as_f64().unwrap();
    let ran = end["seconds"].as_f64().unwrap() - executing;
    assert!(took >= 0.2 && took <= ran + 0.01, "{took} {ran}");
    let begun = at("step_started", run)["seconds"].as_f64().unwrap();
    assert!(executing > begun, "{begun} {executing}");
}

#[test]
fn priv_isolation_is_reported_by_builds_that_execute_a_step() {
    let env = Env::new();
    env.base();
    let text = "FROM base:1\nRUN true\nRUN false || true\n";
    let args = ["--metadata-file", "metadata.json", "--report", "report.html"];
    let metadata = || {
        let text = fs::read_to_string(env.path("metadata.json")).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        document["rbuild.isolation"].clone()
    };
    let done = env.build(text, &args).ok();
    assert_eq!(done.stderr.matches("\nisolation: namespace\n").count(), 1, "{}", done.stderr);
    assert_eq!(metadata(), "namespace");
    let report = fs::read_to_string(env.path("report.html")).unwrap();
    assert!(report.contains("<dt>Isolation</dt><dd><code>namespace</code></dd>"), "{report}");
    let shown = env.rbuild(&["history", "show"]).ok().stdout;
    assert!(shown.contains("  isolation   namespace\n"), "{shown}");

    let events = env.build(text, &["--no-cache", "--progress=json"]).ok().stderr;
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let isolation: Vec<Value> = events.filter(|event| event["event"] == "isolation").collect();
    assert_eq!(isolation.len(), 1, "{isolation:?}");
    assert_eq!(isolation[0]["isolation"], "namespace");

    for text in [text, "FROM base:1\nCOPY Dockerfile /\n"] {
        let done = env.build(text, &args).ok();
        assert!(!done.stderr.contains("isolation"), "{}", done.stderr);
        assert_eq!(metadata(), Value::Null);
    }
}
