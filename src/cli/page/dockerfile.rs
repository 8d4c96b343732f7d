//! The Dockerfile with what was found in it at its places, and all warnings in a list.

use super::Page;
use super::html::Html;
use crate::cli::record::Found;

pub(super) fn source(page: &Page<'_>) -> Html {
    let mut html = Html::default();
    let Some(dockerfile) = &page.recorded.dockerfile else { return html };
    html.put("<p class=\"quiet\"><code>{}</code></p>\n", &[&dockerfile.path]);
    html.raw(
        "<div class=\"source\" tabindex=\"0\" role=\"group\" aria-label=\"The Dockerfile\">\n",
    );
    let found = &page.recorded.diagnostics;
    for (number, line) in (1u32..).zip(dockerfile.text.lines()) {
        let lines =
            |found: &&Found| found.line <= number && number <= found.end_line.max(found.line);
        let here = found.iter().filter(lines);
        let class = here.map(severity).min().unwrap_or("");
        html.put("<div class=\"line {}\" id=\"line-{}\">", &[&class, &number]);
        html.put(
            "<a href=\"#line-{}\" data-line=\"{}\" aria-label=\"Line {}\"></a>",
            &[&number, &number, &number],
        );
        html.raw("<code>");
        instruction(line, &mut html);
        html.raw("</code></div>\n");
        for found in found.iter().filter(|found| found.end_line.max(found.line) == number) {
            html.put("<p class=\"remark {}\">{}", &[&severity(found), &found.message]);
            code(found, &mut html);
            html.raw("</p>\n");
        }
    }
    html.raw("</div>\n");
    html
}

/// A line, a word in capitals at its beginning made visible.
fn instruction(line: &str, html: &mut Html) {
    let text = line.trim_start();
    let end = text.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or(("", text));
    let is_keyword = word.len() > 2 && rest.chars().next().is_none_or(|c| c == ' ' || c == '\t');
    if is_keyword {
        html.put("<b>{}</b>{}", &[&word, &rest]);
    } else if text.starts_with('#') {
        html.put("<i>{}</i>", &[&line]);
    } else {
        html.text(line);
    }
}

/// The class; of several the first in the alphabet counts.
fn severity(found: &Found) -> &'static str {
    if found.severity == "warning" { "warning" } else { "error" }
}

fn code(found: &Found, html: &mut Html) {
    html.put(" <span class=\"code\">{}</span>", &[&found.code]);
    for help in &found.helps {
        html.put("<br><span class=\"help\">help: {}</span>", &[help]);
    }
}

pub(super) fn warnings(page: &Page<'_>) -> Html {
    let mut html = Html::default();
    let has_source = page.recorded.dockerfile.is_some();
    let mut found: Vec<&Found> = page.recorded.found_warnings().collect();
    found.sort_by_key(|found| found.line);
    if found.is_empty() && page.recorded.warnings.is_empty() {
        return html;
    }
    html.raw("<ul class=\"warnings\">\n");
    for found in found {
        html.raw("<li>");
        let place = format!("{}:{}", found.file, found.line);
        if has_source {
            html.put("<a href=\"#line-{}\"><code>{}</code></a> ", &[&found.line, &place]);
        } else {
            html.put("<code>{}</code> ", &[&place]);
        }
        html.put("{}", &[&found.message]);
        code(found, &mut html);
        html.raw("</li>\n");
    }
    for text in &page.recorded.warnings {
        html.put("<li>{}</li>\n", &[text]);
    }
    html.raw("</ul>\n");
    html
}
