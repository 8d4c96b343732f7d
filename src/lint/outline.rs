//! What a Dockerfile offers to its caller: stages and build arguments, with their descriptions.

use std::collections::BTreeSet;

use crate::diag::Span;
use crate::ir::{self, Kind, MountType};

use super::LintOptions;
use super::comments::description;
use super::scene::{Scene, lower_name};

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

/// What the target takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The stage.
    pub target: StageSummary,
    /// Its build arguments and those of the stages that it needs, in order of place.
    pub arguments: Vec<Argument>,
    /// Ids of secrets that its RUNs mount, and whether they must be there.
    pub secrets: Vec<(String, bool)>,
    /// Ids of ssh agents that its RUNs mount, and whether they must be there.
    pub ssh: Vec<(String, bool)>,
}

/// The stages of the file, in order.
#[must_use]
pub fn stages(file: &ir::Dockerfile, source: &str) -> Vec<StageSummary> {
    let last = file.stages.len().saturating_sub(1);
    let summary = |(at, stage): (usize, &ir::Stage)| {
        let name = stage.from.name.as_ref().map(|(_, name)| name.value.as_str());
        let described = name.and_then(|name| description(source, stage.span, name));
        StageSummary {
            name: lower_name(stage),
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
    let scene = Scene::new(file, source, &[], &options);
    let summaries = stages(file, source);
    let target = match options.target {
        None => summaries.len().checked_sub(1),
        Some(name) => {
            let lower = name.to_ascii_lowercase();
            let named = summaries.iter().rposition(|stage| stage.name.as_ref() == Some(&lower));
            named.or_else(|| name.parse().ok())
        }
    };
    let target = summaries.into_iter().nth(target?)?;
    let (secrets, ssh) = (mounts(&scene, MountType::Secret), mounts(&scene, MountType::Ssh));
    Some(Outline { target, arguments: arguments(&scene), secrets, ssh })
}

fn arguments(scene: &Scene<'_>) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = Vec::new();
    let mut global = BTreeSet::new();
    for instruction in &scene.file.meta_args {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for arg in args {
            let name = &arg.name.value;
            let value = scene.globals.get(name).map(str::to_owned);
            global.insert(name.clone());
            arguments.push(argument(scene, arg, instruction.span, value));
        }
    }
    let mut used = BTreeSet::new();
    for view in scene.looked_at() {
        let from = &view.stage.from;
        let words = from.platform.iter().chain([&from.image]);
        used.extend(words.flat_map(|word| names_in(&word.value)));
    }
    scene.walk(|instruction, scope| {
        let Kind::Arg(args) = &instruction.kind else { return };
        for arg in args {
            let name = &arg.name.value;
            used.insert(name.clone());
            if arguments.iter().any(|known| known.name == *name) {
                continue;
            }
            let mut after = scope.clone();
            after.apply(&instruction.kind, &scene.globals, scene.options.build_args);
            let value = after.get(name).map(str::to_owned);
            arguments.push(argument(scene, arg, instruction.span, value));
        }
    });
    // A global ARG may be there only for the default of another one.
    let defaults = scene.file.meta_args.iter().flat_map(|instruction| {
        if let Kind::Arg(args) = &instruction.kind { args.as_slice() } else { &[] }
    });
    used.extend(defaults.filter_map(|arg| arg.default.as_ref()).flat_map(|d| names_in(&d.value)));
    arguments.retain(|argument| !global.contains(&argument.name) || used.contains(&argument.name));
    arguments
}

fn argument(scene: &Scene<'_>, arg: &ir::Arg, span: Span, value: Option<String>) -> Argument {
    let name = arg.name.value.clone();
    let description = description(scene.source, span, &name).map(str::to_owned);
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

fn mounts(scene: &Scene<'_>, kind: MountType) -> Vec<(String, bool)> {
    let mut found: Vec<(String, bool)> = Vec::new();
    for instruction in scene.instructions() {
        let Kind::Run(run) = &instruction.kind else { continue };
        for mount in run.mounts.iter().map(|mount| &mount.value).filter(|m| m.kind == kind) {
            let id = mount.id.as_ref().or(mount.source.as_ref()).or(mount.target.as_ref());
            let id = id.map_or("default", |id| id.value.rsplit('/').next().unwrap_or("default"));
            let required = mount.required.is_some_and(|required| required.value);
            match found.iter_mut().find(|(known, _)| known == id) {
                Some((_, known)) => *known |= required,
                None => found.push((id.to_owned(), required)),
            }
        }
    }
    found
}
