//! `rbuild history ls|show|logs|rm` and `rbuild explain`: the builds recorded in the store.

mod document;
mod logs;

use std::io::{self, BufRead as _, BufReader, IsTerminal as _};

use super::images::ago;
use super::report_file::BuildReport;
use super::{CliError, Environment, Exit, Global, open_store};
use crate::cli::args::history::{
    BuildSelector, ExplainArgs, HistoryCommand, ListArgs, RmArgs, ShowArgs,
};
use crate::cli::display::stdout::{self, say};
use crate::cli::display::table::{self, row};
use crate::cli::display::text::shown;
use crate::cli::records::{
    BuildEnd, BuiltSummary, FailureSummary, Logs, Recorded, RecordedStep, StepOutcome,
};
use crate::diag::size;
use crate::pathio::PathError;
use crate::store::{BuildRecord, Store};

/// Size of the buffer that copies a record to standard output.
const EVENTS_BYTES: usize = 64 << 10;
/// The reason shown for a step that ended before its cache lookup.
const UNEXPLAINED: &str = "it was not looked up in the cache";

use logs::build_and_step;
pub(super) use logs::instruction;

type Result<T> = std::result::Result<T, CliError>;

/// Runs a subcommand of `rbuild history`.
pub(crate) fn history(
    command: &HistoryCommand,
    global: &Global,
    environment: &Environment,
) -> Result<()> {
    let store = open_store(global, environment)?;
    match command {
        HistoryCommand::Ls(args) => list(&store, args, environment.now_s),
        HistoryCommand::Show(args) => show(&store, args, environment.now_s),
        HistoryCommand::Logs(args) => {
            // `environment.colour` is about standard error; the log goes to standard output.
            let colours = environment.colour && io::stdout().is_terminal();
            logs::logs(&store, args, colours)
        }
        HistoryCommand::Rm(args) => remove(&store, args),
    }
}

/// Runs `rbuild explain`: prints why steps of a build were not cached.
pub(crate) fn explain(
    args: &ExplainArgs,
    global: &Global,
    environment: &Environment,
) -> Result<()> {
    let store = open_store(global, environment)?;
    let (which, step) = build_and_step(&args.which, args.step.as_deref());
    let build = RecordedBuild::read(&selected(records(&store)?, which)?, Logs::Skip)?;
    let step = step.map(|word| build.step(word)).transpose()?;
    if args.json {
        stdout::json(&document::explained(&build, step.map(|(id, _)| id)));
        return Ok(());
    }
    if let Some((id, step)) = step {
        let why = match step.end {
            Some((StepOutcome::Cached, _)) => "found in the cache",
            _ => step.reason.as_deref().unwrap_or(UNEXPLAINED),
        };
        say!("#{id} {}\n    {}", shown(&step.name, false), shown(why, false));
        return Ok(());
    }
    say!("{}", build.headline(environment.now_s));
    let (n_steps, n_cached) = build.recorded.counts();
    let noun = if n_steps == 1 { "step" } else { "steps" };
    say!("{n_cached} of {n_steps} {noun} cached");
    for (id, step) in build.rebuilt() {
        let why = step.reason.as_deref().unwrap_or(UNEXPLAINED);
        say!("#{id} {}\n    {}", shown(&step.name, false), shown(why, false));
    }
    Ok(())
}

fn failed(error: &PathError) -> CliError {
    CliError::from_error(error, Exit::Environment)
}

fn unreadable(record: &BuildRecord, error: &io::Error) -> CliError {
    let text = format!("error: cannot read build {}: {error}", record.id);
    CliError::new(text, Exit::Environment)
}

fn records(store: &Store) -> Result<Vec<BuildRecord>> {
    store
        .build_records()
        .latest_first()
        .map_err(|error| CliError::from_error(&error, Exit::Environment))
}

fn selected_record(store: &Store, which: &BuildSelector) -> Result<BuildRecord> {
    selected(records(store)?, which.build.as_deref())
}

/// Returns the build that `word` names: the beginning of an id, `^N` for the Nth before the latest,
/// or the latest without a word. `records` are sorted latest first.
fn selected(records: Vec<BuildRecord>, word: Option<&str>) -> Result<BuildRecord> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    if records.is_empty() {
        let text = "error: the store has no recorded builds";
        return Err(CliError::new(text, Exit::Environment));
    }
    let n_back = match word {
        None => Some(0),
        Some(word) => word.strip_prefix('^').map(|n| n.parse::<usize>().unwrap_or(usize::MAX)),
    };
    let Some(word) = word.filter(|_| n_back.is_none()) else {
        let n_records = records.len();
        let found = n_back.and_then(|n_back| records.into_iter().nth(n_back));
        let noun = if n_records == 1 { "build" } else { "builds" };
        let only = || usage(format!("the store has only {n_records} recorded {noun}"));
        return found.ok_or_else(only);
    };
    let mut like = records.into_iter().filter(|record| record.id.starts_with(word));
    match (like.next(), like.next()) {
        (Some(record), None) => Ok(record),
        (Some(a), Some(b)) => {
            Err(usage(format!("build id {word} is ambiguous: it matches {} and {}", a.id, b.id)))
        }
        (None, _) => {
            let text =
                format!("no build {word} in the store; `rbuild history ls` lists all builds");
            Err(usage(text))
        }
    }
}

