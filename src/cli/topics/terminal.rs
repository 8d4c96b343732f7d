//! Shows a page as lines of text, wrapped for a terminal.

use unicode_width::UnicodeWidthStr as _;

use super::markdown::{Block, Span, SpanStyle, spans};

/// Columns of a line. Code is not wrapped.
const COLUMNS: usize = 100;
/// Columns that the last cell of a row needs beside the others; it goes below them otherwise.
const MIN_CELL_COLUMNS: usize = 40;
/// Columns between two cells.
const GAP: usize = 2;
/// Columns that a row of a table is indented by when its last cell goes below.
const BELOW: usize = 8;

const BOLD: &str = "\u{1b}[1m";
const END: &str = "\u{1b}[0m";

/// A part of a line that is not wrapped.
#[derive(Debug)]
struct Word {
    text: String,
    columns: usize,
}

/// Returns the lines of a page, the title first.
pub(super) fn lines(blocks: &[Block], colours: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for block in blocks {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        match block {
            Block::Heading { text, .. } => lines.push(heading(text, colours)),
            Block::Paragraph(text) => lines.extend(wrapped(text, "", "", colours)),
            Block::Code(code) => lines.extend(code.iter().map(|line| format!("    {line}"))),
            Block::List(items) => {
                for item in items {
                    let first = format!("{} ", item.marker);
                    let rest = " ".repeat(first.len());
                    lines.extend(wrapped(&item.text, &first, &rest, colours));
                }
            }
            Block::Table(rows) => lines.extend(table(rows, colours)),
        }
    }
    lines
}

fn heading(text: &str, colours: bool) -> String {
    let text = super::markdown::plain_text(text);
    if colours { format!("{BOLD}{text}{END}") } else { text.to_uppercase() }
}

/// Lays rows out in columns; the last cell of a row is wrapped.
fn table(rows: &[Vec<String>], colours: bool) -> Vec<String> {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns.saturating_sub(1))
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| columns_of(cell, colours)).max().unwrap_or(0)
        })
        .collect();
    let before: usize = widths.iter().map(|width| width + GAP).sum();
    let is_beside = before + MIN_CELL_COLUMNS <= COLUMNS;
    let mut lines = Vec::new();
    for row in rows {
        let Some((last, others)) = row.split_last() else { continue };
        let mut start = String::new();
        for (cell, width) in others.iter().zip(&widths) {
            let padding = width.saturating_sub(columns_of(cell, colours)) + GAP;
            start.push_str(&styled(cell, colours));
            start.push_str(&" ".repeat(padding));
        }
        if is_beside {
            lines.extend(wrapped(last, &start, &" ".repeat(before), colours));
        } else {
            lines.push(start.trim_end().to_owned());
            let indent = " ".repeat(BELOW);
            lines.extend(wrapped(last, &indent, &indent, colours));
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// Wraps a text after `first`; further lines begin with `rest`, which has as many columns.
fn wrapped(text: &str, first: &str, rest: &str, colours: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut columns = rest.len();
    let mut is_empty = true;
    for word in words(text, colours) {
        if !is_empty && columns + 1 + word.columns > COLUMNS {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            columns = rest.len();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
            columns += 1;
        }
        line.push_str(&word.text);
        columns += word.columns;
        is_empty = false;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// Splits a text where it may be wrapped.
fn words(text: &str, colours: bool) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut is_joined = false;
    for span in spans(text) {
        let shown = shown(&span, colours);
        let is_bold = colours && span.style != SpanStyle::Plain;
        is_joined &= !shown.starts_with(' ');
        for piece in shown.split_whitespace() {
            let text = if is_bold { format!("{BOLD}{piece}{END}") } else { piece.to_owned() };
            match words.last_mut().filter(|_| is_joined) {
                Some(last) => {
                    last.text.push_str(&text);
                    last.columns += piece.width();
                }
                None => words.push(Word { text, columns: piece.width() }),
            }
            is_joined = false;
        }
        is_joined = !shown.ends_with(' ');
    }
    words
}

/// Returns the text of a span; without bold text, code keeps its marks.
fn shown(span: &Span, colours: bool) -> String {
    match span.style {
        SpanStyle::Plain | SpanStyle::Strong => span.text.clone(),
        SpanStyle::Code if colours => span.text.clone(),
        SpanStyle::Code => format!("`{}`", span.text),
        SpanStyle::Page => format!("rbuild help {}", span.text),
    }
}

/// Returns a text in one line.
fn styled(text: &str, colours: bool) -> String {
    let words = words(text, colours).into_iter().map(|word| word.text);
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the columns of a text in one line.
fn columns_of(text: &str, colours: bool) -> usize {
    let words = words(text, colours);
    let gaps = words.len().saturating_sub(1);
    words.iter().map(|word| word.columns).sum::<usize>() + gaps
}

#[cfg(test)]
mod tests {
    use super::super::markdown::blocks;
    use super::*;

    #[test]
    fn a_page_is_laid_out_in_columns() {
        let page = "# One\n\nSee `a b`, **c** and [Caches](caches.md#s3).\n\n- x\n\n\
                    | Option | Meaning |\n|---|---|\n| `-o` | Writes |\n| `--long X` | Does |\n\n\
                    ```\n  code\n```\n";
        let want = [
            "ONE",
            "",
            "See `a b`, c and Caches (rbuild help caches).",
            "",
            "- x",
            "",
            "Option      Meaning",
            "`-o`        Writes",
            "`--long X`  Does",
            "",
            "      code",
        ];
        assert_eq!(lines(&blocks(page), false), want);
        let coloured = lines(&blocks("# One\n\n`a b`, c\n"), true);
        let want = ["\u{1b}[1mOne\u{1b}[0m", "", "\u{1b}[1ma\u{1b}[0m \u{1b}[1mb\u{1b}[0m, c"];
        assert_eq!(coloured, want);
    }

    #[test]
    fn long_text_is_wrapped_under_its_own_beginning() {
        let word = "x".repeat(30);
        let page = format!("- {word} {word} {word} {word}\n\n| {word} | {word} {word} {word} |\n");
        let lines = lines(&blocks(&page), false);
        let want = [
            format!("- {word} {word} {word}"),
            format!("  {word}"),
            String::new(),
            format!("{word}  {word} {word}"),
            format!("{}{word}", " ".repeat(32)),
        ];
        assert_eq!(lines, want);
    }
}
