//! `rbuild --check` and `--call=outline|targets`: build checks, and the arguments and stages of a
//! Dockerfile. `--check` also reports errors that would stop the build before the first step.
//! Nothing is built. Only `--check=pull` contacts registries.

mod document;
mod page;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;

use super::{CliError, Environment, Exit, fix, sarif};
use crate::cli::args::build::BuildArgs;
use crate::cli::args::call::{Format, Inspection};
use crate::cli::display::redact;
use crate::cli::display::stdout::{self, say};
use crate::cli::inputs::contexts::{self, ContextArg, Input};
use crate::cli::inputs::dockerfile::{self, MAX_FILE_BYTES};
use crate::diag::{self, Diagnostic, SourceFile, Span, Style, codes};
use crate::dockerfile::ir;
use crate::dockerfile::lint::{self, BaseLookup, LintOptions, RuleSelection};
use crate::dockerfile::syntax;
use crate::executor::{self, BuildOptions};
use crate::oci::{Platform, Reference};
use crate::plan::{self, ImageLocation, ImageRequest, Images};
use crate::store::Store;

/// An inspection of one Dockerfile: its command line, its text, and what parsing gave.
#[derive(Debug)]
pub(super) struct Inspector<'a> {
    pub(super) args: &'a BuildArgs,
    pub(super) environment: &'a Environment,
    pub(super) input: &'a Input,
    pub(super) source: SourceFile,
    pub(super) dockerfile: ir::Dockerfile,
    /// Errors and warnings of the parser.
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) bases: &'a dyn BaseImages,
}

/// Lookup of base images, which outline and checks need for ENV, ONBUILD and platforms.
pub(super) trait BaseImages {
    /// Adds the requested images that are found. Returns a diagnostic for each image that the build
    /// could not use.
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

/// Result of planning the Dockerfile without building it.
#[derive(Debug, Default)]
struct CheckedPlan {
    images: Images,
    /// Errors that would stop the build.
    errors: Vec<Diagnostic>,
}

/// Rejects options that do not go with the requested inspection.
///
/// # Errors
/// A usage error.
pub(super) fn usage(args: &BuildArgs, asked: &ContextArg) -> Result<(), CliError> {
    let bad = |text: String| Err(CliError::new(format!("error: {text}"), Exit::Usage));
    let inspection = args.inspection();
    if let (Some(flag), None) = (args.checks.given(), inspection) {
        return bad(format!("{flag} can only be used with --check"));
    }
    let is_check = matches!(inspection, Some((Inspection::Check, _)));
    if args.checks.fix && !is_check {
        return bad("--fix can only be used with --check".to_owned());
    }
    if matches!(inspection, Some((_, Format::Sarif))) && !is_check {
        return bad("SARIF output is only available with --check: use format=json".to_owned());
    }
    let is_here = matches!(asked, ContextArg::Directory(_)) && !dockerfile::is_stdin(args);
    if args.checks.fix && !is_here {
        return bad("--fix needs a Dockerfile in a local directory".to_owned());
    }
    Ok(())
}

/// Returns the warnings that are known before a build: the parser's, and those of checks that do not
/// need base images.
pub(super) fn before_build(
    options: &BuildOptions,
    source: &SourceFile,
    parsed: Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let found = lint(options, source, &parsed, None);
    without_checks(parsed).chain(found).collect()
}

/// Runs the checks that need base images after a failed build, with the images in the store: an
/// empty variable or an image for another platform may have caused the failure.
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

/// Returns the warnings and an error that names their rules, if `# check=error=true` or
/// `BUILDKIT_DOCKERFILE_CHECK` makes warnings fatal.
pub(super) fn violation(
    options: &BuildOptions,
    warnings: &[Diagnostic],
) -> Option<Vec<Diagnostic>> {
    let error = lint::violation(&options.dockerfile, &options.request.build_args, warnings)?;
    Some(warnings.iter().cloned().chain([error]).collect())
}

/// Removes the parser's warning about empty continuation lines, which a build check reports as well.
fn without_checks(parsed: Vec<Diagnostic>) -> impl Iterator<Item = Diagnostic> {
    parsed.into_iter().filter(|diagnostic| diagnostic.code != codes::EMPTY_CONTINUATION)
}

impl Inspector<'_> {
    /// Runs the inspection, and prints the result to standard output.
    ///
    /// # Errors
    /// [`Exit::Build`] if there are errors, or with `--check` warnings.
    pub(super) fn run(&self) -> Result<(), CliError> {
        let Some((inspection, format)) = self.args.inspection() else { return Ok(()) };
        if inspection == Inspection::Check {
            return self.check(format);
        }
        if inspection == Inspection::Targets {
            return self.targets(format);
        }
        let planned = self.plan()?;
        let errors = self.parse_errors().chain(planned.errors.iter().cloned());
        let errors: Vec<Diagnostic> = redact::diagnostics(&errors.collect::<Vec<_>>());
        // A file with syntax errors has no outline.
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
        self.fail_on(&errors)
    }

