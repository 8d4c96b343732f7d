//! Compares unpacked layers with their listings before they are mounted: once in a boot, without
//! contents. Damaged directories are set aside.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::sync::MutexGuard;

use rusqlite::{OptionalExtension as _, params};

use crate::archive::PackedListing;
use crate::oci::DiffId;
use crate::pathio::{self, PathError};
use crate::pool;
use crate::tree::{ContentDigest, TreePath};

use super::index::Index;
use super::layer_records::OTHER_PACKER;
use super::listing_comparison::{self, ComparisonRules};
use super::private_files::{open_directory, sorted_names};
use super::{LowerDirectory, Store, StoreError, StoreLock};

type Result<T> = std::result::Result<T, StoreError>;

/// Prefix of the names of directories that were set aside.
const SET_ASIDE: &str = "damaged-";

/// Returns whether a directory of a layer was set aside.
pub(super) fn is_set_aside(name: &str) -> bool {
    name.starts_with(SET_ASIDE)
}

/// An unpacked layer: its DiffID, and its fitting if it has one.
pub(super) type UnpackedLayer = (DiffId, Option<ContentDigest>);

/// Returns the rules by which an unpacked layer may differ from its listing, contents not compared.
pub(super) fn comparison_rules(
    store: &Store,
    layer: DiffId,
    is_fitted: bool,
) -> Result<ComparisonRules> {
    // Layers of base images are unpacked from their archives, so nothing else is in them.
    let packed = store.with_index(|index| index.packed(layer))?;
    let is_exact = packed.iter().any(|packed| packed.level == OTHER_PACKER);
    let devices = !store.user_namespace;
    Ok(ComparisonRules { contents: false, is_exact, is_fitted, devices })
}

/// Forgets that directories of the layer were compared.
pub(super) fn forget_checks(store: &Store, layer: DiffId) -> Result<()> {
    trusted(store).retain(|(trusted, _fitting)| *trusted != layer);
    store.with_index(|index| index.forget_checked(layer))
}

/// Removes the record of a layer that the store no longer has.
pub(super) fn forget_layer(store: &Store, layer: DiffId) -> Result<()> {
    trusted(store).retain(|(trusted, _fitting)| *trusted != layer);
    store.with_index(|index| index.forget_layer(layer))
}

/// Returns the unpacked layers that need not be compared by this process.
pub(super) fn trusted(store: &Store) -> MutexGuard<'_, BTreeSet<UnpackedLayer>> {
    pool::lock(&store.trusted)
}

/// Compares an unpacked layer with its listing, unless that was done in this boot.
///
/// # Errors
/// [`StoreError::DamagedLayer`] if they differ; [`StoreError::Index`], [`StoreError::Record`] or
/// [`StoreError::Io`].
pub(super) fn check(
    store: &Store,
    layer: DiffId,
    fitting: Option<ContentDigest>,
    directory: &LowerDirectory,
) -> Result<()> {
    if trusted(store).contains(&(layer, fitting)) {
        return Ok(());
    }
    let key = checked_key(store, fitting);
    if !store.with_index(|index| index.is_checked(layer, &key))? {
        let listing = store.listing(layer)?;
        if let Some((path, reason)) = first_difference(store, &listing, fitting, directory)? {
            return Err(damaged_directory(store, layer, fitting, path, reason)?);
        }
        store.with_index(|index| index.put_checked(layer, &key))?;
    }
    trusted(store).insert((layer, fitting));
    Ok(())
}

/// Returns the first difference between a listing and a directory, contents not compared.
fn first_difference(
    store: &Store,
    listing: &PackedListing,
    fitting: Option<ContentDigest>,
    directory: &LowerDirectory,
) -> Result<Option<(TreePath, String)>> {
    let rules = comparison_rules(store, listing.layer(), fitting.is_some())?;
    let mut first = None;
    let mut note = |path: &TreePath, text: &str| {
        first = Some((path.clone(), text.to_owned()));
        ControlFlow::Break(())
    };
    listing_comparison::compare(listing, directory.as_fd(), rules, &mut note)?;
    Ok(first)
}

/// Sets an unpacked layer aside if it differs from its listing. The caller has a new directory for
/// the layer, and holds the lock for publishing it.
pub(super) fn set_aside_if_damaged(
    store: &Store,
    layer: DiffId,
    fitting: Option<ContentDigest>,
) -> Result<()> {
    if trusted(store).contains(&(layer, fitting)) {
        return Ok(());
    }
    // `Store::listing` would take the lock that the caller holds.
    let Some(listing) = store.listing_if_exists(layer)? else { return Ok(()) };
    let path = store.layer_path(layer).join(store.directory_name(fitting));
    let directory = open_directory(&path)?;
    if first_difference(store, &listing, fitting, &directory.into())?.is_some() {
        set_aside_locked(store, layer, fitting)?;
    }
    Ok(())
}

