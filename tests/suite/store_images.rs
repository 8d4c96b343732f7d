//! Images in the store by name: tag, rmi, history.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;

use rbuild::store::{OpenOptions, Store};
use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::registry::DockerRegistry;

/// Returns an environment with the image `app:1`, and the image's id.
fn with_app() -> (Env, String) {
    let env = Env::new();
    env.base();
    let text = "FROM base:1\nENV A=1\nRUN echo hello > /greeting\n";
    let done = env.build(text, &["-t", "app:1", "-q"]).ok();
    (env, done.stdout.trim().to_owned())
}

/// Returns an id as lists show it.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Returns the names that `rbuild images` lists.
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
    env.rbuild(&["rmi", "app:2"]).fails(3, &["no image app:2 in the store", "rbuild images"]);
    // Until it is pruned, the image can be tagged by its id.
    env.rbuild(&["tag", &id, "app:4"]).ok();
    assert_eq!(names(&env), ["app:4", "base:1"]);
    env.rbuild(&["rmi", "app:4"]).ok();
    env.rbuild(&["prune"]).ok();
    env.rbuild(&["tag", &id, "app:5"]).fails(3, &["no image sha256:"]);
    let pinned = format!("app@{id}");
    env.rbuild(&["tag", "base:1", &pinned]).fails(2, &["has a digest"]);
}

#[test]
fn priv_a_digest_names_only_the_image_that_has_it() {
    let (env, _) = with_app();
    let other = format!("app@sha256:{}", "f".repeat(64));
    let named = format!("type=image,name={other}");
    for args in [["-t", &other], ["-o", &named]] {
        let why = "has a digest, which";
        env.build("FROM base:1\n", &args).fails(2, &[why]);
    }
    // Neither an archive nor a store of another version can give the digest to another image.
    env.build("FROM base:1\nENV B=1\n", &["-o", "type=oci,tar=false,dest=layout,name=app:2"]).ok();
    let index = env.path("layout/index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("docker.io/library/app:2", &other)).unwrap();
    env.rbuild(&["load", "-i", "layout"]).ok();
    assert_eq!(names(&env), ["app:1", "base:1"]);
    let options = OpenOptions { user_namespace: false, now_s: 0 };
    let store = Store::open(&env.path("store"), &options).unwrap();
    let app = store.tags().get(&"app:1".parse().unwrap()).unwrap().unwrap();
    store.tags().set(&other.parse().unwrap(), app).unwrap();
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
    assert_eq!(lines[0], ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMPRESSED", "COMMENT"]);
    let short = short(&id);
    let run = "RUN /bin/sh -c echo hello > /greeting # buil…";
    assert_eq!(lines[1], [&*short, "just now", run, "2.0kB", "-", "buildkit.dockerfile.v0"]);
    assert_eq!(lines[2], ["<missing>", "just now", "ENV A=1", "0B", "-", "buildkit.dockerfile.v0"]);
    let done = env.rbuild(&["history", "--json", "--no-trunc", &id]).ok().stdout;
    let newest: Value = serde_json::from_str(done.lines().next().unwrap()).unwrap();
    assert_eq!(newest["ID"], id.as_str());
    assert_eq!(newest["CreatedBy"], "RUN /bin/sh -c echo hello > /greeting # buildkit");
    // Two blocks for the file, two at the end: the layer's tar, as `inspect` counts it.
    assert_eq!((&newest["SizeBytes"], &newest["Version"]), (&json!(2048), &json!(1)));
    let done = env.rbuild(&["history", "-q", "app:1"]).ok().stdout;
    assert_eq!(done.lines().next(), Some(&*short));
}

/// Returns the lines of `rbuild images --json` in a store.
fn listed(env: &Env, store: &str, args: &[&str]) -> Vec<Value> {
    let command = [&["images", "--json"], args].concat();
    let done = Done::of(env.command_in(store, &command).output().unwrap()).ok();
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_image_has_one_size_in_every_store_and_command() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.base();
    let name = format!("{}/app:1", registry.host());
    env.write("data", "x".repeat(100_000));
    env.build("FROM base:1\nENV A=1\nCOPY data /\n", &["-t", &name, "--push"]).ok();
    let in_store = |store: &str, args: &[&str]| {
        Done::of(env.command_in(store, args).output().unwrap()).ok().stdout
    };
    in_store("pulled", &["pull", &name]);
    for store in ["store", "pulled"] {
        let inspected: Value =
            serde_json::from_str(&in_store(store, &["inspect", "--json", &name])).unwrap();
        let bytes = inspected["Bytes"].as_u64().unwrap();
        assert!(bytes > 100_000, "{inspected:#}");
        let image = &listed(&env, store, &[&name])[0];
        assert_eq!(image["SizeBytes"], bytes, "{store}");
        assert_eq!(image["PackedSizeBytes"], inspected["PackedBytes"], "{store}");
        let history = in_store(store, &["history", "--json", &name]);
        let sizes = history.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["SizeBytes"].as_u64().unwrap()
        });
        assert_eq!(sizes.sum::<u64>(), bytes, "{store}");
        let usage: Value = serde_json::from_str(&in_store(store, &["du", "--json"])).unwrap();
        let records = usage["Records"].as_array().unwrap();
        let record = records.iter().find(|record| record["Name"] == name.as_str()).unwrap();
        assert_eq!(record["Bytes"], bytes, "{store}");
        assert_eq!(record["PackedBytes"], inspected["PackedBytes"], "{store}");
        let row = in_store(store, &["images", &name]);
        let cells: Vec<&str> = row.lines().nth(1).unwrap().split("   ").map(str::trim).collect();
        let cells: Vec<&str> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells[3], image["Size"], "{row}");
        assert_eq!(cells[4] == "-", inspected["PackedBytes"].is_null(), "{row}");
    }
}

