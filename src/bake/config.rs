//! Groups and targets of all definition files, before targets inherit from one another.

use std::collections::{BTreeMap, BTreeSet};

use super::paths;
use super::target::Target;

/// A name for several targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Text for `--list`.
    pub description: String,
    /// Names of targets and groups.
    pub targets: Vec<String>,
}

/// The content of the definition files.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Groups in the order of the files.
    pub groups: Vec<(String, Group)>,
    /// Targets in the order of the files; each name once.
    pub targets: Vec<(String, Target)>,
}

impl Config {
    /// Returns a group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|(own, _)| own == name).map(|(_, group)| group)
    }

    /// Returns a target.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|(own, _)| own == name).map(|(_, target)| target)
    }

    /// Adds a target, or merges it with the one of the same name.
    pub fn add_target(&mut self, name: &str, target: Target) {
        match self.targets.iter_mut().find(|(own, _)| own == name) {
            Some((_, earlier)) => earlier.merge(&target),
            None => self.targets.push((name.to_owned(), target)),
        }
    }

    /// Adds a group, or replaces the one of the same name.
    pub fn set_group(&mut self, name: &str, group: Group) {
        match self.groups.iter_mut().find(|(own, _)| own == name) {
            Some((_, earlier)) => *earlier = group,
            None => self.groups.push((name.to_owned(), group)),
        }
    }

    /// Removes repeated names of targets from the groups.
    pub fn dedupe_groups(&mut self) {
        for (_, group) in &mut self.groups {
            dedupe(&mut group.targets);
        }
    }

    /// Returns the targets and the groups that a name stands for, each once, in order.
    #[must_use]
    pub fn expand(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let (mut targets, mut groups) = self.members(name, &mut BTreeMap::new());
        dedupe(&mut targets);
        dedupe(&mut groups);
        (targets, groups)
    }

    fn members(
        &self,
        name: &str,
        visited: &mut BTreeMap<String, (Vec<String>, Vec<String>)>,
    ) -> (Vec<String>, Vec<String>) {
        if let Some(known) = visited.get(name) {
            return known.clone();
        }
        let Some(group) = self.group(name) else { return (vec![name.to_owned()], Vec::new()) };
        visited.insert(name.to_owned(), (Vec::new(), Vec::new()));
        let (mut targets, mut groups) = (Vec::new(), vec![name.to_owned()]);
        for member in &group.targets {
            let (inner, inner_groups) = self.members(member, visited);
            // A group that contains itself has no members yet, and counts as a target.
            if inner.is_empty() {
                targets.push(member.clone());
            } else {
                targets.extend(inner);
            }
            groups.extend(inner_groups);
        }
        visited.insert(name.to_owned(), (targets.clone(), groups.clone()));
        (targets, groups)
    }

    /// Makes relative contexts start from the directory of the file that names them.
    pub fn rebase_contexts(&mut self) {
        let bases: BTreeMap<String, super::target::ContextBase> =
            self.targets.iter().map(|(name, target)| (name.clone(), target.base.clone())).collect();
        for (_, target) in &mut self.targets {
            let referred = target.base.reference.as_ref().and_then(|name| bases.get(name));
            if let Some(referred) = referred {
                let base = referred.context.as_ref().or(referred.default.as_ref());
                if let Some(base) = base {
                    target.base.context = Some(base.clone());
                }
            }
            rebase(target);
        }
    }
}

fn rebase(target: &mut Target) {
    match (&target.context, &target.base.context) {
        (Some(context), Some(base)) => target.context = Some(rebased(base, context)),
        (Some(_), None) => {}
        (None, _) => target.base.use_default = target.base.default.is_some(),
    }
    for (name, location) in target.contexts.iter_mut().flatten() {
        if let Some(base) = target.base.contexts.get(name) {
            *location = rebased(base, location);
        }
    }
}

/// Returns a location below the directory of a definition file.
pub(super) fn rebased(base: &str, location: &str) -> String {
    let fixed = base.is_empty() || location.is_empty();
    if fixed || paths::is_special(location) || location.starts_with('/') {
        return location.to_owned();
    }
    paths::join(base, location)
}

/// Removes repeated texts.
pub(super) fn dedupe(texts: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    texts.retain(|text| seen.insert(text.clone()));
}
