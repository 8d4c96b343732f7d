//! Blocks of targets and groups: matrices, names, and attributes one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::program::Program;
use crate::bake::config::{Config, Group, dedupe};
use crate::bake::eval::{Scope, evaluate};
use crate::bake::paths;
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::{Block, Expr, ExprKind, Step};
use crate::bake::target::{ATTRIBUTES, Target, texts};
use crate::bake::value::{Type, Value, convert};
use crate::diag::nearest;
use crate::limits::MAX_BAKE_ELEMENTS;

/// Characters of a target's name.
pub(super) fn valid_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(valid)
}

/// A block, and the targets or the group that it defines.
pub(super) struct BlockState<'a> {
    pub(super) block: &'a Block,
    instances: Vec<Instance>,
}

/// A target or group of a block; a matrix makes several.
#[derive(Default)]
struct Instance {
    name: String,
    /// Values of the matrix.
    names: BTreeMap<String, Value>,
    done: BTreeSet<String>,
    in_progress: BTreeSet<String>,
    target: Target,
    group: Group,
}

impl<'a> BlockState<'a> {
    pub(super) const fn new(block: &'a Block) -> Self {
        Self { block, instances: Vec::new() }
    }
}

impl Program<'_> {
    /// Expands matrices and evaluates the names of all blocks.
    pub(super) fn name_blocks(&mut self) -> Result<(), BakeError> {
        let mut by_name: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for at in 0..self.blocks.len() {
            let Some(block) = self.blocks.get(at).map(|state| state.block) else { continue };
            let instances = self.instances(block)?;
            for instance in &instances {
                by_name.entry((block.kind.as_str(), instance.name.clone())).or_default().push(at);
            }
            if let Some(state) = self.blocks.get_mut(at) {
                state.instances = instances;
            }
        }
        self.by_name = by_name;
        Ok(())
    }

    fn instances(&mut self, block: &Block) -> Result<Vec<Instance>, BakeError> {
        let (matrix, name) = (block.body.attribute("matrix"), block.body.attribute("name"));
        let (label, label_at) = block.labels.first().cloned().unwrap_or((String::new(), block.at));
        valid(&label, label_at)?;
        if let (true, Some(found)) = (block.kind == "group", matrix.or(name)) {
            let message = format!("a group cannot have {:?}", found.name);
            return Err(BakeError::at(found.at, message));
        }
        let Some(matrix) = matrix else {
            return match name {
                None => Ok(vec![Instance { name: label, ..Instance::default() }]),
                Some(found) => Err(BakeError::at(found.at, "a name needs a matrix")
                    .help("put the name into the label of the block")),
            };
        };
        let rows = self.rows(&matrix.expr)?;
        let mut seen = BTreeSet::new();
        let mut instances = Vec::with_capacity(rows.len());
        for names in rows {
            let mut own = label.clone();
            if let Some(found) = name {
                let value = evaluate(&found.expr, &Scope::of(names.clone()), self)?;
                let text = convert(&value, &Type::String);
                let text = text.map_err(|error| BakeError::at(found.expr.at, error))?;
                own = text.as_text().unwrap_or("").to_owned();
                valid(&own, found.expr.at)?;
            }
            if !seen.insert(own.clone()) {
                let message = format!("the matrix makes two targets with the name {own:?}");
                let at = name.map_or(matrix.at, |found| found.expr.at);
                return Err(BakeError::at(at, message)
                    .help("use all keys of the matrix in the attribute name"));
            }
            instances.push(Instance { name: own, names, ..Instance::default() });
        }
        Ok(instances)
    }

    /// Returns all combinations of a matrix's values.
    fn rows(&mut self, expr: &Expr) -> Result<Vec<BTreeMap<String, Value>>, BakeError> {
        let matrix = evaluate(expr, &Scope::default(), self)?;
        let axes = matrix.as_members();
        let axes = axes.ok_or_else(|| BakeError::at(expr.at, "a matrix must be a map"))?;
        let mut rows = vec![BTreeMap::new()];
        for (key, values) in axes {
            let values: Vec<Value> = match (values.as_sequence(), values.as_members()) {
                (Some(values), _) => values.to_vec(),
                (None, Some(members)) => members.values().cloned().collect(),
                (None, None) => {
                    let message = format!("the values of {key:?} in the matrix must be a list");
                    return Err(BakeError::at(expr.at, message));
                }
            };
            if rows.len().saturating_mul(values.len()) > MAX_BAKE_ELEMENTS {
                let message = format!("the matrix makes more than {MAX_BAKE_ELEMENTS} targets");
                return Err(BakeError::at(expr.at, message));
            }
            rows = values
                .iter()
                .flat_map(|value| {
                    rows.iter().map(|row| {
                        let mut row = row.clone();
                        row.insert(key.clone(), value.clone());
                        row
                    })
                })
                .collect();
        }
        Ok(rows)
    }

    /// Returns the part of `target` or `group` that an expression reads.
    pub(super) fn block_member(
        &mut self,
        kind: &str,
        steps: &[Step],
        at: Place,
    ) -> Result<Value, BakeError> {
        let Some((Step::Attribute(name, name_at), rest)) = steps.split_first() else {
            let message = format!("{kind} alone is not a value");
            return Err(BakeError::at(at, message).help(format!("write {kind}.NAME.ATTRIBUTE")));
        };
        let found = self.by_name.iter().find(|((own, label), _)| *own == kind && label == name);
        let Some(indices) = found.map(|(_, indices)| indices.clone()) else {
            let known = self.by_name.keys().filter(|(own, _)| *own == kind);
            let near = nearest(name, known.map(|(_, label)| label.as_str()));
            let error = BakeError::at(*name_at, format!("unknown {kind} {name:?}"));
            return Err(match near {
                Some(near) => error.help(format!("did you mean {near}?")),
                None => error,
            });
        };
        let field = match rest.first() {
            Some(Step::Attribute(field, _)) => Some(field.as_str()),
            _ => None,
        };
        let mut value = Value::Null(Type::Dynamic);
        for index in indices {
            self.resolve_fields(index, name, field, at)?;
            let Some(state) = self.blocks.get(index) else { continue };
            let instance = state.instances.iter().find(|instance| instance.name == *name);
            let Some(instance) = instance else { continue };
            value = match kind {
                "target" => instance.target.to_value(name),
                _ => group_value(name, &instance.group),
            };
        }
        Ok(Value::Object([(name.clone(), value)].into()))
    }

    /// Evaluates one attribute of a block's target, or all.
    fn resolve_fields(
        &mut self,
        index: usize,
        name: &str,
        field: Option<&str>,
        at: Place,
    ) -> Result<(), BakeError> {
        let Some(block) = self.blocks.get(index).map(|state| state.block) else { return Ok(()) };
        let wanted = |own: &str| field.is_none_or(|field| field == own);
        for attribute in block.body.attributes.iter().filter(|found| wanted(&found.name)) {
            let own = attribute.name.as_str();
            let Some(instance) = self.instance(index, name) else { return Ok(()) };
            if instance.done.contains(own) {
                continue;
            }
            if !instance.in_progress.insert(own.to_owned()) {
                let message = format!("{}.{name}.{own} refers to itself", block.kind);
                return Err(BakeError::at(at, message).fatal());
            }
            let names = instance.names.clone();
            let known = block.kind == "group" || ATTRIBUTES.contains(&own);
            let meta = matches!(own, "matrix" | "name");
            let result = match known && !meta {
                true => evaluate(&attribute.expr, &Scope::of(names), self).map(Some),
                false => Ok(None),
            };
            let Some(instance) = self.instance(index, name) else { return Ok(()) };
            instance.in_progress.remove(own);
            if let Some(value) = result? {
                let set = match block.kind.as_str() {
                    "target" => instance.target.set(own, &value),
                    _ => set_group(&mut instance.group, own, &value),
                };
                set.map_err(|error| {
                    BakeError::at(attribute.expr.at, format!("bad value of {own:?}: {error}"))
                })?;
            }
            instance.done.insert(own.to_owned());
        }
        Ok(())
    }

    fn instance(&mut self, index: usize, name: &str) -> Option<&mut Instance> {
        let state = self.blocks.get_mut(index)?;
        state.instances.iter_mut().find(|instance| instance.name == name)
    }

    /// Evaluates all blocks, and adds their groups and targets.
    pub(super) fn resolve_blocks(&mut self, config: &mut Config) -> Result<(), Vec<BakeError>> {
        let mut errors = Vec::new();
        let mut renamed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for index in 0..self.blocks.len() {
            let Some(state) = self.blocks.get(index) else { continue };
            let block = state.block;
            let names: Vec<String> =
                state.instances.iter().map(|instance| instance.name.clone()).collect();
            if block.kind == "group" && block.body.attribute("targets").is_none() {
                let message = "the group has no targets";
                errors.push(BakeError::at(block.at, message).help("add targets = [\"NAME\"]"));
                continue;
            }
            let label = block.labels.first().map_or("", |(label, _)| label.as_str());
            if block.kind == "target" {
                renamed.entry(label.to_owned()).or_default().extend(names.iter().cloned());
            }
            for name in &names {
                if let Err(error) = self.resolve_fields(index, name, None, block.at) {
                    errors.push(error);
                    break;
                }
                self.add(index, name, config);
            }
        }
        if !errors.is_empty() {
            errors.dedup();
            return Err(errors);
        }
        for (label, mut names) in renamed {
            dedupe(&mut names);
            if names != [label.as_str()] {
                let group = Group { description: String::new(), targets: names };
                config.groups.push((label, group));
            }
        }
        config.dedupe_groups();
        Ok(())
    }

    fn add(&mut self, index: usize, name: &str, config: &mut Config) {
        let Some(state) = self.blocks.get(index) else { return };
        let Some(instance) = state.instances.iter().find(|instance| instance.name == name) else {
            return;
        };
        if state.block.kind == "group" {
            config.set_group(name, instance.group.clone());
            return;
        }
        let mut target = instance.target.clone();
        let file = self.file_names.get(state.block.at.file).map_or("", String::as_str);
        set_base(&mut target, state.block, file);
        config.add_target(name, target);
    }
}

