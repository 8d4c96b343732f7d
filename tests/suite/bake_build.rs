//! `rbuild bake` builds: targets share steps, use each other's images, and write their outputs.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and read files as a user would"
)]

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::git::GitServer;

as_root_and_as_user!(targets_share_steps_and_use_images_of_others);

const UUID: &str = "cat /proc/sys/kernel/random/uuid";

fn env(who: Who) -> Env {
    let env = Env::of(who);
    env.base();
    env
}

/// Runs `rbuild bake` in the directory of the environment, with `definition` as its file.
fn bake(env: &Env, definition: &str, args: &[&str]) -> Done {
    fs::write(env.path("docker-bake.hcl"), definition).unwrap();
    env.hand_over("docker-bake.hcl");
    env.rbuild(&[&["bake"], args].concat())
}

fn targets_share_steps_and_use_images_of_others(who: Who) {
    let env = env(who);
    let shared = format!("FROM parent AS deps\nARG V\nRUN {UUID} > /id && echo $V > /v\n");
    env.write("Dockerfile", format!("{shared}FROM deps AS a\nFROM deps\nCOPY f /f\n"));
    env.write("f", "f");
    env.hand_over("context");
    let definition = format!(
        r#"
group "default" {{ targets = ["one", "two", "three"] }}
target "parent" {{
  dockerfile-inline = "FROM base:1\nRUN {UUID} > /parent"
  tags = ["parent:1"]
}}
target "common" {{
  context = "context"
  contexts = {{ parent = "target:parent" }}
  args = {{ V = "7", UNSET = null }}
}}
target "one" {{
  inherits = ["common"]
  target = "a"
  output = ["one"]
}}
target "two" {{
  inherits = ["common"]
  tags = ["two:1"]
  output = ["two", "type=image"]
}}
target "three" {{
  inherits = ["common"]
  args = {{ V = "8" }}
  output = ["three"]
}}
"#
    );
    let done = bake(&env, &definition, &["--metadata-file", "m"]).ok();
    let read = |path: &str| fs::read_to_string(env.path(path)).unwrap();
    // A random number is the same where a step ran once.
    assert_eq!(read("one/parent"), read("two/parent"));
    assert_eq!(read("one/parent"), read("three/parent"));
    assert_eq!(read("one/id"), read("two/id"));
    assert_ne!(read("one/id"), read("three/id"));
    assert_eq!(
        (read("two/v"), read("three/v"), read("two/f")),
        ("7\n".into(), "8\n".into(), "f".into())
    );
    for part in ["[two deps 2/2] RUN", "one: built sha256:", "built 4 targets"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let metadata: Value = serde_json::from_str(&read("m")).unwrap();
    let names: Vec<&String> = metadata.as_object().unwrap().keys().collect();
    assert_eq!(names, ["one", "parent", "three", "two"]);
    assert_eq!(metadata["two"]["image.name"], "docker.io/library/two:1");
    // The context of others has no output, and so no name.
    let images = env.rbuild(&["images"]).ok().stdout;
    assert!(images.contains("two") && !images.contains("parent"), "{images}");
    // Again, all is cached.
    let again = bake(&env, &definition, &[]).ok().stderr;
    assert!(!again.contains("DONE") && again.contains("CACHED"), "{again}");
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn failed_target_is_named_and_ends_the_others() {
    let env = env(Who::Caller);
    let definition = r#"
group "default" { targets = ["good", "bad"] }
target "good" { dockerfile-inline = "FROM base:1\nRUN sleep 60" }
target "bad" { dockerfile-inline = "FROM base:1\nRUN echo why; exit 3" }
"#;
    let done = bake(&env, definition, &[]);
    done.fails(1, &["target bad failed:", "why", "RUN echo why; exit 3"]);
    assert!(done.stderr.contains("[good stage-0 2/2] RUN sleep 60"), "{}", done.stderr);
    assert_eq!(env.leftovers("store"), "");
    let needs = r#"
group "default" { targets = ["user"] }
target "bad" { dockerfile-inline = "FROM base:1\nRUN exit 3" }
target "user" {
  dockerfile-inline = "FROM bad"
  contexts = { bad = "target:bad" }
}
"#;
    bake(&env, needs, &[]).fails(1, &["target bad failed:"]);
}

#[test]
fn definitions_get_only_what_the_command_line_grants() {
    let env = env(Who::Caller);
    let definition = r#"
target "default" {
  dockerfile-inline = "FROM base:1\nRUN --security=insecure true"
  secret = ["id=s,src=/etc/hostname"]
  entitlements = ["security.insecure"]
}
"#;
    let missing = ["--allow fs.read=/etc/hostname --allow security.insecure"];
    bake(&env, definition, &[]).fails(2, &missing);
    bake(&env, definition, &["--allow", "security.insecure"]).fails(2, &["fs.read=/etc/hostname"]);
    let set = ["--set", "*.secrets=", "--allow=security.insecure", "--allow=fs.read=/etc"];
    assert_ne!(bake(&env, definition, &set).code, Some(2));
    bake(&env, "target \"default\" {}\n", &["--allow", "all"])
        .fails(2, &["--allow all", "fs=PATH"]);
}

#[test]
fn values_that_build_refuses_name_their_target() {
    let env = env(Who::Caller);
    for (member, part) in [
        ("platforms = [\"linux/none\"]", "none"),
        ("output = [\"type=nothing\"]", "unknown --output type=nothing"),
        ("attest = [\"type=sbom\"]", "does not create attestations"),
        ("ulimits = [\"x\"]", "ulimit"),
    ] {
        let definition =
            format!("target \"default\" {{\n dockerfile-inline = \"FROM base:1\"\n {member}\n}}\n");
        let done = bake(&env, &definition, &[]);
        assert_eq!(done.code, Some(2), "{member}: {}", done.stderr);
        assert!(done.stderr.contains(part), "{member}: {}", done.stderr);
    }
}

#[test]
fn definitions_and_contexts_are_fetched_from_a_repository() {
    let env = env(Who::Caller);
    let git = GitServer::new();
    git.repository(
        "bake",
        r#"cat > docker-bake.hcl <<'END'
target "default" {
  context = "sub"
  output = ["out"]
}
END
cat > other.hcl <<'END'
variable "BAKE_CMD_CONTEXT" {}
target "default" {
  dockerfile-inline = "FROM scratch\nCOPY own /"
  context = BAKE_CMD_CONTEXT
}
END
mkdir sub; echo fetched > sub/f; printf 'FROM scratch\nCOPY f /\n' > sub/Dockerfile
printf 'services:\n  a:\n    build: .\n    env_file: /etc/hostname\n  b:\n    extends: {file: /etc/hostname, service: c}\n' > reads.yaml
git add .; git commit -qm one"#,
    );
    let url = git.url("bake");
    env.rbuild(&["bake", &url]).ok();
    assert_eq!(fs::read_to_string(env.path("out/f")).unwrap(), "fetched\n");
    let printed = env.rbuild(&["bake", &url, "--print"]).ok().stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["target"]["default"]["context"], format!("{url}#:sub"));
    // The context of the command line is the working directory.
    fs::write(env.path("own"), "own").unwrap();
    env.rbuild(&["bake", "-f", "other.hcl", "--set=*.output=here", &url, "default"]).ok();
    assert_eq!(fs::read_to_string(env.path("here/own")).unwrap(), "own");
    env.rbuild(&["bake", "-f", "reads.yaml", "--print", &url])
        .fails(2, &["a definition from a URL cannot read further files"]);
    env.rbuild(&["bake", "-f", "absent.hcl", &url]).fails(2, &["absent.hcl does not exist"]);
    env.rbuild(&["bake", &git.url("absent")]).fails(3, &["absent"]);
}

#[test]
fn service_may_extend_one_of_a_file_with_an_absolute_path() {
    let env = env(Who::Caller);
    let base = env.shown("elsewhere/base.yaml");
    fs::create_dir(env.path("elsewhere")).unwrap();
    fs::write(&base, "services:\n  c:\n    build: .\n").unwrap();
    let text = format!("services:\n  b:\n    extends: {{file: {base}, service: c}}\n");
    fs::write(env.path("compose.yaml"), text).unwrap();
    let printed = env.rbuild(&["bake", "--print"]).ok().stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    // As recorded from buildx 0.29.
    assert_eq!(printed["target"]["b"]["context"], env.shown("elsewhere"));
}

/// Compose writes the definition to standard input, and reads `SolveStatus` and the metadata file.
#[test]
fn bake_serves_compose_as_the_plugin_buildx() {
    let env = env(Who::Caller);
    env.rbuild(&["docker-plugin", "install"]).ok();
    let target = json!({
        "context": env.shown("context"),
        "dockerfile-inline": "FROM base:1\nRUN echo $${HOME}",
        "tags": ["app-web"],
        "output": ["type=docker,dest=web.tar"],
    });
    let definition = json!({
        "group": { "default": { "targets": ["web"] } },
        "target": { "web": target },
    });
    let mut command = env.program(&env.shown("docker/cli-plugins/docker-buildx"));
    command.env("RBUILD_ROOT", env.path("store"));
    let context = env.shown("context");
    command.args(["buildx", "bake", "--file", "-", "--progress", "rawjson"]);
    command.args(["--metadata-file", "m", "--allow", &format!("fs.read={context}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(definition.to_string().as_bytes()).unwrap();
    let done = Done::of(child.wait_with_output().unwrap()).ok();
    assert!(
        done.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{done:?}"
    );
    let metadata: Value = serde_json::from_slice(&fs::read(env.path("m")).unwrap()).unwrap();
    assert!(metadata["web"]["containerimage.digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(metadata["web"]["image.name"], "docker.io/library/app-web:latest");
    assert!(env.path("web.tar").is_file());
}
