//! Options of docker, buildah, podman and kaniko that rbuild names differently, does not need, or does
//! not have.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options with one meaning, and the hint for them.
type Row = (&'static [&'static str], &'static str);

/// Options that have no effect here, and the reason.
const UNNEEDED: &[Row] = &[
    (&["--layers", "--cache"], "steps are always cached; `--no-cache` rebuilds all of them"),
    (&["--runtime", "--runtime-flag"], "RUN always runs in the sandbox of rbuild"),
    (
        &["--snapshot-mode", "--snapshotMode", "--use-new-run"],
        "the layer of a RUN is what it wrote, found without snapshots",
    ),
    (
        &[
            "--cleanup",
            "--pre-cleanup",
            "--preserve-context",
            "--kaniko-dir",
            "--image-fs-extract-retry",
        ],
        "rbuild does not build in its own root directory",
    ),
    (
        &["--push-retry", "--image-download-retry", "--retry", "--retry-delay"],
        "failed transfers are always retried",
    ),
    (
        &["--cache-copy-layers", "--cache-run-layers", "--compressed-caching", "--no-push-cache"],
        "every step is cached in the store; use --cache-to to share the cache",
    ),
    (&["--disable-content-trust"], "digests are always checked"),
    (&["--stdin"], "RUN has no standard input"),
    (&["--no-prune"], "`rbuild rmi` removes names only"),
    (&["--tmpdir"], "temporary files are in the store: --root DIR"),
    (&["--no-push"], "nothing is pushed without --push"),
];

/// Options that have another name here.
const RENAMED: &[Row] = &[
    (
        &[
            "--insecure",
            "--insecure-pull",
            "--insecure-registry",
            "--skip-tls-verify",
            "--skip-tls-verify-pull",
            "--skip-tls-verify-registry",
            "--tls-verify",
        ],
        "--registry HOST,insecure (any certificate) or --registry HOST,http",
    ),
    (
        &["--registry-certificate", "--cert-dir", "--registry-client-cert"],
        "--registry HOST,ca=FILE, with cert=FILE and key=FILE for a client certificate",
    ),
    (
        &["--registry-mirror", "--registry-map"],
        "--registry HOST,mirror=URL, or mirrors in registries.toml",
    ),
    (&["--creds", "--authfile"], "`rbuild login`, or DOCKER_CONFIG=DIR"),
    (&["--dockerfile"], "-f FILE"),
    (&["--destination", "-d"], "-t NAME with --push"),
    (&["--context", "--context-sub-path"], "the directory or URL after all options"),
    (&["--digest-file"], "--metadata-file FILE, as `containerimage.digest`"),
    (
        &["--image-name-with-digest-file", "--image-name-tag-with-digest-file"],
        "--metadata-file FILE, which has names and digest",
    ),
    (&["--tar-path", "--tarPath"], "-o type=docker,dest=FILE"),
    (&["--oci-layout-path"], "-o type=oci,tar=false,dest=DIR"),
    (&["--custom-platform", "--customPlatform", "--arch", "--os"], "--platform OS/ARCH"),
    (&["--compression-format"], "--compression"),
    (&["--cache-repo"], "--cache-from and --cache-to with type=registry,ref=NAME"),
    (&["--cache-ttl"], "`rbuild prune --older-than DURATION`"),
    (&["--cache-dir"], "--root DIR"),
    (&["--timestamp"], "--reproducible with --build-arg SOURCE_DATE_EPOCH=SECONDS"),
    (&["--image-format"], "-o …,oci-mediatypes=false for docker's media types"),
    (&["--log-format", "--verbosity", "--logfile", "--log-level"], "--progress=plain or =json"),
    (&["--dryrun"], "`rbuild plan`, or --dry-run"),
    (&["--materialize"], "-o type=local,dest=DIR"),
    (&["--volumes"], "`rbuild prune --all`, which removes the caches of RUN --mount"),
    (&["--all-tags"], "each tag by its name"),
    (&["--pull-always", "--pull-never"], "--pull, and --offline for never"),
    (&["--manifest"], "--platform A,B, which makes one index"),
    (&["--all-platforms"], "--platform A,B"),
    (&["--ignorefile"], "the file Dockerfile.dockerignore beside the Dockerfile"),
    (&["--build-arg-file"], "one --build-arg NAME=VALUE for each"),
    (&["--volume", "-v"], "RUN --mount=type=bind in the Dockerfile (the version is `-V`)"),
];