/// Returns whether all directories of a layer match its listing, contents included.
pub(super) fn is_intact(store: &Store, layer: DiffId, listing: &PackedListing) -> Result<bool> {
    let home = store.layer_path(layer);
    for name in sorted_names(&home)?.iter().filter(|name| store.is_own_directory(name)) {
        let is_fitted = *name != store.directory_name(None);
        let rules =
            ComparisonRules { contents: true, ..comparison_rules(store, layer, is_fitted)? };
        let opened = open_directory(&home.join(name))?;
        let mut is_same = true;
        let mut note = |_path: &TreePath, _text: &str| {
            is_same = false;
            ControlFlow::Break(())
        };
        listing_comparison::compare(listing, opened.as_fd(), rules, &mut note)?;
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets a damaged directory aside if the layer can be unpacked again; returns the error to report.
fn damaged_directory(
    store: &Store,
    layer: DiffId,
    fitting: Option<ContentDigest>,
    path: TreePath,
    reason: String,
) -> Result<StoreError> {
    let is_removed = store.has_tar(layer)?;
    if is_removed {
        set_aside(store, layer, fitting)?;
    }
    Ok(StoreError::DamagedLayer { layer, path, reason, is_removed })
}

/// Implements [`Store::damaged_content`].
pub(super) fn damaged_content(store: &Store, layer: DiffId, path: &TreePath) -> StoreError {
    if let Some(damage) = store.blob_damage(layer) {
        return damage;
    }
    let reason = "its content has changed".to_owned();
    damaged_directory(store, layer, None, path.clone(), reason).unwrap_or_else(|error| error)
}

/// Renames a directory so that it is not found. It is not removed, because this process or others
/// may have mounted it.
fn set_aside(store: &Store, layer: DiffId, fitting: Option<ContentDigest>) -> Result<()> {
    let _lock = StoreLock::of_publishing(store.root(), layer)?;
    set_aside_locked(store, layer, fitting)
}

fn set_aside_locked(store: &Store, layer: DiffId, fitting: Option<ContentDigest>) -> Result<()> {
    forget_checks(store, layer)?;
    let home = store.layer_path(layer);
    let from = home.join(store.directory_name(fitting));
    for number in 0_u32.. {
        let to = home.join(format!("{SET_ASIDE}{number}"));
        // renameat2(2): a plain rename would replace an empty directory.
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, flags) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => break,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(PathError::new("rename", from, error).into()),
        }
    }
    Ok(())
}

/// Returns the key of a directory in the table `checked`: its fitting, and the ids under which it
/// was compared.
fn checked_key(store: &Store, fitting: Option<ContentDigest>) -> Vec<u8> {
    let mut key = fitting.map(|fitting| fitting.as_bytes().to_vec()).unwrap_or_default();
    key.extend(store.id_map.to_bytes());
    key
}

/// Removes all directories that were set aside. The caller has exclusive use of the store.
pub(super) fn remove_set_aside(store: &Store) -> Result<()> {
    let layers = store.root().join("layers");
    for layer in sorted_names(&layers)? {
        let home = layers.join(layer);
        for name in sorted_names(&home)?.iter().filter(|name| is_set_aside(name)) {
            pathio::remove_dir_all(&home.join(name))?;
        }
    }
    Ok(())
}

impl Index {
    fn is_checked(&self, layer: DiffId, form: &[u8]) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM checked WHERE diff_id = ?1 AND form = ?2 AND boot = ?3";
        let values = params![layer.to_string(), form, self.boot];
        let found = self
            .connection
            .prepare_cached(SQL)
            .and_then(|mut statement| statement.query_row(values, |_row| Ok(())).optional());
        self.check(found).map(|found| found.is_some())
    }

    fn put_checked(&self, layer: DiffId, form: &[u8]) -> Result<()> {
        const SQL: &str =
            "INSERT OR REPLACE INTO checked (diff_id, form, boot) VALUES (?1, ?2, ?3)";
        let values = params![layer.to_string(), form, self.boot];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    fn forget_checked(&self, layer: DiffId) -> Result<()> {
        const SQL: &str = "DELETE FROM checked WHERE diff_id = ?1";
        self.check(self.connection.execute(SQL, params![layer.to_string()])).map(drop)
    }

    fn forget_layer(&self, layer: DiffId) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        for table in ["layer", "stacked", "checked"] {
            let sql = format!("DELETE FROM {table} WHERE diff_id = ?1");
            self.check(transaction.execute(&sql, params![layer.to_string()]))?;
        }
        self.check(transaction.commit())
    }
}
