//! The pipeline files of examples/ci: checks their members, and runs their commands against a
//! registry that needs a password.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::env::{Done, Env};
use crate::support::registry::DockerRegistry;
use crate::support::source;

fn pipeline(name: &str) -> Value {
    let text = source::text_of(&format!("examples/ci/{name}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Checks that an object has all members in `required`, and no others except those in `known`.
#[track_caller]
fn members(value: &Value, required: &[&str], known: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for name in required {
        assert!(object.contains_key(*name), "no `{name}` in {value}");
    }
    for name in object.keys() {
        assert!(required.contains(&&**name) || known.contains(&&**name), "`{name}` in {value}");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn names(values: &Value) -> BTreeSet<&str> {
    values.as_array().into_iter().flatten().map(|value| text(&value["name"])).collect()
}

/// A repository with the inputs of its pipeline, stand-ins for programs of a CI runner, and a
/// registry.
struct Runner {
    env: Env,
    registry: DockerRegistry,
}

impl Runner {
    fn new() -> Self {
        let mut env = Env::new();
        env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
        fs::create_dir(env.path("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rbuild"), env.path("bin/rbuild")).unwrap();
        // These install rbuild and change the machine; rbuild is already installed here.
        for name in ["sudo", "docker"] {
            let path = env.path("bin").join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        env.set("PATH", &format!("{}:{}", env.shown("bin"), std::env::var("PATH").unwrap()));
        env.set("RBUILD_ROOT", &env.shown("store"));
        Self { env, registry: DockerRegistry::with_password() }
    }

    /// Runs a script in the repository.
    #[track_caller]
    fn script(&self, shell: &str, script: &str, variables: &BTreeMap<String, String>) -> Done {
        let mut command = self.env.program(shell);
        command.args(["-e", "-u", "-c", script]).current_dir(self.env.path("context"));
        Done::of(command.envs(variables).output().unwrap()).ok()
    }

    /// Writes Docker's login file, which clusters keep in a secret.
    fn login(&self) {
        let mut login = self.env.program("rbuild");
        let host = self.registry.host();
        login.args(["login", host, "--username", "user", "--password", "geheim"]);
        Done::of(login.output().unwrap()).ok();
    }

    /// Pulls the image into another store.
    #[track_caller]
    fn pull(&self, name: &str) {
        Done::of(self.env.command_in("other", &["pull", name]).output().unwrap()).ok();
    }
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Counts the commands that call rbuild, to check that every one is run.
fn n_calls(text: &str) -> usize {
    text.split_whitespace().filter(|word| *word == "rbuild").count()
}

#[test]
fn github_actions_builds_and_pushes() {
    let runner = Runner::new();
    let workflow = pipeline("github-actions.yml");
    members(&workflow, &["on", "jobs"], &["name", "permissions", "env"]);
    members(&workflow["permissions"], &[], &["contents", "packages"]);
    let job = &workflow["jobs"]["image"];
    members(job, &["runs-on", "steps"], &["timeout-minutes"]);
    let mut given = variables([
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_ACTOR", "user"),
        ("GITHUB_REPOSITORY", "Example/App"),
        ("GITHUB_SHA", "0123456789abcdef0123456789abcdef01234567"),
    ]);
    for (name, value) in workflow["env"].as_object().unwrap() {
        given.insert(name.clone(), text(value).to_owned());
    }
    given.insert("REGISTRY".to_owned(), runner.registry.host().to_owned());
    Done::of(runner.env.command(&["lock", "context"]).output().unwrap()).ok();
    let mut log = String::new();
    let mut n_run = 0;
    for step in list(&job["steps"]) {
        let Some(script) = step["run"].as_str() else {
            members(step, &["uses"], &["name", "with"]);
            assert!(text(&step["uses"]).contains("/checkout@v"), "{step}");
            continue;
        };
        members(step, &["run"], &["name", "env"]);
        let mut given = given.clone();
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            assert_eq!(text(value), "${{ secrets.GITHUB_TOKEN }}");
            given.insert(name.clone(), "geheim".to_owned());
        }
        n_run += n_calls(script);
        log += &runner.script("bash", script, &given).stderr;
    }
    assert!(n_run >= 2 && log.contains("::stop-commands::"), "{log}");
    let image = format!("{}/example/app", runner.registry.host());
    runner.pull(&format!("{image}:{}", given["GITHUB_SHA"]));
    runner.pull(&format!("{image}:latest"));
    assert!(runner.env.path("context/metadata.json").exists());
    // A second run, on a machine with an empty store, finds the steps in the cache.
    let last = list(&job["steps"]).last().unwrap();
    given.insert("RBUILD_ROOT".to_owned(), runner.env.shown("fresh"));
    let again = runner.script("bash", text(&last["run"]), &given);
    assert!(again.stderr.contains("COPY Dockerfile /d CACHED"), "{}", again.stderr);
}

#[test]
fn gitlab_ci_checks_builds_and_pushes() {
    let runner = Runner::new();
    let file = pipeline("gitlab-ci.yml");
    let stages: Vec<&str> = list(&file["stages"]).iter().map(text).collect();
    let image = format!("{}/group/app", runner.registry.host());
    let mut given = variables([
        ("GITLAB_CI", "true"),
        ("CI_REGISTRY", runner.registry.host()),
        ("CI_REGISTRY_USER", "user"),
        ("CI_REGISTRY_PASSWORD", "geheim"),
        ("CI_REGISTRY_IMAGE", &image),
        ("CI_COMMIT_SHORT_SHA", "01234567"),
    ]);
    let jobs = file.as_object().unwrap().iter();
    let mut jobs: Vec<_> =
        jobs.filter(|(name, _)| !["stages", "default"].contains(&&***name)).collect();
    members(&file["default"], &["image"], &[]);
    jobs.sort_by_key(|(_, job)| stages.iter().position(|stage| *stage == text(&job["stage"])));
    assert_eq!(jobs.len(), 2);
    for (_, job) in jobs {
        members(job, &["stage", "script"], &["variables", "rules"]);
        for (name, value) in job["variables"].as_object().into_iter().flatten() {
            // GitLab expands variables in variables.
            let value = text(value).replace("$CI_REGISTRY_IMAGE", &image);
            given.insert(name.clone(), value);
        }
        for line in list(&job["script"]) {
            assert_eq!(n_calls(text(line)), 1, "{line}");
            runner.script("sh", text(line), &given);
        }
    }
    runner.pull(&format!("{image}:01234567"));
}

/// Checks that each volume that a container mounts exists.
fn volumes_exist(containers: &[Value], volumes: &Value) {
    let known = names(volumes);
    for mount in containers.iter().filter_map(|container| container.get("volumeMounts")) {
        for mount in list(mount) {
            members(mount, &["name", "mountPath"], &["readOnly"]);
            assert!(known.contains(text(&mount["name"])), "{mount}");
            assert!(text(&mount["mountPath"]).starts_with('/'));
        }
    }
}

/// Runs rbuild with the arguments of a container, after replacing some texts in them.
fn run_args(runner: &Runner, args: &Value, replace: &[(&str, &str)]) -> Done {
    let args = list(args).iter().map(|argument| {
        replace.iter().fold(text(argument).to_owned(), |text, (from, to)| text.replace(from, to))
    });
    let args: Vec<String> = args.collect();
    assert!(!args.iter().any(|argument| argument.contains("$(")), "{args:?}");
    let mut command = runner.env.program("rbuild");
    command.args(args).current_dir(runner.env.path("context"));
    Done::of(command.output().unwrap()).ok()
}

#[test]
fn tekton_builds_its_workspace() {
    let runner = Runner::new();
    runner.login();
    let task = pipeline("tekton-task.yaml");
    members(&task, &["apiVersion", "kind", "metadata", "spec"], &[]);
    assert_eq!((text(&task["apiVersion"]), text(&task["kind"])), ("tekton.dev/v1", "Task"));
    let spec = &task["spec"];
    members(spec, &["steps"], &["params", "workspaces", "results", "volumes", "description"]);
    let [step] = list(&spec["steps"]) else { panic!("one step") };
    members(
        step,
        &["name", "image"],
        &["workingDir", "env", "command", "args", "securityContext", "volumeMounts"],
    );
    volumes_exist(list(&spec["steps"]), &spec["volumes"]);
    // Every name in use is declared, and the other way round.
    let whole = step.to_string();
    let named = |prefix: &str| -> BTreeSet<&str> {
        let prefix = format!("$({prefix}.");
        let parts = whole.split(prefix.as_str()).skip(1);
        parts.map(|part| part.split([')', '.']).next().unwrap()).collect::<BTreeSet<_>>()
    };
    for kind in ["params", "workspaces", "results"] {
        assert_eq!(named(kind), names(&spec[kind]), "{kind}");
    }
    let image = format!("{}/app:1", runner.registry.host());
    let id = runner.env.shown("id");
    let mut replace = vec![("$(params.image)", &*image), ("$(results.image-id.path)", &*id)];
    let defaults: Vec<(String, &str)> = list(&spec["params"])
        .iter()
        .filter_map(|param| {
            Some((format!("$(params.{})", text(&param["name"])), param["default"].as_str()?))
        })
        .collect();
    replace.extend(defaults.iter().map(|(name, value)| (name.as_str(), *value)));
    run_args(&runner, &step["args"], &replace);
    assert!(fs::read_to_string(&id).unwrap().starts_with("sha256:"));
    runner.pull(&image);
}

#[test]
fn a_kubernetes_job_builds_what_it_checked_out() {
    let runner = Runner::new();
    runner.login();
    let job = pipeline("kubernetes-job.yaml");
    members(&job, &["apiVersion", "kind", "metadata", "spec"], &[]);
    assert_eq!((text(&job["apiVersion"]), text(&job["kind"])), ("batch/v1", "Job"));
    members(&job["spec"], &["template"], &["backoffLimit"]);
    let pod = &job["spec"]["template"]["spec"];
    members(pod, &["containers", "restartPolicy"], &["hostUsers", "initContainers", "volumes"]);
    assert!(["Never", "OnFailure"].contains(&text(&pod["restartPolicy"])));
    let containers = [list(&pod["containers"]), list(&pod["initContainers"])].concat();
    for container in &containers {
        members(
            container,
            &["name", "image", "args"],
            &["env", "securityContext", "resources", "volumeMounts"],
        );
    }
    volumes_exist(&containers, &pod["volumes"]);
    let own = &pod["containers"][0];
    let security = &own["securityContext"];
    members(security, &["procMount", "seccompProfile", "appArmorProfile"], &[]);
    // An unmasked /proc is only for pods with a user namespace (API reference, Pod v1).
    assert_eq!(
        (text(&security["procMount"]), &pod["hostUsers"]),
        ("Unmasked", &Value::Bool(false))
    );
    let context = runner.env.shown("context");
    let host = runner.registry.host();
    let replace = [("/workspace", &*context), ("registry.example", host)];
    run_args(&runner, &own["args"], &replace);
    runner.pull(&format!("{host}/app:1"));
}

#[test]
fn the_pipelines_say_how_the_image_is_called_and_run() {
    let dockerfile = source::text_of("packaging/image/Dockerfile");
    for name in ["gitlab-ci.yml", "tekton-task.yaml", "kubernetes-job.yaml", "github-actions.yml"] {
        let text = source::text_of(&format!("examples/ci/{name}"));
        assert!(text.contains("registry.example/rbuild:0.1.0"), "{name}");
    }
    assert!(dockerfile.contains("examples/ci/kubernetes-job.yaml"));
}
