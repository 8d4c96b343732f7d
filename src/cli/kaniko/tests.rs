//! Kaniko's command lines, and the command lines of rbuild that they become.

use std::path::Path;

use super::flags::FLAGS;
use super::{Host, Line, translate};

/// Variables and files of the machine in all cases.
const VARIABLES: [(&str, &str); 1] = [("SET", "value")];
const FILES: [&str; 2] = ["/workspace/Dockerfile", "build/Dockerfile.here"];

fn line_of(text: &str, more: &[(&str, &str)]) -> Result<Line, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let variable = |name: &str| {
        let found = VARIABLES.iter().chain(more).find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let is_file = |path: &Path| FILES.iter().any(|file| Path::new(file) == path);
    translate(&words, &Host { variable: &variable, is_file: &is_file })
}

/// Translates flags beside `--destination reg.example/app:1`, and returns what they add.
fn added(text: &str) -> String {
    added_with(text, &[])
}

fn added_with(text: &str, more: &[(&str, &str)]) -> String {
    const USUAL: &str = "--tag reg.example/app:1 --push --no-cache";
    let line = match line_of(&format!("--destination reg.example/app:1 {text}"), more) {
        Ok(line) => line,
        Err(why) => return format!("error: {why}"),
    };
    let words = line.words.join(" ");
    let words = words.replace("--file /workspace/Dockerfile ", "").replace(" --check-push", "");
    words.replace(USUAL, "…").trim().to_owned()
}

#[test]
fn command_line_of_a_ci_job_becomes_a_build() {
    let line = line_of(
        "--context dir:///builds/app --dockerfile docker/Dockerfile --destination reg.example/app:1 \
         --destination reg.example/app:latest --build-arg A=b --build-arg SET --build-arg UNSET --label \
         l=v --cache=true --cache-ttl=24h --digest-file=/d",
        &[],
    );
    let want = "--file /builds/app/docker/Dockerfile --build-arg A=b --build-arg SET --build-arg UNSET= \
                --label l=v --tag reg.example/app:1 --tag reg.example/app:latest --push --digest-file /d \
                --cache-from type=registry,ref=reg.example/app/cache:rbuild,max-age=24h --cache-to \
                type=registry,ref=reg.example/app/cache:rbuild,mode=max --check-push";
    let line = line.unwrap();
    assert_eq!(line.words.join(" "), want);
    assert_eq!(line.context, "/builds/app");
}

#[test]
fn contexts_of_every_kind_are_translated() {
    for (flags, want) in [
        ("", "/workspace/ --file /workspace/Dockerfile"),
        ("-c dir:///a --context-sub-path b", "/a/b --file /a/b/Dockerfile"),
        ("-c a -f build/Dockerfile.here", "a --file build/Dockerfile.here"),
        ("-c tar://stdin", "- --file Dockerfile"),
        (
            "-c tar:///a.tar.gz -f x --context-sub-path b",
            "tar:///a.tar.gz --context-subdir b --file x",
        ),
        ("-c s3://bucket/a.tar.gz", "s3://bucket/a.tar.gz --file Dockerfile"),
        ("-c https://h.example/a.tar.gz", "https://h.example/a.tar.gz --file Dockerfile"),
        (
            "-c https://a.blob.core.windows.net/c/x?sig=s",
            "https://a.blob.core.windows.net/c/x?sig=s --file Dockerfile",
        ),
        (
            "-c git://h.example/a/b.git",
            "git+https://h.example/a/b.git?submodules=false --file Dockerfile",
        ),
        (
            "-c git://h/a#refs/heads/main#abc --context-sub-path d",
            "git+https://h/a?submodules=false&ref=abc&subdir=d --file Dockerfile",
        ),
        (
            "-c git://h/a#refs/heads/main --git branch=v1,recurse-submodules=true,depth=1",
            "git+https://h/a?submodules=true&ref=v1 --file Dockerfile",
        ),
        (
            "-c git://h/a#refs/pull/1",
            "git+https://h/a?submodules=false&ref=refs/pull/1 --file Dockerfile",
        ),
    ] {
        let line = line_of(&format!("{flags} --no-push"), &[]).unwrap();
        let words = line.words.join(" ");
        let words = words.strip_suffix(" --no-cache").unwrap();
        assert_eq!(format!("{} {words}", line.context), want, "{flags}");
    }
}

