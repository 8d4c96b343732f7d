//! The targets of a command line: inheritance, overrides, contexts that are other targets.

use std::collections::BTreeMap;

use super::config::{Config, Group, dedupe, rebased};
use super::overrides::{Granted, Overrides};
use super::paths;
use super::source::BakeError;
use super::target::{Output, Target};
use super::wildcard;
use crate::diag::nearest;

/// The targets to build, and what the command line says about them.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Names and patterns of targets and groups; none for `default`.
    pub targets: Vec<String>,
    /// Values of `--set` and of the options that are short for it, in order.
    pub overrides: Vec<String>,
    /// Value of `SOURCE_DATE_EPOCH`, which becomes a build argument.
    pub epoch: Option<String>,
    /// URL that the definitions were read from: contexts are below it.
    pub remote: Option<String>,
    /// If set, `--policy disabled=true` was given.
    pub disable_policy: bool,
}

/// The groups and targets to build.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// Groups by name; `default` has all requested names.
    pub groups: BTreeMap<String, Group>,
    /// Targets by name, with those that others use as contexts.
    pub targets: BTreeMap<String, Target>,
    /// Permissions that overrides imply.
    pub granted: Granted,
}

struct Resolver<'a> {
    config: &'a Config,
    overrides: Overrides,
    granted: Granted,
}

