//! Layers that were unpacked under other ids than this process has.
//!
//! Their directories are never mounted. If all files can be read all the same, the layer's archive is
//! made of them, and the layer is unpacked again from that.

use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use crate::archive::{self, ArchiveError, DigestWriter};
use crate::oci::DiffId;
use crate::pathio::PathError;
use crate::tree::{ContentDigest, File, TreePath};

use super::forms::open_in;
use super::verify::names_in;
use super::work::open_directory;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// The name of an unpacked layer in the layer's own directory.
const UNPACKED: &str = "fs";

impl Store {
    /// The name of a form below the layer's own directory.
    pub(super) fn form_name(&self, fitting: Option<ContentDigest>) -> String {
        let own = format!("{UNPACKED}{}", self.id_map.suffix());
        fitting.map_or_else(|| own.clone(), |fitting| format!("{own}-{fitting}"))
    }

    /// Returns whether a name is that of a form which was made under the ids of this process.
    pub(super) fn is_own_form(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.form_name(None));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Makes the archive of a layer that is there only as a directory made under other ids. Returns
    /// whether the layer can be had so.
    ///
    /// # Errors
    /// The kernel's, with the path, but for files that this process may not read.
    pub(super) fn adopt(&self, diff_id: DiffId) -> Result<bool> {
        let others = self.other_directories(diff_id)?;
        if others.is_empty() || self.unreadable().contains(&diff_id) {
            return Ok(false);
        }
        // A process that mounts nothing need not have it.
        if !self.id_map.may_unpack() {
            return Ok(true);
        }
        let _alone = self.lock_unpacking(diff_id)?;
        for other in others {
            if self.has_blob(diff_id.digest()) || self.archive_of(diff_id, &other)? {
                return Ok(true);
            }
        }
        self.unreadable().insert(diff_id);
        Ok(false)
    }

    /// Describes that the layer cannot be had: it is not here, or was made under other ids and cannot
    /// be read.
    #[must_use]
    pub fn missing_layer(&self, diff_id: DiffId) -> StoreError {
        if self.unreadable().contains(&diff_id) {
            return StoreError::OtherIds { path: self.layer_path(diff_id) };
        }
        StoreError::Missing { what: format!("the layer {diff_id}") }
    }

    fn unreadable(&self) -> MutexGuard<'_, std::collections::BTreeSet<DiffId>> {
        // Each use is one call on the set: a panic elsewhere leaves it whole.
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directories of the layer alone, fitted to no stack, that were made under other ids.
    fn other_directories(&self, diff_id: DiffId) -> Result<Vec<PathBuf>> {
        let home = self.layer_path(diff_id);
        let names = match names_in(&home) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        let own = self.form_name(None);
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

    /// Makes the archive of the layer of one directory; false if that cannot be read, or holds
    /// another layer.
    fn archive_of(&self, diff_id: DiffId, directory: &std::path::Path) -> Result<bool> {
        let (Ok(opened), Some(listing)) =
            (open_directory(directory), self.listing_if_there(diff_id)?)
        else {
            return Ok(false);
        };
        let open = |_file: &File, path: &TreePath| -> io::Result<Box<dyn Read>> {
            Ok(Box::new(open_in(opened.as_fd(), path)?))
        };
        let mut tar = DigestWriter::new(self.draft()?);
        match archive::write_listing(&listing, &open, &mut tar) {
            Ok(_) => {}
            Err(ArchiveError::Write(error)) => {
                return Err(PathError::new("write a blob in", self.root(), error).into());
            }
            Err(_unreadable) => return Ok(false),
        }
        let (draft, digest, _n_bytes) = tar.finish();
        if DiffId::new(digest) != diff_id {
            return Ok(false);
        }
        self.publish(draft)?;
        Ok(true)
    }
}
