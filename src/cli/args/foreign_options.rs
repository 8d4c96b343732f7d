//! Options of docker, buildah, podman and kaniko that rbuild calls otherwise, does not need, or does
//! not have.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options with one meaning, and what to do in rbuild.
type Row = (&'static [&'static str], &'static str);

/// Options that change nothing here.
const UNNEEDED: &[Row] = &[
    (&["--rm", "--force-rm"], "a build leaves no containers behind"),
    (&["--layers", "--cache"], "steps are always cached; `--no-cache` builds them all again"),
    (
        &["--isolation", "--runtime", "--runtime-flag"],
        "a RUN always runs in a sandbox of rbuild's own",
    ),
    (
        &["--snapshot-mode", "--snapshotMode", "--use-new-run"],
        "the layer of a RUN is what it wrote, found without a snapshot",
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
        "transfers that fail are tried again anyway",
    ),
    (
        &["--cache-copy-layers", "--cache-run-layers", "--compressed-caching", "--no-push-cache"],
        "every step is cached in the store; a cache for others is --cache-to",
    ),
    (&["--compress"], "the context is read where it is, and goes nowhere"),
    (&["--http-proxy"], "proxy variables of the environment reach RUN steps anyway"),
    (&["--builder"], "there is no daemon to choose"),
    (&["--disable-content-trust"], "digests are always checked"),
    (&["--stdin"], "a RUN reads nothing from standard input"),
    (&["--no-prune"], "`rbuild rmi` takes names away and removes nothing else"),
    (&["--tmpdir"], "what is temporary lies in the store: --root DIR"),
    (&["--no-push"], "nothing is pushed without --push"),
    (&["--debug", "-D"], "--progress=plain shows all output, --explain why steps are made"),
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
        "--registry HOST,ca=FILE, or with cert=FILE and key=FILE for a client's",
    ),
    (
        &["--registry-mirror", "--registry-map"],
        "--registry HOST,mirror=URL, or mirrors in registries.toml",
    ),
    (&["--creds", "--authfile"], "`rbuild login`, or DOCKER_CONFIG=DIR"),
    (&["--dockerfile"], "-f FILE"),
    (&["--destination", "-d"], "-t NAME with --push"),
    (&["--context", "-c", "--context-sub-path"], "the directory or URL behind all options"),
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
    (&["--print"], "--call=outline or --call=targets"),
    (&["--pull-always", "--pull-never"], "--pull, and --offline for never"),
    (&["--manifest"], "--platform A,B, which makes one index"),
    (&["--all-platforms"], "--platform A,B"),
    (&["--ignorefile"], "the file Dockerfile.dockerignore beside the Dockerfile"),
    (&["--build-arg-file"], "one --build-arg NAME=VALUE for each"),
    (&["--volume", "-v"], "RUN --mount=type=bind in the Dockerfile (the version is `-V`)"),
];

/// Options without a counterpart.
const ABSENT: &[Row] = &[
    (
        &["--provenance", "--sbom", "--attest", "--sbom-output", "--sign-by"],
        "it makes no attestations and signs nothing; leave it out, also with `=false`",
    ),
    (
        &["--squash", "--squash-all", "--single-snapshot"],
        "an image keeps a layer for each step; copy from one stage into another for fewer",
    ),
    (
        &[
            "--memory",
            "-m",
            "--memory-swap",
            "--cpu-shares",
            "--cpu-quota",
            "--cpu-period",
            "--cpuset-cpus",
            "--cpuset-mems",
            "--cgroup-parent",
            "--resource",
        ],
        "limits of memory and processors are those of rbuild itself: start it in a cgroup, as by \
         `systemd-run --scope -p MemoryMax=2G`; --ulimit limits each process",
    ),
    (
        &["--cap-add", "--cap-drop", "--security-opt", "--device"],
        "a RUN has docker's usual rights; `RUN --security=insecure` with --allow security.insecure \
         has all",
    ),
    (&["--dns", "--dns-search", "--dns-option"], "steps use the machine's name servers"),
    (
        &["--env", "--unsetenv", "--unsetlabel", "--inherit-labels", "--from"],
        "what the Dockerfile does not say stays; write ENV, LABEL or FROM there",
    ),
    (&["--no-cache-filter"], "`--no-cache` builds all steps again"),
    (&["--policy", "--source-policy-file"], "`rbuild lock` fixes what a build fetches"),
    (&["--userns", "--uts", "--ipc", "--pid", "--cgroupns"], "namespaces of a RUN are its own"),
    (
        &["--ignore-path", "--ignore-var-run"],
        "what a step writes is in the image; remove it in the same RUN",
    ),
    (
        &["--skip-push-permission-check", "--push-ignore-immutable-tag-errors"],
        "a push that is refused is an error",
    ),
    (&["--skip-default-registry-fallback"], "--offline asks no registry at all"),
    (&["--credential-helpers"], "helpers of docker's config.json are used"),
];

/// Returns what to do in place of an option that rbuild does not know.
fn tip(option: &str) -> Option<String> {
    let find = |rows: &[Row]| {
        rows.iter().find_map(|(names, text)| names.contains(&option).then_some(*text))
    };
    find(UNNEEDED)
        .map(|why| format!("rbuild does not need `{option}`, leave it out: {why}"))
        .or_else(|| find(RENAMED).map(|name| format!("for `{option}`, rbuild has: {name}")))
        .or_else(|| find(ABSENT).map(|why| format!("rbuild has no `{option}`: {why}")))
}

/// Lets an error about an option of another tool say what rbuild has in its place, and not which
/// option is spelt like it.
pub(crate) fn explained(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let name = option.split('=').next().unwrap_or(option);
    let Some(tip) = Some(name).filter(|_| error.kind() == ErrorKind::UnknownArgument).and_then(tip)
    else {
        return error;
    };
    // The usage would be that of the option which is spelt like it.
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
            ("--rm", "rbuild does not need `--rm`, leave it out"),
            ("--provenance=false", "rbuild has no `--provenance`: it makes no attestations"),
            ("--insecure", "for `--insecure`, rbuild has: --registry HOST,insecure"),
            ("--layers", "rbuild does not need `--layers`"),
            ("--isolation=chroot", "rbuild does not need `--isolation`"),
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
