//! The timeline: a lane for each stage, a bar for each step that ran, a tick for each cached step.

use crate::cli::records::{RecordedStep, StepOutcome};

use super::html::{Html, real, short, span, whole};
use super::{ReportPage, class, outcome, title, took};

/// Heights of a row and of a bar in it, in pixels.
const ROW: f64 = 24.0;
const BAR: f64 = 18.0;
/// Minimum width of a bar, in percent of the timeline.
const MIN_WIDTH: f64 = 0.35;
/// Minimum width of a bar with a label, in percent of the timeline.
const TEXT_WIDTH: f64 = 9.0;
/// Approximate number of marks on the time axis.
const N_MARKS: f64 = 6.0;

/// Writes the timeline, with a legend and a time axis.
pub(crate) fn section(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    if page.recorded.steps.is_empty() {
        return html;
    }
    let total = page.total_s();
    html.raw(
        "<p class=\"legend\"><span class=\"done\">done</span> <span class=\"cached\">cached</span> \
              <span class=\"failed\">failed</span> <span class=\"cancelled\">cancelled</span></p>\n\
              <div class=\"timeline\">\n",
    );
    for stage in page.stages().iter().filter(|stage| !stage.steps.is_empty()) {
        lane(stage.name, "stage", &stage.steps, total, &mut html);
    }
    let others = page.others();
    if !others.is_empty() {
        lane("other steps", "others", &others, total, &mut html);
    }
    axis(total, &mut html);
    html.raw("</div>\n");
    html
}

fn lane(name: &str, kind: &str, steps: &[(u32, &RecordedStep)], total: f64, html: &mut Html) {
    let rows = rows(steps, total);
    let height = real(rows.iter().max().map_or(1, |row| row + 1)) * ROW;
    html.put(
        "<div class=\"lane {}\"><span class=\"name\" title=\"{}\">{}</span>",
        &[&kind, &name, &name],
    );
    html.put(
        "<svg class=\"track\" width=\"100%\" height=\"{}\" role=\"group\" aria-label=\"{}\">\n",
        &[&height, &name],
    );
    marks(total, &height.to_string(), html);
    // Ticks are drawn last, on top of a bar that begins at the same time.
    for ticks in [false, true] {
        for ((id, step), row) in steps.iter().zip(&rows) {
            if is_tick(step) == ticks {
                bar(*id, step, real(*row) * ROW + (ROW - BAR) / 2.0, total, html);
            }
        }
    }
    html.raw("</svg></div>\n");
}

/// Returns the start and the end of a step in seconds. A step without an end lasts to the end.
fn extent(step: &RecordedStep, total: f64) -> (f64, f64) {
    let end = took(step).map_or(total, |took| step.started + took);
    (step.started.min(total), end.min(total))
}

fn is_tick(step: &RecordedStep) -> bool {
    matches!(step.end, Some((StepOutcome::Cached, _)))
}

/// Assigns each step to a row, so that no bars overlap.
fn rows(steps: &[(u32, &RecordedStep)], total: f64) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let rows = steps.iter().map(|(_, step)| {
        let (from, to) = extent(step, total);
        if is_tick(step) {
            return 0;
        }
        // Recorded times are rounded to milliseconds.
        let free = ends.iter().position(|end| *end <= from + 0.002);
        let row = free.unwrap_or(ends.len());
        match ends.get_mut(row) {
            Some(end) => *end = to,
            None => ends.push(to),
        }
        row
    });
    rows.collect()
}