#[test]
fn git_login_goes_to_the_host_of_the_repository() {
    for (variables, want) in [
        (&[("GIT_TOKEN", "t")][..], "Basic dDo="),
        (&[("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p")], "Basic dTpw"),
    ] {
        let line = line_of("--no-push -c git://h.example/a.git#main", variables).unwrap();
        let secret = "--secret id=GIT_AUTH_HEADER.h.example,env=RBUILD_GIT_AUTH_HEADER";
        assert!(line.words.join(" ").contains(secret));
        assert_eq!(line.variables, [("RBUILD_GIT_AUTH_HEADER".to_owned(), want.to_owned())]);
    }
    let http = line_of("--no-push -c git://h/a", &[("GIT_PULL_METHOD", "http")]).unwrap();
    assert_eq!(http.context, "git+http://h/a?submodules=false");
}

#[test]
fn each_flag_is_an_option_or_has_no_effect() {
    for (flags, want) in [
        ("", "…"),
        ("--target a", "--target a …"),
        ("--custom-platform linux/arm64", "--platform linux/arm64 …"),
        ("--reproducible --single-snapshot", "--reproducible --squash …"),
        ("--secret id=a,env=B --annotation k=v", "--annotation k=v --secret id=a,env=B …"),
        (
            "--compression zstd --compression-level 9",
            "--tag reg.example/app:1 --push --compression zstd \
          --compression-level 9 --no-cache",
        ),
        (
            "--image-format docker",
            "--tag reg.example/app:1 --output type=registry,oci-mediatypes=false --no-cache",
        ),
        (
            "--tar-path a,b.tar --no-push",
            "--tag reg.example/app:1 --output type=docker,\"dest=a,b.tar\" --no-cache",
        ),
        (
            "--oci-layout-path d",
            "--tag reg.example/app:1 --output type=oci,tar=false,dest=d --push --no-cache",
        ),
        (
            "--image-name-with-digest-file f",
            "--tag reg.example/app:1 --push --image-name-with-digest-file f --no-cache",
        ),
        ("--push-retry 9 --image-download-retry 3", "… --retry 9"),
        ("--push-retry 2", "…"),
        ("--push-ignore-immutable-tag-errors", "… --push-ignore-immutable-tag-errors"),
        ("--credential-helpers ecr --credential-helpers env", "… --credential-helpers ecr,env"),
        ("--credential-helpers=", "… --credential-helpers "),
        ("--log-format text", "… --progress plain"),
        ("--log-format json -v debug", "… --debug --progress json"),
        ("--log-format json -v warn", "… --progress none"),
        ("--log-timestamp", "… --progress plain"),
        ("--dryrun", "… --dry-run"),
        ("--snapshot-mode redo --use-new-run --cleanup --force --kaniko-dir /k", "…"),
        (
            "--pre-cleanup --preserve-context --image-fs-extract-retry 3 --compressed-caching=false",
            "…",
        ),
        ("--force-build-metadata --skip-unused-stages --cache-copy-layers --no-push-cache", "…"),
    ] {
        assert_eq!(added(flags), want.trim(), "{flags}");
    }
}

#[test]
fn caches_are_shared_as_they_were() {
    let usual = "--tag reg.example/app:1 --push";
    for (flags, want) in [
        (
            "--cache --cache-repo r.example/c --no-push-cache",
            "--cache-from type=registry,ref=r.example/c:rbuild,max-age=336h",
        ),
        (
            "--cache --cache-repo oci:/c --cache-ttl 6h",
            "--cache-from type=local,src=/c,max-age=6h --cache-to type=local,dest=/c,mode=max",
        ),
    ] {
        assert_eq!(added(flags), format!("{usual} {want}"), "{flags}");
    }
}

