//! Evaluates ARG and ENV: the variables that FROM and the instructions of a stage see.
//!
//! Planning and the build checks share this evaluator, so a check sees the values that a build uses.
//! The rules are those of the Dockerfile reference, "ARG"
//! (<https://docs.docker.com/reference/dockerfile/#arg>), and of BuildKit's `dockerfile2llb`.
//! Values from outside of the Dockerfile come in as [`ArgInputs`]; nothing here reads an environment.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use crate::diag::{Diagnostic, codes};
use crate::oci::{DEFAULT_PATH, Platform};

use super::expand::{self, Expanded};
use super::ir::{self, Escape, Kind, Word};

/// Build arguments that every RUN sees without an ARG, and that stay out of cache keys, history and
/// config (Dockerfile reference, "Predefined ARGs").
const PROXY_ARGS: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Returns whether `name` is a proxy variable, in upper or lower case.
#[must_use]
pub fn is_proxy(name: &str) -> bool {
    PROXY_ARGS.iter().any(|known| *known == name || known.to_ascii_lowercase() == name)
}

/// Returns whether a build argument has a meaning without an ARG that declares it.
///
/// These are the proxy variables, the platform arguments, `SOURCE_DATE_EPOCH` and every name that
/// begins with `BUILDKIT_` (<https://docs.docker.com/reference/dockerfile/#predefined-args>).
#[must_use]
pub fn is_predefined(name: &str) -> bool {
    let is_platform = ["TARGET", "BUILD"].iter().any(|whose| {
        let rest = name.strip_prefix(whose);
        rest.is_some_and(|rest| ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"].contains(&rest))
    });
    let is_other = ["SOURCE_DATE_EPOCH", "TARGETSTAGE"].contains(&name);
    is_proxy(name) || is_platform || is_other || name.starts_with("BUILDKIT_")
}

/// Values from outside of the Dockerfile that an evaluation depends on.
#[derive(Debug, Clone, Copy)]
pub struct ArgInputs<'a> {
    /// `--build-arg`, by name.
    pub build_args: &'a BTreeMap<String, String>,
    /// `--target` as given; `TARGETSTAGE` is made from it.
    pub target: Option<&'a str>,
    /// Platform of the image, shown as `TARGETPLATFORM`, `TARGETOS` and so on.
    pub platform: &'a Platform,
    /// Platform that the build runs on, shown as `BUILDPLATFORM`, `BUILDOS` and so on.
    pub build_platform: &'a Platform,
}

