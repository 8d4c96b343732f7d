//! The text of `--check`, `--call=outline` and `--call=targets`.

use crate::diag::Diagnostic;
use crate::dockerfile::lint::{self, Outline, StageSummary};

/// Returns the sentence that tells how to silence these warnings; empty if they are not of rules.
pub(super) fn silenced_by(found: &[Diagnostic]) -> String {
    let is_rule =
        |diagnostic: &&Diagnostic| lint::rules().iter().any(|rule| rule.code == diagnostic.code);
    let mut names: Vec<&str> =
        found.iter().filter(is_rule).map(|diagnostic| diagnostic.code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "\nto silence these rules, add `# check=skip={}` at the top of the file, or right above an \
         instruction for that instruction only",
        names.join(",")
    )
}

/// Returns the counts of a check, such as `1 error, 2 warnings`; what is zero is left out.
pub(super) fn totals(n_errors: usize, n_warnings: usize) -> String {
    let counts = [(n_errors, "error"), (n_warnings, "warning")];
    let counts = counts.iter().filter(|(n, _)| *n > 0);
    let counts = counts.map(|(n, noun)| format!("{n} {noun}{}", if *n == 1 { "" } else { "s" }));
    counts.collect::<Vec<_>>().join(", ")
}

/// Returns the first line of a check without errors in Buildx, which docker/build-push-action shows.
pub(super) fn buildx_total(n_warnings: usize) -> String {
    let counted = match n_warnings {
        0 => "no warnings found.".to_owned(),
        1 => "1 warning has been found!".to_owned(),
        n => format!("{n} warnings have been found!"),
    };
    format!("Check complete, {counted}")
}

/// Returns the table of stages, as `--call=targets` prints it.
pub(super) fn targets_text(stages: &[StageSummary]) -> String {
    let rows = stages.iter().enumerate().map(|(at, stage)| {
        let name = stage.name.clone().unwrap_or_else(|| at.to_string());
        let default = if stage.is_default { " (default)" } else { "" };
        vec![
            format!("{name}{default}"),
            stage.base.clone(),
            stage.description.clone().unwrap_or_default(),
        ]
    });
    table(&["TARGET", "FROM", "DESCRIPTION"], rows.collect())
}

/// Returns the tables of build arguments, secrets and ssh agents, as `--call=outline` prints them.
pub(super) fn outline_text(outline: &Outline) -> String {
    let name = outline.target.name.as_deref().unwrap_or("default");
    let mut text = format!("TARGET:      {name}\n");
    if let Some(description) = &outline.target.description {
        text.push_str(&format!("DESCRIPTION: {description}\n"));
    }
    if !outline.arguments.is_empty() {
        let rows = outline.arguments.iter().map(|argument| {
            let (value, about) = (argument.value.clone(), argument.description.clone());
            vec![argument.name.clone(), value.unwrap_or_default(), about.unwrap_or_default()]
        });
        text.push('\n');
        text.push_str(&table(&["BUILD ARG", "VALUE", "DESCRIPTION"], rows.collect()));
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let rows = mounts.iter().map(|one| {
                vec![one.id.clone(), if one.required { "true".to_owned() } else { String::new() }]
            });
            text.push('\n');
            text.push_str(&table(&[title, "REQUIRED"], rows.collect()));
        }
    }
    text
}

/// Returns the rows in aligned columns, three spaces apart.
fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let titles = titles.iter().map(|title| (*title).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:0$}", width(at)));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}