fn valid(name: &str, at: Place) -> Result<(), BakeError> {
    if valid_name(name) {
        return Ok(());
    }
    let message =
        format!("{name:?} is not a name: only letters, digits, \"_\" and \"-\" are allowed");
    Err(BakeError::at(at, message).help("the function sanitize() replaces all other characters"))
}

fn group_value(name: &str, group: &Group) -> Value {
    let members = [
        ("name".to_owned(), Value::text(name)),
        ("description".to_owned(), Value::text(&group.description)),
        ("targets".to_owned(), Value::texts(&group.targets)),
    ];
    Value::Object(members.into())
}

fn set_group(group: &mut Group, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "targets" => group.targets = texts(value)?.unwrap_or_default(),
        "description" => {
            let text = convert(value, &Type::String)?;
            text.as_text().ok_or("must not be null")?.clone_into(&mut group.description);
        }
        _ => {}
    }
    Ok(())
}

/// Notes the directory of the file, from which relative contexts may start.
fn set_base(target: &mut Target, block: &Block, file: &str) {
    let local = !(file.is_empty() || file == "-" || paths::is_remote(file));
    let base = if local { paths::parent(file) } else { String::new() };
    target.base.default = Some(base.clone());
    if let Some(found) = block.body.attribute("context") {
        target.base.context = Some(base.clone());
        target.base.reference = context_reference(&found.expr);
    }
    if block.body.attribute("contexts").is_some() {
        let names = target.contexts.iter().flatten().map(|(name, _)| name.clone());
        target.base.contexts = names.map(|name| (name, base.clone())).collect();
    }
}

/// Returns the name in `target.NAME.context`, if the expression is that.
fn context_reference(expr: &Expr) -> Option<String> {
    let ExprKind::Traversal(source, steps) = &expr.kind else { return None };
    match (&source.kind, steps.as_slice()) {
        (ExprKind::Variable(root), [Step::Attribute(name, _), Step::Attribute(field, _)])
            if root == "target" && field == "context" =>
        {
            Some(name.clone())
        }
        _ => None,
    }
}
