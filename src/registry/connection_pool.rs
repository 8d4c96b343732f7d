//! Connections, kept open for reuse: a pool for each way to make them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::unversioned::transport::{Connector as _, DefaultConnector};

use super::RegistryError;
use super::cancel::Halt;
use super::endpoint::{DOCKER_IO, HUB_HOST};
use super::name_lookup::Resolver;
use super::options::{Options, RegistryOptions, Security};
use super::tls::{self, Profile, System, TlsConnector};
use super::url::{Scheme, Url, is_loopback};

/// For name lookup, connection and handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be silent. A registry that moves a large upload into place is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// As many pulls or pushes as run at a time should find a connection.
const MAX_IDLE_PER_HOST: usize = 16;

/// A way to make connections: the profile of TLS, if there is TLS, and whether a proxy is passed by.
type Way = (Option<Profile>, bool);

pub(super) struct Agents {
    user_agent: String,
    registries: BTreeMap<String, RegistryOptions>,
    ca: Vec<PathBuf>,
    system: System,
    halt: Halt,
    made: Mutex<BTreeMap<Way, ureq::Agent>>,
}

impl Agents {
    pub(super) fn new(options: &Options, halt: &Halt) -> Self {
        Self {
            halt: halt.clone(),
            user_agent: options.user_agent.clone(),
            registries: options.registries.clone(),
            ca: options.ca.clone(),
            system: System::default(),
            made: Mutex::default(),
        }
    }

    /// The connections for `url`, to which the registry `account` has led us, if any.
    pub(super) fn of(&self, url: &Url, account: &str) -> Result<ureq::Agent, RegistryError> {
        let profile = (url.scheme() == Scheme::Https).then(|| self.profile(url.host(), account));
        // No proxy can reach this machine's own servers.
        let way = (profile, is_loopback(url.host()));
        // A panic elsewhere leaves the map as good as it was.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = made.get(&way) {
            return Ok(agent.clone());
        }
        let agent = self.make(&way)?;
        let own = agent.clone();
        self.halt.also(move || own.clone().shutdown());
        made.insert(way, agent.clone());
        Ok(agent)
    }

    /// What is said of a host holds for it; whoever nothing is said of, the token server or the
    /// storage of a registry, is believed as the registry is. Our own certificate is shown only to
    /// those whom it is meant for.
    fn profile(&self, host: &str, account: &str) -> Profile {
        let name = if host == HUB_HOST { DOCKER_IO } else { host };
        let own = self.registries.get(name).filter(|options| options.speaks_tls());
        let options = own.or_else(|| self.registries.get(account));
        let mut ca = self.ca.clone();
        ca.extend(options.iter().flat_map(|options| options.ca.iter().cloned()));
        let security = options.and_then(|options| options.security);
        let unverified = security == Some(Security::Unverified);
        Profile { unverified, ca, client: own.and_then(|options| options.client.clone()) }
    }

    fn make(&self, (profile, is_direct): &Way) -> Result<ureq::Agent, RegistryError> {
        let mut config = ureq::config::Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(&self.user_agent)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(IDLE_TIMEOUT))
            .timeout_per_write(Some(IDLE_TIMEOUT))
            .max_idle_connections(4 * MAX_IDLE_PER_HOST)
            .max_idle_connections_per_host(MAX_IDLE_PER_HOST);
        if *is_direct {
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
    fn what_is_said_of_a_registry_holds_for_those_it_leads_to() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let certificate = ClientCertificate { certificate: "c".into(), key: "k".into() };
        let registry = RegistryOptions {
            security: Some(Security::Unverified),
            ca: paths(&["own"]),
            client: Some(certificate.clone()),
            ..RegistryOptions::default()
        };
        let other = RegistryOptions { ca: paths(&["other"]), ..RegistryOptions::default() };
        let agents = Agents {
            user_agent: String::new(),
            registries: BTreeMap::from([
                ("docker.io".to_owned(), registry),
                ("told.example".to_owned(), other),
                ("silent.example".to_owned(), RegistryOptions::default()),
            ]),
            ca: paths(&["all"]),
            system: System::default(),
            halt: Halt::default(),
            made: Mutex::default(),
        };
        for (host, unverified, ca, client) in [
            ("registry-1.docker.io", true, &["all", "own"][..], Some(certificate)),
            ("auth.docker.io", true, &["all", "own"], None),
            ("silent.example", true, &["all", "own"], None),
            ("told.example", false, &["all", "other"], None),
        ] {
            let want = Profile { unverified, ca: paths(ca), client };
            assert_eq!(agents.profile(host, "docker.io"), want, "{host}");
        }
        let want = Profile { ca: paths(&["all"]), ..Profile::default() };
        assert_eq!(agents.profile("auth.docker.io", ""), want);
    }
}
