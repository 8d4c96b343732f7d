//! Remote inputs: ADD of URLs and repositories, remote and named contexts.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::git::GitServer;
use crate::support::images::{Layout, entries};
use crate::support::registry::{Answer, DockerRegistry, Scripted};

as_root_and_as_user!(
    a_download_is_a_file_of_root,
    a_repository_is_checked_out_at_what_its_reference_names,
    a_repository_is_a_context,
);

const OCI: &str = "type=oci,dest=out,tar=false,compression=uncompressed";
/// SHA-256 of the text `one`.
const ONE: &str = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";

const WITH_SUBMODULE: &str = "mkdir sub; echo one > file; echo sub > sub/s; echo x > run; \
    chmod +x run; ln -s file link; git add .; git commit -qm one; git tag v1; \
    git tag -a v2 -m v2; git checkout -q -b side; echo side > file; git commit -qam side; \
    git checkout -q main; echo two > file; git commit -qam two";

/// Returns the entries of all layers in the directory `out`.
fn files(env: &Env) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for layer in &Layout::read(&env.path("out")).layers {
        files.extend(entries(layer));
    }
    files
}

/// Starts a server that has the file `one` under every name, with an ETag.
fn server_of_one() -> Scripted {
    Scripted::new(|request, _| {
        if request.header("if-none-match") == Some("\"1\"") {
            return Answer::new(304, "");
        }
        let modified = "Sat, 03 Feb 2001 04:05:06 GMT";
        Answer::new(200, "one").header("ETag", "\"1\"").header("Last-Modified", modified)
    })
}

fn a_download_is_a_file_of_root(who: Who) {
    let env = Env::of(who);
    let server = server_of_one();
    let dockerfile = format!("FROM scratch\nADD http://{}/a/f%20g?x=1 /d/\n", server.host());
    env.build(&dockerfile, &["-o", OCI]).ok();
    let found = files(&env);
    assert!(found.contains_key("d/f g"), "{found:?}");
    let entry = &found["d/f g"];
    assert!(entry.contains("600") && entry.contains("981173106"), "{entry}");
    let again = env.build(&dockerfile, &[]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    let asked = server.requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("if-none-match"), Some("\"1\""));
}

#[test]
fn a_download_with_a_checksum_is_asked_for_once() {
    let env = Env::new();
    let server = server_of_one();
    let dockerfile =
        |sum: &str| format!("FROM scratch\nADD --checksum={sum} http://{}/f /\n", server.host());
    env.build(&dockerfile(ONE), &[]).ok();
    env.build(&dockerfile(ONE), &[]).ok();
    env.build(&dockerfile(ONE), &["--no-cache"]).ok();
    assert_eq!(server.lines(), ["GET /f"]);
    let other = format!("sha256:{}", "0".repeat(64));
    env.build(&dockerfile(&other), &[]).fails(1, &["E0409", ONE, &other, "Dockerfile:2:"]);
}

#[test]
fn a_redirect_is_followed_and_the_first_name_counts() {
    let env = Env::new();
    let server = Scripted::new(|request, _| match request.target.as_str() {
        "/first" => Answer::new(302, "").header("Location", "/second?y"),
        "/second?y" => Answer::new(200, "one"),
        _ => Answer::new(404, ""),
    });
    let host = server.host();
    env.build(&format!("FROM scratch\nADD http://{host}/first /\n"), &["-o", OCI]).ok();
    assert!(files(&env).contains_key("first"));
    let missing = format!("FROM scratch\nADD http://user:geheim@{host}/none /\n");
    let failed = env.build(&missing, &[]);
    failed.fails(1, &["E0408", "http://user:xxxxx@", "404", "Dockerfile:2:5"]);
    let own_words = failed.stderr.lines().filter(|line| !line.contains(" | "));
    assert!(own_words.clone().all(|line| !line.contains("geheim")), "{}", failed.stderr);
}

