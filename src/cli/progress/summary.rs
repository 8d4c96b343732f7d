//! The page that GitHub shows for a step: Markdown, appended to `$GITHUB_STEP_SUMMARY`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::display::text::shown;
use crate::diag::{Diagnostic, SourceFile};
use crate::executor::{Event, Outcome, StepId};
use crate::pathio::PathError;

use super::plain::end;
use super::{Result, said, totals};

/// GitHub refuses a summary that is longer, all that a step writes together.
const MAX_BYTES: u64 = 1 << 20;
/// What is said besides steps and warnings needs less.
const RESERVED_BYTES: u64 = 16 << 10;
/// A name is shown up to here: the log has all of it.
const MAX_NAME_CHARS: usize = 300;

/// What goes in.
#[derive(Debug)]
pub(super) struct Summary {
    path: PathBuf,
    running: BTreeMap<StepId, String>,
    steps: Vec<(String, Outcome, Duration)>,
    /// Those that are instructions, FROM not among them.
    instructions: BTreeSet<StepId>,
    n_steps: usize,
    n_cached: usize,
    warnings: Vec<String>,
    /// What was pushed and written.
    sent: Vec<String>,
    /// Title and facts, once there is a result.
    result: Option<(String, Vec<(&'static str, String)>)>,
}

impl Summary {
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            running: BTreeMap::new(),
            steps: Vec::new(),
            instructions: BTreeSet::new(),
            n_steps: 0,
            n_cached: 0,
            warnings: Vec::new(),
            sent: Vec::new(),
            result: None,
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Started { step, name, place } => {
                self.running.insert(*step, name.clone());
                if place.as_ref().is_some_and(|place| !place.is_from()) {
                    self.instructions.insert(*step);
                }
            }
            Event::Finished { step, outcome, took } => {
                if self.instructions.remove(step) {
                    self.n_steps += 1;
                    self.n_cached += usize::from(*outcome == Outcome::Cached);
                }
                let name = self.running.remove(step).unwrap_or_default();
                self.steps.push((name, *outcome, *took));
            }
            Event::Warning { text } => self.warnings.push(code(text)),
            Event::Wrote { .. } | Event::Pushed { .. } => self.sent.push(code(&said(event))),
            Event::Planned { .. }
            | Event::Note { .. }
            | Event::Executing { .. }
            | Event::Explained { .. }
            | Event::Output { .. }
            | Event::Made { .. }
            | Event::Progress { .. } => {}
        }
    }

    pub(super) fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile) {
        self.warnings.extend(found.iter().map(|diagnostic| {
            let line = source.line_column(diagnostic.span.start).line;
            let place = format!("{}:{line}", source.name());
            format!("{} {}: {}", code(&place), diagnostic.code, code(&diagnostic.message))
        }));
    }

    pub(super) fn built(&mut self, result: &Result<'_>, took: Duration) {
        let title = match result.names {
            [] => "built".to_owned(),
            names => format!("built {}", code(&names.join(", "))),
        };
        let facts = vec![
            ("Image id", code(&result.id.to_string())),
            ("Digest", code(&result.digest.to_string())),
            ("Image", result.images.iter().map(totals::image).collect::<Vec<_>>().join(", ")),
            ("Time", format!("{:.1} s", took.as_secs_f64())),
        ];
        self.result = Some((title, facts));
    }

    pub(super) fn failed(&mut self, why: &str, took: Duration) {
        let facts = vec![("Error", code(why)), ("Time", format!("{:.1} s", took.as_secs_f64()))];
        self.result = Some(("failed".to_owned(), facts));
    }

    /// Appends the page to what is there.
    pub(super) fn write(&self) -> std::result::Result<(), PathError> {
        let failed = |verb| move |error| PathError::new(verb, &self.path, error);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .map_err(failed("open"))?;
        let n_there = file.metadata().map_err(failed("look at"))?.len();
        let space = usize::try_from(MAX_BYTES.saturating_sub(n_there)).unwrap_or(0);
        if let Some(page) = self.page(space) {
            file.write_all(page.as_bytes()).map_err(failed("write"))?;
        }
        Ok(())
    }

    /// The page, in no more than `space` bytes; nothing when there is nothing to say, or no space.
    fn page(&self, space: usize) -> Option<String> {
        let (title, facts) = self.result.as_ref()?;
        let mut page = format!("\n### rbuild {title}\n\n| | |\n|---|---|\n");
        let Self { n_steps, n_cached, .. } = self;
        for (name, value) in facts {
            writeln!(page, "| {name} | {value} |").ok()?;
        }
        writeln!(page, "| Steps | {n_steps}, {n_cached} of them cached |").ok()?;
        let end = space.checked_sub(usize::try_from(RESERVED_BYTES).ok()?)?;
        append(&mut page, "\n**Written**\n\n", &bullets(&self.sent), end, "");
        append(&mut page, "\n**Warnings**\n\n", &bullets(&self.warnings), end, "");
        let rows: Vec<String> = self
            .steps
            .iter()
            .map(|(name, outcome, took)| {
                let how = end_of(*outcome, *took);
                format!("| {} | {how} |\n", code(name))
            })
            .collect();
        let head = "\n<details><summary>Steps</summary>\n\n| Step | |\n|---|---|\n";
        append(&mut page, head, &rows, end, "\n</details>\n");
        Some(page)
    }
}

