//! Which variables an instruction sees: the global scope of FROM, and a stage's own.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::expand;
use crate::dockerfile::ir::{self, Escape, Word};
use crate::oci::Platform;

use super::Request;

/// Build arguments that every RUN sees undeclared, and that stay out of keys, history and config.
const PROXY_ARGS: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Whether `name` is a proxy variable, in upper or lower case.
pub(super) fn is_proxy(name: &str) -> bool {
    PROXY_ARGS.iter().any(|known| *known == name || known.to_ascii_lowercase() == name)
}

/// Whether a build argument means something although no ARG declares it: proxies, platforms and what
/// begins with `BUILDKIT_` or is `SOURCE_DATE_EPOCH` (Dockerfile reference, "Predefined ARGs").
#[must_use]
pub fn is_predefined(name: &str) -> bool {
    let is_platform = ["TARGET", "BUILD"].iter().any(|whose| {
        let rest = name.strip_prefix(whose);
        rest.is_some_and(|rest| ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"].contains(&rest))
    });
    let is_other = ["SOURCE_DATE_EPOCH", "TARGETSTAGE"].contains(&name);
    is_proxy(name) || is_platform || is_other || name.starts_with("BUILDKIT_")
}

/// The global scope: platform arguments, then the ARGs before the first FROM.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    values: BTreeMap<String, String>,
}

impl Globals {
    /// Evaluates the ARGs before the first FROM, each seeing those before it.
    pub(super) fn new(
        file: &ir::Dockerfile,
        request: &Request,
        platform: &Platform,
        escape: Escape,
        errors: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut globals = Self { values: platform_args(file, request, platform) };
        for (name, value) in &mut globals.values {
            if let Some(given) = request.build_args.get(name) {
                value.clone_from(given);
            }
        }
        for instruction in &file.meta_args {
            let ir::Kind::Arg(args) = &instruction.kind else { continue };
            for arg in args {
                match globals.evaluate(arg, request, escape) {
                    Ok(Some((name, value))) => drop(globals.values.insert(name, value)),
                    Ok(None) => {}
                    Err(error) => errors.push(error),
                }
            }
        }
        globals
    }

    fn evaluate(
        &self,
        arg: &ir::Arg,
        request: &Request,
        escape: Escape,
    ) -> Result<Option<(String, String)>, Diagnostic> {
        let name = self.expand(&arg.name, escape)?;
        if let Some(given) = request.build_args.get(&name) {
            return Ok(Some((name, given.clone())));
        }
        let default = arg.default.as_ref().map(|word| self.expand(word, escape)).transpose()?;
        Ok(default.map(|value| (name, value)))
    }

    /// Expands a word of FROM, or of a global ARG.
    pub(super) fn expand(&self, word: &Word, escape: Escape) -> Result<String, Diagnostic> {
        expand::word(&word.value, escape, &|name| self.values.get(name).cloned())
            .map(|expanded| expanded.value)
            .map_err(|error| error.diagnostic(word.span))
    }

