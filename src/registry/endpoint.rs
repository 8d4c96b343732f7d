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
    /// Path below which a mirror has the repositories of the registry. Empty, or ends with a slash.
    prefix: String,
}

impl Endpoint {
    /// Returns the registry of `name`.
    pub(super) fn of(name: &Reference, options: &Options) -> Self {
        let registry = name.registry();
        let host = if registry == DOCKER_IO { HUB_HOST } else { registry };
        let base = Url::root(scheme(registry, host, options), host);
        Self { base, account: registry.to_owned(), namespace: None, prefix: String::new() }
    }

    /// Returns the mirrors of the registry of `name`, in the order of requests.
    pub(super) fn mirrors(name: &Reference, options: &Options) -> Result<Vec<Self>, RegistryError> {
        let registry = name.registry();
        let said = options.registry(registry);
        let mirrors = said.iter().flat_map(|said| &said.mirrors);
        mirrors.map(|text| Self::mirror(text, registry, options)).collect()
    }

    /// Parses a mirror of `registry`: the address of its API, or a name `HOST[/PATH]` below which it has
    /// the repositories, as pull-through caches of Harbor, Nexus and cloud registries do.
    pub(super) fn mirror(
        text: &str,
        registry: &str,
        options: &Options,
    ) -> Result<Self, RegistryError> {
        let error = |why| {
            let shown = text.rsplit('@').next().unwrap_or_default();
            RegistryError::BadOption { option: format!("mirror {shown} of {registry}"), why }
        };
        if !text.contains("://") {
            let wrong = "it must be an address such as https://mirror.example or a name such as \
                         mirror.example/hub";
            return Self::named_mirror(text, options).ok_or_else(|| error(wrong));
        }
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
        let (namespace, prefix) = (Some(registry.to_owned()), String::new());
        Ok(Self { base, account, namespace, prefix })
    }

    fn named_mirror(text: &str, options: &Options) -> Option<Self> {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path = path.trim_end_matches('/');
        // The rules for the names of images hold for the path, too.
        let name: Reference = format!("{host}/{path}/any").replace("//", "/").parse().ok()?;
        if name.registry() != host && host != HUB_HOST {
            return None;
        }
        let base = Url::root(scheme(host, host, options), host);
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Some(Self { base, account: host.to_owned(), namespace: None, prefix })
    }

    /// Returns the name of a repository on this server.
    pub(super) fn repository(&self, repository: &str) -> String {
        format!("{}{repository}", self.prefix)
    }

    /// Returns the address of `rest` (`manifests/…`, `blobs/…`) in `repository`.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Url {
        let url = self.base.below(&format!("v2/{}{repository}/{rest}", self.prefix));
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

/// Returns the protocol of the registry `name` at `host`.
fn scheme(name: &str, host: &str, options: &Options) -> Scheme {
    let said = options.registry(name);
    match said.and_then(|said| said.security) {
        Some(Security::Http) => Scheme::Http,
        Some(Security::Automatic { .. }) if options.offline => Scheme::Https,
        Some(Security::Automatic { .. }) => options.scheme_probe.scheme(host),
        Some(Security::Verified | Security::Unverified) => Scheme::Https,
        // Registries at loopback addresses rarely have a certificate. Docker treats them as
        // insecure, too (<https://docs.docker.com/reference/cli/dockerd/#insecure-registries>).
        None if is_loopback(host) && !said.is_some_and(RegistryOptions::speaks_tls) => Scheme::Http,
        None => Scheme::Https,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::{NonZeroU64, NonZeroUsize};
    use std::time::Duration;

    use super::*;
    use crate::registry::cloud::CloudOptions;
    use crate::registry::scheme_probe::SchemeProbe;

    fn options(registries: BTreeMap<String, RegistryOptions>) -> Options {
        Options {
            registries,
            ca: Vec::new(),
            docker_auth: None,
            auth_files: Vec::new(),
            logins: BTreeMap::new(),
            cloud: CloudOptions::default(),
            scheme_probe: SchemeProbe::default(),
            user_agent: "rbuild".to_owned(),
            retries: 0,
            offline: false,
            first_delay: Duration::ZERO,
            jitter_seed: 0,
            transfers_per_host: NonZeroUsize::MIN,
            part_bytes: NonZeroU64::MIN,
        }
    }

    #[test]
    fn mirrors_come_first_and_the_registry_itself_last() {
        let mirrors = ["http://127.0.0.1:5000", "https://m.example/hub/", "harbor.example/hub/x"];
        let mirrors = mirrors.map(str::to_owned).to_vec();
        let plain = RegistryOptions::default();
        let of = |security| RegistryOptions { security: Some(security), ..plain.clone() };
        let options = options(BTreeMap::from([
            ("docker.io".to_owned(), RegistryOptions { mirrors, ..plain.clone() }),
            ("plain.example:80".to_owned(), of(Security::Http)),
            ("localhost:5443".to_owned(), of(Security::Verified)),
        ]));
        for (name, want) in [
            (
                "busybox",
                &[
                    "http://127.0.0.1:5000/v2/library/busybox/tags/list?ns=docker.io",
                    "https://m.example/hub/v2/library/busybox/tags/list?ns=docker.io",
                    "https://harbor.example/v2/hub/x/library/busybox/tags/list",
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
                "mirror.example/Hub",
                "invalid registry option mirror mirror.example/Hub of docker.io: it must be an \
                 address such as https://mirror.example or a name such as mirror.example/hub",
            ),
            (
                "ftp://mirror.example",
                "invalid registry option mirror ftp://mirror.example of docker.io: it must be an \
                 address such as https://mirror.example or http://127.0.0.1:5000",
            ),
            (
                "https://user:secret@m.example",
                "invalid registry option mirror m.example of docker.io: an address must not \
                 contain credentials; use docker's config.json",
            ),
        ] {
            let error = Endpoint::mirror(text, "docker.io", &options(BTreeMap::new()));
            assert_eq!(error.unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn options_of_all_registries_apply_where_there_are_no_others() {
        let of = |security| RegistryOptions { security, ..RegistryOptions::default() };
        let options = options(BTreeMap::from([
            ("*".to_owned(), of(Some(Security::Http))),
            ("own.example".to_owned(), of(None)),
        ]));
        for (name, want) in
            [("a.example/b", "http://a.example/"), ("own.example/b", "https://own.example/")]
        {
            let base = Endpoint::of(&name.parse().unwrap(), &options).base;
            assert_eq!(base.for_wire(), want);
        }
    }
}
