//! Variables as the rules see them: which are defined at a line, and as far as it is known with
//! which values.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::Span;
use crate::dockerfile::expand::{self, Expanded};
use crate::dockerfile::ir::{self, Escape, Kind, Word};
use crate::oci::DEFAULT_PATH;

use super::{BaseFacts, LintOptions};

/// The scope of FROM: platform arguments and the ARGs before the first FROM.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    values: BTreeMap<String, String>,
    /// Names that may be used, also those without a value.
    declared: BTreeSet<String>,
    escape: Escape,
}

impl Globals {
    /// The global scope, with the build arguments or with the defaults only.
    pub(super) fn new(
        file: &ir::Dockerfile,
        options: &LintOptions<'_>,
        build_args: &BTreeMap<String, String>,
    ) -> Self {
        let mut values = platform_args(file, options);
        for (name, value) in &mut values {
            if let Some(given) = build_args.get(name) {
                value.clone_from(given);
            }
        }
        let declared = values.keys().cloned().collect();
        let mut globals = Self { values, declared, escape: escape(file) };
        for instruction in &file.meta_args {
            let Kind::Arg(args) = &instruction.kind else { continue };
            for arg in args {
                globals.declare(arg, build_args);
            }
        }
        globals
    }

    fn declare(&mut self, arg: &ir::Arg, build_args: &BTreeMap<String, String>) {
        let Some(name) = self.expand(&arg.name).map(|name| name.value) else { return };
        let default = || arg.default.as_ref().and_then(|word| self.expand(word));
        let given = build_args.get(&name).cloned();
        let value = given.or_else(|| default().map(|default| default.value));
        if let Some(value) = value {
            self.values.insert(name.clone(), value);
        }
        self.declared.insert(name);
    }

    /// Expands a word of FROM; `None` when it has a mistake, which others report.
    pub(super) fn expand(&self, word: &Word) -> Option<Expanded<String>> {
        expand::word(&word.value, self.escape, &|name| self.values.get(name).cloned()).ok()
    }

    /// The value of an argument.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether the argument was declared, with or without a value.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.declared.contains(name)
    }

    /// All declared names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(String::as_str)
    }
}

/// The file's escape character.
pub(super) fn escape(file: &ir::Dockerfile) -> Escape {
    file.directives.escape.map_or_else(Escape::default, |escape| escape.value)
}

