//! Lines of the live view: painted text, measured and clipped in columns.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

use crate::cli::display::text::shown;

/// Distance between tab stops.
const TAB_COLUMNS: usize = 8;

/// Colour or weight of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// The default of the terminal.
    Plain,
    /// For the header line.
    Bold,
    /// For output and other secondary text.
    Dim,
    /// For steps that succeeded.
    Green,
    /// For cached and running steps.
    Cyan,
    /// For steps that failed.
    Red,
    /// For steps that were canceled.
    Yellow,
    /// A colour of `BUILDKIT_COLORS`: the parameter of SGR.
    Sgr(u8),
    /// A colour of `BUILDKIT_COLORS`: red, green and blue.
    Rgb(u8, u8, u8),
}

impl Paint {
    /// Returns the parameter of SGR (ECMA-48, 8.3.117).
    fn code(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Cyan => "36",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Sgr(parameter) => return Cow::Owned(parameter.to_string()),
            Self::Rgb(red, green, blue) => return Cow::Owned(format!("38;2;{red};{green};{blue}")),
        })
    }
}

/// A line of painted text. Nothing in it can move the cursor.
#[derive(Debug, Clone, Default)]
pub(super) struct PaintedLine(Vec<(Paint, String)>);

impl PaintedLine {
    /// Appends text of this colour.
    #[must_use]
    pub(super) fn with(mut self, paint: Paint, text: &str) -> Self {
        self.0.push((paint, settled(text)));
        self
    }

    /// Returns its width in columns.
    pub(super) fn columns(&self) -> usize {
        self.0.iter().map(|(_, text)| columns(text)).sum()
    }

    /// Clips the line to `space` columns; `more` marks the cut.
    #[must_use]
    pub(super) fn clipped(self, space: usize, more: &str) -> Self {
        if self.columns() <= space {
            return self;
        }
        let mut left = space.saturating_sub(columns(more));
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        let mut last = Paint::Plain;
        for (paint, text) in self.0 {
            let n_columns = columns(&text);
            last = paint;
            if n_columns > left {
                kept.push((paint, first_columns(&text, left)));
                break;
            }
            left -= n_columns;
            kept.push((paint, text));
        }
        kept.push((last, first_columns(more, space)));
        Self(kept)
    }

    /// Clips the line so that `after`, which is appended, fits as a whole if it can.
    #[must_use]
    pub(super) fn clipped_before(self, after: Self, space: usize, more: &str) -> Self {
        let mut all = self.clipped(space.saturating_sub(after.columns()), more);
        all.0.extend(after.0);
        all.clipped(space, more)
    }

    /// Returns the bytes for the terminal.
    pub(super) fn text(&self, colours: bool) -> String {
        let mut all = String::new();
        for (paint, text) in &self.0 {
            if !colours || *paint == Paint::Plain {
                all.push_str(text);
            } else {
                all.push_str(&format!("\u{1b}[{}m{text}\u{1b}[0m", paint.code()));
            }
        }
        all
    }
}

/// Returns filtered text in which tabs are expanded.
fn settled(text: &str) -> String {
    let text = shown(text, false);
    let mut settled = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let n_blanks = TAB_COLUMNS - column % TAB_COLUMNS;
                settled.extend(std::iter::repeat_n(' ', n_blanks));
                column += n_blanks;
            }
            c => {
                settled.push(c);
                column += c.width().unwrap_or(0);
            }
        }
    }
    settled
}

fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

fn first_columns(text: &str, space: usize) -> String {
    let mut left = space;
    let fits = |c: &char| {
        let n_columns = c.width().unwrap_or(0);
        let fits = n_columns <= left;
        left = left.saturating_sub(n_columns);
        fits
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_clipped_in_columns() {
        let line = || PaintedLine::default().with(Paint::Bold, "ab").with(Paint::Plain, "日本c");
        assert_eq!(line().columns(), 7);
        for (space, want) in [
            (9, "ab日本c"),
            (7, "ab日本c"),
            (6, "ab日…"),
            (5, "ab日…"),
            (4, "ab…"),
            (3, "ab…"),
            (2, "a…"),
            (1, "…"),
            (0, ""),
        ] {
            let clipped = line().clipped(space, "…");
            assert_eq!(clipped.text(false), want, "{space}");
            assert!(clipped.columns() <= space);
        }
        assert_eq!(line().clipped(6, "...").text(false), "ab...");
        assert_eq!(line().clipped(3, "…").text(true), "\u{1b}[1mab\u{1b}[0m…");
    }

    #[test]
    fn nothing_in_a_line_moves_the_cursor() {
        for (text, want) in [
            ("a\tb", "a       b"),
            ("日本\tb", "日本    b"),
            ("\u{1b}[2J\u{1b}[31mred\r\n\u{7}", "red"),
            ("a\u{202e}b\u{2066}c", "abc"),
            ("e\u{301}x", "e\u{301}x"),
        ] {
            assert_eq!(
                PaintedLine::default().with(Paint::Plain, text).text(false),
                want,
                "{text:?}"
            );
        }
        assert_eq!(PaintedLine::default().with(Paint::Plain, "e\u{301}x").columns(), 2);
    }
}
