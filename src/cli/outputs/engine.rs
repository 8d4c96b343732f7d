//! `--load`: finds docker or podman, and loads an image into it.
#![expect(clippy::disallowed_methods, reason = "docker and podman are programs")]

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::args::outputs::EngineChoice;
use crate::cli::environment::Environment;
use crate::image::{Engine, EngineError, ExportError};
use crate::oci::ChainId;
use crate::pathio::{self, PathError};

/// Default socket of docker.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Maximum length of a program's output that is kept.
const MAX_SAID_BYTES: u64 = 64 << 10;
/// Maximum length of docker's `config.json`.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Location of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineLocation {
    /// The socket of an engine.
    Socket(PathBuf),
    /// A client that reads the archive from standard input.
    Program(&'static str),
}

/// Failure to load an image into an engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// No engine was found.
    #[error("{0}")]
    NotFound(String),
    /// The client of docker or podman failed.
    #[error("`{program} load` failed: {message}")]
    Program {
        /// The client: `docker` or `podman`.
        program: &'static str,
        /// The last line of its standard error.
        message: String,
    },
    /// The client could not be started, or a pipe to it failed.
    #[error("cannot run `{program} load`")]
    Io {
        /// The client: `docker` or `podman`.
        program: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// The engine refused the image.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The image cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Finds the engine that `--load` selects.
pub(crate) fn find(
    wanted: EngineChoice,
    environment: &Environment,
    in_user_namespace: bool,
) -> Result<EngineLocation, LoadError> {
    let path = environment.get("PATH").unwrap_or_default();
    let has = |program: &str| {
        path.split(':').any(|directory| Path::new(directory).join(program).is_file())
    };
    if wanted != EngineChoice::Podman {
        if let Some(socket) = docker_socket(environment) {
            return Ok(EngineLocation::Socket(socket));
        }
        // The client supports contexts, ssh and TLS.
        if has("docker") {
            return Ok(EngineLocation::Program("docker"));
        }
    }
    if wanted != EngineChoice::Docker {
        if !in_user_namespace && has("podman") {
            return Ok(EngineLocation::Program("podman"));
        }
        let runtime = environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
        let socket = runtime.map(|directory| directory.join("podman/podman.sock"));
        if let Some(socket) = socket.filter(|socket| is_socket(socket)) {
            return Ok(EngineLocation::Socket(socket));
        }
        if has("podman") {
            // In the user namespace of rbuild, podman would use another storage than outside.
            return Err(LoadError::NotFound(
                "podman cannot be run from a rootless build, and its socket does not exist: use `-o type=docker,dest=- … | podman load`, or `systemctl --user start podman.socket`".to_owned(),
            ));
        }
    }
    let what = match wanted {
        EngineChoice::Any => "neither docker nor podman was found",
        EngineChoice::Docker => "docker was not found",
        EngineChoice::Podman => "podman was not found",
    };
    Err(LoadError::NotFound(format!(
        "{what} to load the image: set DOCKER_HOST, or write a file with -o type=docker,dest=FILE"
    )))
}

/// Returns whether docker's engine answers, or is one that only docker's client can reach.
pub(crate) fn is_running(environment: &Environment) -> bool {
    match docker_socket(environment) {
        Some(socket) => UnixStream::connect(socket).is_ok(),
        None => is_elsewhere(environment),
    }
}

/// Returns the socket of docker, unless only the client knows where the engine is.
fn docker_socket(environment: &Environment) -> Option<PathBuf> {
    if let Some(host) = environment.get("DOCKER_HOST") {
        return host.strip_prefix("unix://").map(PathBuf::from);
    }
    let socket = PathBuf::from(DOCKER_SOCKET);
    (!is_elsewhere(environment) && is_socket(&socket)).then_some(socket)
}

/// Returns whether docker's client is set to an engine that is not at a local socket.
fn is_elsewhere(environment: &Environment) -> bool {
    environment.get("DOCKER_HOST").is_some_and(|host| !host.starts_with("unix://"))
        || environment.get("DOCKER_CONTEXT").is_some_and(|name| name != "default")
        || environment.docker_config().is_some_and(|directory| has_context(&directory))
}

/// Returns whether docker's `config.json` selects a context.
fn has_context(directory: &Path) -> bool {
    let bytes = pathio::inside::read_regular(&directory.join("config.json"), MAX_CONFIG_BYTES)
        .unwrap_or_default();
    let config: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let context = config.get("currentContext").and_then(Value::as_str);
    context.is_some_and(|name| !name.is_empty() && name != "default")
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

/// Writes an image to a stream, without layers that the engine has.
pub(crate) type WriteImage<'a> =
    dyn FnMut(&BTreeSet<ChainId>, &mut dyn Write) -> Result<(), ExportError> + 'a;

/// Loads the image that `write` writes. Returns the messages of the engine.
pub(crate) fn load(
    place: &EngineLocation,
    environment: &Environment,
    write: &mut WriteImage<'_>,
) -> Result<Vec<String>, LoadError> {
    match place {
        EngineLocation::Socket(socket) => {
            let engine = Engine::new(socket);
            let known = engine.known_layers();
            match engine.load(&mut |out| write(&known, out)) {
                // An image may have been removed since it was listed: send everything.
                Err(EngineError::Refused { .. }) if !known.is_empty() => {
                    Ok(engine.load(&mut |out| write(&BTreeSet::new(), out))?)
                }
                said => Ok(said?),
            }
        }
        EngineLocation::Program(program) => load_by(program, environment, write),
    }
}

fn load_by(
    program: &'static str,
    environment: &Environment,
    write: &mut WriteImage<'_>,
) -> Result<Vec<String>, LoadError> {
    let failed = |source| LoadError::Io { program, source };
    let mut child = Command::new(program)
        .args(["load", "-q"])
        .env_clear()
        .envs(environment.all())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let written = match child.stdin.take() {
        Some(mut stdin) => write(&BTreeSet::new(), &mut stdin),
        None => Ok(()),
    };
    let said = child.stdout.take().map_or(Ok(String::new()), text).map_err(failed)?;
    let wrong = child.stderr.take().map_or(Ok(String::new()), text).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        let said = wrong.lines().last().unwrap_or_default().to_owned();
        return Err(LoadError::Program { program, message: said });
    }
    written?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// Reads text from a program, without control characters.
fn text(stream: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(MAX_SAID_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.chars().filter(|c| !c.is_control() || *c == '\n').collect())
}

impl From<PathError> for LoadError {
    fn from(error: PathError) -> Self {
        Self::Export(error.into())
    }
}
