//! Words of a command line, taken one after the other.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

/// The words that are left of a command line.
#[derive(Debug)]
pub(super) struct Words<'a>(VecDeque<&'a OsStr>);

impl<'a> Words<'a> {
    /// Begins with the first of `words`.
    pub(super) fn new(words: &'a [OsString]) -> Self {
        Self(words.iter().map(OsString::as_os_str).collect())
    }

    /// Returns these words.
    pub(super) fn of_refs(words: Vec<&'a OsStr>) -> Self {
        Self(words.into())
    }

    /// Returns whether no word is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a word.
    pub(super) fn next_ref(&mut self) -> Option<&'a OsStr> {
        self.0.pop_front()
    }

    /// Takes the next word if it is `word`. Returns whether it was.
    pub(super) fn next_if(&mut self, word: &str) -> bool {
        let is_next = self.0.front().is_some_and(|next| *next == word);
        if is_next {
            self.0.pop_front();
        }
        is_next
    }

    /// Takes the next word if it is the flag `name`, also as `--name=true`.
    pub(super) fn next_flag(&mut self, name: &str) -> bool {
        self.next_if(name) || self.next_if(&format!("{name}=true"))
    }

    /// Takes the next word unless it is an option.
    pub(super) fn next_operand(&mut self) -> Option<String> {
        let word = self.0.front()?.to_string_lossy().into_owned();
        if word.starts_with('-') {
            return None;
        }
        self.0.pop_front();
        Some(word)
    }

    /// Takes the next words if they are one of the options `names` and its value: `--name value` or
    /// `--name=value`.
    ///
    /// # Errors
    /// A message for the user if the value is missing.
    pub(super) fn next_value(&mut self, names: &[&str]) -> Result<Option<String>, String> {
        let Some(word) = self.0.front().map(|word| word.to_string_lossy()) else { return Ok(None) };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*word, None),
        };
        if !names.contains(&name) {
            return Ok(None);
        }
        let name = name.to_owned();
        self.0.pop_front();
        let next = || self.0.pop_front().map(|word| word.to_string_lossy().into_owned());
        value.or_else(next).map(Some).ok_or_else(|| format!("{name}: the value is missing"))
    }
}

impl Iterator for Words<'_> {
    type Item = OsString;

    fn next(&mut self) -> Option<OsString> {
        self.next_ref().map(OsStr::to_owned)
    }
}
