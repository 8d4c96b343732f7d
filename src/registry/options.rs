//! Options of the registry client, from the command line and `registries.toml`.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::cloud::CloudOptions;
use super::scheme_probe::SchemeProbe;
use super::tls::ClientCertificate;

/// Name of the registry whose options apply to all registries that have none of their own.
pub(super) const ANY_REGISTRY: &str = "*";

/// Options of the registry client, from the command line and `registries.toml`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Options of single registries, by their names in images (`docker.io`, `host:5000`), or `*` for
    /// all others. Mirrors and token servers are listed by host and port.
    pub registries: BTreeMap<String, RegistryOptions>,
    /// PEM files with additional trusted CA certificates, for all registries.
    pub ca: Vec<PathBuf>,
    /// Content of a `config.json` of docker's that comes before the files (`DOCKER_AUTH_CONFIG`).
    pub docker_auth: Option<String>,
    /// Files of docker or podman with credentials, in the order of the lookup
    /// (<https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>).
    pub auth_files: Vec<PathBuf>,
    /// Users and passwords by registry, which come before all others (`--creds`).
    pub logins: BTreeMap<String, (String, String)>,
    /// Logins of cloud services and CI systems, for registries that no file has.
    pub cloud: CloudOptions,
    /// Protocols of servers with [`Security::Automatic`], found by asking them.
    pub scheme_probe: SchemeProbe,
    /// The `User-Agent` header (RFC 9110, section 10.1.5).
    pub user_agent: String,
    /// Maximum number of retries of a failed request.
    pub retries: u32,
    /// Pause before the first retry. It doubles with each further one, up to a minute, and is
    /// shortened by up to a half.
    pub first_delay: Duration,
    /// Seed of the random part of pauses. Equal seeds give equal pauses.
    pub jitter_seed: u64,
    /// Maximum number of parallel downloads from one host, and of parallel uploads.
    pub transfers_per_host: NonZeroUsize,
    /// Size in bytes of the parts of a large layer, which are downloaded in parallel. A layer of less
    /// than two parts is downloaded in one stream.
    pub part_bytes: NonZeroU64,
    /// True if every request is refused before it is sent (`--offline`).
    pub offline: bool,
}

/// Options of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Its mirrors, in the order of requests: addresses of servers, or names (`HOST/PATH`) below which
    /// its repositories are found. The registry itself comes last.
    pub mirrors: Vec<String>,
    /// True if the registry itself is not asked for images if it has mirrors.
    pub only_mirrors: bool,
    /// Transport security, if configured.
    pub security: Option<Security>,
    /// PEM files with additional trusted CA certificates.
    pub ca: Vec<PathBuf>,
    /// Client certificate for mutual TLS.
    pub client: Option<ClientCertificate>,
}

/// Transport security of connections to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// https with a verified certificate.
    Verified,
    /// https without verification of the certificate.
    Unverified,
    /// Plain http, without TLS.
    Http,
    /// https, or plain http if the server answers that on its port.
    Automatic {
        /// True if the certificate is verified where there is one.
        verifies: bool,
    },
}

impl Security {
    /// Returns whether certificates are accepted without verification.
    pub(super) const fn is_unverified(self) -> bool {
        matches!(self, Self::Unverified | Self::Automatic { verifies: false })
    }
}

impl Options {
    /// Returns the options of a registry: its own, or else those of `*`.
    pub(super) fn registry(&self, name: &str) -> Option<&RegistryOptions> {
        self.registries.get(name).or_else(|| self.registries.get(ANY_REGISTRY))
    }
}

impl RegistryOptions {
    /// Returns whether any option concerns TLS, so that https is meant.
    pub(super) fn speaks_tls(&self) -> bool {
        match self.security {
            Some(Security::Verified | Security::Unverified | Security::Automatic { .. }) => true,
            Some(Security::Http) => false,
            None => !self.ca.is_empty() || self.client.is_some(),
        }
    }
}
