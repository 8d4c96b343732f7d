//! rbuild as a plugin of docker's client.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and read files as a user would"
)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::container::docker_client;
use crate::support::env::{Done, Env, skip};

const BUILDX: &str = "docker/cli-plugins/docker-buildx";

fn installed() -> Env {
    let env = Env::new();
    env.base();
    env.rbuild(&["docker-plugin", "install"]).ok();
    env
}

fn plugin(env: &Env, args: &[&str]) -> Done {
    let mut command = env.program(&env.shown(BUILDX));
    command.env("RBUILD_ROOT", env.path("store")).args(args);
    Done::of(command.output().unwrap())
}

fn config(env: &Env) -> Value {
    serde_json::from_slice(&fs::read(env.path("docker/config.json")).unwrap()).unwrap()
}

#[test]
fn plugin_is_a_link_and_an_alias_beside_the_rest_of_the_config() {
    let env = Env::new();
    let before = json!({ "auths": { "a.example": {} }, "aliases": { "x": "y" } });
    fs::write(env.path("docker/config.json"), before.to_string()).unwrap();
    env.rbuild(&["docker-plugin", "install", "--as", "rbuild"]).ok();
    let with_alias = json!({ "x": "y", "builder": "rbuild" });
    assert_eq!(config(&env)["aliases"], with_alias);
    assert_eq!(config(&env)["auths"], before["auths"]);
    let link = fs::read_link(env.path("docker/cli-plugins/docker-rbuild")).unwrap();
    assert_eq!(link, fs::canonicalize(env!("CARGO_BIN_EXE_rbuild")).unwrap());
    env.rbuild(&["docker-plugin", "install"]).ok();
    assert!(env.path(BUILDX).is_symlink());
    env.rbuild(&["docker-plugin", "uninstall"]).ok();
    assert_eq!(config(&env), before);
    assert_eq!(fs::read_dir(env.path("docker/cli-plugins")).unwrap().count(), 0);
    let said = env.rbuild(&["docker-plugin", "uninstall"]).ok().stdout;
    assert!(said.contains("is not installed"), "{said}");
}

#[test]
fn plugin_of_another_program_is_replaced_only_by_force() {
    let env = Env::new();
    fs::create_dir(env.path("docker/cli-plugins")).unwrap();
    fs::write(env.path(BUILDX), "buildx").unwrap();
    env.rbuild(&["docker-plugin", "install"]).fails(2, &["docker-buildx", "--force"]);
    env.rbuild(&["docker-plugin", "uninstall"]).ok();
    assert_eq!(fs::read_to_string(env.path(BUILDX)).unwrap(), "buildx");
    env.rbuild(&["docker-plugin", "install", "--force"]).ok();
    assert!(env.path(BUILDX).is_symlink());
}

#[test]
fn docker_and_its_actions_find_what_they_read() {
    let env = installed();
    let metadata: Value =
        serde_json::from_str(&plugin(&env, &["docker-cli-plugin-metadata"]).ok().stdout).unwrap();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    // Compose reads the version after `v`, and wants 0.17.
    assert!(metadata["Version"].as_str().unwrap().starts_with("v0."), "{metadata}");
    // docker/actions-toolkit: /\sv?([0-9a-f]{7}|[0-9.]+)/
    let version = plugin(&env, &["buildx", "version"]).ok().stdout;
    let number = version.split(' ').nth(1).unwrap().trim_start_matches('v');
    assert!(number.starts_with(|first: char| first.is_ascii_digit()), "{version}");
    let name = plugin(&env, &["buildx", "create", "--name", "b1", "--driver=docker-container"]);
    assert_eq!(name.ok().stdout, "b1\n");
    let shown = plugin(&env, &["buildx", "inspect", "--bootstrap", "--builder", "b1"]).ok().stdout;
    let values = |name: &str| -> Vec<&str> {
        let lines = shown.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim()).collect()
    };
    assert_eq!(values("Name"), ["b1", "b1"]);
    assert_eq!((values("Driver"), values("Status")), (vec!["docker"], vec!["running"]));
    assert!(values("Platforms")[0].starts_with("linux/"), "{shown}");
    assert!(values("BuildKit version")[0].starts_with('v'), "{shown}");
    for (args, text) in [
        (&["buildx", "ls"][..], "default*"),
        (&["buildx", "du"], "total"),
        (&["buildx", "prune", "-f", "--all"], "removed"),
        (&["buildx", "--help"], "Usage"),
    ] {
        let stdout = plugin(&env, args).ok().stdout;
        assert!(stdout.to_lowercase().contains(&text.to_lowercase()), "{args:?}: {stdout}");
    }
    for sub in ["use", "rm", "stop"] {
        plugin(&env, &["buildx", sub, "b1"]).ok();
    }
    plugin(&env, &["buildx", "dial-stdio"]).fails(2, &["no counterpart of `docker buildx dial"]);
}

