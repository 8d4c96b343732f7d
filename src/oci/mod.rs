//! What an image is made of: digests, descriptors, manifests, configs, platforms, references, on
//! top of the `oci-spec` types; and the one JSON form of each that rbuild writes.
//!
//! Pure: it reads no file and speaks no protocol.

mod annotation;
mod config;
mod descriptor;
mod digest;
mod json;
mod platform;
mod reference;

pub use annotation::{Annotation, AnnotationError, AnnotationLevel, annotations_for};
pub use config::{ConfigError, Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use descriptor::{
    Descriptor, Index, LayerCompression, Manifest, ManifestError, MediaType, Parsed,
};
pub use digest::{ChainId, DiffId, Digest, DigestError, Hasher};
pub use json::{compact, pretty};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// The PATH of an image whose base sets none (Dockerfile reference, "FROM").
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
