//! Evaluation of the blocks of HCL and JSON files to groups, targets and variables.
//!
//! Everything is evaluated when it is first referred to: variables, functions, and single attributes
//! of targets. Source of the rules: buildx, `bake/hclparser/hclparser.go`.

mod blocks;
mod functions;
mod program;
mod variables;

use std::collections::BTreeMap;

use super::config::Config;
use super::functions::Ambient;
use super::source::{BakeError, Place};
use super::syntax::Body;
use program::Program;

/// Inputs of definitions besides the files.
pub struct Settings<'a> {
    /// Returns the value that the user gave to a variable: by an option, or in the environment.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Variables of bake itself, which nothing overrides.
    pub builtins: BTreeMap<String, String>,
    /// Facts that functions return.
    pub ambient: Ambient,
}

impl std::fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("builtins", &self.builtins).finish_non_exhaustive()
    }
}

/// A variable, for `--list=variables`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableInfo {
    /// Name of the variable.
    pub name: String,
    /// Text of its block.
    pub description: String,
    /// Type that its block requires.
    pub kind: Option<String>,
    /// Value as text or JSON; none for null.
    pub value: Option<String>,
}

/// A remark about a definition that is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Position of the name.
    pub at: Place,
    /// Remark in one sentence.
    pub message: String,
    /// Advice.
    pub help: Option<String>,
}

/// Variables, and remarks about the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evaluated {
    /// Variables by name.
    pub variables: Vec<VariableInfo>,
    /// Remarks in the order of the files.
    pub remarks: Vec<Remark>,
}

/// Evaluates files and adds their groups and targets to `config`. `names` are those of the files.
///
/// # Errors
/// All errors of targets and conditions; of anything else the first.
pub(crate) fn evaluate(
    bodies: &[(usize, Body)],
    names: &[String],
    settings: &Settings<'_>,
    config: &mut Config,
) -> Result<Evaluated, Vec<BakeError>> {
    let mut program = Program::new(bodies, names, settings).map_err(|error| vec![error])?;
    let variables = program.resolve_variables()?;
    program.check_functions().map_err(|error| vec![error])?;
    program.name_blocks().map_err(|error| vec![error])?;
    program.resolve_blocks(config)?;
    program.resolve_attributes().map_err(|error| vec![error])?;
    Ok(Evaluated { variables, remarks: program.remarks() })
}
