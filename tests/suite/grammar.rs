//! The grammar files against the parser: neither may know a form that the other does not.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test stops where it fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild::diag::{Diagnostic, SourceFile, Span, Style, render};
use rbuild::ir::Escape;
use rbuild::{expand, ir, syntax};

use crate::support::ebnf::{Expr, Grammar};
use crate::support::generate::{Generator, Hits, Random, Weights};

const SENTENCES: usize = 2000;

/// The files whose productions `src/syntax` and `src/expand` read.
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
            if let Expr::Name(name) = expr {
                used.insert(name);
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
    for room in ["src/syntax", "src/expand"] {
        for path in files_below(&root().join(room)) {
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
        assert!(expanded.is_ok(), "{text}: {expanded:?}");
        let text = generator.sentence("heredoc_text");
        let expanded = expand::heredoc(&text, &|_| Some("value".to_owned()));
        assert!(expanded.is_ok(), "{text}: {expanded:?}");
    }
}

#[test]
fn random_sentences_take_every_alternative() {
    let (grammar, weights) = (read(&FILES), weights());
    // The table is a snapshot: another seed would make another one.
    let mut generator = Generator::new(&grammar, &weights, 1);
    // Options of mounts are rare: RUN gets sentences of its own.
    for entry in ENTRIES.into_iter().chain(["run"]) {
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
    for _ in 0..SENTENCES {
        let text = mutant(&generator.sentence("dockerfile"), &mut random);
        let (file, diagnostics) = syntax::parse(&text);
        for span in spans(&format!("{file:?} {diagnostics:?}")) {
            let inside = text.get(span.start..span.end).is_some();
            assert!(inside, "{span:?} is not in {} bytes of {text:?}", text.len());
        }
        let _ = render(&diagnostics, &SourceFile::new("Dockerfile", text.as_str()), Style::Plain);
        let _ = syntax::parse_trigger(&text);
        let escape = [Escape::Backslash, Escape::Backtick][random.below(2)];
        let _ = expand::words(&text, escape, &|_| None);
        let _ = expand::heredoc(&text, &|_| Some("a/b".to_owned()));
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn seed() -> u64 {
    std::env::var("RBUILD_GRAMMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn file_text(name: &str) -> String {
    fs::read_to_string(root().join("grammar").join(name)).unwrap()
}

fn read(files: &[&str]) -> Grammar {
    let mut grammar = Grammar::default();
    for file in files {
        grammar.read(&file_text(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    grammar
}

fn weights() -> Weights {
    toml::from_str(&file_text("weights.toml")).unwrap()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
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

/// The IR without places and without the one-line texts made for logs.
fn meaning(file: &ir::Dockerfile) -> String {
    let mut meaning = String::new();
    for line in format!("{file:#?}").lines() {
        let text = line.trim_start();
        let place = ["start: ", "end: "].iter().any(|name| text.starts_with(name));
        if !place && !text.starts_with("text: \"") {
            meaning.push_str(line);
            meaning.push('\n');
        }
    }
    meaning
}

/// Every span in the debug text of something.
fn spans(debug: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for part in debug.split("Span { start: ").skip(1) {
        let numbers = part.split_once(" }").map(|(numbers, _)| numbers);
        let pair = numbers.and_then(|numbers| numbers.split_once(", end: "));
        if let Some((start, end)) = pair
            && let (Ok(start), Ok(end)) = (start.parse(), end.parse())
        {
            spans.push(Span::new(start, end));
        }
    }
    spans
}

fn mutant(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let byte = b"\\`\"'$#<[]{}-= \n\r\t,:/\xc3\xa9a0"[random.below(24)];
        match random.below(4) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hit_table(hits: &Hits) -> String {
    let mut table = String::new();
    for ((production, node, branch), count) in hits {
        writeln!(table, "{production} {node} {branch}: {count}").unwrap();
    }
    table
}
