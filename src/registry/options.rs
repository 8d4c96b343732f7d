//! How to speak to registries.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::ClientCertificate;

/// How to speak to registries.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is special about single ones, by their names in images (`docker.io`, `host:5000`);
    /// also about mirrors and token servers, by host and port.
    pub registries: BTreeMap<String, RegistryOptions>,
    /// PEM files with certificates to believe besides the system's, whoever shows them.
    pub ca: Vec<PathBuf>,
    /// The directory of docker's `config.json`; without it, everybody is anonymous.
    pub docker_config: Option<PathBuf>,
    /// How rbuild introduces itself.
    pub user_agent: String,
    /// How often a request that may yet succeed is tried again.
    pub retries: u32,
    /// The pause before the first such try; it doubles with each further one, up to a minute, and
    /// is shortened by up to a half.
    pub first_delay: Duration,
    /// By how much pauses are shortened: equal numbers make equal pauses.
    pub jitter_seed: u64,
    /// How many downloads one host has to bear at a time, and how many uploads.
    pub transfers_per_host: NonZeroUsize,
    /// Whether every request is refused before it is sent.
    pub offline: bool,
}

/// What is special about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// The addresses of its mirrors in the order to try them; the registry itself comes last.
    pub mirrors: Vec<String>,
    /// How connections to it are made safe, if that is said.
    pub security: Option<Security>,
    /// PEM files with certificates to believe besides the system's.
    pub ca: Vec<PathBuf>,
    /// What it gets to see of us.
    pub client: Option<ClientCertificate>,
}

/// How a connection is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// By https, with a certificate that we believe.
    Verified,
    /// By https, with whatever certificate.
    Unverified,
    /// Not at all: plain http.
    Http,
}

impl RegistryOptions {
    /// Whether something is said of TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        match self.security {
            Some(Security::Verified | Security::Unverified) => true,
            Some(Security::Http) => false,
            None => !self.ca.is_empty() || self.client.is_some(),
        }
    }
}
