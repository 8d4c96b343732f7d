//! docker's `config.json`, as rbuild changes it: by `login`, `logout` and `docker-plugin`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::credentials::{MAX_CONFIG_BYTES, keys};
use crate::pathio::{self, PathError};

/// The member of `aliases` that names the plugin behind `docker build` and `docker builder`
/// (<https://github.com/docker/cli/blob/v28.5.2/cmd/docker/aliases.go>).
const BUILDER: &str = "builder";

/// docker's `config.json` cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigFileError(String);

/// Returns the plugin that docker's client runs for `docker build`; `None` for its default.
///
/// # Errors
/// If the file exists and is not a JSON object.
pub fn builder_alias(directory: &Path) -> Result<Option<String>, ConfigFileError> {
    let config = ConfigFile::read(directory).map_err(ConfigFileError)?;
    let alias = config.0.get("aliases").and_then(|aliases| aliases.get(BUILDER));
    Ok(alias.and_then(Value::as_str).map(str::to_owned))
}

/// Sets or removes the plugin that docker's client runs for `docker build`. Other members stay.
///
/// # Errors
/// If the file is not a JSON object or cannot be written.
pub fn set_builder_alias(directory: &Path, plugin: Option<&str>) -> Result<(), ConfigFileError> {
    let mut config = ConfigFile::read(directory).map_err(ConfigFileError)?;
    let aliases = config.0.entry("aliases").or_insert_with(|| json!({}));
    let Some(aliases) = aliases.as_object_mut() else {
        return Err(ConfigFileError("`aliases` of docker's config.json is not an object".into()));
    };
    match plugin {
        Some(plugin) => drop(aliases.insert(BUILDER.to_owned(), json!(plugin))),
        None => drop(aliases.remove(BUILDER)),
    }
    if aliases.is_empty() {
        config.0.remove("aliases");
    }
    config.write(directory).map_err(ConfigFileError)
}

/// `config.json` with all members, unknown ones included.
pub(super) struct ConfigFile(Map<String, Value>);

impl ConfigFile {
    /// Reads the file in `directory`; a missing one is empty.
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        let path = directory.join("config.json");
        let bytes = match pathio::inside::read_regular(&path, MAX_CONFIG_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(error.to_string()),
        };
        // A message of serde may quote the file.
        let value = serde_json::from_slice(&bytes);
        value.map(Self).map_err(|_quotes| format!("{} is not a JSON object", path.display()))
    }

    /// Returns the key of a registry's credentials: the existing one, or else the preferred one.
    pub(super) fn key(&self, registry: &str) -> String {
        let mut keys = keys(registry);
        let auths = self.0.get("auths").and_then(Value::as_object);
        let known = keys.iter().position(|key| auths.is_some_and(|auths| auths.contains_key(key)));
        keys.swap_remove(known.unwrap_or(0))
    }

    /// Returns the name of the credential helper for a key.
    pub(super) fn helper(&self, key: &str) -> Option<String> {
        let own = self.0.get("credHelpers").and_then(|helpers| helpers.get(key));
        let name = own.or_else(|| self.0.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Returns the member `auths`: credentials by key.
    pub(super) fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths.as_object_mut().expect("it was just made one")
    }

    /// Replaces the file atomically, readable by its owner only.
    pub(super) fn write(&self, directory: &Path) -> Result<(), String> {
        let (path, draft) = (directory.join("config.json"), directory.join(".config.json.rbuild"));
        let text = format!("{:#}\n", Value::Object(self.0.clone()));
        let write = || -> Result<(), PathError> {
            pathio::create_dir_all(directory)?;
            // A leftover draft may be readable for others.
            let _gone = pathio::remove_file(&draft);
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let failed = |error| PathError::new("write", &draft, error);
            let mut file = options.open(&draft).map_err(failed)?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            pathio::rename(&draft, &path)
        };
        write().map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    }
}
