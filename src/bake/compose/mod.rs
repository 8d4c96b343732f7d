//! Targets of compose files: every service with `build`, and the group `default` of all of them.
//!
//! Source of the rules: buildx, `bake/compose.go`, and github.com/compose-spec/compose-go.

mod canonical;
mod dotenv;
mod interpolate;
mod load;
mod merge;
mod services;
mod yaml;

use std::collections::BTreeMap;

use super::config::Config;
use super::source::{BakeError, Place};
use crate::diag::Span;
use load::Loader;
use yaml::Node;

/// Reads a file by its path. `None` if it does not exist; the error is the reason without the path.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, String>;

/// Inputs of compose files besides themselves.
pub struct ComposeSettings<'a> {
    /// Environment, with the values that options gave to variables.
    pub environment: BTreeMap<String, String>,
    /// Text of the file `.env` in the working directory, if there is one.
    pub dotenv: Option<String>,
    /// Reads a file that a compose file names; none if it does not exist.
    pub read: ReadFile<'a>,
}

impl std::fmt::Debug for ComposeSettings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComposeSettings").finish_non_exhaustive()
    }
}

/// A parsed file.
#[derive(Debug, Clone)]
pub(crate) struct Document(Node);

/// Parses a compose file.
///
/// # Errors
/// The file is not YAML.
pub(crate) fn parse(text: &str, file: usize) -> Result<Document, BakeError> {
    yaml::parse(text, file).map(Document)
}

/// Returns whether a document looks like a compose file: one without a telling name may be HCL.
#[must_use]
pub(crate) fn is_compose(document: &Document) -> bool {
    let part = |name: &str| document.0.get(name).is_some_and(|part| part.members().is_some());
    part("services") || part("secrets")
}

/// Returns the targets of files, which are merged in order. Each has its index and its document.
///
/// # Errors
/// A member that a build reads is wrong, or a variable is required and not set.
pub(crate) fn targets(
    documents: Vec<(usize, Document)>,
    names: &[String],
    settings: &ComposeSettings<'_>,
) -> Result<Config, BakeError> {
    let first = documents.first().map_or(0, |(index, _)| *index);
    let environment = environment(settings)?;
    let loader = Loader { settings, environment: &environment };
    let mut model: Option<Node> = None;
    for (index, Document(node)) in documents {
        let name = names.get(index).map_or("", String::as_str);
        let node = loader.file(node, name, 0)?;
        model = Some(match model {
            Some(earlier) => merge::merge(earlier, node),
            None => node,
        });
    }
    let start = Place::new(first, Span::default());
    let model = model.ok_or_else(|| BakeError::at(start, "no compose file was given"))?;
    if !is_compose(&Document(model.clone())) {
        let error = BakeError::at(start, "the compose file has no services");
        return Err(error.help("a definition for bake needs the ending .hcl or .json"));
    }
    let mut config = services::config(&model, &loader)?;
    let base = names.get(first).map_or("", String::as_str);
    services::set_bases(&mut config, base);
    Ok(config)
}

/// Returns the environment with the variables of `.env`, which replace none.
fn environment(settings: &ComposeSettings<'_>) -> Result<BTreeMap<String, String>, BakeError> {
    let mut all = settings.environment.clone();
    if let Some(text) = &settings.dotenv {
        let lookup = |name: &str| settings.environment.get(name).cloned();
        let found = dotenv::parse(text, &lookup);
        for (name, value) in found.map_err(|error| BakeError::new(format!("bad .env: {error}")))? {
            all.entry(name).or_insert(value);
        }
    }
    Ok(all)
}
