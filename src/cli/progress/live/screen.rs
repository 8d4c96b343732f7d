//! The bytes that draw a frame: finished lines scroll up and stay, live lines are overwritten.
//!
//! Between frames the cursor stands at the start of the first live line. A terminal that is resized and
//! wraps its lines again keeps the cursor at the same text, so wrapped rows need not be counted. A
//! frame is one write.

use super::line::PaintedLine;
use super::look::Look;
use super::model::FinishedLine;

/// Begins a synchronized update (DEC private mode 2026). Other terminals ignore it
/// (<https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036>).
const BEGIN: &str = "\u{1b}[?2026h";
const END: &str = "\u{1b}[?2026l";
const HIDE_CURSOR: &str = "\u{1b}[?25l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";
/// Disables wrapping (DECAWM): the terminal may find a line wider than we do.
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

/// Restores the terminal from any point of a frame.
pub(super) const LEAVE: &str = "\u{1b}[?2026l\u{1b}[?7h\r\u{1b}[J\u{1b}[?25h";

/// State of the screen.
#[derive(Debug)]
pub(super) struct Screen {
    colours: bool,
    /// True if live lines are shown and the cursor is hidden.
    pub(super) is_live: bool,
}

impl Screen {
    pub(super) const fn new(colours: bool) -> Self {
        Self { colours, is_live: false }
    }

    /// Returns the bytes that add `past`, and replace the live lines by `lines`. Without `lines`, the
    /// cursor is shown at the start of the next line.
    pub(super) fn frame(
        &mut self,
        past: &[FinishedLine],
        lines: &[PaintedLine],
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
                FinishedLine::Text(text) => bytes.push_str(text),
                FinishedLine::Wrapped(line) => bytes.push_str(&line.text(self.colours)),
                FinishedLine::Clipped(line, after) => {
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

    fn live(&self, lines: &[PaintedLine], bytes: &mut String) {
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
    use crate::cli::progress::live::colours::Colours;
    use crate::cli::progress::live::line::Paint;
    use crate::cli::progress::live::look::Signs;

    #[test]
    fn a_frame_is_one_write_that_ends_where_it_began() {
        let line = |text: &str| PaintedLine::default().with(Paint::Green, text);
        let look = Look { signs: Signs::Unicode, colours: Colours::default() };
        let mut screen = Screen::new(false);
        let mut frame = |past: &[FinishedLine], lines: &[PaintedLine]| {
            let bytes = screen.frame(past, lines, look, 6);
            bytes.replace('\u{1b}', "^").replace("^[?2026h", "{").replace("^[?2026l", "}")
        };
        assert_eq!(frame(&[], &[]), "");
        assert_eq!(frame(&[FinishedLine::Text("x".into())], &[]), "{x\r\n}");
        assert_eq!(frame(&[], &[line("a")]), "{^[?25l^[?7la^[K^[J^[?7h\r}");
        let two = [line("a"), line("b")];
        assert_eq!(frame(&[], &two), "{\r^[?7la^[K\r\nb^[K^[J^[?7h\r^[1A}");
        let past = [
            FinishedLine::Clipped(line("wide line"), line("!")),
            FinishedLine::Text("long text".into()),
        ];
        let want = "{\r^[Jwid…!\r\nlong text\r\n^[?7la^[K^[J^[?7h\r}";
        assert_eq!(frame(&past, &[line("a")]), want);
        assert_eq!(frame(&[], &[]), "{\r^[J^[?25h}");
        assert_eq!(frame(&[], &[]), "");
    }
}
