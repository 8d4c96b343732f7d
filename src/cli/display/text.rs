//! Untrusted text, made safe for terminals and logs.

use std::borrow::Cow;

/// Maximum length of a line. A longer one is shown in pieces.
const MAX_LINE_BYTES: usize = 64 << 10;
/// SGR 0 (ECMA-48, 8.3.117): resets colours.
const COLOURS_END: &str = "\u{1b}[0m";

/// Splits the output of a step into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The line that has no end yet.
    open: Vec<u8>,
}

impl Lines {
    /// Adds output, and passes each finished line to `show`. Of a line that was overwritten, as by
    /// progress bars, only the last text is shown.
    pub(crate) fn push(&mut self, bytes: &[u8], mut show: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = piece;
            while !rest.is_empty() {
                let space = MAX_LINE_BYTES.saturating_sub(self.open.len());
                let (now, later) = rest.split_at_checked(space).unwrap_or((rest, &[]));
                self.open.extend_from_slice(now);
                rest = later;
                if self.open.len() >= MAX_LINE_BYTES && !self.open.ends_with(b"\n") {
                    self.make_space(&mut show);
                }
            }
            if piece.ends_with(b"\n") {
                self.end(&mut show);
            }
        }
    }

    /// Returns the unfinished line as a terminal shows it: after a carriage return, the old text stays
    /// until new text arrives.
    pub(crate) fn open(&self) -> Cow<'_, str> {
        let last = self.open.rsplit(|byte| *byte == b'\r').find(|text| !text.is_empty());
        String::from_utf8_lossy(last.unwrap_or_default())
    }

    /// Passes the unfinished line to `show`.
    pub(crate) fn end(&mut self, mut show: impl FnMut(&str)) {
        if self.open.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.open);
        let text = text.trim_end_matches(['\n', '\r']);
        show(text.rsplit('\r').next().unwrap_or(text));
        self.open.clear();
    }

    /// Drops overwritten text, or else shows the unfinished line.
    fn make_space(&mut self, show: impl FnMut(&str)) {
        let over = self.open.iter().rposition(|byte| *byte == b'\r').filter(|at| *at > 0);
        match over {
            Some(at) => drop(self.open.drain(..at)),
            None => {
                // Cut between characters.
                let is_first = |byte: &u8| byte & 0xc0 != 0x80;
                let end = self.open.len();
                let cut = self.open.iter().rposition(is_first).filter(|at| *at + 4 > end);
                let rest = self.open.split_off(cut.unwrap_or(end).max(1));
                self.end(show);
                self.open = rest;
            }
        }
    }
}

/// Returns whether `c` controls the display instead of having a shape: control characters, C1
/// included; characters that change the direction of text (Unicode, UAX #9, property
/// `Bidi_Control`), which can show source code in another order (CVE-2021-42574); and separators
/// that some viewers treat as line ends.
pub(crate) fn has_effect(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Returns a line without characters that [have an effect](has_effect), except tabs, and except
/// colours if `colours`. Idempotent.
pub(crate) fn shown(line: &str, colours: bool) -> Cow<'_, str> {
    let is_dropped = |c: char| has_effect(c) && c != '\t';
    if !line.contains(is_dropped) {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len());
    let mut is_coloured = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let sequence = if c == '\u{1b}' { escape_sequence(after) } else { None };
        if let Some((sequence, after)) = sequence {
            if colours && is_colour(sequence) {
                is_coloured = true;
                text.push('\u{1b}');
                text.push_str(sequence);
            }
            rest = after;
            continue;
        }
        if !is_dropped(c) {
            text.push(c);
        }
        rest = after;
    }
    if is_coloured && !text.ends_with(COLOURS_END) {
        // A colour must not leak into the lines below.
        text.push_str(COLOURS_END);
    }
    Cow::Owned(text)
}

