//! Build checks: style and correctness beyond the grammar, with the names of `BuildKit`
//! (<https://docs.docker.com/reference/build-checks/>).
//!
//! Each rule is a file in `rules`, with its reason, a bad and a good example. The module is pure: facts
//! about images and ignore files are passed in. A rule that cannot decide stays silent.

mod analysis;
mod comments;
mod fix;
mod named_inputs;
mod outline;
mod rule_page;
mod rules;
mod settings;
mod variable_use;

use std::collections::BTreeMap;

use crate::diag::{Code, Diagnostic, Span, codes};
use crate::dockerfile::ir;
use crate::dockerfile::scope::ArgInputs;
use crate::oci::{Platform, Reference};

pub use fix::{FixedFile, fix_all};
pub use named_inputs::{InputNames, NamedInputs, named_inputs};
pub use outline::{Outline, OutlineArg, OutlineMount, StageSummary, outline, stages};
pub use rule_page::rule_page;
pub use rules::is_secret;
pub use settings::CheckSettings;

use analysis::Analysis;

/// A build check with its requirements.
#[derive(Debug)]
pub struct Rule {
    /// Name of the rule with its one-line summary.
    pub code: Code,
    /// True if it runs only on request, by `experimental=`.
    pub experimental: bool,
    /// True if it needs facts about base images.
    pub needs_bases: bool,
    check: fn(&Analysis<'_>, &mut Vec<Diagnostic>),
}

impl Rule {
    const fn new(code: Code, check: fn(&Analysis<'_>, &mut Vec<Diagnostic>)) -> Self {
        Self { code, experimental: false, needs_bases: false, check }
    }
}

/// Returns all rules, in BuildKit's order.
#[must_use]
pub fn rules() -> &'static [Rule] {
    &rules::ALL
}

/// The facts about a base image that rules need.
#[derive(Debug, Clone)]
pub struct BaseFacts {
    /// Variables of its config, as names and values.
    pub env: Vec<(String, String)>,
    /// Platform of its config.
    pub platform: Platform,
    /// Instructions of its ONBUILD triggers.
    pub triggers: Vec<ir::Instruction>,
}

/// A selection of rules by the facts that they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleSelection {
    /// All rules, whatever they need.
    All,
    /// Rules that need no images, for the start of a build.
    BeforeImages,
    /// Rules that need images, for when they are known.
    WithImages,
}

/// A lookup of base images by name and platform; `None` for an unknown image.
pub type BaseLookup<'a> = dyn Fn(&Reference, &Platform) -> Option<BaseFacts> + 'a;

/// The inputs of a check apart from the Dockerfile.
#[derive(Clone, Copy)]
pub struct LintOptions<'a> {
    /// Values of `--build-arg`, by name. `BUILDKIT_DOCKERFILE_CHECK` overrides the directive.
    pub build_args: &'a BTreeMap<String, String>,
    /// Platform of the image.
    pub platform: &'a Platform,
    /// Platform that the build runs on.
    pub build_platform: &'a Platform,
    /// Stage to build, by name or number.
    pub target: Option<&'a str>,
    /// True if rules about the inside of stages only check the stages that the target needs.
    pub only_needed: bool,
    /// Returns whether the ignore file excludes a path (`.` is the whole context); `None` without an
    /// ignore file.
    pub ignored: Option<&'a dyn Fn(&str) -> bool>,
    /// Lookup of base images; `None` if no image is known.
    pub bases: Option<&'a BaseLookup<'a>>,
    /// Selection of the rules to run.
    pub selection: RuleSelection,
}

impl<'a> LintOptions<'a> {
    fn arg_inputs(&self) -> ArgInputs<'a> {
        ArgInputs {
            build_args: self.build_args,
            target: self.target,
            platform: self.platform,
            build_platform: self.build_platform,
        }
    }
}

impl std::fmt::Debug for LintOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LintOptions").field("selection", &self.selection).finish_non_exhaustive()
    }
}