fn end_of(outcome: Outcome, took: Duration) -> String {
    end(outcome, took).to_lowercase()
}

fn bullets(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("- {text}\n")).collect()
}

/// Appends the parts that end before `end`, and how many did not.
fn append(page: &mut String, head: &str, parts: &[String], end: usize, foot: &str) {
    if parts.is_empty() || page.len() + head.len() > end {
        return;
    }
    page.push_str(head);
    for (at, part) in parts.iter().enumerate() {
        if page.len() + part.len() > end {
            let n_more = parts.len() - at;
            page.push_str(&format!("\n… and {n_more} more, which the log has\n"));
            break;
        }
        page.push_str(part);
    }
    page.push_str(foot);
}

/// Text that Markdown and HTML take as it is, in one line.
fn code(text: &str) -> String {
    let line = text.replace(['\n', '\r', '\t'], " ");
    let line = shown(&line, false);
    let mut escaped = String::with_capacity(line.len() + 16);
    for (at, c) in line.chars().enumerate() {
        if at == MAX_NAME_CHARS {
            escaped.push('…');
            break;
        }
        if c.is_ascii_punctuation() && !"-./:".contains(c) {
            escaped.push_str(&format!("&#{};", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    format!("<code>{escaped}</code>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_be_markup() {
        assert_eq!(code("a|b"), "<code>a&#124;b</code>");
        let hostile = code("`x` </code><img src=x> [a](javascript:b) @all\n# h");
        let inner = hostile.strip_prefix("<code>").unwrap().strip_suffix("</code>").unwrap();
        let rest = inner.split("&#").map(|part| part.split_once(';').map_or(part, |(_, r)| r));
        assert!(rest.clone().all(|text| !text.contains(['<', '`', '[', '(', '@', '#', '\n'])));
        assert!(code(&"x".repeat(1000)).len() < 320);
    }

    #[test]
    fn a_page_is_bounded() {
        let mut summary = Summary::new("x");
        for n in 0..10_000 {
            let step = StepId(n);
            let name = format!("[stage {n}/10000] RUN {}", "<".repeat(200));
            summary.event(&Event::Started { step, name, place: None });
            let (outcome, took) = (Outcome::Cached, Duration::ZERO);
            summary.event(&Event::Finished { step, outcome, took });
            summary.event(&Event::Warning { text: "x".repeat(100) });
        }
        summary.failed("why", Duration::ZERO);
        for space in [1 << 20, 100_000, 20_000] {
            let page = summary.page(space).unwrap();
            assert!(page.len() <= space, "{} {space}", page.len());
            assert!(page.contains(" more, which the log has"), "{space}");
        }
        assert_eq!(summary.page(10), None);
    }
}
