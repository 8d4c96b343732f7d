//! `rbuild plan CONTEXT`, and `--dry-run`: what a build would do.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::build::{complaint, read_dockerfile, reporter, with_asked};
use super::build_options::{options, read_outputs};
use super::{CliError, Environment, Exit, Global, check};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::plan as plan_args;
use crate::cli::args::plan::PlanArgs;
use crate::cli::display::reasons;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::text::shown;
use crate::cli::inputs::contexts::Asked;
use crate::diag::size;
use crate::executor::{self, Forecast, ForecastStage, ForecastStep, Reason, StepStatus};

/// The version of the JSON form; members may be added without a new one.
const VERSION: u32 = 1;

pub(crate) fn run(
    args: &PlanArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let PlanArgs { json, build } = args;
    if build.inspection().is_some() {
        let text = "error: `rbuild plan` shows what a build would do: leave out --check and --call";
        return Err(CliError::new(text, Exit::Usage));
    }
    let foreseen = foresee(build, global, environment)?;
    if *json {
        stdout::json(&as_json(&foreseen));
    } else {
        show(&foreseen);
    }
    Ok(())
}

fn foresee(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<Forecast, CliError> {
    if let Some(useless) = plan_args::useless(args) {
        let text = format!("error: nothing is built: leave out {useless}");
        return Err(CliError::new(text, Exit::Usage));
    }
    let asked = Asked::new(args)?;
    check::usage(args, &asked)?;
    // What is wrong with them, a build would find out before anything else.
    let outputs = read_outputs(args, environment)?;
    let reporter = reporter(args, environment)?;
    let mut foreseen = None;
    with_asked(
        asked,
        args,
        global,
        environment,
        args.lock.rule(),
        &reporter,
        |services, input, _file| {
            let dockerfile = read_dockerfile(input, environment)?.0;
            let options = options(args, environment, services, input, dockerfile, &outputs)?;
            let found = executor::forecast(services, &options)
                .map_err(|error| complaint(&error, &input.dockerfile, environment.style()))?;
            foreseen = Some(found);
            Ok(())
        },
    )?;
    Ok(foreseen.expect("what went well gave a result"))
}

fn show(foreseen: &Forecast) {
    text(foreseen).iter().for_each(|line| say!("{}", shown(line, false)));
}

/// A stage a paragraph, a step a line, and what it comes to.
fn text(foreseen: &Forecast) -> Vec<String> {
    let mut lines = Vec::new();
    for stage in &foreseen.stages {
        lines.push(head(stage, foreseen));
        for step in &stage.steps {
            let (fate, why) = words(&step.status);
            let took = estimate(step).map(|took| format!("~{}", seconds(took))).unwrap_or_default();
            lines.push(format!("  {fate:<7} {took:>7}  {}", step.place));
            lines.extend(why.map(|why| format!("                     {why}")));
        }
        lines.push(String::new());
    }
    lines.push(sum(foreseen));
    lines
}

/// As in `app: from debian:12, copies from build`.
fn head(stage: &ForecastStage, foreseen: &Forecast) -> String {
    let name = |number: &usize| {
        foreseen.stages.get(*number).map_or_else(String::new, |stage| stage.outline.name.clone())
    };
    let parent = stage.outline.parent.as_ref().map(name);
    let pull = match stage.pull_bytes {
        0 => String::new(),
        n_bytes => format!(" ({} of it not in the store)", size(n_bytes)),
    };
    let base = stage.outline.base.as_ref().map(|base| format!("{base}{pull}")).or(parent);
    let mut head = format!("{}: from {}", stage.outline.name, base.unwrap_or("scratch".to_owned()));
    let used: BTreeSet<&usize> = stage.steps.iter().flat_map(|step| &step.needs).collect();
    let used: Vec<String> = used.into_iter().map(name).collect();
    if !used.is_empty() {
        head = format!("{head}, with files of {}", used.join(", "));
    }
    head
}

fn words(fate: &StepStatus) -> (&'static str, Option<String>) {
    match fate {
        StepStatus::Cached => ("cached", None),
        StepStatus::Runs(Reason::Below { step }) => ("runs", Some(format!("it stands on {step}"))),
        StepStatus::Runs(reason) => ("runs", Some(reasons::text(reason))),
        StepStatus::Unknown { after } => {
            ("perhaps", Some(format!("it is cached if {after} gives the same files as before")))
        }
    }
}

/// How long a step that may run will take.
fn estimate(step: &ForecastStep) -> Option<Duration> {
    step.took.filter(|_| step.status != StepStatus::Cached)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn count(foreseen: &Forecast, is_one: impl Fn(&StepStatus) -> bool) -> usize {
    let steps = foreseen.stages.iter().flat_map(|stage| &stage.steps);
    steps.filter(|step| is_one(&step.status)).count()
}

/// As in `3 of 5 steps are cached, 1 to run, 1 perhaps: about 12.4s`.
fn sum(foreseen: &Forecast) -> String {
    let n_steps = count(foreseen, |_| true);
    let n_cached = count(foreseen, |fate| *fate == StepStatus::Cached);
    let n_made = count(foreseen, |fate| matches!(fate, StepStatus::Runs(_)));
    let n_perhaps = count(foreseen, |fate| matches!(fate, StepStatus::Unknown { .. }));
    let mut sum = format!("{n_cached} of {n_steps} steps are cached");
    let counts = [(n_made, "to run"), (n_perhaps, "perhaps")];
    for (n, what) in counts.into_iter().filter(|(n, _)| *n > 0) {
        sum = format!("{sum}, {n} {what}");
    }
    if n_cached < n_steps {
        sum = format!("{sum}: {}", time(foreseen, n_made + n_perhaps));
    }
    match foreseen.pull_bytes {
        0 => sum,
        n_bytes => format!("{sum}; up to {} to pull", size(n_bytes)),
    }
}

/// How long the steps that may run will take.
fn time(foreseen: &Forecast, n_steps: usize) -> String {
    let (took, n_unknown) = foreseen.estimate();
    let about = format!("about {}", seconds(took));
    match n_unknown {
        0 => about,
        n if n == n_steps => "nobody knows how long".to_owned(),
        1 => format!("{about} and a step that never ran here"),
        n => format!("{about} and {n} steps that never ran here"),
    }
}

fn as_json(foreseen: &Forecast) -> Value {
    let (took, n_unknown) = foreseen.estimate();
    let stages: Vec<Value> = foreseen.stages.iter().map(stage_json).collect();
    json!({
        "version": VERSION,
        "stages": stages,
        "pull_bytes": foreseen.pull_bytes,
        "estimate_seconds": took.as_secs_f64(),
        "steps_without_estimate": n_unknown,
    })
}

fn stage_json(stage: &ForecastStage) -> Value {
    let step = |step: &ForecastStep| {
        let fate = words(&step.status);
        json!({
            "name": step.place.to_string(),
            "instruction": step.place.instruction,
            "number": step.place.number,
            "needs": step.needs,
            "fate": fate.0,
            "reason": fate.1,
            "estimate_seconds": estimate(step).map(|took| took.as_secs_f64()),
        })
    };
    json!({
        "name": stage.outline.name,
        "base": stage.outline.base,
        "parent": stage.outline.parent,
        "needs": stage.outline.needs,
        "pull_bytes": stage.pull_bytes,
        "steps": stage.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

/// `rbuild build --dry-run`
pub(super) fn dry_run(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    show(&foresee(args, global, environment)?);
    Ok(())
}
