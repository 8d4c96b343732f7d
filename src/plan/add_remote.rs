//! ADD of what is fetched: which sources are, and the flags that are for them alone.

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir;

use super::fold::Fold;
use super::{CopyPart, GitSource, Remote, RemotePart, parse_remote, redacted};

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// The shortest beginning of a commit that `--checksum` may give.
const MIN_COMMIT_DIGITS: usize = 7;

/// The source if it is fetched; `None` when it is a path.
pub(super) fn part(text: &str, span: Span, keyword: &str) -> Result<Option<RemotePart>> {
    let bad = |message| Box::new(Diagnostic::error(codes::BAD_ARGUMENT, span, message));
    let source = match parse_remote(text) {
        Ok(None) => return Ok(None),
        Ok(Some(source)) => source,
        Err(error) => {
            let error = bad(format!("invalid git reference: {error}"));
            return Err(Box::new(error.help(
                "write URL.git#REF:DIRECTORY, or URL.git?ref=REF&subdir=DIRECTORY, \
                 and each thing only once",
            )));
        }
    };
    if keyword == "COPY" {
        let kind = match source {
            Remote::Url(_) => "a URL",
            Remote::Git(_) => "a git ref",
        };
        let error = bad(format!("source can't be {kind} for COPY"));
        return Err(Box::new(error.help("ADD takes URLs and git repositories")));
    }
    let shown = redacted(text);
    Ok(Some(RemotePart { source, shown, checksum: None, unpack: false, span }))
}

/// The instruction's text without credentials.
pub(super) fn shown(text: &str) -> String {
    redacted(text)
}

/// Gives the sources the flags of their ADD that are about fetching.
pub(super) fn apply_flags(fold: &Fold, add: &ir::Add, parts: &mut [CopyPart]) -> Result<()> {
    if let Some(word) = &add.checksum {
        let checksum = fold.expand(word)?;
        apply_checksum(&checksum, word.span, parts)?;
    }
    if let Some(keep) = add.keep_git_dir {
        let mut n_repositories = 0;
        for git in parts.iter_mut().filter_map(repository) {
            n_repositories += 1;
            if git.keep_git_dir.is_some_and(|other| other != keep.value) {
                let message = "inconsistent keep-git-dir configuration: \
                               the flag and the URL's query differ";
                return Err(bad_flag(keep.span, message));
            }
            git.keep_git_dir = Some(keep.value);
        }
        if n_repositories == 0 && keep.value {
            let message = "--keep-git-dir is only for git sources";
            let error = bad_flag(keep.span, message);
            return Err(match add.sources.first() {
                Some(ir::CopySource::Path(word)) => {
                    Box::new(error.label(word.span, "this is no git repository"))
                }
                Some(ir::CopySource::Heredoc(_)) | None => error,
            });
        }
    }
    if let Some(unpack) = add.unpack {
        for part in parts {
            if let CopyPart::Remote(remote) = part
                && matches!(remote.source, Remote::Url(_))
            {
                remote.unpack = unpack.value;
            }
        }
    }
    Ok(())
}

fn repository(part: &mut CopyPart) -> Option<&mut GitSource> {
    match part {
        CopyPart::Remote(RemotePart { source: Remote::Git(git), .. }) => Some(git),
        CopyPart::Remote(_) | CopyPart::Path { .. } | CopyPart::Inline { .. } => None,
    }
}

fn bad_flag(span: Span, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(codes::BAD_FLAG, span, message.into()))
}

fn apply_checksum(checksum: &str, span: Span, parts: &mut [CopyPart]) -> Result<()> {
    if checksum.is_empty() {
        return Ok(());
    }
    let [part] = parts else {
        return Err(bad_flag(span, "checksum can't be specified for multiple sources"));
    };
    let CopyPart::Remote(remote) = part else {
        let error = bad_flag(span, "checksum can't be specified for local sources");
        return Err(Box::new(error.help("--checksum is for URLs and git repositories")));
    };
    match &mut remote.source {
        Remote::Url(_) => {
            let digest = checksum.parse().map_err(|error: crate::oci::DigestError| {
                bad_flag(span, format!("invalid checksum digest format: {error}"))
            })?;
            remote.checksum = Some(digest);
        }
        Remote::Git(git) => {
            let is_hex = checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hex || checksum.len() < MIN_COMMIT_DIGITS {
                let message = format!("invalid checksum: `{checksum}` is no commit");
                let error = bad_flag(span, message);
                let help = format!(
                    "of a repository it is the commit's name, or at least its first \
                     {MIN_COMMIT_DIGITS} hex digits"
                );
                return Err(Box::new(error.help(help)));
            }
            let checksum = checksum.to_ascii_lowercase();
            if let Some(other) = git.checksum.replace(checksum.clone())
                && other != checksum
            {
                let message = format!("checksum mismatch \"{other}\" != \"{checksum}\"");
                return Err(bad_flag(span, message));
            }
        }
    }
    Ok(())
}
