//! Joins images of registries to an index, and copies them between repositories, without the store.
//!
//! The rules are those of `docker buildx imagetools create`
//! (<https://docs.docker.com/reference/cli/docker/buildx/imagetools/create/>): the same sources make the
//! same bytes.
//!
//! - `source`: the sources as they are named, and the manifests that they resolve to
//! - `combine`: the index over them, selection of platforms
//! - `copy`: manifests and blobs, mounted or relayed

mod combine;
mod copy;
mod source;

pub use combine::{CombineOptions, Combined, CombinedPart, combine};
pub use copy::copy;
pub use source::{JoinSource, ResolvedSource, resolve};
