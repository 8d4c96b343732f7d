//! The lines of a frame, from the model, the time and the size of the terminal.

use std::borrow::Cow;
use std::time::Duration;

use crate::executor::StepId;

use super::line::{Paint, PaintedLine};
use super::model::{Model, RunningStep, elapsed};

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TerminalSize {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Maximum number of lines of output below a step.
const MAX_OUTPUT_ROWS: usize = 6;
/// Width in columns below which step numbers are left out.
const NARROW_COLUMNS: usize = 40;
/// Minimum width of a name in columns beside a transfer.
const NAME_COLUMNS: usize = 24;

/// Returns the live lines from the top. They leave one row for the finished lines above.
pub(super) fn lines(model: &Model, now: Duration, size: TerminalSize) -> Vec<PaintedLine> {
    // The last column stays free: a cursor after it is about to wrap.
    let space = size.columns.saturating_sub(1);
    let rows = size.rows.saturating_sub(1).max(1);
    let header = header(model, now);
    let n_steps = model.running.len();
    let has_header = header.columns() > 0 && (rows > 1 || n_steps != 1);
    let left = rows.saturating_sub(usize::from(has_header));
    // If not all fit, the last row says how many more there are.
    let n_shown = if n_steps > left { left.saturating_sub(1) } else { n_steps };
    let all = model.running.iter().take(n_shown);
    let steps: Vec<StepBlock<'_>> =
        all.map(|(step, running)| StepBlock::new(*step, running)).collect();
    let n_output = share(&steps, left.saturating_sub(n_steps));

    let mut lines = Vec::with_capacity(rows);
    lines.extend(has_header.then_some(header));
    for (block, n_rows) in steps.iter().zip(n_output) {
        block.show(model, now, space, n_rows, &mut lines);
    }
    if n_steps > n_shown && left > 0 {
        let text = format!("{} {} more", model.look.more(), n_steps - n_shown);
        lines.push(PaintedLine::default().with(Paint::Dim, &text));
    }
    lines.into_iter().map(|line| line.clipped(space, model.look.more())).collect()
}

/// Returns `building 12.4s · 5/12 steps · 3 cached`, or nothing if a single step says as much.
fn header(model: &Model, now: Duration) -> PaintedLine {
    let (n_ended, n_all, n_cached) = model.counts();
    let and = model.look.and();
    let time = super::look::clock(now);
    if n_all == 0 {
        let line = PaintedLine::default();
        return if model.running.len() == 1 {
            line
        } else {
            line.with(Paint::Bold, &format!("working {time}"))
        };
    }
    let steps = format!("{and}{n_ended}/{n_all} steps");
    let line = PaintedLine::default().with(Paint::Bold, &format!("building {time}"));
    let mut line = line.with(Paint::Plain, &steps);
    if n_cached > 0 {
        line = line.with(Paint::Plain, &format!("{and}{n_cached} cached"));
    }
    // Layers are compressed and synced, and documents are written, outside of steps.
    let is_closing = n_ended == n_all && model.running.is_empty();
    if is_closing { line.with(Paint::Plain, &format!("{and}finishing the image")) } else { line }
}

/// A step and the lines below it.
struct StepBlock<'a> {
    step: StepId,
    running: &'a RunningStep,
    reason: Option<String>,
    output: Vec<Cow<'a, str>>,
}

impl<'a> StepBlock<'a> {
    fn new(step: StepId, running: &'a RunningStep) -> Self {
        Self { step, running, reason: running.reason_text(), output: running.last_lines() }
    }

    /// Returns the number of rows that it could use below its own.
    fn n_wanted(&self) -> usize {
        usize::from(self.reason.is_some()) + self.output.len().min(MAX_OUTPUT_ROWS)
    }

    fn show(
        &self,
        model: &Model,
        now: Duration,
        space: usize,
        n_rows: usize,
        to: &mut Vec<PaintedLine>,
    ) {
        to.push(self.first(model, now, space));
        let look = model.look;
        let below = |text: &str| {
            if space < NARROW_COLUMNS {
                PaintedLine::default().with(Paint::Plain, "  ").with(Paint::Dim, text)
            } else {
                look.below(text)
            }
        };
        // Output matters more than a reason.
        let n_output = n_rows.min(self.output.len()).min(MAX_OUTPUT_ROWS);
        if n_rows > n_output
            && let Some(reason) = &self.reason
        {
            to.push(below(reason));
        }
        let skipped = self.output.len() - n_output;
        to.extend(self.output.iter().skip(skipped).map(|line| below(line)));
    }