#[test]
fn pruning_as_docker_does_removes_cache_mounts_and_no_image() {
    let env = installed();
    env.build("FROM base:1\nRUN --mount=type=cache,target=/c echo x > /c/f\n", &["-t", "app:1"])
        .ok();
    let said = plugin(&env, &["buildx", "prune", "-af"]).ok().stdout;
    assert!(said.contains("1 cache mount"), "{said}");
    assert!(env.rbuild(&["images"]).ok().stdout.contains("app"));
}

/// The real client of docker, with rbuild as its plugin.
#[test]
fn client_of_docker_builds_with_rbuild() {
    let Some(docker) = docker_client() else { return };
    let env = Env::new();
    let directory = tempfile::Builder::new().prefix("rbuild-plugin.").tempdir_in("/tmp").unwrap();
    let path = |name: &str| directory.path().join(name);
    let shown = |name: &str| path(name).to_str().unwrap().to_owned();
    // The client may be in a root of its own, which shares only /tmp and /dev/shm.
    fs::copy(env!("CARGO_BIN_EXE_rbuild"), path("rbuild")).unwrap();
    fs::create_dir_all(path("context")).unwrap();
    fs::write(path("context/f"), "x").unwrap();
    fs::write(path("context/Dockerfile"), "FROM scratch\nCOPY f /f\n").unwrap();
    let run = |program: &Path, args: &[&str]| {
        let mut command = env.program(program.to_str().unwrap());
        command.env("RBUILD_ROOT", path("store")).env("DOCKER_CONFIG", path("config"));
        Done::of(command.args(args).output().unwrap())
    };
    let name = format!("rbuild-plugin-{}", std::process::id());
    let context = shown("context");
    let loaded = |name: &str| {
        let id = run(&docker, &["image", "inspect", "-f", "{{.Id}}", name]).ok().stdout;
        run(&docker, &["rmi", name]).ok();
        id
    };
    for (plugin, command) in [("buildx", &["buildx", "build"][..]), ("rbuild", &["build"])] {
        run(&path("rbuild"), &["docker-plugin", "install", "--as", plugin]).ok();
        let args = [command, &["-q", "-t", &name, &context]].concat();
        let id = run(&docker, &args).ok().stdout;
        assert_eq!(id, loaded(&name));
        run(&path("rbuild"), &["docker-plugin", "uninstall"]).ok();
    }
    run(&path("rbuild"), &["docker-plugin", "install"]).ok();
    let target = json!({ "context": context, "tags": [name] });
    let definition = json!({ "target": { "default": target } });
    fs::write(path("bake.json"), definition.to_string()).unwrap();
    let allow = format!("fs.read={context}");
    run(&docker, &["buildx", "bake", "-f", &shown("bake.json"), "--allow", &allow]).ok();
    let baked = loaded(&name);
    let service = format!("    image: {name}\n    build: {context}\n");
    fs::write(path("compose.yaml"), format!("services:\n  one:\n{service}")).unwrap();
    if run(&docker, &["compose", "version"]).code != Some(0) {
        return skip("compose", "docker has no plugin compose");
    }
    run(&docker, &["compose", "-f", &shown("compose.yaml"), "build"]).ok();
    assert_eq!(baked.len(), loaded(&name).len());
}