#[test]
fn secrets_authorize_downloads_and_repositories() {
    let env = Env::new();
    let server = Scripted::new(|request, _| match request.header("authorization") {
        Some("Bearer geheim") => Answer::new(200, "one"),
        _ => Answer::new(401, ""),
    });
    let host = server.host();
    let dockerfile = format!("FROM scratch\nADD http://{host}/f /\n");
    env.build(&dockerfile, &[]).fails(1, &["E0408", "401"]);
    fs::write(env.path("token"), "geheim\n").unwrap();
    let secret = format!("id=HTTP_AUTH_TOKEN_{host},src=token");
    env.build(&dockerfile, &["--secret", &secret]).ok();

    let git = GitServer::new();
    git.repository("r", WITH_SUBMODULE);
    let dockerfile = format!("FROM scratch\nADD {} /\n", git.url("r"));
    env.build(&dockerfile, &["--secret", "id=GIT_AUTH_TOKEN,src=token"]).ok();
    let sent = git.authorizations();
    assert!(!sent.is_empty() && sent.iter().all(|value| value.starts_with("basic ")), "{sent:?}");
    let url = git.url("r").replace("http://", "http://user:geheim@");
    let failed = env.build(&format!("FROM scratch\nADD {url}#nowhere /\n"), &[]);
    failed.fails(1, &["does not contain ref nowhere"]);
    let own_words = failed.stderr.lines().filter(|line| !line.contains(" | "));
    assert!(own_words.clone().all(|line| !line.contains("geheim")), "{}", failed.stderr);
}

fn a_repository_is_checked_out_at_what_its_reference_names(who: Who) {
    let env = Env::of(who);
    let git = GitServer::new();
    git.repository("r", WITH_SUBMODULE);
    let (url, v1) = (git.url("r"), git.commit("r", "v1"));
    let dockerfile = format!(
        "FROM scratch\nADD {url} /default/\nADD {url}#v2:sub /sub/\nADD {url}?branch=side /side/\n\
         ADD --checksum={} {url}#v1 /v1/\nADD --keep-git-dir=true {url}#{v1} /kept/\n",
        v1.split_at(12).0
    );
    env.build(&dockerfile, &["-o", OCI]).ok();
    let found = files(&env);
    for name in ["default/link", "default/run", "sub/s", "side/file", "v1/file", "kept/.git/HEAD"] {
        assert!(found.contains_key(name), "{name} in {:?}", found.keys());
    }
    assert!(!found.keys().any(|name| name.starts_with("default/.git")), "{:?}", found.keys());
    assert!(found["default/run"].contains("755") && found["default/file"].contains("644"));
    let only_commit = format!("FROM scratch\nADD {url}#{v1} /\n");
    env.build(&only_commit, &[]).ok();
    let n_requests = git.n_requests();
    env.build(&only_commit, &[]).ok();
    assert_eq!(git.n_requests(), n_requests, "a cached commit sends no request");
}

