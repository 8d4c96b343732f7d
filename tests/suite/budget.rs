//! Limits on the size of an image, and the lines after a build that report the size.

use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::images::Layout;
use crate::support::normal::normal;
use crate::support::registry::DockerRegistry;

const APP: &str = "FROM base:1 AS tool\n\
    RUN head -c 300000 /dev/zero > /tool\n\
    FROM base:1\n\
    RUN mkdir /d && \\\n    head -c 70000 /dev/zero > /d/large && echo 1 > /d/small\n\
    ENV A=1\n\
    COPY --from=tool /tool /bin/tool\n\
    RUN true\n";

fn env() -> Env {
    let env = Env::new();
    env.base();
    env
}

/// Returns the lines that are not about steps.
fn summary(done: &Done) -> Vec<String> {
    let lines = done.stderr.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn names(env: &Env) -> usize {
    env.rbuild(&["images"]).ok().stdout.lines().count() - 1
}

#[test]
fn priv_a_build_ends_with_what_it_made() {
    let env = env();
    let output = ["-t", "app:1", "-o", "type=oci,dest=layout,tar=false"];
    let first = env.build(APP, &output).ok();
    insta::assert_snapshot!("summary", normal(&summary(&first).join("\n")));
    let n_bytes: usize = Layout::read(&env.path("layout")).layers.iter().map(Vec::len).sum();
    let events = env.build(APP, &["--progress=json"]).ok().stderr;
    let built: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&built["steps"], &built["cached"]), (&json!(4), &json!(4)));
    let images = json!([{ "platform": "linux/amd64", "layers": 4, "bytes": n_bytes }]);
    assert_eq!((&built["images"], &built["new_layers"]), (&images, &json!([])));
    let again = env.build(APP, &["-t", "app:1"]).ok();
    let head = summary(&again).first().unwrap().clone();
    assert!(head.starts_with("4 steps, all cached, 0."), "{head}");
    assert!(head.ends_with("MB in 4 layers"), "{head}");
    assert_eq!(env.build(APP, &["-q"]).ok().stderr, "");
}

#[test]
fn priv_equal_steps_of_two_stages_both_report_their_layer() {
    let env = env();
    let text = "FROM base:1 AS a\nRUN sleep 0.3; echo 1 > /x\nFROM base:1 AS b\n\
                RUN sleep 0.3; echo 1 > /x\nFROM base:1\nCOPY --from=a /x /a\nCOPY --from=b /x /b\n";
    let events = env.build(text, &["--progress=json"]).ok().stderr;
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = events.iter().filter(|event| event["event"] == "step_layer");
    let mut steps: Vec<u64> = told.map(|event| event["step"].as_u64().unwrap()).collect();
    steps.sort_unstable();
    let runs = events.iter().filter(|event| {
        event["event"] == "step_started" && event["number"].as_u64().is_some_and(|n| n > 1)
    });
    let mut want: Vec<u64> = runs.map(|event| event["step"].as_u64().unwrap()).collect();
    want.sort_unstable();
    assert_eq!(steps, want, "each once");
}

#[test]
fn priv_an_image_that_outgrows_its_budget_gets_no_name_and_goes_nowhere() {
    let env = env();
    let output = ["-t", "app:1", "--iidfile=iid", "-o", "type=oci,dest=app.tar", "--max-size=1MB"];
    let failed = env.build(APP, &output);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(!env.path("app.tar").exists() && !env.path("iid").exists());
    assert_eq!(names(&env), 1, "base:1 alone");
    insta::assert_snapshot!("max_size", normal(&summary(&failed).join("\n")));
    // The steps stay cached, and an image within its budget is built.
    let fits = env.build(APP, &["-t", "app:1", "--max-size=1GiB", "--max-layer-size", "350kB"]);
    assert!(fits.ok().stderr.contains("4 steps, all cached"));
    assert_eq!(names(&env), 2);
}

#[test]
fn priv_a_layer_that_outgrows_its_budget_is_named_with_its_biggest_files() {
    let env = env();
    let failed = env.build(APP, &["-t", "app:1", "--max-layer-size=64KiB"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    insta::assert_snapshot!("max_layer_size", normal(&summary(&failed).join("\n")));
    // A cached layer is measured too.
    let again = env.build(APP, &["-t", "app:1", "--max-layer-size=64KiB", "--progress=json"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    let found = again.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = found.filter(|event| event["code"] == "E0413").collect();
    let lines: Vec<&Value> = found.iter().map(|event| &event["line"]).collect();
    assert_eq!(lines, [4, 7], "{found:?}");
    assert_eq!(names(&env), 1);
    // The base's layers are not counted here.
    env.build("FROM base:1\nRUN true\n", &["--max-layer-size", "2kB"]).ok();
    env.build(APP, &["--max-size", "much"]).fails(2, &["--max-size", "500MB or 1.5GiB"]);
}

#[test]
fn priv_a_base_that_was_never_needed_is_measured_for_a_budget() {
    let registry = DockerRegistry::open();
    let env = env();
    let base = format!("{}/base:1", registry.host());
    env.rbuild(&["build", "base", "-t", &base, "--reproducible", "--push"]).ok();
    let fresh = |args: &[&str]| {
        let args = [&["build", "context", "-t", "app:1"], args].concat();
        Done::of(env.command_in("fresh", &args).output().unwrap())
    };
    env.write("Dockerfile", format!("FROM {base}\nENV A=1\n"));
    let lazy = fresh(&[]).ok();
    assert!(lazy.stderr.contains("compressed in 1 layer\n"), "{}", lazy.stderr);
    fresh(&["--max-size", "1kB"]).fails(1, &["E0413", "Dockerfile:1:1", "of the base image"]);
    let fits = fresh(&["--max-size", "1GB"]).ok();
    assert!(fits.stderr.contains("MB in 1 layer\n"), "{}", fits.stderr);
    // The size is known now, without the registry.
    drop(registry);
    fresh(&["--max-size", "1kB"]).fails(1, &["E0413"]);
}
