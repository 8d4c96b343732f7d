//! Bytes that bring a frame onto a terminal: what is over scrolls up and stays, the lines that live are
//! written over.
//!
//! Between frames the cursor stands at the start of the first live line. When the terminal is resized,
//! and what it shows is wrapped anew, it keeps the cursor with what it stands on: so no count of wrapped
//! rows can be wrong. Everything of one frame is one write.

use super::line::Line;
use super::look::Look;
use super::model::Past;

/// Begins and ends what a terminal shows at once (DEC mode 2026; others pass over it).
const BEGIN: &str = "\u{1b}[?2026h";
const END: &str = "\u{1b}[?2026l";
const HIDE_CURSOR: &str = "\u{1b}[?25l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";
/// A line that is wider than we think is cut by the terminal, and not wrapped.
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

/// What brings the terminal back from wherever a frame may have left it.
pub(super) const LEAVE: &str = "\u{1b}[?2026l\u{1b}[?7h\r\u{1b}[J\u{1b}[?25h";

/// What is on the screen.
#[derive(Debug)]
pub(super) struct Screen {
    colours: bool,
    /// Whether live lines are there, and no cursor.
    pub(super) is_live: bool,
}

impl Screen {
    pub(super) const fn new(colours: bool) -> Self {
        Self { colours, is_live: false }
    }

    /// What is to be written so that `past` stays, with `lines` below it in place of those that were
    /// there. With none, the cursor is where the next line begins, and is seen.
    pub(super) fn frame(
        &mut self,
        past: &[Past],
        lines: &[Line],
        look: Look,
        columns: usize,
    ) -> String {
        if past.is_empty() && lines.is_empty() && !self.is_live {
            return String::new();
        }
        let mut bytes = BEGIN.to_owned();
        if self.is_live {
            bytes.push('\r');
        } else if !lines.is_empty() {
            bytes.push_str(HIDE_CURSOR);
        }
        if self.is_live && (lines.is_empty() || !past.is_empty()) {
            bytes.push_str(CLEAR_BELOW);
        }
        for line in past {
            match line {
                Past::Text(text) => bytes.push_str(text),
                Past::Whole(line) => bytes.push_str(&line.text(self.colours)),
                Past::Line(line, after) => {
                    let space = columns.saturating_sub(1);
                    let line = line.clone().clipped_before(after.clone(), space, look.more());
                    bytes.push_str(&line.text(self.colours));
                }
            }
            bytes.push_str("\r\n");
        }
        self.live(lines, &mut bytes);
        if self.is_live && lines.is_empty() {
            bytes.push_str(SHOW_CURSOR);
        }
        self.is_live = !lines.is_empty();
        bytes.push_str(END);
        bytes
    }

    fn live(&self, lines: &[Line], bytes: &mut String) {
        if lines.is_empty() {
            return;
        }
        bytes.push_str(NO_WRAP);
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                bytes.push_str("\r\n");
            }
            bytes.push_str(&line.text(self.colours));
            bytes.push_str(CLEAR_LINE);
        }
        bytes.push_str(CLEAR_BELOW);
        bytes.push_str(WRAP);
        bytes.push('\r');
        if lines.len() > 1 {
            bytes.push_str(&format!("\u{1b}[{}A", lines.len() - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::live::line::Paint;
    use crate::cli::progress::live::look::Signs;

    #[test]
    fn a_frame_is_one_write_that_ends_where_it_began() {
        let line = |text: &str| Line::default().with(Paint::Green, text);
        let look = Look { signs: Signs::Unicode };
        let mut screen = Screen::new(false);
        let mut frame = |past: &[Past], lines: &[Line]| {
            let bytes = screen.frame(past, lines, look, 6);
            bytes.replace('\u{1b}', "^").replace("^[?2026h", "{").replace("^[?2026l", "}")
        };
        assert_eq!(frame(&[], &[]), "");
        assert_eq!(frame(&[Past::Text("x".into())], &[]), "{x\r\n}");
        assert_eq!(frame(&[], &[line("a")]), "{^[?25l^[?7la^[K^[J^[?7h\r}");
        let two = [line("a"), line("b")];
        assert_eq!(frame(&[], &two), "{\r^[?7la^[K\r\nb^[K^[J^[?7h\r^[1A}");
        let past = [Past::Line(line("wide line"), line("!")), Past::Text("long text".into())];
        let want = "{\r^[Jwid…!\r\nlong text\r\n^[?7la^[K^[J^[?7h\r}";
        assert_eq!(frame(&past, &[line("a")]), want);
        assert_eq!(frame(&[], &[]), "{\r^[J^[?25h}");
        assert_eq!(frame(&[], &[]), "");
    }
}
