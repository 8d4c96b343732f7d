//! The HTML report of a build (`--report`): one self-contained page, made from the build record and
//! the files of the layers. Untrusted text enters it only through [`Html`], which escapes it.

mod dockerfile;
mod graph;
mod head;
mod holdings;
mod html;
mod layers;
mod log;
mod steps;
mod timeline;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cli::records::{BuildStatus, Recorded, RecordedStep, StepOutcome};
use crate::oci::Digest;

use html::Html;

pub(super) use layers::ReportedImage;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The build to report.
#[derive(Debug)]
pub(super) struct ReportPage<'a> {
    /// Id of the build record, if the store has one.
    pub(super) id: Option<&'a str>,
    pub(super) status: BuildStatus,
    pub(super) recorded: &'a Recorded,
    /// The built images in the store, one for each platform.
    pub(super) images: &'a [ReportedImage],
    /// The error that keeps the images from being shown, if there is one.
    pub(super) no_images: Option<&'a str>,
}

impl ReportPage<'_> {
    /// Returns the page as HTML.
    pub(super) fn html(&self) -> String {
        let mut parts = Html::default();
        let mut links = Html::default();
        let sections: [(&str, &str, Html); 7] = [
            ("failure", "What went wrong", head::failure(self)),
            ("timeline", "Timeline", timeline::section(self)),
            ("graph", "Stages", graph::section(self)),
            ("steps", "Steps", steps::section(self)),
            ("layers", "Layers", layers::section(self)),
            ("warnings", "Warnings", dockerfile::warnings(self)),
            ("dockerfile", "Dockerfile", dockerfile::source(self)),
        ];
        for (id, title, body) in sections.iter().filter(|(_, _, body)| !body.is_empty()) {
            links.put("<a href=\"#{}\">{}</a>\n", &[id, title]);
            parts.put("<section id=\"{}\" aria-labelledby=\"{}-title\">\n", &[id, id]);
            parts.put("<h2 id=\"{}-title\">{}</h2>\n", &[id, title]);
            parts.append(body);
            parts.raw("</section>\n");
        }
        let mut page = Html::default();
        self.begin(&mut page);
        page.append(&head::head(self));
        page.raw("<nav aria-label=\"Sections\">\n");
        page.append(&links);
        page.raw("</nav>\n<main>\n");
        page.append(&parts);
        for piece in ["</main>\n<script>", SCRIPT, "</script>\n</body>\n</html>\n"] {
            page.raw(piece);
        }
        page.into_string()
    }

    /// Writes the head of the document and the start tag of its body.
    ///
    /// The policy admits the script and the style of this page by their hashes, and nothing else
    /// (<https://www.w3.org/TR/CSP3/#framework-directive-source-list>).
    fn begin(&self, page: &mut Html) {
        let (style, script) = (integrity(STYLE), integrity(SCRIPT));
        page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        page.put(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             img-src data:; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'\">\n",
            &[&style, &script],
        );
        page.raw(
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n",
        );
        let mark = head::mark(self.status);
        page.put(
            "<title>{} {} – {}</title>\n",
            &[&mark, &head::subject(self), &self.status.word()],
        );
        page.put(
            "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
             viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23{}'/%3E%3C/svg%3E\">\n",
            &[&head::icon_colour(self.status)],
        );
        for piece in ["<style>", STYLE, "</style>\n</head>\n<body>\n"] {
            page.raw(piece);
        }
    }

    /// Returns the stages in the order of the plan, then those that the plan does not have.
    fn stages(&self) -> Vec<StageSteps<'_>> {
        let recorded = self.recorded;
        let mut stages: Vec<StageSteps<'_>> = recorded
            .stages
            .iter()
            .map(|stage| {
                let planned = stage.instructions.iter().map(String::as_str).collect();
                StageSteps { name: &stage.name, steps: Vec::new(), planned }
            })
            .collect();
        for (id, step) in recorded.instructions() {
            let Some((name, _)) = &step.place else { continue };
            match stages.iter_mut().find(|stage| stage.name == name) {
                Some(stage) => stage.steps.push((id, step)),
                None => {
                    let steps = vec![(id, step)];
                    stages.push(StageSteps { name, steps, planned: Vec::new() });
                }
            }
        }
        for stage in &mut stages {
            stage.steps.sort_by_key(|(_, step)| step.place.as_ref().map(|(_, number)| *number));
        }
        stages
    }

    /// Returns the steps that are not instructions: pulls, pushes, contexts.
    fn others(&self) -> Vec<(u32, &RecordedStep)> {
        let steps = self.recorded.steps.iter().filter(|(_, step)| step.place.is_none());
        steps.map(|(id, step)| (*id, step)).collect()
    }

    /// Returns the recorded time span in seconds, at least one millisecond.
    fn total_s(&self) -> f64 {
        let ends =
            self.recorded.steps.values().map(|step| step.started + took(step).unwrap_or(0.0));
        ends.fold(self.recorded.took_s().unwrap_or(0.0), f64::max).max(0.001)
    }
}

/// A stage with its recorded and its planned steps.
#[derive(Debug)]
struct StageSteps<'a> {
    name: &'a str,
    /// Sorted by their numbers in the stage.
    steps: Vec<(u32, &'a RecordedStep)>,
    /// The planned instructions that make layers. They are numbered from 2, since FROM is 1.
    planned: Vec<&'a str>,
}

impl StageSteps<'_> {
    /// Returns the step with this number. Number 1 is FROM.
    fn at(&self, number: usize) -> Option<(u32, &RecordedStep)> {
        let is_it = |step: &RecordedStep| step.place.as_ref().is_some_and(|(_, at)| *at == number);
        self.steps.iter().find(|(_, step)| is_it(step)).map(|(id, step)| (*id, *step))
    }
}

fn took(step: &RecordedStep) -> Option<f64> {
    step.end.map(|(_, took)| took)
}

/// Returns the CSS class of a step, which sets its colour.
const fn class(step: &RecordedStep) -> &'static str {
    match step.end {
        Some((StepOutcome::Done, _)) => "done",
        Some((StepOutcome::Cached, _)) => "cached",
        Some((StepOutcome::Failed, _)) => "failed",
        Some((StepOutcome::Cancelled, _)) => "cancelled",
        None => "open",
    }
}

/// Returns the outcome of a step as text.
const fn outcome(step: &RecordedStep) -> &'static str {
    match step.end {
        Some((StepOutcome::Done, _)) => "done",
        Some((StepOutcome::Cached, _)) => "cached",
        Some((StepOutcome::Failed, _)) => "failed",
        Some((StepOutcome::Cancelled, _)) => "cancelled",
        None => "not finished",
    }
}

/// Returns the instruction, or the name of a step that has none.
fn title(step: &RecordedStep) -> &str {
    step.instruction.as_deref().unwrap_or_else(|| step.name.trim_start_matches("[internal] "))
}

/// Returns the hash source of an inline script or style, without quotes
/// (<https://www.w3.org/TR/CSP3/#grammardef-hash-source>).
fn integrity(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Digest::of(text.as_bytes()).as_bytes()))
}
