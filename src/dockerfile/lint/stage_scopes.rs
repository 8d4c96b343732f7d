//! The file as the rules look at it: stages with their bases, and the scope at each line.

use std::collections::BTreeMap;

use crate::diag::Diagnostic;
use crate::dockerfile::ir::{self, CopySource, Kind, Word};
use crate::oci::{Platform, Reference};

use super::scope::{self, Globals, Scope};
use super::{BaseFacts, LintOptions};

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    /// An image, for a platform.
    Image(Reference, Platform),
    /// It cannot be told.
    Unknown,
}

/// A stage and what is known of it.
#[derive(Debug)]
pub(super) struct StageView<'a> {
    pub(super) stage: &'a ir::Stage,
    pub(super) origin: Origin,
    /// What runs in it: the ONBUILD triggers of the stage that it starts from, then its own.
    pub(super) instructions: Vec<&'a ir::Instruction>,
    /// Whether rules about its inside look at it.
    looked_at: bool,
}

/// What rules look at.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) file: &'a ir::Dockerfile,
    pub(super) source: &'a str,
    pub(super) parsed: &'a [Diagnostic],
    pub(super) options: &'a LintOptions<'a>,
    pub(super) globals: Globals,
    pub(super) stages: Vec<StageView<'a>>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        file: &'a ir::Dockerfile,
        source: &'a str,
        parsed: &'a [Diagnostic],
        options: &'a LintOptions<'a>,
    ) -> Self {
        let globals = Globals::new(file, options, options.build_args);
        let origins = origins(file, &globals, options.platform);
        let needed = needed(file, &origins, options.target);
        let stages = file
            .stages
            .iter()
            .zip(origins)
            .zip(needed)
            .map(|((stage, origin), needed)| StageView {
                stage,
                instructions: triggers(file, &origin).chain(&stage.instructions).collect(),
                origin,
                looked_at: needed || !options.only_needed,
            })
            .collect();
        Self { file, source, parsed, options, globals, stages }
    }

    /// The character that escapes others.
    pub(super) fn escape(&self) -> ir::Escape {
        self.file.directives.escape.map_or_else(ir::Escape::default, |escape| escape.value)
    }

    /// The stages that rules about their inside look at.
    pub(super) fn looked_at(&self) -> impl Iterator<Item = &StageView<'a>> {
        self.stages.iter().filter(|view| view.looked_at)
    }

    /// Their instructions.
    pub(super) fn instructions(&self) -> impl Iterator<Item = &'a ir::Instruction> {
        self.looked_at().flat_map(|view| &view.instructions).copied()
    }

    /// What is known of the image that a stage starts from.
    pub(super) fn facts(&self, view: &StageView<'_>) -> Option<BaseFacts> {
        match &view.origin {
            Origin::Image(name, platform) => (self.options.bases?)(name, platform),
            Origin::Scratch | Origin::Stage(_) | Origin::Unknown => None,
        }
    }

    /// Shows every instruction of the stages that are looked at, with the scope right before it.
    pub(super) fn walk(&self, mut visit: impl FnMut(&'a ir::Instruction, &Scope)) {
        self.walk_stages(|_stage, instruction, scope| visit(instruction, scope));
    }

    /// As [`Scene::walk`], with the number of the stage.
    pub(super) fn walk_stages(&self, mut visit: impl FnMut(usize, &'a ir::Instruction, &Scope)) {
        let mut ends: Vec<Scope> = Vec::new();
        for (at, view) in self.stages.iter().enumerate() {
            let mut scope = self.start(view, &ends);
            for trigger in std::mem::take(&mut scope.triggers) {
                scope.apply(&trigger.kind, &self.globals, self.options.build_args);
            }
            for &instruction in &view.instructions {
                if view.looked_at {
                    visit(at, instruction, &scope);
                }
                scope.apply(&instruction.kind, &self.globals, self.options.build_args);
            }
            ends.push(scope);
        }
    }

    fn start(&self, view: &StageView<'_>, ends: &[Scope]) -> Scope {
        let escape = scope::escape(self.file);
        match &view.origin {
            Origin::Scratch => Scope::new(escape, true),
            Origin::Stage(parent) => match ends.get(*parent) {
                Some(parent) => parent.clone(),
                None => Scope::new(escape, false),
            },
            Origin::Image(..) => match self.facts(view) {
                Some(facts) => Scope::of_base(escape, facts),
                None => Scope::new(escape, false),
            },
            Origin::Unknown => Scope::new(escape, false),
        }
    }

    /// For each stage, whether `finds` holds for one of its instructions or of those of the stages
    /// that it starts from, up to (not with) its own.
    pub(super) fn inherited(&self, finds: impl Fn(&Kind) -> bool) -> Vec<bool> {
        let mut ends: Vec<bool> = Vec::new();
        let mut starts = Vec::new();
        for view in &self.stages {
            let start = match view.origin {
                Origin::Stage(parent) => ends.get(parent).copied().unwrap_or(false),
                Origin::Scratch | Origin::Image(..) | Origin::Unknown => false,
            };
            starts.push(start);
            ends.push(start || view.instructions.iter().any(|own| finds(&own.kind)));
        }
        starts
    }

    /// The operating system that a stage is for.
    pub(super) fn os(&self, stage: usize) -> &str {
        let mut at = stage;
        loop {
            match self.stages.get(at).map(|view| &view.origin) {
                Some(Origin::Stage(parent)) => at = *parent,
                Some(Origin::Image(_, platform)) => return &platform.os,
                Some(Origin::Scratch | Origin::Unknown) | None => return &self.options.platform.os,
            }
        }
    }

    /// Whether rules about the inside of stages look at this one.
    pub(super) const fn looks_at(&self, view: &StageView<'_>) -> bool {
        view.looked_at
    }
}

/// What the stage of `origin` hands to those that start from it.
fn triggers<'a>(
    file: &'a ir::Dockerfile,
    origin: &Origin,
) -> impl Iterator<Item = &'a ir::Instruction> {
    let parent = match origin {
        Origin::Stage(parent) => file.stages.get(*parent),
        Origin::Scratch | Origin::Image(..) | Origin::Unknown => None,
    };
    let instructions = parent.into_iter().flat_map(|parent| &parent.instructions);
    instructions.filter_map(|instruction| {
        let Kind::Onbuild(onbuild) = &instruction.kind else { return None };
        Some(&*onbuild.instruction)
    })
}