#[test]
fn mistakes_about_repositories_are_explained() {
    let env = Env::new();
    let git = GitServer::new();
    git.repository("r", WITH_SUBMODULE);
    let url = git.url("r");
    let wrong = "0123456789012345678901234567890123456789";
    for (line, parts) in [
        (
            format!("ADD {url}#sied /"),
            ["E0408", "does not contain ref sied", "did you mean `side`"],
        ),
        (format!("ADD {url}#v1:none /"), ["E0408", "no directory none", "Dockerfile:2:5"]),
        (format!("ADD --checksum={wrong} {url}#v1 /"), ["E0409", wrong, "Dockerfile:2:"]),
        (format!("ADD {url}?tag=v1#v2 /"), ["E0111", "ref conflicts", "Dockerfile:2:5"]),
        (format!("COPY {url} /"), ["E0111", "git ref for COPY", "ADD takes"]),
        (format!("ADD --checksum=abc {url} /"), ["E0109", "is not a commit", "7 hex digits"]),
        ("ADD ssh://git@127.0.0.1:1/x /".to_owned(), ["E0408", "no ssh agent", "--ssh"]),
    ] {
        env.build(&format!("FROM scratch\n{line}\n"), &[]).fails(1, &parts);
    }
    let empty = env.path("empty").display().to_string();
    let mut command = env.command(&["build", "context"]);
    env.write("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
    let done = Done::of(command.env("PATH", empty).output().unwrap());
    done.fails(1, &["E0408", "the program `git` is not installed", "install git"]);
}

fn a_repository_is_a_context(who: Who) {
    let env = Env::of(who);
    let git = GitServer::new();
    let script = "mkdir sub; echo a > sub/a; echo '*' > sub/.dockerignore; \
        printf 'FROM scratch\\nCOPY . /src/\\n' > sub/My.Dockerfile; git add .; git commit -qm 1";
    git.repository("c", script);
    let context = format!("{}#main:sub", git.url("c"));
    env.rbuild(&["build", &context, "-f", "My.Dockerfile", "-o", OCI]).ok();
    let found = files(&env);
    assert!(found.contains_key("src/a") && found.contains_key("src/My.Dockerfile"), "{found:?}");
    let missing = env.rbuild(&["build", &context]);
    missing.fails(1, &["no Dockerfile found", "did you mean -f My.Dockerfile?"]);
}

/// Runs rbuild with this standard input.
fn with_stdin(env: &Env, args: &[&str], input: &[u8]) -> Done {
    let mut command = env.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // rbuild does not read the input if it rejects the arguments at once.
    if let Err(error) = child.stdin.take().unwrap().write_all(input) {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
    Done::of(child.wait_with_output().unwrap())
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_mode(0o640);
        header.set_mtime(86_400);
        header.set_uid(3);
        header.set_gid(4);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn standard_input_is_a_context_or_a_dockerfile() {
    let env = Env::new();
    let tar = tar_of(&[("Dockerfile", "FROM scratch\nCOPY f /g\n"), ("f", "x")]);
    let packed = zstd::encode_all(&tar[..], 1).unwrap();
    for input in [&tar, &packed] {
        with_stdin(&env, &["build", "-", "-o", OCI], input).ok();
        let entry = &files(&env)["g"];
        assert_eq!(entry, "file 640 3:4 1 @86400");
    }
    with_stdin(&env, &["build", "-"], b"FROM scratch\nLABEL a=b\n").ok();
    let empty = with_stdin(&env, &["build", "-"], b"FROM scratch\nCOPY context /\n");
    empty.fails(1, &["E0402"]);
    with_stdin(&env, &["build", "-", "-f", "-"], b"FROM scratch\n").fails(2, &["both"]);
    env.write("f", "x");
    with_stdin(&env, &["build", "context", "-f", "-"], b"FROM scratch\nCOPY f /\n").ok();
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn a_downloaded_archive_is_a_context() {
    let env = Env::new();
    let tar = tar_of(&[("d/Dockerfile", "FROM scratch\nCOPY . /\n"), (".dockerignore", "d")]);
    let server = Scripted::new(move |_, _| Answer::new(200, &tar));
    let url = format!("http://{}/c.tar", server.host());
    env.rbuild(&["build", &url, "-f", "d/Dockerfile", "-o", OCI]).ok();
    assert!(files(&env).contains_key("d/Dockerfile"), "no ignore file counts there");
    let plain = Scripted::new(|_, _| Answer::new(200, "FROM scratch\nLABEL a=b\n"));
    env.rbuild(&["build", &format!("http://{}/Dockerfile", plain.host())]).ok();
    let gone = Scripted::new(|_, _| Answer::new(404, ""));
    env.rbuild(&["build", &format!("http://{}/c.tar", gone.host())]).fails(3, &["404"]);
}

#[test]
fn named_contexts_stand_in_for_stages_images_and_from() {
    let env = Env::new();
    fs::create_dir_all(env.path("extra/sub")).unwrap();
    fs::write(env.path("extra/sub/f"), "x").unwrap();
    fs::write(env.path("extra/hidden"), "x").unwrap();
    fs::write(env.path("extra/.dockerignore"), "hidden\n").unwrap();
    let extra = ["--build-context", "extra=extra", "-o", OCI];
    for dockerfile in [
        "FROM scratch\nCOPY --from=extra . /\n",
        "FROM nowhere.invalid/x AS extra\nCOPY none /\nFROM scratch\nCOPY --from=extra . /\n",
        "FROM extra\nLABEL a=b\n",
        "FROM docker.io/library/extra:latest AS a\nFROM a\nLABEL a=b\n",
    ] {
        env.build(dockerfile, &extra).ok();
        let found = files(&env);
        assert!(found.contains_key("sub/f") && !found.contains_key("hidden"), "{found:?}");
    }
    let hidden = env.build("FROM scratch\nCOPY --from=extra hidden /\n", &extra);
    hidden.fails(1, &["E0402", "excluded by .dockerignore"]);
    let unused = ["--build-context", "unused=http://127.0.0.1:1/x.tar"];
    env.build("FROM scratch\nLABEL a=b\n", &unused).ok();
    let dockerfile = "FROM scratch\nCOPY --from=unused . /\n";
    env.build(dockerfile, &unused).fails(1, &["E0408", "127.0.0.1:1", "Dockerfile:2:"]);
    env.build(dockerfile, &["--build-context", "x"]).fails(2, &["NAME=VALUE"]);
    env.build(dockerfile, &["--build-context", "x=none"]).fails(2, &["does not exist"]);
    env.build(dockerfile, &["--build-context", "X Y=extra"]).fails(2, &["invalid context name"]);
}

#[test]
fn an_oci_layout_is_a_base_image() {
    let env = Env::new();
    env.write("f", "x");
    env.build("FROM scratch\nENV A=1\nCOPY f /base\n", &["-t", "base:v1", "-o", OCI]).ok();
    fs::rename(env.path("out"), env.path("layout")).unwrap();
    let dockerfile = "FROM base\nCOPY --from=base /base /again\n";
    let build = |value: &str, more: &[&str]| {
        let context = format!("base=oci-layout://{value}");
        let args = [&["build", "context", "--build-context", &context], more].concat();
        env.write("Dockerfile", dockerfile);
        Done::of(env.command_in("other", &args).output().unwrap())
    };
    for value in ["layout", "layout:v1"] {
        build(value, &["-o", OCI]).ok();
        let found = files(&env);
        assert!(found.contains_key("base") && found.contains_key("again"), "{found:?}");
        assert_eq!(Layout::read(&env.path("out")).config["config"]["Env"][1], "A=1");
    }
    build("layout:v2", &[]).fails(1, &["E0401", "no image with the tag v2"]);
    build("context", &[]).fails(2, &["is not an OCI layout"]);
    // Names that look like a tag or a digest: Jenkins calls a job's second workspace `job@2`.
    fs::create_dir(env.path("job@2")).unwrap();
    for name in ["job@2/lay", "job@2/c:d", "at@2", "at@sha256:x"] {
        let copied = env.program("cp").args(["-r", "layout", name]).status().unwrap();
        assert!(copied.success());
    }
    let index: Value =
        serde_json::from_slice(&fs::read(env.path("layout/index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    for name in ["layout", "job@2/lay", "job@2/c:d", "at@2", "at@sha256:x"] {
        for rest in ["", ":v1", &format!("@{digest}"), &format!(":v1@{digest}")] {
            build(&format!("{name}{rest}"), &[]).ok();
        }
        build(&format!("{name}:v2"), &[]).fails(1, &["no image with the tag v2"]);
        build(&format!("{name}@sha256:1"), &[]).fails(2, &["digest"]);
    }
    build("job@2/none:v1", &[]).fails(2, &["job@2/none is not an OCI layout"]);
}

#[test]
fn login_is_tried_kept_used_and_forgotten() {
    let registry = DockerRegistry::with_password();
    let env = Env::new();
    let host = registry.host();
    let login = |password: &[u8]| {
        with_stdin(&env, &["login", host, "-u", "user", "--password-stdin"], password)
    };
    let config = || fs::read_to_string(env.path("docker/config.json")).unwrap();
    login(b"wrong\n").fails(3, &[host]);
    assert_eq!(config(), "{}");
    let name = format!("{host}/app:1");
    let push = ["-t", &name, "--push"];
    env.build("FROM scratch\nCOPY Dockerfile /\n", &push).fails(3, &["rbuild login"]);
    let done = login(b"geheim\n").ok();
    assert!(done.stdout.contains("unencrypted"), "{}", done.stdout);
    env.build("FROM scratch\nCOPY Dockerfile /\n", &push).ok();
    env.rbuild(&["logout", host]).ok();
    assert!(!config().contains(host), "{}", config());
    env.rbuild(&["login", host]).fails(2, &["use --username and --password-stdin"]);
}
