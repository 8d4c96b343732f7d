//! `rbuild imagetools inspect`: an image or index of a registry, with docker's text and templates.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::shapes::{DESCRIPTOR, IMAGE, INDEX, ROOT};
use super::{CliError, Environment, Exit, failed, reference, usage, with_client};
use crate::cli::args::imagetools::RemoteInspectArgs;
use crate::cli::display::go_template::{GoTemplate, Shape, Value};
use crate::cli::display::stdout;
use crate::cli::display::text::shown;
use crate::image::ExportError;
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_IMAGES_AT_ONCE, MAX_INDEX_DEPTH};
use crate::oci::{EntryPlatform, IndexDocument, IndexEntry, Manifest, MediaType, Reference};
use crate::pool;
use crate::registry::{Client, FetchedManifest, RegistryError};

/// Annotations whose value is the digest of the image that an entry describes, so it is not an image.
const REFERENCES: [&str; 2] = ["vnd.docker.reference.digest", "in-toto.io/subject-digest"];
const NO_ATTESTATIONS: &str = "rbuild does not read attestations";

/// Prints the document, its summary, or a template.
pub(super) fn run(args: &RemoteInspectArgs, environment: &Environment) -> Result<(), CliError> {
    let name = reference(&args.name)?;
    let template = match args.format.as_deref().filter(|format| !is_summary(format)) {
        Some(text) => {
            Some(GoTemplate::parse(text).map_err(|why| usage(format!("--format: {why}")))?)
        }
        None => None,
    };
    with_client(environment, |registry| {
        let failed = |source| failed(ExportError::Remote { name: name.familiar(), source });
        let fetched = registry.manifest(&name).map_err(failed)?;
        if args.raw {
            stdout::bytes(&fetched.bytes);
            return Ok(());
        }
        let document = RemoteDocument { name: &name, fetched: &fetched };
        let Some(template) = &template else {
            stdout::print(format_args!("{}", document.summary()?.trim_end_matches('\n')));
            return Ok(());
        };
        let dot = document.value(registry, &args.name)?;
        let text = template.fill(&dot).map_err(|why| usage(format!("--format: {why}")))?;
        // No line end is added, as docker does.
        let lines: Vec<_> = text.split('\n').map(|line| shown(line, false)).collect();
        stdout::bytes(lines.join("\n").as_bytes());
        Ok(())
    })
}

/// Returns whether a template is the one that docker replaces by the summary.
fn is_summary(format: &str) -> bool {
    let inner = format.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    inner.is_none_or(str::is_empty) && format.trim().is_empty()
        || inner.is_some_and(|inner| inner.trim() == ".Manifest")
}

/// A manifest or index of a registry.
struct RemoteDocument<'a> {
    name: &'a Reference,
    fetched: &'a FetchedManifest,
}

