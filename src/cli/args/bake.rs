//! The arguments of `bake`.

use std::path::PathBuf;

use clap::Args;

use super::progress::Progress;
use crate::bake;

/// The arguments of `bake`.
#[derive(Debug, Args)]
pub(crate) struct BakeArgs {
    /// Targets and groups to build [default: default]
    ///
    /// Patterns such as `app-*` stand for all names that match. A URL before them is the location of
    /// the definition files.
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Definition file: HCL, JSON or compose
    ///
    /// May be repeated; later files change what earlier ones define. `-` is standard input.
    /// [default: $BUILDX_BAKE_FILE, or those of compose.yaml, docker-compose.yml, docker-bake.json,
    /// docker-bake.hcl and docker-bake.override.{json,hcl} that exist]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<String>,
    /// Override a value of targets
    ///
    /// The key is that of the definition: `app.args.VERSION=2`, `*.platform=linux/arm64`,
    /// `app.tags+=extra`. The target may be a pattern.
    #[arg(long, value_name = "TARGET.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Set a variable of the definitions
    ///
    /// Instead of the environment variable of the same name.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// Print the resolved targets as JSON
    #[arg(long)]
    pub(crate) print: bool,
    /// List targets or variables
    ///
    /// As a table, or as JSON with `type=targets,format=json`.
    #[arg(long, value_name = "targets|variables", conflicts_with = "print")]
    pub(crate) list: Option<String>,
    /// Same as --list=targets
    #[arg(long, hide = true, conflicts_with_all = ["print", "list"])]
    pub(crate) list_targets: bool,
    /// Same as --list=variables
    #[arg(long, hide = true, conflicts_with_all = ["print", "list"])]
    pub(crate) list_variables: bool,
    /// Push the images of all targets
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the images of all targets into the engine
    #[arg(long)]
    pub(crate) load: bool,
    /// Rebuild every step of all targets
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) no_cache: Option<bool>,
    /// Look up base images again for all targets
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) pull: Option<bool>,
    /// Provenance attestation of all targets
    #[arg(long, value_name = "BOOL|mode=MODE")]
    pub(crate) provenance: Option<String>,
    /// SBOM attestation of all targets
    #[arg(long, value_name = "BOOL|KEY=VALUE")]
    pub(crate) sbom: Option<String>,
    /// Source policies of all targets
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) policy: Vec<String>,
    /// Grant a permission that the definitions ask for
    ///
    /// network.host, security.insecure, local.special and buildx.local.delete are those of `build`. ssh
    /// grants the SSH agent, fs.read=PATH, fs.write=PATH and fs=PATH a path outside of the working
    /// directory. May be repeated.
    #[arg(long, value_name = "PERMISSION")]
    pub(crate) allow: Vec<String>,
    /// Write the results of all targets to FILE
    ///
    /// JSON with a member for each target, as of `build --metadata-file`.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Progress: auto, tty, plain, json, rawjson, quiet, none
    ///
    /// As of `build`. [default: $BUILDKIT_PROGRESS, or auto]
    #[arg(
        long,
        value_enum,
        default_value_t = Progress::Auto,
        hide_default_value = true,
        value_name = "STYLE",
        hide_possible_values = true
    )]
    pub(crate) progress: Progress,
    /// No effect: there are no builders
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    builder: Option<String>,
    /// Call a method instead of building
    #[arg(long, value_name = "METHOD", conflicts_with = "check")]
    pub(crate) call: Option<String>,
    /// Same as --call=check
    #[arg(long)]
    pub(crate) check: bool,
}

/// The list that is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// Targets and groups.
    Targets,
    /// Variables.
    Variables,
}

/// A list and its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) kind: ListKind,
    pub(crate) json: bool,
}

/// The positional arguments, as Buildx reads them: the location of the definitions, the context of the command
/// line, targets.
#[derive(Debug)]
pub(crate) struct BakeLocation<'a> {
    /// URL of a repository or archive with the definition files.
    pub(crate) url: Option<&'a str>,
    /// Value of `BAKE_CMD_CONTEXT`.
    pub(crate) context: &'a str,
    pub(crate) targets: &'a [String],
}

