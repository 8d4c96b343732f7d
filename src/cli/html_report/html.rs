//! Markup that is written, and text that is put into it: only the former can be markup.

use std::fmt::{Display, Write as _};

use crate::cli::display::text::has_effect;
use crate::plan::redacted_text;

/// A piece of a page.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Adds markup, with a value at each `{}`, as text or inside of a quoted attribute.
    pub(crate) fn put(&mut self, markup: &'static str, values: &[&dyn Display]) {
        let mut values = values.iter();
        let mut pieces = markup.split("{}");
        self.0.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            if let Some(value) = values.next() {
                self.text(&value.to_string());
            }
            self.0.push_str(piece);
        }
    }

    /// Adds markup as it is.
    pub(crate) fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Adds text, of which nothing is markup, without credentials of URLs.
    pub(crate) fn text(&mut self, text: &str) {
        for c in redacted_text(text).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\t' | '\n' => self.0.push(c),
                c if c.is_control() => self.0.push('\u{fffd}'),
                // Most would show what follows in another order than it has.
                c if has_effect(c) => {
                    // Writing to a string does not fail.
                    let _written = write!(self.0, "\\u{{{:x}}}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
    }

    pub(crate) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// How long something took.
pub(crate) fn span(seconds: f64) -> String {
    let ms = whole(seconds * 1000.0);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", f64::from(ms / 10) / 100.0),
        60_000..3_600_000 => format!("{} m {:02} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {:02} m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// The nearest number that is not negative.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is too large or too small becomes the largest or smallest"
)]
pub(crate) const fn whole(number: f64) -> u32 {
    number.round() as u32
}

/// A count as a place on the page.
pub(crate) fn real(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}

/// As in `1 step`, `2 steps`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The beginning of a text, of at most so many characters.
pub(crate) fn short(text: &str, n_chars: usize) -> String {
    if text.chars().nth(n_chars).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(n_chars.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_whatever_they_are() {
        let mut html = Html::default();
        html.put("<a href=\"#{}\">{}</a>{}", &[&"\"'>", &"</a><script>&", &"a\u{202e}b\u{1b}\n"]);
        let want =
            "<a href=\"#&quot;&#39;&gt;\">&lt;/a&gt;&lt;script&gt;&amp;</a>a\\u{202e}b\u{fffd}\n";
        assert_eq!(html.into_string(), want);
    }

    #[test]
    fn times_are_as_exact_as_they_are_long() {
        for (seconds, want) in [
            (0.0, "0 ms"),
            (0.0154, "15 ms"),
            (1.25, "1.2 s"),
            (59.96, "60.0 s"),
            (65.2, "1 m 05 s"),
            (3_725.0, "1 h 02 m"),
            (-1.0, "0 ms"),
        ] {
            assert_eq!(span(seconds), want);
        }
        assert_eq!(short("abcdef", 6), "abcdef");
        assert_eq!(short("abc defg", 5), "abc…");
    }
}