/// Resolves the requested targets.
///
/// # Errors
/// A target does not exist or refers to itself, or an override is wrong.
pub fn resolve(
    config: &Config,
    request: &Request,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Definitions, BakeError> {
    let overrides = Overrides::parse(&request.overrides, config, lookup)?;
    let mut resolver = Resolver { config, overrides, granted: Granted::default() };
    let names = requested(config, &request.targets)?;
    let mut targets = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for name in &names {
        let (members, own_groups) = config.expand(name);
        for member in members {
            targets.insert(member.clone(), resolver.target(&member)?);
        }
        for group in own_groups {
            groups.extend(config.group(&group).map(|found| (group, found.clone())));
        }
    }
    for name in &names {
        if name != "default" || !groups.contains_key("default") {
            groups.entry("default".to_owned()).or_default().targets.push(name.clone());
        }
    }
    if let Some(group) = groups.get_mut("default") {
        group.targets.sort_unstable();
        group.targets.dedup();
    }
    let all: Vec<String> = targets.keys().cloned().collect();
    for name in all {
        resolver.link(&name, &mut targets, &mut Vec::new())?;
    }
    for target in targets.values_mut() {
        finish(target, request);
    }
    Ok(Definitions { groups, targets, granted: resolver.granted })
}

/// Returns the names of the command line with patterns expanded.
fn requested(config: &Config, texts: &[String]) -> Result<Vec<String>, BakeError> {
    let default = ["default".to_owned()];
    let texts = if texts.is_empty() { default.as_slice() } else { texts };
    let mut names = Vec::new();
    for text in texts {
        // Compose permits dots in names, buildx does not.
        let text = text.replace('.', "_");
        if !wildcard::is_pattern(&text) {
            names.push(text);
            continue;
        }
        let groups = config.groups.iter().map(|(name, _)| name);
        let all = groups.chain(config.targets.iter().map(|(name, _)| name));
        let found: Vec<String> =
            all.filter(|name| wildcard::matches(&text, name)).cloned().collect();
        if found.is_empty() {
            return Err(BakeError::new(format!("no target matches {text:?}")));
        }
        names.extend(found);
    }
    dedupe(&mut names);
    Ok(names)
}

/// Makes the paths of a target clean, and adds what the whole command line says.
fn finish(target: &mut Target, request: &Request) {
    if request.disable_policy {
        let disabled = super::target::PolicyConfig { disabled: true, ..Default::default() };
        target.policy = Some(vec![disabled]);
    }
    let has_epoch = target.args.as_ref().is_some_and(|args| args.contains_key("SOURCE_DATE_EPOCH"));
    if let (false, Some(epoch)) = (has_epoch, request.epoch.as_ref().filter(|e| !e.is_empty())) {
        let args = target.args.get_or_insert_default();
        args.insert("SOURCE_DATE_EPOCH".to_owned(), Some(epoch.clone()));
    }
    let Some(context) = &target.context else { return };
    let local = context.strip_prefix("cwd://");
    target.context = Some(match (local, &request.remote) {
        (Some(path), _) => paths::clean(path),
        (None, _) if paths::is_remote(context) => context.clone(),
        (None, None) => paths::clean(context),
        (None, Some(url)) => below_remote(url, &paths::clean(context)),
    });
}

/// Returns the URL of a directory of a repository.
fn below_remote(url: &str, directory: &str) -> String {
    let is_git = paths::is_git(url);
    if directory == "." || !is_git {
        return url.to_owned();
    }
    let (base, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (reference, root) = fragment.split_once(':').unwrap_or((fragment, ""));
    format!("{base}#{reference}:{}", paths::join(root, directory))
}

impl Resolver<'_> {
    /// Returns a target with everything that it inherits, its overrides and its defaults.
    fn target(&mut self, name: &str) -> Result<Target, BakeError> {
        let found = self.inherited(name, &mut BTreeMap::new())?;
        let mut target = found.unwrap_or_default();
        target.inherits.clear();
        if target.context.is_none() {
            let base = target.base.default.as_deref().filter(|_| target.base.use_default);
            target.context = Some(base.map_or_else(|| ".".to_owned(), |base| rebased(base, ".")));
        }
        if target.dockerfile.as_deref().unwrap_or("").is_empty() {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    /// Merges the parents of a target and itself. A parent that is being resolved is left out.
    fn inherited(
        &mut self,
        name: &str,
        visited: &mut BTreeMap<String, Option<Target>>,
    ) -> Result<Option<Target>, BakeError> {
        if let Some(known) = visited.get(name) {
            return Ok(known.clone());
        }
        visited.insert(name.to_owned(), None);
        let Some(own) = self.config.target(name) else { return Err(self.unknown(name)) };
        let mut merged = Target::default();
        for parent in &own.inherits {
            if let Some(parent) = self.inherited(parent, visited)? {
                merged.merge(&parent);
            }
        }
        merged.merge(own);
        self.overrides.apply(name, &mut merged, &mut self.granted)?;
        merged.normalize();
        visited.insert(name.to_owned(), Some(merged.clone()));
        Ok(Some(merged))
    }

    fn unknown(&self, name: &str) -> BakeError {
        let groups = self.config.groups.iter().map(|(name, _)| name.as_str());
        let known = groups.chain(self.config.targets.iter().map(|(name, _)| name.as_str()));
        let known: Vec<&str> = known.filter(|known| !known.starts_with('_')).collect();
        let error = BakeError::new(format!("unknown target {name:?}"));
        match (nearest(name, known.iter().copied()), known.is_empty()) {
            (Some(near), _) => error.help(format!("did you mean {near}?")),
            (None, false) => error.help(format!("the targets are {}", known.join(", "))),
            (None, true) => error,
        }
    }

    /// Adds the targets that a target uses as contexts.
    fn link(
        &mut self,
        name: &str,
        targets: &mut BTreeMap<String, Target>,
        visited: &mut Vec<String>,
    ) -> Result<(), BakeError> {
        visited.push(name.to_owned());
        let contexts = targets.get(name).and_then(|target| target.contexts.clone());
        for location in contexts.unwrap_or_default().into_values() {
            let Some(linked) = location.strip_prefix("target:") else { continue };
            if visited.iter().any(|visited| visited == linked) {
                let message = match linked == name {
                    true => format!("the target {name:?} has itself as a context"),
                    false => {
                        format!(
                            "the contexts of targets go around in a circle: {}",
                            visited.join(", ")
                        )
                    }
                };
                return Err(BakeError::new(message));
            }
            if !targets.contains_key(linked) {
                let mut target = self.target(linked)?;
                let output = Output { kind: "cacheonly".to_owned(), ..Output::default() };
                target.outputs = Some(vec![output]);
                target.linked = true;
                targets.insert(linked.to_owned(), target);
            }
            self.link(linked, targets, visited)?;
            inherit_entitlements(name, linked, targets)?;
        }
        visited.pop();
        Ok(())
    }
}

/// Gives a target the entitlements of a context, and compares their platforms.
fn inherit_entitlements(
    name: &str,
    linked: &str,
    targets: &mut BTreeMap<String, Target>,
) -> Result<(), BakeError> {
    let Some(other) = targets.get(linked).cloned() else { return Ok(()) };
    let Some(target) = targets.get_mut(name) else { return Ok(()) };
    for entitlement in other.entitlements.into_iter().flatten() {
        let own = target.entitlements.get_or_insert_default();
        if !own.contains(&entitlement) {
            own.push(entitlement);
        }
    }
    let (own, other) =
        (target.platforms.as_deref().unwrap_or(&[]), other.platforms.unwrap_or_default());
    let missing = own.iter().find(|platform| !other.contains(platform));
    if let (true, true, Some(missing)) = (own.len() > 1, other.len() > 1, missing) {
        return Err(BakeError::new(format!(
            "the target {linked:?} cannot be a context of {name:?}: it is not built for {missing}"
        )));
    }
    Ok(())
}
