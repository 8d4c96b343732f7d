//! Options of buildah and podman, as they have them.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;

use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::images::Layout;
use crate::support::registry::{DockerRegistry, Setup};

/// Builds an OCI layout, and returns its config.
fn config_of(env: &Env, dockerfile: &str, args: &[&str]) -> Value {
    let output = ["-o", "type=oci,tar=false,dest=out"];
    env.build(dockerfile, &[&output[..], args].concat()).ok();
    let config = Layout::read(&env.path("out")).config;
    fs::remove_dir_all(env.path("out")).unwrap();
    config
}

as_root_and_as_user!(volumes_show_files_of_the_machine_and_leave_nothing_in_the_image);

fn volumes_show_files_of_the_machine_and_leave_nothing_in_the_image(who: Who) {
    let env = Env::of(who);
    env.base();
    for name in ["shared", "kept", "discarded"] {
        fs::create_dir(env.path(name)).unwrap();
        fs::write(env.path(name).join("in"), name).unwrap();
        env.hand_over(name);
    }
    fs::write(env.path("single"), "single").unwrap();
    env.hand_over("single");
    let volume = |name: &str, rest: &str| format!("{}:{rest}", env.shown(name));
    let (shared, kept) = (volume("shared", "/v/shared"), volume("kept", "/v/kept:ro,Z"));
    let (discarded, single) =
        (volume("discarded", "/v/discarded:O"), volume("single", "/v/one:ro"));
    let dockerfile = "FROM base:1\n\
        RUN cat /v/*/in /v/one > /seen; echo new > /v/shared/out; echo new > /v/discarded/out; \
            if echo new > /v/kept/out; then exit 1; fi\n\
        RUN --mount=type=tmpfs,target=/v/shared test ! -e /v/shared/in; cat /v/kept/in\n";
    let mut args = vec!["-o", "out", "-v", &shared, "--volume", &kept, "-v", &discarded];
    args.extend(["-v", single.as_str()]);
    env.build(dockerfile, &args).ok();
    assert_eq!(fs::read_to_string(env.path("out/seen")).unwrap(), "discardedkeptsharedsingle");
    assert_eq!(fs::read_to_string(env.path("shared/out")).unwrap(), "new\n");
    assert!(!env.path("discarded/out").exists() && !env.path("kept/out").exists());
    assert!(!env.path("out/v").exists(), "mount points are removed");
    // The content is not part of the key, the access is.
    fs::write(env.path("kept/in"), "changed").unwrap();
    let again = env.build(dockerfile, &args).ok();
    assert!(again.steps().iter().all(|step| step.ends_with(": CACHED")), "{}", again.stderr);
    let writable = volume("kept", "/v/kept");
    let args = ["-v", &writable, "-v", &discarded, "-v", &shared, "-v", &single];
    let done = env.build("FROM base:1\nRUN cat /v/kept/in\n", &args).ok();
    assert!(done.stderr.contains("changed"), "{}", done.stderr);
    env.build("FROM base:1\n", &["-v", "/none/at/all:/v"]).fails(2, &["does not exist"]);
}

#[test]
fn config_changes_as_the_command_line_says() {
    let mut env = Env::new();
    env.base();
    env.set("OUTSIDE", "seen");
    env.build("FROM base:1\nLABEL old=1 kept=2\nENV OLD=x\n", &["-t", "labelled:1"]).ok();
    let dockerfile = "FROM labelled:1 AS one\nRUN test $A = b -a $OUTSIDE = seen\nLABEL own=3\n\
                      FROM one\nENV C=$A\n";
    let args = ["--env", "A=b", "--env", "OUTSIDE", "--env=UNKNOWN", "--unsetenv", "OLD"];
    let config = config_of(&env, dockerfile, &[&args[..], &["--unsetlabel", "old"]].concat());
    let variables = config["config"]["Env"].as_array().unwrap();
    assert_eq!(variables, &["PATH=/bin", "A=b", "OUTSIDE=seen", "C=b"].map(Value::from));
    assert_eq!(config["config"]["Labels"], serde_json::json!({"kept": "2", "own": "3"}));
    let config =
        config_of(&env, dockerfile, &["--env=A=b", "--env=OUTSIDE", "--inherit-labels=false"]);
    assert_eq!(config["config"]["Labels"], Value::Null);
    let config = config_of(
        &env,
        "FROM scratch\nRUN true\nFROM scratch\n",
        &["--target", "0", "--from", "base:1"],
    );
    assert_eq!(config["config"]["Env"], serde_json::json!(["PATH=/bin"]));
    let config =
        config_of(&env, dockerfile, &["--env=A=b", "--env=OUTSIDE", "--timestamp", "86400"]);
    assert_eq!(config["created"], "1970-01-02T00:00:00Z");
}

