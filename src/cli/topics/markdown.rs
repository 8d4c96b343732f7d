//! Reads the part of Markdown that `docs/` uses: headings, paragraphs, fenced code, lists without
//! levels, tables; in their text code, strong text and links.

/// A block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// A heading; 1 is the title of the page.
    Heading { level: usize, text: String },
    /// A paragraph, in one line.
    Paragraph(String),
    /// Lines that are shown unchanged.
    Code(Vec<String>),
    /// A list, numbered or not.
    List(Vec<ListItem>),
    /// Rows of cells, the first of which names the columns.
    Table(Vec<Vec<String>>),
}

/// An item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListItem {
    /// `-`, or a number and a full stop.
    pub(super) marker: String,
    /// The text, in one line.
    pub(super) text: String,
}

/// A stretch of text that looks the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// The look of the stretch.
    pub(super) style: SpanStyle,
    /// The text, without marks.
    pub(super) text: String,
}

/// The look of a stretch of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpanStyle {
    /// Text without any mark.
    Plain,
    /// Code: what a user types or reads.
    Code,
    /// Text between `**`.
    Strong,
    /// The name of another page.
    Page,
}

/// Returns the blocks of a page, without its table of contents.
pub(super) fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let code = lines.by_ref().take_while(|line| !line.starts_with("```"));
            blocks.push(Block::Code(code.map(str::to_owned).collect()));
        } else if let Some(heading) = heading(line) {
            blocks.push(heading);
        } else if let Some(row) = row(line) {
            let mut rows = vec![row];
            while let Some(row) = lines.peek().and_then(|line| self::row(line)) {
                lines.next();
                rows.push(row);
            }
            rows.retain(|cells| !cells.iter().all(|cell| cell.starts_with("---")));
            blocks.push(Block::Table(rows));
        } else if let Some(item) = list_item(line) {
            let mut items = vec![item];
            while let Some(line) = lines.peek().filter(|line| !line.trim().is_empty()) {
                match list_item(line) {
                    Some(item) => items.push(item),
                    None => append(items.last_mut().map(|item| &mut item.text), line),
                }
                lines.next();
            }
            if !is_contents(&items) {
                blocks.push(Block::List(items));
            }
        } else if !line.trim().is_empty() {
            let mut text = line.trim().to_owned();
            while let Some(line) = lines.peek().filter(|line| continues(line)) {
                append(Some(&mut text), line);
                lines.next();
            }
            blocks.push(Block::Paragraph(text));
        }
    }
    blocks
}

/// Returns the first sentence of a page, without marks.
pub(super) fn summary(blocks: &[Block]) -> String {
    let first = blocks.iter().find_map(|block| match block {
        Block::Paragraph(text) => Some(plain_text(text)),
        Block::Heading { .. } | Block::Code(_) | Block::List(_) | Block::Table(_) => None,
    });
    let first = first.unwrap_or_default();
    first.split_once(". ").map_or(first.trim_end_matches('.'), |(sentence, _)| sentence).to_owned()
}

/// Returns text without marks.
pub(super) fn plain_text(text: &str) -> String {
    spans(text).into_iter().map(|span| span.text).collect()
}

/// Returns the stretches of a text.
///
/// A link within a page is its text; a link to another page of `docs/` is followed by its name.
pub(super) fn spans(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let Some((before, marked)) = rest.split_at_checked(at) else { break };
        push(&mut spans, SpanStyle::Plain, before);
        rest = if let Some((code, after)) = between(marked, "`", "`") {
            push(&mut spans, SpanStyle::Code, code);
            after
        } else if let Some((strong, after)) = between(marked, "**", "**") {
            push(&mut spans, SpanStyle::Strong, strong);
            after
        } else if let Some((text, target, after)) = link(marked) {
            spans.extend(self::spans(text));
            push_target(&mut spans, target);
            after
        } else {
            let mut chars = marked.chars();
            let mark = chars.next().map(String::from).unwrap_or_default();
            push(&mut spans, SpanStyle::Plain, &mark);
            chars.as_str()
        };
    }
    push(&mut spans, SpanStyle::Plain, rest);
    spans
}

/// Appends the place that a link leads to, if a reader can go there from a terminal.
fn push_target(spans: &mut Vec<Span>, target: &str) {
    let file = target.split('#').next().unwrap_or_default();
    if target.contains("://") {
        push(spans, SpanStyle::Plain, &format!(" ({target})"));
    } else if let Some(page) = file.strip_suffix(".md").filter(|page| !page.contains('/')) {
        push(spans, SpanStyle::Plain, " (");
        push(spans, SpanStyle::Page, page);
        push(spans, SpanStyle::Plain, ")");
    }
}

