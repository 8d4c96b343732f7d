//! The command line of kaniko's executor, with real registries, buckets, repositories and containers.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use rbuild::oci::Digest;
use rbuild::registry::Client;

use crate::support::env::{Done, Env, Who};
use crate::support::git::GitServer;
use crate::support::proxy::tunnel_to;
use crate::support::registry::{Answer, DockerRegistry, Scripted, client, options};
use crate::support::s3::S3Server;

const DOCKERFILE: &str = "FROM scratch\nCOPY file /\n";

fn digest_of(name: &str) -> Digest {
    client().digest(&name.parse().unwrap()).unwrap()
}

/// Returns the digest in a registry of [`DockerRegistry::with_password`].
fn private_digest_of(host: &str, name: &str) -> Digest {
    let client = Client::with_login(options(), host, "user", "geheim").unwrap();
    client.digest(&name.parse().unwrap()).unwrap()
}

/// An environment with a context, and a registry.
struct Scene {
    env: Env,
    registry: DockerRegistry,
}

impl Scene {
    fn new() -> Self {
        Self::with(DockerRegistry::open())
    }

    fn with(registry: DockerRegistry) -> Self {
        let env = Env::new();
        env.write("Dockerfile", DOCKERFILE);
        env.write("file", "content\n");
        Self { env, registry }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry.host())
    }

    fn executor(&self, flags: &[&str]) -> Done {
        self.env.rbuild(&[&["executor"], flags].concat())
    }

    /// Runs the executor with a destination, and returns what was pushed.
    fn pushed(&self, flags: &[&str]) -> Digest {
        let name = self.name("app:1");
        self.executor(&[&["--destination", &name], flags].concat()).ok();
        digest_of(&name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.env.path(name)).unwrap()
    }
}

#[test]
fn priv_executor_builds_and_pushes_in_an_unprivileged_container() {
    let Some(who) = Who::root() else { return };
    let (env, registry) = (Env::of(who), DockerRegistry::open());
    env.write_container();
    fs::create_dir(env.path("container/kaniko")).unwrap();
    symlink("/usr/bin/rbuild", env.path("container/kaniko/executor")).unwrap();
    fs::copy("/bin/busybox", env.path("context/busybox")).unwrap();
    let run = "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo made > /made\"]\n";
    env.write("Dockerfile", format!("FROM scratch\nCOPY busybox /bin/\n{run}"));
    fs::create_dir(env.path("results")).unwrap();
    let volumes = ["context:/workspace", "results:/results"];
    let volumes = volumes.map(|volume| format!("{}/{volume}", env.path("").display()));
    let options = ["--network", "host", "-v", &volumes[0], "-v", &volumes[1]];
    let name = format!("{}/app:1", registry.host());
    let flags = ["--destination", &name, "--digest-file=/results/digest", "--log-format", "text"];
    let command = [&["/kaniko/executor", "--context", "dir:///workspace"][..], &flags].concat();
    let done = Done::of(env.container(&options, &command).output().unwrap()).ok();
    assert!(done.stderr.contains("isolation: chroot"), "{}", done.stderr);
    let digest = fs::read_to_string(env.path("results/digest")).unwrap();
    assert_eq!(digest, digest_of(&name).to_string());
}

#[test]
fn files_have_the_digest_and_names_of_what_was_pushed() {
    let scene = Scene::new();
    let (name, other) = (scene.name("app:1"), scene.name("team/app:2"));
    let results = scene.env.shown("new/results");
    let file = |kind: &str| format!("{results}/{kind}");
    let (digest, names, tags) = (file("digest"), file("names"), file("tags"));
    let flags = [
        "-c=context",
        "-d",
        &name,
        "--destination",
        &other,
        "--digest-file",
        &digest,
        "--image-name-with-digest-file",
        &names,
        "--image-name-tag-with-digest-file",
        &tags,
        "--tar-path",
        "image.tar",
    ];
    scene.executor(&flags).ok();
    let digest = digest_of(&name);
    assert_eq!(scene.text("new/results/digest"), digest.to_string());
    let (plain, tagged) = (scene.name("app"), scene.name("team/app"));
    let want = format!("{plain}@{digest}\n{tagged}@{digest}\n");
    assert_eq!(scene.text("new/results/names"), want);
    let want = format!("{name}@{digest}\n{other}@{digest}\n");
    assert_eq!(scene.text("new/results/tags"), want);
    assert!(scene.env.path("image.tar").is_file());
}

