//! The grammar files against the parser: both must accept the same forms.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests may panic and access the system directly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild::diag::{Diagnostic, SourceFile, Style, render};
use rbuild::dockerfile::expand::{ExpandError, ExpandErrorKind};
use rbuild::dockerfile::ir::Escape;
use rbuild::dockerfile::{expand, ir, syntax};

use crate::support::ebnf::{Expr, Grammar};
use crate::support::generate::{Generator, Hits, Random, Weights, argument};
use crate::support::mutate::mutant;
use crate::support::probe::{self, dockerfile::meaning};

const SENTENCES: usize = 2000;

/// The files whose productions `src/dockerfile/syntax` and `src/dockerfile/expand` read.
const FILES: [&str; 3] = ["lines.ebnf", "dockerfile.ebnf", "words.ebnf"];

/// Productions that sentences start from.
const ENTRIES: [&str; 4] = ["dockerfile", "trigger_text", "word", "heredoc_text"];

#[test]
fn every_name_is_defined_once_and_used() {
    let mut grammar = read(&FILES);
    for file in ["dockerignore.ebnf", "reference.ebnf"] {
        grammar.read(&file_text(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let entries = ENTRIES.into_iter().chain(["dockerignore", "reference"]);
    let mut used: BTreeSet<&str> = entries.collect();
    for expr in grammar.productions.values() {
        expr.walk(&mut |expr| {
            match expr {
                Expr::Name(name) => drop(used.insert(name)),
                // For the grammar, a production takes the place of what only the generator writes.
                Expr::Special(special) => {
                    let pattern = argument(special).filter(|(name, _)| *name == "PATTERN");
                    used.extend(pattern.iter().flat_map(|(_, name)| ["pattern", name]));
                }
                Expr::Sequence(_)
                | Expr::Choice(..)
                | Expr::Optional(..)
                | Expr::Repeat(..)
                | Expr::Literal(_) => {}
            }
        });
    }
    let defined: BTreeSet<&str> = grammar.productions.keys().map(String::as_str).collect();
    assert_eq!(used.difference(&defined).collect::<Vec<_>>(), Vec::<&&str>::new(), "undefined");
    assert_eq!(defined.difference(&used).collect::<Vec<_>>(), Vec::<&&str>::new(), "unused");
}

#[test]
fn productions_and_doc_lines_name_each_other_once() {
    let mut doc_lines: BTreeMap<String, usize> = BTreeMap::new();
    for module in ["src/dockerfile/syntax", "src/dockerfile/expand"] {
        for path in files_below(&root().join(module)) {
            for line in fs::read_to_string(&path).unwrap().lines() {
                if let Some(name) = line.trim().strip_prefix("/// grammar: ") {
                    *doc_lines.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
    }
    let once: BTreeMap<String, usize> =
        read(&FILES).productions.into_keys().map(|name| (name, 1)).collect();
    assert_eq!(doc_lines, once);
}

#[test]
fn random_dockerfiles_parse_and_print_to_the_same_ir() {
    let (grammar, weights) = (read(&FILES), weights());
    let mut generator = Generator::new(&grammar, &weights, seed());
    for _ in 0..SENTENCES {
        let text = generator.sentence("dockerfile");
        let (file, diagnostics) = syntax::parse(&text);
        assert_no_errors(&text, &diagnostics);
        let printed = ir::print(&file);
        let (again, diagnostics) = syntax::parse(&printed);
        assert_no_errors(&printed, &diagnostics);
        assert_eq!(meaning(&again), meaning(&file), "{text}\n--- printed as ---\n{printed}");
    }
}

#[test]
fn random_triggers_parse() {
    let (grammar, weights) = (read(&FILES), weights());
    let mut generator = Generator::new(&grammar, &weights, seed());
    for _ in 0..SENTENCES {
        let text = generator.sentence("trigger_text");
        let (instruction, diagnostics) = syntax::parse_trigger(&text);
        assert_no_errors(&text, &diagnostics);
        assert!(instruction.is_some(), "{text}");
    }
}

#[test]
fn random_words_expand_when_every_variable_is_set() {
    let (grammar, weights) = (read(&FILES), weights());
    let mut generator = Generator::new(&grammar, &weights, seed());
    for _ in 0..SENTENCES {
        let text = generator.sentence("word");
        let expanded = expand::word(&text, Escape::Backslash, &|_| Some("value".to_owned()));
        assert!(is_good(expanded.map(drop)), "{text}");
        let text = generator.sentence("heredoc_text");
        let expanded = expand::heredoc(&text, &|_| Some("value".to_owned()));
        assert!(is_good(expanded.map(drop)), "{text}");
    }
}

/// Returns whether the text was read to its end. Positional and special parameters are never set.
fn is_good(expanded: Result<(), ExpandError>) -> bool {
    let error = expanded.err().map(|error| error.kind);
    let is_special = |name: &str| !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    error.is_none_or(
        |kind| matches!(kind, ExpandErrorKind::Required { name, .. } if is_special(&name)),
    )
}

#[test]
fn random_sentences_take_every_alternative() {
    let (grammar, weights) = (read(&FILES), weights());
    // The table is a snapshot of this seed.
    let mut generator = Generator::new(&grammar, &weights, 1);
    // Options of mounts are rare, so RUN gets additional sentences.
    for entry in ENTRIES.into_iter().chain(["run", "replaced"]) {
        for _ in 0..SENTENCES {
            generator.sentence(entry);
        }
    }
    let never: Vec<_> = generator.hits.iter().filter(|(_, count)| **count == 0).collect();
    assert_eq!(never, Vec::new());
    insta::assert_snapshot!("grammar_hits", hit_table(&generator.hits));
}

#[test]
fn mutants_never_panic_and_spans_stay_on_characters() {
    let (grammar, weights) = (read(&FILES), weights());
    let mut generator = Generator::new(&grammar, &weights, seed());
    let mut random = Random(seed());
    let bytes = "\\`\"'$#<[]{}-= \n\r\t,:/\u{e9}a0";
    for _ in 0..SENTENCES {
        let text = mutant(&generator.sentence("dockerfile"), bytes, &mut random);
        probe::dockerfile::probe(text.as_bytes());
        for settings in 0..8 {
            probe::words::probe(format!("{}{text}", char::from(settings)).as_bytes());
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn seed() -> u64 {
    std::env::var("RBUILD_GRAMMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn file_text(name: &str) -> String {
    fs::read_to_string(root().join("grammar").join(name)).unwrap()
}

pub(crate) fn read(files: &[&str]) -> Grammar {
    let mut grammar = Grammar::default();
    for file in files {
        grammar.read(&file_text(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    grammar
}

pub(crate) fn weights() -> Weights {
    toml::from_str(&file_text("weights.toml")).unwrap()
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn assert_no_errors(text: &str, diagnostics: &[Diagnostic]) {
    let errors: Vec<Diagnostic> =
        diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).cloned().collect();
    let report = render(&errors, &SourceFile::new("Dockerfile", text), Style::Plain);
    assert!(errors.is_empty(), "{report}\n{text}");
}

fn hit_table(hits: &Hits) -> String {
    let mut table = String::new();
    for ((production, node, branch), count) in hits {
        writeln!(table, "{production} {node} {branch}: {count}").unwrap();
    }
    table
}
