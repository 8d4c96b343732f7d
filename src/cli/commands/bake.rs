//! `rbuild bake`: the targets of definition files.
//!
//! - `remote`: definitions of a repository or an archive
//! - `targets`: each target as a command line of `build`, and what it may do
//! - `entitlements`: permissions that the command line has to grant
//! - `build`: builds all targets at once; `events` joins their progress, `order` their dependencies

mod build;
mod entitlements;
mod events;
mod order;
mod remote;
mod targets;

use super::{CliError, Environment, Exit, Global};
use crate::bake::{self, BakeError, DefinitionFile, Definitions, Flags, Parsed, Remark, Request};
use crate::cli::args::bake::{BakeArgs, List, ListKind};
use crate::cli::display::stdout::{self, say};
use crate::cli::display::{redact, stderr, table};
use crate::cli::inputs::bake_files::{self, Variables};
use crate::diag::{Diagnostic, SourceFile, codes};
use crate::pathio::output::write_output;

/// Definition files that were read and evaluated.
pub(crate) struct Loaded {
    files: Vec<DefinitionFile>,
    pub(crate) parsed: Parsed,
    variables: Variables,
    /// URL below which contexts are, if the definitions were fetched.
    remote: Option<String>,
}

/// Prints the targets, or builds them.
pub(crate) fn run(
    args: &BakeArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let list = args.list().map_err(|text| CliError::new(format!("error: {text}"), Exit::Usage))?;
    let loaded = load(args, global, environment)?;
    if let Some(list) = list {
        show_list(list, &loaded.parsed);
        return Ok(());
    }
    let definitions = resolve(args, &loaded, environment)?;
    if args.print {
        stdout::bytes(bake::definition_json(&definitions.groups, &definitions.targets).as_bytes());
        return Ok(());
    }
    let targets = targets::all(args, &definitions, environment)?;
    if targets.iter().any(|target| target.baked.args.inspection().is_some()) {
        return targets::inspect(&targets, global, environment);
    }
    let reporter = build::reporter(args, &targets, environment)?;
    let metadata = build::targets(&targets, global, environment, &reporter)
        .map_err(|error| if error.is_reported() { error } else { reporter.failed(&error) })?;
    let Some(path) = &args.metadata_file else { return Ok(()) };
    write_output(path, format!("{metadata:#}\n").as_bytes())
        .map_err(|error| CliError::from_error(&error, Exit::Environment))
}

/// Reads and evaluates the definition files. Remarks on them are printed.
pub(crate) fn load(
    args: &BakeArgs,
    global: &Global,
    environment: &Environment,
) -> Result<Loaded, CliError> {
    let location = args.location();
    let (files, remote) = match location.url {
        None => (bake_files::read(&args.file, environment)?, None),
        Some(url) => remote::read(url, &args.file, global, environment)?,
    };
    let variables = Variables::of(&args.var, environment)?;
    let lookup = |name: &str| variables.get(name);
    let settings = bake_files::settings(&lookup, location.context, environment)?;
    let compose = bake_files::compose_settings(&variables, location.url.is_some())?;
    let relative = bake_files::relative(environment)?;
    let parsed = bake::parse(&files, &settings, &compose, relative)
        .map_err(|errors| failed(&errors, &files, environment))?;
    show_remarks(&parsed.remarks, &files, environment);
    Ok(Loaded { files, parsed, variables, remote })
}

/// Resolves the targets of the command line.
pub(crate) fn resolve(
    args: &BakeArgs,
    loaded: &Loaded,
    environment: &Environment,
) -> Result<Definitions, CliError> {
    let failed = |error| self::failed(&[error], &loaded.files, environment);
    let flags = Flags {
        push: args.push,
        load: args.load,
        call: args.method(),
        no_cache: args.no_cache,
        pull: args.pull,
        sbom: args.sbom.clone(),
        provenance: args.provenance.clone(),
        policy: args.policy.clone(),
    };
    let (short, disable_policy) = flags.overrides().map_err(failed)?;
    let request = Request {
        targets: args.location().targets.to_vec(),
        overrides: args.set.iter().cloned().chain(short).collect(),
        epoch: environment.get("SOURCE_DATE_EPOCH").map(str::to_owned),
        remote: loaded.remote.clone(),
        disable_policy,
    };
    let lookup = |name: &str| loaded.variables.get(name);
    bake::resolve(&loaded.parsed.config, &request, &lookup).map_err(failed)
}

/// Returns errors with excerpts of the files that they are about.
fn failed(errors: &[BakeError], files: &[DefinitionFile], environment: &Environment) -> CliError {
    let shown = errors.iter().map(|error| match error.diagnostic(files) {
        Some((diagnostic, source)) => {
            CliError::of_diagnostics(vec![diagnostic], &source, environment.style(), Exit::Usage)
        }
        None => {
            let help = error.help.as_ref().map(|help| format!("\nhelp: {help}"));
            let text = format!("error: {}{}", error.message, help.unwrap_or_default());
            CliError::new(text, Exit::Usage)
        }
    });
    let all = shown.reduce(CliError::and);
    all.unwrap_or_else(|| CliError::new("error: the definitions are wrong", Exit::Usage))
}

fn show_remarks(remarks: &[Remark], files: &[DefinitionFile], environment: &Environment) {
    for remark in remarks {
        let Some(file) = files.get(remark.at.file) else { continue };
        let source = SourceFile::new(&file.name, String::from_utf8_lossy(&file.data));
        let diagnostic = Diagnostic::warning(codes::BAKE_IGNORED, remark.at.span, &remark.message);
        let diagnostic = diagnostic.maybe_help(remark.help.as_ref());
        let diagnostics = redact::diagnostics(&[diagnostic]);
        let source = redact::source(&source);
        let text = crate::diag::render(&diagnostics, &source, environment.style());
        stderr::text(&text, environment.colour);
    }
}

fn show_list(list: List, parsed: &Parsed) {
    match (list.kind, list.json) {
        (ListKind::Targets, true) => {
            let text = bake::targets_json(&bake::listed_targets(&parsed.config));
            stdout::bytes(text.as_bytes());
        }
        (ListKind::Variables, true) => {
            stdout::bytes(bake::variables_json(&parsed.variables).as_bytes());
        }
        (ListKind::Targets, false) => {
            let head = table::row([&"TARGET", &"DESCRIPTION"]);
            let listed = bake::listed_targets(&parsed.config);
            let rows = listed.iter().map(|row| table::row([&row.name, &row.description]));
            table::lines(&[head].into_iter().chain(rows).collect::<Vec<_>>())
                .iter()
                .for_each(|line| say!("{line}"));
        }
        (ListKind::Variables, false) => {
            let head = table::row([&"VARIABLE", &"TYPE", &"VALUE", &"DESCRIPTION"]);
            let rows = parsed.variables.iter().map(|variable| {
                let kind = variable.kind.clone().unwrap_or_default();
                let value = variable.value.clone().unwrap_or_else(|| "<null>".to_owned());
                table::row([&variable.name, &kind, &value, &variable.description])
            });
            table::lines(&[head].into_iter().chain(rows).collect::<Vec<_>>())
                .iter()
                .for_each(|line| say!("{line}"));
        }
    }
}
