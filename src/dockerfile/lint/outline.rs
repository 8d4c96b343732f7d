//! The outline of a Dockerfile (`--call=outline`, `--call=targets`): stages, build arguments, secrets and
//! SSH agents, with their descriptions.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::Span;
use crate::dockerfile::ir::{self, Kind, MountType};
use crate::dockerfile::scope::StageScope;

use super::LintOptions;
use super::analysis::{Analysis, StageBase};
use super::comments::description;

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSummary {
    /// Name in lower case, if it has one.
    pub name: Option<String>,
    /// Description from the comment above it.
    pub description: Option<String>,
    /// Image or stage that it starts from, as written.
    pub base: String,
    /// Value of `--platform`, as written.
    pub platform: Option<String>,
    /// True if it is built without `--target`.
    pub is_default: bool,
    /// Span of its FROM.
    pub span: Span,
}

/// A build argument of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Name of the ARG.
    pub name: String,
    /// Description from the comment above it.
    pub description: Option<String>,
    /// Value in a build with the same options.
    pub value: Option<String>,
    /// Span of its declaration.
    pub span: Span,
}

/// A secret or an SSH agent that a target mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Id given with `--secret` or `--ssh`.
    pub id: String,
    /// True if a RUN fails without it.
    pub required: bool,
    /// Span of the first RUN that mounts it.
    pub span: Span,
}

/// The outline of a target; each list is in source order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Stage that is built.
    pub target: StageSummary,
    /// Build arguments of the stages that it needs.
    pub arguments: Vec<OutlineArg>,
    /// Secrets that RUN steps mount.
    pub secrets: Vec<OutlineMount>,
    /// SSH agents that RUN steps mount.
    pub ssh: Vec<OutlineMount>,
}

/// Returns the stages of a file, in order.
#[must_use]
pub fn stages(file: &ir::Dockerfile, source: &str) -> Vec<StageSummary> {
    let last = file.stages.len().saturating_sub(1);
    let summary = |(at, stage): (usize, &ir::Stage)| {
        let name = stage.from.name.as_ref().map(|(_, name)| name.value.as_str());
        let described = name.and_then(|name| description(source, stage.span, name));
        StageSummary {
            name: stage.name(),
            description: described.map(str::to_owned),
            base: stage.from.image.value.clone(),
            platform: stage.from.platform.as_ref().map(|platform| platform.value.clone()),
            is_default: at == last,
            span: stage.span,
        }
    };
    file.stages.iter().enumerate().map(summary).collect()
}

/// Returns the outline of the target, or of the last stage; `None` for an unknown target.
#[must_use]
pub fn outline(file: &ir::Dockerfile, source: &str, options: &LintOptions<'_>) -> Option<Outline> {
    let options = LintOptions { only_needed: true, ..*options };
    let analysis = Analysis::new(file, source, &[], &options);
    let summaries = stages(file, source);
    let target = match options.target {
        None => summaries.len().checked_sub(1),
        Some(name) => {
            let lower = name.to_ascii_lowercase();
            let named = summaries.iter().rposition(|stage| stage.name.as_ref() == Some(&lower));
            named.or_else(|| name.parse().ok())
        }
    };
    let at = target?;
    let target = summaries.into_iter().nth(at)?;
    let (secrets, ssh) =
        (mounted_inputs(&analysis, MountType::Secret), mounted_inputs(&analysis, MountType::Ssh));
    Some(Outline { target, arguments: arguments(&analysis, at), secrets, ssh })
}

/// The arguments of a stage and of those that it starts from, collected as in BuildKit's
/// `dockerfile2llb.outlineCapture`.
#[derive(Debug, Clone, Default)]
struct StageArguments {
    /// Last declaration of each argument.
    declared: BTreeMap<String, OutlineArg>,
    used: BTreeSet<String>,
}

/// Collects the arguments. The target's declaration of an argument wins over that of other stages.
fn arguments(analysis: &Analysis<'_>, target: usize) -> Vec<OutlineArg> {
    let mut global = StageArguments::default();
    for (arg, span) in global_args(analysis.file) {
        let value = analysis.globals.get(&arg.name.value).map(str::to_owned);
        global.declared.insert(arg.name.value.clone(), argument(analysis, arg, span, value));
    }
    let mut stages = vec![global.clone(); analysis.stages.len()];
    // A stage inherits the arguments at the end of its parent.
    let mut begun = 0;
    analysis.for_each_evaluated_instruction(|at, instruction, scope| {
        (begun..=at).for_each(|at| begin_stage(analysis, &mut stages, at));
        begun = begun.max(at + 1);
        let (Kind::Arg(args), Some(stage)) = (&instruction.kind, stages.get_mut(at)) else {
            return;
        };
        for arg in args {
            stage.declare(analysis, arg, instruction.span, scope.get(&arg.name.value));
        }
    });
    (begun..stages.len()).for_each(|at| begin_stage(analysis, &mut stages, at));
    let is_needed = |at: &usize| analysis.stages.get(*at).is_some_and(|view| view.is_checked);
    let others = (0..stages.len()).rev().filter(|at| *at != target).filter(is_needed);
    let mut found: BTreeMap<String, OutlineArg> = BTreeMap::new();
    for stage in std::iter::once(target).chain(others).filter_map(|at| stages.get(at)) {
        for argument in stage.used_with_defaults(analysis.file) {
            found.entry(argument.name.clone()).or_insert_with(|| argument.clone());
        }
    }
    let mut found: Vec<OutlineArg> = found.into_values().collect();
    found.sort_by_key(|argument| argument.span);
    found
}

