//! The job summary of GitHub Actions: Markdown, appended to `$GITHUB_STEP_SUMMARY`
//! (<https://docs.github.com/en/actions/using-workflows/workflow-commands-for-github-actions>).

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

use super::event_text::event_text;
use super::out::Out;
use super::plain::outcome_text;
use super::sink::{Failure, Sink, Success};
use super::totals;

/// Maximum length of all summaries of a step. GitHub refuses longer ones.
const MAX_BYTES: u64 = 1 << 20;
/// Length that is reserved for everything but lists.
const RESERVED_BYTES: u64 = 16 << 10;
/// Maximum length of a name. The log has all of it.
const MAX_NAME_CHARS: usize = 300;

/// Collects facts, and writes the summary at the end.
#[derive(Debug)]
pub(super) struct StepSummary {
    path: PathBuf,
    running: BTreeMap<StepId, String>,
    steps: Vec<(String, Outcome, Duration)>,
    /// Running instructions, without FROM.
    instructions: BTreeSet<StepId>,
    n_steps: usize,
    n_cached: usize,
    warnings: Vec<String>,
    /// Images that were pushed and files that were written.
    sent: Vec<String>,
    /// Title and facts of the result, if the command has ended.
    result: Option<(String, Vec<(&'static str, String)>)>,
}

impl StepSummary {
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

    /// Appends the summary to the file.
    fn write(&self) -> Result<(), PathError> {
        let failed = |verb| move |error| PathError::new(verb, &self.path, error);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .map_err(failed("open"))?;
        let n_there = file.metadata().map_err(failed("inspect"))?.len();
        let space = usize::try_from(MAX_BYTES.saturating_sub(n_there)).unwrap_or(0);
        if let Some(page) = self.page(space) {
            file.write_all(page.as_bytes()).map_err(failed("write"))?;
        }
        Ok(())
    }

    /// Returns the summary in at most `space` bytes; `None` without a result, or without space.
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

impl Sink for StepSummary {
    fn event(&mut self, event: &Event, _out: &mut Out<'_>) {
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
            Event::Wrote { .. } | Event::Pushed { .. } => self.sent.push(code(&event_text(event))),
            Event::Planned { .. }
            | Event::Note { .. }
            | Event::Isolated { .. }
            | Event::Executing { .. }
            | Event::Explained { .. }
            | Event::Output { .. }
            | Event::Made { .. }
            | Event::Progress { .. } => {}
        }
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, _out: &mut Out<'_>) {
        self.warnings.extend(found.iter().map(|diagnostic| {
            let line = source.line_column(diagnostic.span.start).line;
            let place = format!("{}:{line}", source.name());
            format!("{} {}: {}", code(&place), diagnostic.code, code(&diagnostic.message))
        }));
    }

    fn built(&mut self, success: &Success<'_>, _out: &mut Out<'_>) {
        let Success { result, took, .. } = success;
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

    fn failed(&mut self, failure: &Failure<'_>, _out: &mut Out<'_>) {
        let time = format!("{:.1} s", failure.took.as_secs_f64());
        let facts = vec![("Error", code(&failure.error.summary())), ("Time", time)];
        self.result = Some(("failed".to_owned(), facts));
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        // The build itself is not affected.
        if let Err(error) = self.write() {
            out.line(&format!("warning: the step summary is not written: {error}"));
        }
    }
}

fn end_of(outcome: Outcome, took: Duration) -> String {
    outcome_text(outcome, took).to_lowercase()
}

fn bullets(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("- {text}\n")).collect()
}

/// Appends the parts that fit before `end`, and the number of those that do not.
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

/// Returns text as inline code, on one line. All that Markdown or HTML could interpret is escaped.
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
    use crate::cli::error::CliError;
    use crate::cli::exit::Exit;

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
        let mut summary = StepSummary::new("x");
        let mut bytes = Vec::new();
        let out = &mut Out::new(&mut bytes);
        for n in 0..10_000 {
            let step = StepId(n);
            let name = format!("[stage {n}/10000] RUN {}", "<".repeat(200));
            summary.event(&Event::Started { step, name, place: None }, out);
            let (outcome, took) = (Outcome::Cached, Duration::ZERO);
            summary.event(&Event::Finished { step, outcome, took }, out);
            summary.event(&Event::Warning { text: "x".repeat(100) }, out);
        }
        let error = CliError::new("why", Exit::Build);
        let (text, took) = (String::new(), Duration::ZERO);
        summary.failed(&Failure { error: &error, text, took }, out);
        for space in [1 << 20, 100_000, 20_000] {
            let page = summary.page(space).unwrap();
            assert!(page.len() <= space, "{} {space}", page.len());
            assert!(page.contains(" more, which the log has"), "{space}");
        }
        assert_eq!(summary.page(10), None);
    }
}