    /// Fails with these errors, if there are any.
    fn fail_on(&self, errors: &[Diagnostic]) -> Result<(), CliError> {
        if errors.is_empty() {
            return Ok(());
        }
        let style = self.environment.style();
        let text = diag::render(errors, &redact::source(self.source()), style);
        Err(CliError::new(text, Exit::Build))
    }

    fn targets(&self, format: Format) -> Result<(), CliError> {
        let errors: Vec<Diagnostic> = self.parse_errors().collect();
        self.fail_on(&redact::diagnostics(&errors))?;
        let stages = lint::stages(&self.dockerfile, self.source().text());
        match format {
            Format::Text => stdout::lines(&page::targets_text(&stages), false),
            Format::Json | Format::Sarif => stdout::json(&self.targets_json(&stages)),
        }
        Ok(())
    }

    fn parse_errors(&self) -> impl Iterator<Item = Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).cloned()
    }

    /// Plans the Dockerfile, and looks up base images until planning needs no more of them.
    fn plan(&self) -> Result<CheckedPlan, CliError> {
        let mut planned = CheckedPlan::default();
        if self.parse_errors().next().is_some() {
            return Ok(planned);
        }
        let contexts = contexts::named(self.args)?.names;
        let request = super::build_options::request(self.args, self.environment, contexts)?;
        let mut requested = BTreeSet::new();
        loop {
            let mut checked = plan::check(&self.dockerfile, &request, &planned.images);
            checked.unknown.retain(|(image, _span)| requested.insert(image.clone()));
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
        Inspector { source, dockerfile, diagnostics, ..*self }.report(format)
    }

    fn report(&self, format: Format) -> Result<(), CliError> {
        let planned = self.plan()?;
        let found = self.lint(&planned.images, |file, options, platforms| {
            let text = self.source().text();
            let found = lint::check_each(file, text, &self.diagnostics, options, platforms);
            let others = without_checks(self.diagnostics.clone()).chain(planned.errors.clone());
            others.chain(found).collect::<Vec<_>>()
        })?;
        let n_errors = found.iter().filter(|diagnostic| diagnostic.is_error()).count();
        let n_warnings = found.len() - n_errors;
        let (found, source) = (redact::diagnostics(&found), redact::source(self.source()));
        let is_plugin = self.environment.is_docker_plugin;
        match format {
            Format::Json => stdout::json(&self.check_json(&found)),
            Format::Sarif => stdout::json(&sarif::log(&found, &source, &self.input.path)),
            Format::Text if found.is_empty() && !is_plugin => say!("no warnings"),
            Format::Text => {
                if is_plugin && n_errors == 0 {
                    say!("{}", page::buildx_total(n_warnings));
                }
                if found.is_empty() {
                    return Ok(());
                }
                let text = diag::render(&found, &source, self.style());
                stdout::lines(&text, self.style() == Style::Colour);
                say!("{}", page::silenced_by(&found));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(CliError::new(page::totals(n_errors, n_warnings), Exit::Build))
    }

    /// Calls `run` with the lint options of this command line and the base images found so far.
    fn lint<T>(
        &self,
        images: &Images,
        run: impl FnOnce(&ir::Dockerfile, &LintOptions<'_>, &[Platform]) -> T,
    ) -> Result<T, CliError> {
        let build_args = super::build_options::build_args(self.args, self.environment)?;
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
            // Without a target, every stage is checked.
            only_needed: self.args.target.is_some(),
            ignored: Some(&ignored),
            bases: Some(&bases),
            selection: RuleSelection::All,
        };
        Ok(run(&self.dockerfile, &options, &platforms))
    }

    const fn source(&self) -> &SourceFile {
        &self.source
    }

    fn style(&self) -> Style {
        let colour = self.environment.colour && std::io::stdout().is_terminal();
        if colour { Style::Colour } else { Style::Plain }
    }
}
