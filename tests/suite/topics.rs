//! README, the pages of `docs/`, and `rbuild help TOPIC`, which shows them.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read files and panic on failure"
)]

use std::collections::BTreeSet;
use std::fs;

use crate::support::env::Env;
use crate::support::source::{self, SourceText};

/// Maximum number of lines of the README, and of columns of every document.
const MAX_README_LINES: usize = 180;
const MAX_COLUMNS: usize = 120;
/// Maximum number of words of a sentence.
const MAX_WORDS: usize = 30;

/// Returns the documents for users and contributors.
fn documents() -> Vec<SourceText> {
    let paths = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples"];
    let mut files: Vec<SourceText> =
        paths.iter().flat_map(|path| source::texts_below(path)).collect();
    files.retain(|file| file.path.ends_with(".md"));
    files
}

fn names_of_pages() -> Vec<String> {
    let pages = source::texts_below("docs").into_iter();
    let names = pages.filter_map(|file| {
        let name = file.path.strip_prefix("docs/")?.strip_suffix(".md")?;
        Some(name.to_owned())
    });
    names.collect()
}

/// Collects the commands, including those of groups: `history ls`.
fn commands(env: &Env, group: &[&str], found: &mut Vec<Vec<String>>) {
    let help = env.rbuild(&[group, &["--help"]].concat()).ok().stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in lines.take_while(|line| line.starts_with("  ")) {
        let name = line.split_whitespace().next().unwrap();
        if name != "help" && line.starts_with("  ") && !line.starts_with("   ") {
            let words = [group, &[name]].concat();
            found.push(words.iter().map(|word| (*word).to_owned()).collect());
            commands(env, &words, found);
        }
    }
}

#[test]
fn every_option_of_every_command_is_in_the_documentation() {
    let env = Env::new();
    let mut all = Vec::new();
    commands(&env, &[], &mut all);
    assert!(all.len() > 25, "the commands were read: {all:?}");
    let pages: String = source::texts_below("docs")
        .into_iter()
        .map(|file| file.text)
        .collect::<Vec<_>>()
        .join("\n");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let documented: BTreeSet<&str> =
        pages.split(|c| !is_word(c)).filter(|word| word.starts_with("--")).collect();
    let mut missing = BTreeSet::new();
    let mut n_options = 0;
    for command in &all {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let help = env.rbuild(&[&words[..], &["--help"]].concat()).ok().stdout;
        let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
        for line in options {
            let name = line.split(|c| !is_word(c)).find(|word| word.starts_with("--"));
            let Some(name) = name else { continue };
            n_options += 1;
            if !documented.contains(name) {
                missing.insert(format!("{}: {name}", command.join(" ")));
            }
        }
        assert!(
            pages.contains(&format!("`rbuild {}", words.join(" ")))
                || pages.contains(&format!("`rbuild [{}]", words.join(" ")))
                || words == ["history", "ls"],
            "{words:?} is not in docs/"
        );
    }
    assert!(n_options > 150, "the options were read: {n_options}");
    assert!(missing.is_empty(), "these are in no page of docs/: {missing:#?}");
}

#[test]
fn every_page_is_a_topic_and_a_manual_page() {
    let env = Env::new();
    let listed = env.rbuild(&["help", "topics"]).ok().stdout;
    let topics: Vec<&str> =
        listed.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(topics, names_of_pages());
    env.rbuild(&["man", "pages/man1"]).ok();
    for topic in topics {
        let shown = env.rbuild(&["help", topic]).ok().stdout;
        let page = source::text_of(&format!("docs/{topic}.md"));
        for heading in page.lines().filter_map(|line| line.strip_prefix("## ")) {
            let heading = format!("\n{}\n", heading.to_uppercase());
            assert!(shown.contains(&heading), "{topic}: no {heading:?}");
        }
        let manual = fs::read_to_string(env.path(&format!("pages/man7/rbuild-{topic}.7"))).unwrap();
        assert!(manual.starts_with(".TH \"rbuild\\-"), "{manual}");
    }
}