impl RemoteDocument<'_> {
    fn invalid(&self, why: impl std::fmt::Display) -> CliError {
        let text = format!("error: the manifest of {} is not valid: {why}", self.name.familiar());
        CliError::new(text, Exit::Environment)
    }

    fn is_index(&self) -> bool {
        matches!(self.fetched.media_type, MediaType::OciIndex | MediaType::DockerIndex)
    }

    fn index(&self) -> Result<IndexDocument, CliError> {
        serde_json::from_slice(&self.fetched.bytes).map_err(|error| self.invalid(error))
    }

    /// Returns docker's summary: columns as Go's `tabwriter` aligns them.
    fn summary(&self) -> Result<String, CliError> {
        let FetchedManifest { digest, media_type, .. } = self.fetched;
        let mut text = columns(&[
            ("Name:", self.name.to_string()),
            ("MediaType:", media_type.to_string()),
            ("Digest:", digest.to_string()),
        ]);
        if !self.is_index() {
            return Ok(text);
        }
        text += &columns(&[("", String::new()), ("Manifests:", String::new())]);
        let tag = self.name.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
        let named = format!("{}{tag}", self.name.name());
        let mut rows = Vec::new();
        for (n, entry) in self.index()?.manifests.iter().enumerate() {
            if n > 0 {
                rows.push(("", String::new()));
            }
            rows.push(("  Name:", format!("{named}@{}", entry.digest)));
            rows.push(("  MediaType:", entry.media_type.to_string()));
            let Some(platform) = &entry.platform else { continue };
            rows.extend(platform_rows(platform));
            if !entry.urls.is_empty() {
                rows.push(("  URLs:", entry.urls.join(", ")));
            }
            if !entry.annotations.is_empty() {
                rows.push(("  Annotations:", String::new()));
                text += &columns(&std::mem::take(&mut rows));
                let keys: Vec<String> =
                    entry.annotations.keys().map(|key| format!("    {key}:")).collect();
                let values = entry.annotations.values().cloned();
                let lines: Vec<(&str, String)> =
                    keys.iter().map(String::as_str).zip(values).collect();
                text += &columns(&lines);
            }
        }
        text += &columns(&rows);
        Ok(text)
    }

    /// Returns the value of `.` in a template. `typed` is the name on the command line.
    fn value(&self, registry: &Client, typed: &str) -> Result<Value, CliError> {
        let bad = |why: String| self.invalid(why);
        let size = self.fetched.bytes.len();
        let mut document = serde_json::Map::new();
        let mut images = BTreeMap::new();
        let shape = if self.is_index() {
            let bytes = &self.fetched.bytes;
            document = serde_json::from_slice(bytes).map_err(|error| self.invalid(error))?;
            self.images_of_index(registry, &self.index()?, &mut images, 0)?;
            Shape::Struct(&INDEX)
        } else {
            let media_type = self.fetched.media_type.to_string();
            document.insert("mediaType".to_owned(), Json::String(media_type));
            if self.fetched.media_type.is_manifest() {
                let config = self.config(registry, &self.fetched.bytes)?;
                images.insert(platform_of(&config), config);
            }
            Shape::Struct(&DESCRIPTOR)
        };
        document.insert("digest".to_owned(), Json::String(self.fetched.digest.to_string()));
        document.insert("size".to_owned(), Json::from(size));
        let manifest = Value::from_json(&Json::Object(document), shape).map_err(bad)?;
        let config = |json: &Json| Value::from_json(json, Shape::Pointer(&IMAGE));
        let image = if images.len() > 1 {
            let configs = images.iter().map(|(key, json)| Ok((key.clone(), config(json)?)));
            Value::Map(configs.collect::<Result<_, String>>().map_err(bad)?)
        } else {
            images.values().next().map_or(Ok(Value::Nil("<nil>")), config).map_err(bad)?
        };
        let values = [
            Value::Text(typed.to_owned()),
            manifest,
            image,
            Value::Unavailable(NO_ATTESTATIONS),
            Value::Unavailable(NO_ATTESTATIONS),
        ];
        Ok(Value::Struct(ROOT.into_iter().zip(values).collect()))
    }

    /// Reads the configs of the images that an index lists, by platform.
    fn images_of_index(
        &self,
        registry: &Client,
        index: &IndexDocument,
        images: &mut BTreeMap<String, Json>,
        depth: usize,
    ) -> Result<(), CliError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(self.invalid(format!("it is nested more than {MAX_INDEX_DEPTH} deep")));
        }
        let is_read = |entry: &&IndexEntry| {
            let refers = REFERENCES.iter().any(|key| entry.annotations.contains_key(*key));
            let is_index = matches!(entry.media_type, MediaType::OciIndex | MediaType::DockerIndex);
            is_index || (entry.media_type.is_manifest() && !refers)
        };
        let entries: Vec<&IndexEntry> = index.manifests.iter().filter(is_read).collect();
        let read = pool::map_in_order(&entries, MAX_IMAGES_AT_ONCE, |entry| {
            let fetched = self.fetch(registry, entry)?;
            if !entry.media_type.is_manifest() {
                return Ok((None, fetched.bytes));
            }
            let config = self.config(registry, &fetched.bytes)?;
            let platform = entry.platform.as_ref().map(|it| it.normalized().to_string());
            let platform = platform.unwrap_or_else(|| platform_of(&config));
            Ok::<_, CliError>((Some((platform, config)), Vec::new()))
        });
        for one in read {
            match one? {
                (Some((platform, config)), _) => drop(images.insert(platform, config)),
                (None, bytes) => {
                    let inner: IndexDocument =
                        serde_json::from_slice(&bytes).map_err(|error| self.invalid(error))?;
                    self.images_of_index(registry, &inner, images, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn fetch(&self, registry: &Client, entry: &IndexEntry) -> Result<FetchedManifest, CliError> {
        let name = self.name.with_digest(entry.digest);
        let failed = |source| failed(ExportError::Remote { name: name.to_string(), source });
        registry.manifest(&name).map_err(failed)
    }

    /// Reads the config of an image.
    fn config(&self, registry: &Client, manifest: &[u8]) -> Result<Json, CliError> {
        let failed = |source| failed(ExportError::Remote { name: self.name.familiar(), source });
        let manifest: Manifest =
            serde_json::from_slice(manifest).map_err(|error| self.invalid(error))?;
        let what = || format!("the config of {}", self.name.familiar());
        if manifest.config.size > MAX_DOCUMENT_BYTES {
            let max_bytes = MAX_DOCUMENT_BYTES;
            return Err(failed(RegistryError::TooLarge { what: what(), max_bytes }));
        }
        let mut bytes = Vec::new();
        let pulled = registry.pull_blob(self.name, &manifest.config, &mut bytes, &|_more| {});
        pulled.map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|error| self.invalid(format!("{}: {error}", what())))
    }
}

fn platform_rows(platform: &EntryPlatform) -> Vec<(&'static str, String)> {
    let mut rows = vec![("  Platform:", platform.normalized().to_string())];
    rows.extend(platform.os_version.clone().map(|version| ("  OSVersion:", version)));
    if !platform.os_features.is_empty() {
        rows.push(("  OSFeatures:", platform.os_features.join(", ")));
    }
    rows
}

/// Returns the platform in a config.
fn platform_of(config: &Json) -> String {
    let platform: EntryPlatform = serde_json::from_value(config.clone()).unwrap_or_default();
    platform.normalized().to_string()
}

/// Returns lines of two columns, padded as Go's `tabwriter` does: also before an empty cell.
fn columns(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:width$}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_replaces_the_template_of_the_manifest() {
        for text in ["", " ", "{{.Manifest}}", " {{ .Manifest }} "] {
            assert!(is_summary(text), "{text}");
        }
        for text in ["{{json .Manifest}}", "{{.Manifest.Digest}}", "{{.Name}}", "x {{.Manifest}}"] {
            assert!(!is_summary(text), "{text}");
        }
    }
}
