//! `rbuild images`: lists the images in the store.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CliError, Environment, Exit, Global, open_store_to_free};
use crate::cli::args::inspect::ImagesArgs;
use crate::cli::display::stderr;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::table::{self, row};
use crate::cli::display::template::{self, Fields, ListFormat};
use crate::cli::images::image_size::ImageSize;
use crate::cli::images::image_view::time_s;
use crate::diag::size;
use crate::image::{Image, StoredImages};
use crate::oci::{Digest, Reference};
use crate::store::{Store, StoreError, Tag};
use crate::tree::glob::{DoubleStar, Glob};

/// Length of an abbreviated id, in hex digits.
pub(super) const SHORT_ID: usize = 12;
/// The format version of `--json`. New members do not change it.
const VERSION: u32 = 1;
/// Docker's text for an image without a creation time.
const NO_TIME: &str = "N/A";

/// The members of the JSON object of an image. They are also the fields of templates.
const FIELDS: [&str; 14] = [
    "ID",
    "Name",
    "Repository",
    "Tag",
    "Digest",
    "Platforms",
    "CreatedSince",
    "CreatedAt",
    "Size",
    "PackedSize",
    "SizeBytes",
    "PackedSizeBytes",
    "IsIndex",
    "Version",
];

/// A row of the list: an image name and its image.
struct ImageRow {
    /// The name as stored.
    text: String,
    /// The parsed name; `None` if this version of rbuild cannot parse it.
    name: Option<Reference>,
    top: Digest,
    summary: ImageSummary,
}

/// Id, size, creation time and platforms of an image.
struct ImageSummary {
    /// Digest of the config; for several platforms, digest of the index.
    id: Digest,
    is_index: bool,
    size: ImageSize,
    /// Creation time as RFC 3339; the latest one for several platforms.
    created: Option<String>,
    platforms: Vec<String>,
}

/// Prints the images that match the name, as a table, ids, JSON lines or a template.
pub(crate) fn run(
    args: &ImagesArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    let form = match &args.format {
        _ if args.json => ListFormat::Json,
        Some(text) => ListFormat::parse(text, &FIELDS).map_err(usage)?,
        None => ListFormat::Table,
    };
    let filter = args.name.as_deref().map(NameFilter::parse).transpose().map_err(usage)?;
    let store = open_store_to_free(global, environment)?;
    let failed = |error: StoreError| CliError::from_error(&error, Exit::Environment);
    let mut tags = store.tags().all().map_err(failed)?;
    tags.retain(|tag| filter.as_ref().is_none_or(|filter| filter.matches(tag)));
    let mut rows = Vec::with_capacity(tags.len());
    for Tag { name: text, manifest: top, .. } in tags {
        let summary = ImageSummary::of(&store, top, &text)?;
        rows.push(ImageRow { name: text.parse().ok(), text, top, summary });
    }
    if args.quiet {
        rows.iter().for_each(|row| say!("{}", row.id(args.no_trunc)));
        return Ok(());
    }
    let fields = || rows.iter().map(|row| row.fields(args.no_trunc, environment.now_s));
    match form {
        ListFormat::Json => fields().for_each(|fields| stdout::json_line(&Value::Object(fields))),
        ListFormat::Table => table(&rows, args.no_trunc, environment.now_s),
        ListFormat::Template { parts, has_head } => {
            let fields: Vec<Fields> = fields().collect();
            template::lines(&parts, has_head, &fields).iter().for_each(|line| say!("{line}"));
        }
    }
    Ok(())
}

fn table(images: &[ImageRow], no_trunc: bool, now_s: i64) {
    let mut rows = vec![row([&"NAME", &"ID", &"CREATED", &"SIZE", &"COMPRESSED"])];
    for image in images {
        let ImageSummary { size, .. } = &image.summary;
        let (tar, packed) = (known(size.tar_bytes), known(size.packed_bytes));
        let (name, id) = (image.familiar(), image.id(no_trunc));
        rows.push(row([&name, &id, &image.summary.created_since(now_s), &tar, &packed]));
    }
    table::lines(&rows).iter().for_each(|line| say!("{line}"));
}

/// Prints a warning that the size of an image cannot be determined, and returns an unknown size.
pub(super) fn unknown_size(name: &str, error: &dyn Error) -> ImageSize {
    let why = crate::executor::chain(error);
    stderr::remark(&format!("warning: cannot determine the size of {name}: {why}"));
    ImageSize::default()
}

/// Formats a size; `-` if it is unknown.
pub(super) fn known(n_bytes: Option<u64>) -> String {
    n_bytes.map_or("-".to_owned(), size)
}

impl ImageSummary {
    /// Reads the summary of an image. If a layer cannot be measured, prints a warning, and the size is
    /// unknown.
    ///
    /// # Errors
    /// [`Exit::Environment`] if the manifest or config is missing or damaged.
    fn of(store: &Store, top: Digest, name: &str) -> Result<Self, CliError> {
        let loaded = StoredImages::load(store, top)
            .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        let id = match loaded.images.as_slice() {
            [only] if !loaded.is_index => only.config_digest(),
            _ => top,
        };
        let size =
            ImageSize::of(store, &loaded.images).unwrap_or_else(|error| unknown_size(name, &error));
        let created = loaded.images.iter().filter_map(Image::created).max().map(str::to_owned);
        let platforms = loaded.images.iter().map(|image| image.platform().to_string()).collect();
        Ok(Self { id, is_index: loaded.is_index, size, created, platforms })
    }

