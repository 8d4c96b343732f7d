//! Lines in groups that a CI system folds: one step after the other, though several run at once.
//!
//! One step at a time is shown as it goes; what others print meanwhile is held until it ends. So much
//! is held and no more: a step that prints more is shown in its place, and the other one goes on later.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::cli::display::text::{Lines, shown};
use crate::executor::{Event, StepId};

use super::ci_annotations::Marks;
use super::plain::{end, output};
use super::rate::Rate;
use super::{Out, said};

/// What a step may print while another one is shown.
const MAX_HELD_BYTES: usize = 4 << 20;

/// The view.
#[derive(Debug)]
pub(super) struct Grouped {
    pub(super) marks: Marks,
    colours: bool,
    steps: BTreeMap<StepId, Held>,
    /// The step that is shown.
    front: Option<StepId>,
    /// Lines of others, that belong to no group.
    loose: Vec<String>,
}

/// A step of which not everything was shown.
#[derive(Debug)]
struct Held {
    name: String,
    started: Instant,
    lines: Lines,
    rate: Rate,
    /// Whether it has a group.
    executes: bool,
    held: Vec<String>,
    n_held_bytes: usize,
    n_groups: u32,
    /// Its last line, once it ended.
    end: Option<String>,
}

impl Grouped {
    pub(super) const fn new(marks: Marks, colours: bool) -> Self {
        Self { marks, colours, steps: BTreeMap::new(), front: None, loose: Vec::new() }
    }

    pub(super) fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        match event {
            Event::Planned { .. } => {}
            Event::Started { step, name, .. } => {
                self.steps.insert(*step, Held::new(shown(name, false).into_owned()));
            }
            Event::Explained { step, .. } => {
                // It comes before the step is shown.
                if let Some(held) = self.steps.get_mut(step) {
                    held.held.push(said(event));
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
                self.finish(*step, end(*outcome, *took), out);
            }
            Event::Warning { text } => {
                self.loosely(said(event), out);
                self.marks.warning(text, out);
            }
            Event::Note { .. } | Event::Wrote { .. } | Event::Pushed { .. } => {
                self.loosely(said(event), out);
            }
        }
    }

    /// Ends the group that is open; whatever is held is shown.
    pub(super) fn end(&mut self, out: &mut Out<'_>) {
        for held in self.steps.values_mut().filter(|held| held.executes) {
            held.end.get_or_insert_with(|| "did not end".to_owned());
        }
        self.next(out);
    }

    /// A line outside of all groups.
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

    /// Takes what a step printed; or shows what has no line end, when nothing more will come.
    fn output(&mut self, step: StepId, bytes: Option<&[u8]>, out: &mut Out<'_>) {
        let Some(held) = self.steps.get_mut(&step) else { return };
        let (is_front, colours) = (self.front == Some(step), self.colours);
        let Held { started, lines, held: kept, n_held_bytes, .. } = held;
        let mut take = |text: &str| {
            let line = output(step, *started, text, colours);
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

    fn finish(&mut self, step: StepId, how: String, out: &mut Out<'_>) {
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

    /// Goes on when the step that is shown has ended: with those that ended meanwhile, and then with
    /// the first that still runs.
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
        self.marks.open(&group_name(step, held.n_groups), &title, out);
        held.held.drain(..).for_each(|line| out.coloured(&line));
        held.n_held_bytes = 0;
        self.front = Some(step);
    }

    fn hide(&mut self, out: &mut Out<'_>) {
        if let Some(held) = self.front.take().and_then(|step| Some((step, self.steps.get(&step)?)))
        {
            self.marks.close(&group_name(held.0, held.1.n_groups), out);
        }
    }
}

fn group_name(step: StepId, n_groups: u32) -> String {
    format!("rbuild_{}_{}_{n_groups}", std::process::id(), step.0)
}

impl Held {
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

    /// The lines, without times and without what stops commands.
    fn lines(events: &[Event]) -> Vec<String> {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        let dockerfile = "Dockerfile".to_owned();
        let marks = Marks::GitHub { token: TOKEN.to_owned(), dockerfile };
        let mut view = Grouped::new(marks, false);
        for event in events {
            view.event(event, &mut out);
        }
        view.end(&mut out);
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
    fn who_prints_too_much_to_be_held_is_shown() {
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