/// Appends a stretch; joins it to the last one if that looks the same.
fn push(spans: &mut Vec<Span>, style: SpanStyle, text: &str) {
    if text.is_empty() {
        return;
    }
    match spans.last_mut().filter(|last| last.style == style && style == SpanStyle::Plain) {
        Some(last) => last.text.push_str(text),
        None => spans.push(Span { style, text: text.to_owned() }),
    }
}

/// Returns the text between two marks at the beginning, and the rest.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(open)?.split_once(close)
}

/// Returns the text and the target of a link at the beginning, and the rest.
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (text, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (target, rest) = rest.split_once(')')?;
    (!text.contains(['[', ']'])).then_some((text, target, rest))
}

fn heading(line: &str) -> Option<Block> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    let text = text.strip_prefix(' ').filter(|_| level > 0)?;
    Some(Block::Heading { level, text: text.to_owned() })
}

/// Returns the cells of a table's line. `\|` is a bar in a cell.
fn row(line: &str) -> Option<Vec<String>> {
    const BAR: char = '\u{1}';
    let line = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", &BAR.to_string());
    Some(line.split('|').map(|cell| cell.trim().replace(BAR, "|")).collect())
}

fn list_item(line: &str) -> Option<ListItem> {
    let (marker, text) = line.split_once(' ')?;
    let is_number =
        |marker: &str| marker.strip_suffix('.').is_some_and(|number| number.parse::<u32>().is_ok());
    let is_marker = marker == "-" || is_number(marker);
    is_marker.then(|| ListItem { marker: marker.to_owned(), text: text.trim().to_owned() })
}

/// Returns whether a line goes on with the paragraph above it.
fn continues(line: &str) -> bool {
    !line.trim().is_empty()
        && !line.starts_with("```")
        && heading(line).is_none()
        && row(line).is_none()
        && list_item(line).is_none()
}

/// Returns whether a list has nothing but links to parts of its own page.
fn is_contents(items: &[ListItem]) -> bool {
    items.iter().all(|item| {
        link(&item.text).is_some_and(|(_, target, rest)| target.starts_with('#') && rest.is_empty())
    })
}

fn append(text: Option<&mut String>, line: &str) {
    if let Some(text) = text {
        text.push(' ');
        text.push_str(line.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart() {
        let page = "# Title\n\nOne\ntwo.\n\n- [A](#a)\n- [B](#b)\n\n## A\n\n- x\n  y\n- z\n\n\
                    | H | I |\n|---|---|\n| `a\\|b` | c |\n\n```sh\n# code\n```\nend\n";
        let text = |text: &str| text.to_owned();
        let item = |marker: &str, line: &str| ListItem { marker: text(marker), text: text(line) };
        let want = [
            Block::Heading { level: 1, text: text("Title") },
            Block::Paragraph(text("One two.")),
            Block::Heading { level: 2, text: text("A") },
            Block::List(vec![item("-", "x y"), item("-", "z")]),
            Block::Table(vec![vec![text("H"), text("I")], vec![text("`a|b`"), text("c")]]),
            Block::Code(vec![text("# code")]),
            Block::Paragraph(text("end")),
        ];
        assert_eq!(blocks(page), want);
        assert_eq!(summary(&blocks(page)), "One two");
    }

    #[test]
    fn marks_and_links_become_spans() {
        for (text, want) in [
            ("a `b|c` **d** e", "a b|c d e"),
            ("see [S3](caches.md#s3).", "see S3 (caches)."),
            ("see [below](#x)", "see below"),
            ("[site](https://example.org)", "site (https://example.org)"),
            ("[SECURITY.md](../SECURITY.md)", "SECURITY.md"),
            ("`[build 1/2]` and 2 * 3 [x]", "[build 1/2] and 2 * 3 [x]"),
        ] {
            assert_eq!(plain_text(text), want, "{text}");
        }
        let styles = spans("[`x`](a.md)").into_iter().map(|span| span.style).collect::<Vec<_>>();
        let want = [SpanStyle::Code, SpanStyle::Plain, SpanStyle::Page, SpanStyle::Plain];
        assert_eq!(styles, want);
    }
}
