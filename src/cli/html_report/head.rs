//! The top of the page: what was built and how it ended; and what went wrong.

use std::time::{Duration, UNIX_EPOCH};

use super::html::{Html, span};
use super::{Page, Status};
use crate::cli::display::text::shown;
use crate::cli::records::{End, Outcome};
use crate::diag::size;

pub(crate) const fn mark(status: Status) -> &'static str {
    match status {
        Status::Built => "✓",
        Status::Failed => "✕",
        Status::Interrupted | Status::Killed => "■",
        Status::Running => "…",
    }
}

/// Of the dot in the browser's tab, as hex digits.
pub(crate) const fn icon_colour(status: Status) -> &'static str {
    match status {
        Status::Built => "2e9e63",
        Status::Failed => "d8392b",
        Status::Interrupted | Status::Killed | Status::Running => "8a919c",
    }
}

/// What it was a build of: its names, or else where it is from.
pub(crate) fn subject(page: &Page<'_>) -> String {
    let requested = &page.recorded.requested;
    match requested.names.as_slice() {
        [] => {
            let place = requested.place();
            let last = place.trim_end_matches('/').rsplit('/').next();
            last.filter(|name| !name.is_empty()).unwrap_or(&place).to_owned()
        }
        [name, ..] => name.clone(),
    }
}

pub(crate) fn head(page: &Page<'_>) -> Html {
    let mut html = Html::default();
    let recorded = page.recorded;
    html.put("<header>\n<p class=\"verdict {}\">", &[&page.status.word()]);
    html.put("<span aria-hidden=\"true\">{}</span> {}", &[&mark(page.status), &verdict(page)]);
    html.raw("</p>\n<button id=\"theme\" type=\"button\" hidden>Dark</button>\n");
    html.put("<h1>{}</h1>\n", &[&subject(page)]);
    html.raw("<p class=\"when\">");
    if recorded.started_s > 0 {
        let since = Duration::from_secs(u64::try_from(recorded.started_s).unwrap_or(0));
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string();
        let people = time.replace('T', " ").replace('Z', " UTC");
        html.put("<time datetime=\"{}\">{}</time>", &[&time, &people]);
    }
    if !recorded.rbuild.is_empty() {
        html.put(" · rbuild {}", &[&recorded.rbuild]);
    }
    if let Some(id) = page.id {
        html.put(" · build {}", &[&id]);
    }
    html.raw("</p>\n");
    figures(page, &mut html);
    facts(page, &mut html);
    html.raw("</header>\n");
    html
}

fn verdict(page: &Page<'_>) -> String {
    let took = page.recorded.took_s().map(span);
    match (page.status, took) {
        (Status::Built, Some(took)) => format!("Built in {took}"),
        (Status::Failed, Some(took)) => format!("Failed after {took}"),
        (Status::Interrupted, Some(took)) => format!("Interrupted after {took}"),
        (Status::Running, _) => "Still running".to_owned(),
        (Status::Killed, _) => "Killed: it did not come to its end".to_owned(),
        (status, None) => status.word().to_owned(),
    }
}

/// The numbers that one looks for first.
fn figures(page: &Page<'_>, html: &mut Html) {
    let (n_steps, n_cached) = page.recorded.counts();
    let n_warnings = page.recorded.found_warnings().count() + page.recorded.warnings.len();
    let mut figures = vec![("Steps", n_steps.to_string()), ("Cached", n_cached.to_string())];
    if let [only] = page.images {
        let n_bytes: Option<u64> = only.layers.iter().map(|layer| layer.bytes).sum();
        figures.extend(n_bytes.map(|n_bytes| ("Image", size(n_bytes))));
        figures.push(("Layers", only.layers.len().to_string()));
    }
    if n_warnings > 0 {
        figures.push(("Warnings", n_warnings.to_string()));
    }
    html.raw("<dl class=\"figures\">\n");
    for (name, value) in &figures {
        html.put("<div><dt>{}</dt><dd>{}</dd></div>\n", &[name, value]);
    }
    html.raw("</dl>\n");
}

fn facts(page: &Page<'_>, html: &mut Html) {
    let requested = &page.recorded.requested;
    let mut facts: Vec<(&str, String)> = Vec::new();
    if requested.names.len() > 1 {
        facts.push(("Names", requested.names.join(", ")));
    }
    facts.push(("Context", requested.place()));
    facts.extend(requested.dockerfile.iter().map(|file| ("Dockerfile", file.clone())));
    facts.extend(requested.target.iter().map(|target| ("Target", target.clone())));
    let platforms: Vec<String> = if requested.platforms.is_empty() {
        page.images.iter().map(|image| image.platform.clone()).collect()
    } else {
        requested.platforms.clone()
    };
    if !platforms.is_empty() {
        facts.push(("Platform", platforms.join(", ")));
    }
    if let Some(End::Built { id, digest, layer_bytes, .. }) = &page.recorded.end {
        facts.push(("Image id", id.clone()));
        facts.push(("Digest", digest.clone()));
        facts.extend(layer_bytes.map(|n_bytes| ("Size", size(n_bytes))));
    }
    facts.extend(page.recorded.sent.iter().map(|sent| ("Sent to", sent.clone())));
    html.raw("<dl class=\"facts\">\n");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        html.put("<dt>{}</dt><dd><code>{}</code></dd>\n", &[name, value]);
    }
    html.raw("</dl>\n");
}

/// Why there is no image: first what it is, then what the step said, then where that is.
pub(crate) fn failure(page: &Page<'_>) -> Html {
    let mut html = Html::default();
    let Some(End::Failed { message, text, last_lines, .. }) = &page.recorded.end else {
        return html;
    };
    html.put("<div class=\"failure\">\n<p class=\"message\">{}</p>\n", &[&brief(message)]);
    let steps = page.recorded.steps.iter();
    let failed = steps.filter(|(_, step)| matches!(step.end, Some((Outcome::Failed, _))));
    for (id, step) in failed {
        html.put("<p>in <a href=\"#step-{}\"><code>{}</code></a></p>\n", &[id, &step.name]);
    }
    if !last_lines.is_empty() {
        html.raw("<h3>The last that it printed</h3>\n<pre class=\"log\" tabindex=\"0\">");
        for line in last_lines {
            html.put("{}\n", &[&shown(line, false)]);
        }
        html.raw("</pre>\n");
    }
    let excerpt = text.rsplit_once("\n------\n").map_or(text.as_str(), |(_, excerpt)| excerpt);
    if !excerpt.trim().is_empty() {
        html.raw("<h3>The whole message</h3>\n<pre class=\"excerpt\" tabindex=\"0\">");
        html.put("{}</pre>\n", &[&excerpt.trim_end()]);
    }
    html.raw("</div>\n");
    html
}

/// The first line, without the command that failed: that is shown below it.
fn brief(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let is_command = line.starts_with("process \"");
    let how = message.rsplit_once("did not complete successfully: ").filter(|_| is_command);
    how.map_or_else(|| line.to_owned(), |(_, how)| format!("The command failed: {how}"))
}
