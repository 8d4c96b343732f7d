//! `rbuild --check` and `--call=outline|targets`: what a Dockerfile says of itself, what is odd
//! about it, and what would stop its build before the first step. Nothing is built, and no registry
//! is asked but with `--check=pull`.

mod document;
mod page;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;

use super::{CliError, Environment, Exit, fix, sarif};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::call::{Format, Inspection};
use crate::cli::display::redact;
use crate::cli::display::stdout::{self, say};
use crate::cli::inputs::contexts::{self, Asked, Input};
use crate::cli::inputs::dockerfile::{self, MAX_FILE_BYTES};
use crate::diag::{self, Code, Diagnostic, SourceFile, Span, Style, codes};
use crate::dockerfile::ir;
use crate::dockerfile::lint::{self, BaseLookup, LintOptions, RuleSelection};
use crate::dockerfile::syntax;
use crate::executor::{self, BuildOptions};
use crate::oci::{Platform, Reference};
use crate::plan::{self, ImageLocation, ImageRequest, Images};
use crate::store::Store;

/// Documentation of BuildKit's rules.
const RULE_PAGE: &str = "https://docs.docker.com/go/dockerfile/rule";

/// What is to be looked at.
#[derive(Debug)]
pub(super) struct Look<'a> {
    pub(super) args: &'a BuildArgs,
    pub(super) environment: &'a Environment,
    pub(super) input: &'a Input,
    pub(super) source: SourceFile,
    pub(super) dockerfile: ir::Dockerfile,
    /// What the parser said.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Lookup of base images.
    pub(super) bases: &'a dyn BaseImages,
}

/// Lookup of base images.
pub(super) trait BaseImages {
    /// Adds what is known of the wanted images. Reports what keeps the build from having one.
    fn find(
        &self,
        wanted: &[(ImageRequest, Span)],
        images: &mut Images,
    ) -> Result<Vec<Diagnostic>, CliError>;
}

impl std::fmt::Debug for dyn BaseImages + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BaseImages")
    }
}

/// A Dockerfile as planning sees it.
#[derive(Debug, Default)]
struct Planned {
    images: Images,
    /// Errors that would stop the build.
    errors: Vec<Diagnostic>,
}

/// Refuses what makes no sense together with what is looked at.
pub(super) fn usage(args: &BuildArgs, asked: &Asked) -> Result<(), CliError> {
    let bad = |text: String| Err(CliError::new(format!("error: {text}"), Exit::Usage));
    let what = args.inspection();
    if let (Some(flag), None) = (args.checks.given(), what) {
        return bad(format!("{flag} goes with --check: nothing is built then"));
    }
    let checks = matches!(what, Some((Inspection::Check, _)));
    if args.checks.fix && !checks {
        return bad("--fix goes with --check".to_owned());
    }
    if matches!(what, Some((_, Format::Sarif))) && !checks {
        return bad("SARIF has what --check finds: use format=json here".to_owned());
    }
    let is_here = matches!(asked, Asked::Directory(_)) && !dockerfile::is_stdin(args);
    if args.checks.fix && !is_here {
        return bad(
            "--fix writes into a Dockerfile of this machine, and this one is read from elsewhere"
                .to_owned(),
        );
    }
    Ok(())
}

/// The page that describes a rule.
pub(super) fn rule_page(code: Code) -> Option<String> {
    if code == codes::COPY_DESTINATION_SLASH {
        // BuildKit does not have it.
        return Some("https://docs.docker.com/reference/dockerfile/#copy".to_owned());
    }
    let is_rule = lint::rules().iter().any(|rule| rule.code == code);
    is_rule.then(|| format!("{RULE_PAGE}/{}/", kebab(code.as_str())))
}

/// Warnings that are known before a build: the parser's, and those of the checks that need no
/// image.
pub(super) fn before_build(
    options: &BuildOptions,
    source: &SourceFile,
    parsed: Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let found = lint(options, source, &parsed, None);
    without_checks(parsed).chain(found).collect()
}

/// Runs the checks that need images with those that the store has, after a build that failed: an
/// empty variable or an image for another platform may be the reason.
pub(super) fn after_failure(
    options: &BuildOptions,
    source: &SourceFile,
    store: &Store,
) -> Vec<Diagnostic> {
    let bases = |name: &Reference, platform: &Platform| {
        let (name_here, place) = (name.clone(), ImageLocation::Registry);
        let request = ImageRequest { name: name_here, location: place, platform: platform.clone() };
        let base = executor::known_base(store, &request, Span::default())?;
        plan::base_facts(&Images::from([(request, base)]))(name, platform)
    };
    lint(options, source, &[], Some(&bases))
}

