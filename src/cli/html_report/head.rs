//! The header of the page: image, outcome and key figures; and the section about a failure.

use std::time::{Duration, UNIX_EPOCH};

use super::html::{Html, span};
use super::{BuildStatus, ReportPage};
use crate::cli::display::text::shown;
use crate::cli::records::{BuildEnd, BuiltSummary, FailureSummary, StepOutcome};
use crate::diag::size;

/// Returns the symbol of an outcome.
pub(crate) const fn mark(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Built => "✓",
        BuildStatus::Failed => "✕",
        BuildStatus::Interrupted | BuildStatus::Killed => "■",
        BuildStatus::Running => "…",
    }
}

/// Returns the colour of the page icon, as six hex digits.
pub(crate) const fn icon_colour(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Built => "2e9e63",
        BuildStatus::Failed => "d8392b",
        BuildStatus::Interrupted | BuildStatus::Killed | BuildStatus::Running => "8a919c",
    }
}

/// Returns the first image name, or the last component of the context path for a build without names.
pub(crate) fn subject(page: &ReportPage<'_>) -> String {
    let requested = &page.recorded.requested;
    match requested.names.as_slice() {
        [] => {
            let place = requested.location();
            let last = place.trim_end_matches('/').rsplit('/').next();
            last.filter(|name| !name.is_empty()).unwrap_or(&place).to_owned()
        }
        [name, ..] => name.clone(),
    }
}

/// Writes the header: outcome, image name, time, key figures and facts.
pub(crate) fn head(page: &ReportPage<'_>) -> Html {
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

fn verdict(page: &ReportPage<'_>) -> String {
    let took = page.recorded.took_s().map(span);
    match (page.status, took) {
        (BuildStatus::Built, Some(took)) => format!("Built in {took}"),
        (BuildStatus::Failed, Some(took)) => format!("Failed after {took}"),
        (BuildStatus::Interrupted, Some(took)) => format!("Interrupted after {took}"),
        (BuildStatus::Running, _) => "Still running".to_owned(),
        (BuildStatus::Killed, _) => "Killed before it finished".to_owned(),
        (status, None) => status.word().to_owned(),
    }
}

/// Writes the key figures: steps, size, layers and warnings.
fn figures(page: &ReportPage<'_>, html: &mut Html) {
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

fn facts(page: &ReportPage<'_>, html: &mut Html) {
    let requested = &page.recorded.requested;
    let mut facts: Vec<(&str, String)> = Vec::new();
    if requested.names.len() > 1 {
        facts.push(("Names", requested.names.join(", ")));
    }
    facts.push(("Context", requested.location()));
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
    facts.extend(page.recorded.isolation.iter().map(|name| ("Isolation", name.clone())));
    if let Some(BuildEnd::Built(BuiltSummary { id, digest, layer_bytes, .. })) = &page.recorded.end
    {
        facts.push(("Image id", id.clone()));
        facts.push(("Digest", digest.clone()));
        facts.extend(layer_bytes.map(|n_bytes| ("Size", size(n_bytes))));
    }
    facts.extend(page.recorded.sent.iter().map(|sent| ("Output", sent.clone())));
    html.raw("<dl class=\"facts\">\n");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        html.put("<dt>{}</dt><dd><code>{}</code></dd>\n", &[name, value]);
    }
    html.raw("</dl>\n");
}

/// Writes the error of a failed build: the message, the last lines of the step, and the excerpt of the
/// Dockerfile. Empty if the build did not fail.
pub(crate) fn failure(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    let Some(BuildEnd::Failed(FailureSummary { message, text, last_lines, .. })) =
        &page.recorded.end
    else {
        return html;
    };
    html.put("<div class=\"failure\">\n<p class=\"message\">{}</p>\n", &[&brief(message)]);
    let steps = page.recorded.steps.iter();
    let failed = steps.filter(|(_, step)| matches!(step.end, Some((StepOutcome::Failed, _))));
    for (id, step) in failed {
        html.put("<p>in <a href=\"#step-{}\"><code>{}</code></a></p>\n", &[id, &step.name]);
    }
    if !last_lines.is_empty() {
        html.raw("<h3>Last lines of output</h3>\n<pre class=\"log\" tabindex=\"0\">");
        for line in last_lines {
            html.put("{}\n", &[&shown(line, false)]);
        }
        html.raw("</pre>\n");
    }
    let excerpt = text.rsplit_once("\n------\n").map_or(text.as_str(), |(_, excerpt)| excerpt);
    if !excerpt.trim().is_empty() {
        html.raw("<h3>Full message</h3>\n<pre class=\"excerpt\" tabindex=\"0\">");
        html.put("{}</pre>\n", &[&excerpt.trim_end()]);
    }
    html.raw("</div>\n");
    html
}

/// Returns the first line of the message, without the command of a failed step, which is shown below.
fn brief(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let is_command = line.starts_with("process \"");
    let how = message.rsplit_once("did not complete successfully: ").filter(|_| is_command);
    how.map_or_else(|| line.to_owned(), |(_, how)| format!("The command failed: {how}"))
}
