//! Git repositories: resolves references, and checks out the files of a commit.
//!
//! Runs the program `git` with an environment and configuration of its own (git-config(1)). User
//! and system configuration are ignored, no hooks or credential helpers run, nothing prompts, and
//! only http, https, ssh and git:// are allowed. Credentials are passed in the environment, so that
//! no process list and no file of the checkout contains them.

mod command;
mod error;
mod files;

use std::path::{Path, PathBuf};

use crate::diag;
use crate::pathio;

pub use command::{GitSettings, SpaceError};
pub use error::GitError;
pub use files::directory_in;

use command::Git;

type Result<T> = std::result::Result<T, GitError>;

/// A repository and the wanted revision.
#[derive(Debug, Clone, Copy)]
pub struct GitRequest<'a> {
    /// The address, including credentials.
    pub remote: &'a str,
    /// The address for messages, without secrets.
    pub shown: &'a str,
    /// A branch, tag, full reference name, or commit. `None` is the default branch.
    pub reference: Option<&'a str>,
    /// The expected commit, or a prefix of it.
    pub checksum: Option<&'a str>,
    /// True if the commit itself is fetched, not the reference.
    pub fetch_by_commit: bool,
}

/// A reference, resolved to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The full hash of the commit.
    pub commit: String,
    /// The full reference name. `None` if the commit itself was requested.
    pub reference: Option<String>,
}

/// Options of a checkout.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutOptions {
    /// True if `.git` is kept.
    pub keep_git_dir: bool,
    /// True if submodules are checked out.
    pub submodules: bool,
    /// Modification time of the files. `None` is the commit's time.
    pub mtime_s: Option<i64>,
}

/// Returns the commit of the request, if it is known without contacting the repository.
#[must_use]
pub fn certain_commit<'a>(request: &GitRequest<'a>) -> Option<&'a str> {
    let full = |text: &&str| is_commit(text);
    request.checksum.filter(full).or_else(|| request.reference.filter(full))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Resolves the reference of the request, by contacting the repository if necessary.
///
/// # Errors
/// [`GitError::NoReference`]; [`GitError::Checksum`] if the commit does not match;
/// [`GitError::Failed`] and others if git fails.
pub fn resolve(request: &GitRequest<'_>, settings: &GitSettings<'_>) -> Result<Revision> {
    let by_commit = match (request.reference, request.checksum.filter(|text| is_commit(text))) {
        (None, Some(commit)) => Some(commit),
        (Some(_), Some(commit)) if request.fetch_by_commit => Some(commit),
        (Some(reference), _) if is_commit(reference) => Some(reference),
        _ => None,
    };
    let (revision, tag) = match by_commit {
        Some(commit) => (Revision { commit: commit.to_ascii_lowercase(), reference: None }, None),
        None => ask(request, settings)?,
    };
    if let Some(want) = request.checksum {
        let fits = |name: &String| name.starts_with(&want.to_ascii_lowercase());
        if !fits(&revision.commit) && !tag.as_ref().is_some_and(fits) {
            let (want, got) = (want.to_owned(), revision.commit);
            return Err(GitError::Checksum { remote: request.shown.to_owned(), want, got });
        }
    }
    Ok(revision)
}

/// Looks up the reference with `git ls-remote`. Returns the revision, and the annotated tag that
/// led to it, if any.
fn ask(request: &GitRequest<'_>, settings: &GitSettings<'_>) -> Result<(Revision, Option<String>)> {
    let git = Git::new(request, settings)?;
    let wanted = request.reference.unwrap_or("HEAD");
    let peeled = format!("{wanted}^{{}}");
    let list = git.output(
        None,
        "read the references of",
        &["ls-remote", "--", git.address(), wanted, &peeled],
    )?;
    if let Some(found) = choose(&list, wanted) {
        return Ok(found);
    }
    let all = git.output(None, "read the references of", &["ls-remote", "--", git.address()])?;
    let short = |name: &str| {
        let name = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"));
        name.filter(|name| !name.ends_with("^{}")).map(str::to_owned)
    };
    let names: Vec<String> = references(&all).filter_map(|(_, name)| short(name)).collect();
    let nearest = diag::nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned);
    let (remote, reference) = (request.shown.to_owned(), wanted.to_owned());
    Err(GitError::NoReference { remote, reference, nearest })
}

/// Splits the lines of git-ls-remote(1) into object and reference name.
fn references(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.lines().filter_map(|line| line.split_once('\t'))
}

/// Chooses a reference in the order of gitrevisions(7): a full name, then a branch, then a tag.
fn choose(list: &str, wanted: &str) -> Option<(Revision, Option<String>)> {
    let full = |prefix: &str| {
        let rest = wanted.strip_prefix(prefix).unwrap_or(wanted);
        format!("{prefix}{rest}")
    };
    let object = |name: &str| {
        let (object, _) = references(list).find(|(_, found)| *found == name)?;
        is_commit(object).then(|| object.to_owned())
    };
    let names = [wanted.to_owned(), full("refs/"), full("refs/heads/"), full("refs/tags/")];
    names.into_iter().find_map(|name| {
        let found = object(&name)?;
        let peeled = object(&format!("{name}^{{}}"));
        let tag = peeled.is_some().then(|| found.clone());
        Some((Revision { commit: peeled.unwrap_or(found), reference: Some(name) }, tag))
    })
}