/// Starts a stage with the arguments of its parent and the names in its FROM.
fn begin_stage(analysis: &Analysis<'_>, stages: &mut [StageArguments], at: usize) {
    let Some(view) = analysis.stages.get(at) else { return };
    let inherited = match view.base {
        StageBase::Stage(parent) => stages.get(parent).cloned(),
        StageBase::Scratch | StageBase::Image(..) | StageBase::Unknown => None,
    };
    let Some(stage) = stages.get_mut(at) else { return };
    *stage = inherited.unwrap_or_else(|| stage.clone());
    let words = view.stage.from.platform.iter().chain([&view.stage.from.image]);
    stage.used.extend(words.flat_map(|word| names_in(&word.value)));
}

impl StageArguments {
    fn declare(&mut self, analysis: &Analysis<'_>, arg: &ir::Arg, span: Span, value: Option<&str>) {
        let name = &arg.name.value;
        self.used.insert(name.clone());
        let is_given = arg.default.is_some() || analysis.options.build_args.contains_key(name);
        // Otherwise it refers to a global argument, which has its own declaration, or to a platform
        // argument, which has none.
        if is_given || analysis.globals.get(name).is_none() {
            let argument = argument(analysis, arg, span, value.map(str::to_owned));
            self.declared.insert(name.clone(), argument);
        }
    }

    /// Iterates over the arguments that are used, and the global ones in their defaults.
    fn used_with_defaults(&self, file: &ir::Dockerfile) -> impl Iterator<Item = &OutlineArg> {
        let mut used = BTreeSet::new();
        let mut queue: Vec<String> = self.used.iter().cloned().collect();
        while let Some(name) = queue.pop() {
            for (arg, _span) in global_args(file).filter(|(arg, _span)| arg.name.value == name) {
                queue.extend(arg.default.iter().flat_map(|default| names_in(&default.value)));
            }
            used.insert(name);
            queue.retain(|name| !used.contains(name));
        }
        self.declared.values().filter(move |argument| used.contains(&argument.name))
    }
}

/// Iterates over the ARGs before the first FROM.
fn global_args(file: &ir::Dockerfile) -> impl Iterator<Item = (&ir::Arg, Span)> {
    file.meta_args.iter().flat_map(|instruction| {
        let args = if let Kind::Arg(args) = &instruction.kind { args.as_slice() } else { &[] };
        args.iter().map(|arg| (arg, instruction.span))
    })
}

fn argument(
    analysis: &Analysis<'_>,
    arg: &ir::Arg,
    span: Span,
    value: Option<String>,
) -> OutlineArg {
    let name = arg.name.value.clone();
    let description = description(analysis.source, span, &name).map(str::to_owned);
    OutlineArg { name, description, value, span }
}

/// Returns the names after `$` and `${`.
fn names_in(text: &str) -> Vec<String> {
    let name = |part: &str| {
        let part = part.trim_start_matches('{');
        let end = part.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        part.get(..end.unwrap_or(part.len())).unwrap_or("").to_owned()
    };
    text.split('$').skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

fn mounted_inputs(analysis: &Analysis<'_>, kind: MountType) -> Vec<OutlineMount> {
    let mut found: Vec<OutlineMount> = Vec::new();
    analysis.for_each_instruction(|instruction, scope| {
        let Kind::Run(run) = &instruction.kind else { return };
        for mount in run.mounts.iter().map(|mount| &mount.value).filter(|m| m.kind == kind) {
            let Some(id) = input_id(mount, scope) else { continue };
            let required = mount.required.is_some_and(|required| required.value);
            match found.iter_mut().find(|known| known.id == id) {
                Some(known) => known.required |= required,
                None => found.push(OutlineMount { id, required, span: instruction.span }),
            }
        }
    });
    found.sort_by_key(|one| one.span);
    found
}

/// Returns the id of the mounted secret or agent; `None` if it has none, which the build reports.
fn input_id(mount: &ir::Mount, scope: &StageScope) -> Option<String> {
    let text = |word: &Option<ir::Word>| {
        let text = word.as_ref().and_then(|word| scope.expand(word).ok());
        text.filter(|text| !text.is_empty())
    };
    if mount.kind == MountType::Ssh {
        return Some(text(&mount.id).unwrap_or_else(|| "default".to_owned()));
    }
    let last = |target: String| target.rsplit('/').next().map(str::to_owned);
    text(&mount.source).or_else(|| text(&mount.id)).or_else(|| text(&mount.target).and_then(last))
}
