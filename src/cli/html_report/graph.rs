//! The stage graph as SVG: a box for each stage with its steps, an arrow for each dependency.

mod layout;

use crate::cli::records::{PlannedStage, StepOutcome};

use super::html::{Html, real, short};
use super::{ReportPage, StageSteps, class, outcome};

use layout::{BoxSize, GraphLayout};

/// Width of a box, and heights of its title and of a row, in pixels.
const WIDTH: f64 = 300.0;
const TITLE: f64 = 30.0;
const ROW: f64 = 20.0;
/// Space below the last row, in pixels.
const FOOT: f64 = 8.0;
/// Maximum numbers of characters in a row and in the title.
const ROW_CHARS: usize = 40;
const TITLE_CHARS: usize = 34;
/// Rows above which a box folds adjacent rows with the same outcome.
const MANY_ROWS: usize = 16;

/// A row of a box: one instruction, or several folded ones.
struct GraphRow {
    text: String,
    class: &'static str,
    about: String,
    step: Option<u32>,
    /// Number of its first instruction.
    number: usize,
}

/// Writes the graph. Empty for a single stage, whose graph would be one box.
pub(crate) fn section(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    let planned = &page.recorded.stages;
    if planned.len() < 2 {
        return html;
    }
    let stages = page.stages();
    let boxes: Vec<Vec<GraphRow>> =
        planned.iter().zip(&stages).map(|(plan, stage)| rows(plan, planned, stage)).collect();
    let sizes: Vec<BoxSize<'_>> = boxes
        .iter()
        .zip(planned)
        .map(|(rows, stage)| {
            let height = TITLE + real(rows.len()) * ROW + FOOT;
            BoxSize { height, needs: &stage.needs }
        })
        .collect();
    let layout = GraphLayout::of(&sizes, WIDTH);
    html.put(
        "<div class=\"graph\" tabindex=\"0\" role=\"group\" aria-label=\"PlannedStage dependencies\">\n\
         <svg width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\">\n",
        &[&layout.width, &layout.height, &layout.width, &layout.height],
    );
    html.raw(
        "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" \
              markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0.5L8 4L0 7.5z\"/></marker></defs>\n",
    );
    for edge in &layout.edges {
        let rows = boxes.get(edge.to).map_or(&[][..], Vec::as_slice);
        let from = planned.get(edge.from).map_or("", |stage| stage.name.as_str());
        let (at, kind) = consumer(rows, from);
        let y = TITLE + real(at) * ROW + ROW / 2.0;
        html.put("<path class=\"edge {}\" d=\"{}\"/>\n", &[&kind, &edge.path(y)]);
    }
    for ((stage, rows), corner) in stages.iter().zip(&boxes).zip(&layout.boxes) {
        stage_box(stage, rows, *corner, &mut html);
    }
    html.raw("</svg>\n</div>\n");
    html
}

/// Returns the row that copies or mounts files of stage `from`, and the class of the arrow. A stage that
/// does not name `from` in an instruction has it as its base.
fn consumer(rows: &[GraphRow], from: &str) -> (usize, &'static str) {
    let at = rows.iter().position(|row| reads_from(&row.about, from));
    at.map_or((0, "from"), |at| (at, "copy"))
}

/// Returns whether the instructions have a `--from` or a mount of this stage.
fn reads_from(instructions: &str, stage: &str) -> bool {
    // The name of a stage may follow its platform: `linux/arm64 build`.
    let name = stage.rsplit(' ').next().unwrap_or(stage).to_lowercase();
    let flag = format!("from={name}");
    let words = instructions.to_lowercase();
    let mut words = words.split(|c: char| c.is_whitespace() || c == ',');
    words.any(|word| word.trim_start_matches('-') == flag)
}

fn rows(plan: &PlannedStage, planned: &[PlannedStage], stage: &StageSteps<'_>) -> Vec<GraphRow> {
    let parent = || Some(planned.get(plan.parent?)?.name.clone());
    let base = plan.base.clone().or_else(parent);
    let first = format!("FROM {}", base.unwrap_or_else(|| "scratch".to_owned()));
    let texts = std::iter::once(first).chain(plan.instructions.iter().cloned());
    let rows = (1..).zip(texts).map(|(number, about)| {
        let step = stage.at(number);
        // FROM of another stage or of scratch has no step of its own.
        let unknown = if number == 1 && !stage.steps.is_empty() { "cached" } else { "never" };
        let class = step.map_or(unknown, |(_, step)| class(step));
        let about = step.map_or(about.clone(), |(_, step)| format!("{about}\n{}", outcome(step)));
        let text = about.lines().next().unwrap_or_default().to_owned();
        GraphRow { text, class, about, step: step.map(|(id, _)| id), number }
    });
    let rows: Vec<GraphRow> = rows.collect();
    if rows.len() <= MANY_ROWS { rows } else { folded(rows) }
}

/// Merges adjacent rows with the same outcome, unless they failed.
fn folded(rows: Vec<GraphRow>) -> Vec<GraphRow> {
    let mut folded: Vec<(GraphRow, usize)> = Vec::new();
    for row in rows {
        match folded.last_mut() {
            Some((last, n))
                if last.class == row.class && last.number > 1 && row.class != "failed" =>
            {
                last.about.push('\n');
                last.about.push_str(&row.about);
                *n += 1;
            }
            _ => folded.push((row, 1)),
        }
    }
    let rows = folded.into_iter().map(|(mut row, n)| {
        if n > 1 {
            row.text = format!("{} … and {} more", short(&row.text, ROW_CHARS - 16), n - 1);
        }
        row
    });
    rows.collect()
}

fn stage_box(stage: &StageSteps<'_>, rows: &[GraphRow], (x, y): (f64, f64), html: &mut Html) {
    let height = TITLE + real(rows.len()) * ROW + FOOT;
    let has_failed =
        stage.steps.iter().any(|(_, step)| matches!(step.end, Some((StepOutcome::Failed, _))));
    let state = if has_failed { "failed" } else { "" };
    html.put("<g class=\"box {}\" transform=\"translate({} {})\">", &[&state, &x, &y]);
    html.put("<rect width=\"{}\" height=\"{}\" rx=\"6\"/>", &[&WIDTH, &height]);
    html.put(
        "<text class=\"title\" x=\"12\" y=\"20\">{}</text>\n",
        &[&short(stage.name, TITLE_CHARS)],
    );
    for (at, row) in rows.iter().enumerate() {
        let y = TITLE + real(at) * ROW;
        match row.step {
            Some(id) => html.put("<a href=\"#step-{}\" class=\"row {}\">", &[&id, &row.class]),
            None => html.put("<g class=\"row {}\">", &[&row.class]),
        }
        html.put(
            "<title>{}</title><rect x=\"4\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"/>",
            &[&row.about, &y, &(WIDTH - 8.0), &ROW],
        );
        html.put("<circle cx=\"17\" cy=\"{}\" r=\"4\"/>", &[&(y + ROW / 2.0)]);
        html.put("<text x=\"29\" y=\"{}\">{}</text>", &[&(y + 14.0), &short(&row.text, ROW_CHARS)]);
        html.raw(if row.step.is_some() { "</a>\n" } else { "</g>\n" });
    }
    html.raw("</g>\n");
}
