//! Parser directives: `# name=value` at the top of the file, and `# check=skip=…` above an instruction
//! (<https://docs.docker.com/reference/dockerfile/#parser-directives>).

use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{char, satisfy};
use nom::combinator::{recognize, verify};
use nom::sequence::preceded;
use nom::{IResult, Offset as _, Parser as _};

use crate::diag::{Diagnostic, Span, Spanned, codes, nearest};
use crate::dockerfile::ir::{Check, Directives, Escape};

use super::blank::{blanks0, is_blank, trim};

/// Byte order mark, which some editors write.
const BOM: char = '\u{feff}';

/// Frontend images whose language this parser implements.
const OWN_FRONTENDS: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// The directives of a file, and where they end.
#[derive(Debug)]
pub(super) struct FileHead {
    pub(super) directives: Directives,
    /// Offset of the first byte after the directives.
    pub(super) end: usize,
}

/// Parses the directives at the start of `source`.
///
/// grammar: directives
pub(super) fn head(source: &str, diagnostics: &mut Vec<Diagnostic>) -> FileHead {
    let directives = Directives::default();
    let mut reader = DirectiveReader { source, directives, escape_counts: true, diagnostics };
    let end = reader.read();
    FileHead { directives: reader.directives, end }
}

/// Parses the value of `# check=`, or of the build argument `BUILDKIT_DOCKERFILE_CHECK`.
///
/// grammar: check_directive
#[must_use]
pub fn check_options(value: &str) -> (Check, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut reader = DirectiveReader {
        source: value,
        directives: Directives::default(),
        escape_counts: true,
        diagnostics: &mut diagnostics,
    };
    let check = reader.check(value);
    (check, diagnostics)
}

/// Returns the rules that the comments above an instruction disable for it.
///
/// grammar: check_comment
pub(super) fn skipped_checks(comments: &[&str]) -> Vec<String> {
    let mut rules = Vec::new();
    for comment in comments {
        let Ok((_, (name, value))) = directive(comment) else { continue };
        if !name.eq_ignore_ascii_case("check") {
            continue;
        }
        // Text after the first word is an explanation.
        let value = value.split(is_blank).next().unwrap_or("");
        for option in value.split(';') {
            if let Some(list) = option.strip_prefix("skip=") {
                rules.extend(names(list));
            }
        }
    }
    rules
}

/// Parses `# name = value`.
fn directive(line: &str) -> IResult<&str, (&str, &str)> {
    preceded(char('#'), assignment).parse(line)
}

fn assignment(input: &str) -> IResult<&str, (&str, &str)> {
    let name = recognize((
        satisfy(|char| char.is_ascii_alphabetic()),
        take_while(|char: char| char.is_ascii_alphanumeric()),
    ));
    let value = verify(take_while1(|char| char != '\n').map(trim), |value: &str| !value.is_empty());
    let (rest, (_, name, _, _, _, value)) =
        (blanks0, name, blanks0, char('='), blanks0, value).parse(input)?;
    Ok((rest, (name, value)))
}