#[test]
fn inputs_have_the_names_of_podman() {
    let env = Env::new();
    env.base();
    fs::write(env.path("args"), "# comment\nA=of file\nB=of file\n").unwrap();
    let dockerfile = "FROM base:1\nARG A\nARG B\nRUN test \"$A\" = 'of file' -a \"$B\" = given\n";
    env.build(dockerfile, &["--build-arg-file", "args", "--build-arg", "B=given"]).ok();
    fs::write(env.path("args"), "A\n").unwrap();
    let done = env.build(dockerfile, &["--build-arg-file", "args"]);
    done.fails(2, &["--build-arg-file args: line 1: expected NAME=VALUE"]);

    fs::remove_file(env.path("context/Dockerfile")).unwrap();
    env.write("Containerfile", "FROM scratch\nCOPY . /\n");
    env.write(".containerignore", "one\n");
    fs::write(env.path("ignore"), "two\nContainerfile\n.containerignore\n").unwrap();
    env.write("one", "");
    env.write("two", "");
    let files = |args: &[&str]| {
        let args = [&["context", "-o", "type=oci,tar=false,dest=files"], args].concat();
        env.rbuild(&args).ok();
        let names = Layout::read(&env.path("files")).top().into_keys();
        names.collect::<Vec<String>>()
    };
    assert_eq!(files(&[]), [".containerignore", "Containerfile", "two"]);
    assert_eq!(files(&["--ignorefile", "ignore"]), ["one"]);
    env.write("Dockerfile", "FROM scratch\nCOPY one /of-docker\n");
    env.write(".dockerignore", "two\n");
    assert_eq!(files(&[]), ["of-docker"], "docker's names come first");
}

#[test]
fn resolver_has_what_the_command_line_says() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1\nRUN cat /etc/resolv.conf > /resolv\n";
    let args = ["--dns", "192.0.2.1", "--dns", "2001:db8::1", "--dns-search", "a.example"];
    let args = [&args[..], &["--dns-option=ndots:2", "-o", "out"]].concat();
    env.build(dockerfile, &args).ok();
    let text = fs::read_to_string(env.path("out/resolv")).unwrap();
    let ours: Vec<&str> = text.lines().rev().take(4).collect();
    let want =
        ["options ndots:2", "search a.example", "nameserver 2001:db8::1", "nameserver 192.0.2.1"];
    assert_eq!(ours, want);
    assert_eq!(text.matches("nameserver").count(), 2, "{text}");
    let args = ["--dns=192.0.2.1", "--network=none"];
    env.build(dockerfile, &args).fails(2, &["no effect with --network=none"]);
    env.build(dockerfile, &["--dns=dns.example"]).fails(2, &["expected the address"]);
}

#[test]
fn proxies_of_the_environment_are_passed_on_request() {
    let mut env = Env::new();
    env.base();
    env.set("https_proxy", "http://proxy.example:1");
    let dockerfile = "FROM base:1\nRUN echo proxy=$HTTPS_PROXY=$https_proxy\n";
    let done = env.build(dockerfile, &["--no-cache", "--http-proxy"]).ok();
    let want = "proxy=http://proxy.example:1=http://proxy.example:1";
    assert!(done.stderr.contains(want), "{}", done.stderr);
    for args in [&["--no-cache", "--http-proxy=false"][..], &["--no-cache"]] {
        let done = env.build(dockerfile, args).ok();
        assert!(done.stderr.contains("proxy==\n"), "{}", done.stderr);
    }
}

