//! `rbuild history IMAGE`: how an image came to be, in docker's words. Builds are [`builds`]'.

use std::time::UNIX_EPOCH;

use serde_json::json;

use super::images::{SHORT_ID, ago, known};
use super::{CliError, Environment, Exit, Global, builds, find, open_store};
use crate::cli::args::history::{HistoryArgs, HistoryCommand, ImageHistoryArgs, ListArgs};
use crate::cli::display::stdout::{self, say};
use crate::cli::display::table::{self, row};
use crate::cli::display::text::has_effect;
use crate::cli::images::config_text::one_line;
use crate::cli::images::image_size::ImageSize;
use crate::diag::size;
use crate::image::{ExportError, Image, StoredImages};
use crate::oci::History;
use crate::store::{Store, StoreError};

/// The version of the JSON form; members may be added without a new one.
const VERSION: u32 = 1;
/// Characters of an instruction that are shown.
const SHORT_TEXT: usize = 45;
/// What docker writes where an entry has no image of its own: ours never have.
const MISSING: &str = "<missing>";
/// Stands for the size of a layer that is elsewhere and was never measured.
const ELSEWHERE: &str = "<remote>";

/// One line.
struct Line<'a> {
    id: String,
    entry: &'a History,
    /// Its layer's, as `inspect` has it; 0 without a layer.
    size: ImageSize,
}

pub(crate) fn run(
    args: &HistoryArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let HistoryArgs { builds, of_image } = args;
    if let Some(command) = builds {
        return builds::history(command, global, environment);
    }
    let Some(image) = &of_image.image else {
        let (json, quiet) = (of_image.json, of_image.quiet);
        let command = HistoryCommand::Ls(ListArgs { json, quiet, limit: None });
        return builds::history(&command, global, environment);
    };
    of(image, of_image, global, environment)
}

fn of(
    name: &str,
    args: &ImageHistoryArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let store = open_store(global, environment)?;
    let chosen = find::image(&store, name)?;
    let unreadable = |error: ExportError| CliError::from_error(&error, Exit::Environment);
    let loaded = StoredImages::load(&store, chosen.top).map_err(unreadable)?;
    let image = find::one(&loaded, args.platform.as_deref(), name)?;
    let lines =
        lines(&store, &image).map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let mut rows = Vec::new();
    if !args.json && !args.quiet {
        rows.push(row([&"IMAGE", &"CREATED", &"CREATED BY", &"SIZE", &"PACKED", &"COMMENT"]));
    }
    for line in &lines {
        let id = if args.no_trunc { line.id.clone() } else { short_id(&line.id) };
        match (args.quiet, args.json) {
            (true, _) => say!("{id}"),
            (_, true) => stdout::json_line(&line.json(args, &id, environment.now_s)),
            (_, false) => rows.push(line.cells(args, &id, environment.now_s)),
        }
    }
    table::lines(&rows).iter().for_each(|line| say!("{line}"));
    Ok(())
}

/// The newest entry first, as docker shows them.
fn lines<'a>(store: &Store, image: &'a Image) -> Result<Vec<Line<'a>>, StoreError> {
    let mut layers = image.layers().iter();
    let mut lines = Vec::new();
    for entry in &image.config().history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let nothing = ImageSize { tar_bytes: Some(0), packed_bytes: None };
        let size = layer.map_or(Ok(nothing), |layer| ImageSize::of_layer(store, layer))?;
        lines.push(Line { id: MISSING.to_owned(), entry, size });
    }
    if let Some(newest) = lines.last_mut() {
        newest.id = image.config_digest().to_string();
    }
    lines.reverse();
    Ok(lines)
}

fn short_id(id: &str) -> String {
    let hex = id.strip_prefix("sha256:");
    hex.map_or(id.to_owned(), |hex| hex.chars().take(SHORT_ID).collect())
}

impl Line<'_> {
    fn created_s(&self) -> Option<i64> {
        let time = humantime::parse_rfc3339_weak(self.entry.created.as_deref()?).ok()?;
        i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
    }

    fn created_since(&self, now_s: i64) -> String {
        self.created_s().map_or("N/A".to_owned(), |created_s| ago(now_s.saturating_sub(created_s)))
    }

    fn created_by(&self, args: &ImageHistoryArgs) -> String {
        let text = self.entry.created_by.as_deref().unwrap_or_default();
        let text: String = text.chars().map(|c| if has_effect(c) { ' ' } else { c }).collect();
        if args.no_trunc || text.chars().count() <= SHORT_TEXT {
            return text;
        }
        let kept: String = text.chars().take(SHORT_TEXT - 1).collect();
        format!("{kept}…")
    }

    fn size(&self) -> String {
        self.size.tar_bytes.map_or(ELSEWHERE.to_owned(), size)
    }

    fn cells(&self, args: &ImageHistoryArgs, id: &str, now_s: i64) -> Vec<String> {
        let comment = self.entry.comment.as_deref().unwrap_or_default();
        let comment = one_line(comment);
        let packed = known(self.size.packed_bytes);
        let (since, by) = (self.created_since(now_s), self.created_by(args));
        row([&id, &since, &by, &self.size(), &packed, &comment])
    }

    fn json(&self, args: &ImageHistoryArgs, id: &str, now_s: i64) -> serde_json::Value {
        json!({
            "Version": VERSION,
            "ID": id,
            "CreatedAt": self.entry.created,
            "CreatedSince": self.created_since(now_s),
            "CreatedBy": self.created_by(args),
            "Size": self.size(),
            "SizeBytes": self.size.tar_bytes,
            "PackedSizeBytes": self.size.packed_bytes,
            "Comment": self.entry.comment.as_deref().unwrap_or_default(),
        })
    }
}
