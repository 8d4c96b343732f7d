//! Verifies an OCI layout with independent readers: the `oci-spec` crate's types and the `tar`
//! crate, not the code that wrote it. Checks everything that one part says about another.

mod blobs;
mod error;
mod layer;

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;

use crate::limits::MAX_INDEX_DEPTH;
use crate::oci::Digest;

use blobs::Blobs;
use layer::LayerPaths;

pub use error::VerifyError;

type Result<T> = std::result::Result<T, VerifyError>;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The full name in an index: containerd's annotation.
const NAME: &str = "io.containerd.image.name";

/// An image that passed verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedImage {
    /// Its full name, if the layout gives it one.
    pub name: Option<String>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The platform as `os/architecture`.
    pub platform: String,
    /// The media types of its layers, base first.
    pub layer_types: Vec<String>,
}

/// An entry of docker's `manifest.json`: one image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

/// The version file (image-spec, image-layout.md, "oci-layout file").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

struct Verifier {
    blobs: Blobs,
    /// Number of layers by the path of the config.
    configs: BTreeMap<String, usize>,
    found: Vec<VerifiedImage>,
}

/// Verifies the OCI layout at `path`, a directory or a tar: every digest, size and media type, each
/// layer against the config, the history, and that each whiteout removes something. Returns the
/// images in the order of the index, once for each of their names.
///
/// # Errors
/// The first violation found.
pub fn verify_layout(path: &Path) -> Result<Vec<VerifiedImage>> {
    let blobs = Blobs::open(path)?;
    let mut verifier = Verifier { blobs, configs: BTreeMap::new(), found: Vec::new() };
    let layout: LayoutFile = verifier.json("oci-layout")?;
    if layout.image_layout_version != "1.0.0" {
        return Err(VerifyError::LayoutVersion { found: layout.image_layout_version });
    }
    let index: ImageIndex = verifier.json("index.json")?;
    verifier.index(&index, None, 0)?;
    if verifier.blobs.has("manifest.json") {
        verifier.docker_entries()?;
    }
    Ok(verifier.found)
}

impl Verifier {
    fn json<T: for<'de> Deserialize<'de>>(&self, file: &str) -> Result<T> {
        let bytes = self.blobs.read(file)?;
        let bad = |error: serde_json::Error| VerifyError::Json {
            file: file.to_owned(),
            reason: error.to_string(),
        };
        serde_json::from_slice(&bytes).map_err(bad)
    }

    fn index(&mut self, index: &ImageIndex, name: Option<&str>, depth: usize) -> Result<()> {
        if depth > MAX_INDEX_DEPTH {
            return Err(VerifyError::Depth);
        }
        for entry in index.manifests() {
            let own = entry.annotations().as_ref().and_then(|all| all.get(NAME));
            let name = own.map(String::as_str).or(name).map(str::to_owned);
            let media_type = entry.media_type().to_string();
            let file = self.blobs.checked(entry)?;
            match media_type.as_str() {
                OCI_INDEX | DOCKER_INDEX => {
                    let inner: ImageIndex = self.json(&file)?;
                    self.index(&inner, name.as_deref(), depth + 1)?;
                }
                OCI_MANIFEST | DOCKER_MANIFEST => {
                    let verified = self.manifest(entry, &file, name)?;
                    self.found.push(verified);
                }
                _ => return Err(media_type_error(&file, &media_type)),
            }
        }
        Ok(())
    }

    fn manifest(
        &mut self,
        entry: &Descriptor,
        at: &str,
        name: Option<String>,
    ) -> Result<VerifiedImage> {
        let manifest: ImageManifest = self.json(at)?;
        let own_type = manifest.media_type().as_ref().map(ToString::to_string);
        if own_type.as_deref() != Some(&*entry.media_type().to_string()) {
            return Err(media_type_error(at, &own_type.unwrap_or_default()));
        }
        let config_type = manifest.config().media_type().to_string();
        let config_file = self.blobs.checked(manifest.config())?;
        if !matches!(config_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(media_type_error(&config_file, &config_type));
        }
        let config: ImageConfiguration = self.json(&config_file)?;
        let platform = format!("{}/{}", config.os(), config.architecture());
        if let Some(stated) = entry.platform() {
            let stated = format!("{}/{}", stated.os(), stated.architecture());
            if stated != platform {
                return Err(VerifyError::Platform { stated, platform });
            }
        }
        let diff_ids = config.rootfs().diff_ids();
        check_counts(at, manifest.layers().len(), &config)?;
        let mut tree = LayerPaths::default();
        for (layer, diff_id) in manifest.layers().iter().zip(diff_ids) {
            self.layer(layer, diff_id, &mut tree)?;
        }
        self.configs.insert(config_file, diff_ids.len());
        Ok(VerifiedImage {
            name,
            manifest: blobs::digest_of(entry)?,
            platform,
            layer_types: manifest.layers().iter().map(|l| l.media_type().to_string()).collect(),
        })
    }

    fn layer(&self, layer: &Descriptor, diff_id: &str, tree: &mut LayerPaths) -> Result<()> {
        let file = self.blobs.checked(layer)?;
        let media_type = layer.media_type().to_string();
        let Some(compression) = layer::compression_of(&media_type) else {
            return Err(media_type_error(&file, &media_type));
        };
        let (got, _) = tree.apply(&file, &|| self.blobs.open_file(&file), compression)?;
        if got.to_string() != diff_id {
            return Err(VerifyError::DiffId { file, want: diff_id.to_owned(), got });
        }
        Ok(())
    }

    /// Checks that `manifest.json` refers to the same files.
    fn docker_entries(&self) -> Result<()> {
        let entries: Vec<DockerEntry> = self.json("manifest.json")?;
        for entry in entries {
            let n_layers = self.configs.get(&entry.config).copied();
            if n_layers != Some(entry.layers.len()) {
                return Err(VerifyError::DockerEntry { config: entry.config });
            }
            for layer in entry.layers {
                if !self.blobs.has(&layer) {
                    return Err(VerifyError::Missing { file: layer });
                }
            }
        }
        Ok(())
    }
}

fn media_type_error(file: &str, media_type: &str) -> VerifyError {
    VerifyError::MediaType { file: file.to_owned(), media_type: media_type.to_owned() }
}

/// Checks that the config has a DiffID and a history entry for each layer (image-spec, config.md,
/// "history").
fn check_counts(manifest: &str, n_layers: usize, config: &ImageConfiguration) -> Result<()> {
    let history = config.history().as_deref().unwrap_or_default();
    let with_layer = history.iter().filter(|entry| entry.empty_layer() != Some(true));
    let n_history = if history.is_empty() { n_layers } else { with_layer.count() };
    let n_diff_ids = config.rootfs().diff_ids().len();
    if n_diff_ids != n_layers || n_history != n_layers {
        let file = manifest.to_owned();
        return Err(VerifyError::Counts { file, n_layers, n_diff_ids, n_history });
    }
    Ok(())
}
