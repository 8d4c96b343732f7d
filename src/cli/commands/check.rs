//! `rbuild --check` and `--call=outline|targets`: what a Dockerfile says of itself, and what is
//! odd about it. Nothing is built, and no registry asked.

use std::io::IsTerminal as _;

use serde_json::{Value, json};

use super::{Complaint, Environment, Exit, fix, sarif};
use crate::build::BuildOptions;
use crate::cli::args::BuildArgs;
use crate::cli::call::{Format, Inspection};
use crate::cli::contexts::{self, Asked, Input, MAX_FILE_BYTES};
use crate::cli::progress::redact;
use crate::cli::stdout::{self, say};
use crate::diag::{self, Code, Diagnostic, SourceFile, Span, Style, codes};
use crate::ir;
use crate::lint::{self, LintOptions, Outline, StageSummary, Wanted};
use crate::oci::Platform;
use crate::syntax;

/// Where BuildKit's rules are described.
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
}

/// Refuses what makes no sense together with what is looked at.
pub(super) fn usage(args: &BuildArgs, asked: &Asked) -> Result<(), Complaint> {
    let bad = |text: String| Err(Complaint::new(format!("error: {text}"), Exit::Usage));
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
    let is_here = matches!(asked, Asked::Folder(_)) && !contexts::is_stdin(args);
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
    let found = lint(options, source, &parsed, Wanted::BeforeImages);
    without_checks(parsed).chain(found).collect()
}

/// What the checks that need images say without them, for a build that ended before its plan was
/// done: a variable that is empty may be the reason.
pub(super) fn after_failure(options: &BuildOptions, source: &SourceFile) -> Vec<Diagnostic> {
    lint(options, source, &[], Wanted::WithImages)
}

