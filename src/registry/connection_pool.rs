//! Pools of reusable connections: one pool for each TLS profile and proxy setting.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use crate::pool;

use ureq::unversioned::transport::{Connector as _, DefaultConnector};

use super::RegistryError;
use super::cancel::Cancellation;
use super::endpoint::{DOCKER_IO, HUB_HOST};
use super::name_lookup::Resolver;
use super::options::{ANY_REGISTRY, Options, RegistryOptions, Security};
use super::tls::{self, SystemRoots, TlsConnector, TlsProfile};
use super::url::{Scheme, Url, is_loopback};

/// Time limit for name lookup, connection and handshake, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a metadata service, which is on the same machine or does not exist.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time without data. Registries are silent while they move a large upload into place.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Maximum number of idle connections per host: at least the number of parallel transfers.
const MAX_IDLE_PER_HOST: usize = 16;

/// The way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    /// Through the proxy of the environment, if there is one.
    Usual,
    /// To a loopback address of this machine, which a proxy cannot reach.
    Direct,
    /// To a metadata service of a cloud.
    Metadata,
}

impl Route {
    fn to(host: &str) -> Self {
        if is_loopback(host) {
            return Self::Direct;
        }
        // Link-local addresses (RFC 3927), and the name of Google's.
        let is_metadata = host.starts_with("169.254.")
            || host.starts_with("[fd00:ec2::")
            || host == "metadata.google.internal";
        if is_metadata { Self::Metadata } else { Self::Usual }
    }
}

/// Key of a pool. Its connections share the TLS profile, if any, and the route.
type PoolKey = (Option<TlsProfile>, Route);

pub(super) struct ConnectionPools {
    user_agent: String,
    registries: BTreeMap<String, RegistryOptions>,
    ca: Vec<PathBuf>,
    system: SystemRoots,
    cancellation: Cancellation,
    agents: Mutex<BTreeMap<PoolKey, ureq::Agent>>,
}

impl ConnectionPools {
    pub(super) fn new(options: &Options, cancellation: &Cancellation) -> Self {
        Self {
            cancellation: cancellation.clone(),
            user_agent: options.user_agent.clone(),
            registries: options.registries.clone(),
            ca: options.ca.clone(),
            system: SystemRoots::default(),
            agents: Mutex::default(),
        }
    }

    /// Returns the pool for `url`, to which the registry `account` led, if any.
    pub(super) fn of(&self, url: &Url, account: &str) -> Result<ureq::Agent, RegistryError> {
        let profile = (url.scheme() == Scheme::Https).then(|| self.profile(url.host(), account));
        let key = (profile, Route::to(url.host()));
        let mut agents = pool::lock(&self.agents);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.make(&key)?;
        let own = agent.clone();
        self.cancellation.on_cancel(move || own.clone().shutdown());
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// Returns the TLS profile of a host. Options for the host itself apply first. Other hosts,
    /// such as token servers and storage, inherit the trust settings of the registry `account`. A
    /// client certificate is shown only to the host it is configured for.
    fn profile(&self, host: &str, account: &str) -> TlsProfile {
        let name = if host == HUB_HOST { DOCKER_IO } else { host };
        let own = self.registries.get(name).filter(|options| options.speaks_tls());
        // Requests that no registry led to are not for `*`.
        let of_any = || self.registries.get(ANY_REGISTRY).filter(|_| !account.is_empty());
        let options = own.or_else(|| self.registries.get(account)).or_else(of_any);
        let mut ca = self.ca.clone();
        ca.extend(options.iter().flat_map(|options| options.ca.iter().cloned()));
        let security = options.and_then(|options| options.security);
        let unverified = security.is_some_and(Security::is_unverified);
        TlsProfile { unverified, ca, client: own.and_then(|options| options.client.clone()) }
    }

    fn make(&self, (profile, route): &PoolKey) -> Result<ureq::Agent, RegistryError> {
        let connect = if *route == Route::Metadata { METADATA_TIMEOUT } else { CONNECT_TIMEOUT };
        let mut config = ureq::config::Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(&self.user_agent)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(connect))
            .timeout_per_read(Some(IDLE_TIMEOUT))
            .timeout_per_write(Some(IDLE_TIMEOUT))
            .max_idle_connections(4 * MAX_IDLE_PER_HOST)
            .max_idle_connections_per_host(MAX_IDLE_PER_HOST);
        if *route != Route::Usual {
            config = config.proxy(None);
        }
        let (config, resolver) = (config.build(), Resolver);
        let connector = DefaultConnector::new();
        Ok(match profile {
            None => ureq::Agent::with_parts(config, connector, resolver),
            Some(profile) => {
                let tls = TlsConnector(tls::config(profile, &self.system)?);
                ureq::Agent::with_parts(config, connector.chain(tls), resolver)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tls::ClientCertificate;

    #[test]
    fn token_servers_inherit_trust_but_no_client_certificate() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let certificate = ClientCertificate { certificate: "c".into(), key: "k".into() };
        let registry = RegistryOptions {
            security: Some(Security::Unverified),
            ca: paths(&["own"]),
            client: Some(certificate.clone()),
            ..RegistryOptions::default()
        };
        let other = RegistryOptions { ca: paths(&["other"]), ..RegistryOptions::default() };
        let pools = ConnectionPools {
            user_agent: String::new(),
            registries: BTreeMap::from([
                ("docker.io".to_owned(), registry),
                ("told.example".to_owned(), other),
                ("silent.example".to_owned(), RegistryOptions::default()),
            ]),
            ca: paths(&["all"]),
            system: SystemRoots::default(),
            cancellation: Cancellation::default(),
            agents: Mutex::default(),
        };
        for (host, unverified, ca, client) in [
            ("registry-1.docker.io", true, &["all", "own"][..], Some(certificate)),
            ("auth.docker.io", true, &["all", "own"], None),
            ("silent.example", true, &["all", "own"], None),
            ("told.example", false, &["all", "other"], None),
        ] {
            let want = TlsProfile { unverified, ca: paths(ca), client };
            assert_eq!(pools.profile(host, "docker.io"), want, "{host}");
        }
        let want = TlsProfile { ca: paths(&["all"]), ..TlsProfile::default() };
        assert_eq!(pools.profile("auth.docker.io", ""), want);
    }
}
