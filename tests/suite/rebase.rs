//! `rbuild rebase`: images on newer bases, compared with builds on these.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use serde_json::Value;

use crate::support::env::Env;
use crate::support::registry::DockerRegistry;

fn inspected(env: &Env, name: &str) -> Value {
    serde_json::from_str(&env.rbuild(&["inspect", "--json", name]).ok().stdout).unwrap()
}

/// Builds a version of a base image, and pushes it.
fn push_base(env: &Env, name: &str, version: &str) {
    let dockerfile = format!("FROM base:1\nRUN echo {version} > /version\nENV VERSION={version}\n");
    env.build(&dockerfile, &["-t", name, "--push"]).ok();
}

#[test]
fn rebased_image_has_the_layers_of_the_new_base_and_its_own() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    let base = format!("{}/base:1", registry.host());
    push_base(&env, &base, "old");
    env.write("file", "content");
    let own = format!("FROM {base}\nCOPY file /\nRUN echo own > /own\nCMD [\"own\"]\n");
    env.build(&own, &["-t", "app:1"]).ok();
    let old = inspected(&env, "app:1");
    push_base(&env, &base, "new");
    // The store has the new base only, and the image does not say what it was built on.
    let args = ["rebase", "app:1", "--onto", &base, "-t", "app:2"];
    env.rbuild(&args).fails(2, &["the base of app:1 is not known", "--base OLD"]);
    // A store that knows the old version.
    let digest = old["Layers"].as_array().unwrap().len();
    assert_eq!(digest, 4);
    env.build("FROM base:1\nRUN echo old > /version\nENV VERSION=old\n", &["-t", "old:1"]).ok();
    env.rbuild(&[&args[..], &["--base", "old:1"]].concat()).ok();
    env.build(&own, &["-t", "built:2", "--pull"]).ok();
    let done = env.rbuild(&["diff", "--json", "app:2", "built:2"]).ok();
    let diff: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(diff["Files"], serde_json::json!([]), "{diff}");
    let rebased = inspected(&env, "app:2");
    assert_eq!(rebased["Config"]["config"]["Cmd"], old["Config"]["config"]["Cmd"]);
    // As for crane, the config stays that of the image.
    let variables = rebased["Config"]["config"]["Env"].to_string();
    assert!(variables.contains("VERSION=old"), "{variables}");
    // Now its annotations name the base.
    push_base(&env, &base, "newest");
    env.rbuild(&["rebase", "app:2", "--onto", &base]).ok();
    let files = env.rbuild(&["enter", "app:2", "--", "cat", "/version", "/own"]);
    if files.code == Some(0) {
        assert_eq!(files.stdout, "newest\nown\n");
    }
    let name = format!("{}/app:2", registry.host());
    env.rbuild(&["tag", "app:2", &name]).ok();
    env.rbuild(&["push", &name]).ok();
    let args = ["rebase", "app:1", "--onto", &base, "--base", "app:2"];
    env.rbuild(&args).fails(3, &["was not built on the old base"]);
}
