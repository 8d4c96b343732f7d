//! The parsers and the grammar agree: both accept or both reject sentences of the grammar, mutated
//! byte by byte and word by word.
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "tests panic on failure")]

use rbuild::context::parse_ignore;
use rbuild::diag::Diagnostic;
use rbuild::dockerfile::expand::{self, ExpandErrorKind};
use rbuild::dockerfile::ir::Escape;
use rbuild::dockerfile::syntax;
use rbuild::oci::Reference;

use crate::grammar::{read, seed, weights};
use crate::support::earley::Recogniser;
use crate::support::ebnf::{Expr, Grammar};
use crate::support::generate::{Generator, Random};
use crate::support::mutate::mutant;
use crate::support::terminals::{Scene, instructions, is_blank};

const BYTES_OF_WORDS: &str = "${${${'\"'\"}:\\/%#?+a";

const IN_WORDS: Scene = Scene { escape: '\\', quotes: true };

/// Counts how often both accepted, both rejected, and how often there was nothing to compare.
#[derive(Debug, Default)]
struct Votes {
    yes: usize,
    no: usize,
    exempt: usize,
}

impl Votes {
    /// Compares one result. `parser` is `None` where the grammar cannot express what the parser
    /// checks.
    fn count(&mut self, text: &str, parser: Option<bool>, grammar: impl FnOnce() -> bool) {
        let Some(parser) = parser else {
            self.exempt += 1;
            return;
        };
        let grammar = grammar();
        assert_eq!(parser, grammar, "the parser and then the grammar on\n{text}\n{text:?}");
        if parser { self.yes += 1 } else { self.no += 1 }
    }

    /// Fails if too few results were compared.
    fn assert_many(&self) {
        let total = self.yes + self.no + self.exempt;
        assert!(
            self.yes * 5 > total && self.no * 25 > total && self.exempt * 4 < total,
            "{self:?}"
        );
    }
}

#[test]
fn words_and_heredocs_are_those_of_the_grammar() {
    let (grammar, weights) = (read(&["words.ebnf"]), weights());
    let recogniser = Recogniser::new(&grammar, &[]);
    let mut generator = Generator::new(&grammar, &weights, seed());
    let mut random = Random(seed());
    let env = |_: &str| Some("value".to_owned());
    let mut votes = Votes::default();
    for turn in 0..3000 {
        let text = mutant(&generator.sentence("word"), BYTES_OF_WORDS, &mut random);
        let text = mutant(&text, BYTES_OF_WORDS, &mut random);
        let escape = [Escape::Backslash, Escape::Backtick][turn % 2];
        let scene = Scene { escape: escape.char(), quotes: true };
        let parser = expand::word(&text, escape, &env).map(drop);
        votes.count(&text, said(parser), || accepts(&recogniser, "word", &text, scene));

        let text = mutant(&generator.sentence("heredoc_text"), BYTES_OF_WORDS, &mut random);
        let scene = Scene { escape: '\\', quotes: false };
        let parser = expand::heredoc(&text, &env).map(drop);
        votes.count(&text, said(parser), || accepts(&recogniser, "heredoc_text", &text, scene));
    }
    votes.assert_many();
}

/// Returns the parser's verdict, or `None` if it depends on values or on the text after quote
/// removal, which the grammar does not cover.
fn said(result: Result<(), expand::ExpandError>) -> Option<bool> {
    match result.map_err(|error| error.kind) {
        Ok(()) => Some(true),
        Err(
            ExpandErrorKind::BadPattern { .. }
            | ExpandErrorKind::Required { .. }
            | ExpandErrorKind::LongPattern(_)
            | ExpandErrorKind::TooDeep(_)
            | ExpandErrorKind::TooLong(_),
        ) => None,
        Err(
            ExpandErrorKind::UnclosedQuote(_)
            | ExpandErrorKind::UnclosedBrace(_)
            | ExpandErrorKind::BadSubstitution(_)
            | ExpandErrorKind::MissingSlash(_)
            | ExpandErrorKind::BadModifier { .. },
        ) => Some(false),
    }
}

#[test]
fn names_of_images_are_those_of_the_grammar() {
    let (grammar, weights) = (read(&["reference.ebnf"]), weights());
    let recogniser = Recogniser::new(&grammar, &[]);
    let mut generator = Generator::new(&grammar, &weights, seed());
    let mut random = Random(seed());
    let mut votes = Votes::default();
    for _ in 0..4000 {
        let text = mutant(&generator.sentence("reference"), "/:.-_@A[]0 ", &mut random);
        let parser = text.parse::<Reference>().is_ok();
        votes.count(&text, Some(parser), || accepts(&recogniser, "reference", &text, IN_WORDS));
    }
    votes.assert_many();
}

