//! Kaniko's flags about registries, as values of `--registry`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::oci::Reference;

use super::Host;
use super::flags::Given;

/// The name of Docker Hub in kaniko, and in rbuild.
const HUB: [&str; 2] = ["index.docker.io", "docker.io"];
/// Settings of all registries that have none of their own.
const ANY: &str = "*";

/// The settings of one registry.
#[derive(Debug, Default)]
struct Settings {
    /// True if plain http is accepted.
    http: bool,
    /// True if any certificate is accepted.
    insecure: bool,
    mirrors: Vec<String>,
    only_mirrors: bool,
    /// Further settings, as they are written.
    files: Vec<String>,
}

impl Settings {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.http.then(|| "http=auto".to_owned()));
        words.extend(self.insecure.then(|| "insecure".to_owned()));
        words.extend(self.mirrors.iter().map(|mirror| format!("mirror={mirror}")));
        words.extend(self.only_mirrors.then(|| "only-mirrors".to_owned()));
        words.extend(self.files.iter().cloned());
        words
    }
}

/// Returns the values of `--registry`, by the names of the registries.
pub(super) fn settings(given: &Given, host: &Host<'_>) -> Result<Vec<String>, String> {
    let mut all: BTreeMap<String, Settings> = BTreeMap::new();
    mirrors(given, host, &mut all)?;
    for name in given.all("insecure-registry") {
        all.entry(known(name)).or_default().http = true;
    }
    for name in given.all("skip-tls-verify-registry") {
        all.entry(known(name)).or_default().insecure = true;
    }
    files(given, &mut all)?;
    let any = Settings {
        http: given.is_on("insecure-pull"),
        insecure: given.is_on("skip-tls-verify-pull"),
        ..Settings::default()
    };
    // Kaniko's flags about pulls do not hold for pushes, so destinations have settings of their own.
    let has_any = any.http || any.insecure;
    for destination in given.all("destination") {
        let Ok(name) = destination.parse::<Reference>() else { continue };
        let own = Settings {
            http: given.is_on("insecure") || is_private(name.registry()),
            insecure: given.is_on("skip-tls-verify"),
            ..Settings::default()
        };
        if has_any || own.http || own.insecure || all.contains_key(name.registry()) {
            let settings = all.entry(name.registry().to_owned()).or_default();
            settings.http |= own.http;
            settings.insecure |= own.insecure;
        }
    }
    if has_any {
        // Mirrors and their registries are pulled from.
        for (_, settings) in all.iter_mut().filter(|(_, settings)| !settings.mirrors.is_empty()) {
            settings.http |= any.http;
            settings.insecure |= any.insecure;
        }
        all.insert(ANY.to_owned(), any);
    }
    Ok(all
        .iter()
        .map(|(name, settings)| [vec![name.clone()], settings.words()].concat().join(","))
        .collect())
}

/// Reads `--registry-mirror` and `--registry-map`, and their environment variables.
fn mirrors(
    given: &Given,
    host: &Host<'_>,
    all: &mut BTreeMap<String, Settings>,
) -> Result<(), String> {
    let map = (host.variable)("KANIKO_REGISTRY_MAP");
    let pairs = given.all("registry-map").iter().chain(&map);
    for pair in pairs.flat_map(|text| text.split(';')).filter(|pair| !pair.is_empty()) {
        let (registry, mirror) = pair
            .split_once('=')
            .ok_or_else(|| format!("--registry-map {pair}: expected REGISTRY=MIRROR"))?;
        all.entry(known(registry)).or_default().mirrors.push(mirror.to_owned());
    }
    let mirror = (host.variable)("KANIKO_REGISTRY_MIRROR");
    for mirror in given.all("registry-mirror").iter().chain(&mirror) {
        all.entry(HUB[1].to_owned()).or_default().mirrors.push(mirror.clone());
    }
    let only = given.is_on("skip-default-registry-fallback");
    all.values_mut().for_each(|settings| settings.only_mirrors = only);
    Ok(())
}

/// Reads `--registry-certificate` and `--registry-client-cert`.
fn files(given: &Given, all: &mut BTreeMap<String, Settings>) -> Result<(), String> {
    for pair in given.all("registry-certificate") {
        let (name, path) = pair
            .split_once('=')
            .ok_or_else(|| format!("--registry-certificate {pair}: expected REGISTRY=FILE"))?;
        // Kaniko's word for no verification.
        let settings = all.entry(known(name)).or_default();
        match path {
            "skip-tls-verify" => settings.insecure = true,
            path => settings.files.push(format!("ca={path}")),
        }
    }
    for pair in given.all("registry-client-cert") {
        let split =
            pair.split_once('=').and_then(|(name, files)| Some((name, files.split_once(',')?)));
        let (name, (certificate, key)) = split.ok_or_else(|| {
            format!("--registry-client-cert {pair}: expected REGISTRY=CERTIFICATE,KEY")
        })?;
        let settings = all.entry(known(name)).or_default();
        settings.files.extend([format!("cert={certificate}"), format!("key={key}")]);
    }
    Ok(())
}

/// Returns the name under which rbuild knows a registry.
fn known(name: &str) -> String {
    if name == HUB[0] { HUB[1].to_owned() } else { name.to_owned() }
}

/// Returns whether kaniko's library accepts plain http of a registry by itself: in private networks
/// (RFC 1918) and below `.local` (`Scheme` of `pkg/name/registry.go` in go-containerregistry).
fn is_private(registry: &str) -> bool {
    let host = registry.split(':').next().unwrap_or_default();
    host.ends_with(".local")
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_private())
}