/// A recorded build, read from the store.
struct RecordedBuild {
    id: String,
    is_running: bool,
    recorded: Recorded,
}

impl RecordedBuild {
    fn read(record: &BuildRecord, logs: Logs) -> Result<Self> {
        let gone = || format!("error: build {} was removed in the meantime", record.id);
        Self::read_if_there(record, logs)?.ok_or_else(|| CliError::new(gone(), Exit::Environment))
    }

    fn read_if_there(record: &BuildRecord, logs: Logs) -> Result<Option<Self>> {
        // Checked before reading: a build that ends in between has its end in the record.
        let is_running = record.is_running();
        let file = match record.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| failed(&error))?,
        };
        let recorded = Recorded::read(file, logs).map_err(|error| unreadable(record, &error))?;
        Ok(Some(Self { id: record.id.clone(), is_running, recorded }))
    }

    fn status(&self) -> &'static str {
        self.recorded.status(self.is_running).word()
    }

    const fn took_s(&self) -> Option<f64> {
        self.recorded.took_s()
    }

    /// Returns a line such as `build 1f00ba4c: failed after 3.2s, 5 minutes ago`.
    fn headline(&self, now_s: i64) -> String {
        let status = self.status();
        let took = match (status, self.took_s()) {
            ("built", Some(took)) => format!(" in {}", seconds(took)),
            (_, Some(took)) => format!(" after {}", seconds(took)),
            (_, None) => String::new(),
        };
        let when = ago(now_s.saturating_sub(self.recorded.started_s));
        format!("build {}: {status}{took}, {when}", self.id)
    }

    /// Returns the instructions that were not found in the cache.
    fn rebuilt(&self) -> impl Iterator<Item = (u32, &RecordedStep)> {
        let is_rebuilt = |step: &RecordedStep| !matches!(step.end, Some((StepOutcome::Cached, _)));
        self.recorded.instructions().filter(move |(_, step)| is_rebuilt(step))
    }

    /// Returns the image names, or the context of a build without a name, and the target.
    fn subject(&self) -> String {
        let requested = &self.recorded.requested;
        let target = requested.target.as_ref().map(|target| format!(" --target {target}"));
        let what = match requested.names.as_slice() {
            [] => self.recorded.requested.location(),
            names => names.join(", "),
        };
        format!("{what}{}", target.unwrap_or_default())
    }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1}s")
}

fn list(store: &Store, args: &ListArgs, now_s: i64) -> Result<()> {
    let mut rows = Vec::new();
    if !args.json && !args.quiet {
        rows.push(row([
            &"BUILD",
            &"STARTED",
            &"STATUS",
            &"DURATION",
            &"STEPS",
            &"CACHED",
            &"NAME",
        ]));
    }
    for record in records(store)?.iter().take(args.limit.unwrap_or(usize::MAX)) {
        if args.quiet {
            say!("{}", record.id);
            continue;
        }
        // Another build that ends now may remove the oldest record.
        let Some(build) = RecordedBuild::read_if_there(record, Logs::Skip)? else { continue };
        if args.json {
            stdout::json_line(&document::to_json(&build));
            continue;
        }
        let (n_steps, n_cached) = build.recorded.counts();
        let took = build.took_s().map(seconds).unwrap_or_default();
        let when = ago(now_s.saturating_sub(record.started_s));
        let name = shown(&build.subject(), false).into_owned();
        rows.push(row([&build.id, &when, &build.status(), &took, &n_steps, &n_cached, &name]));
    }
    table::lines(&rows).iter().for_each(|line| say!("{line}"));
    Ok(())
}

fn show(store: &Store, args: &ShowArgs, now_s: i64) -> Result<()> {
    let record = selected_record(store, &args.which)?;
    if args.json {
        return events(&record);
    }
    if let Some(path) = &args.report {
        let RecordedBuild { id, is_running, recorded } = RecordedBuild::read(&record, Logs::Ends)?;
        let status = recorded.status(is_running);
        let (id, store) = (Some(id.as_str()), Some(store));
        return BuildReport { id, status, recorded: &recorded, store }.write(path);
    }
    let build = RecordedBuild::read(&record, Logs::Skip)?;
    say!("{}", build.headline(now_s));
    build.facts().iter().for_each(|line| say!("{}", shown(line, false)));
    build.steps().iter().for_each(|line| say!("{}", shown(line, false)));
    build.problems().iter().for_each(|line| say!("{}", shown(line, false)));
    Ok(())
}

