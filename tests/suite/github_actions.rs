//! The calls of docker's actions for GitHub, with rbuild as the plugin `buildx`.
//!
//! Command lines are those that the actions make of their inputs: `getArgs` in
//! <https://github.com/docker/build-push-action/blob/master/src/context.ts> and
//! <https://github.com/docker/bake-action/blob/master/src/context.ts>; what they read is in
//! <https://github.com/docker/actions-toolkit/tree/main/src/buildx>.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::actions_cache::{ActionsServer, MAIN, token};
use crate::support::env::{Done, Env};
use crate::support::registry::DockerRegistry;
use crate::support::source;

const DOCKERFILE: &str = "FROM scratch AS deps\nCOPY Dockerfile /deps\n\
                          FROM scratch AS app\nARG VERSION\nARG MULTI\nLABEL version=$VERSION\nCOPY --from=deps /deps /d\n";

/// Command lines of docker/build-push-action behind `docker buildx`. The action puts `--iidfile`,
/// `--metadata-file` and secrets into a temporary directory, here `TMP`; `HOST` is a registry.
const BUILDS: [&[&str]; 7] = [
    // tags, push, build-args, labels and annotations of docker/metadata-action, the cache.
    &[
        "build",
        "--annotation",
        "manifest:org.opencontainers.image.title=app",
        "--annotation",
        "org.opencontainers.image.description=an app, for tests",
        "--build-arg",
        "VERSION=1.2",
        "--build-arg",
        "MULTI=a\nb",
        "--cache-from",
        "type=gha",
        "--cache-to",
        "type=gha,mode=max,repository=owner/name,ghtoken=hidden",
        "--file",
        "./Dockerfile",
        "--iidfile",
        "TMP/iid",
        "--label",
        "org.opencontainers.image.created=2026-11-30T00:00:00.000Z",
        "--label",
        "org.opencontainers.image.licenses=",
        "--tag",
        "HOST/app:main",
        "--tag",
        "HOST/app:sha-0123456",
        "--metadata-file",
        "TMP/metadata.json",
        "--push",
        ".",
    ],
    // provenance: false, sbom: false
    &[
        "build",
        "--iidfile",
        "TMP/iid",
        "--attest",
        "type=provenance,disabled=true",
        "--attest",
        "type=sbom,disabled=true",
        "--tag",
        "HOST/app:1",
        "--metadata-file",
        "TMP/metadata.json",
        "--push",
        ".",
    ],
    // One of several runners: outputs, platforms.
    &[
        "build",
        "--iidfile",
        "TMP/iid",
        "--output",
        "type=image,\"name=HOST/app\",push-by-digest=true,name-canonical=true,push=true",
        "--platform",
        "linux/arm64",
        "--metadata-file",
        "TMP/metadata.json",
        ".",
    ],
    &[
        "build",
        "--iidfile",
        "TMP/iid",
        "--output",
        "type=image,push-by-digest=true,name-canonical=true,push=true",
        "--platform",
        "linux/amd64,linux/arm64",
        "--tag",
        "HOST/app",
        "--metadata-file",
        "TMP/metadata.json",
        ".",
    ],
    // Most other inputs.
    &[
        "build",
        "--add-host",
        "a:10.0.0.1",
        "--allow",
        "network.host",
        "--build-context",
        "other=.",
        "--secret",
        "id=FROM_ENV,env=HOME",
        "--iidfile",
        "TMP/iid",
        "--no-cache-filter",
        "deps",
        "--secret",
        "id=MY_SECRET,src=TMP/secret",
        "--secret",
        "id=GIT_AUTH_TOKEN.github.com,src=TMP/secret",
        "--shm-size",
        "128m",
        "--tag",
        "HOST/app:2",
        "--target",
        "app",
        "--ulimit",
        "nofile=1024:1024",
        "--builder",
        "default",
        "--metadata-file",
        "TMP/metadata.json",
        "--network",
        "host",
        "--no-cache",
        "--pull",
        "--push",
        ".",
    ],
    // Local outputs have no --iidfile.
    &["build", "--output", "type=local,dest=./out", "--metadata-file", "TMP/metadata.json", "."],
    &[
        "build",
        "--output",
        "out2",
        "--platform",
        "linux/amd64,linux/arm64",
        "--metadata-file",
        "TMP/metadata.json",
        ".",
    ],
];

