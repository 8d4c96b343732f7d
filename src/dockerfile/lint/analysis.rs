//! A Dockerfile prepared for the rules: stages with their bases, and the scope at each line.

use std::collections::BTreeSet;

use crate::diag::Diagnostic;
use crate::dockerfile::ir::{self, CopySource, Instruction, Kind, Word};
use crate::dockerfile::scope::{GlobalScope, StageScope};
use crate::oci::{DEFAULT_PATH, Platform, Reference};

use super::LintOptions;

/// The base of a stage, as far as it can be determined without asking a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StageBase {
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    Image(Reference, Platform),
    /// FROM has an error, or no valid image name.
    Unknown,
}

#[derive(Debug)]
pub(super) struct AnalysedStage<'a> {
    pub(super) stage: &'a ir::Stage,
    pub(super) base: StageBase,
    /// The ONBUILD triggers of the parent stage in this file, then the stage's own instructions.
    pub(super) instructions: Vec<&'a Instruction>,
    /// True if rules about the inside of stages apply to this one.
    pub(super) is_checked: bool,
}

/// Everything that a rule may read.
#[derive(Debug)]
pub(super) struct Analysis<'a> {
    pub(super) file: &'a ir::Dockerfile,
    pub(super) source: &'a str,
    /// Diagnostics of the parser.
    pub(super) parsed: &'a [Diagnostic],
    pub(super) options: &'a LintOptions<'a>,
    pub(super) globals: GlobalScope,
    pub(super) stages: Vec<AnalysedStage<'a>>,
}

impl<'a> Analysis<'a> {
    pub(super) fn new(
        file: &'a ir::Dockerfile,
        source: &'a str,
        parsed: &'a [Diagnostic],
        options: &'a LintOptions<'a>,
    ) -> Self {
        // Errors of global ARGs are reported by the plan.
        let globals = GlobalScope::new(file, &options.arg_inputs(), &mut Vec::new());
        let bases = stage_bases(file, &globals, options.platform);
        let needed = needed_stages(file, &bases, options.target);
        let stages = file
            .stages
            .iter()
            .zip(bases)
            .zip(needed)
            .map(|((stage, base), needed)| AnalysedStage {
                stage,
                instructions: inherited_triggers(file, &base).chain(&stage.instructions).collect(),
                base,
                is_checked: needed || !options.only_needed,
            })
            .collect();
        Self { file, source, parsed, options, globals, stages }
    }

