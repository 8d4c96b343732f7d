//! What a Dockerfile offers to its caller: stages and build arguments, with their descriptions.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::Span;
use crate::dockerfile::ir::{self, Kind, MountType};
use crate::dockerfile::scope::StageScope;

use super::LintOptions;
use super::analysis::{Analysis, StageBase};
use super::comments::description;

/// A stage that may be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSummary {
    /// Its name in lower case; `None` when it has none.
    pub name: Option<String>,
    /// What its comment says.
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Whether it is built when no target is given.
    pub is_default: bool,
    /// Where its FROM stands.
    pub span: Span,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What its comment says.
    pub description: Option<String>,
    /// Its value in a build with the same arguments.
    pub value: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// A secret or an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lending {
    /// Its id.
    pub id: String,
    /// True if a RUN fails without it.
    pub required: bool,
    /// The first RUN that mounts it.
    pub span: Span,
}

/// Arguments, secrets and ssh agents of a target, each list in source order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The stage.
    pub target: StageSummary,
    /// Its build arguments and those of the stages that it needs.
    pub arguments: Vec<Argument>,
    /// Secrets that its RUNs mount.
    pub secrets: Vec<Lending>,
    /// Agents that its RUNs mount.
    pub ssh: Vec<Lending>,
}

/// The stages of the file, in order.
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

/// What the target, or the last stage, takes; `None` when there is no such stage.
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
        (lendings(&analysis, MountType::Secret), lendings(&analysis, MountType::Ssh));
    Some(Outline { target, arguments: arguments(&analysis, at), secrets, ssh })
}

/// The arguments of one stage and of those that it starts from, as BuildKit keeps them
/// (`dockerfile2llb.outlineCapture`).
#[derive(Debug, Clone, Default)]
struct Arguments {
    /// The last declaration of each.
    declared: BTreeMap<String, Argument>,
    used: BTreeSet<String>,
}

/// The target's declaration of an argument comes before that of any other stage.
fn arguments(analysis: &Analysis<'_>, target: usize) -> Vec<Argument> {
    let mut global = Arguments::default();
    for (arg, span) in global_args(analysis.file) {
        let value = analysis.globals.get(&arg.name.value).map(str::to_owned);
        global.declared.insert(arg.name.value.clone(), argument(analysis, arg, span, value));
    }
    let mut stages = vec![global.clone(); analysis.stages.len()];
    // A stage takes over what an earlier one ends with.
    let mut begun = 0;
    analysis.for_each_stage_instruction(|at, instruction, scope| {
        (begun..=at).for_each(|at| begin(analysis, &mut stages, at));
        begun = begun.max(at + 1);
        let (Kind::Arg(args), Some(stage)) = (&instruction.kind, stages.get_mut(at)) else {
            return;
        };
        let mut after = scope.clone();
        after.apply(&instruction.kind, &analysis.globals, analysis.options.build_args);
        for arg in args {
            stage.declare(analysis, arg, instruction.span, after.get(&arg.name.value));
        }
    });
    (begun..stages.len()).for_each(|at| begin(analysis, &mut stages, at));
    let is_needed = |at: &usize| analysis.stages.get(*at).is_some_and(|view| view.is_checked);
    let others = (0..stages.len()).rev().filter(|at| *at != target).filter(is_needed);
    let mut found: BTreeMap<String, Argument> = BTreeMap::new();
    for stage in std::iter::once(target).chain(others).filter_map(|at| stages.get(at)) {
        for argument in stage.used_with_defaults(analysis.file) {
            found.entry(argument.name.clone()).or_insert_with(|| argument.clone());
        }
    }
    let mut found: Vec<Argument> = found.into_values().collect();
    found.sort_by_key(|argument| argument.span);
    found
}

/// Gives a stage what the one that it starts from has, and the names in its FROM.
fn begin(analysis: &Analysis<'_>, stages: &mut [Arguments], at: usize) {
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

impl Arguments {
    fn declare(&mut self, analysis: &Analysis<'_>, arg: &ir::Arg, span: Span, value: Option<&str>) {
        let name = &arg.name.value;
        self.used.insert(name.clone());
        let is_given = arg.default.is_some() || analysis.options.build_args.contains_key(name);
        // A global argument, which has a declaration of its own, or one that nobody declares:
        // TARGETARCH and the like.
        if is_given || analysis.globals.get(name).is_none() {
            let argument = argument(analysis, arg, span, value.map(str::to_owned));
            self.declared.insert(name.clone(), argument);
        }
    }

    /// The arguments that are used, and the global ones that their defaults name.
    fn used_with_defaults(&self, file: &ir::Dockerfile) -> impl Iterator<Item = &Argument> {
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

/// The ARGs before the first FROM.
fn global_args(file: &ir::Dockerfile) -> impl Iterator<Item = (&ir::Arg, Span)> {
    file.meta_args.iter().flat_map(|instruction| {
        let args = if let Kind::Arg(args) = &instruction.kind { args.as_slice() } else { &[] };
        args.iter().map(|arg| (arg, instruction.span))
    })
}

fn argument(analysis: &Analysis<'_>, arg: &ir::Arg, span: Span, value: Option<String>) -> Argument {
    let name = arg.name.value.clone();
    let description = description(analysis.source, span, &name).map(str::to_owned);
    Argument { name, description, value, span }
}

/// The names after `$` and `${`.
fn names_in(text: &str) -> Vec<String> {
    let name = |part: &str| {
        let part = part.trim_start_matches('{');
        let end = part.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        part.get(..end.unwrap_or(part.len())).unwrap_or("").to_owned()
    };
    text.split('$').skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

fn lendings(analysis: &Analysis<'_>, kind: MountType) -> Vec<Lending> {
    let mut found: Vec<Lending> = Vec::new();
    analysis.for_each_instruction(|instruction, scope| {
        let Kind::Run(run) = &instruction.kind else { return };
        for mount in run.mounts.iter().map(|mount| &mount.value).filter(|m| m.kind == kind) {
            let Some(id) = lent_id(mount, scope) else { continue };
            let required = mount.required.is_some_and(|required| required.value);
            match found.iter_mut().find(|known| known.id == id) {
                Some(known) => known.required |= required,
                None => found.push(Lending { id, required, span: instruction.span }),
            }
        }
    });
    found.sort_by_key(|one| one.span);
    found
}

/// The id of the secret or agent that is mounted; `None` when there is none, which is an error of
/// the build.
fn lent_id(mount: &ir::Mount, scope: &StageScope) -> Option<String> {
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