struct DirectiveReader<'a> {
    source: &'a str,
    directives: Directives,
    /// False after a `#!` line: BuildKit ignores an escape directive there.
    escape_counts: bool,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> DirectiveReader<'a> {
    fn read(&mut self) -> usize {
        let mut at = if self.source.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        if self.source.get(at..).is_some_and(|rest| rest.starts_with("#!")) {
            at += self.line(at).1;
            self.escape_counts = false;
        }
        if let Some(after) = self.foreign_comment(at) {
            at = after;
        }
        loop {
            let (line, bytes) = self.line(at);
            let Ok((_, (name, value))) = directive(trim(line)) else { return at };
            if !self.known(name, value) {
                return at;
            }
            at += bytes;
        }
    }

    /// Returns the line at `at`, and its length including the line ending.
    fn line(&self, at: usize) -> (&'a str, usize) {
        let rest = self.source.get(at..).unwrap_or("");
        let line = rest.split_inclusive('\n').next().unwrap_or("");
        (line.trim_end_matches(['\n', '\r']), line.len())
    }

    fn span(&self, part: &str) -> Span {
        let start = self.source.offset(part);
        Span::new(start, start + part.len())
    }

    /// Reads a first line that names the frontend in a `//` comment or as JSON, which BuildKit accepts
    /// for files in other languages (`parser.DetectSyntax`).
    fn foreign_comment(&mut self, at: usize) -> Option<usize> {
        let (line, bytes) = self.line(at);
        let text = trim(line);
        if let Some(comment) = text.strip_prefix("//") {
            let (_, (name, value)) = assignment(comment).ok()?;
            return (name.eq_ignore_ascii_case("syntax") && self.known(name, value))
                .then_some(at + bytes);
        }
        if !text.starts_with('{') {
            return None;
        }
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
        let value = object.get("syntax")?.as_str()?.to_owned();
        self.syntax(value, self.span(text));
        Some(at + bytes)
    }

    /// Applies a directive and returns true, or returns false if it is not a directive.
    fn known(&mut self, name: &str, value: &str) -> bool {
        let span = self.span(value);
        let seen = match name.to_ascii_lowercase().as_str() {
            "syntax" => {
                let seen = self.directives.syntax.is_some();
                if !seen {
                    self.syntax(value.to_owned(), span);
                }
                seen
            }
            "escape" if !self.escape_counts => false,
            "escape" => {
                let seen = self.directives.escape.is_some();
                if !seen {
                    self.escape(value, span);
                }
                seen
            }
            "check" => {
                let seen = self.directives.check.is_some();
                if !seen {
                    let check = self.check(value);
                    self.directives.check = Some(Spanned::new(check, span));
                }
                seen
            }
            _ => return false,
        };
        if seen {
            let message = format!("only one `{}` directive can be used", name.to_ascii_lowercase());
            let span = self.span(name).to(span);
            self.diagnostics.push(
                Diagnostic::error(codes::BAD_DIRECTIVE, span, message)
                    .label(span, "given a second time"),
            );
        }
        true
    }

    /// grammar: syntax_directive
    fn syntax(&mut self, value: String, span: Span) {
        if !is_own_frontend(&value) {
            self.diagnostics.push(
                Diagnostic::warning(
                    codes::FOREIGN_FRONTEND,
                    span,
                    format!("frontend `{value}` is not used; the built-in Dockerfile frontend parses the file"),
                )
                .label(span, "another frontend"),
            );
        }
        self.directives.syntax = Some(Spanned::new(value, span));
    }

    /// grammar: escape_directive
    fn escape(&mut self, value: &str, span: Span) {
        let escape = match value {
            "\\" => Escape::Backslash,
            "`" => Escape::Backtick,
            other => {
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::BAD_DIRECTIVE,
                        span,
                        format!("invalid escape character `{other}`"),
                    )
                    .label(span, "expected `\\` or a backtick"),
                );
                Escape::Backslash
            }
        };
        self.directives.escape = Some(Spanned::new(escape, span));
    }

    fn check(&mut self, value: &str) -> Check {
        let mut check = Check::default();
        for option in value.split(';') {
            let Some((name, text)) = option.split_once('=') else {
                self.bad_check(option, "expected `name=value`");
                continue;
            };
            match trim(name) {
                "skip" => check.skip = names(text).collect(),
                "experimental" => check.experimental = names(text).collect(),
                "error" => match super::value::bool(trim(text)) {
                    Some(error) => check.error = error,
                    None => self.bad_check(option, "expected `error=true` or `error=false`"),
                },
                other => {
                    let label = match nearest(other, ["skip", "error", "experimental"]) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "expected `skip`, `error` or `experimental`".to_owned(),
                    };
                    self.bad_check(option, &label);
                }
            }
        }
        check
    }

    fn bad_check(&mut self, option: &str, label: &str) {
        let span = self.span(option);
        let message = format!("invalid option `{}` of the check directive", trim(option));
        self.diagnostics
            .push(Diagnostic::error(codes::BAD_DIRECTIVE, span, message).label(span, label));
    }
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Returns whether an image named by `# syntax` is a frontend that this parser replaces.
#[must_use]
pub fn is_own_frontend(image: &str) -> bool {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = image.split('@').next().unwrap_or("");
    let name = name.split(':').next().unwrap_or("");
    OWN_FRONTENDS.contains(&name) || image == "dockerfile.v0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comment_above_an_instruction_skips_rules_up_to_the_first_blank() {
        for (comment, want) in [
            ("# check=skip=A", "A"),
            ("#check = skip=A,B because C", "A B"),
            ("# Check=skip=A;error=true", "A"),
            ("# check=error=true", ""),
            ("# checks=skip=A", ""),
            ("# see check=skip=A", ""),
        ] {
            assert_eq!(skipped_checks(&[comment]).join(" "), want, "{comment}");
        }
    }

    #[test]
    fn frontend_with_another_name_is_foreign() {
        for own in
            ["docker/dockerfile", "docker/dockerfile:1", "docker.io/docker/dockerfile@sha256:0"]
        {
            assert!(is_own_frontend(own), "{own}");
        }
        for foreign in ["example.com/docker/dockerfile:1", "docker/dockerfiles", "me/buildpacks"] {
            assert!(!is_own_frontend(foreign), "{foreign}");
        }
    }
}
