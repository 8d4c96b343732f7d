//! Advice in build errors and warnings about names that are unused or do not exist.

use std::os::unix::net::UnixListener;

use crate::support::env::{Done, Env, Who};

fn env() -> Env {
    let env = Env::new();
    env.base();
    env
}

fn warnings(done: &Done) -> Vec<&str> {
    done.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")).collect()
}

#[test]
fn priv_inputs_that_the_dockerfile_does_not_take_are_named() {
    let env = env();
    env.write("files/a", "a");
    let file = "ARG BASE=base:1\nFROM base:1 AS tool\nARG VERSION=1\n\
        RUN --mount=type=secret,id=token --mount=type=ssh,id=key true\n\
        COPY --from=data /a /\n";
    env.write("token", "t");
    let data = format!("data={}", env.shown("context/files"));
    let keys = env.shown("context/token");
    let agent = env.shown("agent");
    let _listener = UnixListener::bind(&agent).unwrap();
    for (args, want) in [
        (["--build-arg", "VERSION=2"], ""),
        (["--build-arg", "BASE=base:1"], ""),
        (["--build-arg", "http_proxy="], ""),
        (["--build-arg", "TARGETARCH=amd64"], ""),
        (["--build-arg", "SOURCE_DATE_EPOCH=0"], ""),
        (
            ["--build-arg", "VERSOIN=2"],
            "--build-arg VERSOIN is unused: the Dockerfile has no ARG VERSOIN; did you mean `VERSION`?",
        ),
        (["--build-arg", "OTHER"], "--build-arg OTHER is unused: the Dockerfile has no ARG OTHER"),
        (["--secret", &format!("id=token,src={keys}")], ""),
        (["--secret", &format!("id=GIT_AUTH_TOKEN.example.org,src={keys}")], ""),
        (
            ["--secret", &format!("id=tokens,src={keys}")],
            "--secret tokens is unused: no RUN of the Dockerfile mounts it; did you mean `token`?",
        ),
        (["--ssh", &format!("key={agent}")], ""),
        (
            ["--ssh", &format!("default={agent}")],
            "--ssh default is unused: no RUN of the Dockerfile mounts it",
        ),
        (["--build-context", "tool=docker-image://base:1"], ""),
        (["--build-context", "docker.io/library/base:1=docker-image://base:1"], ""),
        (
            ["--build-context", "dota=docker-image://base:1"],
            "--build-context dota is unused: no FROM or --from of the Dockerfile names it; did you \
             mean `data`?",
        ),
    ] {
        let given = [&args[..], &["--build-context", &data]].concat();
        let done = env.build(file, &given).ok();
        let want = if want.is_empty() { vec![] } else { vec![want] };
        assert_eq!(warnings(&done), want, "{args:?}");
    }
}

#[test]
fn priv_failed_step_names_the_secret_that_was_not_given() {
    let env = env();
    let file = "FROM base:1\n\
        RUN --mount=type=secret,id=key --mount=type=ssh cat /run/secrets/key\n";
    let failed = env.build(file, &[]);
    failed.fails(1, &["= help: secret `key` was not given: add `--secret id=key,src=FILE`\n"]);
    failed.fails(1, &["= help: ssh agent `default` was not given: add `--ssh default`\n"]);
    env.write("key", "k");
    let key = format!("id=key,src={}", env.shown("context/key"));
    let given = env.build(&file.replace("cat ", "grep x "), &["--secret", &key]);
    assert_eq!(given.code, Some(1));
    assert!(!given.stderr.contains("secret `key`"), "{}", given.stderr);
}

#[test]
fn priv_name_in_from_that_nothing_has_says_so_first() {
    let env = env();
    let file = "FROM base:1 AS shard\nRUN true\nFROM base:1\nCOPY --from=WORD /a /\n";
    let missing = "no stage, named context or image is called";
    let build = |word: &str| env.build(&file.replace("WORD", word), &["--offline"]);
    build("shared").fails(
        3,
        &[
            &format!(": {missing} `shared`: cannot get the image shared:latest"),
            "= help: did you mean the stage `shard`?",
        ],
    );
    build("elsewhere").fails(3, &[missing, "--build-context elsewhere=DIRECTORY"]);
    let mounted = "FROM base:1\nRUN --mount=from=elsewhere,target=/e true\n";
    env.build(mounted, &["--offline"]).fails(3, &[&format!("{missing} `elsewhere`: ")]);
    // This is not a valid image name, so no registry is asked.
    env.build(&file.replace("WORD", "Elsewhere"), &[])
        .fails(1, &[&format!("{missing} `Elsewhere`: invalid reference format: ")]);
    // This can only be an image.
    let image = build("some/thing").stderr;
    assert!(!image.contains("no stage"), "{image}");
}

#[test]
fn priv_hard_link_to_a_lower_file_is_the_same_file_for_root() {
    if Who::root().is_none() {
        return;
    }
    let env = env();
    let file =
        "FROM base:1\nRUN ln /old/file /g && test $(stat -c %i /old/file) = $(stat -c %i /g)\n";
    env.build(file, &[]).ok();
    // Git's message where the inodes differ.
    let git =
        "FROM base:1\nRUN echo \"fatal: hardlink different from source at 'c/x'\" >&2; exit 128\n";
    env.build(git, &[]).fails(1, &["= help: a hard link", "git clone --no-hardlinks"]);
}
