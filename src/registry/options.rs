//! Options of the registry client, from the command line and `registries.toml`.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::tls::ClientCertificate;

/// Options of the registry client, from the command line and `registries.toml`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Options of single registries, by their names in images (`docker.io`, `host:5000`). Mirrors
    /// and token servers are listed by host and port.
    pub registries: BTreeMap<String, RegistryOptions>,
    /// PEM files with additional trusted CA certificates, for all registries.
    pub ca: Vec<PathBuf>,
    /// The directory of docker's `config.json`. Without it, all requests are anonymous.
    pub docker_config: Option<PathBuf>,
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
    /// Addresses of its mirrors, in the order of requests. The registry itself comes last.
    pub mirrors: Vec<String>,
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
}

impl RegistryOptions {
    /// Returns whether any option concerns TLS, so that https is meant.
    pub(super) fn speaks_tls(&self) -> bool {
        match self.security {
            Some(Security::Verified | Security::Unverified) => true,
            Some(Security::Http) => false,
            None => !self.ca.is_empty() || self.client.is_some(),
        }
    }
}
