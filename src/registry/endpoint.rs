//! Servers that provide a registry's images: its mirrors in order, then the registry itself.

use super::RegistryError;
use super::options::{Options, RegistryOptions, Security};
use super::url::{Scheme, Url, is_loopback};
use crate::oci::Reference;

/// The registry of Docker Hub in image names.
pub(super) const DOCKER_IO: &str = "docker.io";
/// The host that serves the images of docker.io.
pub(super) const HUB_HOST: &str = "registry-1.docker.io";

/// A server that implements the distribution API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Base address, to which `/v2/` is appended.
    pub(super) base: Url,
    /// The name under which its credentials are stored.
    pub(super) account: String,
    /// The registry that a mirror replaces, sent as the query member `ns` as containerd does
    /// (`addNamespace` in its `remotes/docker/resolver.go`).
    namespace: Option<String>,
}

impl Endpoint {
    /// Returns the registry of `name`.
    pub(super) fn of(name: &Reference, options: &Options) -> Self {
        let registry = name.registry();
        let host = if registry == DOCKER_IO { HUB_HOST } else { registry };
        let said = options.registries.get(registry);
        let plain = said.is_some_and(|said| said.security == Some(Security::Http));
        // Registries at loopback addresses rarely have a certificate. Docker treats them as
        // insecure, too (<https://docs.docker.com/reference/cli/dockerd/#insecure-registries>).
        let own = is_loopback(host) && !said.is_some_and(RegistryOptions::speaks_tls);
        let scheme = if plain || own { Scheme::Http } else { Scheme::Https };
        let base = Url::root(scheme, host);
        Self { base, account: registry.to_owned(), namespace: None }
    }

    /// Returns the mirrors of the registry of `name`, in the order of requests.
    pub(super) fn mirrors(name: &Reference, options: &Options) -> Result<Vec<Self>, RegistryError> {
        let registry = name.registry();
        let said = options.registries.get(registry);
        let mirrors = said.iter().flat_map(|said| &said.mirrors);
        mirrors.map(|text| Self::mirror(text, registry)).collect()
    }

    /// Parses the address of a mirror of `registry`.
    pub(super) fn mirror(text: &str, registry: &str) -> Result<Self, RegistryError> {
        let error = |why| {
            let shown = text.rsplit('@').next().unwrap_or_default();
            RegistryError::BadOption { option: format!("mirror {shown} of {registry}"), why }
        };
        let base = Url::parse(text).ok_or_else(|| {
            error("it must be an address such as https://mirror.example or http://127.0.0.1:5000")
        })?;
        if text.contains('@') {
            return Err(error("an address must not contain credentials; use docker's config.json"));
        }
        if text.contains(['?', '#']) {
            return Err(error("it must not have a query or a fragment"));
        }
        let account = base.host().to_owned();
        Ok(Self { base, account, namespace: Some(registry.to_owned()) })
    }

    /// Returns the address of `rest` (`manifests/…`, `blobs/…`) in `repository`.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Url {
        let url = self.base.below(&format!("v2/{repository}/{rest}"));
        match &self.namespace {
            Some(registry) => url.with_query("ns", registry),
            None => url,
        }
    }

    /// Returns whether credentials for this endpoint may be sent to `url`.
    pub(super) fn has_origin_of(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::{NonZeroU64, NonZeroUsize};
    use std::time::Duration;

    use super::*;

    #[test]
    fn mirrors_come_first_and_the_registry_itself_last() {
        let mirrors = vec!["http://127.0.0.1:5000".to_owned(), "https://m.example/hub/".to_owned()];
        let plain = RegistryOptions::default();
        let of = |security| RegistryOptions { security: Some(security), ..plain.clone() };
        let options = Options {
            registries: BTreeMap::from([
                ("docker.io".to_owned(), RegistryOptions { mirrors, ..plain.clone() }),
                ("plain.example:80".to_owned(), of(Security::Http)),
                ("localhost:5443".to_owned(), of(Security::Verified)),
            ]),
            ca: Vec::new(),
            docker_config: None,
            user_agent: "rbuild".to_owned(),
            retries: 0,
            offline: false,
            first_delay: Duration::ZERO,
            jitter_seed: 0,
            transfers_per_host: NonZeroUsize::MIN,
            part_bytes: NonZeroU64::MIN,
        };
        for (name, want) in [
            (
                "busybox",
                &[
                    "http://127.0.0.1:5000/v2/library/busybox/tags/list?ns=docker.io",
                    "https://m.example/hub/v2/library/busybox/tags/list?ns=docker.io",
                    "https://registry-1.docker.io/v2/library/busybox/tags/list",
                ][..],
            ),
            ("localhost:5000/a/b", &["http://localhost:5000/v2/a/b/tags/list"][..]),
            ("localhost:5443/a/b", &["https://localhost:5443/v2/a/b/tags/list"][..]),
            ("[::1]:5000/a", &["http://[::1]:5000/v2/a/tags/list"][..]),
            ("plain.example:80/a", &["http://plain.example:80/v2/a/tags/list"][..]),
            ("ghcr.io/a/b", &["https://ghcr.io/v2/a/b/tags/list"][..]),
        ] {
            let name: Reference = name.parse().unwrap();
            let mut all = Endpoint::mirrors(&name, &options).unwrap();
            all.push(Endpoint::of(&name, &options));
            let urls: Vec<String> =
                all.iter().map(|e| e.url(name.repository(), "tags/list").for_wire()).collect();
            assert_eq!(urls, want);
        }
    }

    #[test]
    fn invalid_mirrors_are_refused_without_showing_secrets() {
        for (text, want) in [
            (
                "mirror.example",
                "invalid registry option mirror mirror.example of docker.io: it must be an \
                 address such as https://mirror.example or http://127.0.0.1:5000",
            ),
            (
                "https://user:secret@m.example",
                "invalid registry option mirror m.example of docker.io: an address must not \
                 contain credentials; use docker's config.json",
            ),
        ] {
            assert_eq!(Endpoint::mirror(text, "docker.io").unwrap_err().to_string(), want);
        }
    }
}
