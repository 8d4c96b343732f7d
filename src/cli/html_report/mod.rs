//! `--report`: a build as one page that needs nothing but itself. It is made from what is recorded of
//! the build and what the layers hold; text from elsewhere gets into it through [`Html`] only.

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

use crate::cli::records::{Outcome, Recorded, Status, Step};
use crate::oci::Digest;

use html::Html;

pub(super) use layers::ImageFiles;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What the page is about.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Of the build, if the store remembers it.
    pub(super) id: Option<&'a str>,
    pub(super) status: Status,
    pub(super) recorded: &'a Recorded,
    /// The image, or one for each of several platforms, as far as the store has them.
    pub(super) images: &'a [ImageFiles],
    /// Why there are none, if that is not how it should be.
    pub(super) no_images: Option<&'a str>,
}

impl Page<'_> {
    /// The whole page.
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
        page.raw("<nav aria-label=\"Parts of this page\">\n");
        page.append(&links);
        page.raw("</nav>\n<main>\n");
        page.append(&parts);
        for piece in ["</main>\n<script>", SCRIPT, "</script>\n</body>\n</html>\n"] {
            page.raw(piece);
        }
        page.into_string()
    }

    /// Up to the beginning of the body.
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

    /// The stages in the order of the plan, with those that are not in it after them.
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

    /// What is no instruction: pulls, pushes, contexts.
    fn others(&self) -> Vec<(u32, &Step)> {
        let steps = self.recorded.steps.iter().filter(|(_, step)| step.place.is_none());
        steps.map(|(id, step)| (*id, step)).collect()
    }

    /// Seconds from the beginning to the end of what is known.
    fn total_s(&self) -> f64 {
        let ends =
            self.recorded.steps.values().map(|step| step.started + took(step).unwrap_or(0.0));
        ends.fold(self.recorded.took_s().unwrap_or(0.0), f64::max).max(0.001)
    }
}

/// A stage and what happened in it.
#[derive(Debug)]
struct StageSteps<'a> {
    name: &'a str,
    /// By their places.
    steps: Vec<(u32, &'a Step)>,
    /// The instructions that make layers, of which the first has the place 2.
    planned: Vec<&'a str>,
}

impl StageSteps<'_> {
    /// The step in this place, from 1, which is FROM.
    fn at(&self, number: usize) -> Option<(u32, &Step)> {
        let is_it = |step: &Step| step.place.as_ref().is_some_and(|(_, at)| *at == number);
        self.steps.iter().find(|(_, step)| is_it(step)).map(|(id, step)| (*id, *step))
    }
}

fn took(step: &Step) -> Option<f64> {
    step.end.map(|(_, took)| took)
}

/// The class that gives what became of a step its colour.
const fn class(step: &Step) -> &'static str {
    match step.end {
        Some((Outcome::Done, _)) => "done",
        Some((Outcome::Cached, _)) => "cached",
        Some((Outcome::Failed, _)) => "failed",
        Some((Outcome::Cancelled, _)) => "cancelled",
        None => "open",
    }
}

/// The same in a word.
const fn outcome(step: &Step) -> &'static str {
    match step.end {
        Some((Outcome::Done, _)) => "done",
        Some((Outcome::Cached, _)) => "cached",
        Some((Outcome::Failed, _)) => "failed",
        Some((Outcome::Cancelled, _)) => "stopped",
        None => "not finished",
    }
}

/// The instruction, or what else it is.
fn title(step: &Step) -> &str {
    step.instruction.as_deref().unwrap_or_else(|| step.name.trim_start_matches("[internal] "))
}

/// What a policy calls a script or style that is part of the page (CSP 3, 2.3.1).
fn integrity(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Digest::of(text.as_bytes()).as_bytes()))
}
