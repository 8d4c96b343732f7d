//! Logging in and out: credentials are tried, and kept where docker and its like find them.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::auth::{Scope, Secret};
use super::credentials::{MAX_CONFIG_BYTES, keys};
use super::endpoint::Endpoint;
use super::http::{Method, Request};
use super::{Client, RegistryError, helper};
use crate::oci::Reference;
use crate::pathio::{self, PathError};

/// Where credentials were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptIn {
    /// By the credential helper of this name.
    Helper(String),
    /// In `config.json`, as anybody can read them who can read the file.
    File,
}

impl Client {
    /// Asks the registry whether it lets us in; `registry` as in images: `docker.io`, `host:port`.
    ///
    /// # Errors
    /// `Unauthorized` when it does not; `BadOption` when the name is none.
    pub fn check_login(&self, registry: &str) -> Result<(), RegistryError> {
        let name: Reference = format!("{registry}/any").parse().map_err(|_error| {
            let (option, why) = (registry.to_owned(), "it must be a host such as registry.example");
            RegistryError::BadOption { option, why }
        })?;
        let endpoint = Endpoint::of(&name, &self.options);
        self.schedule.run(|| {
            let request = Request::new(Method::Get, endpoint.base.below("v2/"));
            let mut response = self.call(&endpoint, &Scope::none(), registry, request)?;
            if response.status() != 200 {
                return Err(response.into_error(registry));
            }
            response.discard();
            Ok(())
        })
    }
}

/// Keeps credentials for `registry` in the directory of docker's `config.json`, or with the helper that
/// it names.
///
/// # Errors
/// `Credentials`, with the reason.
pub fn keep_login(
    directory: &Path,
    registry: &str,
    user: &str,
    password: &str,
) -> Result<KeptIn, RegistryError> {
    let failed = |why| RegistryError::Credentials { host: registry.to_owned(), why };
    let mut config = ConfigFile::read(directory).map_err(failed)?;
    let key = config.key(registry);
    if let Some(helper) = config.helper(&key) {
        let entry = json!({ "ServerURL": key, "Username": user, "Secret": password });
        helper::store(&helper, entry.to_string().as_bytes()).map_err(failed)?;
        config.auths().insert(key, json!({}));
        config.write(directory).map_err(failed)?;
        return Ok(KeptIn::Helper(helper));
    }
    let packed = Secret::basic(user, password);
    let packed = packed.for_wire().trim_start_matches("Basic ");
    config.auths().insert(key, json!({ "auth": packed }));
    config.write(directory).map_err(failed)?;
    Ok(KeptIn::File)
}

/// Forgets the credentials for `registry`; tells whether there were any.
///
/// # Errors
/// `Credentials`, with the reason.
pub fn forget_login(directory: &Path, registry: &str) -> Result<bool, RegistryError> {
    let failed = |why| RegistryError::Credentials { host: registry.to_owned(), why };
    let mut config = ConfigFile::read(directory).map_err(failed)?;
    let key = config.key(registry);
    if let Some(helper) = config.helper(&key) {
        helper::erase(&helper, key.as_bytes()).map_err(failed)?;
    }
    let mut found = false;
    for key in keys(registry) {
        found |= config.auths().remove(&key).is_some();
    }
    if found {
        config.write(directory).map_err(failed)?;
    }
    Ok(found)
}

/// `config.json` with all that others keep in it.
struct ConfigFile(Map<String, Value>);

impl ConfigFile {
    fn read(directory: &Path) -> Result<Self, String> {
        let path = directory.join("config.json");
        let bytes = match pathio::inside::read_regular(&path, MAX_CONFIG_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(error.to_string()),
        };
        // What serde says may quote the file.
        let value = serde_json::from_slice(&bytes);
        value.map(Self).map_err(|_quotes| format!("{} is no JSON object", path.display()))
    }

    /// The key under which a registry's credentials are, or would be.
    fn key(&self, registry: &str) -> String {
        let mut keys = keys(registry);
        let auths = self.0.get("auths").and_then(Value::as_object);
        let known = keys.iter().position(|key| auths.is_some_and(|auths| auths.contains_key(key)));
        keys.swap_remove(known.unwrap_or(0))
    }

    fn helper(&self, key: &str) -> Option<String> {
        let own = self.0.get("credHelpers").and_then(|helpers| helpers.get(key));
        let name = own.or_else(|| self.0.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The credentials by key.
    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths.as_object_mut().expect("it was just made one")
    }

    /// Replaces the file at once; only its owner can read it.
    fn write(&self, directory: &Path) -> Result<(), String> {
        let (path, draft) = (directory.join("config.json"), directory.join(".config.json.rbuild"));
        let text = format!("{:#}\n", Value::Object(self.0.clone()));
        let write = || -> Result<(), PathError> {
            pathio::create_dir_all(directory)?;
            // One that was left behind may be readable for others.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::registry::credentials::{Credential, Credentials};

    #[test]
    fn what_is_kept_is_found_and_what_others_keep_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        pathio::write(&file, br#"{"HttpHeaders":{"X":"y"},"auths":{"a.example":{"auth":"x"}}}"#)
            .unwrap();
        for registry in ["docker.io", "b.example:5000", "a.example"] {
            assert_eq!(keep_login(directory.path(), registry, "u", "p:q").unwrap(), KeptIn::File);
            let found = Credentials::new(Some(directory.path().to_owned())).of(registry).unwrap();
            let (user, password) = ("u".to_owned(), "p:q".to_owned());
            assert_eq!(found, Some(Credential::Password { user, password }), "{registry}");
        }
        let text = pathio::read_to_string(&file, 10_000).unwrap();
        assert!(text.contains("HttpHeaders") && text.contains("https://index.docker.io/v1/"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(forget_login(directory.path(), "docker.io").unwrap());
        assert!(!forget_login(directory.path(), "docker.io").unwrap());
        let found = Credentials::new(Some(directory.path().to_owned())).of("docker.io").unwrap();
        assert_eq!(found, None);
    }

    #[test]
    fn a_file_that_is_no_config_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        pathio::write(&file, b"[\"secret\"]").unwrap();
        let error = keep_login(directory.path(), "a.example", "u", "p").unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("is no JSON object") && !text.contains("secret"), "{text}");
        assert_eq!(pathio::read(&file, 100).unwrap(), b"[\"secret\"]");
    }
}