#[test]
fn ignore_files_are_those_of_the_grammar() {
    let (grammar, weights) =
        (read(&["dockerignore.ebnf", "lines.ebnf", "dockerfile.ebnf", "words.ebnf"]), weights());
    let recogniser = Recogniser::new(&grammar, &[]);
    let mut generator = Generator::new(&grammar, &weights, seed());
    let mut random = Random(seed());
    let mut votes = Votes::default();
    for _ in 0..2000 {
        let text = mutant(&generator.sentence("dockerignore"), "![[]^-\\\\[-# \na", &mut random);
        // Paths are cleaned before patterns are parsed, so `..` may remove an invalid pattern.
        let in_class = |part: &str| text.contains('[') && text.contains(part);
        let exempt =
            text.contains("..") || text.contains("\\/") || ["//", "/."].into_iter().any(in_class);
        let parser = (!exempt).then(|| parse_ignore(&text).is_ok());
        votes.count(&text, parser, || accepts(&recogniser, "dockerignore", &text, IN_WORDS));
    }
    votes.assert_many();
}

#[test]
fn instructions_are_those_of_the_grammar() {
    let (grammar, weights) = (read(&["lines.ebnf", "dockerfile.ebnf", "words.ebnf"]), weights());
    let recogniser = Recogniser::new(&grammar, &["arg_item", "pair"]);
    let flags = flag_order(&grammar);
    let mut generator = Generator::new(&grammar, &weights, seed());
    let mut random = Random(seed());
    let mut votes = Votes::default();
    for _ in 0..3000 {
        let text = generator.sentence("instruction");
        let text = mutant(&text, "-=[]\"', \\\n#/$a0:{", &mut random);
        let file = format!("FROM scratch\n{text}\n");
        let (_, diagnostics) = syntax::parse(&file);
        let parser = !diagnostics.iter().any(Diagnostic::is_error);
        let lines: Option<Vec<String>> =
            instructions(&file, '\\').iter().map(|line| ordered(line, &flags)).collect();
        let exempt = text.contains("<<") || diagnostics.iter().any(is_about_a_value);
        let parser = lines.is_some().then_some(parser).filter(|_| !exempt);
        votes.count(&file, parser, || {
            lines.iter().flatten().all(|line| {
                accepts(&recogniser, "instruction", line, IN_WORDS)
                    || accepts(&recogniser, "from", line, IN_WORDS)
            })
        });
    }
    votes.assert_many();
}

/// Returns whether the error is about a value, not about the syntax.
fn is_about_a_value(diagnostic: &Diagnostic) -> bool {
    ["cannot be less than 1ms", "cannot be negative"]
        .iter()
        .any(|part| diagnostic.message.contains(part))
}

fn accepts(recogniser: &Recogniser, entry: &str, text: &str, scene: Scene) -> bool {
    recogniser.accepts(entry, text, &|name, rest| scene.terminal(name, rest))
}

/// Returns the names of flags in the order in which the productions list them.
fn flag_order(grammar: &Grammar) -> Vec<String> {
    let mut order = Vec::new();
    for name in ["from", "run_once", "run_flag", "copy", "common_flags", "add", "healthcheck"] {
        grammar.productions[name].walk(&mut |expr| {
            if let Expr::Literal(text) = expr
                && text.len() > 2
                && text.starts_with("--")
            {
                order.push(text.trim_end_matches('=').to_owned());
            }
        });
    }
    // These follow the common flags.
    order.sort_by_key(|name| {
        ["--parents", "--keep-git-dir", "--checksum", "--unpack"].contains(&&**name)
    });
    order
}

/// Returns the line with its flags in the grammar's order: the grammar fixes an order, the parser
/// accepts any. Returns `None` if flags are quoted, escaped or mounts, because their value differs
/// from their text.
fn ordered(line: &str, order: &[String]) -> Option<String> {
    let (mut front, mut rest) = line.split_at(word_end(line));
    if front.trim_end().eq_ignore_ascii_case("ONBUILD") {
        let dashes = Some(word_end(rest)).filter(|end| rest[..*end].trim_end() == "--");
        let inner = dashes.unwrap_or(0) + word_end(&rest[dashes.unwrap_or(0)..]);
        (front, rest) = line.split_at(front.len() + inner);
    }
    let mut flags: Vec<&str> = Vec::new();
    while rest.starts_with("--") {
        let (flag, after) = rest.split_at(word_end(rest));
        let flag = flag.trim_end_matches(is_blank);
        if flag == "--" {
            break;
        }
        if flag.contains(['\'', '"', '\\']) || flag.starts_with("--mount") {
            return None;
        }
        flags.push(flag);
        rest = after;
    }
    flags.sort_by_key(|flag| {
        let name = flag.split('=').next().unwrap_or(flag);
        order.iter().position(|known| known == name)
    });
    if !rest.is_empty() {
        flags.push(rest);
    }
    Some(front.to_owned() + &flags.join(" "))
}

/// Returns the position after the first word and the blanks that follow it.
fn word_end(text: &str) -> usize {
    let word = text.find(is_blank).unwrap_or(text.len());
    text.len() - text[word..].trim_start_matches(is_blank).len()
}
