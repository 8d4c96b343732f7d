//! `rbuild images`

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CliError, Environment, Exit, Global, open_store_to_free};
use crate::cli::args::inspect::ImagesArgs;
use crate::cli::display::stderr;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::table::{self, row};
use crate::cli::display::template::{self, Fields, Form};
use crate::cli::images::image_size::ImageSize;
use crate::cli::images::image_view::time_s;
use crate::diag::size;
use crate::image::{Image, StoredImages};
use crate::oci::{Digest, Reference};
use crate::store::{Store, StoreError, Tag};
use crate::tree::glob::{DoubleStar, Glob};

/// Characters of an id that are shown.
pub(super) const SHORT_ID: usize = 12;
/// The version of the JSON form; members may be added without a new one.
const VERSION: u32 = 1;
/// The time of an image that does not say when it was created, as docker writes it.
const NO_TIME: &str = "N/A";

/// The members of a line as JSON, for templates too.
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

/// A name of an image and what the image is.
struct Line {
    /// As the store has it.
    text: String,
    /// `None` for what another version of rbuild called an image.
    name: Option<Reference>,
    top: Digest,
    facts: Facts,
}

/// One image in a list.
struct Facts {
    /// The config's digest; that of the index for several platforms.
    id: Digest,
    is_index: bool,
    size: ImageSize,
    /// RFC 3339; the latest of several platforms.
    created: Option<String>,
    platforms: Vec<String>,
}

pub(crate) fn run(
    args: &ImagesArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    let form = match &args.format {
        _ if args.json => Form::Json,
        Some(text) => Form::parse(text, &FIELDS).map_err(usage)?,
        None => Form::Table,
    };
    let wanted = args.name.as_deref().map(Wanted::parse).transpose().map_err(usage)?;
    let store = open_store_to_free(global, environment)?;
    let failed = |error: StoreError| CliError::from_error(&error, Exit::Environment);
    let mut tags = store.tags().all().map_err(failed)?;
    tags.retain(|tag| wanted.as_ref().is_none_or(|wanted| wanted.is(tag)));
    let mut lines = Vec::with_capacity(tags.len());
    for Tag { name: text, manifest: top, .. } in tags {
        let facts = Facts::of(&store, top, &text)?;
        lines.push(Line { name: text.parse().ok(), text, top, facts });
    }
    if args.quiet {
        lines.iter().for_each(|line| say!("{}", line.id(args.no_trunc)));
        return Ok(());
    }
    let fields = || lines.iter().map(|line| line.fields(args.no_trunc, environment.now_s));
    match form {
        Form::Json => fields().for_each(|fields| stdout::json_line(&Value::Object(fields))),
        Form::Table => table(&lines, args.no_trunc, environment.now_s),
        Form::Template { parts, has_head } => {
            let fields: Vec<Fields> = fields().collect();
            template::lines(&parts, has_head, &fields).iter().for_each(|line| say!("{line}"));
        }
    }
    Ok(())
}

fn table(lines: &[Line], no_trunc: bool, now_s: i64) {
    let mut rows = vec![row([&"NAME", &"ID", &"CREATED", &"SIZE", &"PACKED"])];
    for line in lines {
        let Facts { size, .. } = &line.facts;
        let (tar, packed) = (known(size.tar_bytes), known(size.packed_bytes));
        let (name, id) = (line.familiar(), line.id(no_trunc));
        rows.push(row([&name, &id, &line.facts.created_since(now_s), &tar, &packed]));
    }
    table::lines(&rows).iter().for_each(|line| say!("{line}"));
}

/// Says why an image has no size.
pub(super) fn unknown_size(name: &str, error: &dyn Error) -> ImageSize {
    let why = crate::executor::chain(error);
    stderr::remark(&format!("warning: the size of {name} is not known: {why}"));
    ImageSize::default()
}

/// A size, or `-` where it is not known.
pub(super) fn known(n_bytes: Option<u64>) -> String {
    n_bytes.map_or("-".to_owned(), size)
}

impl Facts {
    /// Reads what a list says of the image. A layer that cannot be measured has no size, and a remark
    /// on standard error says why.
    ///
    /// # Errors
    /// Damaged or missing documents of the image.
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

impl Line {
    fn familiar(&self) -> String {
        self.name.as_ref().map_or_else(|| self.text.clone(), Reference::familiar)
    }

    fn id(&self, no_trunc: bool) -> String {
        let id = self.facts.id;
        if no_trunc { id.to_string() } else { id.hex().chars().take(SHORT_ID).collect() }
    }

    fn fields(&self, no_trunc: bool, now_s: i64) -> Fields {
        let Facts { size, created, platforms, is_index, .. } = &self.facts;
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
            "CreatedSince": self.facts.created_since(now_s),
            "Size": known(size.tar_bytes),
            "SizeBytes": size.tar_bytes,
            "PackedSize": known(size.packed_bytes),
            "PackedSizeBytes": size.packed_bytes,
        });
        fields.as_object().cloned().unwrap_or_default()
    }
}

/// The names that are listed: those of a repository, one tag of it, or what a pattern fits.
#[derive(Debug)]
enum Wanted {
    Repository(String),
    Name(String),
    /// A shell's pattern over names, and over repositories where it has no tag.
    Pattern(Glob),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        if crate::tree::glob::has_wildcard(text) {
            let pattern = Glob::new(text, DoubleStar::AsSingle);
            return pattern.map(Self::Pattern).map_err(|error| format!("{text}: {error}"));
        }
        let name = text.parse::<Reference>().map_err(|error| error.to_string())?;
        let is_whole = name.digest().is_some() || crate::cli::outputs::output::has_tag(text);
        Ok(if is_whole { Self::Name(name.to_string()) } else { Self::Repository(name.name()) })
    }

    fn is(&self, tag: &Tag) -> bool {
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

/// As in `3 minutes ago`.
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
    fn names_are_chosen_by_repository_tag_or_pattern() {
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
            let wanted = Wanted::parse(text).unwrap();
            let manifest = Digest::of(b"");
            let tag = |name: &str| Tag { name: name.to_owned(), manifest, updated_s: 0 };
            let got: Vec<&str> = names.into_iter().filter(|name| wanted.is(&tag(name))).collect();
            assert_eq!(got, want, "{text}");
        }
        assert!(Wanted::parse("A").is_err());
        assert!(Wanted::parse("[").is_err());
    }
}
