//! Lines in groups that a CI system folds, one group for each step.
//!
//! One step is shown while it runs. Output of others is held until it ends, up to a limit: a step that
//! prints more than that takes its place, and the first one continues later in another group.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::cli::display::text::{Lines, shown};
use crate::diag::{self, Diagnostic, SourceFile, Style};
use crate::executor::{Event, StepId};

use super::ci_annotations::CiCommands;
use super::event_text::event_text;
use super::out::Out;
use super::plain::{outcome_text, output_line};
use super::rate::Rate;
use super::sink::{Failure, Sink, Success};

/// Maximum length of a step's output that is held while another one is shown.
const MAX_HELD_BYTES: usize = 4 << 20;

/// Shows each step in a group.
#[derive(Debug)]
pub(super) struct Grouped {
    ci: CiCommands,
    /// Style of our own messages.
    style: Style,
    /// True if output of steps may have colours.
    colours: bool,
    steps: BTreeMap<StepId, GroupedStep>,
    /// The step that is shown.
    front: Option<StepId>,
    /// Lines outside of groups, held until the group is closed.
    loose: Vec<String>,
}

/// A step of which not everything was shown.
#[derive(Debug)]
struct GroupedStep {
    name: String,
    started: Instant,
    lines: Lines,
    rate: Rate,
    /// True if it has a group.
    executes: bool,
    held: Vec<String>,
    n_held_bytes: usize,
    n_groups: u32,
    /// Its last line, if it has ended.
    end: Option<String>,
}

impl Grouped {
    pub(super) const fn new(ci: CiCommands, style: Style, colours: bool) -> Self {
        Self { ci, style, colours, steps: BTreeMap::new(), front: None, loose: Vec::new() }
    }

    /// Shows all that is held, and closes the open group.
    fn end_all(&mut self, out: &mut Out<'_>) {
        for held in self.steps.values_mut().filter(|held| held.executes) {
            held.end.get_or_insert_with(|| "did not end".to_owned());
        }
        self.next(out);
    }

    /// Shows a line outside of groups, now or when the open group is closed.
    fn loosely(&mut self, line: String, out: &mut Out<'_>) {
        match self.front {
            Some(_) => self.loose.push(line),
            None => out.line(&line),
        }
    }

    fn execute(&mut self, step: StepId, out: &mut Out<'_>) {
        let Some(held) = self.steps.get_mut(&step) else { return };
        held.executes = true;
        if self.front.is_none() {
            self.show(step, out);
        }
    }

    /// Adds output of a step. Without `bytes`, the step has ended: shows its last, unfinished line.
    fn output(&mut self, step: StepId, bytes: Option<&[u8]>, out: &mut Out<'_>) {
        let Some(held) = self.steps.get_mut(&step) else { return };
        let (is_front, colours) = (self.front == Some(step), self.colours);
        let GroupedStep { started, lines, held: kept, n_held_bytes, .. } = held;
        let mut take = |text: &str| {
            let line = output_line(step, *started, text, colours);
            if is_front {
                out.coloured(&line);
            } else {
                *n_held_bytes += line.len();
                kept.push(line);
            }
        };
        match bytes {
            Some(bytes) => lines.push(bytes, &mut take),
            None => lines.end(&mut take),
        }
        if *n_held_bytes > MAX_HELD_BYTES {
            self.hide(out);
            self.show(step, out);
        }
    }

    fn end_step(&mut self, step: StepId, how: String, out: &mut Out<'_>) {
        self.output(step, None, out);
        let Some(held) = self.steps.get_mut(&step) else { return };
        if !held.executes {
            let mut lines = std::mem::take(&mut held.held);
            lines.push(format!("#{} {} {how}", step.0, held.name));
            self.steps.remove(&step);
            lines.into_iter().for_each(|line| self.loosely(line, out));
            return;
        }
        held.end = Some(format!("#{} {how}", step.0));
        self.next(out);
    }

    /// If the shown step has ended, shows those that ended meanwhile, and then the first that runs.
    fn next(&mut self, out: &mut Out<'_>) {
        loop {
            if let Some(front) = self.front {
                let Some(end) = self.steps.get(&front).and_then(|held| held.end.clone()) else {
                    return;
                };
                self.hide(out);
                self.steps.remove(&front);
                out.line(&end);
            }
            self.loose.drain(..).for_each(|line| out.line(&line));
            let waiting = || self.steps.iter().filter(|(_, held)| held.executes);
            let ended = waiting().find(|(_, held)| held.end.is_some());
            let Some((step, _)) = ended.or_else(|| waiting().next()) else { return };
            self.show(*step, out);
        }
    }

    fn show(&mut self, step: StepId, out: &mut Out<'_>) {
        let Some(held) = self.steps.get_mut(&step) else { return };
        held.n_groups += 1;
        let again = if held.n_groups > 1 { " (continued)" } else { "" };
        let title = format!("#{} {}{again}", step.0, held.name);
        self.ci.open(&group_name(step, held.n_groups), &title, out);
        held.held.drain(..).for_each(|line| out.coloured(&line));
        held.n_held_bytes = 0;
        self.front = Some(step);
    }

    fn hide(&mut self, out: &mut Out<'_>) {
        if let Some(held) = self.front.take().and_then(|step| Some((step, self.steps.get(&step)?)))
        {
            self.ci.close(&group_name(held.0, held.1.n_groups), out);
        }
    }
}

impl Sink for Grouped {
    fn begin(&mut self, out: &mut Out<'_>) {
        self.ci.begin(out);
    }

    fn dockerfile(&mut self, name: &str, _text: &str, _out: &mut Out<'_>) {
        self.ci.set_dockerfile(name);
    }

    fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        match event {
            Event::Planned { .. } => {}
            Event::Started { step, name, .. } => {
                self.steps.insert(*step, GroupedStep::new(shown(name, false).into_owned()));
            }
            Event::Explained { step, .. } => {
                if let Some(held) = self.steps.get_mut(step) {
                    held.held.push(event_text(event));
                }
            }
            Event::Executing { step } => {
                if let Some(held) = self.steps.get_mut(step) {
                    held.started = Instant::now();
                }
                self.execute(*step, out);
            }
            Event::Made { .. } => {}
            Event::Output { step, bytes, .. } => {
                self.execute(*step, out);
                self.output(*step, Some(bytes), out);
            }
            Event::Progress { step, done_bytes, total_bytes } => {
                let Some(held) = self.steps.get_mut(step).filter(|_| self.front.is_none()) else {
                    return;
                };
                let line = held.rate.line(Instant::now(), *done_bytes, *total_bytes);
                line.iter().for_each(|line| out.line(&format!("#{} {line}", step.0)));
            }
            Event::Finished { step, outcome, took } => {
                self.end_step(*step, outcome_text(*outcome, *took), out);
            }
            Event::Warning { text } => {
                self.loosely(event_text(event), out);
                self.ci.warning(text, out);
            }
            Event::Isolated { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => {
                self.loosely(event_text(event), out);
            }
        }
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        self.end_all(out);
        out.lines(&diag::render(found, source, self.style), self.style == Style::Colour);
        self.ci.diagnostics(found, source, out);
    }

    fn built(&mut self, success: &Success<'_>, out: &mut Out<'_>) {
        self.end_all(out);
        success.lines().iter().for_each(|line| out.line(line));
    }

    fn failed(&mut self, failure: &Failure<'_>, out: &mut Out<'_>) {
        self.end_all(out);
        out.lines(&failure.text, self.style == Style::Colour);
        self.ci.failure(failure.error, out);
    }

    fn hand_over(&mut self, out: &mut Out<'_>) {
        self.end_all(out);
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        self.end_all(out);
        self.ci.end(out);
    }
}

fn group_name(step: StepId, n_groups: u32) -> String {
    format!("rbuild_{}_{}_{n_groups}", std::process::id(), step.0)
}

impl GroupedStep {
    fn new(name: String) -> Self {
        let started = Instant::now();
        Self {
            name,
            started,
            lines: Lines::default(),
            rate: Rate::new(started),
            executes: false,
            held: Vec::new(),
            n_held_bytes: 0,
            n_groups: 0,
            end: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::executor::{Outcome, Stream};

    const TOKEN: &str = "token";

    fn started(step: u32, name: &str) -> Event {
        Event::Started { step: StepId(step), name: name.to_owned(), place: None }
    }

    fn output(step: u32, text: &str) -> Event {
        let bytes = text.as_bytes().to_vec();
        Event::Output { step: StepId(step), stream: Stream::Stdout, bytes }
    }

    fn done(step: u32) -> Event {
        let (outcome, took) = (Outcome::Done, Duration::ZERO);
        Event::Finished { step: StepId(step), outcome, took }
    }

    /// Returns the lines without times and without those that stop commands.
    fn lines(events: &[Event]) -> Vec<String> {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        let dockerfile = "Dockerfile".to_owned();
        let ci = CiCommands::GitHub { token: TOKEN.to_owned(), dockerfile };
        let mut view = Grouped::new(ci, Style::Plain, false);
        for event in events {
            view.event(event, &mut out);
        }
        view.finish(&mut out);
        let text = String::from_utf8(bytes).unwrap();
        let without_time = |line: &str| {
            let words = line.split(' ').enumerate();
            let words = words.filter(|(at, word)| *at != 1 || word.parse::<f64>().is_err());
            words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
        };
        text.lines().filter(|line| !line.contains(TOKEN)).map(without_time).collect()
    }

    #[test]
    fn steps_that_run_at_once_are_shown_one_after_the_other() {
        let events = [
            started(1, "one"),
            output(1, "a\n"),
            started(2, "two"),
            output(2, "b\n"),
            output(1, "c"),
            started(3, "cached"),
            done(3),
            output(2, "d\n"),
            done(1),
            output(2, "e\n"),
            done(2),
        ];
        let want = [
            "::group::#1 one",
            "#1 a",
            "#1 c",
            "::endgroup::",
            "#1 DONE 0.0s",
            "#3 cached DONE 0.0s",
            "::group::#2 two",
            "#2 b",
            "#2 d",
            "#2 e",
            "::endgroup::",
            "#2 DONE 0.0s",
        ];
        assert_eq!(lines(&events), want);
    }

    #[test]
    fn step_that_prints_too_much_to_be_held_is_shown() {
        let much = "x".repeat(1 << 20) + "\n";
        let mut events = vec![started(1, "one"), output(1, "a\n"), started(2, "two")];
        events.extend((0..5).map(|_| output(2, &much)));
        events.extend([output(1, "b\n"), done(2), done(1)]);
        let shown = lines(&events);
        let short: Vec<&String> = shown.iter().filter(|line| !line.contains("xx")).collect();
        let want = [
            "::group::#1 one",
            "#1 a",
            "::endgroup::",
            "::group::#2 two",
            "::endgroup::",
            "#2 DONE 0.0s",
            "::group::#1 one (continued)",
            "#1 b",
            "::endgroup::",
            "#1 DONE 0.0s",
        ];
        assert_eq!(short, want);
        let n_x: usize = shown.iter().map(|line| line.matches('x').count()).sum();
        assert_eq!(n_x, 5 << 20);
    }
}
