//! Parses the comment `# rbuild: timeout=5m retry=2` directly above a RUN.
//!
//! Other builders read it as a comment, so the Dockerfile stays portable.

use std::time::Duration;

use nom::Offset as _;

use crate::diag::{Diagnostic, Span, Spanned, codes, nearest};
use crate::dockerfile::ir::Patience;
use crate::limits::MAX_STEP_RETRIES;

use super::blank::{bare_words, trim};
use super::value;

const TIMEOUT: &str = "timeout";
const RETRY: &str = "retry";

/// Parses a duration such as `90s` or `1h30m`, at least a millisecond.
///
/// # Errors
/// A text that describes what was expected.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let nanoseconds = value::duration(text).and_then(|ns| u64::try_from(ns).ok());
    let duration = nanoseconds.map(Duration::from_nanos);
    let expected = || "expected a duration such as 90s or 1h30m".to_owned();
    let duration = duration.ok_or_else(expected)?;
    if duration < Duration::from_millis(1) {
        return Err("must be at least 1ms".to_owned());
    }
    Ok(duration)
}

/// Returns the settings of the last lines of comments above an instruction, with their span.
///
/// grammar: patience_comment
pub(super) fn patience(
    source: &str,
    comments: &[&str],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Spanned<Patience>> {
    let mut found: Option<Spanned<Patience>> = None;
    for comment in comments {
        let Some(options) = options(comment) else { continue };
        let span = span_in(source, trim(comment));
        if found.is_some() {
            let message = "only one `# rbuild:` comment can be above an instruction";
            diagnostics.push(bad(span, message.to_owned(), "given a second time"));
            continue;
        }
        let patience = read(source, options, span, diagnostics);
        found = Some(Spanned::new(patience, span));
    }
    found
}

/// Reports `# rbuild:` comments that no instruction follows directly.
pub(super) fn refuse_loose(source: &str, comments: &[&str], diagnostics: &mut Vec<Diagnostic>) {
    for comment in comments.iter().filter(|comment| options(comment).is_some()) {
        let span = span_in(source, trim(comment));
        let message = "a `# rbuild:` comment must be directly above a RUN".to_owned();
        diagnostics.push(bad(span, message, "no RUN on the next line"));
    }
}

/// Returns the error of a comment above an instruction other than RUN.
pub(super) fn not_a_run(comment: &Spanned<Patience>, keyword: &str) -> Diagnostic {
    let message = format!("a `# rbuild:` comment applies to RUN only, not to {keyword}");
    bad(comment.span, message, "not above a RUN")
}

/// Returns the options after `rbuild:`, if the comment has that prefix.
fn options(comment: &str) -> Option<&str> {
    trim(comment.strip_prefix('#')?).strip_prefix("rbuild:")
}

fn read(source: &str, options: &str, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Patience {
    let mut patience = Patience::default();
    let mut seen = Vec::new();
    let words = bare_words(options);
    if words.is_empty() {
        let message = "a `# rbuild:` comment without options".to_owned();
        diagnostics.push(bad(span, message, "expected `timeout=DURATION` or `retry=N`"));
    }
    for word in words {
        let at = span_in(source, word);
        let (name, text) = word.split_once('=').unwrap_or((word, ""));
        if seen.contains(&name) {
            let message = format!("`{name}` is repeated in a `# rbuild:` comment");
            diagnostics.push(bad(at, message, "given a second time"));
            continue;
        }
        seen.push(name);
        match name {
            TIMEOUT => match parse_timeout(text) {
                Ok(timeout) => patience.timeout = Some(timeout),
                Err(why) => {
                    let message = format!("bad `timeout` in a `# rbuild:` comment: {why}");
                    diagnostics.push(bad(at, message, "such as `timeout=5m`"));
                }
            },
            RETRY => match text.parse::<u32>() {
                Ok(n) if n <= MAX_STEP_RETRIES => patience.n_retries = n,
                Ok(_) | Err(_) => {
                    let message = format!(
                        "bad `retry` in a `# rbuild:` comment: expected a number from 0 to {MAX_STEP_RETRIES}"
                    );
                    diagnostics.push(bad(at, message, "such as `retry=2`"));
                }
            },
            _ => {
                let message = format!("unknown option `{name}` in a `# rbuild:` comment");
                let near = nearest(name, [TIMEOUT, RETRY]);
                let help = near.map(|near| format!("did you mean `{near}`?"));
                let unknown = bad(at, message, "expected `timeout=DURATION` or `retry=N`");
                diagnostics.push(unknown.maybe_help(help));
            }
        }
    }
    patience
}

fn bad(span: Span, message: String, label: &str) -> Diagnostic {
    Diagnostic::error(codes::BAD_DIRECTIVE, span, message).label(span, label)
}

fn span_in(source: &str, part: &str) -> Span {
    let start = source.offset(part);
    Span::new(start, start + part.len())
}

#[cfg(test)]
mod tests {
    use crate::dockerfile::ir::Kind;
    use crate::dockerfile::syntax::parse;

    use super::*;

    #[test]
    fn comment_above_a_run_sets_timeout_and_retries() {
        let ms = |n| Some(Duration::from_millis(n));
        for (comment, timeout, n_retries) in [
            ("# rbuild: timeout=5m retry=2", ms(300_000), 2),
            ("#rbuild:retry=1", None, 1),
            ("# rbuild: timeout=1.5s", ms(1_500), 0),
            ("# check=skip=all\n# rbuild: timeout=1h30m", ms(5_400_000), 0),
            ("# rbuild: retry=0\n# another comment", None, 0),
        ] {
            let (file, diagnostics) = parse(&format!("FROM scratch\n{comment}\nRUN x\n"));
            assert!(diagnostics.is_empty(), "{comment}: {diagnostics:?}");
            let kind = file.stages.first().and_then(|stage| stage.instructions.first());
            let Some(Kind::Run(run)) = kind.map(|instruction| &instruction.kind) else {
                panic!("{comment}")
            };
            assert_eq!(run.patience, Some(Patience { timeout, n_retries }), "{comment}");
        }
        for comment in ["# rbuild timeout=5m", "# see rbuild: x", "# rbuilds: retry=1"] {
            let (file, diagnostics) = parse(&format!("FROM scratch\n{comment}\nRUN x\n"));
            assert!(diagnostics.is_empty(), "{comment}: {diagnostics:?}");
            let text = format!("{file:?}");
            assert!(text.contains("patience: None"), "{text}");
        }
    }
}
