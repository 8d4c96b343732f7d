//! Docker's or podman's engine behind a socket of this machine: its layers, and loading an image
//! into it (Docker Engine API, "Images": <https://docs.docker.com/reference/api/engine/>).

mod http;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::oci::{ChainId, DiffId};

use super::Result as ExportResult;
use http::EngineResponse;

/// Maximum number of the engine's newest images whose layers are requested.
const MAX_IMAGES: usize = 200;

/// Docker's name for containerd's image store, which accepts only complete images (`docker info`,
/// "driver-type"; <https://docs.docker.com/engine/storage/containerd/>).
const CONTAINERD: &str = "io.containerd.snapshotter";

/// An engine behind a Unix socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

/// The reason why an engine did not accept an image.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The connection to the socket failed.
    #[error("cannot connect to the engine at {}", socket.display())]
    Io {
        /// The path of the socket.
        socket: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The engine refused the image.
    #[error("the engine at {} refused the image: {message}", socket.display())]
    Refused {
        /// The path of the socket.
        socket: PathBuf,
        /// The engine's message, without control characters.
        message: String,
    },
    /// The image could not be exported.
    #[error(transparent)]
    Export(#[from] super::ExportError),
}

type Result<T> = std::result::Result<T, EngineError>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedImage {
    id: String,
    #[serde(default)]
    created: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedImage {
    #[serde(default, rename = "RootFS")]
    root_fs: InspectedLayers,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct InspectedLayers {
    #[serde(default)]
    layers: Option<Vec<DiffId>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    driver_status: Option<Vec<Vec<String>>>,
    #[serde(default)]
    server_version: String,
}

/// A line of the engine's progress output during a load.
#[derive(Deserialize)]
struct LoadProgressLine {
    stream: Option<String>,
    error: Option<String>,
}

impl Engine {
    /// Creates a handle of the engine behind this socket. No connection is made yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Returns the stacks of layers that need not be sent: the engine has them and adds them where
    /// an archive omits them. Only docker with its own storage does so. Empty for other engines,
    /// and if the engine does not answer.
    #[must_use]
    pub fn known_layers(&self) -> BTreeSet<ChainId> {
        self.ask_layers().unwrap_or_default()
    }

    fn ask_layers(&self) -> Option<BTreeSet<ChainId>> {
        let info: Info = self.get("/info")?;
        let status = info.driver_status.unwrap_or_default();
        let is_containerd = status.iter().flatten().any(|text| text.starts_with(CONTAINERD));
        // Podman's response has no `ServerVersion`.
        if info.server_version.is_empty() || is_containerd || self.is_podman() {
            return None;
        }
        let mut images: Vec<ListedImage> = self.get("/images/json")?;
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        let mut known = BTreeSet::new();
        for image in images.iter().take(MAX_IMAGES) {
            let Some(image) = self.get::<InspectedImage>(&format!("/images/{}/json", image.id))
            else {
                continue;
            };
            let mut stack: Option<ChainId> = None;
            for layer in image.root_fs.layers.unwrap_or_default() {
                let next = stack.map_or(ChainId::base(layer), |below| below.push(layer));
                known.insert(next);
                stack = Some(next);
            }
        }
        Some(known)
    }

    fn is_podman(&self) -> bool {
        let version = self.get::<serde_json::Value>("/version").unwrap_or_default();
        version.to_string().contains("Podman Engine")
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Option<T> {
        let answer = http::get(&self.socket, path).ok()?;
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok())?
    }

    /// Sends the archive that `write` writes. Returns the lines of the engine's output.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Refused`]; [`EngineError::Export`] if `write` fails.
    pub fn load(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> ExportResult<()>,
    ) -> Result<Vec<String>> {
        let failed = |source| EngineError::Io { socket: self.socket.clone(), source };
        let mut export_error = None;
        let answer = http::post_tar(&self.socket, "/images/load?quiet=1", &mut |body| {
            write(body).map_err(|error| {
                export_error = Some(error);
                io::Error::other("the image cannot be written")
            })
        });
        match (answer, export_error) {
            // An engine that closes the connection early has sent the reason.
            (Ok(answer), _) => self.loaded_lines(&answer),
            (Err(_), Some(error)) => Err(error.into()),
            (Err(error), None) => Err(failed(error)),
        }
    }

    fn loaded_lines(&self, answer: &EngineResponse) -> Result<Vec<String>> {
        let text = String::from_utf8_lossy(&answer.body);
        let refused = |message: &str| {
            let message = message.trim().chars().filter(|c| !c.is_control()).collect();
            EngineError::Refused { socket: self.socket.clone(), message }
        };
        if answer.status != 200 {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let message = value.get("message").and_then(serde_json::Value::as_str);
            return Err(refused(message.unwrap_or(&text)));
        }
        let mut shown_lines = Vec::new();
        for line in
            text.lines().filter_map(|line| serde_json::from_str::<LoadProgressLine>(line).ok())
        {
            if let Some(error) = line.error {
                return Err(refused(&error));
            }
            let shown = line.stream.unwrap_or_default();
            shown_lines.extend(
                shown.lines().map(|line| line.chars().filter(|c| !c.is_control()).collect()),
            );
        }
        Ok(shown_lines)
    }
}
