//! Writes a page in roff, with the macros of man(7).

use super::markdown::{Block, SpanStyle, plain_text, spans, summary};

/// Returns the manual page of a topic: `rbuild-NAME(7)`.
pub(super) fn page(name: &str, blocks: &[Block]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let name = escaped(&format!("rbuild-{name}"));
    let mut page = format!(".TH \"{name}\" 7 \"\" \"rbuild {version}\" \"rbuild\"\n");
    page.push_str(&format!(".SH NAME\n{name} \\- {}\n", escaped(&summary(blocks))));
    page.push_str(".SH DESCRIPTION\n");
    for block in blocks {
        match block {
            Block::Heading { level: 1, .. } => {}
            Block::Heading { level, text } => {
                let request = if *level == 2 { "SH" } else { "SS" };
                let text = escaped(&plain_text(text)).to_uppercase().replace('"', "\\(dq");
                page.push_str(&format!(".{request} \"{text}\"\n"));
            }
            Block::Paragraph(text) => page.push_str(&format!(".PP\n{}\n", line(text))),
            Block::Code(code) => page.push_str(&example(code)),
            Block::List(items) => {
                for item in items {
                    let bullet = if item.marker == "-" { "\\(bu" } else { &item.marker };
                    page.push_str(&format!(".IP {bullet} 4\n{}\n", line(&item.text)));
                }
            }
            Block::Table(rows) => rows.iter().skip(1).for_each(|row| page.push_str(&tagged(row))),
        }
    }
    page.push_str(".SH SEE ALSO\n\\fBrbuild\\fR(1)\n");
    page
}

/// Returns lines that are not filled, indented.
fn example(code: &[String]) -> String {
    let lines: String =
        code.iter().map(|line| format!("{}\n", line_start(escaped(line)))).collect();
    format!(".PP\n.RS 4\n.nf\n{lines}.fi\n.RE\n")
}

/// Returns a row of a table as a tagged paragraph: the last cell describes the others.
fn tagged(row: &[String]) -> String {
    let Some((last, others)) = row.split_last() else { return String::new() };
    let tag: Vec<String> =
        others.iter().filter(|cell| !cell.is_empty()).map(|cell| text(cell)).collect();
    format!(".TP\n{}\n{}\n", line_start(tag.join("  ")), line(last))
}

/// Returns text as a line of the source.
fn line(markdown: &str) -> String {
    line_start(text(markdown))
}

/// Returns a line that is not taken for a request; an empty one is a space.
fn line_start(line: String) -> String {
    match line.chars().next() {
        None => "\\ ".to_owned(),
        Some('.' | '\'') => format!("\\&{line}"),
        Some(_) => line,
    }
}

fn text(markdown: &str) -> String {
    let spans = spans(markdown).into_iter().map(|span| {
        let text = escaped(&span.text);
        match span.style {
            SpanStyle::Plain => text,
            SpanStyle::Code | SpanStyle::Strong => format!("\\fB{text}\\fR"),
            SpanStyle::Page => format!("\\fBrbuild\\-{text}\\fR(7)"),
        }
    });
    spans.collect()
}

/// Escapes what troff would interpret: backslashes; hyphens, which are minus signs in options;
/// characters beyond ASCII, which groff reads only after preconv(1).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            _ if c.is_ascii() => escaped.push(c),
            _ => escaped.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::markdown::blocks;
    use super::*;

    #[test]
    fn a_page_has_the_macros_of_man() {
        let page = page(
            "a-b",
            &blocks(
                "# A\n\nAll of it. More.\n\n## One\n\n.x `-o` [C](c.md)…\n\n- i\n\n\
                 | H | I |\n|---|---|\n| `--x` | y\\z |\n\n```\n.code\n```\n",
            ),
        );
        let (head, body) = page.split_once(".SH NAME\n").unwrap();
        assert!(head.starts_with(".TH \"rbuild\\-a\\-b\" 7 "), "{head}");
        let want = "rbuild\\-a\\-b \\- All of it\n.SH DESCRIPTION\n.PP\nAll of it. More.\n\
                    .SH \"ONE\"\n.PP\n\\&.x \\fB\\-o\\fR C (\\fBrbuild\\-c\\fR(7))\\[u2026]\n\
                    .IP \\(bu 4\ni\n.TP\n\\fB\\-\\-x\\fR\ny\\ez\n\
                    .PP\n.RS 4\n.nf\n\\&.code\n.fi\n.RE\n.SH SEE ALSO\n\\fBrbuild\\fR(1)\n";
        assert_eq!(body, want);
    }
}