fn lint(
    options: &BuildOptions,
    source: &SourceFile,
    parsed: &[Diagnostic],
    bases: Option<&BaseLookup<'_>>,
) -> Vec<Diagnostic> {
    let ignored = |path: &str| options.context.ignore.hides(path);
    let request = &options.request;
    let lint_options = LintOptions {
        build_args: &request.build_args,
        platform: &request.build_platform,
        build_platform: &request.build_platform,
        target: request.target.as_deref(),
        only_needed: true,
        ignored: Some(&ignored),
        bases,
        selection: if bases.is_some() {
            RuleSelection::WithImages
        } else {
            RuleSelection::BeforeImages
        },
    };
    let (file, text) = (&options.dockerfile, source.text());
    lint::check_each(file, text, parsed, &lint_options, &request.platforms)
}

/// What to say when the build must not begin: warnings, and the error that names their rules.
pub(super) fn violation(
    options: &BuildOptions,
    warnings: &[Diagnostic],
) -> Option<Vec<Diagnostic>> {
    let error = lint::violation(&options.dockerfile, &options.request.build_args, warnings)?;
    Some(warnings.iter().cloned().chain([error]).collect())
}

/// What the parser said, without what a build check says too.
fn without_checks(parsed: Vec<Diagnostic>) -> impl Iterator<Item = Diagnostic> {
    parsed.into_iter().filter(|said| said.code != codes::EMPTY_CONTINUATION)
}

