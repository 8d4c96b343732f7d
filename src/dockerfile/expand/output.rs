//! The output of the lexer: a text, and the words into which it is split.

/// Expanded text so far, whole and split into words.
#[derive(Debug, Default)]
pub(super) struct ExpandedText {
    text: String,
    words: Vec<String>,
    word: String,
}

impl ExpandedText {
    /// Returns the length of the text so far.
    pub(super) const fn n_bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn into_words(mut self) -> Vec<String> {
        self.end_word();
        self.words
    }

    /// Appends text in which blanks separate words.
    pub(super) fn push_split(&mut self, text: &str) {
        for char in text.chars() {
            self.text.push(char);
            if char.is_whitespace() {
                self.end_word();
            } else {
                self.word.push(char);
            }
        }
    }

    /// Appends text that belongs to one word.
    pub(super) fn push_whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}
