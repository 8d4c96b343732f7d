//! The output of a step as HTML: colours become CSS classes, other control sequences are removed.

use crate::cli::display::text::{Lines, shown};
use crate::cli::records::{OutputChunk, RecordedStep};

use super::html::{Html, count, span};

/// Pauses in the output of at least this length are marked, in seconds.
const LONG_PAUSE: f64 = 1.0;

/// Returns the log of a step; empty if it has no output.
pub(crate) fn log(id: u32, step: &RecordedStep, build: Option<&str>) -> Html {
    let mut html = Html::default();
    if step.output.is_empty() {
        return html;
    }
    html.put("<pre class=\"log\" tabindex=\"0\" aria-label=\"Log of step {}\">", &[&id]);
    let mut writer = LogWriter { html, last: 0.0 };
    writer.pieces(step.output.chunks().iter());
    let n_bytes = step.output.n_left_out();
    if n_bytes > 0 {
        let html = &mut writer.html;
        let omitted = count(n_bytes, "byte");
        html.put("</pre>\n<p class=\"left-out\">{} omitted here", &[&omitted]);
        if let Some(build) = build {
            let command = format!("rbuild history logs {build} --step {id}");
            html.put("; full log: <code>{}</code>", &[&command]);
        }
        html.raw(".</p>\n<pre class=\"log\" tabindex=\"0\" aria-label=\"The end of the log\">");
    }
    writer.pieces(step.output.tail());
    writer.html.raw("</pre>\n");
    writer.html
}

/// Writes the lines of a log, with a mark at each long pause.
struct LogWriter {
    html: Html,
    /// Time of the last line, in seconds since the start of the build.
    last: f64,
}

impl LogWriter {
    fn pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a OutputChunk>) {
        let mut lines = Lines::default();
        for (at, bytes) in pieces {
            lines.push(bytes, |text| self.line(*at, text));
        }
        let at = self.last;
        lines.end(|text| self.line(at, text));
    }

    fn line(&mut self, at: f64, text: &str) {
        if at - self.last >= LONG_PAUSE {
            // Shown by CSS, so that it is not part of copied text.
            self.html.put("<i data-after=\"{} later\"></i>", &[&span(at - self.last)]);
        }
        self.last = at;
        coloured(&shown(text, true), &mut self.html);
        self.html.raw("\n");
    }
}

/// Attributes of text, as Select Graphic Rendition sequences set them (ECMA-48, 8.3.117:
/// <https://ecma-international.org/publications-and-standards/standards/ecma-48/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct TextStyle {
    bold: bool,
    dim: bool,
    italic: bool,
    underlined: bool,
    /// Set for inverse text and background colours, which are shown as a frame.
    framed: bool,
    /// One of the eight colours, from 0 (black) to 7 (white).
    colour: Option<u8>,
}

/// Writes a line whose only control sequences are SGR.
fn coloured(line: &str, html: &mut Html) {
    let mut style = TextStyle::default();
    let mut pieces = line.split("\u{1b}[");
    html.text(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (numbers, text) = piece.split_once('m').unwrap_or(("", piece));
        style.apply(numbers);
        if text.is_empty() {
            continue;
        }
        let classes = style.classes();
        if classes.is_empty() {
            html.text(text);
        } else {
            html.put("<span class=\"{}\">{}</span>", &[&classes, &text]);
        }
    }
}

impl TextStyle {
    fn apply(&mut self, numbers: &str) {
        let mut numbers = numbers.split([';', ':']).map(|word| word.parse::<u16>().unwrap_or(0));
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underlined = true,
                7 | 40..=47 | 100..=107 => self.framed = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underlined = false,
                27 | 49 => self.framed = false,
                30..=37 => self.colour = u8::try_from(number - 30).ok(),
                90..=97 => self.colour = u8::try_from(number - 90).ok(),
                39 => self.colour = None,
                38 => self.colour = extended(&mut numbers),
                48 => {
                    let _background = extended(&mut numbers);
                    self.framed = true;
                }
                _ => {}
            }
        }
    }

    fn classes(self) -> String {
        let flags = [
            (self.bold, "bold"),
            (self.dim, "dim"),
            (self.italic, "italic"),
            (self.underlined, "underlined"),
            (self.framed, "framed"),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| (*name).to_owned());
        let colour = self.colour.map(|colour| format!("c{colour}"));
        flags.chain(colour).collect::<Vec<_>>().join(" ")
    }
}

/// Reads a 256-colour or RGB colour. Returns the most similar of the eight colours, `None` for grey.
fn extended(numbers: &mut impl Iterator<Item = u16>) -> Option<u8> {
    let (red, green, blue) = match numbers.next()? {
        2 => (numbers.next()?, numbers.next()?, numbers.next()?),
        5 => match numbers.next()? {
            basic @ 0..16 => return u8::try_from(basic % 8).ok(),
            cube @ 16..232 => ((cube - 16) / 36, (cube - 16) / 6 % 6, (cube - 16) % 6),
            _ => return None,
        },
        _ => return None,
    };
    let most = red.max(green).max(blue);
    let is_grey = most - red.min(green).min(blue) <= most / 8;
    let bit = |value: u16, bit: u8| if value * 3 > most * 2 { bit } else { 0 };
    (!is_grey).then(|| bit(red, 1) + bit(green, 2) + bit(blue, 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, want: &str) {
        let mut html = Html::default();
        coloured(&shown(line, true), &mut html);
        assert_eq!(html.into_string(), want, "{line:?}");
    }

    #[test]
    fn colours_become_classes_and_text_is_escaped() {
        check("a<b>\u{1b}[2Jc", "a&lt;b&gt;c");
        check("\u{1b}[1;31mred\u{1b}[0m no", "<span class=\"bold c1\">red</span> no");
        check(
            "\u{1b}[32mok\u{1b}[39m\u{1b}[4mx",
            "<span class=\"c2\">ok</span><span class=\"underlined\">x</span>",
        );
        check("\u{1b}[7m PASS \u{1b}[27m.", "<span class=\"framed\"> PASS </span>.");
        check(
            "\u{1b}[38;5;196mx\u{1b}[38;2;10;200;10my",
            "<span class=\"c1\">x</span><span class=\"c2\">y</span>",
        );
        check("\u{1b}[38;5;244mgrey\u{1b}[m", "grey");
        check("\u{1b}[31m<img onerror=x>", "<span class=\"c1\">&lt;img onerror=x&gt;</span>");
        check("\u{1b}[48;5;1;33mx", "<span class=\"framed c3\">x</span>");
    }

    #[test]
    fn pauses_are_marked_and_overwritten_text_is_dropped() {
        let mut step = RecordedStep::default();
        for (at, text) in [(0.1, "a\n"), (0.2, "10%\r"), (3.2, "100%\nb")] {
            step.output.push(at, text.as_bytes().to_vec());
        }
        let want = "<pre class=\"log\" tabindex=\"0\" aria-label=\"Log of step 3\">a\n\
                    <i data-after=\"3.1 s later\"></i>100%\nb\n</pre>\n";
        assert_eq!(log(3, &step, None).into_string(), want);
        assert!(log(3, &RecordedStep::default(), None).is_empty());
    }
}
