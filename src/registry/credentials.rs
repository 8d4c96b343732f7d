//! Stored credentials: docker's `config.json`, and the helpers that it names.
//!
//! The `docker_credential` crate would read the file too, but it waits for a helper without limit,
//! shows what a failed helper printed, and does not know `registrytoken`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use serde::Deserialize;

use super::endpoint::DOCKER_IO;
use super::{RegistryError, helper};
use crate::pathio;

/// The longest `config.json` that is read.
pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The name under which docker keeps what belongs to Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What we prove with who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// For Basic, or for a token server.
    Password { user: String, password: String },
    /// An OAuth2 refresh token, for a token server.
    Identity(String),
    /// A token that the registry itself takes.
    Registry(String),
}

/// Without the secrets.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Registry(_) => "Registry(..)",
        })
    }
}

/// Looks credentials up, each host's once.
pub(super) struct Credentials {
    /// Of `config.json`; without it, everybody is anonymous.
    directory: Option<PathBuf>,
    /// Held while a helper runs, so that one prompt is enough for many layers.
    known: Mutex<BTreeMap<String, Option<Credential>>>,
}

impl Credentials {
    pub(super) const fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, known: Mutex::new(BTreeMap::new()) }
    }

    /// Only this one, and nothing that is stored.
    pub(super) fn just(host: &str, user: &str, password: &str) -> Self {
        let known = BTreeMap::from([(host.to_owned(), Some(of_user(user, password)))]);
        Self { directory: None, known: Mutex::new(known) }
    }

    /// The credential for the registry `host`, if one is stored.
    pub(super) fn of(&self, host: &str) -> Result<Option<Credential>, RegistryError> {
        // A panic elsewhere leaves the map as good as it was.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential) = known.get(host) {
            return Ok(credential.clone());
        }
        let credential = self.look_up(host)?;
        known.insert(host.to_owned(), credential.clone());
        Ok(credential)
    }

    fn look_up(&self, host: &str) -> Result<Option<Credential>, RegistryError> {
        let error = |why| RegistryError::Credentials { host: host.to_owned(), why };
        let Some(directory) = &self.directory else { return Ok(None) };
        let path = directory.join("config.json");
        let bytes = match pathio::inside::read_regular(&path, MAX_CONFIG_BYTES) {
            Ok(bytes) => bytes,
            Err(failed) if failed.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(failed) => {
                let source = std::error::Error::source(&failed).map(ToString::to_string);
                return Err(error(format!("{failed}: {}", source.unwrap_or_default())));
            }
        };
        let config =
            Config::parse(&bytes).map_err(|why| error(format!("{}: {why}", path.display())))?;
        match config.find(host).map_err(|why| error(format!("{}: {why}", path.display())))? {
            Found::Nothing => Ok(None),
            Found::Credential(credential) => Ok(Some(credential)),
            Found::Helpers(helpers) => {
                for (name, key) in helpers {
                    let credential = helper::get(&name, &key, helper::TIME_LIMIT);
                    if let Some(credential) = credential.map_err(error)? {
                        return Ok(Some(credential));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// The part of `config.json` that is about credentials.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: Option<BTreeMap<String, Auth>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
struct Auth {
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

/// True if the file says how to log in to `host`.
pub(super) fn knows(bytes: &[u8], host: &str) -> Result<bool, String> {
    Ok(Config::parse(bytes)?.find(host)? != Found::Nothing)
}

/// Where a host's credential is.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Credential(Credential),
    /// To be asked in turn: the helper's name, and what to ask it for.
    Helpers(Vec<(String, String)>),
}

impl Config {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // Of serde's message only the place is shown: the rest may quote the file.
        serde_json::from_slice(bytes).map_err(|error| {
            format!(
                "it is not as docker writes it (line {}, column {})",
                error.line(),
                error.column()
            )
        })
    }

    /// A helper of this host's own comes first, then what the file holds, then the common helper.
    fn find(&self, host: &str) -> Result<Found, String> {
        let keys = keys(host);
        let helpers = self.cred_helpers.as_ref();
        let own = keys.iter().find_map(|key| {
            let name = helpers?.get(key).filter(|name| !name.is_empty())?;
            Some((name.clone(), key.clone()))
        });
        if let Some(own) = own {
            return Ok(Found::Helpers(vec![own]));
        }
        if let Some(auth) = self.auth(host, &keys)
            && let Some(credential) = auth.credential()?
        {
            return Ok(Found::Credential(credential));
        }
        match self.creds_store.as_deref().unwrap_or_default() {
            "" => Ok(Found::Nothing),
            name => {
                Ok(Found::Helpers(keys.into_iter().map(|key| (name.to_owned(), key)).collect()))
            }
        }
    }

    fn auth(&self, host: &str, keys: &[String]) -> Option<&Auth> {
        let auths = self.auths.as_ref()?;
        let exact = keys.iter().find_map(|key| auths.get(key));
        // Docker compares host names only, so `https://host/v2/` counts too.
        exact
            .or_else(|| auths.iter().find_map(|(key, auth)| (host_of(key) == host).then_some(auth)))
    }
}

impl Auth {
    fn credential(&self) -> Result<Option<Credential>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credential::Registry(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(packed) = given(&self.auth) {
            return unpack(&packed).map(Some);
        }
        let pair = given(&self.username).zip(given(&self.password));
        Ok(pair.map(|(user, password)| Credential::Password { user, password }))
    }
}

/// The names under which a registry's credential may be stored, best first.
pub(super) fn keys(host: &str) -> Vec<String> {
    if host == DOCKER_IO {
        let hub = [HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"];
        return hub.map(str::to_owned).to_vec();
    }
    vec![host.to_owned(), format!("https://{host}")]
}

/// The host in a key of `auths`, which may be an address.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_IO,
        host => host,
    }
}

/// `auth` is Base64 of `user:password`.
fn unpack(packed: &str) -> Result<Credential, String> {
    const WHY: &str = "an `auth` in it is not Base64 of user:password";
    let text = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(packed.trim().trim_end_matches('='))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(WHY)?;
    let (user, password) = text.split_once(':').ok_or(WHY)?;
    Ok(of_user(user, password.trim_end_matches('\0')))
}

/// What user and password mean; by convention the user `<token>` has no password.
pub(super) fn of_user(user: &str, password: &str) -> Credential {
    match user {
        "<token>" => Credential::Identity(password.to_owned()),
        _ => Credential::Password { user: user.to_owned(), password: password.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Found {
        let (user, password) = (user.to_owned(), password.to_owned());
        Found::Credential(Credential::Password { user, password })
    }

    #[test]
    fn credentials_are_found_where_docker_keeps_them() {
        let config = Config::parse(
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
            Found::Helpers(list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
        };
        for (host, want) in [
            ("a.example", password("u", "p:q")),
            ("b.example", password("u", "p")),
            ("docker.io", password("u", "hub")),
            ("id.example", Found::Credential(Credential::Identity("id".to_owned()))),
            ("token.example", Found::Credential(Credential::Identity("id".to_owned()))),
            ("reg.example:5000", Found::Credential(Credential::Registry("reg".to_owned()))),
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
    fn unusable_configs_say_where_without_quoting() {
        let error = Config::parse(b"{\"auths\": {\"h\": \"secret\"}}").map(|_| ()).unwrap_err();
        assert_eq!(error, "it is not as docker writes it (line 1, column 24)");
        for auth in ["!!", "c2VjcmV0"] {
            let config = format!(r#"{{"auths": {{"h": {{"auth": "{auth}"}}}}}}"#);
            let found = Config::parse(config.as_bytes()).unwrap().find("h");
            assert_eq!(found, Err("an `auth` in it is not Base64 of user:password".to_owned()));
        }
    }

    #[test]
    fn no_file_is_no_credential() {
        let missing = Credentials::new(Some(PathBuf::from("/nowhere/at/all")));
        assert_eq!(missing.of("a.example").unwrap(), None);
        assert_eq!(Credentials::new(None).of("a.example").unwrap(), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        let credential = Credential::Password { user: "u".to_owned(), password: "s".to_owned() };
        assert_eq!(format!("{credential:?}"), "Password(..)");
    }
}
