//! `--list`: targets and variables as tables or JSON.

use serde_json::{Map, Value as Json};

use super::config::Config;
use super::definition::VariableInfo;

/// A line of a list of targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTarget {
    /// Name of the target or group.
    pub name: String,
    /// Text of the block; of a group also the names of its members.
    pub description: String,
    /// Set for groups.
    pub group: bool,
}

/// Returns all targets and groups by name; names that begin with `_` are private.
#[must_use]
pub fn targets(config: &Config) -> Vec<ListedTarget> {
    let targets = config.targets.iter().map(|(name, target)| ListedTarget {
        name: name.clone(),
        description: target.description.clone(),
        group: false,
    });
    let groups = config.groups.iter().map(|(name, group)| {
        let mut members = group.targets.clone();
        members.sort_unstable();
        let members = members.join(", ");
        let description = match (group.description.as_str(), members.is_empty()) {
            ("", _) => members,
            (text, true) => text.to_owned(),
            (text, false) => format!("{text} ({members})"),
        };
        ListedTarget { name: name.clone(), description, group: true }
    });
    let mut all: Vec<ListedTarget> = targets.chain(groups).collect();
    all.retain(|listed| !listed.name.starts_with('_'));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Returns targets as JSON, as `--list=type=targets,format=json` of buildx.
#[must_use]
pub fn targets_json(targets: &[ListedTarget]) -> Json {
    let rows = targets.iter().map(|listed| {
        let mut row = Map::new();
        row.insert("name".to_owned(), listed.name.clone().into());
        if !listed.description.is_empty() {
            row.insert("description".to_owned(), listed.description.clone().into());
        }
        if listed.group {
            row.insert("group".to_owned(), true.into());
        }
        Json::Object(row)
    });
    rows.collect()
}

/// Returns variables as JSON, as `--list=type=variables,format=json` of buildx.
#[must_use]
pub fn variables_json(variables: &[VariableInfo]) -> Json {
    let rows = variables.iter().map(|variable| {
        let mut row = Map::new();
        row.insert("name".to_owned(), variable.name.clone().into());
        if !variable.description.is_empty() {
            row.insert("description".to_owned(), variable.description.clone().into());
        }
        if let Some(kind) = &variable.kind {
            row.insert("type".to_owned(), kind.clone().into());
        }
        if let Some(value) = &variable.value {
            row.insert("value".to_owned(), value.clone().into());
        }
        Json::Object(row)
    });
    rows.collect()
}
