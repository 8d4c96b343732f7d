//! Credentials: docker's `config.json` and files of its form, the credential helpers that they name,
//! then the logins of `cloud`
//! (<https://docs.docker.com/reference/cli/docker/login/#credential-stores>).
//!
//! The `docker_credential` crate would read the file too, but it waits for a helper without limit,
//! shows what a failed helper printed, and does not know `registrytoken`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use base64::Engine as _;
use serde::Deserialize;

use super::cloud::CloudOptions;
use super::endpoint::DOCKER_IO;
use super::http::Http;
use super::options::Options;
use super::{RegistryError, credential_helper};
use crate::pathio;
use crate::pool;

/// Maximum size of `config.json` in bytes.
pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The key of Docker Hub's credentials in `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A credential for a registry or its token server.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// For Basic authentication, at the registry or at its token server.
    Password { user: String, password: String },
    /// An OAuth2 refresh token, for a token server (`identitytoken`).
    Identity(String),
    /// A bearer token for the registry itself (`registrytoken`).
    Registry(String),
}

/// Omits the secrets from debug output.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Registry(_) => "Registry(..)",
        })
    }
}

/// A credential and the time at which it is looked up again.
#[derive(Clone)]
pub(super) struct TimedCredential {
    pub(super) credential: Credential,
    pub(super) renew_at: Option<Instant>,
}

/// The result of the last lookup for a host.
enum Known {
    Credential(TimedCredential),
    /// There is none. The text says why an exchange failed, if one was tried.
    Missing(Option<String>),
}

/// Looks up credentials, once for each host.
pub(super) struct Credentials {
    /// Content of a `config.json` that comes before the files.
    text: Option<String>,
    /// Files in the form of `config.json`, in the order of the lookup.
    files: Vec<PathBuf>,
    /// Logins for hosts that no file has.
    cloud: CloudOptions,
    /// Locked while a helper runs, so that the user is prompted once and not for every layer.
    known: Mutex<BTreeMap<String, Known>>,
}

impl Credentials {
    pub(super) fn new(options: &Options) -> Self {
        let (text, files) = (options.docker_auth.clone(), options.auth_files.clone());
        let cloud = options.cloud.clone();
        let known = options.logins.iter().map(|(host, (user, password))| {
            let credential = of_user(user, password);
            (host.clone(), Known::Credential(TimedCredential { credential, renew_at: None }))
        });
        Self { text, files, cloud, known: Mutex::new(known.collect()) }
    }

    /// Creates credentials with a single entry and no stored ones.
    pub(super) fn single(host: &str, user: &str, password: &str) -> Self {
        let only = TimedCredential { credential: of_user(user, password), renew_at: None };
        let known = Mutex::new(BTreeMap::from([(host.to_owned(), Known::Credential(only))]));
        Self { text: None, files: Vec::new(), cloud: CloudOptions::default(), known }
    }

    /// Returns the credential for the registry `host`, if there is one.
    pub(super) fn of(&self, http: &Http, host: &str) -> Result<Option<Credential>, RegistryError> {
        let mut known = pool::lock(&self.known);
        match known.get(host) {
            Some(Known::Missing(_)) => return Ok(None),
            Some(Known::Credential(TimedCredential { credential, renew_at }))
                if renew_at.is_none_or(|renew_at| Instant::now() < renew_at) =>
            {
                return Ok(Some(credential.clone()));
            }
            Some(Known::Credential(_)) | None => {}
        }
        let found = match self.stored(host)? {
            Some(credential) => Known::Credential(TimedCredential { credential, renew_at: None }),
            None => match self.cloud.login(http, host) {
                Ok(Some(login)) => Known::Credential(login),
                Ok(None) => Known::Missing(None),
                // The image may be public.
                Err(why) => {
                    tracing::warn!(host, why, "no login");
                    Known::Missing(Some(why))
                }
            },
        };
        let credential = match &found {
            Known::Credential(timed) => Some(timed.credential.clone()),
            Known::Missing(_) => None,
        };
        known.insert(host.to_owned(), found);
        Ok(credential)
    }

    /// Returns why an exchange for `host` failed, if one was tried.
    pub(super) fn failure(&self, host: &str) -> Option<String> {
        match pool::lock(&self.known).get(host) {
            Some(Known::Missing(why)) => why.clone(),
            Some(Known::Credential(_)) | None => None,
        }
    }