#[test]
fn contexts_from_everywhere_give_the_same_image() {
    let scene = Scene::new();
    let want = scene.pushed(&["--context", "context", "--reproducible"]);
    let tar = |directory: &str, into: &str| {
        let mut tar = scene.env.program("tar");
        let tar = tar.args(["--owner=0", "--group=0", "-czf", into, "-C", directory, "."]);
        assert!(tar.status().unwrap().success());
    };
    tar("context", "context.tar.gz");
    fs::create_dir(scene.env.path("above")).unwrap();
    symlink("/etc", scene.env.path("above/link")).unwrap();
    fs::rename(scene.env.path("context"), scene.env.path("above/below")).unwrap();
    tar("above", "above.tar.gz");
    let file = format!("tar://{}", scene.env.shown("context.tar.gz"));
    assert_eq!(scene.pushed(&["-c", &file, "--reproducible"]), want);
    let above = format!("tar://{}", scene.env.shown("above.tar.gz"));
    let flags = ["-c", &above, "--context-sub-path", "below", "--reproducible"];
    assert_eq!(scene.pushed(&flags), want);
    for directory in ["link", "../etc", "none"] {
        let flags = ["-c", &above, "--context-sub-path", directory, "--no-push"];
        scene.executor(&flags).fails(2, &["the archive has no such directory"]);
    }
    let name = scene.name("stdin:1");
    let flags = ["executor", "--context=tar://stdin", "-d", &name, "--reproducible"];
    let mut command = scene.env.command(&flags);
    let archive = fs::File::open(scene.env.path("context.tar.gz")).unwrap();
    Done::of(command.stdin(Stdio::from(archive)).output().unwrap()).ok();
    assert_eq!(digest_of(&name), want);
}

#[test]
fn contexts_in_buckets_are_read_with_the_keys_of_the_environment() {
    let Some(server) = S3Server::start() else { return };
    let mut scene = Scene::new();
    let mut tar = scene.env.program("tar");
    let tar = tar.args(["-czf", "a.tar.gz", "-C", "context", "."]);
    assert!(tar.status().unwrap().success());
    let bytes = fs::read(scene.env.path("a.tar.gz")).unwrap();
    assert_eq!(server.request("PUT", "/cache/dir/a.tar.gz", &bytes).0, 200);
    let endpoint = format!("http://{}", server.host());
    scene.env.set("S3_ENDPOINT", &endpoint);
    scene.env.set("S3_FORCE_PATH_STYLE", "true");
    scene.env.set("AWS_EC2_METADATA_DISABLED", "true");
    let flags = ["--context", "s3://cache/dir/a.tar.gz", "--no-push"];
    scene.executor(&flags).fails(2, &["AWS_ACCESS_KEY_ID"]);
    scene.env.set("AWS_ACCESS_KEY_ID", "some-id");
    scene.env.set("AWS_SECRET_ACCESS_KEY", "top-secret");
    scene.pushed(&flags[..2]);
    let flags = ["--context", "s3://cache/dir/none", "--no-push"];
    let done = scene.executor(&flags);
    assert!(!done.stderr.contains("Signature") && !done.stderr.contains("top-secret"));
    done.fails(3, &["s3://cache/dir/none"]);
}