/// A runner of GitHub: a directory for the action, a registry, the cache.
struct Runner {
    env: Env,
    registry: DockerRegistry,
    cache: ActionsServer,
}

impl Runner {
    fn new() -> Self {
        let (registry, cache) = (DockerRegistry::open(), ActionsServer::start());
        let mut env = Env::new();
        env.set("GITHUB_ACTIONS", "true");
        env.set("GITHUB_REPOSITORY", "owner/name");
        env.set("ACTIONS_CACHE_SERVICE_V2", "True");
        env.set("ACTIONS_RESULTS_URL", &cache.url());
        env.set("ACTIONS_RUNTIME_TOKEN", &token(MAIN));
        env.set("BUILDX_METADATA_WARNINGS", "true");
        env.set("RBUILD_ROOT", &env.shown("store"));
        env.write("Dockerfile", DOCKERFILE);
        fs::create_dir(env.path("tmp")).unwrap();
        fs::write(env.path("tmp/secret"), "hidden").unwrap();
        env.rbuild(&["docker-plugin", "install"]).ok();
        Self { env, registry, cache }
    }

    /// Runs `docker buildx`, as the action does where there is a client of docker.
    fn buildx(&self, args: &[String]) -> Done {
        let mut command = self.env.program(&self.env.shown("docker/cli-plugins/docker-buildx"));
        command.arg("buildx").args(args).current_dir(self.env.path("context"));
        Done::of(command.output().unwrap())
    }

    fn replaced(&self, args: &[&str]) -> Vec<String> {
        let tmp = self.env.shown("tmp");
        let replaced = |arg: &&str| arg.replace("TMP", &tmp).replace("HOST", self.registry.host());
        args.iter().map(replaced).collect()
    }

    /// Returns the digest that the action puts out, from the metadata file.
    fn digest(&self) -> String {
        let bytes = fs::read(self.env.path("tmp/metadata.json")).unwrap();
        let metadata: Value = serde_json::from_slice(&bytes).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_owned()
    }
}

#[test]
fn build_push_action_builds_unchanged() {
    let runner = Runner::new();
    for args in BUILDS {
        for file in ["iid", "metadata.json"] {
            drop(fs::remove_file(runner.env.path("tmp").join(file)));
        }
        let done = runner.buildx(&runner.replaced(args));
        assert!(!done.stderr.contains("hidden"), "{}", done.stderr);
        let done = done.ok();
        assert!(!done.stderr.contains("cannot"), "{args:?}: {}", done.stderr);
        assert!(runner.digest().starts_with("sha256:"));
        if args.contains(&"--iidfile") {
            let id = fs::read_to_string(runner.env.path("tmp/iid")).unwrap();
            assert!(id.starts_with("sha256:") && id.len() == 71, "{id:?}");
        }
    }
    assert!(runner.env.path("context/out/d").exists());
    assert!(runner.env.path("context/out2/linux_arm64/d").exists());
    let keys = runner.cache.keys();
    assert!(keys.iter().any(|(key, _)| key.starts_with("rbuild-index-1-buildkit-")), "{keys:?}");
    let pushed = format!("{}/app:sha-0123456", runner.registry.host());
    runner.env.rbuild(&["pull", &pushed]).ok();
}