    fn stored(&self, host: &str) -> Result<Option<Credential>, RegistryError> {
        let error = |why| RegistryError::Credentials { host: host.to_owned(), why };
        if let Some(text) = &self.text
            && let Some(found) =
                in_config(text.as_bytes(), "DOCKER_AUTH_CONFIG", host).map_err(error)?
        {
            return Ok(Some(found));
        }
        for path in &self.files {
            let Some(bytes) = read_config(path).map_err(error)? else { continue };
            let shown = path.display().to_string();
            if let Some(found) = in_config(&bytes, &shown, host).map_err(error)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Reads a file, if it exists.
fn read_config(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match pathio::inside::read_regular(path, MAX_CONFIG_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(failed) if failed.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(failed) => {
            let source = std::error::Error::source(&failed).map(ToString::to_string);
            Err(format!("{failed}: {}", source.unwrap_or_default()))
        }
    }
}

/// Returns the credential of a host that a file has, or a helper that the file names.
pub(super) fn in_config(
    bytes: &[u8],
    shown: &str,
    host: &str,
) -> Result<Option<Credential>, String> {
    let failed = |why| format!("{shown}: {why}");
    let config = DockerConfig::parse(bytes).map_err(failed)?;
    match config.find(host).map_err(failed)? {
        CredentialLookup::Missing => Ok(None),
        CredentialLookup::Credential(credential) => Ok(Some(credential)),
        CredentialLookup::Helpers(helpers) => {
            for (name, key) in helpers {
                let found = credential_helper::get(&name, &key, credential_helper::TIME_LIMIT)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        }
    }
}

/// The members of `config.json` about credentials
/// (<https://docs.docker.com/reference/cli/docker/login/#credential-stores>).
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, AuthEntry>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
struct AuthEntry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

/// Returns whether the file names a credential or a helper for `host`.
pub(super) fn knows(bytes: &[u8], host: &str) -> Result<bool, String> {
    Ok(DockerConfig::parse(bytes)?.find(host)? != CredentialLookup::Missing)
}

/// The result of a lookup in `config.json`.
#[derive(Debug, PartialEq, Eq)]
enum CredentialLookup {
    Missing,
    Credential(Credential),
    /// Helpers to call in this order, by name, with the key to request.
    Helpers(Vec<(String, String)>),
}

impl DockerConfig {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // Of serde's message only the position is shown: the rest may quote a secret.
        serde_json::from_slice(bytes).map_err(|error| {
            format!("invalid JSON (line {}, column {})", error.line(), error.column())
        })
    }

    /// Looks up a host. Its own entry in `credHelpers` comes first, then `auths`, then
    /// `credsStore`.
    fn find(&self, host: &str) -> Result<CredentialLookup, String> {
        let keys = keys(host);
        let helpers = self.cred_helpers.as_ref();
        let own = keys.iter().find_map(|key| {
            let name = helpers?.get(key).filter(|name| !name.is_empty())?;
            Some((name.clone(), key.clone()))
        });
        if let Some(own) = own {
            return Ok(CredentialLookup::Helpers(vec![own]));
        }
        if let Some(auth) = self.auth(host, &keys)
            && let Some(credential) = auth.credential()?
        {
            return Ok(CredentialLookup::Credential(credential));
        }
        match self.creds_store.as_deref().unwrap_or_default() {
            "" => Ok(CredentialLookup::Missing),
            name => Ok(CredentialLookup::Helpers(
                keys.into_iter().map(|key| (name.to_owned(), key)).collect(),
            )),
        }
    }

    fn auth(&self, host: &str, keys: &[String]) -> Option<&AuthEntry> {
        let auths = self.auths.as_ref()?;
        let exact = keys.iter().find_map(|key| auths.get(key));
        // Docker compares host names only, so `https://host/v2/` matches too (`ConvertToHostname`
        // in docker/cli, `cli/config/credentials`).
        exact
            .or_else(|| auths.iter().find_map(|(key, auth)| (host_of(key) == host).then_some(auth)))
    }
}

impl AuthEntry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credential::Registry(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(encoded) = given(&self.auth) {
            return decode_auth(&encoded).map(Some);
        }
        let pair = given(&self.username).zip(given(&self.password));
        Ok(pair.map(|(user, password)| Credential::Password { user, password }))
    }
}

/// Returns the keys under which a registry's credential may be stored, preferred first.
pub(super) fn keys(host: &str) -> Vec<String> {
    if host == DOCKER_IO {
        let hub = [HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"];
        return hub.map(str::to_owned).to_vec();
    }
    vec![host.to_owned(), format!("https://{host}")]
}

/// Returns the host of a key of `auths`, which may be an address.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_IO,
        host => host,
    }
}

/// Decodes an `auth` member: Base64 of `user:password`.
fn decode_auth(encoded: &str) -> Result<Credential, String> {
    const WHY: &str = "an `auth` in it is not Base64 of user:password";
    let text = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(encoded.trim().trim_end_matches('='))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(WHY)?;
    let (user, password) = text.split_once(':').ok_or(WHY)?;
    Ok(of_user(user, password.trim_end_matches('\0')))
}

/// Makes a credential of user and password. The user name `<token>` marks an identity token
/// (<https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>).
pub(super) fn of_user(user: &str, password: &str) -> Credential {
    match user {
        "<token>" => Credential::Identity(password.to_owned()),
        _ => Credential::Password { user: user.to_owned(), password: password.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> CredentialLookup {
        let (user, password) = (user.to_owned(), password.to_owned());
        CredentialLookup::Credential(Credential::Password { user, password })
    }

    #[test]
    fn credentials_are_found_where_docker_keeps_them() {
        let config = DockerConfig::parse(
            br#"{"auths": {
                "a.example": {"auth": "dTpwOnE="},
                "https://b.example/v2/": {"auth": "dTpw"},
                "https://index.docker.io/v1/": {"username": "u", "password": "hub"},
                "id.example": {"auth": "dTpw", "identitytoken": "id"},
                "reg.example:5000": {"registrytoken": "reg"},
                "token.example": {"auth": "PHRva2VuPjppZA=="},
                "stored.example": {}
              },
              "credHelpers": {"helped.example": "own", "https://far.example": "far"},
              "credsStore": "store", "HttpHeaders": {"X": "y"}}"#,
        )
        .unwrap();
        let helpers = |list: &[(&str, &str)]| {
            CredentialLookup::Helpers(
                list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            )
        };
        for (host, want) in [
            ("a.example", password("u", "p:q")),
            ("b.example", password("u", "p")),
            ("docker.io", password("u", "hub")),
            ("id.example", CredentialLookup::Credential(Credential::Identity("id".to_owned()))),
            ("token.example", CredentialLookup::Credential(Credential::Identity("id".to_owned()))),
            (
                "reg.example:5000",
                CredentialLookup::Credential(Credential::Registry("reg".to_owned())),
            ),
            ("helped.example", helpers(&[("own", "helped.example")])),
            ("far.example", helpers(&[("far", "https://far.example")])),
            (
                "stored.example",
                helpers(&[("store", "stored.example"), ("store", "https://stored.example")]),
            ),
        ] {
            assert_eq!(config.find(host), Ok(want), "{host}");
        }
    }

    #[test]
    fn errors_in_config_give_positions_without_quotes() {
        let error =
            DockerConfig::parse(b"{\"auths\": {\"h\": \"secret\"}}").map(|_| ()).unwrap_err();
        assert_eq!(error, "invalid JSON (line 1, column 24)");
        for auth in ["!!", "c2VjcmV0"] {
            let config = format!(r#"{{"auths": {{"h": {{"auth": "{auth}"}}}}}}"#);
            let found = DockerConfig::parse(config.as_bytes()).unwrap().find("h");
            assert_eq!(found, Err("an `auth` in it is not Base64 of user:password".to_owned()));
        }
    }

    #[test]
    fn missing_file_means_no_credential() {
        assert_eq!(read_config(Path::new("/nowhere/at/all/config.json")), Ok(None));
    }

    #[test]
    fn credentials_are_not_shown() {
        let credential = Credential::Password { user: "u".to_owned(), password: "s".to_owned() };
        assert_eq!(format!("{credential:?}"), "Password(..)");
    }
}
