//! The Dockerfile with errors and warnings below their lines, and a list of all warnings.

use std::collections::BTreeMap;

use crate::cli::records::LocatedDiagnostic;

use super::ReportPage;
use super::html::Html;

/// Writes the Dockerfile with its diagnostics.
pub(crate) fn source(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    let Some(dockerfile) = &page.recorded.dockerfile else { return html };
    html.put("<p class=\"quiet\"><code>{}</code></p>\n", &[&dockerfile.path]);
    html.raw(
        "<div class=\"source\" tabindex=\"0\" role=\"group\" aria-label=\"The Dockerfile\">\n",
    );
    let found = &page.recorded.diagnostics;
    let n_lines = u32::try_from(dockerfile.text.lines().count()).unwrap_or(u32::MAX);
    let mut ends: BTreeMap<u32, Vec<&LocatedDiagnostic>> = BTreeMap::new();
    let mut classes: BTreeMap<u32, &str> = BTreeMap::new();
    for one in found {
        let end = one.end_line.max(one.line);
        ends.entry(end).or_default().push(one);
        for line in one.line..=end.min(n_lines) {
            let class = classes.entry(line).or_insert_with(|| severity(one));
            *class = (*class).min(severity(one));
        }
    }
    for (number, line) in (1u32..).zip(dockerfile.text.lines()) {
        let class = classes.get(&number).copied().unwrap_or("");
        html.put("<div class=\"line {}\" id=\"line-{}\">", &[&class, &number]);
        html.put(
            "<a href=\"#line-{}\" data-line=\"{}\" aria-label=\"Line {}\"></a>",
            &[&number, &number, &number],
        );
        html.raw("<code>");
        instruction(line, &mut html);
        html.raw("</code></div>\n");
        for found in ends.get(&number).into_iter().flatten() {
            html.put("<p class=\"remark {}\">{}", &[&severity(found), &found.message]);
            code(found, &mut html);
            html.raw("</p>\n");
        }
    }
    html.raw("</div>\n");
    html
}

/// Writes a line of the Dockerfile, with its keyword in bold or its comment in italics.
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

/// Returns the CSS class of a diagnostic. `source` relies on `error` sorting before `warning`.
fn severity(found: &LocatedDiagnostic) -> &'static str {
    if found.severity == "warning" { "warning" } else { "error" }
}

fn code(found: &LocatedDiagnostic, html: &mut Html) {
    html.put(" <span class=\"code\">{}</span>", &[&found.code]);
    for help in &found.helps {
        html.put("<br><span class=\"help\">help: {}</span>", &[help]);
    }
}

/// Writes the list of warnings.
pub(crate) fn warnings(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    let has_source = page.recorded.dockerfile.is_some();
    let mut found: Vec<&LocatedDiagnostic> = page.recorded.found_warnings().collect();
    found.sort_by_key(|found| found.line);
    if found.is_empty() && page.recorded.warnings.is_empty() {
        return html;
    }
    html.raw("<ul class=\"warnings\">\n");
    for found in found {
        html.raw("<li>");
        let position = format!("{}:{}", found.file, found.line);
        if has_source {
            html.put("<a href=\"#line-{}\"><code>{}</code></a> ", &[&found.line, &position]);
        } else {
            html.put("<code>{}</code> ", &[&position]);
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