/// Options without a counterpart, and the reason.
const ABSENT: &[Row] = &[
    (&["--sbom-output", "--sign-by"], "rbuild does not create attestations or signatures"),
    (
        &["--squash", "--squash-all", "--single-snapshot"],
        "each step has a layer; copy from one stage to another for fewer",
    ),
    (
        &["--cap-add", "--cap-drop", "--device"],
        "RUN has docker's default capabilities; `RUN --security=insecure` with --allow \
         security.insecure has all of them",
    ),
    (&["--dns", "--dns-search", "--dns-option"], "steps use the name servers of the machine"),
    (
        &["--env", "--unsetenv", "--unsetlabel", "--inherit-labels", "--from"],
        "use ENV, LABEL or FROM in the Dockerfile",
    ),
    (&["--policy", "--source-policy-file"], "`rbuild lock` pins what a build fetches"),
    (&["--userns", "--uts", "--ipc", "--pid", "--cgroupns"], "RUN has its own namespaces"),
    (
        &["--ignore-path", "--ignore-var-run"],
        "files that a step writes are in the image; remove them in the same RUN",
    ),
    (
        &["--skip-push-permission-check", "--push-ignore-immutable-tag-errors"],
        "a refused push is an error",
    ),
    (&["--skip-default-registry-fallback"], "--offline uses no registry at all"),
    (&["--credential-helpers"], "the credential helpers of docker's config.json are used"),
];

/// Returns a hint for an option of another tool.
fn tip(option: &str) -> Option<String> {
    let find = |rows: &[Row]| {
        rows.iter().find_map(|(names, text)| names.contains(&option).then_some(*text))
    };
    find(UNNEEDED)
        .map(|why| format!("rbuild does not need `{option}`, leave it out: {why}"))
        .or_else(|| find(RENAMED).map(|name| format!("instead of `{option}`, use: {name}")))
        .or_else(|| find(ABSENT).map(|why| format!("rbuild has no `{option}`: {why}")))
}

/// Adds a hint to an error about an option of another tool, in place of similarly spelled options.
pub(crate) fn explained(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let name = option.split('=').next().unwrap_or(option);
    let Some(tip) = Some(name).filter(|_| error.kind() == ErrorKind::UnknownArgument).and_then(tip)
    else {
        return error;
    };
    // The usage line would be that of a similarly spelled option.
    for kind in [ContextKind::SuggestedArg, ContextKind::Suggested, ContextKind::Usage] {
        error.remove(kind);
    }
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::args;

    #[test]
    fn options_of_other_tools_are_explained_once_and_are_not_rbuilds() {
        let command = args::command();
        let build = command.find_subcommand("build").unwrap();
        let known: Vec<String> = build
            .get_arguments()
            .chain(command.get_arguments())
            .flat_map(|arg| {
                let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
                let longs = longs.into_iter().map(|name| format!("--{name}"));
                longs.chain(arg.get_short().map(|short| format!("-{short}"))).collect::<Vec<_>>()
            })
            .collect();
        let mut seen = BTreeSet::new();
        for (names, text) in [UNNEEDED, RENAMED, ABSENT].into_iter().flatten() {
            assert!(!text.is_empty());
            for name in *names {
                assert!(seen.insert(name), "{name} is there twice");
                assert!(!known.iter().any(|own| own == name), "{name} is an option of rbuild");
            }
        }
    }

    #[test]
    fn error_names_what_rbuild_has() {
        for (typed, part) in [
            ("--stdin", "rbuild does not need `--stdin`, leave it out"),
            ("--sign-by", "rbuild has no `--sign-by`: rbuild does not create attestations"),
            ("--insecure", "instead of `--insecure`, use: --registry HOST,insecure"),
            ("--layers", "rbuild does not need `--layers`"),
            ("-d", "-t NAME with --push"),
            ("-v", "the version is `-V`"),
        ] {
            let words = ["rbuild", "build", typed, "."].map(Into::into);
            let text = args::parse(words).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("similar") && !text.contains("as a value"), "{text}");
        }
        let text = args::parse(["rbuild", "build", "--labell", "."].map(Into::into)).unwrap_err();
        assert!(text.to_string().contains("'--label'"), "{text}");
    }
}