impl ArgInputs<'_> {
    /// Returns the automatic platform arguments
    /// (<https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope>).
    fn platform_args(&self, file: &ir::Dockerfile) -> BTreeMap<String, String> {
        let (target, build) = (self.platform, self.build_platform);
        let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
        [
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", variant(target)),
            ("TARGETOSVERSION", String::new()),
            ("TARGETSTAGE", file.target_stage(self.target)),
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", variant(build)),
            ("BUILDOSVERSION", String::new()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// The scope of FROM: the platform arguments and the ARGs before the first FROM.
#[derive(Debug, Clone)]
pub struct GlobalScope {
    values: BTreeMap<String, String>,
    /// Declared names, including those without a value.
    declared: BTreeSet<String>,
    escape: Escape,
}

impl GlobalScope {
    /// Evaluates the ARGs before the first FROM; each sees those before it.
    ///
    /// An ARG that cannot be expanded adds to `errors` and gets no value.
    pub fn new(
        file: &ir::Dockerfile,
        inputs: &ArgInputs<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut values = inputs.platform_args(file);
        for (name, value) in &mut values {
            if let Some(given) = inputs.build_args.get(name) {
                value.clone_from(given);
            }
        }
        let declared = values.keys().cloned().collect();
        let mut scope = Self { values, declared, escape: file.escape() };
        for instruction in &file.meta_args {
            let Kind::Arg(args) = &instruction.kind else { continue };
            errors.extend(
                args.iter().filter_map(|arg| scope.declare_arg(arg, inputs.build_args).err()),
            );
        }
        scope
    }

    fn declare_arg(
        &mut self,
        arg: &ir::Arg,
        build_args: &BTreeMap<String, String>,
    ) -> Result<(), Diagnostic> {
        let name = self.expand(&arg.name)?;
        let value = match (build_args.get(&name), &arg.default) {
            (Some(given), _) => Ok(Some(given.clone())),
            (None, Some(default)) => self.expand(default).map(Some),
            (None, None) => Ok(None),
        };
        self.declared.insert(name.clone());
        if let Some(value) = value? {
            self.values.insert(name, value);
        }
        Ok(())
    }

    /// Expands a word of FROM, or of an ARG before it.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`].
    pub fn expand(&self, word: &Word) -> Result<String, Diagnostic> {
        self.expansion(word).map(|expanded| expanded.value)
    }

    /// Expands a word as [`GlobalScope::expand`] does, and lists the undefined names in it.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`].
    pub fn expansion(&self, word: &Word) -> Result<Expanded<String>, Diagnostic> {
        expand::word(&word.value, self.escape, &|name| self.values.get(name).cloned())
            .map_err(|error| error.diagnostic(word.span))
    }

    /// Returns the value of a global argument.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns whether an argument is declared, with or without a value.
    #[must_use]
    pub fn declares(&self, name: &str) -> bool {
        self.declared.contains(name)
    }

    /// Iterates over all declared names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(String::as_str)
    }
}

/// The variables of a stage at one line. ENV and ARG share one scope, in which the later line wins.
#[derive(Debug, Clone)]
pub struct StageScope {
    escape: Escape,
    /// In order of first definition, as BuildKit passes them to a RUN.
    values: Vec<(String, String)>,
    /// Index of each variable in `values`.
    index: BTreeMap<String, usize>,
    /// Declared ARGs, each once, in order of first declaration.
    args: Vec<String>,
    /// The same names, for lookup.
    declared: BTreeSet<String>,
    unknown: UnknownVariables,
}

/// Variables that a base image may define while its config is not known.
#[derive(Debug, Clone, Default)]
struct UnknownVariables {
    /// True if variables may have values that are not listed.
    any: bool,
    /// Listed variables whose values depend on those.
    names: BTreeSet<String>,
    /// True if one of them was read since [`StageScope::begin_instruction`].
    was_read: Cell<bool>,
}

impl StageScope {
    /// Makes the scope after FROM of an image, or of `scratch`, from the variables of its config.
    pub fn of_env<'a>(escape: Escape, env: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut scope = Self {
            escape,
            values: Vec::new(),
            index: BTreeMap::new(),
            args: Vec::new(),
            declared: BTreeSet::new(),
            unknown: UnknownVariables::default(),
        };
        for (name, value) in env {
            scope.set_env(name, value);
        }
        scope
    }

    /// Makes the scope after FROM of an image whose config is not known.
    ///
    /// Such an image may define any variable, so `PATH` may differ from the default it has here.
    #[must_use]
    pub fn of_unknown_image(escape: Escape) -> Self {
        let mut scope = Self::of_env(escape, [("PATH", DEFAULT_PATH)]);
        scope.unknown.any = true;
        scope.unknown.names.insert("PATH".to_owned());
        scope
    }

    /// Forgets which variables the instruction before read.
    pub fn begin_instruction(&self) {
        self.unknown.was_read.set(false);
    }

    /// Notes that the current instruction depends on an unknown base image.
    pub fn note_unknown_read(&self) {
        self.unknown.was_read.set(true);
    }

    /// Returns whether the current instruction depends on an unknown base image.
    #[must_use]
    pub fn has_read_unknown(&self) -> bool {
        self.unknown.was_read.get()
    }

    /// Returns whether every variable of the base image is known.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        !self.unknown.any
    }

    /// Looks up a variable for an expansion.
    fn lookup(&self, name: &str) -> Option<String> {
        let value = self.get(name).map(str::to_owned);
        let may_be_set = self.unknown.any && value.is_none();
        if may_be_set || self.unknown.names.contains(name) {
            self.note_unknown_read();
        }
        value
    }

    /// Sets a variable; one that exists keeps its position.
    pub fn set_env(&mut self, name: &str, value: &str) {
        if self.has_read_unknown() {
            self.unknown.names.insert(name.to_owned());
        } else {
            self.unknown.names.remove(name);
        }
        let known = self.index.get(name).and_then(|at| self.values.get_mut(*at));
        if let Some((_, old)) = known {
            value.clone_into(old);
            return;
        }
        self.index.insert(name.to_owned(), self.values.len());
        self.values.push((name.to_owned(), value.to_owned()));
    }

    /// Declares an ARG and returns its name and value.
    ///
    /// The value is that of `--build-arg`, else the default, else that of the global ARG with this
    /// name. Without any of these, an ENV of the same name stays visible.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`] in the name or in the default. An ARG with a bad
    /// default is declared all the same.
    pub fn declare_arg(
        &mut self,
        arg: &ir::Arg,
        globals: &GlobalScope,
        build_args: &BTreeMap<String, String>,
    ) -> Result<(String, Option<String>), Diagnostic> {
        let name = self.expand(&arg.name)?;
        let value = match (build_args.get(&name), &arg.default) {
            (Some(given), _) => Ok(Some(given.clone())),
            (None, Some(default)) => self.expand(default).map(Some),
            (None, None) => Ok(globals.get(&name).map(str::to_owned)),
        };
        if let Ok(Some(value)) = &value {
            self.set_env(&name, value);
        }
        if self.declared.insert(name.clone()) {
            self.args.push(name.clone());
        }
        Ok((name, value?))
    }

    /// Takes in the variables that an instruction defines, and passes over those with errors.
    pub fn apply(
        &mut self,
        kind: &Kind,
        globals: &GlobalScope,
        build_args: &BTreeMap<String, String>,
    ) {
        self.begin_instruction();
        match kind {
            Kind::Env(pairs) => {
                let pairs: Vec<(String, String)> =
                    pairs.iter().filter_map(|pair| self.expand_pair(pair).ok()).collect();
                for (name, value) in &pairs {
                    self.set_env(name, value);
                }
            }
            Kind::Arg(args) => {
                for arg in args {
                    drop(self.declare_arg(arg, globals, build_args));
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

    /// Returns the value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(*self.index.get(name)?).map(|(_, value)| value.as_str())
    }

    /// Returns all variables, in order of first definition.
    #[must_use]
    pub fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// Iterates over the declared ARGs and their current values, in order of first declaration. The
    /// value is empty if none is set.
    pub fn args(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.args.iter().map(|name| (name.as_str(), self.get(name).unwrap_or_default()))
    }

    /// Iterates over all names that an instruction may use: variables, sorted, then ARGs without a
    /// value, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let without_value = self.declared.iter().filter(|name| !self.index.contains_key(*name));
        self.index.keys().chain(without_value).map(String::as_str)
    }

    /// Expands a word.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`].
    pub fn expand(&self, word: &Word) -> Result<String, Diagnostic> {
        self.expansion(word).map(|expanded| expanded.value)
    }

    fn expansion(&self, word: &Word) -> Result<Expanded<String>, Diagnostic> {
        expand::word(&word.value, self.escape, &|name| self.lookup(name))
            .map_err(|error| error.diagnostic(word.span))
    }

    /// Expands a word and splits it at blanks outside of quotes.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`].
    pub fn expand_list(&self, word: &Word) -> Result<Vec<String>, Diagnostic> {
        expand::words(&word.value, self.escape, &|name| self.lookup(name))
            .map(|expanded| expanded.value)
            .map_err(|error| error.diagnostic(word.span))
    }

    /// Expands name and value of an ENV or LABEL.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`].
    pub fn expand_pair(&self, pair: &ir::Pair) -> Result<(String, String), Diagnostic> {
        Ok((self.expand(&pair.name)?, self.expand(&pair.value)?))
    }

    /// Expands the body of a heredoc that becomes a file; a quoted heredoc is taken literally.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`].
    pub fn expand_heredoc(&self, heredoc: &ir::Heredoc) -> Result<String, Diagnostic> {
        if !heredoc.expand {
            return Ok(heredoc.body.value.clone());
        }
        expand::heredoc(&heredoc.body.value, &|name| self.lookup(name))
            .map(|expanded| expanded.value)
            .map_err(|error| error.diagnostic(heredoc.body.span))
    }

    /// Expands a word that must not be empty; `what` names it in the message.
    ///
    /// # Errors
    /// The diagnostic of an [`expand::ExpandError`], or `E0111` if the result is empty.
    pub fn expand_non_empty(&self, word: &Word, what: &str) -> Result<String, Diagnostic> {
        let value = self.expand(word)?;
        if value.is_empty() {
            let message = format!("{what} is blank after its variables were expanded");
            return Err(Diagnostic::error(codes::BAD_ARGUMENT, word.span, message));
        }
        Ok(value)
    }

    /// Expands a word if every variable in it is known; `None` also if it has an error.
    #[must_use]
    pub fn expand_known(&self, word: &Word) -> Option<String> {
        let expanded = self.expansion(word).ok()?;
        let is_known = |name: &String| self.is_complete() || self.declared.contains(name);
        expanded.undefined.iter().all(is_known).then_some(expanded.value)
    }

    /// Returns the names in a word that neither the base image nor the stage defines.
    #[must_use]
    pub fn undefined(&self, word: &Word) -> Vec<String> {
        self.undeclared(self.expansion(word).map(|expanded| expanded.undefined).unwrap_or_default())
    }

    /// Returns the undefined names in the body of a heredoc that becomes a file.
    #[must_use]
    pub fn undefined_in_heredoc(&self, heredoc: &ir::Heredoc) -> Vec<String> {
        if !heredoc.expand {
            return Vec::new();
        }
        let expanded = expand::heredoc(&heredoc.body.value, &|name| self.lookup(name));
        self.undeclared(expanded.map(|expanded| expanded.undefined).unwrap_or_default())
    }

    /// An ARG without a value is declared, and so not a mistake.
    fn undeclared(&self, mut names: Vec<String>) -> Vec<String> {
        names.retain(|name| !self.declared.contains(name));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::syntax;

    /// Evaluates the last stage of `text` with build argument `GIVEN=given`.
    fn scope_after(text: &str) -> StageScope {
        let (file, diagnostics) = syntax::parse(text);
        assert_eq!(diagnostics, []);
        let build_args = [("GIVEN".to_owned(), "given".to_owned())].into();
        let platform = Platform::new("linux", "arm64", None);
        let inputs = ArgInputs {
            build_args: &build_args,
            target: None,
            platform: &platform,
            build_platform: &platform,
        };
        let mut errors = Vec::new();
        let globals = GlobalScope::new(&file, &inputs, &mut errors);
        assert_eq!(errors, []);
        let mut scope = StageScope::of_env(file.escape(), [("A", "1"), ("B", "2")]);
        for instruction in &file.stages.last().unwrap().instructions {
            scope.apply(&instruction.kind, &globals, &build_args);
        }
        scope
    }

    #[test]
    fn later_line_wins_and_keeps_its_position() {
        let scope = scope_after("FROM x\nARG A=3\nARG C\n");
        assert_eq!(scope.values(), [("A".into(), "3".into()), ("B".into(), "2".into())]);
        let scope = scope_after("FROM x\nARG A=3\nARG C\nENV C=4\n");
        assert_eq!(scope.args().collect::<Vec<_>>(), [("A", "3"), ("C", "4")]);
    }

    #[test]
    fn arg_takes_the_build_argument_then_its_default_then_the_global_value() {
        let text = "ARG G=global\nARG GIVEN=global\nFROM x\n\
                    ARG GIVEN=default\nARG G\nARG D=default TARGETARCH NONE\n";
        let scope = scope_after(text);
        for (name, want) in [
            ("GIVEN", Some("given")),
            ("G", Some("global")),
            ("D", Some("default")),
            ("TARGETARCH", Some("arm64")),
            ("NONE", None),
        ] {
            assert_eq!(scope.get(name), want, "{name}");
        }
        assert_eq!(scope.names().last(), Some("NONE"));
    }
}
