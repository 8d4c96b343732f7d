//! What a step printed, as markup: colours become classes, other control sequences go.

use crate::cli::display::text::{Lines, shown};
use crate::cli::records::{Piece, Step};

use super::html::{Html, span};

/// A pause is worth a remark when it is so long, in seconds.
const LONG_PAUSE: f64 = 1.0;

/// The log; nothing if nothing was printed.
pub(crate) fn log(id: u32, step: &Step, build: Option<&str>) -> Html {
    let mut html = Html::default();
    if step.printed.is_empty() {
        return html;
    }
    html.put("<pre class=\"log\" tabindex=\"0\" aria-label=\"Log of step {}\">", &[&id]);
    let mut writer = Writer { html, last: 0.0 };
    writer.pieces(step.printed.pieces().iter());
    let n_bytes = step.printed.n_left_out();
    if n_bytes > 0 {
        let html = &mut writer.html;
        html.put("</pre>\n<p class=\"left-out\">{} bytes are left out here", &[&n_bytes]);
        if let Some(build) = build {
            let command = format!("rbuild history logs {build} --step {id}");
            html.put("; all of it: <code>{}</code>", &[&command]);
        }
        html.raw(".</p>\n<pre class=\"log\" tabindex=\"0\" aria-label=\"The end of the log\">");
    }
    writer.pieces(step.printed.tail());
    writer.html.raw("</pre>\n");
    writer.html
}

/// Writes lines, with a remark where nothing came for long.
struct Writer {
    html: Html,
    /// When the last one came.
    last: f64,
}

impl Writer {
    fn pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a Piece>) {
        let mut lines = Lines::default();
        for (at, bytes) in pieces {
            lines.push(bytes, |text| self.line(*at, text));
        }
        let at = self.last;
        lines.end(|text| self.line(at, text));
    }

    fn line(&mut self, at: f64, text: &str) {
        if at - self.last >= LONG_PAUSE {
            // Not text: who copies the log does not want it.
            self.html.put("<i data-after=\"{} later\"></i>", &[&span(at - self.last)]);
        }
        self.last = at;
        coloured(&shown(text, true), &mut self.html);
        self.html.raw("\n");
    }
}

/// How text looks, from the sequences before it (ECMA-48, 8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Look {
    bold: bool,
    dim: bool,
    italic: bool,
    underlined: bool,
    /// Colours behind text are shown as a frame.
    framed: bool,
    /// One of eight.
    colour: Option<u8>,
}

/// A line with no control characters but those of colours.
fn coloured(line: &str, html: &mut Html) {
    let mut look = Look::default();
    let mut pieces = line.split("\u{1b}[");
    html.text(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (numbers, text) = piece.split_once('m').unwrap_or(("", piece));
        look.take(numbers);
        if text.is_empty() {
            continue;
        }
        let classes = look.classes();
        if classes.is_empty() {
            html.text(text);
        } else {
            html.put("<span class=\"{}\">{}</span>", &[&classes, &text]);
        }
    }
}

impl Look {
    fn take(&mut self, numbers: &str) {
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
                    let _behind = extended(&mut numbers);
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

/// A colour of 256 or of all, as the one of the eight that is most like it.
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
    fn colours_are_classes_and_text_is_text() {
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
    fn pauses_are_told_and_what_is_left_out_too() {
        let mut step = Step::default();
        for (at, text) in [(0.1, "a\n"), (0.2, "10%\r"), (3.2, "100%\nb")] {
            step.printed.push(at, text.as_bytes().to_vec());
        }
        let want = "<pre class=\"log\" tabindex=\"0\" aria-label=\"Log of step 3\">a\n\
                    <i data-after=\"3.1 s later\"></i>100%\nb\n</pre>\n";
        assert_eq!(log(3, &step, None).into_string(), want);
        assert!(log(3, &Step::default(), None).is_empty());
    }
}
