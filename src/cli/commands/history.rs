//! `rbuild history IMAGE`: the history of an image, with the columns of `docker history`. The
//! subcommands about builds are in [`builds`].

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

/// The format version of `--json`. New members do not change it.
const VERSION: u32 = 1;
/// Maximum length of an instruction without `--no-trunc`, in characters.
const SHORT_TEXT: usize = 45;
/// Docker's text for a history entry without an image id. Only the newest entry has one here.
const MISSING: &str = "<missing>";
/// Shown in place of the size of a layer that is not in the store and was never measured.
const REMOTE: &str = "<remote>";

/// A row of the table: one history entry.
struct HistoryRow<'a> {
    id: String,
    entry: &'a History,
    /// Size of the entry's layer; 0 without a layer.
    size: ImageSize,
}

/// Prints the history of an image, or runs a subcommand about builds. Without either, lists builds.
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
    image_history(image, of_image, global, environment)
}

fn image_history(
    name: &str,
    args: &ImageHistoryArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let store = open_store(global, environment)?;
    let selected = find::image(&store, name)?;
    let unreadable = |error: ExportError| CliError::from_error(&error, Exit::Environment);
    let loaded = StoredImages::load(&store, selected.top).map_err(unreadable)?;
    let image = find::for_platform(&loaded, args.platform.as_deref(), name)?;
    let entries =
        entries(&store, &image).map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let mut rows = Vec::new();
    if !args.json && !args.quiet {
        rows.push(row([&"IMAGE", &"CREATED", &"CREATED BY", &"SIZE", &"COMPRESSED", &"COMMENT"]));
    }
    for entry in &entries {
        let id = if args.no_trunc { entry.id.clone() } else { short_id(&entry.id) };
        match (args.quiet, args.json) {
            (true, _) => say!("{id}"),
            (_, true) => stdout::json_line(&entry.json(args, &id, environment.now_s)),
            (_, false) => rows.push(entry.cells(args, &id, environment.now_s)),
        }
    }
    table::lines(&rows).iter().for_each(|line| say!("{line}"));
    Ok(())
}

/// Returns the history entries, newest first as in `docker history`.
fn entries<'a>(store: &Store, image: &'a Image) -> Result<Vec<HistoryRow<'a>>, StoreError> {
    let mut layers = image.layers().iter();
    let mut rows = Vec::new();
    for entry in &image.config().history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let nothing = ImageSize { tar_bytes: Some(0), packed_bytes: None };
        let size = layer.map_or(Ok(nothing), |layer| ImageSize::of_layer(store, layer))?;
        rows.push(HistoryRow { id: MISSING.to_owned(), entry, size });
    }
    if let Some(newest) = rows.last_mut() {
        newest.id = image.config_digest().to_string();
    }
    rows.reverse();
    Ok(rows)
}

fn short_id(id: &str) -> String {
    let hex = id.strip_prefix("sha256:");
    hex.map_or(id.to_owned(), |hex| hex.chars().take(SHORT_ID).collect())
}

impl HistoryRow<'_> {
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
        self.size.tar_bytes.map_or(REMOTE.to_owned(), size)
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
