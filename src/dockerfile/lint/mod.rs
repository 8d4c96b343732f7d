//! Build checks: style and correctness of a Dockerfile beyond its grammar, under the names that
//! `BuildKit` gives them.
//!
//! One rule is one file in `rules`; each says why it is there, with a bad and a good example. The
//! module is pure: what it has to know of images and ignore files is handed in, and what it does not
//! know it takes to be right. A rule that cannot decide says nothing.

mod analysis;
mod comments;
mod fix;
mod named_inputs;
mod outline;
mod rules;
mod settings;
mod variable_use;

use std::collections::BTreeMap;

use crate::diag::{Code, Diagnostic, Span, codes};
use crate::dockerfile::ir;
use crate::dockerfile::scope::ArgInputs;
use crate::oci::{Platform, Reference};

pub use fix::{Fixed, fix_all};
pub use named_inputs::{NamedInputs, Names, named_inputs};
pub use outline::{Argument, Lending, Outline, StageSummary, outline, stages};
pub use rules::is_secret;
pub use settings::Settings;

use analysis::Analysis;

/// One build check.
#[derive(Debug)]
pub struct Rule {
    /// Its name, and what it is about in one line.
    pub code: Code,
    /// Whether it runs only when `experimental=` asks for it.
    pub experimental: bool,
    /// Whether it has to know what the base images say.
    pub needs_bases: bool,
    check: fn(&Analysis<'_>, &mut Vec<Diagnostic>),
}

impl Rule {
    const fn new(code: Code, check: fn(&Analysis<'_>, &mut Vec<Diagnostic>)) -> Self {
        Self { code, experimental: false, needs_bases: false, check }
    }
}

/// Every rule.
#[must_use]
pub fn rules() -> &'static [Rule] {
    &rules::ALL
}

/// What is known of an image that a FROM names.
#[derive(Debug, Clone)]
pub struct BaseFacts {
    /// Its variables.
    pub env: Vec<(String, String)>,
    /// What it was made for.
    pub platform: Platform,
    /// The instructions that it runs after FROM.
    pub triggers: Vec<ir::Instruction>,
}

/// Which rules to run, by what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Every rule.
    All,
    /// Those that can be decided before an image is asked for.
    BeforeImages,
    /// Those that need images.
    WithImages,
}

/// Looks an image up by what FROM names and the platform it is wanted for.
pub type Bases<'a> = dyn Fn(&Reference, &Platform) -> Option<BaseFacts> + 'a;

/// What a check has to know beside the Dockerfile.
#[derive(Clone, Copy)]
pub struct LintOptions<'a> {
    /// `--build-arg`, by name; `BUILDKIT_DOCKERFILE_CHECK` takes the directive's place.
    pub build_args: &'a BTreeMap<String, String>,
    /// What the image is for.
    pub platform: &'a Platform,
    /// What the build runs on.
    pub build_platform: &'a Platform,
    /// The stage to build, by name or number.
    pub target: Option<&'a str>,
    /// Whether rules about the inside of stages look only at those that the target needs, as a
    /// build does.
    pub only_needed: bool,
    /// Whether the ignore file keeps all that a source names, `.` for the whole context, out of
    /// it; `None` when there is no ignore file.
    pub ignored: Option<&'a dyn Fn(&str) -> bool>,
    /// What is known of images.
    pub bases: Option<&'a Bases<'a>>,
    /// Which rules.
    pub wanted: Wanted,
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
        f.debug_struct("LintOptions").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// Runs the build checks on `file`, which `source` was parsed into with the remarks `parsed`.
///
/// The result is in order of place. Rules that the file or the options skip are left out.
#[must_use]
pub fn check(
    file: &ir::Dockerfile,
    source: &str,
    parsed: &[Diagnostic],
    options: &LintOptions<'_>,
) -> Vec<Diagnostic> {
    let settings = Settings::of(file, options.build_args);
    let analysis = Analysis::new(file, source, parsed, options);
    let mut found = Vec::new();
    for rule in rules() {
        let wanted = match options.wanted {
            Wanted::All => true,
            Wanted::BeforeImages => !rule.needs_bases,
            Wanted::WithImages => rule.needs_bases,
        };
        if wanted && settings.runs(rule) {
            (rule.check)(&analysis, &mut found);
        }
    }
    let skips = skips(file);
    found.retain(|warning| !is_skipped_at(&skips, warning));
    found.sort_by_key(|warning| (warning.span, warning.code));
    // A trigger runs in each stage that starts from its own.
    found.dedup();
    found
}

/// As [`check`], for images for several platforms: what is found for any of them, once.
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

/// The error that `error=true` makes of warnings: it names their rules; `None` when nothing was
/// found or nothing asks for it.
#[must_use]
pub fn violation(
    file: &ir::Dockerfile,
    build_args: &BTreeMap<String, String>,
    warnings: &[Diagnostic],
) -> Option<Diagnostic> {
    let is_rule = |warning: &&Diagnostic| rules().iter().any(|rule| rule.code == warning.code);
    let first = warnings.iter().find(is_rule)?;
    let settings = Settings::of(file, build_args);
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
            .label(check.span, "asks to stop at warnings"),
        None => Diagnostic::error(codes::LINT_AS_ERROR, first.span, message)
            .label(first.span, "the build argument BUILDKIT_DOCKERFILE_CHECK asks to stop here"),
    };
    Some(error)
}

/// The places that `# check=skip=` comments are about and the rules that they name, in order of
/// place.
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

/// Whether a `# check=skip=` comment above the instruction at the warning's place names its rule.
fn is_skipped_at(skips: &[(Span, &[String])], warning: &Diagnostic) -> bool {
    let at = warning.span.start;
    let n_before = skips.partition_point(|(span, _)| span.start <= at);
    let above = skips.get(..n_before).and_then(<[_]>::last);
    above.is_some_and(|(span, rules)| {
        at < span.end.max(span.start + 1)
            && rules.iter().any(|rule| rule == warning.code.as_str() || rule == "all")
    })
}