/// Context of a command line without one: the working directory.
const WORKING_DIRECTORY: &str = "cwd://";

impl BakeArgs {
    /// Returns what the positional arguments mean.
    pub(crate) fn location(&self) -> BakeLocation<'_> {
        let is_url = |word: Option<&String>| word.is_some_and(|word| bake::is_remote(word));
        let all = self.targets.as_slice();
        if !is_url(all.first()) {
            return BakeLocation { url: None, context: WORKING_DIRECTORY, targets: all };
        }
        let url = all.first().map(String::as_str);
        let rest = all.get(1..).unwrap_or_default();
        match rest.split_first() {
            Some((context, targets)) if is_url(Some(context)) => {
                BakeLocation { url, context, targets }
            }
            _ => BakeLocation { url, context: WORKING_DIRECTORY, targets: rest },
        }
    }

    /// Returns whether targets may be built.
    pub(crate) fn builds(&self) -> bool {
        let lists = self.list.is_some() || self.list_targets || self.list_variables;
        !self.print && !lists && self.method().is_none()
    }

    /// Returns the list that is printed instead of a build.
    pub(crate) fn list(&self) -> Result<Option<List>, String> {
        let kind = match (self.list_targets, self.list_variables) {
            (true, _) => Some(ListKind::Targets),
            (false, true) => Some(ListKind::Variables),
            (false, false) => None,
        };
        match (&self.list, kind) {
            (Some(text), _) => parse_list(text).map(Some),
            (None, kind) => Ok(kind.map(|kind| List { kind, json: false })),
        }
    }

    /// Returns the name of the method that is called instead of a build: `lint` for a check.
    pub(crate) fn method(&self) -> Option<String> {
        let text = if self.check { Some("check") } else { self.call.as_deref() };
        let name = text?.split(',').find(|field| !field.contains('=')).unwrap_or_default();
        match name {
            "" | "build" => None,
            "check" => Some("lint".to_owned()),
            other => Some(other.to_owned()),
        }
    }
}

fn parse_list(text: &str) -> Result<List, String> {
    let (mut kind, mut json) = (None, false);
    for field in text.split(',') {
        match field.split_once('=').unwrap_or(("type", field)) {
            ("type", "targets") => kind = Some(ListKind::Targets),
            ("type", "variables") => kind = Some(ListKind::Variables),
            ("format", "table") => json = false,
            ("format", "json") => json = true,
            _ => {
                return Err(format!(
                    "bad --list {text:?}: targets or variables is required, perhaps as \
                     type=targets,format=json"
                ));
            }
        }
    }
    let kind = kind.ok_or_else(|| format!("bad --list {text:?}: the type is missing"))?;
    Ok(List { kind, json })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn urls_before_the_targets_are_locations() {
        let read = |words: &[&str]| {
            let words = ["bake"].iter().chain(words);
            let command = BakeArgs::augment_args(clap::Command::new("bake"));
            let matches = command.try_get_matches_from(words).unwrap();
            let args = BakeArgs::from_arg_matches(&matches).unwrap();
            let BakeLocation { url, context, targets } = args.location();
            (url.map(str::to_owned), context.to_owned(), targets.join(" "))
        };
        let url = "https://git.example/a.git";
        let of = |url: Option<&str>, context: &str, targets: &str| {
            (url.map(str::to_owned), context.to_owned(), targets.to_owned())
        };
        assert_eq!(read(&["a", "b"]), of(None, "cwd://", "a b"));
        assert_eq!(read(&[url, "a"]), of(Some(url), "cwd://", "a"));
        assert_eq!(
            read(&[url, "https://c.example/x.tar", "a"]),
            of(Some(url), "https://c.example/x.tar", "a")
        );
    }

    #[test]
    fn lists_are_named_alone_or_with_a_format() {
        let list = |kind, json| Ok(List { kind, json });
        assert_eq!(parse_list("targets"), list(ListKind::Targets, false));
        assert_eq!(parse_list("type=variables,format=json"), list(ListKind::Variables, true));
        assert!(parse_list("format=json").unwrap_err().contains("the type is missing"));
        assert!(parse_list("groups").unwrap_err().contains("targets or variables"));
    }
}
