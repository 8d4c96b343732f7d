//! Login and logout: checks credentials, and stores them where docker and compatible tools find
//! them.

use std::path::Path;

use serde_json::json;

use super::auth::{Scope, Secret};
use super::config_file::ConfigFile;
use super::credentials::keys;
use super::endpoint::Endpoint;
use super::http::{Method, Request};
use super::{Client, RegistryError, credential_helper};
use crate::oci::Reference;

/// The store that a credential was written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialStore {
    /// The credential helper of this name.
    Helper(String),
    /// `config.json`, unencrypted: whoever can read the file can read them.
    File,
}

/// Checks the client's credentials at `registry`, named as in images: `docker.io`, `host:port`.
///
/// # Errors
/// [`RegistryError::Unauthorized`] if they are rejected; [`RegistryError::BadOption`] if the
/// name is invalid; errors of the connection.
pub fn check_login(client: &Client, registry: &str) -> Result<(), RegistryError> {
    let name: Reference = format!("{registry}/any").parse().map_err(|_error| {
        let (option, why) = (registry.to_owned(), "it must be a host such as registry.example");
        RegistryError::BadOption { option, why }
    })?;
    let endpoint = Endpoint::of(&name, &client.options);
    client.retry_policy.run(|| {
        let request = Request::new(Method::Get, endpoint.base.below("v2/"));
        let mut response = client.call(&endpoint, &Scope::none(), registry, request)?;
        if response.status() != 200 {
            return Err(response.into_error(registry));
        }
        response.discard();
        Ok(())
    })
}

/// Stores credentials for `registry`: with the helper that `config.json` in `directory` names, or
/// in that file.
///
/// # Errors
/// [`RegistryError::Credentials`], with the reason.
pub fn store_login(
    directory: &Path,
    registry: &str,
    user: &str,
    password: &str,
) -> Result<CredentialStore, RegistryError> {
    let failed = |why| RegistryError::Credentials { host: registry.to_owned(), why };
    let mut config = ConfigFile::read(directory).map_err(failed)?;
    let key = config.key(registry);
    if let Some(helper) = config.helper(&key) {
        let entry = json!({ "ServerURL": key, "Username": user, "Secret": password });
        credential_helper::store(&helper, entry.to_string().as_bytes()).map_err(failed)?;
        config.auths().insert(key, json!({}));
        config.write(directory).map_err(failed)?;
        return Ok(CredentialStore::Helper(helper));
    }
    let packed = Secret::basic(user, password);
    let packed = packed.for_wire().trim_start_matches("Basic ");
    config.auths().insert(key, json!({ "auth": packed }));
    config.write(directory).map_err(failed)?;
    Ok(CredentialStore::File)
}

/// Erases the credentials for `registry`. Returns whether there were any.
///
/// # Errors
/// [`RegistryError::Credentials`], with the reason.
pub fn erase_login(directory: &Path, registry: &str) -> Result<bool, RegistryError> {
    let failed = |why| RegistryError::Credentials { host: registry.to_owned(), why };
    let mut config = ConfigFile::read(directory).map_err(failed)?;
    let key = config.key(registry);
    if let Some(helper) = config.helper(&key) {
        credential_helper::erase(&helper, key.as_bytes()).map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::pathio;
    use crate::registry::credentials::{Credential, in_config};

    #[test]
    fn stored_logins_are_found_and_other_members_stay() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        pathio::write(&file, br#"{"HttpHeaders":{"X":"y"},"auths":{"a.example":{"auth":"x"}}}"#)
            .unwrap();
        for registry in ["docker.io", "b.example:5000", "a.example"] {
            assert_eq!(
                store_login(directory.path(), registry, "u", "p:q").unwrap(),
                CredentialStore::File
            );
            let bytes = pathio::read(&file, 10_000).unwrap();
            let (user, password) = ("u".to_owned(), "p:q".to_owned());
            let want = Some(Credential::Password { user, password });
            assert_eq!(in_config(&bytes, "", registry), Ok(want), "{registry}");
        }
        let text = pathio::read_to_string(&file, 10_000).unwrap();
        assert!(text.contains("HttpHeaders") && text.contains("https://index.docker.io/v1/"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(erase_login(directory.path(), "docker.io").unwrap());
        assert!(!erase_login(directory.path(), "docker.io").unwrap());
        let bytes = pathio::read(&file, 10_000).unwrap();
        assert_eq!(in_config(&bytes, "", "docker.io"), Ok(None));
    }

    #[test]
    fn file_that_is_not_a_config_stays_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        pathio::write(&file, b"[\"secret\"]").unwrap();
        let error = store_login(directory.path(), "a.example", "u", "p").unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("is not a JSON object") && !text.contains("secret"), "{text}");
        assert_eq!(pathio::read(&file, 100).unwrap(), b"[\"secret\"]");
    }
}
