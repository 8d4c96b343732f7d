//! State and helpers that the parsers of all instructions share.

use nom::Offset as _;

use crate::diag::{Code, Diagnostic, Span, Spanned, codes, nearest};
use crate::dockerfile::ir::{Escape, Word};

use super::flag::{self, RawFlag};
use super::keyword::Keyword;
use super::lines::{LogicalLine, OpenedHeredoc};

/// The values that a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagValue {
    /// One value; the flag must not be repeated.
    Text,
    /// One value each time; the flag may be repeated.
    List,
    /// `true`, `false` or no value.
    Bool,
}

/// A flag that an instruction supports: its name and values.
pub(super) type KnownFlag = (&'static str, FlagValue);

/// One instruction during parsing.
#[derive(Debug)]
pub(super) struct InstructionReader<'a> {
    pub(super) source: &'a str,
    pub(super) line: &'a LogicalLine,
    pub(super) escape: Escape,
    pub(super) keyword: Keyword,
    /// Keyword as written: a slice of the folded line.
    pub(super) keyword_part: &'a str,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> InstructionReader<'a> {
    /// Returns the source span of `part`, a slice of the folded line.
    pub(super) fn span(&self, part: &str) -> Span {
        self.line.folded.span_of(part)
    }

    /// Makes a word of `part`, a slice of the folded line.
    pub(super) fn word(&self, part: &str) -> Word {
        self.line.folded.word(part)
    }

    /// Returns the empty span after the last byte of the folded line.
    pub(super) fn end_of_line(&self) -> Span {
        let text = self.line.folded.text().trim_end_matches(super::blank::is_blank);
        Span::at(self.span(text).end)
    }

    /// Returns the heredoc whose opening begins where `part` begins.
    pub(super) fn heredoc_at(&self, part: &str) -> Option<&'a OpenedHeredoc> {
        let at = self.line.folded.text().offset(part);
        self.line.heredocs.iter().find(|opened| opened.at == at)
    }

    /// Reports an error at `part`, a slice of the folded line.
    pub(super) fn error(&mut self, code: Code, part: &str, message: String, label: &str) {
        let span = self.span(part);
        self.diagnostics.push(Diagnostic::error(code, span, message).label(span, label));
    }

    /// Reports a missing argument at the end of the line.
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

    /// Reads the flags and returns the valid ones after the text that follows them. Reports flags
    /// that are unknown, repeated or without a required value.
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
            let repeated =
                *takes != FlagValue::List && good.iter().any(|other| other.name == *name);
            if repeated {
                let message = format!("duplicate flag `--{name}`");
                self.error(codes::BAD_FLAG, flag.part, message, "given a second time");
            } else if *takes != FlagValue::Bool && flag.value.is_none() {
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

    /// Reads the flags of an instruction that supports none.
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

    /// Returns the value of a flag as a word; empty if it has none.
    pub(super) fn flag_word(&self, flag: &RawFlag<'_>) -> Word {
        match &flag.value {
            Some((part, text)) => Spanned::new(text.clone(), self.span(part)),
            None => Spanned::new(String::new(), self.span(flag.part)),
        }
    }

    /// Returns the value of a flag; an empty value has no effect.
    pub(super) fn flag_some(&self, flag: &RawFlag<'_>) -> Option<Word> {
        Some(self.flag_word(flag)).filter(|word| !word.value.is_empty())
    }

    /// Returns the value of a boolean flag. Unlike options of mounts, flags do not accept `1` or `0`.
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