    fn created_since(&self, now_s: i64) -> String {
        let created_s = self.created.as_deref().and_then(time_s);
        created_s.map_or(NO_TIME.to_owned(), |created_s| ago(now_s.saturating_sub(created_s)))
    }
}

impl ImageRow {
    fn familiar(&self) -> String {
        self.name.as_ref().map_or_else(|| self.text.clone(), Reference::familiar)
    }

    fn id(&self, no_trunc: bool) -> String {
        let id = self.summary.id;
        if no_trunc { id.to_string() } else { id.hex().chars().take(SHORT_ID).collect() }
    }

    fn fields(&self, no_trunc: bool, now_s: i64) -> Fields {
        let ImageSummary { size, created, platforms, is_index, .. } = &self.summary;
        let familiar = self.familiar();
        let tag = self.name.as_ref().and_then(Reference::tag);
        let repository = tag.and_then(|tag| familiar.strip_suffix(&format!(":{tag}")));
        let fields = json!({
            "Version": VERSION,
            "ID": self.id(no_trunc),
            "Name": self.text,
            "Repository": repository.unwrap_or(&familiar),
            "Tag": tag,
            "Digest": self.top,
            "IsIndex": is_index,
            "Platforms": platforms,
            "CreatedAt": created,
            "CreatedSince": self.summary.created_since(now_s),
            "Size": known(size.tar_bytes),
            "SizeBytes": size.tar_bytes,
            "PackedSize": known(size.packed_bytes),
            "PackedSizeBytes": size.packed_bytes,
        });
        fields.as_object().cloned().unwrap_or_default()
    }
}

/// Selects names: all tags of a repository, one tag, or the names that match a pattern.
#[derive(Debug)]
enum NameFilter {
    Repository(String),
    Name(String),
    /// A glob, matched against the name with and without its tag.
    Pattern(Glob),
}

impl NameFilter {
    fn parse(text: &str) -> Result<Self, String> {
        if crate::tree::glob::has_wildcard(text) {
            let pattern = Glob::new(text, DoubleStar::AsSingle);
            return pattern.map(Self::Pattern).map_err(|error| format!("{text}: {error}"));
        }
        let name = text.parse::<Reference>().map_err(|error| error.to_string())?;
        let is_whole = name.digest().is_some() || crate::cli::outputs::output::has_tag(text);
        Ok(if is_whole { Self::Name(name.to_string()) } else { Self::Repository(name.name()) })
    }

    fn matches(&self, tag: &Tag) -> bool {
        let name = tag.name.parse::<Reference>().ok();
        match self {
            Self::Name(wanted) => tag.name == *wanted,
            Self::Repository(wanted) => name.is_some_and(|name| name.name() == *wanted),
            Self::Pattern(pattern) => name.is_some_and(|name| {
                let familiar = name.familiar();
                let end = name.tag().map_or(familiar.len(), |tag| familiar.len() - tag.len() - 1);
                let repository = familiar.get(..end).unwrap_or(&familiar);
                [&*familiar, repository].iter().any(|text| pattern.matches(text.as_bytes()))
            }),
        }
    }
}

/// Formats an age in its largest unit, rounded down: `3 minutes ago`.
pub(super) fn ago(seconds: i64) -> String {
    let age = Duration::from_secs(seconds.try_into().unwrap_or(0)).as_secs();
    let units = [
        ("year", 31_536_000),
        ("month", 2_592_000),
        ("week", 604_800),
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ];
    for (unit, length) in units {
        let n = age / length;
        if n > 0 {
            let plural = if n == 1 { "" } else { "s" };
            return format!("{n} {unit}{plural} ago");
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_rounded_down() {
        for (seconds, want) in [
            (-5, "just now"),
            (60, "1 minute ago"),
            (7_300, "2 hours ago"),
            (1_209_600, "2 weeks ago"),
        ] {
            assert_eq!(ago(seconds), want);
        }
    }

    #[test]
    fn names_are_filtered_by_repository_tag_or_pattern() {
        let names = ["docker.io/library/a:1", "docker.io/library/a:2", "h:5/x/a:1"];
        for (text, want) in [
            ("a", &names[..2]),
            ("a:2", &names[1..2]),
            ("docker.io/library/a", &names[..2]),
            ("h:5/x/a", &names[2..]),
            ("a:*", &names[..2]),
            ("*", &names[..2]),
            ("h:5/*/a", &names[2..]),
            ("b", &[]),
        ] {
            let filter = NameFilter::parse(text).unwrap();
            let manifest = Digest::of(b"");
            let tag = |name: &str| Tag { name: name.to_owned(), manifest, updated_s: 0 };
            let got: Vec<&str> =
                names.into_iter().filter(|name| filter.matches(&tag(name))).collect();
            assert_eq!(got, want, "{text}");
        }
        assert!(NameFilter::parse("A").is_err());
        assert!(NameFilter::parse("[").is_err());
    }
}