#[test]
fn help_of_a_command_is_that_of_the_command() {
    let env = Env::new();
    for command in ["images", "build", "history"] {
        let want = env.rbuild(&[command, "--help"]).ok().stdout;
        assert_eq!(env.rbuild(&["help", command]).ok().stdout, want);
    }
    let want = env.rbuild(&["history", "ls", "--help"]).ok().stdout;
    assert_eq!(env.rbuild(&["help", "history", "ls"]).ok().stdout, want);
    assert!(env.rbuild(&["help"]).ok().stdout.contains("\nCommands:\n"));
    // A command and a page have this name: both are shown.
    let store = env.rbuild(&["help", "store"]).ok().stdout;
    assert!(store.starts_with(&env.rbuild(&["store", "--help"]).ok().stdout), "{store}");
    assert!(store.contains("\nLOCATION\n"), "{store}");
}

#[test]
fn help_of_something_unknown_suggests_a_similar_name() {
    let env = Env::new();
    env.rbuild(&["help", "cache"]).fails(2, &["`cache`", "`rbuild help caches`"]);
    env.rbuild(&["help", "imags"]).fails(2, &["`imags`", "`rbuild help images`"]);
    env.rbuild(&["help", "weather"]).fails(2, &["`weather`", "`rbuild help topics`"]);
}

/// Returns the anchor of a heading, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(markdown: &str) -> BTreeSet<String> {
    let outside = text_lines(markdown);
    let headings = outside.iter().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Returns the lines that are not code.
fn text_lines(markdown: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = markdown.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    });
    lines.collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut n_links = 0;
    for file in documents() {
        let text = text_lines(&file.text).join("\n");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            n_links += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let from = source::root().join(&file.path);
            let path = if path.is_empty() { from } else { from.parent().unwrap().join(path) };
            let is_good = if heading.is_empty() {
                path.exists()
            } else {
                fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(heading))
            };
            if !is_good {
                broken.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert!(n_links > 100, "the links were read: {n_links}");
    assert!(broken.is_empty(), "these lead nowhere: {broken:#?}");
}

#[test]
fn documents_are_short_enough_to_read() {
    let readme = source::text_of("README.md");
    let n_lines = readme.lines().count();
    assert!(n_lines <= MAX_README_LINES, "README.md has {n_lines} lines");
    let mut wrong = Vec::new();
    for file in documents() {
        let long =
            (1..).zip(file.text.lines()).filter(|(_, line)| line.chars().count() > MAX_COLUMNS);
        wrong.extend(long.map(|(number, _)| format!("{}:{number}: a long line", file.path)));
        for sentence in sentences(&file.text) {
            if sentence.split_whitespace().count() > MAX_WORDS {
                wrong.push(format!("{}: a long sentence: {sentence}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns the sentences of a document's paragraphs and lists. Code in a sentence counts as one
/// word.
fn sentences(markdown: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in text_lines(markdown) {
        let is_item = line.trim_start().starts_with("- ");
        let is_text = !(line.is_empty() || line.starts_with(['#', '|', '!']));
        if !is_text || is_item {
            paragraphs.push(String::new());
        }
        if is_text {
            paragraphs.last_mut().unwrap().push_str(&format!(" {}", line.trim()));
        }
    }
    let without_code = paragraphs.iter().map(|paragraph| {
        let parts = paragraph.split('`').enumerate();
        parts.map(|(number, part)| if number % 2 == 0 { part } else { "code" }).collect::<String>()
    });
    without_code.flat_map(|text| text.split(". ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn paths_that_contributors_are_told_exist() {
    let text = source::text_of("CONTRIBUTING.md");
    let directories = ["src/", "tests/", "grammar/", "testdata/", "docs/", "examples/"];
    let named = text.split('`').skip(1).step_by(2).filter(|code| {
        directories.iter().any(|directory| code.starts_with(directory))
            && !code.contains([' ', '*'])
            && !code.contains("NAME")
    });
    let mut n_paths = 0;
    for path in named {
        n_paths += 1;
        assert!(source::root().join(path).exists(), "{path} does not exist");
    }
    assert!(n_paths > 30, "the paths were read: {n_paths}");
}