/// Checks out a revision into the empty directory `into`, with modes 0644 and 0755, and fetches as
/// little history as the server allows. Returns the commit's time.
///
/// # Errors
/// [`GitError`]. Files that were fetched before stay behind.
pub fn checkout(
    request: &GitRequest<'_>,
    revision: &Revision,
    options: &CheckoutOptions,
    into: &Path,
    settings: &GitSettings<'_>,
) -> Result<i64> {
    let git = Git::new(request, settings)?;
    let format = if revision.commit.len() == 64 { "sha256" } else { "sha1" };
    let prepare = "prepare a checkout of";
    git.output(Some(into), prepare, &["init", "-q", "--object-format", format])?;
    git.output(Some(into), prepare, &["remote", "add", "origin", git.address()])?;
    fetch(&git, revision, options, into)?;
    git.check_size(into, &revision.commit)?;
    git.output(Some(into), "check out", &["checkout", "-q", "-f", "--detach", &revision.commit])?;
    if options.submodules && exists(&into.join(".gitmodules")) {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive", "--force"];
        let shallow: Vec<&str> = update.iter().copied().chain(["--depth=1"]).collect();
        let what = "fetch the submodules of";
        git.output(Some(into), what, &shallow).or_else(|error| {
            if matches!(error, GitError::Failed { .. }) {
                git.output(Some(into), what, &update)
            } else {
                Err(error)
            }
        })?;
    }
    let time = git.output(
        Some(into),
        "read",
        &["show", "-s", "--no-show-signature", "--format=%ct", &revision.commit],
    )?;
    let commit_s = time.trim().parse().unwrap_or(0);
    if options.keep_git_dir {
        remove_fetch_traces(into)?;
    }
    files::normalize(into, options.keep_git_dir, options.mtime_s.unwrap_or(commit_s))?;
    Ok(commit_s)
}

/// Fetches the commit: by its reference, or else by its hash, or else with all branches and tags.
fn fetch(git: &Git<'_>, revision: &Revision, options: &CheckoutOptions, into: &Path) -> Result<()> {
    let base = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--force"];
    let is_there = || {
        let name = format!("{}^{{commit}}", revision.commit);
        git.output(Some(into), "read", &["cat-file", "-e", &name]).is_ok()
    };
    let by_name = revision.reference.as_ref().map(|name| match name.strip_prefix("refs/heads/") {
        Some(branch) if options.keep_git_dir => format!("{name}:refs/remotes/origin/{branch}"),
        None if options.keep_git_dir && name.starts_with("refs/tags/") => format!("{name}:{name}"),
        _ => name.clone(),
    });
    for spec in by_name.into_iter().chain([revision.commit.clone()]) {
        let arguments = base.iter().copied().chain(["--depth=1", "--", "origin", &spec]);
        match git.output(Some(into), "fetch", &arguments.collect::<Vec<_>>()) {
            Ok(_) if is_there() => return Ok(()),
            // The reference has moved, or the server does not send single commits (git-config(1),
            // `uploadpack.allowReachableSHA1InWant`).
            Ok(_) | Err(GitError::Failed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let all = ["--", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
    let arguments: Vec<&str> = base.iter().copied().chain(all).collect();
    git.output(Some(into), "fetch", &arguments)?;
    if is_there() {
        return Ok(());
    }
    let (remote, reference) = (git.shown().to_owned(), revision.commit.clone());
    Err(GitError::NoReference { remote, reference, nearest: None })
}

fn exists(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}

/// Removes traces of the fetch, which would differ between builds.
fn remove_fetch_traces(into: &Path) -> Result<()> {
    let git_dir: PathBuf = into.join(".git");
    for file in ["FETCH_HEAD", "ORIG_HEAD"] {
        pathio::remove_file(&git_dir.join(file))?;
    }
    Ok(pathio::remove_dir_all(&git_dir.join("logs"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

    #[test]
    fn references_are_chosen_as_git_checkout_does() {
        let list = format!(
            "{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/heads/v1\n{C}\trefs/tags/v1\n\
             {C}\trefs/tags/v2\n{A}\trefs/tags/v2^{{}}\n{B}\trefs/pull/1/head\n"
        );
        for (wanted, want) in [
            ("HEAD", Some((A, "HEAD", None))),
            ("main", Some((A, "refs/heads/main", None))),
            ("v1", Some((B, "refs/heads/v1", None))),
            ("refs/tags/v1", Some((C, "refs/tags/v1", None))),
            ("tags/v1", Some((C, "refs/tags/v1", None))),
            ("v2", Some((A, "refs/tags/v2", Some(C)))),
            ("pull/1/head", Some((B, "refs/pull/1/head", None))),
            ("v3", None),
            ("ain", None),
        ] {
            let want = want.map(|(commit, name, tag)| {
                let reference = Some(name.to_owned());
                (Revision { commit: commit.to_owned(), reference }, tag.map(str::to_owned))
            });
            assert_eq!(choose(&list, wanted), want, "{wanted}");
        }
    }
}