/// Returns JSON in which characters that [have an effect](has_effect) are escaped, so that it means the
/// same and can be shown on a terminal. Outside of strings, JSON has none of them but line ends
/// (RFC 8259, section 2).
pub(crate) fn shown_json(document: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| has_effect(c) && c != '\n';
    if !document.contains(is_escaped) {
        return Cow::Borrowed(document);
    }
    let mut text = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if is_escaped(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

/// Returns several lines, each as by [`shown`] without colours.
pub(crate) fn shown_lines(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().split('\n').map(|line| shown(line, false)).collect();
    lines.join("\n")
}

/// Splits text after an escape character (ECMA-48, 5.4 and 8.3.89): a control sequence or a string,
/// such as a window title, and the rest.
fn escape_sequence(text: &str) -> Option<(&str, &str)> {
    let mut chars = text.char_indices();
    let (_, first) = chars.next()?;
    let end = match first {
        '[' => chars.find(|(_, c)| ('@'..='~').contains(c)).map(|(at, c)| at + c.len_utf8()),
        ']' | 'P' | 'X' | '^' | '_' => {
            let is_end = |(_, c): &(usize, char)| matches!(c, '\u{7}' | '\u{9c}' | '\u{1b}');
            let end = chars.find(is_end);
            // The end of a string may be two characters: ESC and a backslash.
            end.map(|(at, c)| match text.get(at + c.len_utf8()..) {
                Some(rest) if c == '\u{1b}' && rest.starts_with('\\') => at + 2,
                _ => at + c.len_utf8(),
            })
        }
        other => Some(other.len_utf8()),
    };
    text.split_at_checked(end.unwrap_or(text.len()))
}

/// Returns whether a sequence is SGR, `[…m` with numbers only: colour, weight and the like.
fn is_colour(sequence: &str) -> bool {
    let numbers = sequence.strip_prefix('[').and_then(|rest| rest.strip_suffix('m'));
    numbers.is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit() || b";:".contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut shown = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk, |line| shown.push(line.to_owned()));
        }
        lines.end(|line| shown.push(line.to_owned()));
        shown
    }

    #[test]
    fn output_is_cut_at_its_line_ends_only() {
        let check = |chunks: &[&[u8]], want: &[&str]| assert_eq!(lines(chunks), want, "{chunks:?}");
        check(&[b"a\nb", b"c\n"], &["a", "bc"]);
        check(&[b"a\n\nb\n"], &["a", "", "b"]);
        check(&[b"10%\r", b"20%\r100%\nend"], &["100%", "end"]);
        check(&[b"dos\r\n"], &["dos"]);
        check(&[b"\xff\n"], &["\u{fffd}"]);
    }

    #[test]
    fn an_open_line_is_what_was_written_last() {
        let check = |chunk: &[u8], want: &str| {
            let mut lines = Lines::default();
            lines.push(chunk, |_line| {});
            assert_eq!(lines.open(), want, "{chunk:?}");
        };
        check(b"a\nb", "b");
        check(b"a\n", "");
        check(b"10%\r20%", "20%");
        check(b"10%\r20%\r", "20%");
        check(b"\xe2\x82", "\u{fffd}");
    }

    #[test]
    fn nothing_of_a_long_line_is_lost_and_little_of_it_kept() {
        let long = "ä".repeat(200_000);
        let shown = lines(&[long.as_bytes(), b"\nnext\n"]);
        assert_eq!(shown.len(), 8, "{:?}", shown.iter().map(String::len).collect::<Vec<_>>());
        assert_eq!(shown[..7].concat(), long);
        let bar = "x".repeat(1000) + "\r";
        let mut kept = Lines::default();
        kept.push(bar.repeat(1000).as_bytes(), |line| panic!("{line}"));
        assert!(kept.open.len() <= MAX_LINE_BYTES);
        kept.push(b"100%\n", |line| assert_eq!(line, "100%"));
    }

    #[test]
    fn a_line_has_no_characters_with_an_effect_but_colours() {
        for (line, with, without) in [
            ("plain\ttext", "plain\ttext", "plain\ttext"),
            ("\u{1b}[1;31mred\u{1b}[0m", "\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}[32mgreen", "\u{1b}[32mgreen\u{1b}[0m", "green"),
            ("\u{1b}[2J\u{1b}[Hgone", "gone", "gone"),
            ("\u{1b}]0;title\u{7}a", "a", "a"),
            ("\u{1b}]8;;http://x\u{1b}\\a", "a", "a"),
            ("a\u{8}\u{0}b\u{9b}31mc", "ab31mc", "ab31mc"),
            ("a\u{7f}\u{80}b\u{85}\u{9d}\u{9f}c", "abc", "abc"),
            ("a\rb\nc", "abc", "abc"),
            ("\u{202a}a\u{202b}\u{202c}b\u{202d}\u{202e}c", "abc", "abc"),
            ("\u{2066}a\u{2067}b\u{2068}c\u{2069}", "abc", "abc"),
            ("\u{200e}a\u{200f}b\u{61c}c", "abc", "abc"),
            ("a\u{2028}b\u{2029}c", "abc", "abc"),
            ("\u{1b}\u{202e}[2Jx\u{1b}[\u{202e}2Jy", "[2Jxy", "[2Jxy"),
            ("\u{1b}[3\u{202e}1mx", "x", "x"),
            (
                "\u{5e9}\u{5dc}e\u{301}\u{200d}\u{a0}",
                "\u{5e9}\u{5dc}e\u{301}\u{200d}\u{a0}",
                "\u{5e9}\u{5dc}e\u{301}\u{200d}\u{a0}",
            ),
            ("\u{1b}[31", "", ""),
            ("\u{1b}", "", ""),
            ("\u{1b}[?25lx", "x", "x"),
        ] {
            assert_eq!(shown(line, true), with, "{line:?}");
            assert_eq!(shown(line, false), without, "{line:?}");
            assert_eq!(shown(with, true), with, "again {line:?}");
        }
    }

    #[test]
    fn json_on_a_terminal_says_what_it_said() {
        let value = serde_json::json!({ "a\u{202e}": "\u{1b}[31m\u{7f}\u{9b}1m\u{2028}\n\\ä" });
        for document in [format!("{value}"), format!("{value:#}")] {
            let text = shown_json(&document);
            assert!(!text.contains(|c| has_effect(c) && c != '\n'), "{text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }
}
