//! Definition files of all kinds to one configuration.

use super::compose::{self, ComposeSettings};
use super::config::Config;
use super::definition::{self, Remark, Settings, VariableInfo};
use super::source::{BakeError, DefinitionFile, Place};
use super::syntax::{Body, parse_hcl, parse_json};
use crate::diag::Span;

/// The content of a set of definition files.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Groups and targets.
    pub config: Config,
    /// Variables by name.
    pub variables: Vec<VariableInfo>,
    /// Remarks on the files.
    pub remarks: Vec<Remark>,
}

/// Reads and evaluates definition files.
///
/// `relative`: contexts are relative to the file that names them, not to the working directory.
///
/// # Errors
/// The first error of the syntax, or the errors of the evaluation.
pub fn parse(
    files: &[DefinitionFile],
    settings: &Settings<'_>,
    compose_settings: &ComposeSettings<'_>,
    relative: bool,
) -> Result<Parsed, Vec<BakeError>> {
    let mut bodies: Vec<(usize, Body)> = Vec::new();
    let mut composed = Vec::new();
    for (index, file) in files.iter().enumerate() {
        match read(file, index).map_err(|error| vec![error])? {
            Content::Compose(document) => composed.push((index, document)),
            Content::Body(body) => bodies.push((index, body)),
        }
    }
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let mut parsed = Parsed::default();
    if !composed.is_empty() {
        parsed.config =
            compose::targets(composed, &names, compose_settings).map_err(|error| vec![error])?;
    }
    if !bodies.is_empty() {
        let evaluated = definition::evaluate(&bodies, &names, settings, &mut parsed.config)?;
        (parsed.variables, parsed.remarks) = (evaluated.variables, evaluated.remarks);
    }
    if relative {
        parsed.config.rebase_contexts();
    }
    Ok(parsed)
}

enum Content {
    Compose(compose::Document),
    Body(Body),
}

/// Reads a file by its name's ending; without one, it may be anything.
fn read(file: &DefinitionFile, index: usize) -> Result<Content, BakeError> {
    let text = std::str::from_utf8(&file.data).map_err(|error| {
        let at = error.valid_up_to();
        let place = Place::new(index, Span::new(at, at + 1));
        BakeError::syntax(place, "the file is not UTF-8 here")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lower = file.name.to_lowercase();
    let ends = |ending: &str| lower.ends_with(ending);
    if ends(".yml") || ends(".yaml") {
        return compose::parse(text, index).map(Content::Compose);
    }
    if ends(".json") {
        return parse_json(text, index).map(Content::Body);
    }
    if ends(".hcl") {
        return parse_hcl(text, index).map(Content::Body);
    }
    if let Some(document) = compose::parse(text, index).ok().filter(compose::is_compose) {
        return Ok(Content::Compose(document));
    }
    let error = match parse_hcl(text, index) {
        Ok(body) => return Ok(Content::Body(body)),
        Err(error) => error,
    };
    match parse_json(text, index) {
        Ok(body) => Ok(Content::Body(body)),
        // The error that helps is that of the notation which the author meant.
        Err(json) if text.trim_start().starts_with('{') => Err(json),
        Err(_) => Err(error),
    }
}
