//! How things look: signs, columns, times.

use std::time::Duration;

use crate::executor::{Outcome, StepId};

use super::line::{Line, Paint};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    /// Any character.
    Unicode,
    /// Those of ASCII.
    Ascii,
}

/// Signs and the space there is for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) signs: Signs,
}

/// The columns of a time or of `CACHED`, before the step.
const TIME_COLUMNS: usize = 6;
/// A picture of the wheel is shown so long.
const TURN_MS: u128 = 100;

impl Look {
    /// What stands for text that was clipped.
    pub(super) const fn more(self) -> &'static str {
        match self.signs {
            Signs::Unicode => "…",
            Signs::Ascii => "...",
        }
    }

    /// What stands between things of one line.
    pub(super) const fn and(self) -> &'static str {
        match self.signs {
            Signs::Unicode => " · ",
            Signs::Ascii => ", ",
        }
    }

    /// The beginning of a step's line: a sign, and how long it took or how it ended.
    pub(super) fn end(self, outcome: Outcome, took: Duration) -> Line {
        let (paint, unicode, ascii, text) = match outcome {
            Outcome::Done => (Paint::Green, "✔", "+", clock(took)),
            Outcome::Cached => (Paint::Cyan, "✔", "+", "CACHED".to_owned()),
            Outcome::Failed => (Paint::Red, "✘", "x", "ERROR".to_owned()),
            Outcome::Cancelled => (Paint::Yellow, "■", "-", "CANCELED".to_owned()),
        };
        let sign = if self.signs == Signs::Unicode { unicode } else { ascii };
        self.start(paint, sign, if outcome == Outcome::Done { Paint::Plain } else { paint }, &text)
    }

    /// The beginning of a running step's line: a wheel that turns, and its time.
    pub(super) fn running(self, now: Duration, elapsed: &str) -> Line {
        let wheel: &[&str] = match self.signs {
            Signs::Unicode => &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
            Signs::Ascii => &["|", "/", "-", "\\"],
        };
        let turns = usize::try_from(now.as_millis() / TURN_MS).unwrap_or(0);
        let at = turns.checked_rem(wheel.len()).unwrap_or(0);
        self.start(Paint::Cyan, wheel.get(at).unwrap_or(&" "), Paint::Plain, elapsed)
    }

    fn start(self, sign_paint: Paint, sign: &str, paint: Paint, text: &str) -> Line {
        Line::default().with(sign_paint, sign).with(paint, &format!(" {text:>TIME_COLUMNS$} "))
    }

    /// A step's line.
    pub(super) fn step(self, start: Line, step: StepId, name: &str) -> Line {
        start.with(Paint::Dim, &format!("#{} ", step.0)).with(Paint::Plain, name)
    }

    /// A line that belongs to the step above.
    pub(super) fn below(self, text: &str) -> Line {
        let indent = " ".repeat(TIME_COLUMNS + 3);
        // Blanks before the text, so that its own tabs are where it has them.
        Line::default().with(Paint::Plain, &indent).with(Paint::Dim, text)
    }
}

/// A time in six columns: `3.2s`, `2m05s`, `1h07m`.
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
