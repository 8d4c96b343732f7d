//! The section about steps, stage by stage: instruction, outcome, reason for a cache miss, output.

use super::html::{Html, count, span};
use super::{ReportPage, StageSteps, class, log, outcome, title, took};
use crate::cli::display::reasons::NEW;
use crate::cli::records::{RecordedStep, StepOutcome};
use crate::diag::size;

/// Writes the section, with buttons that expand and collapse all steps.
pub(crate) fn section(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    let (stages, others) = (page.stages(), page.others());
    if stages.is_empty() && others.is_empty() {
        return html;
    }
    html.raw(
        "<p class=\"tools\" hidden><button type=\"button\" data-fold=\"open\">Expand all</button> \
              <button type=\"button\" data-fold=\"\">Collapse all</button></p>\n",
    );
    for stage in &stages {
        self::stage(page, stage, &mut html);
    }
    if !others.is_empty() {
        html.raw("<h3>Other steps</h3>\n<div class=\"steps\">\n");
        for (id, step) in others {
            self::step(page, id, step, "", &mut html);
        }
        html.raw("</div>\n");
    }
    html
}

fn stage(page: &ReportPage<'_>, stage: &StageSteps<'_>, html: &mut Html) {
    html.put("<h3>{} <small>{}</small></h3>\n", &[&stage.name, &summary(stage)]);
    html.raw("<div class=\"steps\">\n");
    let n_steps = (stage.planned.len() + 1).max(stage.steps.len());
    for (id, step) in &stage.steps {
        let number = step.place.as_ref().map_or(0, |(_, number)| *number);
        self::step(page, *id, step, &format!("{number}/{n_steps}"), html);
    }
    for (number, text) in (2..).zip(&stage.planned) {
        if stage.at(number).is_none() {
            html.put(
                "<div class=\"step never\"><span class=\"mark\">·</span><span class=\"number\">{}/{}</span>\
                 <code>{}</code><span class=\"took\">not reached</span></div>\n",
                &[&number, &n_steps, text],
            );
        }
    }
    html.raw("</div>\n");
}

/// Summarizes a stage: `5 steps, 2 cached, 3.4 s`.
fn summary(stage: &StageSteps<'_>) -> String {
    let is_cached = |step: &RecordedStep| matches!(step.end, Some((StepOutcome::Cached, _)));
    let instructions = stage.steps.iter().filter(|(_, step)| !step.is_from());
    let n_cached = instructions.clone().filter(|(_, step)| is_cached(step)).count();
    let time: f64 = stage.steps.iter().filter_map(|(_, step)| took(step)).sum();
    let n_steps = stage.planned.len().max(instructions.count());
    let cached = match n_cached {
        0 => String::new(),
        n if n == n_steps => ", all cached".to_owned(),
        n => format!(", {n} cached"),
    };
    format!("{}{cached}, {}", count(n_steps, "step"), span(time))
}

fn step(page: &ReportPage<'_>, id: u32, step: &RecordedStep, number: &str, html: &mut Html) {
    let class = class(step);
    let is_failed = matches!(step.end, Some((StepOutcome::Failed, _)));
    html.put("<details class=\"step {}\" id=\"step-{}\"", &[&class, &id]);
    html.raw(if is_failed { " open>" } else { ">" });
    html.put(
        "<summary><span class=\"mark\" title=\"{}\">{}</span><span class=\"number\">{}</span>\
         <code>{}</code>",
        &[&outcome(step), &mark(step), &number, &title(step)],
    );
    let size = step.layer.as_ref().map(|(_, bytes)| size(*bytes)).unwrap_or_default();
    html.put("<span class=\"size\">{}</span><span class=\"took\">{}</span>", &[&size, &end(step)]);
    // Most steps of a first build have this reason: it would only be noise.
    if let Some(reason) = step.reason.as_ref().filter(|reason| *reason != NEW) {
        html.put("<span class=\"why\">not cached: {}</span>", &[reason]);
    }
    html.raw("</summary>\n<div class=\"body\">\n");
    body(page, id, step, html);
    html.raw("</div>\n</details>\n");
}

fn body(page: &ReportPage<'_>, id: u32, step: &RecordedStep, html: &mut Html) {
    html.put(
        "<pre class=\"instruction\" tabindex=\"0\">{}</pre>\n<dl class=\"facts\">\n",
        &[&title(step)],
    );
    let mut fact = |name: &str, value: &str| {
        html.put("<dt>{}</dt><dd>{}</dd>\n", &[&name, &value]);
    };
    match took(step) {
        Some(took) => fact("StepOutcome", &format!("{} in {}", outcome(step), span(took))),
        None => fact("StepOutcome", outcome(step)),
    }
    fact("Started", &format!("{} after the start of the build", span(step.started)));
    if let Some(reason) = &step.reason {
        fact("Not cached", reason);
    }
    if step.n_bytes > 0 {
        fact("Transferred", &size(step.n_bytes));
    }
    if let Some((digest, bytes)) = &step.layer {
        fact("Layer", &format!("{digest}, {} uncompressed", size(*bytes)));
    }
    html.put(
        "</dl>\n<p class=\"self\"><a href=\"#step-{}\">Link to step #{}</a></p>\n",
        &[&id, &id],
    );
    let log = log::log(id, step, page.id);
    if log.is_empty() && step.executed {
        html.raw("<p class=\"quiet\">No output.</p>\n");
    }
    html.append(&log);
}

const fn mark(step: &RecordedStep) -> &'static str {
    match step.end {
        Some((StepOutcome::Done, _)) => "✓",
        Some((StepOutcome::Cached, _)) => "≡",
        Some((StepOutcome::Failed, _)) => "✕",
        Some((StepOutcome::Cancelled, _)) => "■",
        None => "…",
    }
}

/// Returns the duration of a step, or its outcome if that says more.
fn end(step: &RecordedStep) -> String {
    match step.end {
        Some((StepOutcome::Done | StepOutcome::Failed, took)) => span(took),
        Some((StepOutcome::Cached, _)) => "cached".to_owned(),
        Some((StepOutcome::Cancelled, took)) => format!("cancelled, {}", span(took)),
        None => "not finished".to_owned(),
    }
}