    /// Iterates over the stages to which rules about the inside of stages apply.
    pub(super) fn checked_stages(&self) -> impl Iterator<Item = &AnalysedStage<'a>> {
        self.stages.iter().filter(|stage| stage.is_checked)
    }

    /// Iterates over the instructions of [`Analysis::checked_stages`].
    pub(super) fn checked_instructions(&self) -> impl Iterator<Item = &'a Instruction> {
        self.checked_stages().flat_map(|stage| &stage.instructions).copied()
    }

    /// Calls `visit` with every instruction of the checked stages and the scope right before it.
    pub(super) fn for_each_instruction(&self, mut visit: impl FnMut(&'a Instruction, &StageScope)) {
        self.for_each_stage_instruction(|_stage, instruction, scope| visit(instruction, scope));
    }

    /// Calls `visit` as [`Analysis::for_each_instruction`] does, with the number of the stage.
    pub(super) fn for_each_stage_instruction(
        &self,
        visit: impl FnMut(usize, &'a Instruction, &StageScope),
    ) {
        self.walk(visit, |_, _, _| {});
    }

    /// Calls `visit` with every instruction of the checked stages and the scope right after it.
    pub(super) fn for_each_evaluated_instruction(
        &self,
        visit: impl FnMut(usize, &'a Instruction, &StageScope),
    ) {
        self.walk(|_, _, _| {}, visit);
    }

    /// Evaluates all stages; calls `before` and `after` around each instruction of the checked ones.
    fn walk(
        &self,
        mut before: impl FnMut(usize, &'a Instruction, &StageScope),
        mut after: impl FnMut(usize, &'a Instruction, &StageScope),
    ) {
        let build_args = self.options.build_args;
        let mut final_scopes: Vec<StageScope> = Vec::new();
        for (at, stage) in self.stages.iter().enumerate() {
            let (mut scope, triggers) = self.initial_scope(stage, &final_scopes);
            for trigger in triggers {
                scope.apply(&trigger.kind, &self.globals, build_args);
            }
            for &instruction in &stage.instructions {
                if stage.is_checked {
                    before(at, instruction, &scope);
                }
                scope.apply(&instruction.kind, &self.globals, build_args);
                if stage.is_checked {
                    after(at, instruction, &scope);
                }
            }
            final_scopes.push(scope);
        }
    }

    /// Returns the scope after FROM, and the ONBUILD triggers that a known base image brings along.
    fn initial_scope(
        &self,
        stage: &AnalysedStage<'_>,
        final_scopes: &[StageScope],
    ) -> (StageScope, Vec<Instruction>) {
        let escape = self.file.escape();
        let default_path = ("PATH", DEFAULT_PATH);
        let scope = match &stage.base {
            StageBase::Scratch => StageScope::of_env(escape, [default_path]),
            StageBase::Stage(parent) => match final_scopes.get(*parent) {
                Some(parent) => parent.clone(),
                None => StageScope::of_unknown_image(escape),
            },
            StageBase::Image(name, platform) => {
                match self.options.bases.and_then(|facts_of| facts_of(name, platform)) {
                    Some(facts) => {
                        let env =
                            facts.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                        let env = std::iter::once(default_path).chain(env);
                        return (StageScope::of_env(escape, env), facts.triggers);
                    }
                    None => StageScope::of_unknown_image(escape),
                }
            }
            StageBase::Unknown => StageScope::of_unknown_image(escape),
        };
        (scope, Vec::new())
    }

    /// Returns, for each stage, whether one of the stages that it starts from has an instruction
    /// that `matches`.
    pub(super) fn inherits(&self, matches: impl Fn(&Kind) -> bool) -> Vec<bool> {
        let mut at_end: Vec<bool> = Vec::new();
        let mut at_start = Vec::new();
        for stage in &self.stages {
            let inherited = match stage.base {
                StageBase::Stage(parent) => at_end.get(parent).copied().unwrap_or(false),
                StageBase::Scratch | StageBase::Image(..) | StageBase::Unknown => false,
            };
            at_start.push(inherited);
            at_end.push(inherited || stage.instructions.iter().any(|own| matches(&own.kind)));
        }
        at_start
    }

    /// Returns the operating system that a stage is for.
    pub(super) fn os(&self, stage: usize) -> &str {
        let mut at = stage;
        loop {
            match self.stages.get(at).map(|stage| &stage.base) {
                Some(StageBase::Stage(parent)) => at = *parent,
                Some(StageBase::Image(_, platform)) => return &platform.os,
                Some(StageBase::Scratch | StageBase::Unknown) | None => {
                    return &self.options.platform.os;
                }
            }
        }
    }
}

/// Iterates over the ONBUILD triggers that a parent stage of this file leaves to its children.
fn inherited_triggers<'a>(
    file: &'a ir::Dockerfile,
    base: &StageBase,
) -> impl Iterator<Item = &'a Instruction> {
    let parent = match base {
        StageBase::Stage(parent) => file.stages.get(*parent),
        StageBase::Scratch | StageBase::Image(..) | StageBase::Unknown => None,
    };
    let instructions = parent.into_iter().flat_map(|parent| &parent.instructions);
    instructions.filter_map(|instruction| {
        let Kind::Onbuild(onbuild) = &instruction.kind else { return None };
        Some(&*onbuild.instruction)
    })
}

fn stage_bases(
    file: &ir::Dockerfile,
    globals: &GlobalScope,
    platform: &Platform,
) -> Vec<StageBase> {
    let names: Vec<Option<String>> = file.stages.iter().map(ir::Stage::name).collect();
    let base = |(at, stage): (usize, &ir::Stage)| {
        let Ok(image) = globals.expand(&stage.from.image) else { return StageBase::Unknown };
        let lower = image.to_ascii_lowercase();
        let earlier = names.iter().take(at).rposition(|name| name.as_ref() == Some(&lower));
        if let Some(earlier) = earlier {
            return StageBase::Stage(earlier);
        }
        if image == "scratch" {
            return StageBase::Scratch;
        }
        let wanted = match &stage.from.platform {
            None => Some(platform.clone()),
            Some(word) => globals.expand(word).ok().and_then(|text| text.parse().ok()),
        };
        match (image.parse(), wanted) {
            (Ok(name), Some(wanted)) => StageBase::Image(name, wanted),
            _ => StageBase::Unknown,
        }
    };
    file.stages.iter().enumerate().map(base).collect()
}

/// Returns, for each stage, whether the target is made from it; true for all without a valid target.
fn needed_stages(file: &ir::Dockerfile, bases: &[StageBase], target: Option<&str>) -> Vec<bool> {
    let names: Vec<Option<String>> = file.stages.iter().map(ir::Stage::name).collect();
    let stage_named = |text: &str, before: usize| {
        let lower = text.to_ascii_lowercase();
        let by_name = names.iter().take(before).rposition(|name| name.as_ref() == Some(&lower));
        by_name.or_else(|| text.parse().ok().filter(|number| *number < before))
    };
    let n_stages = file.stages.len();
    let target = match target {
        None => n_stages.checked_sub(1),
        Some(name) => stage_named(name, n_stages),
    };
    let Some(target) = target else { return vec![true; n_stages] };
    let mut needed = BTreeSet::new();
    let mut queue = vec![target];
    while let Some(at) = queue.pop() {
        if !needed.insert(at) {
            continue;
        }
        if let Some(StageBase::Stage(parent)) = bases.get(at) {
            queue.push(*parent);
        }
        let instructions = file.stages.get(at).map(|stage| stage.instructions.as_slice());
        for word in instructions.unwrap_or_default().iter().flat_map(Instruction::from_words) {
            queue.extend(stage_named(word.value.trim_matches(['"', '\'']), at));
        }
    }
    (0..n_stages).map(|at| needed.contains(&at)).collect()
}

/// Returns the paths that COPY and ADD take from the build context; heredocs are not paths.
pub(super) fn context_sources(instruction: &Instruction) -> Vec<&Word> {
    let (Kind::Copy(ir::Copy { sources, .. }) | Kind::Add(ir::Add { sources, .. })) =
        &instruction.kind
    else {
        return Vec::new();
    };
    if let Kind::Copy(copy) = &instruction.kind
        && copy.from.is_some()
    {
        return Vec::new();
    }
    sources
        .iter()
        .filter_map(|source| match source {
            CopySource::Path(word) => Some(word),
            CopySource::Heredoc(_) => None,
        })
        .collect()
}
