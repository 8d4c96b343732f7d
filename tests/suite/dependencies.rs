//! `deny.toml`, checked where cargo-deny is not installed: licences, versions and sources of all
//! crates that are compiled on Linux.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests run cargo and panic on failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::support::source;

/// A crate that is compiled.
struct Package {
    name: String,
    version: String,
    license: String,
    source: Option<String>,
}

/// Returns all crates in the dependency tree, including those of the tests.
fn packages() -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(source::root());
    let done = cargo.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metadata: Value = serde_json::from_slice(&done.stdout).unwrap();
    let list = |value: &Value| value.as_array().cloned().unwrap();
    let compiled: BTreeSet<String> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| node["id"].to_string()).collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let packages = list(&metadata["packages"]).into_iter();
    let packages = packages.filter(|package| compiled.contains(&package["id"].to_string()));
    packages
        .map(|package| Package {
            name: text(&package["name"]).unwrap(),
            version: text(&package["version"]).unwrap(),
            license: text(&package["license"]).unwrap_or_default(),
            source: text(&package["source"]),
        })
        .collect()
}

fn rules() -> toml::Table {
    source::text_of("deny.toml").parse().unwrap()
}

fn texts(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Returns whether the licences `allowed` satisfy an SPDX expression.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // Crates from before SPDX write `A/B`. `WITH` belongs to its licence.
    let text = expression.replace('/', " OR ").replace(" WITH ", "\u{1}");
    let text = text.replace('(', " ( ").replace(')', " ) ");
    let mut tokens = text.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
    let is_met = any_of(&mut tokens, allowed);
    is_met && tokens.next().is_none()
}

type Tokens<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn any_of(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut is_met = all_of(tokens, allowed);
    while tokens.next_if_eq(&"OR").is_some() {
        is_met |= all_of(tokens, allowed);
    }
    is_met
}

fn all_of(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut is_met = one(tokens, allowed);
    while tokens.next_if_eq(&"AND").is_some() {
        is_met &= one(tokens, allowed);
    }
    is_met
}

fn one(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> bool {
    match tokens.next() {
        Some("(") => any_of(tokens, allowed) && tokens.next() == Some(")"),
        Some(licence) => allowed.contains(&licence.replace('\u{1}', " WITH ")),
        None => false,
    }
}

#[test]
fn licences_are_those_of_deny_toml() {
    let allowed = texts(&rules()["licenses"]["allow"]);
    let packages = packages();
    let bad = packages.iter().filter(|package| !is_allowed(&package.license, &allowed));
    let bad: Vec<String> =
        bad.map(|package| format!("{}: {}", package.name, package.license)).collect();
    assert!(bad.is_empty(), "licences that deny.toml does not allow: {bad:#?}");
    for licence in &allowed {
        let is_used = packages.iter().any(|package| package.license.contains(licence));
        assert!(is_used, "no crate has the licence {licence}: take it off the list");
    }
}

#[test]
fn no_crate_is_there_twice_but_those_of_deny_toml() {
    let rules = rules();
    let skipped = rules["bans"]["skip"].as_array().unwrap();
    let skipped: BTreeSet<&str> =
        skipped.iter().map(|entry| entry["crate"].as_str().unwrap()).collect();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for package in packages() {
        let full = format!("{}@{}", package.name, package.version);
        if !skipped.contains(full.as_str()) {
            versions.entry(package.name).or_default().push(package.version);
        }
        all.insert(full);
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "several versions: {versions:?}");
    let stale: Vec<&&str> = skipped.iter().filter(|full| !all.contains(**full)).collect();
    assert!(stale.is_empty(), "take these off the list: {stale:?}");
}

#[test]
fn every_crate_is_from_the_registry_of_deny_toml() {
    let allowed = texts(&rules()["sources"]["allow-registry"]);
    let bad = packages().into_iter().filter(|package| {
        let registry = package.source.as_deref().map(|text| text.trim_start_matches("registry+"));
        let is_ours = package.name == "rbuild" && registry.is_none();
        !(is_ours || registry.is_some_and(|registry| allowed.contains(registry)))
    });
    let bad: Vec<String> = bad.map(|package| package.name).collect();
    assert!(bad.is_empty(), "from elsewhere: {bad:?}");
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed: BTreeSet<String> = ["MIT", "A WITH B"].map(str::to_owned).into();
    for (expression, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("GPL-3.0 AND X OR MIT", true),
        ("(GPL-3.0 OR MIT) AND A WITH B", true),
        ("(GPL-3.0 OR MIT) AND A", false),
        ("", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), want, "{expression}");
    }
}
