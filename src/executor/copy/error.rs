//! Errors of COPY and ADD: the wrong source, and suggestions.

use crate::context::Context;
use crate::diag::{Diagnostic, Span, codes};
use crate::plan::{CopyFrom, CopyOperation, PlannedSource};
use crate::tree::{CopyError, TreePath};

use crate::executor::BuildError;
use crate::executor::state::BuildState;

/// Points at the wrong source, and says whether the ignore file excludes it or which path is
/// similar.
pub(in crate::executor) fn copy_error(
    state: &BuildState<'_>,
    operation: &CopyOperation,
    span: Span,
    error: &CopyError,
) -> BuildError {
    match error {
        CopyError::NotFound { source_index, path, nearest } => {
            let at = operation.parts.get(*source_index).and_then(|part| match part {
                PlannedSource::Path { span, .. } => Some(*span),
                PlannedSource::Inline { .. } | PlannedSource::Remote(_) => None,
            });
            let span = at.unwrap_or(span);
            let message = format!("`{path}` does not exist");
            let found = Diagnostic::error(codes::SOURCE_NOT_FOUND, span, message);
            let help = advice(state, &operation.from, path);
            let near = nearest.as_ref().map(|name| format!("did you mean `{name}`?"));
            found.label(span, place(&operation.from)).maybe_help(help.or(near)).into()
        }
        CopyError::FileOverDir { .. } => {
            let help = "a file goes into a directory when the destination ends with `/`";
            conflict(span, error).help(help).into()
        }
        CopyError::SeveralToOne { destination } => {
            let help = format!("end the destination with a slash: `{destination}/`");
            conflict(span, error).help(help).into()
        }
        CopyError::DanglingLink { .. }
        | CopyError::TooManyLinks { .. }
        | CopyError::BadPattern { .. }
        | CopyError::DirOverFile { .. }
        | CopyError::DirOverLink { .. }
        | CopyError::ThroughFile { .. } => conflict(span, error).into(),
    }
}

fn conflict(span: Span, error: &CopyError) -> Diagnostic {
    Diagnostic::error(codes::COPY_CONFLICT, span, error.to_string())
}

/// Returns a label that says which files were searched.
const fn place(from: &CopyFrom) -> &'static str {
    match from {
        CopyFrom::Context => "not in the context directory",
        CopyFrom::Named(_) => "not in the named context",
        CopyFrom::Stage(_) => "not among the files of the stage",
        CopyFrom::Image(_) => "not among the files of the image",
    }
}

/// Returns advice for a source that is not in a context.
fn advice(state: &BuildState<'_>, from: &CopyFrom, path: &str) -> Option<String> {
    match from {
        CopyFrom::Context => advice_in(state.inputs.context().ok()?, path),
        CopyFrom::Named(name) => advice_in(&state.inputs.named_context(name).ok()?.context, path),
        CopyFrom::Stage(_) | CopyFrom::Image(_) => None,
    }
}

fn advice_in(context: &Context, path: &str) -> Option<String> {
    let clean = TreePath::clean(path.as_bytes());
    if let Some(rule) = context.ignored_by(&clean) {
        return Some(format!(
            "the file is there, but excluded by .dockerignore, line {}: `{}`; a line \
             `!{}` below that includes it again",
            rule.line,
            rule.text,
            shown(&clean)
        ));
    }
    if path.split('/').any(|name| name == "..") {
        return Some(
            "COPY sees the context directory and nothing above it: build with the directory above as \
             the context (`rbuild -f DIRECTORY/Dockerfile ..`), or give the other directory a name \
             (`--build-context NAME=../DIRECTORY`, `COPY --from=NAME`)"
                .to_owned(),
        );
    }
    if let Some(near) = context.nearest(&clean) {
        return Some(format!("did you mean `{}`?", shown(&near)));
    }
    path.starts_with('/')
        .then(|| "`/` is the context directory here, not the root of this machine".to_owned())
}

/// Returns the path as it is written in a Dockerfile.
fn shown(path: &TreePath) -> String {
    path.to_string().trim_start_matches('/').to_owned()
}