#[test]
fn pull_policies_decide_when_registries_are_asked() {
    let (env, registry) = (Env::new(), DockerRegistry::open());
    env.base();
    let base = format!("{}/base:1", registry.host());
    let dockerfile = format!("FROM {base}\nRUN true\n");
    let run = |policy: &str| {
        env.write("Dockerfile", &dockerfile);
        let args = ["build", "context", "--retry", "0", policy];
        Done::of(env.command_in("other", &args).output().unwrap())
    };
    run("--pull=never").fails(1, &["--pull=never forbids to pull it"]);
    run("--pull=newer").fails(1, &["does not exist"]);
    env.rbuild(&["tag", "base:1", &base]).ok();
    env.rbuild(&["push", &base]).ok();
    run("--pull=missing").ok();
    run("--pull=never").ok();
    drop(registry);
    run("--pull=newer").ok();
    run("--pull=false").ok();
    for policy in ["--pull", "--pull=always", "--pull=true"] {
        run(policy).fails(3, &["cannot reach"]);
    }
    run("--pull=sometimes").fails(2, &["sometimes"]);
}

#[test]
fn log_goes_to_a_file() {
    let env = Env::new();
    let args = ["--logfile", "log", "--quiet"];
    let done = env.build("FROM scratch\nCOPY . /\n", &args).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    let first = fs::read_to_string(env.path("log")).unwrap();
    assert!(first.starts_with("sha256:"), "{first}");
    let done = env.build("FROM scratch\nRUN\n", &args);
    assert_eq!((done.code, done.stderr.as_str()), (Some(1), ""));
    let both = fs::read_to_string(env.path("log")).unwrap();
    assert!(both.starts_with(&first) && both.contains("RUN needs a command"), "{both}");
}

#[test]
fn format_sets_the_media_types_of_all_outputs() {
    let mut env = Env::new();
    let media_type = |env: &Env, args: &[&str]| {
        let args = [&["-o", "type=oci,tar=false,dest=typed"], args].concat();
        env.build("FROM scratch\nCOPY . /\n", &args).ok();
        let manifest = Layout::read(&env.path("typed")).manifest;
        fs::remove_dir_all(env.path("typed")).unwrap();
        manifest["mediaType"].as_str().unwrap().to_owned()
    };
    let (oci, docker) = (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    );
    assert_eq!(media_type(&env, &["--format", "docker"]), docker);
    assert_eq!(media_type(&env, &["--format=oci"]), oci);
    env.set("BUILDAH_FORMAT", "docker");
    assert_eq!(media_type(&env, &[]), docker);
    let done = env.build("FROM scratch\nCOPY . /\n", &["--format=docker"]);
    done.fails(2, &["--format docker has no effect"]);
    env.build("FROM scratch\n", &["--format=zip"]).fails(2, &["text, json, sarif, oci, docker"]);
}