fn platform_args(file: &ir::Dockerfile, options: &LintOptions<'_>) -> BTreeMap<String, String> {
    let (target, build) = (options.platform, options.build_platform);
    let variant = |platform: &crate::oci::Platform| platform.variant.clone().unwrap_or_default();
    [
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", variant(target)),
        ("TARGETOSVERSION", String::new()),
        ("TARGETSTAGE", file.target_stage(options.target)),
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", variant(build)),
        ("BUILDOSVERSION", String::new()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A stage's variables at one line.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    values: BTreeMap<String, String>,
    /// ARGs, also those without a value.
    declared: BTreeSet<String>,
    /// Whether all that the base image defines is known.
    pub(super) complete: bool,
    escape: Escape,
    /// ONBUILD instructions of the image that have not run yet.
    pub(super) triggers: Vec<ir::Instruction>,
}

impl Scope {
    /// The scope after `FROM scratch`, or after an image of which nothing is known.
    pub(super) fn new(escape: Escape, complete: bool) -> Self {
        let values = [("PATH".to_owned(), DEFAULT_PATH.to_owned())].into();
        Self { values, declared: BTreeSet::new(), complete, escape, triggers: Vec::new() }
    }

    /// The scope after FROM of a known image.
    pub(super) fn of_base(escape: Escape, facts: BaseFacts) -> Self {
        let mut scope = Self::new(escape, true);
        scope.values.extend(facts.env);
        scope.triggers = facts.triggers;
        scope
    }

    /// Takes in what an instruction defines.
    pub(super) fn apply(
        &mut self,
        kind: &Kind,
        globals: &Globals,
        build_args: &BTreeMap<String, String>,
    ) {
        match kind {
            Kind::Env(pairs) => self.env(pairs),
            Kind::Arg(args) => {
                for arg in args {
                    self.arg(arg, globals, build_args);
                }
            }
            Kind::Label(_)
            | Kind::Run(_)
            | Kind::Copy(_)
            | Kind::Add(_)
            | Kind::Workdir(_)
            | Kind::User(_)
            | Kind::Expose(_)
            | Kind::Volume(_)
            | Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Shell(_)
            | Kind::Stopsignal(_)
            | Kind::Healthcheck(_)
            | Kind::Onbuild(_)
            | Kind::Maintainer(_) => {}
        }
    }

    fn env(&mut self, pairs: &[ir::Pair]) {
        let expanded: Vec<(String, String)> = pairs
            .iter()
            .filter_map(|pair| Some((self.text(&pair.name)?, self.text(&pair.value)?)))
            .collect();
        self.values.extend(expanded);
    }

    fn arg(&mut self, arg: &ir::Arg, globals: &Globals, build_args: &BTreeMap<String, String>) {
        let Some(name) = self.text(&arg.name) else { return };
        let value = match (build_args.get(&name), &arg.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => self.text(default),
            (None, None) => globals.get(&name).map(str::to_owned),
        };
        if let Some(value) = value {
            self.values.insert(name.clone(), value);
        }
        self.declared.insert(name);
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The word's text; `None` when it has a mistake, which others report.
    pub(super) fn text(&self, word: &Word) -> Option<String> {
        self.expand(word).map(|expanded| expanded.value)
    }

    /// The word's text, if every variable in it is known.
    pub(super) fn known_text(&self, word: &Word) -> Option<String> {
        let expanded = self.expand(word)?;
        let known = |name: &String| self.complete || self.declared.contains(name);
        expanded.undefined.iter().all(known).then_some(expanded.value)
    }

    /// Expands a word.
    pub(super) fn expand(&self, word: &Word) -> Option<Expanded<String>> {
        expand::word(&word.value, self.escape, &|name| self.values.get(name).cloned()).ok()
    }

    /// Names that a word uses although nothing defines them.
    pub(super) fn undefined(&self, word: &Word) -> Vec<String> {
        let undefined = self.expand(word).map(|expanded| expanded.undefined).unwrap_or_default();
        undefined.into_iter().filter(|name| !self.declared.contains(name)).collect()
    }

    /// The same for the body of a heredoc.
    pub(super) fn undefined_in_heredoc(&self, heredoc: &ir::Heredoc) -> Vec<String> {
        if !heredoc.expand {
            return Vec::new();
        }
        let lookup = |name: &str| self.values.get(name).cloned();
        let expanded = expand::heredoc(&heredoc.body.value, &lookup);
        let undefined = expanded.map(|expanded| expanded.undefined).unwrap_or_default();
        undefined.into_iter().filter(|name| !self.declared.contains(name)).collect()
    }

    /// Every name that may be used.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let declared = self.declared.iter().filter(|name| !self.values.contains_key(*name));
        self.values.keys().chain(declared).map(String::as_str)
    }
}

/// Where `$name` or `${name` stands in the source of `span`; all of it when it cannot be found.
pub(super) fn use_of(source: &str, span: Span, name: &str) -> Span {
    let text = source.get(span.start..span.end).unwrap_or("");
    let ends =
        |rest: &str| !rest.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
    for (at, _) in text.match_indices('$') {
        let rest = text.get(at + 1..).unwrap_or("");
        let (braced, rest) = match rest.strip_prefix('{') {
            Some(rest) => (1, rest),
            None => (0, rest),
        };
        let Some(after) = rest.strip_prefix(name).filter(|after| ends(after)) else { continue };
        let close = usize::from(braced == 1 && after.starts_with('}'));
        let start = span.start + at;
        return Span::new(start, start + 1 + braced + name.len() + close);
    }
    span
}
