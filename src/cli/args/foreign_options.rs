//! Options of docker, buildah, podman and kaniko that rbuild names differently, does not need, or does
//! not have.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options with one meaning, and the hint for them.
type Row = (&'static [&'static str], &'static str);

/// Options that have no effect here, and the reason.
const UNNEEDED: &[Row] = &[
    (&["--cache"], "steps are always cached; `--no-cache` rebuilds all of them"),
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
        &["--cache-copy-layers", "--cache-run-layers", "--compressed-caching", "--no-push-cache"],
        "every step is cached in the store; use --cache-to to share the cache",
    ),
    (&["--disable-content-trust"], "digests are always checked"),
    (&["--stdin"], "RUN has no standard input"),
    (&["--no-prune"], "`rbuild rmi` removes names only"),
    (&["--tmpdir"], "temporary files are in the store: --root DIR"),
    (&["--no-push"], "nothing is pushed without --push"),
    (
        &["--identity-label", "--omit-history", "--save-stages", "--stage-labels", "--layer-label"],
        "images have the labels and history of their Dockerfile, and stages stay in the cache",
    ),
    (&["--logsplit"], "the log names the platform of each step"),
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
        ],
        "--registry HOST,insecure (any certificate) or --registry HOST,http",
    ),
    (
        &["--registry-certificate", "--registry-client-cert"],
        "--registry HOST,ca=FILE, with cert=FILE and key=FILE for a client certificate",
    ),
    (
        &["--registry-mirror", "--registry-map"],
        "--registry HOST,mirror=HOST/PATH, or mirrors in registries.toml",
    ),
    (&["--dockerfile"], "-f FILE"),
    (&["--push-retry", "--image-download-retry"], "--retry N"),
    (&["--single-snapshot"], "--squash"),
    (&["--destination", "-d"], "-t NAME with --push"),
    (&["--context", "--context-sub-path"], "the directory or URL after all options"),
    (&["--tar-path", "--tarPath"], "-o type=docker,dest=FILE"),
    (&["--oci-layout-path"], "-o type=oci,tar=false,dest=DIR"),
    (&["--custom-platform", "--customPlatform", "--arch", "--os"], "--platform OS/ARCH"),
    (&["--compression-format"], "--compression"),
    (&["--cache-repo"], "--cache-from and --cache-to with type=registry,ref=NAME"),
    (&["--cache-ttl"], "max-age= of --cache-from and --cache-to"),
    (&["--skip-default-registry-fallback"], "--registry HOST,mirror=…,only-mirrors"),
    (&["--cache-dir"], "--root DIR"),
    (&["--image-format"], "-o …,oci-mediatypes=false for docker's media types"),
    (&["--log-format", "--verbosity", "--log-level"], "--progress=plain or =json"),
    (&["--dryrun"], "`rbuild plan`, or --dry-run"),
    (&["--materialize"], "-o type=local,dest=DIR"),
    (&["--volumes"], "`rbuild prune --all`, which removes the caches of RUN --mount"),
    (&["--all-tags"], "each tag by its name"),
    (&["--pull-always", "--pull-never"], "--pull, and --offline for never"),
    (&["--manifest"], "--platform A,B, which makes one index"),
    (&["--all-platforms"], "--platform A,B"),
];

/// Options without a counterpart, and the reason.
const ABSENT: &[Row] = &[
    (&["--cw"], "rbuild does not make images of confidential workloads; use buildah for them"),
    (&["--hooks-dir"], "no runtime of the OCI, which would call hooks, runs the steps"),
    (
        &["--decryption-key"],
        "rbuild does not read encrypted images; decrypt them with skopeo first",
    ),
    (
        &["--compat-volumes"],
        "changes below a VOLUME are kept, as in docker; remove them in the same RUN",
    ),
    (&["--cpp-flag"], "rbuild does not preprocess Dockerfiles; run `cpp -E` first, and use -f -"),
    (&["--group-add"], "steps have the groups of their user in /etc/group of the image"),
    (&["--iidfile-raw"], "use --iidfile, and remove `sha256:` from the text"),
    (
        &[
            "--userns-uid-map",
            "--userns-gid-map",
            "--userns-uid-map-user",
            "--userns-gid-map-group",
        ],
        "the subordinate ids of /etc/subuid and /etc/subgid are used",
    ),
    (
        &["--unsetannotation", "--inherit-annotations"],
        "annotations of base images are not taken over; leave out --annotation",
    ),
    (&["--sbom-output", "--sign-by"], "rbuild does not create attestations or signatures"),
    (
        &["--device"],
        "RUN has docker's default capabilities; `RUN --security=insecure` with --allow \
         security.insecure has all of them",
    ),
    (&["--policy", "--source-policy-file"], "`rbuild lock` pins what a build fetches"),
    (&["--userns", "--uts", "--ipc", "--pid", "--cgroupns"], "RUN has its own namespaces"),
    (
        &["--ignore-path", "--ignore-var-run"],
        "files that a step writes are in the image; remove them in the same RUN",
    ),
    (&["--skip-push-permission-check"], "the right to push is checked with --check-push only"),
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
            ("--cache", "rbuild does not need `--cache`"),
            ("-d", "-t NAME with --push"),
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
