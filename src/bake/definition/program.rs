//! The state of an evaluation, and the names that expressions see.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::BlockState;
use super::{Remark, Settings};
use crate::bake::eval::Names;
use crate::bake::functions::{self, Ambient};
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::{Attribute, Block, Body, Call, Step};
use crate::bake::target::ATTRIBUTES;
use crate::bake::value::{Type, Value};
use crate::diag::nearest;
use crate::limits::{MAX_BAKE_NESTING, MAX_BAKE_VALUE_BYTES};

/// The evaluation of a set of files.
pub(super) struct Program<'a> {
    pub(super) settings: &'a Settings<'a>,
    pub(super) file_names: &'a [String],
    /// Attributes outside of blocks; the last of a name counts.
    pub(super) attributes: BTreeMap<&'a str, &'a Attribute>,
    /// Blocks of variables; the last of a name counts.
    pub(super) variables: BTreeMap<&'a str, &'a Block>,
    /// Blocks of functions; the last of a name counts.
    pub(super) functions: BTreeMap<&'a str, &'a Block>,
    /// Blocks of targets and groups in the order of the files.
    pub(super) blocks: Vec<BlockState<'a>>,
    /// Indices of `blocks` by kind and name, once the names are known.
    pub(super) by_name: BTreeMap<(&'a str, String), Vec<usize>>,
    /// Values of variables and attributes.
    pub(super) values: BTreeMap<String, Value>,
    /// Types that variables require.
    pub(super) constraints: BTreeMap<String, Type>,
    /// Variables that are being evaluated.
    pub(super) in_progress: BTreeSet<String>,
    /// Functions that are being called.
    pub(super) calls: Vec<String>,
    ambient: Ambient,
    depth: usize,
    n_bytes: usize,
}

/// Returns the only label of a block.
fn label(block: &Block) -> Result<&(String, Place), BakeError> {
    match block.labels.as_slice() {
        [label] => Ok(label),
        labels => {
            let count = if labels.is_empty() { "no name" } else { "several names" };
            let message = format!("the {} block has {count}", block.kind);
            let help = format!("write {} \"NAME\" {{ … }}", block.kind);
            Err(BakeError::at(block.at, message).help(help))
        }
    }
}

impl<'a> Program<'a> {
    pub(super) fn new(
        bodies: &'a [(usize, Body)],
        file_names: &'a [String],
        settings: &'a Settings<'a>,
    ) -> Result<Self, BakeError> {
        let mut program = Self {
            settings,
            file_names,
            attributes: BTreeMap::new(),
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            blocks: Vec::new(),
            by_name: BTreeMap::new(),
            values: BTreeMap::new(),
            constraints: BTreeMap::new(),
            in_progress: BTreeSet::new(),
            calls: Vec::new(),
            ambient: settings.ambient.clone(),
            depth: 0,
            n_bytes: 0,
        };
        let builtins = settings.builtins.iter();
        program.values = builtins.map(|(name, value)| (name.clone(), Value::text(value))).collect();
        let reserved =
            |name: &str| matches!(name, "target" | "group") || settings.builtins.contains_key(name);
        for (_, body) in bodies {
            let attributes = body.attributes.iter().filter(|found| !reserved(&found.name));
            program.attributes.extend(attributes.map(|found| (found.name.as_str(), found)));
            for block in &body.blocks {
                match block.kind.as_str() {
                    "variable" | "function" => {
                        let (name, _) = label(block)?;
                        if !reserved(name) {
                            let blocks = match block.kind.as_str() {
                                "variable" => &mut program.variables,
                                _ => &mut program.functions,
                            };
                            blocks.insert(name, block);
                        }
                    }
                    "target" | "group" => {
                        label(block)?;
                        program.blocks.push(BlockState::new(block));
                    }
                    _ => {}
                }
            }
        }
        program.attributes.remove("function");
        Ok(program)
    }

    /// Returns remarks on names without a meaning, which buildx ignores silently.
    pub(super) fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for state in &self.blocks {
            let block = state.block;
            let known: &[&str] = match block.kind.as_str() {
                "target" => &ATTRIBUTES,
                _ => &["description", "targets"],
            };
            let names = block.body.attributes.iter().map(|found| (&found.name, found.at));
            let names = names.chain(block.body.blocks.iter().map(|inner| (&inner.kind, inner.at)));
            for (name, at) in names.filter(|(name, _)| !known.contains(&name.as_str())) {
                let message = format!("{name:?} has no meaning in a {} and is ignored", block.kind);
                let near = nearest(name, known.iter().copied());
                let help = near.map(|near| format!("did you mean {near:?}?"));
                remarks.push(Remark { at, message, help });
            }
        }
        remarks
    }
}

impl Names for Program<'_> {
    fn variable(&mut self, name: &str, steps: &[Step], at: Place) -> Result<Value, BakeError> {
        if matches!(name, "target" | "group") {
            return self.block_member(name, steps, at);
        }
        self.resolve(name, at)
    }

    fn call(&mut self, call: &Call, arguments: Vec<Value>, at: Place) -> Result<Value, BakeError> {
        if let Some(outcome) = functions::call(&call.name, &arguments, &mut self.ambient) {
            return outcome.map_err(|error| BakeError::at(at, format!("{}: {error}", call.name)));
        }
        self.call_own(call, arguments, at)
    }

    fn enter(&mut self, at: Place) -> Result<(), BakeError> {
        self.depth += 1;
        if self.depth > MAX_BAKE_NESTING {
            let message = format!("more than {MAX_BAKE_NESTING} expressions refer to one another");
            return Err(BakeError::at(at, message).fatal());
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn charge(&mut self, value: &Value, at: Place) -> Result<(), BakeError> {
        self.n_bytes = self.n_bytes.saturating_add(bytes(value));
        if self.n_bytes > MAX_BAKE_VALUE_BYTES {
            let size = crate::diag::size(u64::try_from(MAX_BAKE_VALUE_BYTES).unwrap_or(u64::MAX));
            let message = format!("the values of the definitions take more than {size} together");
            return Err(BakeError::at(at, message).fatal());
        }
        Ok(())
    }
}

/// Returns about how much memory a value takes.
fn bytes(value: &Value) -> usize {
    let own = size_of::<Value>() + value.as_text().map_or(0, str::len);
    let elements = value.as_sequence().unwrap_or(&[]).iter().map(bytes);
    let members = value.as_members().into_iter().flatten();
    let members = members.map(|(name, value)| size_of::<String>() + name.len() + bytes(value));
    own + elements.sum::<usize>() + members.sum::<usize>()
}
