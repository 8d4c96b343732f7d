//! `rbuild history ls|show|logs|rm` and `rbuild explain`: builds as the store remembers them.

mod document;
mod logs;

use std::io::{self, BufRead as _, BufReader, IsTerminal as _};

use super::images::ago;
use super::report_file::Report;
use super::{CliError, Environment, Exit, Global, open_store};
use crate::cli::args::history::{
    ExplainArgs, HistoryCommand, ListArgs, RmArgs, ShowArgs, WhichBuild,
};
use crate::cli::display::stdout::{self, say};
use crate::cli::display::table::{self, row};
use crate::cli::display::text::shown;
use crate::cli::records::{End, Logs, Outcome, Recorded, Step};
use crate::diag::size;
use crate::pathio::PathError;
use crate::store::{BuildRecord, Store};

/// So much of a record is read at once.
const EVENTS_BYTES: usize = 64 << 10;
/// Of a step that was not looked up, such as an internal one.
const UNEXPLAINED: &str = "it ended before it was known";

use logs::build_and_step;
pub(super) use logs::instruction;

type Result<T> = std::result::Result<T, CliError>;

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
            // That of messages is known; these lines go to standard output.
            let colours = environment.colour && io::stdout().is_terminal();
            logs::logs(&store, args, colours)
        }
        HistoryCommand::Rm(args) => remove(&store, args),
    }
}

