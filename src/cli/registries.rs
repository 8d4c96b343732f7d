//! Settings of registries: `registries.toml`, options and environment variables.

use std::collections::BTreeMap;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::cli::args::registry::Creds;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor::{RunTrust, chain};
use crate::pathio::inside::read_regular;
use crate::pathio::{Context as _, PathError};
use crate::registry::{
    CLOUD_VARIABLES, Client, ClientCertificate, CloudLogin, CloudOptions, Options, RegistryOptions,
    SchemeProbe, Security, read_certificates, system_roots,
};

/// Maximum length of `registries.toml`.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Number of retries of a request.
pub(super) const RETRIES: u32 = 4;
/// Time before the first retry. It doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Name of the settings for registries without their own.
const ANY_REGISTRY: &str = "*";
/// Number of parallel transfers, as in BuildKit.
const TRANSFERS_PER_HOST: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");
/// Size of the parts of a large layer. A part takes a request, and often a redirect: about 0.1 s, as
/// long as 8 MiB take at 80 MB/s. Larger parts would arrive further ahead of those that are unpacked.
const PART_BYTES: NonZeroU64 = NonZeroU64::new(8 << 20).expect("8 MiB is not 0");

/// The content of `registries.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistriesFile {
    #[serde(default)]
    ca: Vec<PathBuf>,
    #[serde(default, rename = "ca-for-run")]
    ca_for_run: Vec<PathBuf>,
    transfers: Option<NonZeroUsize>,
    #[serde(default)]
    registry: BTreeMap<String, RegistrySettings>,
}

/// Settings of one registry, from the file or from `--registry`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RegistrySettings {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    only_mirrors: bool,
    http: Option<PlainHttp>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    ca: Vec<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// The setting `http` of a registry: true, false, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlainHttp {
    Always,
    Never,
    /// If the server answers it.
    Automatic,
}

impl<'de> Deserialize<'de> for PlainHttp {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PlainHttpVisitor)
    }
}

struct PlainHttpVisitor;

impl serde::de::Visitor<'_> for PlainHttpVisitor {
    type Value = PlainHttp;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("true, false or \"auto\"")
    }

    fn visit_bool<E: serde::de::Error>(self, is_http: bool) -> Result<PlainHttp, E> {
        Ok(if is_http { PlainHttp::Always } else { PlainHttp::Never })
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PlainHttp, E> {
        match text {
            "auto" => Ok(PlainHttp::Automatic),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }
}

impl RegistriesFile {
    /// Resolves relative paths against `directory`.
    fn relative_to(mut self, directory: &Path) -> Self {
        let whole = |path: &mut PathBuf| *path = directory.join(&*path);
        self.ca.iter_mut().chain(&mut self.ca_for_run).for_each(whole);
        for registry in self.registry.values_mut() {
            let RegistrySettings { ca, cert, key, .. } = registry;
            ca.iter_mut().chain(cert).chain(key).for_each(whole);
        }
        self
    }
}

impl RegistrySettings {
    fn options(self) -> Result<RegistryOptions, &'static str> {
        let client = match (self.cert, self.key) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (None, None) => None,
            _ => return Err("`cert` and `key` must be given together"),
        };
        let is_secured = self.insecure || !self.ca.is_empty() || client.is_some();
        let security = match (self.http, self.insecure) {
            (Some(PlainHttp::Always), _) if is_secured => {
                return Err("`http` cannot be combined with `insecure`, `ca`, `cert` or `key`");
            }
            (Some(PlainHttp::Always), _) => Some(Security::Http),
            (Some(PlainHttp::Automatic), insecure) => {
                Some(Security::Automatic { verifies: !insecure })
            }
            (_, true) => Some(Security::Unverified),
            (Some(PlainHttp::Never), false) => Some(Security::Verified),
            (None, false) => None,
        };
        let Self { mirrors, only_mirrors, ca, .. } = self;
        Ok(RegistryOptions { mirrors, only_mirrors, security, ca, client })
    }
}

/// Returns a client with these settings.
pub(super) fn client(environment: &Environment) -> Result<Client, CliError> {
    let made = Client::new(options(environment)?);
    made.map_err(|error| CliError::from_error(&error, Exit::Usage))
}

/// Returns a client for a build, which may be `--offline`.
pub(super) fn client_for_build(
    environment: &Environment,
    offline: bool,
) -> Result<Client, CliError> {
    let made = Client::new(Options { offline, ..options(environment)? });
    made.map_err(|error| CliError::from_error(&error, Exit::Usage))
}

