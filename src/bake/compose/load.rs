//! Files that compose files name: `include`, `extends` and `env_file`.

use std::collections::BTreeMap;

use super::interpolate::interpolate;
use super::merge::merge;
use super::yaml::{self, Node, NodeKind};
use super::{ComposeSettings, canonical, dotenv};
use crate::bake::paths;
use crate::bake::source::{BakeError, Place};
use crate::limits::MAX_BAKE_INCLUDES;

/// Reads files and brings them to their long form.
pub(super) struct Loader<'a> {
    pub(super) settings: &'a ComposeSettings<'a>,
    pub(super) environment: &'a BTreeMap<String, String>,
}

impl Loader<'_> {
    /// Interpolates a file, resolves what it includes and extends, and makes its paths clean.
    pub(super) fn file(&self, mut node: Node, name: &str, depth: usize) -> Result<Node, BakeError> {
        if depth > MAX_BAKE_INCLUDES {
            let message =
                format!("{name}: more than {MAX_BAKE_INCLUDES} files include one another");
            return Err(BakeError::at(node.at, message));
        }
        if !(node.is_null() || node.members().is_some()) {
            return Err(BakeError::at(node.at, "a compose file must be a map"));
        }
        interpolate(&mut node, &|name| self.environment.get(name).cloned())?;
        let included = self.included(&node, depth)?;
        let mut node = canonical_services(node)?;
        self.extend_all(&mut node, name)?;
        Ok(match included {
            Some(included) => merge(included, node),
            None => node,
        })
    }

    /// Reads a file that another one names at `at`. Errors in it are shown at that position.
    fn read(&self, path: &str, at: Place, depth: usize) -> Result<Node, BakeError> {
        let failed = |reason: String| BakeError::at(at, format!("cannot read {path:?}: {reason}"));
        let data = (self.settings.read)(path).map_err(failed)?;
        let data = data.ok_or_else(|| failed("no such file".to_owned()))?;
        let text = String::from_utf8(data).map_err(|error| failed(error.to_string()))?;
        let placed = |error: BakeError| failed(error.message);
        let node = yaml::parse(&text, at.file).map_err(placed)?;
        let mut node = self.file(node, path, depth).map_err(placed)?;
        rebase(&mut node, &paths::parent(path));
        set_places(&mut node, at);
        Ok(node)
    }

    fn included(&self, node: &Node, depth: usize) -> Result<Option<Node>, BakeError> {
        let mut merged: Option<Node> = None;
        for item in node.get("include").and_then(Node::items).unwrap_or(&[]) {
            let path = item.get("path").unwrap_or(item);
            let single = std::slice::from_ref(path);
            for path in path.items().unwrap_or(single) {
                let Some(text) = path.text() else {
                    return Err(BakeError::at(path.at, "include needs a path"));
                };
                let node = self.read(text, path.at, depth + 1)?;
                merged = Some(match merged {
                    Some(earlier) => merge(earlier, node),
                    None => node,
                });
            }
        }
        Ok(merged)
    }

    /// Merges each service with the one that it extends.
    fn extend_all(&self, node: &mut Node, name: &str) -> Result<(), BakeError> {
        let NodeKind::Map(members) = &mut node.kind else { return Ok(()) };
        let services = members.iter_mut().find(|(name, ..)| name == "services");
        let Some((_, _, services)) = services else { return Ok(()) };
        let original = services.clone();
        if let NodeKind::Map(members) = &mut services.kind {
            for (_, _, service) in members {
                *service = self.extended(service, &original, name, 0)?;
            }
        }
        Ok(())
    }

    fn extended(
        &self,
        service: &Node,
        services: &Node,
        file: &str,
        depth: usize,
    ) -> Result<Node, BakeError> {
        let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
        if depth > MAX_BAKE_INCLUDES {
            return Err(BakeError::at(extends.at, "services extend one another in a circle"));
        }
        let name = extends.get("service").unwrap_or(extends);
        let name = name
            .text()
            .ok_or_else(|| BakeError::at(extends.at, "extends needs the name of a service"))?;
        let other = match extends.get("file").and_then(Node::text) {
            Some(path) => {
                let path = match path.starts_with('/') {
                    true => paths::clean(path),
                    false => paths::join(&paths::parent(file), path),
                };
                Some(self.read(&path, extends.at, depth + 1)?)
            }
            None => None,
        };
        let services = other.as_ref().and_then(|file| file.get("services")).unwrap_or(services);
        let base = services.get(name).ok_or_else(|| {
            BakeError::at(extends.at, format!("unknown service {name:?} in extends"))
        })?;
        let base = match other.is_some() {
            true => base.clone(),
            false => self.extended(base, services, file, depth + 1)?,
        };
        let mut merged = merge(base, service.clone());
        if let NodeKind::Map(members) = &mut merged.kind {
            members.retain(|(name, ..)| name != "extends");
        }
        Ok(merged)
    }

    /// Returns the environment of a service: that of its files, and its own.
    pub(super) fn service_environment(
        &self,
        service: &Node,
    ) -> Result<BTreeMap<String, Option<String>>, BakeError> {
        let mut all = BTreeMap::new();
        for item in service.get("env_file").and_then(Node::items).unwrap_or(&[]) {
            let path = item.get("path").unwrap_or(item);
            let required = item.get("required").and_then(Node::text) != Some("false");
            let Some(path_text) = path.text() else {
                return Err(BakeError::at(path.at, "env_file needs a path"));
            };
            let failed = |reason: String| {
                BakeError::at(path.at, format!("cannot read {path_text:?}: {reason}"))
            };
            match (self.settings.read)(path_text).map_err(failed)? {
                None if required => return Err(failed("no such file".to_owned())),
                None => {}
                Some(data) => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    let lookup = |name: &str| self.environment.get(name).cloned();
                    let found = dotenv::parse(&text, &lookup).map_err(failed)?;
                    all.extend(found.into_iter().map(|(name, value)| (name, Some(value))));
                }
            }
        }
        for (name, _, value) in service.get("environment").and_then(Node::members).unwrap_or(&[]) {
            let value = value.text().map(str::to_owned);
            all.insert(name.clone(), value.or_else(|| self.environment.get(name).cloned()));
        }
        Ok(all)
    }
}