/// Copies the record of a build to standard output, byte for byte.
fn events(record: &BuildRecord) -> Result<()> {
    let file = record.open().map_err(|error| failed(&error))?;
    let mut file = BufReader::with_capacity(EVENTS_BYTES, file);
    loop {
        let piece = file.fill_buf().map_err(|error| unreadable(record, &error))?;
        let n_bytes = piece.len();
        if n_bytes == 0 || !stdout::bytes(piece) {
            return Ok(());
        }
        file.consume(n_bytes);
    }
}

impl RecordedBuild {
    fn facts(&self) -> Vec<String> {
        let requested = &self.recorded.requested;
        let mut facts = vec![("context", self.recorded.requested.location())];
        let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
        add("Dockerfile", requested.dockerfile.clone());
        add("target", requested.target.clone());
        let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));
        add("platforms", joined(&requested.platforms));
        add("names", joined(&requested.names));
        if let Some(BuildEnd::Built(BuiltSummary { id, layer_bytes, .. })) = &self.recorded.end {
            let n_bytes =
                layer_bytes.map_or(String::new(), |n_bytes| format!(", {}", size(n_bytes)));
            add("image", Some(format!("{id}{n_bytes}")));
        }
        add("isolation", self.recorded.isolation.clone());
        add("outputs", joined(&self.recorded.sent));
        facts.iter().map(|(name, value)| format!("  {name:<12}{value}")).collect()
    }

    fn steps(&self) -> Vec<String> {
        let (n_steps, n_cached) = self.recorded.counts();
        if n_steps == 0 {
            return Vec::new();
        }
        let head = format!("Steps: {n_steps}, {n_cached} cached");
        let rows: Vec<_> = self
            .recorded
            .steps
            .iter()
            .map(|(id, step)| row([&format!("  #{id}"), &end(step), &layer_size(step), &step.name]))
            .collect();
        let mut lines = vec![String::new(), head];
        for (line, step) in table::lines(&rows).into_iter().zip(self.recorded.steps.values()) {
            lines.push(line);
            lines
                .extend(step.reason.as_ref().map(|reason| format!("        not cached: {reason}")));
        }
        lines
    }

    fn problems(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let warnings = self.recorded.found_warnings().map(|found| {
            let helps = found.helps.iter().map(|help| format!("\n    help: {help}"));
            let helps: String = helps.collect();
            format!("  {}:{}: {} [{}]{helps}", found.file, found.line, found.message, found.code)
        });
        let plain = self.recorded.warnings.iter().map(|text| format!("  {text}"));
        let warnings: Vec<String> = warnings.chain(plain).collect();
        if !warnings.is_empty() {
            lines.extend([String::new(), "Warnings:".to_owned()]);
            lines.extend(warnings.iter().flat_map(|text| text.lines()).map(str::to_owned));
        }
        if let Some(BuildEnd::Failed(FailureSummary { text, message, .. })) = &self.recorded.end {
            lines.push(String::new());
            let text = if text.is_empty() { message } else { text };
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

/// Returns the uncompressed size of the step's layer, or nothing if it has none.
fn layer_size(step: &RecordedStep) -> String {
    step.layer.as_ref().map(|(_, bytes)| size(*bytes)).unwrap_or_default()
}

/// Returns the outcome of a step in the words of the log, with its duration.
fn end(step: &RecordedStep) -> String {
    match step.end {
        Some((StepOutcome::Done, took)) => seconds(took),
        Some((StepOutcome::Cached, _)) => "CACHED".to_owned(),
        Some((StepOutcome::Failed, took)) => format!("ERROR {}", seconds(took)),
        Some((StepOutcome::Cancelled, _)) => "CANCELED".to_owned(),
        None => "…".to_owned(),
    }
}

fn remove(store: &Store, args: &RmArgs) -> Result<()> {
    let all = records(store)?;
    let removed: Vec<BuildRecord> = if args.all {
        all.into_iter().filter(|record| !record.is_running()).collect()
    } else {
        let selected = args.builds.iter().map(|word| self::selected(all.clone(), Some(word)));
        selected.collect::<Result<_>>()?
    };
    for record in &removed {
        if record.is_running() {
            let text = format!("error: build {} is still running", record.id);
            return Err(CliError::new(text, Exit::Usage));
        }
        let done = store.build_records().remove(record);
        done.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        say!("{}", record.id);
    }
    Ok(())
}