/// Returns the certificates for RUN steps, of `--ca-for-run` and of the file; `None` if there are none.
pub(super) fn run_trust(
    environment: &Environment,
    given: &[PathBuf],
) -> Result<Option<RunTrust>, CliError> {
    let (_, file) = read(environment)?;
    let mut extra: Vec<Vec<u8>> = Vec::new();
    for path in given.iter().chain(&file.ca_for_run) {
        let found = read_certificates(path).map_err(|error| {
            CliError::new(format!("error: --ca-for-run: {}", chain(&error)), Exit::Usage)
        })?;
        for certificate in found {
            if !extra.contains(&certificate) {
                extra.push(certificate);
            }
        }
    }
    if extra.is_empty() {
        return Ok(None);
    }
    Ok(Some(RunTrust { extra, roots: system_roots() }))
}

/// Returns a client with this login only.
pub(super) fn client_for(
    environment: &Environment,
    registry: &str,
    user: &str,
    password: &str,
) -> Result<Client, CliError> {
    let made = Client::with_login(options(environment)?, registry, user, password);
    made.map_err(|error| CliError::from_error(&error, Exit::Usage))
}

fn options(environment: &Environment) -> Result<Options, CliError> {
    let (path, file) = read(environment)?;
    let mut registries = BTreeMap::new();
    for (name, registry) in file.registry {
        let options = registry.options().map_err(|why| {
            let text = format!("{} is not valid: registry.\"{name}\": {why}", path.display());
            CliError::new(text, Exit::Usage)
        })?;
        registries.insert(name, options);
    }
    for text in &environment.registry_flags.settings {
        let (name, options) = parse_flag(text).map_err(|why| {
            CliError::new(format!("error: --registry {text}: {why}"), Exit::Usage)
        })?;
        registries.insert(name, options);
    }
    let given = environment.with_prefix("RBUILD_MIRROR_");
    for (name, url) in given.into_iter().filter(|(_, url)| !url.is_empty()) {
        let name = name.to_ascii_lowercase().replace('_', ".");
        let registry: &mut RegistryOptions = registries.entry(name).or_default();
        registry.mirrors.insert(0, url.to_owned());
    }
    add_certificates(environment, &mut registries);
    let flags = &environment.registry_flags;
    if let Some(verifies) = flags.tls_verify {
        let unverified = Security::Automatic { verifies: false };
        let security = if verifies { Security::Verified } else { unverified };
        let _any: &mut RegistryOptions = registries.entry(ANY_REGISTRY.to_owned()).or_default();
        let unset = registries.values_mut().filter(|options| options.security.is_none());
        unset.for_each(|options| options.security = Some(security));
    }
    let mut ca = file.ca;
    ca.extend(flags.ca.iter().cloned());
    if let Some(directory) = &flags.cert_dir {
        ca.extend(certificates_in(directory)?);
    }
    let docker_auth = environment.get("DOCKER_AUTH_CONFIG").map(str::to_owned);
    let (auth_files, docker_auth) = match &flags.authfile {
        Some(file) => (vec![file.clone()], None),
        None => (environment.auth_files(), docker_auth),
    };
    Ok(Options {
        registries,
        ca,
        docker_auth,
        auth_files,
        logins: logins(environment)?,
        cloud: cloud(environment),
        scheme_probe: SchemeProbe::default(),
        user_agent: format!("rbuild/{}", env!("CARGO_PKG_VERSION")),
        retries: flags.retry.unwrap_or(RETRIES),
        first_delay: flags.retry_delay.unwrap_or(FIRST_DELAY),
        jitter_seed: environment.seed,
        transfers_per_host: file.transfers.unwrap_or(TRANSFERS_PER_HOST),
        part_bytes: PART_BYTES,
        offline: false,
    })
}

/// Adds the certificates that docker and podman keep in directories by registry
/// (<https://docs.docker.com/engine/security/certificates/>,
/// <https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md>). Settings of rbuild take
/// precedence. A directory that cannot be read counts as missing.
fn add_certificates(environment: &Environment, registries: &mut BTreeMap<String, RegistryOptions>) {
    for directory in environment.certificate_directories() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(files) = std::fs::read_dir(entry.path()) else { continue };
            let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
            paths.sort();
            let of = |end: &str| {
                let has_end = move |path: &&PathBuf| path.extension().is_some_and(|own| own == end);
                paths.iter().filter(has_end).cloned().collect::<Vec<PathBuf>>()
            };
            let pair = of("cert").into_iter().zip(of("key")).next();
            let (ca, client) = (of("crt"), pair);
            if ca.is_empty() && client.is_none() {
                continue;
            }
            let options: &mut RegistryOptions = registries.entry(name).or_default();
            if options.ca.is_empty() && options.client.is_none() && options.security.is_none() {
                options.ca = ca;
                options.client =
                    client.map(|(certificate, key)| ClientCertificate { certificate, key });
            }
        }
    }
}