/// A stage's name in lower case.
pub(super) fn lower_name(stage: &ir::Stage) -> Option<String> {
    stage.from.name.as_ref().map(|(_, name)| name.value.to_ascii_lowercase())
}

fn origins(file: &ir::Dockerfile, globals: &Globals, platform: &Platform) -> Vec<Origin> {
    let names: Vec<Option<String>> = file.stages.iter().map(lower_name).collect();
    let origin = |(at, stage): (usize, &ir::Stage)| {
        let Some(image) = globals.expand(&stage.from.image) else { return Origin::Unknown };
        let lower = image.value.to_ascii_lowercase();
        let earlier = names.iter().take(at).rposition(|name| name.as_ref() == Some(&lower));
        if let Some(earlier) = earlier {
            return Origin::Stage(earlier);
        }
        if image.value == "scratch" {
            return Origin::Scratch;
        }
        let wanted = match &stage.from.platform {
            None => Some(platform.clone()),
            Some(word) => globals.expand(word).and_then(|text| text.value.parse().ok()),
        };
        match (image.value.parse(), wanted) {
            (Ok(name), Some(wanted)) => Origin::Image(name, wanted),
            _ => Origin::Unknown,
        }
    };
    file.stages.iter().enumerate().map(origin).collect()
}

/// For each stage, whether the target is made from it; all are when there is no such target.
fn needed(file: &ir::Dockerfile, origins: &[Origin], target: Option<&str>) -> Vec<bool> {
    let names: Vec<Option<String>> = file.stages.iter().map(lower_name).collect();
    let by_name = |text: &str, before: usize| {
        let lower = text.to_ascii_lowercase();
        let by_name = names.iter().take(before).rposition(|name| name.as_ref() == Some(&lower));
        by_name.or_else(|| text.parse().ok().filter(|number| *number < before))
    };
    let n_stages = file.stages.len();
    let target = match target {
        None => n_stages.checked_sub(1),
        Some(name) => by_name(name, n_stages),
    };
    let Some(target) = target else { return vec![true; n_stages] };
    let mut needed = BTreeMap::new();
    let mut queue = vec![target];
    while let Some(at) = queue.pop() {
        if needed.insert(at, ()).is_some() {
            continue;
        }
        if let Some(Origin::Stage(parent)) = origins.get(at) {
            queue.push(*parent);
        }
        let instructions = file.stages.get(at).map(|stage| stage.instructions.as_slice());
        for word in instructions.unwrap_or_default().iter().flat_map(|own| from_words(&own.kind)) {
            queue.extend(by_name(word.value.trim_matches(['"', '\'']), at));
        }
    }
    (0..n_stages).map(|at| needed.contains_key(&at)).collect()
}

/// What `--from` and `--mount=from=` name.
pub(super) fn from_words(kind: &Kind) -> Vec<&Word> {
    if let Kind::Copy(copy) = kind {
        return copy.from.iter().collect();
    }
    if let Kind::Run(run) = kind {
        return run.mounts.iter().filter_map(|mount| mount.value.from.as_ref()).collect();
    }
    Vec::new()
}

/// The sources of COPY and ADD in the context that are no heredocs.
pub(super) fn context_sources(instruction: &ir::Instruction) -> Vec<&Word> {
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