impl Look<'_> {
    /// Looks, and shows what was seen on standard output.
    pub(super) fn run(&self) -> Result<(), CliError> {
        let Some((what, format)) = self.args.inspection() else { return Ok(()) };
        if what == Inspection::Check {
            return self.check(format);
        }
        if what == Inspection::Targets {
            return self.targets(format);
        }
        let planned = self.plan()?;
        let errors = self.parse_errors().chain(planned.errors.iter().cloned());
        let errors: Vec<Diagnostic> = redact::diagnostics(&errors.collect::<Vec<_>>());
        // Without a parsed file there is no more to say than its mistakes.
        let outline = match self.parse_errors().next() {
            Some(_) => None,
            None => self.lint(&planned.images, |file, options, _| {
                lint::outline(file, self.source().text(), options)
            })?,
        };
        match (format, &outline) {
            (Format::Text, Some(outline)) if errors.is_empty() => {
                stdout::lines(&page::outline_text(outline), false);
            }
            (Format::Text, _) => {}
            (Format::Json | Format::Sarif, outline) => {
                stdout::json(&self.outline_json(outline.as_ref(), errors.first()));
            }
        }
        self.stopped_by(&errors)
    }

    /// Fails if there is an error.
    fn stopped_by(&self, errors: &[Diagnostic]) -> Result<(), CliError> {
        if errors.is_empty() {
            return Ok(());
        }
        let style = self.environment.style();
        let text = diag::render(errors, &redact::source(self.source()), style);
        Err(CliError::new(text, Exit::Build))
    }

    fn targets(&self, format: Format) -> Result<(), CliError> {
        let errors: Vec<Diagnostic> = self.parse_errors().collect();
        self.stopped_by(&redact::diagnostics(&errors))?;
        let stages = lint::stages(&self.dockerfile, self.source().text());
        match format {
            Format::Text => stdout::lines(&page::targets_text(&stages), false),
            Format::Json | Format::Sarif => stdout::json(&self.targets_json(&stages)),
        }
        Ok(())
    }

    fn parse_errors(&self) -> impl Iterator<Item = Diagnostic> {
        self.diagnostics.iter().filter(|said| said.is_error()).cloned()
    }

    /// Plans with the base images that are known.
    fn plan(&self) -> Result<Planned, CliError> {
        let mut planned = Planned::default();
        if self.parse_errors().next().is_some() {
            return Ok(planned);
        }
        let contexts = contexts::named(&self.args.build_context)?.names;
        let request = super::build_options::request(self.args, self.environment, contexts)?;
        let mut asked = BTreeSet::new();
        loop {
            let mut checked = plan::check(&self.dockerfile, &request, &planned.images);
            checked.unknown.retain(|(image, _span)| asked.insert(image.clone()));
            if checked.unknown.is_empty() {
                planned.errors.extend(checked.errors);
                planned.errors.sort_by_key(|error| error.span);
                return Ok(planned);
            }
            let unavailable = self.bases.find(&checked.unknown, &mut planned.images)?;
            planned.errors.extend(unavailable);
        }
    }

    fn check(&self, format: Format) -> Result<(), CliError> {
        if !self.args.checks.fix {
            return self.report(format);
        }
        let old = self.source.text();
        let planned = self.plan()?;
        let fixed = self.lint(&planned.images, |_, options, platforms| {
            lint::fix_all(old, options, platforms)
        })?;
        if fixed.text == old {
            return self.report(format);
        }
        if let Some(file) = &self.input.file {
            fix::write(file, old, &fixed.text, MAX_FILE_BYTES)?;
        }
        if format == Format::Text {
            fix::show(&self.input.path, old, &fixed);
        }
        let (dockerfile, diagnostics) = syntax::parse(&fixed.text);
        let source = SourceFile::new(self.source.name(), fixed.text);
        Look { source, dockerfile, diagnostics, ..*self }.report(format)
    }

    fn report(&self, format: Format) -> Result<(), CliError> {
        let planned = self.plan()?;
        let found = self.lint(&planned.images, |file, options, platforms| {
            let text = self.source().text();
            let found = lint::check_each(file, text, &self.diagnostics, options, platforms);
            let said = without_checks(self.diagnostics.clone()).chain(planned.errors.clone());
            said.chain(found).collect::<Vec<_>>()
        })?;
        let broken = found.iter().any(Diagnostic::is_error);
        let (found, source) = (redact::diagnostics(&found), redact::source(self.source()));
        match format {
            Format::Json => stdout::json(&self.check_json(&found)),
            Format::Sarif => stdout::json(&sarif::log(&found, &source, &self.input.path)),
            Format::Text if found.is_empty() => say!("no warnings"),
            Format::Text => {
                let text = diag::render(&found, &source, self.style());
                stdout::lines(&text, self.style() == Style::Colour);
                say!("{}", page::silenced_by(&found));
            }
        }
        match found.len() {
            0 => Ok(()),
            1 if broken => Err(CliError::new("1 mistake", Exit::Build)),
            n if broken => Err(CliError::new(format!("{n} mistakes and warnings"), Exit::Build)),
            1 => Err(CliError::new("1 warning", Exit::Build)),
            n => Err(CliError::new(format!("{n} warnings"), Exit::Build)),
        }
    }

    /// Calls `look` with the options of this command line and what is known of base images.
    fn lint<T>(
        &self,
        images: &Images,
        look: impl FnOnce(&ir::Dockerfile, &LintOptions<'_>, &[Platform]) -> T,
    ) -> Result<T, CliError> {
        let build_args = super::build_options::build_args(self.args, self.environment);
        let platforms = super::build_options::platforms(&self.args.platform)?;
        let host = Platform::host();
        let rules = &self.input.context.ignore;
        let ignored = |path: &str| rules.hides(path);
        let bases = plan::base_facts(images);
        let options = LintOptions {
            build_args: &build_args,
            platform: platforms.first().unwrap_or(&host),
            build_platform: &host,
            target: self.args.target.as_deref(),
            // Without a target, every stage is one.
            only_needed: self.args.target.is_some(),
            ignored: Some(&ignored),
            bases: Some(&bases),
            selection: RuleSelection::All,
        };
        Ok(look(&self.dockerfile, &options, &platforms))
    }

    const fn source(&self) -> &SourceFile {
        &self.source
    }

    fn style(&self) -> Style {
        let colour = self.environment.colour && std::io::stdout().is_terminal();
        if colour { Style::Colour } else { Style::Plain }
    }
}

/// `StageNameCasing` as `stage-name-casing`.
fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (at, char) in chars.iter().enumerate() {
        let lower = |at: usize| chars.get(at).is_some_and(char::is_ascii_lowercase);
        let starts = char.is_ascii_uppercase() && at > 0;
        if starts && (lower(at.saturating_sub(1)) || lower(at + 1)) {
            text.push('-');
        }
        text.push(char.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::kebab;

    #[test]
    fn rule_names_become_those_of_their_pages() {
        for (name, want) in [
            ("StageNameCasing", "stage-name-casing"),
            ("JSONArgsRecommended", "json-args-recommended"),
            ("UndefinedVar", "undefined-var"),
            ("FromAsCasing", "from-as-casing"),
        ] {
            assert_eq!(kebab(name), want);
        }
    }
}
