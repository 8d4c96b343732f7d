//! Permissions that a bake file may ask for and the command line grants with `--allow`, as in Buildx: the
//! network of the host, all rights of a step, SSH agents, and paths outside of the working directory.

use std::path::{Path, PathBuf};

use crate::bake::{self, Target};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

/// Entitlements of steps and outputs.
const OF_STEPS: [&str; 4] =
    ["network.host", "security.insecure", "local.special", "buildx.local.delete"];

/// The grants of a command line.
#[derive(Debug, Default)]
pub(super) struct Grants {
    names: Vec<String>,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    /// True if `BUILDX_BAKE_ENTITLEMENTS_FS` switches checks of paths and agents off.
    permits_paths: bool,
}

impl Grants {
    /// Reads the values of `--allow`. Paths in `directory`, the working directory, are always granted.
    ///
    /// # Errors
    /// A usage error for an unknown name.
    pub(super) fn new(
        values: &[String],
        directory: &Path,
        permits_paths: bool,
    ) -> Result<Self, CliError> {
        let here = vec![resolved(directory)];
        let (read, write) = (here.clone(), here);
        let mut grants = Self { names: Vec::new(), read, write, permits_paths };
        for value in values {
            grants.add(value)?;
        }
        Ok(grants)
    }

    /// Adds one grant.
    ///
    /// # Errors
    /// A usage error for an unknown name.
    pub(super) fn add(&mut self, value: &str) -> Result<(), CliError> {
        let (name, path) = value.split_once('=').unwrap_or((value, ""));
        let path = if path == "*" { PathBuf::from("/") } else { resolved(Path::new(path)) };
        match name {
            "fs" => {
                self.read.push(path.clone());
                self.write.push(path);
            }
            "fs.read" => self.read.push(path),
            "fs.write" => self.write.push(path),
            "network.host"
            | "security.insecure"
            | "ssh"
            | "local.special"
            | "buildx.local.delete" => {
                self.names.push(name.to_owned());
            }
            // Pushes and loads are asked for by options and outputs, which the user reads.
            "image" | "image.push" | "image.load" => {}
            other => {
                let text = format!(
                    "error: --allow {other}: it must be one of network.host, security.insecure, \
                     local.special, ssh, fs=PATH, fs.read=PATH and fs.write=PATH"
                );
                return Err(CliError::new(text, Exit::Usage));
            }
        }
        Ok(())
    }

    /// Returns the grants that a target lacks, as values of `--allow`.
    pub(super) fn missing(&self, target: &Target) -> Vec<String> {
        let names = target.entitlements.iter().flatten();
        let names = names.filter(|name| OF_STEPS.contains(&name.as_str()));
        let mut missing: Vec<String> =
            names.filter(|name| !self.names.contains(name)).cloned().collect();
        if self.permits_paths {
            return missing;
        }
        let uses_agent = target.ssh.iter().flatten().any(|key| key.paths.is_empty());
        if uses_agent && !self.names.iter().any(|name| name == "ssh") {
            missing.push("ssh".to_owned());
        }
        let mut need = |kind: &str, granted: &[PathBuf], paths: Vec<&str>| {
            for path in paths.into_iter().filter(|path| !path.is_empty()) {
                let path = resolved(Path::new(path));
                if !granted.iter().any(|granted| path.starts_with(granted)) {
                    missing.push(format!("{kind}={}", path.display()));
                }
            }
        };
        need("fs.read", &self.read, read_by(target));
        need("fs.write", &self.write, written_by(target));
        missing
    }
}

/// Returns the paths that a target reads.
fn read_by(target: &Target) -> Vec<&str> {
    let is_path = |text: &&str| {
        !text.contains("://") && !text.starts_with("target:") && !bake::is_remote(text)
    };
    let context = target.context.as_deref().unwrap_or(".");
    let named = target.contexts.iter().flat_map(|contexts| contexts.values().map(String::as_str));
    let layouts = named.clone().filter_map(|value| value.strip_prefix("oci-layout://"));
    let mut paths: Vec<&str> =
        std::iter::once(context).chain(named).filter(is_path).chain(layouts).collect();
    paths.extend(target.secrets.iter().flatten().map(|secret| secret.source.as_str()));
    paths.extend(target.ssh.iter().flatten().flat_map(|key| key.paths.iter().map(String::as_str)));
    let caches = target.cache_from.iter().flatten().filter(|cache| cache.kind == "local");
    paths.extend(caches.filter_map(|cache| cache.attributes.get("src").map(String::as_str)));
    // A path of a Dockerfile may lead out of the context.
    let dockerfile = target.dockerfile.as_deref().filter(|path| Path::new(path).is_absolute());
    paths.extend(dockerfile);
    paths
}

/// Returns the paths that a target writes.
fn written_by(target: &Target) -> Vec<&str> {
    let outputs = target.outputs.iter().flatten().filter(|_| !target.linked);
    let outputs = outputs.map(|output| output.destination.as_str()).filter(|path| *path != "-");
    let caches = target.cache_to.iter().flatten().filter(|cache| cache.kind == "local");
    outputs
        .chain(caches.filter_map(|cache| cache.attributes.get("dest").map(String::as_str)))
        .collect()
}

/// Returns the absolute path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_error| path.to_owned());
    let mut missing = Vec::new();
    let mut at = absolute.as_path();
    loop {
        if let Ok(real) = at.canonicalize() {
            return missing.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name.to_owned());
                at = parent;
            }
            // Nothing of it exists, or it ends with `..` behind a missing directory.
            _ => return absolute,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bake::{Output, Secret, SshKey};

    #[test]
    fn paths_outside_of_the_working_directory_need_a_grant() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path().canonicalize().unwrap();
        let inside = |name: &str| here.join(name).display().to_string();
        let target = Target {
            context: Some(inside("app")),
            secrets: Some(vec![Secret {
                id: "s".into(),
                source: "/etc/hostname".into(),
                ..Secret::default()
            }]),
            outputs: Some(vec![Output {
                kind: "local".into(),
                destination: "/nowhere/out".into(),
                ..Output::default()
            }]),
            ssh: Some(vec![SshKey { id: "default".into(), paths: Vec::new() }]),
            entitlements: Some(vec!["network.host".into()]),
            ..Target::default()
        };
        let none = Grants::new(&[], &here, false).unwrap();
        let all = ["network.host", "ssh", "fs.read=/etc/hostname", "fs.write=/nowhere/out"];
        assert_eq!(none.missing(&target), all);
        let given = all.map(str::to_owned);
        assert!(Grants::new(&given, &here, false).unwrap().missing(&target).is_empty());
        let tree = ["network.host", "ssh", "fs=*"].map(str::to_owned);
        assert!(Grants::new(&tree, &here, false).unwrap().missing(&target).is_empty());
        assert_eq!(Grants::new(&[], &here, true).unwrap().missing(&target), ["network.host"]);
        assert!(Grants::new(&["x".to_owned()], &here, false).is_err());
    }

    #[test]
    fn links_do_not_lead_out_of_the_working_directory() {
        let here = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", here.path().join("link")).unwrap();
        let context = here.path().join("link").display().to_string();
        let target = Target { context: Some(context), ..Target::default() };
        let grants = Grants::new(&[], here.path(), false).unwrap();
        assert_eq!(grants.missing(&target), ["fs.read=/etc"]);
    }
}
