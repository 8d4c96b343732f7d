//! How to speak to registries: `registries.toml` and environment variables.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::pathio;
use crate::registry::{Client, Options};

use super::Exit;
use super::environment::Environment;
use super::report::Complaint;

/// Longer than any list of registries.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const RETRIES: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// As many as BuildKit.
const TRANSFERS_PER_HOST: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// `registries.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

/// What it says of one registry.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    http: bool,
}

/// A client as the environment wants it.
pub(super) fn client(environment: &Environment) -> Result<Client, Complaint> {
    let made = Client::new(options(environment)?);
    made.map_err(|error| Complaint::from_error(&error, Exit::Usage))
}

/// A client for a build, which may have to do without network.
pub(super) fn client_for_build(
    environment: &Environment,
    offline: bool,
) -> Result<Client, Complaint> {
    let made = Client::new(Options { offline, ..options(environment)? });
    made.map_err(|error| Complaint::from_error(&error, Exit::Usage))
}

/// The same with this login and no other.
pub(super) fn client_for(
    environment: &Environment,
    registry: &str,
    user: &str,
    password: &str,
) -> Result<Client, Complaint> {
    let made = Client::with_login(options(environment)?, registry, user, password);
    made.map_err(|error| Complaint::from_error(&error, Exit::Usage))
}

fn options(environment: &Environment) -> Result<Options, Complaint> {
    let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut plain_http = BTreeSet::new();
    for (name, registry) in read(environment)?.registry {
        if registry.http {
            plain_http.insert(name.clone());
        }
        mirrors.insert(name, registry.mirrors);
    }
    let given = environment.with_prefix("RBUILD_MIRROR_");
    for (name, url) in given.into_iter().filter(|(_, url)| !url.is_empty()) {
        let registry = name.to_ascii_lowercase().replace('_', ".");
        mirrors.entry(registry).or_default().insert(0, url.to_owned());
    }
    Ok(Options {
        mirrors,
        plain_http,
        docker_config: environment.docker_config(),
        user_agent: format!("rbuild/{}", env!("CARGO_PKG_VERSION")),
        retries: RETRIES,
        first_delay: FIRST_DELAY,
        jitter_seed: environment.seed,
        transfers_per_host: TRANSFERS_PER_HOST,
        offline: false,
    })
}

/// The first config file that is there.
fn read(environment: &Environment) -> Result<File, Complaint> {
    for path in environment.config_files() {
        match pathio::read_to_string(&path, MAX_CONFIG_BYTES) {
            Ok(text) => return parse(&path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(Complaint::from_error(&error, Exit::Usage)),
        }
    }
    Ok(File::default())
}

fn parse(path: &Path, text: &str) -> Result<File, Complaint> {
    toml::from_str(text).map_err(|error| {
        Complaint::new(format!("{} is not valid: {error}", path.display()), Exit::Usage)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_file_names_mirrors_and_plain_http() {
        let text = "[registry.\"docker.io\"]\nmirrors = [\"http://127.0.0.1:5000\"]\n[registry.\"a:1\"]\nhttp = true\n";
        let file = parse(Path::new("x"), text).unwrap();
        assert_eq!(file.registry["docker.io"].mirrors, ["http://127.0.0.1:5000"]);
        assert!(file.registry["a:1"].http);
    }

    #[test]
    fn config_file_with_an_unknown_key_is_refused() {
        let error = parse(Path::new("r.toml"), "[registry.x]\nmirror = []\n").unwrap_err();
        assert!(error.to_string().starts_with("r.toml is not valid: "), "{error}");
    }
}
