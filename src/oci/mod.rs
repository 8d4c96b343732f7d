//! The OCI data model: digests, descriptors, manifests, configs, platforms and references, with the
//! one JSON format of each that rbuild writes
//! (<https://github.com/opencontainers/image-spec/blob/main/spec.md>).
//!
//! Pure: no file access, no network.

mod annotation;
mod config;
mod descriptor;
mod digest;
mod index_document;
mod json;
mod platform;
mod reference;

pub use annotation::{Annotation, AnnotationError, AnnotationLevel, annotations_for};
pub use config::{ConfigError, Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use descriptor::{
    Descriptor, Index, LayerCompression, Manifest, ManifestError, ManifestOrIndex, MediaType,
};
pub use digest::{ChainId, DiffId, Digest, DigestError, Hasher};
pub use index_document::{EntryPlatform, IndexDocument, IndexEntry};
pub use json::{compact, pretty, pretty_as_go};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// The default PATH of an image whose base image sets none (Docker's `DefaultPathEnvUnix`).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