/// Returns the built-in logins, and the variables that they may use.
fn cloud(environment: &Environment) -> CloudOptions {
    let chosen = environment.registry_flags.credential_helpers.as_ref();
    let logins = chosen.map_or_else(|| CloudLogin::ALL.to_vec(), |chosen| chosen.0.clone());
    let is_needed = |name: &&String| CLOUD_VARIABLES.iter().any(|start| name.starts_with(start));
    let variables = environment.all().iter().filter(|(name, _)| is_needed(name));
    let variables = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
    CloudOptions { logins, variables, now_s: environment.now_s, started: Instant::now() }
}

/// Returns the login of `--creds` for each registry that it is for.
fn logins(environment: &Environment) -> Result<BTreeMap<String, (String, String)>, CliError> {
    let Some(Creds { user, password }) = &environment.registry_flags.creds else {
        return Ok(BTreeMap::new());
    };
    if environment.creds_hosts.is_empty() {
        let text = "error: --creds has no effect: no image is named whose registry gets the login; add -t \
                    REGISTRY/NAME, or use `rbuild login`";
        return Err(CliError::new(text, Exit::Usage));
    }
    let hosts = environment.creds_hosts.iter();
    Ok(hosts.map(|host| (host.clone(), (user.clone(), password.clone()))).collect())
}

/// Returns the certificates of authorities in the directory of `--cert-dir`
/// (<https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md>).
fn certificates_in(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed =
        |error| CliError::from_error(&PathError::new("list", directory, error), Exit::Usage);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => files.push(path),
            Some("cert" | "key") => {
                let text = format!(
                    "error: --cert-dir {}: a client certificate is for one registry; use --registry \
                     HOST,cert=FILE,key=FILE",
                    directory.display()
                );
                return Err(CliError::new(text, Exit::Usage));
            }
            Some(_) | None => {}
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the file of `RBUILD_REGISTRIES`, or else the first that exists.
fn read(environment: &Environment) -> Result<(PathBuf, RegistriesFile), CliError> {
    let unreadable = |error| CliError::from_error(&error, Exit::Usage);
    if let Some(path) = environment.get("RBUILD_REGISTRIES").map(PathBuf::from) {
        let text = read_text(&path).map_err(unreadable)?;
        let file = parse(&path, &text)?;
        return Ok((path, file));
    }
    for path in environment.config_files() {
        match read_text(&path) {
            Ok(text) => {
                let file = parse(&path, &text)?;
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok((PathBuf::new(), RegistriesFile::default()))
}

fn read_text(path: &Path) -> Result<String, PathError> {
    let bytes = read_regular(path, MAX_CONFIG_BYTES)?;
    let not_utf8 = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    String::from_utf8(bytes).map_err(not_utf8).context("read", path)
}

fn parse(path: &Path, text: &str) -> Result<RegistriesFile, CliError> {
    let file: RegistriesFile = toml::from_str(text).map_err(|error| {
        CliError::new(format!("{} is not valid: {error}", path.display()), Exit::Usage)
    })?;
    Ok(file.relative_to(path.parent().unwrap_or(Path::new(""))))
}

/// Checks a file without using it.
pub(super) fn check(path: &Path, text: &str) -> Result<(), String> {
    let file = parse(path, text).map_err(|complaint| complaint.to_string())?;
    let mut registries = file.registry.into_values();
    registries.try_for_each(|registry| registry.options().map(drop).map_err(|why| why.to_string()))
}

/// Parses `HOST[,http[=auto]][,insecure][,mirror=URL][,only-mirrors][,ca=FILE][,cert=FILE,key=FILE]`. It
/// replaces the settings of the file for that host.
fn parse_flag(text: &str) -> Result<(String, RegistryOptions), String> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    if name.is_empty() || name.contains(['=', '/']) {
        return Err(
            "expected the name of a registry first, such as registry.example:5000".to_owned()
        );
    }
    let mut registry = RegistrySettings::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "true")) {
            ("http", "auto") => registry.http = Some(PlainHttp::Automatic),
            ("http", value) => {
                let is_http = switch(word, value)?;
                registry.http = Some(if is_http { PlainHttp::Always } else { PlainHttp::Never });
            }
            ("only-mirrors", value) => registry.only_mirrors = switch(word, value)?,
            ("insecure", value) => registry.insecure = switch(word, value)?,
            ("mirror", url) => registry.mirrors.push(url.to_owned()),
            ("ca", path) => registry.ca.push(path.into()),
            ("cert", path) => registry.cert = Some(path.into()),
            ("key", path) => registry.key = Some(path.into()),
            _ => {
                return Err(format!(
                    "unknown setting `{word}`: use http, insecure, mirror=URL, only-mirrors, ca=FILE, \
                     cert=FILE or key=FILE"
                ));
            }
        }
    }
    Ok((name.to_owned(), registry.options()?))
}

