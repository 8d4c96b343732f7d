//! The definition files of `bake` on this machine, and what else definitions read.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use crate::bake::{
    Ambient, ComposeSettings, DefinitionFile, Randomness, Settings, default_names, parse_bool,
};
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor::FetchedContext;
use crate::limits::MAX_BAKE_FILE_BYTES;
use crate::oci::Platform;
use crate::pathio::inside::read_given;
use crate::pathio::{self, PathError};

use super::fetched::file_in;

type Result<T> = std::result::Result<T, CliError>;

/// Prefix of files in the working directory, where others are in a fetched repository.
const LOCAL: &str = "cwd://";

/// Reads the files of `--file`, of the environment, or the default ones that exist.
pub(crate) fn read(names: &[String], environment: &Environment) -> Result<Vec<DefinitionFile>> {
    read_by(names, environment, |name| match here(name) {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::from_error(&error, Exit::Usage)),
    })
}

/// Reads the files like [`read`] from a fetched repository or archive; names with `cwd://` from the working
/// directory.
pub(crate) fn read_fetched(
    fetched: &FetchedContext,
    names: &[String],
    environment: &Environment,
) -> Result<Vec<DefinitionFile>> {
    if let (Some(single), []) = (fetched.single_file(), names) {
        let names = [single.to_owned()];
        return read_by(&names, environment, |name| file_in(fetched, name));
    }
    read_by(names, environment, |name| match name.strip_prefix(LOCAL) {
        Some(local) => {
            here(local).map(Some).map_err(|error| CliError::from_error(&error, Exit::Usage))
        }
        None => file_in(fetched, name),
    })
}

/// Reads a file of the working directory, or standard input.
fn here(name: &str) -> std::result::Result<Vec<u8>, PathError> {
    match name.strip_prefix(LOCAL).unwrap_or(name) {
        "-" => stdin(),
        path => read_given(Path::new(path), MAX_BAKE_FILE_BYTES),
    }
}

/// Reads the files with `read`, which returns `None` for one that does not exist.
fn read_by(
    names: &[String],
    environment: &Environment,
    read: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<DefinitionFile>> {
    let given = match names {
        [] => from_environment(environment),
        names => names.to_vec(),
    };
    let is_default = given.is_empty();
    let defaults = default_names().map(str::to_owned).to_vec();
    let mut files = Vec::new();
    for name in if is_default { defaults } else { given } {
        let shown = name.strip_prefix(LOCAL).unwrap_or(&name).to_owned();
        let Some(data) = read(&name)? else {
            if is_default {
                continue;
            }
            let text = format!("error: definition file {shown} does not exist");
            return Err(CliError::new(text, Exit::Usage));
        };
        let data = pathio::bounded(data, MAX_BAKE_FILE_BYTES, Path::new(&shown));
        let data = data.map_err(|error| CliError::from_error(&error, Exit::Usage))?;
        files.push(DefinitionFile { name: shown, data });
    }
    if files.is_empty() {
        let names = default_names().join(", ");
        let text = format!("error: no definition file here: none of {names}; name one with -f");
        return Err(CliError::new(text, Exit::Usage));
    }
    Ok(files)
}

/// Returns the files of `BUILDX_BAKE_FILE`.
fn from_environment(environment: &Environment) -> Vec<String> {
    let separator = environment.get("BUILDX_BAKE_PATH_SEPARATOR").unwrap_or(":");
    let names = environment.get("BUILDX_BAKE_FILE").unwrap_or_default();
    let names = names.split(separator).map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn stdin() -> std::result::Result<Vec<u8>, PathError> {
    let path = Path::new("-");
    let mut data = Vec::new();
    let most = MAX_BAKE_FILE_BYTES + 1;
    let read = io::stdin().lock().take(most).read_to_end(&mut data);
    read.map_err(|error| PathError::new("read", path, error))?;
    pathio::bounded(data, MAX_BAKE_FILE_BYTES, path)
}

/// Reads a file that a definition names. `None` if it does not exist.
fn read_named(path: &str) -> std::result::Result<Option<Vec<u8>>, String> {
    match read_given(Path::new(path), MAX_BAKE_FILE_BYTES) {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(crate::executor::chain(&error)),
    }
}

/// The values that users give to variables.
#[derive(Debug)]
pub(crate) struct Variables {
    options: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Variables {
    /// Reads `--var`, and the environment unless `BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP` is set.
    pub(crate) fn of(texts: &[String], environment: &Environment) -> Result<Self> {
        let mut options = BTreeMap::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    options.insert(name.to_owned(), value.to_owned());
                }
                _ => {
                    let text = format!("error: bad --var `{text}`: NAME=VALUE is required");
                    return Err(CliError::new(text, Exit::Usage));
                }
            }
        }
        let disabled = environment.get("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP");
        let disabled = disabled.is_some_and(|text| parse_bool(text).unwrap_or(false));
        let environment = if disabled { BTreeMap::new() } else { environment.all().clone() };
        Ok(Self { options, environment })
    }

    /// Returns the value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.options.get(name).or_else(|| self.environment.get(name)).cloned()
    }

    fn all(&self) -> BTreeMap<String, String> {
        let mut all = self.environment.clone();
        all.extend(self.options.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }
}

/// Returns whether contexts are relative to the file that names them.
pub(crate) fn relative(environment: &Environment) -> Result<bool> {
    let name = "BUILDX_BAKE_FILE_RELATIVE_PATHS";
    let text = environment.get(name).map(str::trim).filter(|text| !text.is_empty());
    text.map_or(Ok(false), parse_bool)
        .map_err(|error| CliError::new(format!("error: bad {name}: {error}"), Exit::Usage))
}

/// Returns what HCL and JSON definitions may read. `command_context` is the context of
/// `BAKE_CMD_CONTEXT`.
pub(crate) fn settings<'a>(
    lookup: &'a dyn Fn(&str) -> Option<String>,
    command_context: &str,
    environment: &Environment,
) -> Result<Settings<'a>> {
    let mut seed = [0; 32];
    if aws_lc_rs::rand::fill(&mut seed).is_err() {
        let text = "error: the system has no random numbers";
        return Err(CliError::new(text, Exit::Environment));
    }
    let builtins = [
        ("BAKE_CMD_CONTEXT", command_context.to_owned()),
        ("BAKE_LOCAL_PLATFORM", Platform::host().to_string()),
    ];
    Ok(Settings {
        lookup,
        builtins: builtins.map(|(name, value)| (name.to_owned(), value)).into(),
        ambient: Ambient {
            now_s: environment.now_s,
            home: environment.get("HOME").unwrap_or("/").to_owned(),
            randomness: Randomness::of(seed),
        },
    })
}

/// Returns what compose files may read: files that they name and `.env`, but nothing of this machine if they
/// were fetched.
pub(crate) fn compose_settings(
    variables: &Variables,
    is_fetched: bool,
) -> Result<ComposeSettings<'static>> {
    let environment = variables.all();
    if is_fetched {
        return Ok(ComposeSettings { environment, dotenv: None, read: &refuse_named });
    }
    let dotenv = read_named(".env");
    let dotenv = dotenv.map_err(|error| CliError::new(format!("error: {error}"), Exit::Usage))?;
    let dotenv = dotenv.map(|data| String::from_utf8_lossy(&data).into_owned());
    Ok(ComposeSettings { environment, dotenv, read: &read_named })
}

/// Refuses a file that a fetched definition names: it would be one of this machine.
fn refuse_named(_path: &str) -> std::result::Result<Option<Vec<u8>>, String> {
    Err("a definition from a URL cannot read further files; name them with -f".to_owned())
}
