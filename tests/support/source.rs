//! The project's own files, for the tests about the project.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files")]

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the checkout.
#[derive(Debug)]
pub(crate) struct SourceText {
    /// Relative to the checkout, as in `src/tree/mod.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceText {
    /// Returns the lines before the unit tests, which are at the end of a file; none for a file of
    /// tests.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let of_tests = self.path.ends_with("/tests.rs") || self.path.starts_with("tests/");
        let lines = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        (1..).zip(lines).filter(move |_| !of_tests)
    }

    /// Returns the code without comment lines. The contents of strings stay.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code_lines()
            .map(|(number, line)| (number, line.trim_start()))
            .filter(|(_, line)| !line.starts_with("//"))
    }
}

/// Returns the directory of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all text files below `directory`, sorted by path.
pub(crate) fn texts_below(directory: &str) -> Vec<SourceText> {
    let mut files = Vec::new();
    collect(&root().join(directory), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty(), "{directory} holds no text");
    files
}

/// Returns the text of one file.
pub(crate) fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Returns all `.rs` files below `directory`.
pub(crate) fn rust_below(directory: &str) -> Vec<SourceText> {
    let mut files = texts_below(directory);
    files.retain(|file| file.path.ends_with(".rs"));
    files
}

fn collect(path: &Path, files: &mut Vec<SourceText>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| collect(entry, files));
    } else if let Ok(text) = fs::read_to_string(path) {
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        files.push(SourceText { path, text });
    }
}
