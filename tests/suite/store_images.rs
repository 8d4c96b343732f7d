//! Images of the store by their names: tag, rmi, history.
#![expect(clippy::disallowed_methods, reason = "tests say what they mean with them")]

use std::fs;

use rbuild::store::{OpenOptions, Store};
use serde_json::Value;

use crate::support::env::Env;

/// An environment with the image `app:1`, and its id.
fn with_app() -> (Env, String) {
    let env = Env::new();
    env.base();
    let text = "FROM base:1\nENV A=1\nRUN echo hello > /greeting\n";
    let done = env.build(text, &["-t", "app:1", "-q"]).ok();
    (env, done.stdout.trim().to_owned())
}

/// As lists show it.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// The names that `rbuild images` lists.
fn names(env: &Env) -> Vec<String> {
    let listed = env.rbuild(&["images"]).ok().stdout;
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    listed.lines().skip(1).filter_map(name).collect()
}

#[test]
fn priv_an_image_gets_and_loses_names() {
    let (env, id) = with_app();
    env.rbuild(&["tag", "app:1", "app:2", "other.example/x:y"]).ok();
    env.rbuild(&["tag", &short(&id), "app:3"]).ok();
    assert_eq!(names(&env), ["app:1", "app:2", "app:3", "base:1", "other.example/x:y"]);
    let done = env.rbuild(&["rmi", "app:1", "other.example/x:y"]).ok();
    assert_eq!(done.stdout, "Untagged: app:1\nUntagged: other.example/x:y\n");
    env.rbuild(&["rmi", &id]).fails(2, &["has several names", "app:2", "app:3", "--force"]);
    let done = env.rbuild(&["rmi", "--force", &id, "nothing:here"]).ok();
    assert_eq!(done.stdout, "Untagged: app:2\nUntagged: app:3\n");
    assert_eq!(names(&env), ["base:1"]);
    env.rbuild(&["rmi", "app:2"]).fails(3, &["there is no image app:2", "rbuild images"]);
    // Until it is pruned, its id is enough to have it back.
    env.rbuild(&["tag", &id, "app:4"]).ok();
    assert_eq!(names(&env), ["app:4", "base:1"]);
    env.rbuild(&["rmi", "app:4"]).ok();
    env.rbuild(&["prune"]).ok();
    env.rbuild(&["tag", &id, "app:5"]).fails(3, &["there is no image sha256:"]);
    let pinned = format!("app@{id}");
    env.rbuild(&["tag", "base:1", &pinned]).fails(2, &["has a digest"]);
}

#[test]
fn priv_a_digest_names_only_the_image_that_has_it() {
    let (env, _) = with_app();
    let other = format!("app@sha256:{}", "f".repeat(64));
    let named = format!("type=image,name={other}");
    for args in [["-t", &other], ["-o", &named]] {
        let why = "has a digest, which no image can be given by its name";
        env.build("FROM base:1\n", &args).fails(2, &[why]);
    }
    // Neither an archive nor a store of another version may say otherwise.
    env.build("FROM base:1\nENV B=1\n", &["-o", "type=oci,tar=false,dest=layout,name=app:2"]).ok();
    let index = env.path("layout/index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("docker.io/library/app:2", &other)).unwrap();
    env.rbuild(&["load", "-i", "layout"]).ok();
    assert_eq!(names(&env), ["app:1", "base:1"]);
    let options = OpenOptions { user_namespace: false, now_s: 0 };
    let store = Store::open(&env.path("store"), &options).unwrap();
    let app = store.tag(&"app:1".parse().unwrap()).unwrap().unwrap();
    store.set_tag(&other.parse().unwrap(), app).unwrap();
    drop(store);
    let from = |name: &str| env.build(&format!("FROM {name}\nENV C=1\n"), &["--offline"]);
    from(&other).fails(3, &["cannot get the image", "--offline"]);
    from(&format!("app@{app}")).ok();
}

#[test]
fn priv_history_is_docker_s() {
    let (env, id) = with_app();
    let done = env.rbuild(&["history", "app:1"]).ok().stdout;
    let lines: Vec<Vec<&str>> = done
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|s| !s.is_empty()).collect())
        .collect();
    assert_eq!(lines[0], ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    let short = short(&id);
    let run = "RUN /bin/sh -c echo hello > /greeting # buil…";
    assert_eq!(lines[1], [&*short, "just now", run, "6B", "buildkit.dockerfile.v0"]);
    assert_eq!(lines[2], ["<missing>", "just now", "ENV A=1", "0B", "buildkit.dockerfile.v0"]);
    let done = env.rbuild(&["history", "--json", "--no-trunc", &id]).ok().stdout;
    let newest: Value = serde_json::from_str(done.lines().next().unwrap()).unwrap();
    assert_eq!(newest["ID"], id.as_str());
    assert_eq!(newest["CreatedBy"], "RUN /bin/sh -c echo hello > /greeting # buildkit");
    assert_eq!(newest["SizeBytes"], 6);
    let done = env.rbuild(&["history", "-q", "app:1"]).ok().stdout;
    assert_eq!(done.lines().next(), Some(&*short));
}
