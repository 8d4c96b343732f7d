//! `--load`: where docker or podman is, and how an image gets into it.
#![expect(clippy::disallowed_methods, reason = "docker and podman are programs")]

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::args::outputs::Wanted;
use crate::cli::environment::Environment;
use crate::image::{Engine, EngineError, ExportError};
use crate::oci::ChainId;
use crate::pathio::{self, PathError};

/// Where docker listens when nobody says.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// What is kept of what a program says.
const MAX_SAID_BYTES: u64 = 64 << 10;
/// Docker's settings are no longer than this.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Where an image is loaded into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An engine behind a socket.
    Socket(PathBuf),
    /// A program that reads the archive from its standard input.
    Program(&'static str),
}

/// Why there is no place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Nobody is there.
    #[error("{0}")]
    Nowhere(String),
    /// A program failed.
    #[error("`{program} load` failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said last.
        said: String,
    },
    /// A program could not be started, or no longer listens.
    #[error("cannot speak to `{program} load`")]
    Io {
        /// Which.
        program: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An engine did not take it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The image cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Finds docker or podman.
pub(crate) fn find(
    wanted: Wanted,
    environment: &Environment,
    in_user_namespace: bool,
) -> Result<Place, LoadError> {
    let path = environment.get("PATH").unwrap_or_default();
    let has = |program: &str| {
        path.split(':').any(|directory| Path::new(directory).join(program).is_file())
    };
    if wanted != Wanted::Podman {
        if let Some(socket) = docker_socket(environment) {
            return Ok(Place::Socket(socket));
        }
        // It knows contexts, ssh and TLS.
        if has("docker") {
            return Ok(Place::Program("docker"));
        }
    }
    if wanted != Wanted::Docker {
        if !in_user_namespace && has("podman") {
            return Ok(Place::Program("podman"));
        }
        let runtime = environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
        let socket = runtime.map(|directory| directory.join("podman/podman.sock"));
        if let Some(socket) = socket.filter(|socket| is_socket(socket)) {
            return Ok(Place::Socket(socket));
        }
        if has("podman") {
            // Inside rbuild's user namespace it would use another storage than outside.
            return Err(LoadError::Nowhere(
                "podman cannot be called from an ordinary user's build, and its socket is not there: use `-o type=docker,dest=- … | podman load`, or `systemctl --user start podman.socket`".to_owned(),
            ));
        }
    }
    let what = match wanted {
        Wanted::Any => "neither docker nor podman is here",
        Wanted::Docker => "docker is not here",
        Wanted::Podman => "podman is not here",
    };
    Err(LoadError::Nowhere(format!(
        "{what} to load the image into: set DOCKER_HOST, or write a file with -o type=docker,dest=FILE"
    )))
}

/// Docker's socket, unless the client has to be asked where its engine is.
fn docker_socket(environment: &Environment) -> Option<PathBuf> {
    if let Some(host) = environment.get("DOCKER_HOST") {
        return host.strip_prefix("unix://").map(PathBuf::from);
    }
    let is_elsewhere = environment.get("DOCKER_CONTEXT").is_some_and(|name| name != "default")
        || environment.docker_config().is_some_and(|directory| has_context(&directory));
    let socket = PathBuf::from(DOCKER_SOCKET);
    (!is_elsewhere && is_socket(&socket)).then_some(socket)
}

/// Whether docker's settings choose an engine.
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

/// Writes an image, without the layers below these stacks, into a stream.
pub(crate) type WriteImage<'a> =
    dyn FnMut(&BTreeSet<ChainId>, &mut dyn Write) -> Result<(), ExportError> + 'a;

/// Loads the image that `write` writes; gives what docker or podman say.
pub(crate) fn load(
    place: &Place,
    environment: &Environment,
    write: &mut WriteImage<'_>,
) -> Result<Vec<String>, LoadError> {
    match place {
        Place::Socket(socket) => {
            let engine = Engine::new(socket);
            let known = engine.known_layers();
            match engine.load(&mut |out| write(&known, out)) {
                // An image may have gone since it was listed: then everything is sent.
                Err(EngineError::Refused { .. }) if !known.is_empty() => {
                    Ok(engine.load(&mut |out| write(&BTreeSet::new(), out))?)
                }
                said => Ok(said?),
            }
        }
        Place::Program(program) => load_by(program, environment, write),
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
        return Err(LoadError::Program { program, said });
    }
    written?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// What a program says, without control characters.
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