    fn first(&self, model: &Model, now: Duration, space: usize) -> PaintedLine {
        let look = model.look;
        let time = elapsed(self.running, now);
        let line = if space < NARROW_COLUMNS {
            let start = PaintedLine::default().with(Paint::Plain, &format!("{time} "));
            start.with(Paint::Plain, &self.running.name)
        } else {
            look.step(look.running(now, &time), self.step, &self.running.name)
        };
        let texts = self.running.transfer_texts(now);
        let left = |text: &String| space.saturating_sub(text.chars().count() + 2);
        let fits =
            |text: &&String| left(text) >= line.columns().min(NAME_COLUMNS).min(space * 2 / 3);
        match texts.iter().find(fits) {
            Some(text) => {
                let name = line.clipped(left(text), look.more());
                name.with(Paint::Cyan, &format!("  {text}"))
            }
            None => line,
        }
    }
}

/// Returns the number of rows below each step: `left` rows are dealt out one by one.
fn share(steps: &[StepBlock<'_>], mut left: usize) -> Vec<usize> {
    let mut given = vec![0; steps.len()];
    loop {
        let before = left;
        for (n_rows, block) in given.iter_mut().zip(steps) {
            if left > 0 && *n_rows < block.n_wanted() {
                *n_rows += 1;
                left -= 1;
            }
        }
        if left == before {
            return given;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::live::colours::Colours;
    use crate::cli::progress::live::look::{Look, Signs};
    use crate::executor::{Event, Outcome, StageOutline, StepPlace, Stream};

    fn at(tenths: u64) -> Duration {
        Duration::from_millis(tenths * 100)
    }

    fn started(step: u32, stage: &str, number: usize, instruction: &str) -> Event {
        let (stage, instruction) = (stage.to_owned(), instruction.to_owned());
        let place = StepPlace { stage, number, of: 4, instruction };
        Event::Started { step: StepId(step), name: place.to_string(), place: Some(place) }
    }

    fn output(step: u32, text: &str) -> Event {
        let bytes = text.as_bytes().to_vec();
        Event::Output { step: StepId(step), stream: Stream::Stdout, bytes }
    }

    fn finished(step: u32, outcome: Outcome, took: Duration) -> Event {
        Event::Finished { step: StepId(step), outcome, took }
    }

    fn model() -> Model {
        Model::new(Look { signs: Signs::Unicode, colours: Colours::default() })
    }

    /// Two stages that compile, and a pull.
    fn busy() -> Model {
        let mut model = model();
        let stage = |name: &str, base: Option<&str>| StageOutline {
            name: name.to_owned(),
            base: base.map(str::to_owned),
            parent: None,
            needs: Vec::new(),
            instructions: vec!["RUN".to_owned(); 3],
        };
        let stages = vec![stage("build", Some("debian:bookworm")), stage("docs", None)];
        model.event(&Event::Planned { stages }, at(0));
        let pull =
            Event::Started { step: StepId(3), name: "[internal] pull x/y:1".into(), place: None };
        let events = [
            (0, started(1, "build", 1, "FROM debian:bookworm")),
            (0, finished(1, Outcome::Cached, at(0))),
            (0, started(5, "docs", 3, "COPY . .")),
            (0, finished(5, Outcome::Cached, at(0))),
            (
                1,
                started(
                    2,
                    "build",
                    2,
                    "RUN make -j4 all install DESTDIR=/out VERBOSE=1 CFLAGS=-O2",
                ),
            ),
            (5, pull),
            (
                9,
                output(
                    2,
                    "cc a.c\ncc b.c\ncc c.c\ncc d.c\ncc e.c\ncc f.c\n\ncc g.c\nld\r 10%\r 20%",
                ),
            ),
            (10, started(4, "docs", 2, "RUN mkdocs")),
            (12, output(4, "INFO\tone\n\u{1b}[2J\u{1b}[31m日本語\u{1b}[0m\n")),
        ];
        events.iter().for_each(|(when, event)| model.event(event, at(*when)));
        for tenth in 6..30 {
            let (step, total_bytes) = (StepId(3), 57_000_000);
            let moved = Event::Progress { step, done_bytes: (tenth - 5) * 1_000_000, total_bytes };
            model.event(&moved, at(tenth));
        }
        model
    }

    #[track_caller]
    fn check(model: &Model, columns: usize, rows: usize, want: &[&str]) {
        let lines = lines(model, at(32), TerminalSize { columns, rows });
        assert!(lines.len() < rows.max(2), "{lines:?}");
        assert!(lines.iter().all(|line| line.columns() < columns), "{lines:?}");
        let texts: Vec<String> = lines.iter().map(|line| line.text(false)).collect();
        assert_eq!(texts, want, "{}", texts.join("\n"));
    }

    #[test]
    fn each_step_has_its_time_and_its_last_lines() {
        check(
            &busy(),
            80,
            24,
            &[
                "building 3.2s · 1/6 steps · 1 cached",
                "⠹   3.1s #2 [build 2/4] RUN make -j4 all install DESTDIR=/out VERBOSE=1 CFLAGS…",
                "         cc c.c",
                "         cc d.c",
                "         cc e.c",
                "         cc f.c",
                "         cc g.c",
                "          20%",
                "⠹   2.7s #3 [internal] pull x/y:1  24.0MB / 57.0MB 8.8MB/s",
                "⠹   2.2s #4 [docs 2/4] RUN mkdocs",
                "         INFO    one",
                "         日本語",
            ],
        );
    }

    #[test]
    fn little_space_is_shared() {
        let make = "⠹   3.1s #2 [build 2/4] RUN make -j4 all inst…";
        let pull = "⠹   2.7s #3 [internal] pull x/y:1  24.0MB / 57.0MB 8.8MB/s";
        let docs = "⠹   2.2s #4 [docs 2/4] RUN mkdocs";
        let header = "building 3.2s · 1/6 steps · 1 cached";
        let long =
            "⠹   3.1s #2 [build 2/4] RUN make -j4 all install DESTDIR=/out VERBOSE=1 CFLAGS…";
        check(
            &busy(),
            80,
            8,
            &[header, long, "         cc g.c", "          20%", pull, docs, "         日本語"][..],
        );
        check(&busy(), 80, 5, &[header, long, pull, docs]);
        check(&busy(), 80, 4, &[header, long, "… 2 more"]);
        check(&busy(), 80, 3, &[header, "… 3 more"]);
        check(&busy(), 80, 2, &[header]);
        check(&busy(), 80, 1, &[header]);
        check(
            &busy(),
            47,
            5,
            &[header, make, "⠹   2.7s #3 [internal] pull …  24.0MB / 57.0MB", docs],
        );
    }

    #[test]
    fn on_a_narrow_screen_the_numbers_go_first() {
        check(
            &busy(),
            20,
            9,
            &[
                "building 3.2s · 1/…",
                "3.1s [build 2/4] R…",
                "  cc g.c",
                "   20%",
                "2.7s [interna…  42%",
                "2.2s [docs 2/4] RU…",
                "  INFO    one",
                "  日本語",
            ],
        );
        check(&busy(), 1, 2, &[""]);
    }

    #[test]
    fn work_after_the_last_step_is_shown() {
        let mut model = model();
        let (name, instructions) = ("one".to_owned(), vec!["RUN".to_owned()]);
        let stages =
            vec![StageOutline { name, base: None, parent: None, needs: Vec::new(), instructions }];
        model.event(&Event::Planned { stages }, at(0));
        model.event(&started(1, "one", 2, "RUN"), at(0));
        model.event(&finished(1, Outcome::Done, at(1)), at(1));
        check(&model, 80, 24, &["building 3.2s · 1/1 steps · finishing the image"]);
    }

    #[test]
    fn a_single_transfer_needs_no_header() {
        let mut model = model();
        check(&model, 80, 24, &["working 3.2s"]);
        let name = "[internal] push x/y:1".to_owned();
        model.event(&Event::Started { step: StepId(1), name, place: None }, at(0));
        let moved = Event::Progress { step: StepId(1), done_bytes: 1_000_000, total_bytes: 0 };
        model.event(&moved, at(1));
        check(&model, 80, 24, &["⠹   3.2s #1 [internal] push x/y:1  1.0MB 312.5kB/s"]);
        check(&model, 80, 1, &["⠹   3.2s #1 [internal] push x/y:1  1.0MB 312.5kB/s"]);
    }
}