/// `rbuild explain`
pub(crate) fn explain(
    args: &ExplainArgs,
    global: &Global,
    environment: &Environment,
) -> Result<()> {
    let store = open_store(global, environment)?;
    let (which, step) = build_and_step(&args.which, args.step.as_deref());
    let build = Build::read(&chosen(records(&store)?, which)?, Logs::Skip)?;
    let step = step.map(|word| build.step(word)).transpose()?;
    if args.json {
        stdout::json(&document::explained(&build, step.map(|(id, _)| id)));
        return Ok(());
    }
    if let Some((id, step)) = step {
        let why = match step.end {
            Some((Outcome::Cached, _)) => "it was in the cache",
            _ => step.reason.as_deref().unwrap_or(UNEXPLAINED),
        };
        say!("#{id} {}\n    {}", shown(&step.name, false), shown(why, false));
        return Ok(());
    }
    say!("{}", build.headline(environment.now_s));
    let (n_steps, n_cached) = build.recorded.counts();
    say!("{n_cached} of {n_steps} steps were in the cache");
    for (id, step) in build.made() {
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

fn one(store: &Store, which: &WhichBuild) -> Result<BuildRecord> {
    chosen(records(store)?, which.build.as_deref())
}

/// The build that a word means, of all, the latest first.
fn chosen(records: Vec<BuildRecord>, word: Option<&str>) -> Result<BuildRecord> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    if records.is_empty() {
        let text = "error: the store remembers no build yet";
        return Err(CliError::new(text, Exit::Environment));
    }
    let n_back = match word {
        None => Some(0),
        Some(word) => word.strip_prefix('^').map(|n| n.parse::<usize>().unwrap_or(usize::MAX)),
    };
    let Some(word) = word.filter(|_| n_back.is_none()) else {
        let n_records = records.len();
        let found = n_back.and_then(|n_back| records.into_iter().nth(n_back));
        return found.ok_or_else(|| usage(format!("the store remembers {n_records} builds only")));
    };
    let mut like = records.into_iter().filter(|record| record.id.starts_with(word));
    match (like.next(), like.next()) {
        (Some(record), None) => Ok(record),
        (Some(a), Some(b)) => {
            Err(usage(format!("{word} may be {} or {}: give more of it", a.id, b.id)))
        }
        (None, _) => {
            let text = format!("there is no build {word}; `rbuild history ls` lists them");
            Err(usage(text))
        }
    }
}

/// A build and what it is known by.
struct Build {
    id: String,
    is_running: bool,
    recorded: Recorded,
}

impl Build {
    fn read(record: &BuildRecord, logs: Logs) -> Result<Self> {
        let gone = || format!("error: build {} was forgotten just now", record.id);
        Self::read_if_there(record, logs)?.ok_or_else(|| CliError::new(gone(), Exit::Environment))
    }

    fn read_if_there(record: &BuildRecord, logs: Logs) -> Result<Option<Self>> {
        // Asked first: whoever ends meanwhile has an end to be read.
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

    /// As in `build 1f00ba4c: failed after 3.2s, 5 minutes ago`.
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

    /// The instructions that were not found in the cache.
    fn made(&self) -> impl Iterator<Item = (u32, &Step)> {
        let is_made = |step: &Step| !matches!(step.end, Some((Outcome::Cached, _)));
        self.recorded.instructions().filter(move |(_, step)| is_made(step))
    }

    /// What it was a build of, in a word or two.
    fn subject(&self) -> String {
        let requested = &self.recorded.requested;
        let target = requested.target.as_ref().map(|target| format!(" --target {target}"));
        let what = match requested.names.as_slice() {
            [] => self.recorded.requested.place(),
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
        rows.push(row([&"BUILD", &"STARTED", &"STATUS", &"TOOK", &"STEPS", &"CACHED", &"OF"]));
    }
    for record in records(store)?.iter().take(args.limit.unwrap_or(usize::MAX)) {
        if args.quiet {
            say!("{}", record.id);
            continue;
        }
        // A build that ends meanwhile may forget the oldest.
        let Some(build) = Build::read_if_there(record, Logs::Skip)? else { continue };
        if args.json {
            stdout::json_line(&document::of(&build));
            continue;
        }
        let (n_steps, n_cached) = build.recorded.counts();
        let took = build.took_s().map(seconds).unwrap_or_default();
        let when = ago(now_s.saturating_sub(record.started_s));
        let of = shown(&build.subject(), false).into_owned();
        rows.push(row([&build.id, &when, &build.status(), &took, &n_steps, &n_cached, &of]));
    }
    table::lines(&rows).iter().for_each(|line| say!("{line}"));
    Ok(())
}

fn show(store: &Store, args: &ShowArgs, now_s: i64) -> Result<()> {
    let record = one(store, &args.which)?;
    if args.json {
        return events(&record);
    }
    if let Some(path) = &args.report {
        let Build { id, is_running, recorded } = Build::read(&record, Logs::Ends)?;
        let status = recorded.status(is_running);
        let (id, store) = (Some(id.as_str()), Some(store));
        return Report { id, status, recorded: &recorded, store }.write(path);
    }
    let build = Build::read(&record, Logs::Skip)?;
    say!("{}", build.headline(now_s));
    build.facts().iter().for_each(|line| say!("{}", shown(line, false)));
    build.steps().iter().for_each(|line| say!("{}", shown(line, false)));
    build.complaints().iter().for_each(|line| say!("{}", shown(line, false)));
    Ok(())
}

/// What the store has of it, as it is there.
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

impl Build {
    fn facts(&self) -> Vec<String> {
        let requested = &self.recorded.requested;
        let mut facts = vec![("context", self.recorded.requested.place())];
        let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
        add("Dockerfile", requested.dockerfile.clone());
        add("target", requested.target.clone());
        let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));
        add("platforms", joined(&requested.platforms));
        add("names", joined(&requested.names));
        if let Some(End::Built { id, layer_bytes, .. }) = &self.recorded.end {
            let n_bytes =
                layer_bytes.map_or(String::new(), |n_bytes| format!(", {}", size(n_bytes)));
            add("image", Some(format!("{id}{n_bytes}")));
        }
        add("sent to", joined(&self.recorded.sent));
        facts.iter().map(|(name, value)| format!("  {name:<12}{value}")).collect()
    }

    fn steps(&self) -> Vec<String> {
        let (n_steps, n_cached) = self.recorded.counts();
        if n_steps == 0 {
            return Vec::new();
        }
        let head = format!("Steps: {n_steps}, of which {n_cached} cached");
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

    fn complaints(&self) -> Vec<String> {
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
        if let Some(End::Failed { text, message, .. }) = &self.recorded.end {
            lines.push(String::new());
            let text = if text.is_empty() { message } else { text };
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

/// How much a step added to the image.
fn layer_size(step: &Step) -> String {
    step.layer.as_ref().map(|(_, bytes)| size(*bytes)).unwrap_or_default()
}

/// How a step ended, as logs say it.
fn end(step: &Step) -> String {
    match step.end {
        Some((Outcome::Done, took)) => seconds(took),
        Some((Outcome::Cached, _)) => "CACHED".to_owned(),
        Some((Outcome::Failed, took)) => format!("ERROR {}", seconds(took)),
        Some((Outcome::Cancelled, _)) => "CANCELED".to_owned(),
        None => "…".to_owned(),
    }
}

fn remove(store: &Store, args: &RmArgs) -> Result<()> {
    let all = records(store)?;
    let doomed: Vec<BuildRecord> = if args.all {
        all.into_iter().filter(|record| !record.is_running()).collect()
    } else {
        let doomed = args.builds.iter().map(|word| chosen(all.clone(), Some(word)));
        doomed.collect::<Result<_>>()?
    };
    for record in &doomed {
        if record.is_running() {
            let text = format!("error: build {} still runs", record.id);
            return Err(CliError::new(text, Exit::Usage));
        }
        let removed = store.build_records().remove(record);
        removed.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        say!("{}", record.id);
    }
    Ok(())
}