fn canonical_services(node: Node) -> Result<Node, BakeError> {
    let (at, tag) = (node.at, node.tag);
    let NodeKind::Map(members) = node.kind else { return Ok(node) };
    let members = members.into_iter().filter(|(name, ..)| name == "services" || name == "secrets");
    let members = members.map(|(name, place, value)| {
        let value = match (name.as_str(), value.kind) {
            ("services", NodeKind::Map(services)) => {
                let services = services
                    .into_iter()
                    .map(|(name, place, service)| Ok((name, place, canonical::service(service)?)));
                let kind = NodeKind::Map(services.collect::<Result<_, BakeError>>()?);
                Node::new(kind, value.at)
            }
            ("services", NodeKind::Scalar(_) | NodeKind::List(_)) => {
                return Err(BakeError::at(value.at, "services must be a map"));
            }
            (_, kind) => Node { kind, at: value.at, tag: value.tag },
        };
        Ok((name, place, value))
    });
    let kind = NodeKind::Map(members.collect::<Result<_, BakeError>>()?);
    Ok(Node { kind, at, tag })
}

/// Makes the paths of an included file relative to the working directory.
fn rebase(node: &mut Node, base: &str) {
    let NodeKind::Map(parts) = &mut node.kind else { return };
    for (part, _, entries) in parts {
        let NodeKind::Map(entries) = &mut entries.kind else { continue };
        for (_, _, entry) in entries {
            let NodeKind::Map(members) = &mut entry.kind else { continue };
            for (name, _, value) in members {
                match (part.as_str(), name.as_str()) {
                    ("secrets", "file") => rebase_text(value, base),
                    ("services", "env_file") => each_path(value, base),
                    ("services", "build") => rebase_build(value, base),
                    _ => {}
                }
            }
        }
    }
}

fn rebase_build(node: &mut Node, base: &str) {
    let NodeKind::Map(members) = &mut node.kind else { return };
    let mut has_context = false;
    for (name, _, value) in members.iter_mut() {
        match (name.as_str(), &mut value.kind) {
            ("context", _) => {
                has_context = true;
                rebase_text(value, base);
            }
            ("additional_contexts", NodeKind::Map(contexts)) => {
                contexts.iter_mut().for_each(|(_, _, context)| rebase_text(context, base));
            }
            _ => {}
        }
    }
    if !has_context {
        let context = Node::new(NodeKind::Scalar(base.to_owned()), node.at);
        members.push(("context".to_owned(), node.at, context));
    }
}

fn each_path(node: &mut Node, base: &str) {
    let NodeKind::List(items) = &mut node.kind else { return };
    for item in items {
        if let NodeKind::Map(members) = &mut item.kind {
            let paths = members.iter_mut().filter(|(name, ..)| name == "path");
            paths.for_each(|(_, _, path)| rebase_text(path, base));
        } else {
            rebase_text(item, base);
        }
    }
}

fn rebase_text(node: &mut Node, base: &str) {
    if let NodeKind::Scalar(text) = &mut node.kind {
        let fixed = text.starts_with('/') || text.starts_with('~') || text.contains("://");
        let other = text.starts_with("service:") || text.starts_with("target:");
        if !(fixed || other || text.is_empty() || paths::is_remote(text)) {
            *text = paths::join(base, text);
        }
    }
}

/// Moves all positions of a tree: errors about an included file are shown where it is named.
fn set_places(node: &mut Node, at: Place) {
    node.at = at;
    match &mut node.kind {
        NodeKind::Null | NodeKind::Scalar(_) => {}
        NodeKind::List(items) => items.iter_mut().for_each(|item| set_places(item, at)),
        NodeKind::Map(members) => {
            for (_, place, value) in members {
                *place = at;
                set_places(value, at);
            }
        }
    }
}