fn bar(id: u32, step: &RecordedStep, y: f64, total: f64, html: &mut Html) {
    let (from, to) = extent(step, total);
    let x = (from / total * 100.0).min(100.0 - MIN_WIDTH);
    let (class, text) = (class(step), title(step));
    let about = format!("{text}\n{}, {} from {}", outcome(step), span(to - from), span(from));
    html.put("<a href=\"#step-{}\" class=\"bar {}\"><title>{}</title>", &[&id, &class, &about]);
    if is_tick(step) {
        let x = format!("{x:.3}%");
        html.put("<rect x=\"{}\" y=\"{}\" width=\"4\" height=\"{}\"/></a>\n", &[&x, &y, &BAR]);
        return;
    }
    let width = ((to - from) / total * 100.0).min(100.0 - x).max(MIN_WIDTH);
    let (x, shown) = (format!("{x:.3}%"), format!("{width:.3}%"));
    html.put(
        "<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><rect width=\"100%\" height=\"100%\" rx=\"3\"/>",
        &[&x, &y, &shown, &BAR],
    );
    if width >= TEXT_WIDTH {
        html.put("<text x=\"7\" y=\"13\">{}</text>", &[&short(text, 120)]);
    }
    html.raw("</svg></a>\n");
}

/// Returns the times to mark on the axis, in seconds.
fn marked(total: f64) -> Vec<f64> {
    let rough = total / N_MARKS;
    let steps =
        [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
    let longer = [60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0];
    let step = steps.into_iter().chain(longer).find(|step| *step >= rough).unwrap_or(86_400.0);
    let n_marks = whole((total / step).floor()).min(50);
    (0..=n_marks).map(|n| f64::from(n) * step).collect()
}

fn marks(total: f64, height: &str, html: &mut Html) {
    for time in marked(total) {
        let x = format!("{:.3}%", time / total * 100.0);
        html.put("<line x1=\"{}\" x2=\"{}\" y1=\"0\" y2=\"{}\"/>", &[&x, &x, &height]);
    }
    html.raw("\n");
}

fn axis(total: f64, html: &mut Html) {
    html.raw("<div class=\"lane axis\" aria-hidden=\"true\"><span></span><svg class=\"track\" width=\"100%\" height=\"18\">");
    for time in marked(total) {
        let percent = time / total * 100.0;
        // A label at the right edge would be cut off.
        if percent <= 96.0 {
            let x = format!("{percent:.3}%");
            html.put("<text x=\"{}\" y=\"13\">{}</text>", &[&x, &mark_text(time)]);
        }
    }
    html.raw("</svg></div>\n");
}

fn mark_text(time: f64) -> String {
    let ms = whole(time * 1000.0);
    match ms {
        0 => "0".to_owned(),
        ms if ms % 1000 != 0 && ms < 1000 => format!("{ms} ms"),
        ms if ms % 1000 != 0 => format!("{time:.1} s"),
        1..60_000 => format!("{} s", ms / 1000),
        ms if ms % 60_000 == 0 => format!("{} m", ms / 60_000),
        ms => format!("{}:{:02} m", ms / 60_000, ms / 1000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_at_round_times() {
        let check = |total: f64, want: &str| {
            let marks: Vec<String> = marked(total).into_iter().map(mark_text).collect();
            assert_eq!(marks.join(", "), want);
        };
        check(0.0035, "0, 1 ms, 2 ms, 3 ms");
        check(18.9, "0, 5 s, 10 s, 15 s");
        check(400.0, "0, 2 m, 4 m, 6 m");
        check(1.0, "0, 200 ms, 400 ms, 600 ms, 800 ms, 1 s");
    }

    #[test]
    fn concurrent_steps_are_in_separate_rows() {
        let step = |started: f64, took: f64, outcome| RecordedStep {
            started,
            end: Some((outcome, took)),
            ..RecordedStep::default()
        };
        let steps = [
            step(0.0, 2.0, StepOutcome::Done),
            step(1.0, 2.0, StepOutcome::Done),
            step(1.5, 0.0, StepOutcome::Cached),
            step(2.0, 1.0, StepOutcome::Failed),
        ];
        let steps: Vec<(u32, &RecordedStep)> = (1..).zip(&steps).collect();
        assert_eq!(rows(&steps, 4.0), [0, 1, 0, 0]);
    }
}