#[test]
fn contexts_in_repositories_get_the_login_of_the_environment() {
    let mut scene = Scene::new();
    let git = GitServer::new();
    let script = format!(
        "mkdir d; printf '{DOCKERFILE}' > d/Dockerfile; echo a > d/file; git add .; \
                          git commit -qm a; echo b > d/file; git commit -qam b"
    );
    git.repository("app", &script);
    let (old, new) = (git.commit("app", "main~1"), git.commit("app", "main"));
    scene.env.set("GIT_PULL_METHOD", "http");
    scene.env.set("GIT_USERNAME", "user");
    scene.env.set("GIT_PASSWORD", "geheim");
    let address = git.url("app").replace("http://", "git://");
    let build = |reference: &str| {
        let context = format!("{address}{reference}");
        scene.pushed(&["--context", &context, "--context-sub-path", "d", "--reproducible"])
    };
    let tip = build("");
    assert_eq!(build("#refs/heads/main"), tip);
    assert_eq!(build(&format!("#{new}")), tip);
    assert_eq!(build(&format!("#refs/heads/main#{new}")), tip);
    assert_ne!(build(&format!("#refs/heads/main#{old}")), tip);
    let authorizations = git.authorizations();
    assert!(!authorizations.is_empty());
    // Base64 of `user:geheim`.
    assert!(authorizations.iter().all(|header| header == "Basic dXNlcjpnZWhlaW0="));
}

#[test]
fn push_that_is_not_permitted_fails_before_the_first_step() {
    let scene = Scene::with(DockerRegistry::with_password());
    let name = scene.name("app:1");
    let flags = ["-c", "context", "-d", &name, "--log-format=text"];
    let done = scene.executor(&flags);
    assert!(!done.stderr.contains("COPY"), "{}", done.stderr);
    done.fails(3, &["check the right to push", "refused access", "rbuild login"]);
    let done = scene.executor(&[&flags[..], &["--skip-push-permission-check"]].concat());
    assert!(done.stderr.contains("COPY"), "{}", done.stderr);
    done.fails(3, &["refused access"]);
}

#[test]
fn logins_of_gitlab_and_of_variables_are_used_unless_they_are_switched_off() {
    let mut scene = Scene::with(DockerRegistry::with_password());
    let name = scene.name("app:1");
    let host = scene.registry.host().to_owned();
    for (name, value) in [
        ("CI_REGISTRY", host.as_str()),
        ("CI_REGISTRY_USER", "user"),
        ("CI_REGISTRY_PASSWORD", "geheim"),
    ] {
        scene.env.set(name, value);
    }
    scene.executor(&["-c", "context", "-d", &name]).ok();
    private_digest_of(&host, &name);
    let flags = ["-c", "context", "-d", &name, "--credential-helpers=ecr,env"];
    scene.executor(&flags).fails(3, &["refused access"]);
    // A stored login comes first.
    let auth = format!(r#"{{"auths": {{"{host}": {{"auth": "dXNlcjp3cm9uZw=="}}}}}}"#);
    scene.env.set("DOCKER_AUTH_CONFIG", &auth);
    scene.executor(&flags[..4]).fails(3, &["rejected the stored credentials"]);
}

#[test]
fn login_of_ecr_is_requested_from_its_endpoint() {
    let mut scene = Scene::with(DockerRegistry::with_password());
    // Base64 of `user:geheim`.
    let token = r#"{"authorizationData":[{"authorizationToken":"dXNlcjpnZWhlaW0="}]}"#;
    let api = Scripted::new(move |request, _| match request.header("x-amz-target") {
        Some("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken") => {
            Answer::new(200, token)
        }
        _ => Answer::new(404, ""),
    });
    let metadata = Scripted::new(|request, _| match request.line().as_str() {
        "PUT /latest/api/token" => Answer::new(200, "v2"),
        "GET /latest/meta-data/iam/security-credentials/" => Answer::new(200, "role"),
        "GET /latest/meta-data/iam/security-credentials/role" => Answer::new(
            200,
            r#"{"AccessKeyId":"ID","SecretAccessKey":"verborgen","Token":"zeichen"}"#,
        ),
        _ => Answer::new(404, ""),
    });
    let proxy = format!("http://{}", tunnel_to(scene.registry.host()));
    scene.env.set("AWS_ENDPOINT_URL_ECR", &format!("http://{}/", api.host()));
    let endpoint = format!("http://{}", metadata.host());
    scene.env.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint);
    scene.env.set("http_proxy", &proxy);
    let host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    let name = format!("{host}/app:1");
    // The host cannot be asked for its protocol: its name does not lead to the registry.
    let http = format!("{host},http");
    let args = ["context", "-t", &name, "--push", "--check-push", "--registry", &http, "--debug"];
    let done = scene.env.rbuild(&args).ok();
    for secret in ["geheim", "verborgen", "zeichen", "dXNlcjpnZWhlaW0="] {
        assert!(!done.stderr.contains(secret), "{}", done.stderr);
    }
    private_digest_of(scene.registry.host(), &scene.name("app:1"));
    let requests = api.requests();
    let signature = requests.last().unwrap().header("authorization").unwrap_or_default();
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=ID/"), "{signature}");
    assert_eq!(requests.len(), 1, "the token is kept");
}

