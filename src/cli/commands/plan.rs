//! `rbuild plan CONTEXT` and `--dry-run`: a forecast of which steps a build would run, and how long
//! they would take.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::build::{reporter, with_asked};
use super::build_options::{options, read_outputs};
use super::one_build::{cli_error, read_dockerfile};
use super::{CliError, Environment, Exit, Global, check};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::plan as plan_args;
use crate::cli::args::plan::PlanArgs;
use crate::cli::display::reasons;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::text::shown;
use crate::cli::inputs::contexts::ContextArg;
use crate::diag::size;
use crate::executor::{self, Forecast, ForecastStage, ForecastStep, Reason, StepStatus};

/// The format version of `--json`. New members do not change it.
const VERSION: u32 = 1;

/// Prints the forecast as text or JSON.
pub(crate) fn run(
    args: &PlanArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let PlanArgs { json, build } = args;
    if build.inspection().is_some() {
        let text = "error: --check and --call cannot be used with `rbuild plan`";
        return Err(CliError::new(text, Exit::Usage));
    }
    let forecast = forecast(build, global, environment)?;
    if *json {
        stdout::json(&to_json(&forecast));
    } else {
        show(&forecast);
    }
    Ok(())
}

fn forecast(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<Forecast, CliError> {
    if let Some(useless) = plan_args::unused_option(args) {
        let text = format!("error: {useless} cannot be used here: nothing is built");
        return Err(CliError::new(text, Exit::Usage));
    }
    let asked = ContextArg::new(args)?;
    check::usage(args, &asked)?;
    // A build checks its outputs first: an error in them must not be missed here.
    let outputs = read_outputs(args, environment)?;
    let reporter = reporter(args, environment)?;
    let mut forecast = None;
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
                .map_err(|error| cli_error(&error, &input.dockerfile, environment.style()))?;
            forecast = Some(found);
            Ok(())
        },
    )?;
    Ok(forecast.expect("`with_asked` succeeds only if the closure ran"))
}

fn show(forecast: &Forecast) {
    text(forecast).iter().for_each(|line| say!("{}", shown(line, false)));
}

/// Returns a paragraph for each stage with a line for each step, and a summary.
fn text(forecast: &Forecast) -> Vec<String> {
    let mut lines = Vec::new();
    for stage in &forecast.stages {
        lines.push(head(stage, forecast));
        for step in &stage.steps {
            let (status, why) = words(&step.status);
            let took = estimate(step).map(|took| format!("~{}", seconds(took))).unwrap_or_default();
            lines.push(format!("  {status:<7} {took:>7}  {}", step.place));
            lines.extend(why.map(|why| format!("                     {why}")));
        }
        lines.push(String::new());
    }
    lines.push(sum(forecast));
    lines
}

/// Returns the title of a stage, such as `app: from debian:12, with files from build`.
fn head(stage: &ForecastStage, forecast: &Forecast) -> String {
    let name = |number: &usize| {
        forecast.stages.get(*number).map_or_else(String::new, |stage| stage.outline.name.clone())
    };
    let parent = stage.outline.parent.as_ref().map(name);
    let pull = match stage.pull_bytes {
        0 => String::new(),
        n_bytes => format!(" ({} not in the store)", size(n_bytes)),
    };
    let base = stage.outline.base.as_ref().map(|base| format!("{base}{pull}")).or(parent);
    let mut head = format!("{}: from {}", stage.outline.name, base.unwrap_or("scratch".to_owned()));
    let used: BTreeSet<&usize> = stage.steps.iter().flat_map(|step| &step.needs).collect();
    let used: Vec<String> = used.into_iter().map(name).collect();
    if !used.is_empty() {
        head = format!("{head}, with files from {}", used.join(", "));
    }
    head
}

/// Returns the status of a step as a word, and the reason for it.
fn words(status: &StepStatus) -> (&'static str, Option<String>) {
    match status {
        StepStatus::Cached => ("cached", None),
        StepStatus::Runs(Reason::Below { step }) => ("runs", Some(format!("depends on {step}"))),
        StepStatus::Runs(reason) => ("runs", Some(reasons::text(reason))),
        StepStatus::Unknown { after } => {
            ("perhaps", Some(format!("cached if {after} produces the same files as before")))
        }
    }
}

/// Returns the expected duration of a step that may run.
fn estimate(step: &ForecastStep) -> Option<Duration> {
    step.took.filter(|_| step.status != StepStatus::Cached)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn count(forecast: &Forecast, is_one: impl Fn(&StepStatus) -> bool) -> usize {
    let steps = forecast.stages.iter().flat_map(|stage| &stage.steps);
    steps.filter(|step| is_one(&step.status)).count()
}

/// Returns the summary, such as `3 of 5 steps cached, 1 to run, 1 perhaps: about 12.4s`.
fn sum(forecast: &Forecast) -> String {
    let n_steps = count(forecast, |_| true);
    let n_cached = count(forecast, |status| *status == StepStatus::Cached);
    let n_runs = count(forecast, |status| matches!(status, StepStatus::Runs(_)));
    let n_perhaps = count(forecast, |status| matches!(status, StepStatus::Unknown { .. }));
    let mut sum =
        format!("{n_cached} of {n_steps} {} cached", if n_steps == 1 { "step" } else { "steps" });
    let counts = [(n_runs, "to run"), (n_perhaps, "perhaps")];
    for (n, what) in counts.into_iter().filter(|(n, _)| *n > 0) {
        sum = format!("{sum}, {n} {what}");
    }
    if n_cached < n_steps {
        sum = format!("{sum}: {}", time(forecast, n_runs + n_perhaps));
    }
    match forecast.pull_bytes {
        0 => sum,
        n_bytes => format!("{sum}; up to {} to pull", size(n_bytes)),
    }
}

/// Returns the expected duration of the steps that may run.
fn time(forecast: &Forecast, n_steps: usize) -> String {
    let (took, n_unknown) = forecast.estimate();
    let about = format!("about {}", seconds(took));
    match n_unknown {
        0 => about,
        n if n == n_steps => "no estimate yet".to_owned(),
        1 => format!("{about}, plus 1 step that has never run here"),
        n => format!("{about}, plus {n} steps that have never run here"),
    }
}

fn to_json(forecast: &Forecast) -> Value {
    let (took, n_unknown) = forecast.estimate();
    let stages: Vec<Value> = forecast.stages.iter().map(stage_json).collect();
    json!({
        "version": VERSION,
        "stages": stages,
        "pull_bytes": forecast.pull_bytes,
        "estimate_seconds": took.as_secs_f64(),
        "steps_without_estimate": n_unknown,
    })
}

fn stage_json(stage: &ForecastStage) -> Value {
    let step = |step: &ForecastStep| {
        let status = words(&step.status);
        json!({
            "name": step.place.to_string(),
            "instruction": step.place.instruction,
            "number": step.place.number,
            "needs": step.needs,
            "fate": status.0,
            "reason": status.1,
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

/// Runs `rbuild build --dry-run`: prints the forecast as text.
pub(super) fn dry_run(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    show(&forecast(args, global, environment)?);
    Ok(())
}