#[test]
fn an_image_is_as_old_as_its_config_says() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM scratch\nCOPY Dockerfile /\n";
    env.build(dockerfile, &["-t", "old:1", "--build-arg", "SOURCE_DATE_EPOCH=1000000000"]).ok();
    // A new name does not change its age.
    env.rbuild(&["tag", "old:1", "old:2"]).ok();
    for image in listed(&env, "store", &["old"]) {
        assert_eq!(image["CreatedAt"], "2001-09-09T01:46:40Z", "{image}");
        assert!(image["CreatedSince"].as_str().unwrap().ends_with(" years ago"), "{image}");
    }
}

#[test]
fn images_are_chosen_and_printed_as_asked_for() {
    let (env, id) = with_app();
    env.rbuild(&["tag", "app:1", "app:2", "other.example/team/x:y"]).ok();
    let out = |args: &[&str]| env.rbuild(&[&["images"], args].concat()).ok().stdout;
    let short = short(&id);
    assert_eq!(out(&["-q", "app"]), format!("{short}\n{short}\n"));
    assert_eq!(out(&["-q", "--no-trunc", "app:2"]), format!("{id}\n"));
    assert_eq!(out(&["-q", "app:3"]), "");
    let template = "{{.Repository}} {{.Tag}} {{.ID}}";
    let want = format!("other.example/team/x y {short}\n");
    assert_eq!(out(&["--format", template, "other.example/*/x"]), want);
    let table = out(&["--format", r"table {{.Name}}\t{{.Tag}}", "app:1"]);
    assert_eq!(table, "NAME                      TAG\ndocker.io/library/app:1   1\n");
    let line: Value = serde_json::from_str(out(&["--format", "json", "app:1"]).trim()).unwrap();
    assert_eq!(line, listed(&env, "store", &["app:1"])[0]);
    assert_eq!((&line["ID"], &line["Repository"]), (&json!(short), &json!("app")));
    env.rbuild(&["images", "--format", "{{.Nmae}}"])
        .fails(2, &["has no field .Nmae", "Repository"]);
    env.rbuild(&["images", "-q", "--json"]).fails(2, &["cannot be used with"]);
}