fn lint(
    options: &BuildOptions,
    source: &SourceFile,
    parsed: &[Diagnostic],
    wanted: Wanted,
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
        bases: None,
        wanted,
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
    pub(super) fn run(&self) -> Result<(), Complaint> {
        let Some((what, format)) = self.args.inspection() else { return Ok(()) };
        if what == Inspection::Check {
            return self.check(format);
        }
        if self.diagnostics.iter().any(Diagnostic::is_error) {
            let found = redact::diagnostics(&self.diagnostics);
            let text = diag::render(&found, &redact::source(self.source()), self.style());
            return Err(Complaint::new(text, Exit::Build));
        }
        let stages = lint::stages(&self.dockerfile, self.source().text());
        if what == Inspection::Targets {
            match format {
                Format::Text => stdout::lines(&targets_text(&stages), false),
                Format::Json | Format::Sarif => stdout::json(&self.targets_json(&stages)),
            }
            return Ok(());
        }
        let outline = self
            .lint(|_, options, _| lint::outline(&self.dockerfile, self.source().text(), options))?;
        let Some(outline) = outline else {
            let target = self.args.target.as_deref().unwrap_or("");
            let text = format!("error: target stage \"{target}\" could not be found");
            return Err(Complaint::new(text, Exit::Build));
        };
        match format {
            Format::Text => stdout::lines(&outline_text(&outline), false),
            Format::Json | Format::Sarif => stdout::json(&self.outline_json(&outline)),
        }
        Ok(())
    }

    fn check(&self, format: Format) -> Result<(), Complaint> {
        if !self.args.checks.fix {
            return self.report(format);
        }
        let old = self.source.text();
        let fixed = self.lint(|_, options, platforms| lint::fix_all(old, options, platforms))?;
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

    fn report(&self, format: Format) -> Result<(), Complaint> {
        let broken = self.diagnostics.iter().any(Diagnostic::is_error);
        let found = self.lint(|file, options, platforms| {
            let text = self.source().text();
            let found = lint::check_each(file, text, &self.diagnostics, options, platforms);
            without_checks(self.diagnostics.clone()).chain(found).collect::<Vec<_>>()
        })?;
        let (found, source) = (redact::diagnostics(&found), redact::source(self.source()));
        match format {
            Format::Json => stdout::json(&self.check_json(&found)),
            Format::Sarif => stdout::json(&sarif::log(&found, &source, &self.input.path)),
            Format::Text if found.is_empty() => say!("no warnings"),
            Format::Text => {
                let text = diag::render(&found, &source, self.style());
                stdout::lines(&text, self.style() == Style::Colour);
                say!("{}", silenced_by(&found));
            }
        }
        match found.len() {
            0 => Ok(()),
            n if broken => Err(Complaint::new(format!("{n} mistakes and warnings"), Exit::Build)),
            1 => Err(Complaint::new("1 warning", Exit::Build)),
            n => Err(Complaint::new(format!("{n} warnings"), Exit::Build)),
        }
    }

    /// Calls `look` with the options of this command line.
    fn lint<T>(
        &self,
        look: impl FnOnce(&ir::Dockerfile, &LintOptions<'_>, &[Platform]) -> T,
    ) -> Result<T, Complaint> {
        let build_args = super::build_options::build_args(self.args, self.environment);
        let platforms = super::build_options::platforms(&self.args.platform)?;
        let host = Platform::host();
        let rules = &self.input.context.ignore;
        let ignored = |path: &str| rules.hides(path);
        let options = LintOptions {
            build_args: &build_args,
            platform: platforms.first().unwrap_or(&host),
            build_platform: &host,
            target: self.args.target.as_deref(),
            only_needed: false,
            ignored: Some(&ignored),
            bases: None,
            wanted: Wanted::All,
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

    fn place(&self, span: Span) -> Value {
        let start = self.source().line_column(span.start);
        let end = self.source().line_column(span.end.saturating_sub(1).max(span.start));
        json!({
            "sourceIndex": 0,
            "ranges": [{
                "start": { "line": start.line, "character": start.column },
                "end": { "line": end.line, "character": end.column },
            }],
        })
    }

    fn sources(&self) -> Value {
        json!([{ "filename": self.source().name(), "language": "Dockerfile" }])
    }

    /// In the form of docker's `lint` subrequest, with columns and help added.
    fn check_json(&self, found: &[Diagnostic]) -> Value {
        let one = |said: &Diagnostic| {
            json!({
                "ruleName": said.code.as_str(),
                "description": said.code.summary(),
                "url": rule_page(said.code),
                "detail": said.message,
                "help": said.helps,
                "location": self.place(said.span),
            })
        };
        let warnings = found.iter().filter(|said| !said.is_error()).map(one);
        let error = found.iter().find(|said| said.is_error());
        let mut shown =
            json!({ "warnings": warnings.collect::<Vec<_>>(), "sources": self.sources() });
        if let (Some(error), Some(object)) = (error, shown.as_object_mut()) {
            let error = json!({ "message": error.message, "location": self.place(error.span) });
            object.insert("buildError".to_owned(), error);
        }
        shown
    }

    fn targets_json(&self, stages: &[StageSummary]) -> Value {
        let one = |stage: &StageSummary| {
            json!({
                "name": stage.name,
                "description": stage.description,
                "default": stage.is_default,
                "base": stage.base,
                "platform": stage.platform,
                "location": self.place(stage.span),
            })
        };
        let targets: Vec<Value> = stages.iter().map(one).collect();
        json!({ "targets": targets, "sources": self.sources() })
    }

    fn outline_json(&self, outline: &Outline) -> Value {
        let args = outline.arguments.iter().map(|argument| {
            json!({
                "name": argument.name,
                "description": argument.description,
                "value": argument.value,
                "location": self.place(argument.span),
            })
        });
        let mounts = |mounts: &[(String, bool)]| {
            let one = |(id, required): &(String, bool)| json!({ "name": id, "required": required });
            mounts.iter().map(one).collect::<Vec<_>>()
        };
        json!({
            "name": outline.target.name,
            "description": outline.target.description,
            "args": args.collect::<Vec<_>>(),
            "secrets": mounts(&outline.secrets),
            "ssh": mounts(&outline.ssh),
            "sources": self.sources(),
        })
    }
}

/// How not to see these warnings again.
fn silenced_by(found: &[Diagnostic]) -> String {
    let is_rule = |said: &&Diagnostic| lint::rules().iter().any(|rule| rule.code == said.code);
    let mut names: Vec<&str> =
        found.iter().filter(is_rule).map(|said| said.code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "\n`# check=skip={}` at the top of the file silences these rules; right above an \
         instruction it does so for that instruction",
        names.join(",")
    )
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

fn targets_text(stages: &[StageSummary]) -> String {
    let rows = stages.iter().enumerate().map(|(at, stage)| {
        let name = stage.name.clone().unwrap_or_else(|| at.to_string());
        let default = if stage.is_default { " (default)" } else { "" };
        vec![
            format!("{name}{default}"),
            stage.base.clone(),
            stage.description.clone().unwrap_or_default(),
        ]
    });
    table(&["TARGET", "FROM", "DESCRIPTION"], rows.collect())
}

fn outline_text(outline: &Outline) -> String {
    let name = outline.target.name.as_deref().unwrap_or("default");
    let mut text = format!("TARGET:      {name}\n");
    if let Some(description) = &outline.target.description {
        text.push_str(&format!("DESCRIPTION: {description}\n"));
    }
    if !outline.arguments.is_empty() {
        let rows = outline.arguments.iter().map(|argument| {
            let (value, about) = (argument.value.clone(), argument.description.clone());
            vec![argument.name.clone(), value.unwrap_or_default(), about.unwrap_or_default()]
        });
        text.push('\n');
        text.push_str(&table(&["BUILD ARG", "VALUE", "DESCRIPTION"], rows.collect()));
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let rows = mounts.iter().map(|(id, required)| {
                vec![id.clone(), if *required { "true".to_owned() } else { String::new() }]
            });
            text.push('\n');
            text.push_str(&table(&[title, "REQUIRED"], rows.collect()));
        }
    }
    text
}

/// Rows in columns that are as wide as they have to be.
fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let titles = titles.iter().map(|title| (*title).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:0$}", width(at)));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
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
