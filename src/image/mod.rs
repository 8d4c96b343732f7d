//! Where images come from and go to: layouts, archives, folders.

/// Why an image could not be written out.
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ExportError;

use crate::oci::*;
use crate::registry::Client;
use crate::store::Store;
use std::num::NonZeroUsize;
use std::path::PathBuf;
pub struct Image;
pub struct ImageLayer {
    pub diff_id: DiffId,
}
impl Image {
    pub fn load(_s: &Store, _m: Digest) -> Result<Self, ExportError> {
        todo!()
    }
    pub fn config(&self) -> &ImageConfig {
        todo!()
    }
    pub fn layers(&self) -> std::slice::Iter<'_, ImageLayer> {
        todo!()
    }
    pub fn config_digest(&self) -> Digest {
        todo!()
    }
}
pub struct ExportOptions {
    pub packing: crate::archive::Packing,
    pub force_packing: bool,
    pub docker_media_types: bool,
    pub jobs: NonZeroUsize,
    pub names: Vec<Reference>,
    pub created: Option<String>,
}
pub enum Target {
    OciArchive(PathBuf),
    OciFolder(PathBuf),
    DockerArchive(PathBuf),
    Folder(PathBuf),
    Tar(PathBuf),
}
pub fn export(
    _s: &Store,
    _i: &Image,
    _t: &Target,
    _o: &ExportOptions,
) -> Result<Descriptor, ExportError> {
    todo!()
}
pub fn push(
    _s: &Store,
    _r: &Client,
    _i: &Image,
    _n: &Reference,
    _m: &[Reference],
    _o: &ExportOptions,
    _p: &(dyn Fn(u64) + Sync),
) -> Result<Digest, ExportError> {
    todo!()
}