#[test]
fn checks_and_failures_are_what_the_action_reads() {
    let runner = Runner::new();
    let call = runner.replaced(&["build", "--call", "check", "--file", "./Dockerfile", "."]);
    let first = |done: &Done| done.stdout.lines().next().unwrap_or_default().to_owned();
    assert!(first(&runner.buildx(&call).ok()).contains("Check complete, no warnings found"));
    runner.env.write("Dockerfile", "from scratch\nCOPY Dockerfile /d\n");
    let done = runner.buildx(&call);
    assert!(done.code != Some(0) && first(&done).contains("1 warning"), "{}", done.stdout);
    // The action shows the last line.
    runner.env.write("Dockerfile", "FROM scratch\nCOPY absent /d\n");
    let args =
        runner.replaced(&["build", "--iidfile", "TMP/iid", "--tag", "HOST/a", "--push", "."]);
    let done = runner.buildx(&args);
    assert_eq!(done.code, Some(1));
    let last = done.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(!last.is_empty(), "{}", done.stderr);
}

/// docker/bake-action first prints the definition, and then builds it. The second file is one that
/// docker/metadata-action wrote.
#[test]
fn bake_action_builds_unchanged() {
    let runner = Runner::new();
    runner.env.write(
        "docker-bake.hcl",
        "group \"default\" { targets = [\"app\", \"deps\"] }\n\
         variable \"V\" { default = \"0\" }\n\
         target \"docker-metadata-action\" {}\n\
         target \"app\" {\n  inherits = [\"docker-metadata-action\"]\n  args = { VERSION = V }\n}\n\
         target \"deps\" {\n  target = \"deps\"\n  tags = [\"HOST/deps:1\"]\n}\n"
            .replace("HOST", runner.registry.host()),
    );
    let metadata = serde_json::json!({ "target": { "docker-metadata-action": {
        "tags": [format!("{}/app:main", runner.registry.host())],
        "labels": { "org.opencontainers.image.title": "app" },
        "args": { "DOCKER_META_VERSION": "main" },
    } } });
    runner.env.write("meta.json", metadata.to_string());
    let files = ["--file", "./docker-bake.hcl", "--file", "./meta.json"];
    let cache = ["--set", "*.cache-from=type=gha", "--set", "*.cache-to=type=gha,mode=max"];
    let print =
        [&["bake"][..], &files, &cache, &["--allow", "fs=*", "--push", "--print", "default"]];
    let printed = runner.buildx(&runner.replaced(&print.concat())).ok().stdout;
    let definition: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(definition["target"]["app"]["args"]["DOCKER_META_VERSION"], "main", "{printed}");
    assert_eq!(definition["target"]["deps"]["target"], "deps", "{printed}");
    let build = [
        &["bake", "--allow", "fs=*"][..],
        &files,
        &cache,
        &["--metadata-file", "TMP/bake.json", "--push", "default"],
    ];
    runner.buildx(&runner.replaced(&build.concat())).ok();
    let metadata: Value =
        serde_json::from_slice(&fs::read(runner.env.path("tmp/bake.json")).unwrap()).unwrap();
    for target in ["app", "deps"] {
        let digest = metadata[target]["containerimage.digest"].as_str().unwrap();
        assert!(digest.starts_with("sha256:"), "{metadata}");
    }
    runner.env.rbuild(&["pull", &format!("{}/app:main", runner.registry.host())]).ok();
}

/// The inputs of a step of docker/build-push-action, as the arguments that it makes of them.
fn arguments(inputs: &Value, runner: &Runner) -> Vec<String> {
    let input = |name: &str| inputs[name].as_str();
    let mut args = vec!["build".to_owned()];
    let mut push = |option: &str, value: &str| args.extend([option.to_owned(), value.to_owned()]);
    input("cache-from").into_iter().for_each(|value| push("--cache-from", value));
    if let Some(to) = input("cache-to") {
        push("--cache-to", &format!("{to},repository=owner/name,ghtoken=hidden"));
    }
    push("--iidfile", &runner.env.shown("tmp/iid"));
    input("outputs").into_iter().for_each(|value| push("--output", value));
    input("platforms").into_iter().for_each(|value| push("--platform", value));
    input("tags").into_iter().for_each(|value| push("--tag", value));
    push("--metadata-file", &runner.env.shown("tmp/metadata.json"));
    args.push(input("context").unwrap().to_owned());
    let known = ["cache-from", "cache-to", "outputs", "platforms", "tags", "context"];
    let names = inputs.as_object().unwrap().keys();
    names.for_each(|name| {
        assert!(known.contains(&name.as_str()), "{name} is not an input that is read here");
    });
    args
}