#[test]
fn tag_that_the_registry_does_not_replace_is_a_warning_on_request() {
    let immutable = r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists and cannot be overwritten because the tag is immutable."}]}"#;
    let registry = Scripted::new(move |request, _| match request.method.as_str() {
        "HEAD" => Answer::new(if request.target.contains("/blobs/") { 200 } else { 404 }, ""),
        "POST" => Answer::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
        "PUT" if request.target.contains("/manifests/") => Answer::new(400, immutable),
        "PUT" => Answer::new(201, ""),
        _ => Answer::new(204, ""),
    });
    let scene = Scene::new();
    let name = format!("{}/app:1", registry.host());
    let flags = ["-c", "context", "-d", &name];
    scene.executor(&flags).fails(3, &["the registry does not replace this tag"]);
    let lines = registry.lines();
    assert!(lines.contains(&"DELETE /v2/app/blobs/uploads/1".to_owned()), "{lines:?}");
    let done = scene.executor(&[&flags[..], &["--push-ignore-immutable-tag-errors"]].concat()).ok();
    assert!(done.stderr.contains("keeps its image"), "{}", done.stderr);
}

#[test]
fn mirrors_have_paths_and_may_be_the_only_servers() {
    let scene = Scene::new();
    scene.env.base();
    let cached = scene.name("hub/x/library/busybox:1");
    scene.env.rbuild(&["tag", "base:1", &cached]).ok();
    scene.env.rbuild(&["push", &cached]).ok();
    scene.env.write("Dockerfile", "FROM busybox:1\nRUN true\n");
    let mirror = scene.name("hub/x");
    let flags = [
        "executor",
        "-c",
        "context",
        "--no-push",
        "--registry-mirror",
        &mirror,
        "--skip-default-registry-fallback",
    ];
    let run = |store: &str| Done::of(scene.env.command_in(store, &flags).output().unwrap());
    run("other").ok();
    scene.env.write("Dockerfile", "FROM busybox:2\nRUN true\n");
    let done = run("other");
    assert!(!done.stderr.contains("registry-1.docker.io"), "{}", done.stderr);
    done.fails(1, &["does not have it"]);
}

#[test]
fn cache_is_used_until_it_expires() {
    let scene = Scene::new();
    scene.env.base();
    scene.env.base_in("second");
    scene.env.write("Dockerfile", "FROM base:1\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    let repository = scene.name("cache");
    let run = |store: &str, ttl: &str, more: &[&str]| {
        let name = scene.name("app:1");
        let flags = ["executor", "-c", "context", "-d", &name, "--cache-repo", &repository];
        let flags = [&flags[..], &["--cache-ttl", ttl], more].concat();
        Done::of(scene.env.command_in(store, &flags).output().unwrap()).ok();
        digest_of(&name)
    };
    let first = run("store", "1h", &["--cache"]);
    assert_eq!(run("second", "1h", &["--cache=true"]), first);
    // Times are whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let later = run("second", "0s", &["--cache"]);
    assert_ne!(later, first, "the store keeps what it imported, and it expires all the same");
    assert_ne!(run("store", "1h", &[]), first, "nothing is cached without --cache");
}

#[test]
fn help_and_errors_are_about_kaniko() {
    let env = Env::new();
    let help = env.rbuild(&["executor", "--help"]).ok().stdout;
    assert!(help.contains("--single-snapshot"), "{help}");
    env.rbuild(&["executor", "--destinaton", "x"]).fails(
        2,
        &["kaniko has no flag `--destinaton`; did you mean --destination?", "rbuild help kaniko"],
    );
    let parts = ["you must provide --destination, or use --no-push"];
    env.rbuild(&["executor", "--context", "context"]).fails(2, &parts);
}
