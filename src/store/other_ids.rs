//! Layers that were unpacked under other user and group ids than this process has (see
//! [`super::id_maps`]).
//!
//! Their directories are never mounted. If this process can read all files, it writes the layer's tar
//! from them, and unpacks the layer from that.

use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::archive::{self, ArchiveError, DigestWriter};
use crate::oci::DiffId;
use crate::pathio::PathError;
use crate::pool;
use crate::tree::{File, TreePath};

use super::private_files::{open_directory, open_layer_file, sorted_names};
use super::{Store, StoreError, StoreLock};

/// Name of the directory with an unpacked layer's files, below the directory of the layer.
pub(super) const UNPACKED: &str = "fs";

type Result<T> = std::result::Result<T, StoreError>;

/// Writes the tar of a layer of which the store has only directories with other ids. Returns
/// whether that was possible.
///
/// # Errors
/// [`StoreError::Record`], [`StoreError::NoSpace`] or [`StoreError::Io`]; files that this process
/// may not read are not an error.
pub(super) fn repack(store: &Store, diff_id: DiffId) -> Result<bool> {
    if other_directories(store, diff_id)?.is_empty()
        || pool::lock(&store.unreadable).contains(&diff_id)
    {
        return Ok(false);
    }
    // A process that unpacks nothing may not need the tar: it is written when it is opened.
    if !store.id_map.may_unpack() {
        return Ok(true);
    }
    write_tar(store, diff_id)
}

/// Writes the tar of a layer from any directory that this process can read. Returns whether that
/// was possible.
///
/// # Errors
/// The errors of [`repack`].
pub(super) fn write_tar(store: &Store, diff_id: DiffId) -> Result<bool> {
    let others = other_directories(store, diff_id)?;
    let _lock = StoreLock::of_unpacking(store.root(), diff_id)?;
    for other in others {
        if store.has_blob(diff_id.digest()) || repack_directory(store, diff_id, &other)? {
            return Ok(true);
        }
    }
    pool::lock(&store.unreadable).insert(diff_id);
    Ok(false)
}

/// Implements [`Store::missing_layer`].
pub(super) fn missing_layer(store: &Store, diff_id: DiffId) -> StoreError {
    if pool::lock(&store.unreadable).contains(&diff_id) {
        return StoreError::OtherIds { path: store.layer_path(diff_id) };
    }
    StoreError::Missing { what: format!("the layer {diff_id}") }
}

/// Returns the directories of the layer that were unpacked under other ids. Fitted ones are left
/// out: the layer's tar cannot be written from them.
fn other_directories(store: &Store, diff_id: DiffId) -> Result<Vec<PathBuf>> {
    let home = store.layer_path(diff_id);
    let names = match sorted_names(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let own = store.directory_name(None);
    let is_other = |name: &String| {
        let rest = name.strip_prefix(UNPACKED);
        *name != own
            && rest.is_some_and(|rest| {
                let number = rest.strip_prefix('.');
                rest.is_empty() || number.is_some_and(|number| number.parse::<u32>().is_ok())
            })
    };
    Ok(names.into_iter().filter(is_other).map(|name| home.join(name)).collect())
}

/// Writes the layer's tar from one directory. Returns `false` if the directory cannot be read, or
/// the tar has another DiffID.
fn repack_directory(store: &Store, diff_id: DiffId, directory: &Path) -> Result<bool> {
    let (Ok(opened), Some(listing)) =
        (open_directory(directory), store.listing_if_exists(diff_id)?)
    else {
        return Ok(false);
    };
    let open = |_file: &File, path: &TreePath| -> io::Result<Box<dyn Read>> {
        Ok(Box::new(open_layer_file(opened.as_fd(), path)?))
    };
    let mut tar = DigestWriter::new(store.draft()?);
    match archive::write_listing(&listing, &open, &mut tar) {
        Ok(_) => {}
        Err(ArchiveError::Write(error)) => {
            return Err(PathError::new("write a blob in", store.root(), error).into());
        }
        Err(_unreadable) => return Ok(false),
    }
    let (draft, digest, _n_bytes) = tar.finish();
    if DiffId::new(digest) != diff_id {
        return Ok(false);
    }
    store.publish(draft)?;
    Ok(true)
}