#[test]
fn logins_of_podman_and_of_the_command_line_are_used() {
    let mut env = Env::new();
    let registry = DockerRegistry::with_password();
    let host = registry.host();
    let name = format!("{host}/app:1");
    let push = |env: &Env, more: &[&str]| {
        env.build("FROM scratch\nCOPY . /\n", &[&["-t", &name, "--push"], more].concat())
    };
    push(&env, &[]).fails(3, &["refused access"]);
    push(&env, &["--creds", "user:geheim"]).ok();
    env.rbuild(&["push", "--creds=user:geheim", &name]).ok();
    push(&env, &["--creds", "user"]).fails(2, &["expected USER:PASSWORD"]);
    let done = env.build("FROM scratch\n", &["--creds", "user:geheim"]);
    assert!(!done.stderr.contains("geheim"), "{}", done.stderr);
    done.fails(2, &["--creds has no effect"]);
    let auth = format!(r#"{{"auths": {{"{host}": {{"auth": "dXNlcjpnZWhlaW0="}}}}}}"#);
    fs::write(env.path("auth.json"), &auth).unwrap();
    push(&env, &["--authfile", "auth.json"]).ok();
    for (variable, file) in
        [("REGISTRY_AUTH_FILE", "auth.json"), ("XDG_RUNTIME_DIR", "containers/auth.json")]
    {
        fs::create_dir_all(env.path("run/containers")).unwrap();
        fs::write(env.path("run").join(file), &auth).unwrap();
        let value = if variable == "XDG_RUNTIME_DIR" { "run" } else { "run/auth.json" };
        let value = env.shown(value);
        env.set(variable, &value);
        push(&env, &[]).ok();
        env.set(variable, "");
        push(&env, &[]).fails(3, &["refused access"]);
    }
}

#[test]
fn certificates_are_trusted_or_not_verified_as_the_command_line_says() {
    let env = Env::new();
    let authority = Authority::new();
    let certified = authority.certify(&env.path(""), "server", &["127.0.0.1"]);
    let setup = Setup { tls: Some(&certified), ..Setup::default() };
    let registry = DockerRegistry::start(&setup);
    let name = format!("{}/app:1", registry.host());
    let push = |more: &[&str]| {
        env.build(
            "FROM scratch\nCOPY . /\n",
            &[&["-t", &name, "--push", "--retry=0"], more].concat(),
        )
    };
    push(&["--tls-verify=true"]).fails(3, &["secure connection"]);
    push(&["--tls-verify=false"]).ok();
    fs::create_dir(env.path("certs")).unwrap();
    let pem = authority.write(&env.path(""), "ca");
    fs::copy(pem, env.path("certs/ca.crt")).unwrap();
    push(&["--cert-dir", "certs", "--tls-verify"]).ok();
    fs::write(env.path("certs/client.cert"), "").unwrap();
    push(&["--cert-dir", "certs"]).fails(2, &["a client certificate is for one registry"]);
    let kept = env.path("home/.config/containers/certs.d").join(registry.host());
    fs::create_dir_all(&kept).unwrap();
    fs::copy(env.path("certs/ca.crt"), kept.join("ca.crt")).unwrap();
    push(&[]).ok();
    let plain = DockerRegistry::open();
    let name = format!("{}/app:1", plain.host());
    let args = ["-t", &name, "--push", "--tls-verify=false"];
    env.build("FROM scratch\nCOPY . /\n", &args).ok();
}

as_root_and_as_user!(capabilities_of_steps_are_those_of_the_command_line);

fn capabilities_of_steps_are_those_of_the_command_line(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile = "FROM base:1\nRUN grep CapEff /proc/self/status\n";
    let shown = |args: &[&str]| {
        let done = env.build(dockerfile, &[&["--network=none"], args].concat()).ok();
        let line =
            done.stderr.lines().find_map(|line| line.split("CapEff:\t").nth(1).map(str::to_owned));
        line.unwrap_or_else(|| "cached".to_owned())
    };
    let usual = shown(&["--no-cache"]);
    assert_eq!(usual, "00000000a80425fb");
    // CAP_SYS_PTRACE is bit 19, CAP_CHOWN bit 0.
    assert_eq!(shown(&["--cap-add", "sys_ptrace", "--cap-drop=CAP_CHOWN"]), "00000000a80c25fa");
    assert_eq!(shown(&["--cap-drop", "all", "--cap-add=CHOWN"]), "0000000000000001");
    assert_eq!(shown(&["--cap-drop", "all", "--cap-add=CHOWN"]), "cached", "they are in the key");
    env.build(dockerfile, &["--cap-add=ALL"]).fails(2, &["--allow security.insecure"]);
    env.build(dockerfile, &["--cap-drop=CAP_FLY"]).fails(2, &["CAP_FLY is not a capability"]);
}
