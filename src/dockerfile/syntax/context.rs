//! What the parsers of instructions share: the line, and where complaints go.

use nom::Offset as _;

use crate::diag::{Code, Diagnostic, Span, Spanned, codes, nearest};
use crate::dockerfile::ir::{Escape, Word};

use super::flag::{self, RawFlag};
use super::keyword::Keyword;
use super::lines::{Logical, Opened};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A value, once.
    Text,
    /// A value, any number of times.
    List,
    /// Nothing, `true` or `false`.
    Bool,
}

/// A flag that an instruction has.
pub(super) type KnownFlag = (&'static str, Takes);

/// One instruction while it is read.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) source: &'a str,
    pub(super) line: &'a Logical,
    pub(super) escape: Escape,
    pub(super) keyword: Keyword,
    /// The keyword as written.
    pub(super) keyword_part: &'a str,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> Context<'a> {
    /// Where `part`, a slice of the folded line, stands in the source.
    pub(super) fn span(&self, part: &str) -> Span {
        self.line.folded.span_of(part)
    }

    /// `part`, a slice of the folded line, as a word.
    pub(super) fn word(&self, part: &str) -> Word {
        self.line.folded.word(part)
    }

    /// Past the last byte of the instruction's own line.
    pub(super) fn end_of_line(&self) -> Span {
        let text = self.line.folded.text().trim_end_matches(super::blank::is_blank);
        Span::at(self.span(text).end)
    }

    /// The heredoc whose opening starts with `part`.
    pub(super) fn heredoc_at(&self, part: &str) -> Option<&'a Opened> {
        let at = self.line.folded.text().offset(part);
        self.line.heredocs.iter().find(|opened| opened.at == at)
    }

    /// Complains about `part`.
    pub(super) fn error(&mut self, code: Code, part: &str, message: String, label: &str) {
        let span = self.span(part);
        self.diagnostics.push(Diagnostic::error(code, span, message).label(span, label));
    }

    /// Complains about what is not there, right behind the line.
    pub(super) fn missing(&mut self, message: String, label: &str, help: &str) {
        let span = self.end_of_line();
        let keyword = self.span(self.keyword_part);
        self.diagnostics.push(
            Diagnostic::error(codes::MISSING_ARGUMENT, span, message)
                .label(span, label)
                .label(keyword, "this instruction")
                .help(help),
        );
    }

    /// Reads the flags, complains about those that are not `known`, repeated or bad, and hands
    /// out the others with what follows them.
    pub(super) fn flags(
        &mut self,
        input: &'a str,
        known: &[KnownFlag],
    ) -> (&'a str, Vec<RawFlag<'a>>) {
        let (rest, raw) = flag::flags(input, self.escape);
        let mut good: Vec<RawFlag<'a>> = Vec::new();
        for flag in raw {
            let Some((name, takes)) = known.iter().find(|(name, _)| *name == flag.name) else {
                self.unknown_flag(&flag, known);
                continue;
            };
            let repeated = *takes != Takes::List && good.iter().any(|other| other.name == *name);
            if repeated {
                let message = format!("duplicate flag `--{name}`");
                self.error(codes::BAD_FLAG, flag.part, message, "given a second time");
            } else if *takes != Takes::Bool && flag.value.is_none() {
                let message = format!("flag `--{name}` needs a value");
                self.error(codes::BAD_FLAG, flag.part, message, &format!("write `--{name}=…`"));
            } else if flag.unclosed {
                let message = format!("a quote in the value of `--{name}` is not closed");
                self.error(codes::UNCLOSED_QUOTE, flag.part, message, "no closing quote");
            } else {
                good.push(flag);
            }
        }
        (super::blank::trim(rest), good)
    }

    /// Like [`Self::flags`] for an instruction that has none.
    pub(super) fn no_flags(&mut self, input: &'a str) -> &'a str {
        self.flags(input, &[]).0
    }

    fn unknown_flag(&mut self, flag: &RawFlag<'_>, known: &[KnownFlag]) {
        let keyword = self.keyword.name();
        let span = self.span(flag.part);
        let message = format!("unknown flag `--{}` of {keyword}", flag.name);
        let near = nearest(flag.name, known.iter().map(|(name, _)| *name));
        let list: Vec<String> = known.iter().map(|(name, _)| format!("`--{name}`")).collect();
        let help = match near {
            Some(near) => format!("did you mean `--{near}`?"),
            None if known.is_empty() => {
                format!("{keyword} has no flags; write `{keyword} -- …` if this is an argument")
            }
            None => format!("{keyword} supports the flags {}", list.join(", ")),
        };
        self.diagnostics.push(
            Diagnostic::error(codes::UNKNOWN_FLAG, span, message)
                .label(span, "unknown flag")
                .help(help),
        );
    }

    /// The value of a flag that takes one.
    pub(super) fn flag_word(&self, flag: &RawFlag<'_>) -> Word {
        match &flag.value {
            Some((part, text)) => Spanned::new(text.clone(), self.span(part)),
            None => Spanned::new(String::new(), self.span(flag.part)),
        }
    }

    /// The value of a flag that says nothing when it is empty.
    pub(super) fn flag_some(&self, flag: &RawFlag<'_>) -> Option<Word> {
        Some(self.flag_word(flag)).filter(|word| !word.value.is_empty())
    }

    /// The value of a flag that is on or off; unlike options of mounts it takes no `1` or `0`.
    ///
    /// grammar: flag_boolean
    pub(super) fn flag_bool(&mut self, flag: &RawFlag<'_>) -> Option<Spanned<bool>> {
        let Some((part, text)) = &flag.value else {
            return Some(Spanned::new(true, self.span(flag.part)));
        };
        let parsed = match text.to_ascii_lowercase().as_str() {
            "" | "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        if parsed.is_none() {
            let message = format!("flag `--{}` must be `true` or `false`, not `{text}`", flag.name);
            self.error(codes::BAD_FLAG, part, message, "expected a boolean");
        }
        parsed.map(|parsed| Spanned::new(parsed, self.span(part)))
    }
}