/// Replaces the expressions of a workflow.
fn expanded(value: &Value, variables: &BTreeMap<&str, String>) -> Value {
    let mut text = value.to_string();
    for (name, value) in variables {
        text = text.replace(&format!("${{{{ {name} }}}}"), value);
    }
    assert!(!text.contains("${{ matrix") && !text.contains("${{ env"), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Writes the programs that the commands of the workflow call.
fn write_programs(runner: &Runner) {
    let bin = runner.env.path("bin");
    fs::create_dir(&bin).unwrap();
    let program = |name: &str, script: &str| {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let plugin = runner.env.shown("docker/cli-plugins/docker-buildx");
    program("docker", &format!("[ \"$1\" != buildx ] || exec {plugin} \"$@\""));
    program("sudo", "");
    program("rbuild", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_rbuild")));
}

/// Runs the workflow of the examples: the commands in a shell, the action as above.
#[test]
fn example_with_dockers_actions_joins_the_images_of_two_runners() {
    let runner = Runner::new();
    let workflow: Value =
        serde_saphyr::from_str(&source::text_of("examples/ci/github-docker-actions.yml")).unwrap();
    let image = format!("{}/owner/app", runner.registry.host());
    write_programs(&runner);
    let script = |script: &str, variables: &[(&str, &str)]| {
        let path = format!("{}:{}", runner.env.shown("bin"), std::env::var("PATH").unwrap());
        let mut command = runner.env.program("bash");
        command.args(["-euc", script]).current_dir(runner.env.path("context"));
        command
            .env("PATH", path)
            .env("IMAGE", &image)
            .env("RBUILD_IMAGE", "registry.example/rbuild");
        command.envs(variables.iter().copied());
        Done::of(command.output().unwrap()).ok()
    };
    let steps = |job: &str, variables: &BTreeMap<&str, String>| -> Vec<Value> {
        let steps = workflow["jobs"][job]["steps"].as_array().unwrap();
        steps.iter().map(|step| expanded(step, variables)).collect()
    };
    for runs_on in workflow["jobs"]["build"]["strategy"]["matrix"]["include"].as_array().unwrap() {
        let of = |name: &str| runs_on[name].as_str().unwrap().to_owned();
        let variables = BTreeMap::from([
            ("matrix.platform", of("platform")),
            ("matrix.runner", of("runner")),
            ("env.IMAGE", image.clone()),
            ("env.REGISTRY", runner.registry.host().to_owned()),
        ]);
        let mut digest = String::new();
        for step in steps("build", &variables) {
            match (step["uses"].as_str(), step["run"].as_str()) {
                (Some(uses), _) if uses.starts_with("docker/build-push-action@") => {
                    runner.buildx(&arguments(&step["with"], &runner)).ok();
                    digest = runner.digest();
                }
                (Some(_), _) => {}
                (None, Some(run)) => drop(script(run, &[("DIGEST", &digest)])),
                (None, None) => panic!("{step}"),
            }
        }
        assert!(digest.starts_with("sha256:"));
    }
    let variables = BTreeMap::from([
        ("env.IMAGE", image.clone()),
        ("env.REGISTRY", runner.registry.host().to_owned()),
    ]);
    let metadata = format!(r#"{{"tags":["{image}:main"],"labels":{{}},"annotations":[]}}"#);
    for run in steps("join", &variables).iter().filter_map(|step| step["run"].as_str()) {
        script(run, &[("DOCKER_METADATA_OUTPUT_JSON", &metadata)]);
    }
    let name = format!("{image}:main");
    let shown = runner.env.rbuild(&["imagetools", "inspect", &name]).ok().stdout;
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(shown.contains(&format!("  Platform:  {platform}\n")), "{shown}");
    }
    let keys = runner.cache.keys();
    let of_platforms = keys.iter().filter(|(key, _)| key.starts_with("rbuild-index-1-linux/"));
    assert_eq!(of_platforms.count(), 2);
}
