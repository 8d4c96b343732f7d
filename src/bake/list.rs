//! `--list`: targets and variables as tables or JSON.

use super::config::Config;
use super::definition::VariableInfo;
use super::json_tree::Json;
use super::value::Value;

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
pub fn targets_json(targets: &[ListedTarget]) -> String {
    let rows = targets.iter().map(|listed| {
        let group = listed.group.then(|| ("group".to_owned(), Json::Scalar(Value::Bool(true))));
        let texts = [("name", listed.name.as_str()), ("description", &listed.description)];
        Json::Object(members(&texts).chain(group).collect())
    });
    Json::List(rows.collect()).to_text()
}

/// Returns variables as JSON, as `--list=type=variables,format=json` of buildx.
#[must_use]
pub fn variables_json(variables: &[VariableInfo]) -> String {
    let rows = variables.iter().map(|variable| {
        let texts = [
            ("name", variable.name.as_str()),
            ("description", &variable.description),
            ("type", variable.kind.as_deref().unwrap_or("")),
        ];
        let value = variable.value.as_deref().map(|value| ("value".to_owned(), Json::text(value)));
        Json::Object(members(&texts).chain(value).collect())
    });
    Json::List(rows.collect()).to_text()
}

/// Returns the texts that are not empty as members.
fn members(texts: &[(&str, &str)]) -> impl Iterator<Item = (String, Json)> {
    let given = texts.iter().filter(|(_, text)| !text.is_empty());
    given.map(|(name, text)| ((*name).to_owned(), Json::text(text)))
}