fn switch(word: &str, value: &str) -> Result<bool, String> {
    value.parse().map_err(|_other| format!("`{word}` must be true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(text: &str) -> Result<RegistryOptions, &'static str> {
        let mut file = parse(Path::new("/conf/r.toml"), text).unwrap();
        file.registry.remove("a:1").unwrap().options()
    }

    #[test]
    fn config_file_sets_mirrors_and_security() {
        let of = |text: &str| options_of(&format!("[registry.\"a:1\"]\n{text}\n"));
        let plain = RegistryOptions::default();
        let client = ClientCertificate { certificate: "/conf/c".into(), key: "/k".into() };
        for (text, want) in [
            ("", Ok(plain.clone())),
            (
                "mirrors = [\"http://127.0.0.1:5000\"]",
                Ok(RegistryOptions {
                    mirrors: vec!["http://127.0.0.1:5000".to_owned()],
                    ..plain.clone()
                }),
            ),
            (
                "http = true",
                Ok(RegistryOptions { security: Some(Security::Http), ..plain.clone() }),
            ),
            (
                "http = false",
                Ok(RegistryOptions { security: Some(Security::Verified), ..plain.clone() }),
            ),
            (
                "insecure = true\nca = [\"own.pem\"]",
                Ok(RegistryOptions {
                    security: Some(Security::Unverified),
                    ca: vec!["/conf/own.pem".into()],
                    ..plain.clone()
                }),
            ),
            ("cert = \"c\"\nkey = \"/k\"", Ok(RegistryOptions { client: Some(client), ..plain })),
            ("cert = \"c\"", Err("`cert` and `key` must be given together")),
            (
                "http = true\ninsecure = true",
                Err("`http` cannot be combined with `insecure`, `ca`, `cert` or `key`"),
            ),
        ] {
            assert_eq!(of(text), want, "{text}");
        }
        let file = parse(Path::new("r.toml"), "ca = [\"a\"]\ntransfers = 8\n").unwrap();
        assert_eq!((file.ca, file.transfers), (vec!["a".into()], NonZeroUsize::new(8)));
    }

    #[test]
    fn config_file_with_an_unknown_key_is_refused_with_its_location() {
        for (text, want) in [
            ("[registry.x]\nmirror = []\n", "line 2, column 1"),
            ("ca = []\n  timeout = 1\n", "line 2, column 3"),
            ("transfers = 0\n", "line 1, column 13"),
            ("[registry.x]\nhttp = \"yes\"\n", "line 2, column 8"),
        ] {
            let error = parse(Path::new("r.toml"), text).unwrap_err().to_string();
            let start = format!("r.toml is not valid: TOML parse error at {want}\n");
            assert!(error.starts_with(&start), "{error}");
        }
    }

    #[test]
    fn options_have_the_settings_of_the_file() {
        let (name, options) = parse_flag("a:1,insecure,mirror=http://m,ca=x,ca=y").unwrap();
        let (mirrors, ca) = (vec!["http://m".to_owned()], vec!["x".into(), "y".into()]);
        let security = Some(Security::Unverified);
        assert_eq!(name, "a:1");
        let only_mirrors = false;
        assert_eq!(options, RegistryOptions { mirrors, only_mirrors, security, ca, client: None });
        let http = |text| parse_flag(text).unwrap().1.security;
        assert_eq!(
            [http("a,http"), http("a,http=false"), http("a")],
            [Some(Security::Http), Some(Security::Verified), None]
        );
        for (text, want) in [
            ("http=true", "expected the name of a registry first, such as registry.example:5000"),
            ("https://a", "expected the name of a registry first, such as registry.example:5000"),
            ("a,http=no", "`http=no` must be true or false"),
            ("a,cert=x", "`cert` and `key` must be given together"),
            (
                "a,tls",
                "unknown setting `tls`: use http, insecure, mirror=URL, only-mirrors, ca=FILE, \
                 cert=FILE or key=FILE",
            ),
        ] {
            assert_eq!(parse_flag(text), Err(want.to_owned()), "{text}");
        }
    }
}
