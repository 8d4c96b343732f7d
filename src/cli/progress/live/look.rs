//! The look of the live view: symbols, columns, times.

use std::time::Duration;

use crate::executor::{Outcome, StepId};

use super::colours::Colours;
use super::line::{Paint, PaintedLine};

/// Characters that the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    /// All characters of Unicode.
    Unicode,
    /// Those of ASCII only.
    Ascii,
}

/// The look of the live view.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) signs: Signs,
    pub(super) colours: Colours,
}

/// Width in columns of a time or of `CACHED`.
const TIME_COLUMNS: usize = 6;
/// Milliseconds for which a picture of the spinner is shown.
const TURN_MS: u128 = 100;

impl Look {
    /// Returns the mark of clipped text.
    pub(super) const fn more(self) -> &'static str {
        match self.signs {
            Signs::Unicode => "…",
            Signs::Ascii => "...",
        }
    }

    /// Returns the separator of items on a line.
    pub(super) const fn and(self) -> &'static str {
        match self.signs {
            Signs::Unicode => " · ",
            Signs::Ascii => ", ",
        }
    }

    /// Returns the beginning of a finished step's line: a symbol, and its duration or outcome.
    pub(super) fn end(self, outcome: Outcome, took: Duration) -> PaintedLine {
        let (paint, unicode, ascii, text) = match outcome {
            Outcome::Done => (self.colours.done, "✔", "+", clock(took)),
            Outcome::Cached => (self.colours.running, "✔", "+", "CACHED".to_owned()),
            Outcome::Failed => (self.colours.failed, "✘", "x", "ERROR".to_owned()),
            Outcome::Cancelled => (self.colours.cancelled, "■", "-", "CANCELED".to_owned()),
        };
        let sign = if self.signs == Signs::Unicode { unicode } else { ascii };
        self.start(paint, sign, if outcome == Outcome::Done { Paint::Plain } else { paint }, &text)
    }

    /// Returns the beginning of a running step's line: a spinner and its time.
    pub(super) fn running(self, now: Duration, elapsed: &str) -> PaintedLine {
        let spinner: &[&str] = match self.signs {
            Signs::Unicode => &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
            Signs::Ascii => &["|", "/", "-", "\\"],
        };
        let turns = usize::try_from(now.as_millis() / TURN_MS).unwrap_or(0);
        let at = turns.checked_rem(spinner.len()).unwrap_or(0);
        self.start(self.colours.running, spinner.get(at).unwrap_or(&" "), Paint::Plain, elapsed)
    }

    fn start(self, sign_paint: Paint, sign: &str, paint: Paint, text: &str) -> PaintedLine {
        PaintedLine::default()
            .with(sign_paint, sign)
            .with(paint, &format!(" {text:>TIME_COLUMNS$} "))
    }

    /// Returns a step's line.
    pub(super) fn step(self, start: PaintedLine, step: StepId, name: &str) -> PaintedLine {
        start.with(Paint::Dim, &format!("#{} ", step.0)).with(Paint::Plain, name)
    }

    /// Returns a line below a step's.
    pub(super) fn below(self, text: &str) -> PaintedLine {
        let indent = " ".repeat(TIME_COLUMNS + 3);
        // The indent is a piece of its own, so that tabs in the text keep their width.
        PaintedLine::default().with(Paint::Plain, &indent).with(Paint::Dim, text)
    }
}

/// Returns a time in six columns: `3.2s`, `2m05s`, `1h07m`.
pub(super) fn clock(time: Duration) -> String {
    let whole_s = time.as_secs();
    match whole_s {
        0..60 => format!("{}.{}s", whole_s, time.subsec_millis() / 100),
        60..3600 => format!("{}m{:02}s", whole_s / 60, whole_s % 60),
        _ => format!("{}h{:02}m", whole_s / 3600, whole_s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (ms, want) in [
            (0, "0.0s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (3_599_999, "59m59s"),
            (3_600_000, "1h00m"),
            (100 * 3_600_000, "100h00m"),
        ] {
            assert_eq!(clock(Duration::from_millis(ms)), want);
        }
    }
}
