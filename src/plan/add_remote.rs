//! ADD of URLs and git repositories: their sources and the flags for them
//! (<https://docs.docker.com/reference/dockerfile/#add>).

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir;

use super::stage_state::StageState;
use super::{GitSource, PlannedSource, Remote, RemoteCopySource, parse_remote, redacted};

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Minimum number of digits of an abbreviated commit in `--checksum`.
const MIN_COMMIT_DIGITS: usize = 7;

/// Parses a source that is fetched; returns `None` for a path.
pub(super) fn source(text: &str, span: Span, keyword: &str) -> Result<Option<RemoteCopySource>> {
    let bad = |message| Box::new(Diagnostic::error(codes::BAD_ARGUMENT, span, message));
    let source = match parse_remote(text) {
        Ok(None) => return Ok(None),
        Ok(Some(source)) => source,
        Err(error) => {
            let error = bad(format!("invalid git reference: {error}"));
            return Err(Box::new(error.help(
                "write URL.git#REF:DIRECTORY or URL.git?ref=REF&subdir=DIRECTORY, \
                 and give each value only once",
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
    Ok(Some(RemoteCopySource { source, shown, checksum: None, unpack: false, span }))
}

/// Applies `--checksum`, `--keep-git-dir` and `--unpack` of an ADD to its sources.
pub(super) fn apply_flags(
    state: &StageState,
    add: &ir::Add,
    parts: &mut [PlannedSource],
) -> Result<()> {
    if let Some(word) = &add.checksum {
        let checksum = state.expand(word)?;
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
                    Box::new(error.label(word.span, "not a git repository"))
                }
                Some(ir::CopySource::Heredoc(_)) | None => error,
            });
        }
    }
    if let Some(unpack) = add.unpack {
        for part in parts {
            if let PlannedSource::Remote(remote) = part
                && matches!(remote.source, Remote::Url(_))
            {
                remote.unpack = unpack.value;
            }
        }
    }
    Ok(())
}

fn repository(part: &mut PlannedSource) -> Option<&mut GitSource> {
    match part {
        PlannedSource::Remote(RemoteCopySource { source: Remote::Git(git), .. }) => Some(git),
        PlannedSource::Remote(_) | PlannedSource::Path { .. } | PlannedSource::Inline { .. } => {
            None
        }
    }
}

fn bad_flag(span: Span, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(codes::BAD_FLAG, span, message.into()))
}

fn apply_checksum(checksum: &str, span: Span, parts: &mut [PlannedSource]) -> Result<()> {
    if checksum.is_empty() {
        return Ok(());
    }
    let [part] = parts else {
        return Err(bad_flag(span, "checksum can't be specified for multiple sources"));
    };
    let PlannedSource::Remote(remote) = part else {
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
                let message = format!("invalid checksum: `{checksum}` is not a commit");
                let error = bad_flag(span, message);
                let help = format!(
                    "give the commit of the git repository, or at least its first \
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