#[test]
fn registries_get_their_settings() {
    for (flags, want) in [
        ("--insecure", "--registry reg.example,http=auto"),
        ("--insecure --skip-tls-verify", "--registry reg.example,http=auto,insecure"),
        ("--insecure-registry a:5000", "--registry a:5000,http=auto"),
        (
            "--insecure-pull --skip-tls-verify-pull",
            "--registry *,http=auto,insecure --registry reg.example",
        ),
        ("--destination 10.0.0.5:5000/x", "--registry 10.0.0.5:5000,http=auto"),
        ("--registry-mirror m.example/hub", "--registry docker.io,mirror=m.example/hub"),
        (
            "--registry-mirror m --skip-default-registry-fallback --insecure-registry index.docker.io",
            "--registry docker.io,http=auto,mirror=m,only-mirrors",
        ),
        (
            "--registry-map gcr.io=a;gcr.io=b/c;quay.io=d",
            "--registry gcr.io,mirror=a,mirror=b/c --registry quay.io,mirror=d",
        ),
        ("--registry-certificate a=/ca.pem", "--registry a,ca=/ca.pem"),
        ("--registry-client-cert a=/c.pem,/k.pem", "--registry a,cert=/c.pem,key=/k.pem"),
    ] {
        let words = added(flags);
        assert_eq!(
            words
                .strip_prefix("… ")
                .unwrap_or(&words)
                .replace("--tag reg.example/app:1 --tag 10.0.0.5:5000/x --push --no-cache ", ""),
            want,
            "{flags}"
        );
    }
    let variables = [
        ("KANIKO_REGISTRY_MIRROR", "m"),
        ("KANIKO_REGISTRY_MAP", "quay.io=q"),
        ("KANIKO_NO_PUSH", "1"),
    ];
    let want = "--tag reg.example/app:1 --no-cache --registry docker.io,mirror=m --registry quay.io,mirror=q";
    assert_eq!(added_with("", &variables), want);
}

#[test]
fn effects_that_rbuild_does_not_have_are_errors() {
    for (flags, part) in [
        ("--context gs://b/x", "gcloud storage cat"),
        ("--bucket b", "gcloud storage cat"),
        ("--context https://a.blob.core.windows.net/c/x", "SAS token"),
        ("--context ftp://x", "kaniko's contexts are"),
        ("--dockerfile https://h/Dockerfile", "does not download Dockerfiles"),
        ("--git branch", "expected NAME=VALUE"),
        ("--context git://h/a --git insecure-skip-tls=true", "verifies certificates"),
        ("--materialize", "`rbuild build -o DIR`"),
        ("--ignore-path /x", "remove them in the same RUN"),
        ("--cache --cache-run-layers=false", "--no-cache-filter"),
        ("--target a,b", "a last"),
        ("--snapshot-mode never", "must be one of full, redo, time"),
        ("--compression xz", "must be one of gzip, zstd"),
        ("--push-retry many", "expected a number"),
        ("--digest-file https://h/x", "writes files only"),
        ("--registry-map a", "expected REGISTRY=MIRROR"),
        ("--cache --no-push", "specify --cache-repo"),
        ("--nonsense", "kaniko has no flag `--nonsense`"),
    ] {
        let words = added(flags);
        assert!(words.starts_with("error: ") && words.contains(part), "{flags}: {words}");
    }
    assert_eq!(
        line_of("", &[]),
        Err("you must provide --destination, or use --no-push".to_owned())
    );
}

#[test]
fn table_of_the_manual_has_every_flag() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kaniko.md"));
    for flag in FLAGS {
        assert!(
            page.contains(&format!("`--{}`", flag.name)),
            "--{} is not in docs/kaniko.md",
            flag.name
        );
    }
}
