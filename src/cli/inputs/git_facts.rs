//! Facts about the git repository of a context: its newest commit, and the labels of
//! `BUILDX_GIT_LABELS` ([Buildx](https://docs.docker.com/build/building/variables/#buildx_git_labels)).

use std::path::Path;

use crate::cli::args::build::BuildArgs;
use crate::cli::environment::Environment;
use crate::pathio::program;

/// Maximum length of an answer of git: a time, a commit, an address, a path.
const MAX_ANSWER_BYTES: u64 = 16 << 10;

/// Label of the Dockerfile's path in the repository.
const ENTRYPOINT: &str = "com.docker.image.source.entrypoint";
/// Labels of the OCI (image-spec, annotations.md, "Pre-Defined Annotation Keys").
const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";

/// Returns the Unix time of the newest commit of the repository at `context`.
pub(crate) fn newest_commit(context: &Path) -> Option<i64> {
    let log = ["log", "-1", "--no-show-signature", "--no-mailmap", "--format=%ct"];
    git(context, &log)?.parse().ok()
}

/// Returns the labels that name commit, repository and Dockerfile, if `BUILDX_GIT_LABELS` asks for them and
/// the context is in a repository.
pub(crate) fn labels(
    args: &BuildArgs,
    environment: &Environment,
    context: &Path,
) -> Vec<(String, String)> {
    let is_wanted = environment.is_true("BUILDX_GIT_LABELS")
        || environment.get("BUILDX_GIT_LABELS") == Some("full");
    if !is_wanted {
        return Vec::new();
    }
    let ask = |args: &[&str]| git(context, args);
    let Some(top) = ask(&["rev-parse", "--show-toplevel"]) else { return Vec::new() };
    let mut labels = Vec::new();
    let commit = ask(&["rev-parse", "--verify", "HEAD"]);
    labels.extend(commit.map(|commit| (REVISION.to_owned(), commit)));
    if let Some(address) = ask(&["remote", "get-url", "origin"]) {
        labels.push((SOURCE.to_owned(), without_login(&address)));
    }
    let file = args.file.clone().unwrap_or_else(|| Path::new(&args.context).join("Dockerfile"));
    let inside = file.canonicalize().ok();
    let inside = inside.as_deref().and_then(|file| file.strip_prefix(top).ok());
    labels.extend(inside.map(|path| (ENTRYPOINT.to_owned(), path.to_string_lossy().into_owned())));
    labels
}

/// Removes user and password from a URL.
fn without_login(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_login, host)| host);
    format!("{scheme}://{host}/{path}")
}

/// Runs git in a directory. Returns its output without the last line end, if it succeeds.
#[expect(clippy::disallowed_methods, reason = "git reads its own format")]
fn git(directory: &Path, args: &[&str]) -> Option<String> {
    // The configuration of the repository is untrusted: it must not start a program, as `gpg.program`,
    // `core.fsmonitor` and the fetching of missing objects would (git-config(1)).
    let mut git = std::process::Command::new("git");
    git.env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_NO_LAZY_FETCH", "1")
        .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C"])
        .arg(directory)
        .arg("--no-pager")
        .args(args);
    let (status, said) = program::stdout_of(&mut git, MAX_ANSWER_BYTES).ok()?;
    if !status.success() {
        return None;
    }
    Some(String::from_utf8(said).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::without_login;

    #[test]
    fn addresses_lose_logins() {
        for (address, want) in [
            ("https://user:secret@git.example/a/b.git", "https://git.example/a/b.git"),
            ("https://git.example/a", "https://git.example/a"),
            ("git@git.example:a/b.git", "git@git.example:a/b.git"),
        ] {
            assert_eq!(without_login(address), want);
        }
    }
}