/// Runs the build checks on `file`, which was parsed from `source` with the diagnostics `parsed`.
///
/// Returns warnings in source order, without those of rules that the file or the options skip.
#[must_use]
pub fn check(
    file: &ir::Dockerfile,
    source: &str,
    parsed: &[Diagnostic],
    options: &LintOptions<'_>,
) -> Vec<Diagnostic> {
    let settings = CheckSettings::of(file, options.build_args);
    let analysis = Analysis::new(file, source, parsed, options);
    let mut found = Vec::new();
    for rule in rules() {
        let is_selected = match options.selection {
            RuleSelection::All => true,
            RuleSelection::BeforeImages => !rule.needs_bases,
            RuleSelection::WithImages => rule.needs_bases,
        };
        if is_selected && settings.runs(rule) {
            (rule.check)(&analysis, &mut found);
        }
    }
    let skips = skips(file);
    found.retain(|warning| !is_skipped_at(&skips, warning));
    found.sort_by_key(|warning| (warning.span, warning.code));
    // A trigger runs in each stage that starts from its stage.
    found.dedup();
    found
}

/// Runs [`check`] for several platforms, and returns each warning once.
#[must_use]
pub fn check_each(
    file: &ir::Dockerfile,
    source: &str,
    parsed: &[Diagnostic],
    options: &LintOptions<'_>,
    platforms: &[Platform],
) -> Vec<Diagnostic> {
    let mut found: BTreeMap<_, Vec<Diagnostic>> = BTreeMap::new();
    for platform in platforms {
        for warning in check(file, source, parsed, &LintOptions { platform, ..*options }) {
            let same_place = found.entry((warning.span, warning.code)).or_default();
            if !same_place.contains(&warning) {
                same_place.push(warning);
            }
        }
    }
    found.into_values().flatten().collect()
}

/// Returns the error that `error=true` makes of warnings; it names their rules. Returns `None` without
/// warnings, or without `error=true`.
#[must_use]
pub fn violation(
    file: &ir::Dockerfile,
    build_args: &BTreeMap<String, String>,
    warnings: &[Diagnostic],
) -> Option<Diagnostic> {
    let is_rule = |warning: &&Diagnostic| rules().iter().any(|rule| rule.code == warning.code);
    let first = warnings.iter().find(is_rule)?;
    let settings = CheckSettings::of(file, build_args);
    if !settings.error {
        return None;
    }
    let mut names: Vec<&str> =
        warnings.iter().filter(is_rule).map(|warning| warning.code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let message = format!("lint violation found for rules: {}", names.join(", "));
    let asked = file.directives.check.as_ref().filter(|_| !settings.from_build_arg);
    let error = match asked {
        Some(check) => Diagnostic::error(codes::LINT_AS_ERROR, check.span, message)
            .label(check.span, "makes warnings errors"),
        None => Diagnostic::error(codes::LINT_AS_ERROR, first.span, message)
            .label(first.span, "the build argument BUILDKIT_DOCKERFILE_CHECK makes this an error"),
    };
    Some(error)
}

/// Returns the spans that `# check=skip=` comments apply to and the rules that they name, in source
/// order.
fn skips(file: &ir::Dockerfile) -> Vec<(Span, &[String])> {
    let of_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
    let instructions = file.meta_args.iter().chain(of_stages);
    let of_instructions = instructions.map(|own| (own.span, own.skip_checks.as_slice()));
    let of_froms = file.stages.iter().map(|stage| (stage.span, stage.skip_checks.as_slice()));
    let mut skips: Vec<_> = of_instructions.chain(of_froms).collect();
    skips.retain(|(_, rules)| !rules.is_empty());
    skips.sort_by_key(|(span, _)| *span);
    skips
}

/// Returns whether a `# check=skip=` comment above the instruction of a warning names its rule.
fn is_skipped_at(skips: &[(Span, &[String])], warning: &Diagnostic) -> bool {
    let at = warning.span.start;
    let n_before = skips.partition_point(|(span, _)| span.start <= at);
    let above = skips.get(..n_before).and_then(<[_]>::last);
    above.is_some_and(|(span, rules)| {
        at < span.end.max(span.start + 1)
            && rules.iter().any(|rule| rule == warning.code.as_str() || rule == "all")
    })
}
