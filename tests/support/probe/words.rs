//! Words: errors point into the text, and nothing grows beyond all measure.

use rbuild::diag::Span;
use rbuild::dockerfile::expand::{self, ExpandError};
use rbuild::dockerfile::ir::Escape;

/// Maximum length of a variable; see [`probe`].
const LONGEST_VALUE: usize = 12;

/// Reads the first byte as settings (the escape character, and which variables are set), the rest
/// as a word and as a heredoc's body.
pub(crate) fn probe(bytes: &[u8]) {
    let Some((settings, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    let escape = if settings & 1 == 0 { Escape::Backslash } else { Escape::Backtick };
    let env = |name: &str| match (settings >> 1) & 3 {
        0 => None,
        1 => Some(String::new()),
        2 => Some("a/b c*é.txt".to_owned()),
        _ => Some(name.chars().take(LONGEST_VALUE).collect()),
    };
    let word = expand::word(&text, escape, &env);
    let words = expand::words(&text, escape, &env);
    assert_eq!(word.as_ref().err(), words.as_ref().err());
    if let (Ok(word), Ok(words)) = (&word, &words) {
        let longest = text.len() + expand::MAX_GROWTH;
        assert!(word.value.len() <= longest, "{} bytes of {}", word.value.len(), text.len());
        assert!(words.value.iter().all(|word| !word.is_empty()));
        assert_eq!(word.undefined, words.undefined);
    }
    if !text.contains(['$', '\'', '"', escape.char()]) {
        assert_eq!(word.as_ref().map(|word| word.value.as_str()), Ok(&*text));
    }
    let heredoc = expand::heredoc(&text, &env);
    for error in [word.err(), words.err(), heredoc.err()].into_iter().flatten() {
        assert_place(&text, &error);
    }
}

fn assert_place(text: &str, error: &ExpandError) {
    assert!(text.get(error.at.clone()).is_some(), "{error:?} is not in {text:?}");
    let diagnostic = error.diagnostic(Span::new(0, text.len()));
    assert!(
        diagnostic.is_error() && text.get(diagnostic.span.start..diagnostic.span.end).is_some()
    );
}