    /// The value of a global argument.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

fn platform_args(
    file: &ir::Dockerfile,
    request: &Request,
    target: &Platform,
) -> BTreeMap<String, String> {
    let build = &request.build_platform;
    let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
    [
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", variant(target)),
        ("TARGETOSVERSION", String::new()),
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", variant(build)),
        ("BUILDOSVERSION", String::new()),
        ("TARGETSTAGE", file.target_stage(request.target.as_deref())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A stage's variables as they stand at one line: ENV and ARG share one scope, in which the later
/// line wins.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// In order of first definition.
    values: Vec<(String, String)>,
    /// The index of each variable in `values`.
    places: HashMap<String, usize>,
    /// Every ARG that was declared, for the history of RUN.
    declared: Vec<(String, Option<String>)>,
    unknown: Unknown,
}

/// Unknown variables of a stage whose base image is not known.
#[derive(Debug, Clone, Default)]
struct Unknown {
    /// True if variables may have values that are not listed.
    any: bool,
    /// Listed variables whose values depend on those.
    names: BTreeSet<String>,
    /// True if one of them was read since [`Scope::begin`].
    was_read: Cell<bool>,
}

impl Scope {
    /// The scope right after `FROM image`.
    pub(super) fn of_env<'a>(env: impl IntoIterator<Item = &'a String>) -> Self {
        let mut scope = Self::default();
        for pair in env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            scope.set(name, value);
        }
        scope
    }

    /// The scope right after FROM of an image whose config is not known: it may define anything,
    /// also another PATH than this default.
    pub(super) fn of_unknown(path: &str) -> Self {
        let mut scope = Self::default();
        scope.set("PATH", path);
        scope.unknown.any = true;
        scope.unknown.names.insert("PATH".to_owned());
        scope
    }

    /// Begins an instruction.
    pub(super) fn begin(&self) {
        self.unknown.was_read.set(false);
    }

    /// Notes that the instruction depends on what is not known.
    pub(super) fn read_unknown(&self) {
        self.unknown.was_read.set(true);
    }

    /// Returns whether the instruction depends on an unknown variable.
    pub(super) fn has_read_unknown(&self) -> bool {
        self.unknown.was_read.get()
    }

    /// Looks up a variable for an expansion.
    fn lookup(&self, name: &str) -> Option<String> {
        let value = self.get(name).map(str::to_owned);
        let may_be_set = self.unknown.any && value.is_none();
        if may_be_set || self.unknown.names.contains(name) {
            self.read_unknown();
        }
        value
    }

    /// Sets a variable, in its old place if it has one.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if self.has_read_unknown() {
            self.unknown.names.insert(name.to_owned());
        } else {
            self.unknown.names.remove(name);
        }
        let place = self.places.get(name).and_then(|at| self.values.get_mut(*at));
        if let Some((_, old)) = place {
            value.clone_into(old);
            return;
        }
        self.places.insert(name.to_owned(), self.values.len());
        self.values.push((name.to_owned(), value.to_owned()));
    }

    /// Declares an ARG; without a value it hides nothing.
    pub(super) fn declare(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
        self.declared.push((name.to_owned(), value.map(str::to_owned)));
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(*self.places.get(name)?).map(|(_, value)| value.as_str())
    }

    /// All variables, in order of first definition.
    pub(super) fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// Expands one word.
    pub(super) fn expand(&self, word: &Word, escape: Escape) -> Result<String, Diagnostic> {
        expand::word(&word.value, escape, &|name| self.lookup(name))
            .map(|expanded| expanded.value)
            .map_err(|error| error.diagnostic(word.span))
    }

    /// Expands a word that may hold several.
    pub(super) fn expand_list(
        &self,
        word: &Word,
        escape: Escape,
    ) -> Result<Vec<String>, Diagnostic> {
        expand::words(&word.value, escape, &|name| self.lookup(name))
            .map(|expanded| expanded.value)
            .map_err(|error| error.diagnostic(word.span))
    }

    /// Expands the body of a heredoc that is a file.
    pub(super) fn expand_heredoc(&self, heredoc: &ir::Heredoc) -> Result<String, Diagnostic> {
        if !heredoc.expand {
            return Ok(heredoc.body.value.clone());
        }
        expand::heredoc(&heredoc.body.value, &|name| self.lookup(name))
            .map(|expanded| expanded.value)
            .map_err(|error| error.diagnostic(heredoc.body.span))
    }

    /// As [`Scope::expand`], for what must not be empty.
    pub(super) fn expand_some(
        &self,
        word: &Word,
        escape: Escape,
        what: &str,
    ) -> Result<String, Diagnostic> {
        let value = self.expand(word, escape)?;
        if value.is_empty() {
            let message = format!("{what} is blank after its variables were expanded");
            return Err(Diagnostic::error(codes::BAD_ARGUMENT, word.span, message));
        }
        Ok(value)
    }

    /// The `|N NAME=value …` in front of a RUN's history; empty without ARGs.
    pub(super) fn history_prefix(&self) -> String {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (name, default) in &self.declared {
            let pair = (name.as_str(), self.get(name).or(default.as_deref()).unwrap_or_default());
            let place = *places.entry(name).or_insert(pairs.len());
            match pairs.get_mut(place) {
                Some(old) => *old = pair,
                None => pairs.push(pair),
            }
        }
        if pairs.is_empty() {
            return String::new();
        }
        let pairs: Vec<String> =
            pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("|{} {} ", pairs.len(), pairs.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_line_wins_and_keeps_its_place() {
        let mut scope = Scope::of_env(&["A=1".to_owned(), "B=2".to_owned()]);
        scope.declare("A", Some("3"));
        scope.declare("C", None);
        assert_eq!(scope.values(), [("A".into(), "3".into()), ("B".into(), "2".into())]);
        scope.set("C", "4");
        assert_eq!(scope.history_prefix(), "|2 A=3 C=4 ");
    }
}
