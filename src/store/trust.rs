//! Trusted unpacked layers: those that were compared with their listings in this boot.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use rusqlite::{OptionalExtension as _, params};

use crate::archive::PackedListing;
use crate::oci::DiffId;
use crate::pathio::{self, PathError};
use crate::tree::{ContentDigest, TreePath};

use super::compare::{self, Rules};
use super::index::Index;
use super::layer::LowerDirectory;
use super::verify::{is_set_aside, names_in};
use super::work::open_directory;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// An unpacked layer: its identity, and its fitting if it has one.
pub(super) type UnpackedForm = (DiffId, Option<ContentDigest>);

impl Store {
    /// Returns how an unpacked layer may differ from its listing.
    pub(super) fn rules(&self, layer: DiffId, is_fitted: bool) -> Result<Rules> {
        // Base images are unpacked from their archives, and nothing else is ever in them.
        let packed = self.with_index(|index| index.packed(layer))?;
        let is_exact = packed.iter().any(|packed| packed.level == -1);
        let devices = !self.user_namespace;
        Ok(Rules { contents: false, is_exact, is_fitted, devices })
    }

    /// Returns whether the layer is there as an archive, from which it can be unpacked again.
    pub(super) fn has_tar(&self, layer: DiffId) -> Result<bool> {
        Ok(self.has_blob(layer.digest()) || !self.packed(layer)?.is_empty())
    }

    /// Forgets that unpacked forms of the layer were compared.
    pub(super) fn forget_unpacked(&self, layer: DiffId) -> Result<()> {
        self.trusted().retain(|(trusted, _form)| *trusted != layer);
        self.with_index(|index| index.forget_checked(layer))
    }

    /// Forgets a layer that is in the store in no form.
    pub(super) fn forget_layer(&self, layer: DiffId) -> Result<()> {
        self.trusted().retain(|(trusted, _form)| *trusted != layer);
        self.with_index(|index| index.forget_layer(layer))
    }

    pub(super) fn trusted(&self) -> MutexGuard<'_, BTreeSet<UnpackedForm>> {
        // Each use is one call on the set: a panic elsewhere leaves it whole.
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares an unpacked layer with its listing, without reading contents, once in a boot.
    ///
    /// # Errors
    /// [`StoreError::DamagedLayer`] when they differ; the index's; the kernel's, with the path.
    pub(super) fn check_form(
        &self,
        layer: DiffId,
        form: Option<ContentDigest>,
        directory: &LowerDirectory,
    ) -> Result<()> {
        if self.trusted().contains(&(layer, form)) {
            return Ok(());
        }
        let column = self.column(form);
        if !self.with_index(|index| index.is_checked(layer, &column))? {
            let listing = self.listing(layer)?;
            if let Some((path, reason)) = self.first_difference(&listing, form, directory)? {
                return Err(self.damaged_form(layer, form, path, reason)?);
            }
            self.with_index(|index| index.put_checked(layer, &column))?;
        }
        self.trusted().insert((layer, form));
        Ok(())
    }

    /// Compares an unpacked layer with its listing, without reading contents.
    fn first_difference(
        &self,
        listing: &PackedListing,
        form: Option<ContentDigest>,
        directory: &LowerDirectory,
    ) -> Result<Option<(TreePath, String)>> {
        let rules = self.rules(listing.layer(), form.is_some())?;
        let mut first = None;
        let mut note = |path: &TreePath, text: &str| {
            first = Some((path.clone(), text.to_owned()));
            ControlFlow::Break(())
        };
        compare::compare(listing, directory.as_fd(), rules, &mut note)?;
        Ok(first)
    }

    /// Takes an unpacked layer out of use that differs from its listing: the caller has made the layer
    /// again, and holds the lock of its name.
    pub(super) fn drop_if_damaged(&self, layer: DiffId, form: Option<ContentDigest>) -> Result<()> {
        if self.trusted().contains(&(layer, form)) {
            return Ok(());
        }
        // To make a listing that is missing takes the lock.
        let Some(listing) = self.listing_if_there(layer)? else { return Ok(()) };
        let directory = open_directory(&self.layer_path(layer).join(self.form_name(form)))?;
        if self.first_difference(&listing, form, &directory.into())?.is_some() {
            self.set_aside_alone(layer, form)?;
        }
        Ok(())
    }

    /// Returns whether all unpacked forms of a layer are what its listing says, contents included.
    pub(super) fn is_whole(&self, layer: DiffId, listing: &PackedListing) -> Result<bool> {
        let home = self.layer_path(layer);
        for form in names_in(&home)?.iter().filter(|name| self.is_own_form(name)) {
            let is_fitted = *form != self.form_name(None);
            let rules = Rules { contents: true, ..self.rules(layer, is_fitted)? };
            let opened = open_directory(&home.join(form))?;
            let mut is_same = true;
            let mut note = |_path: &TreePath, _text: &str| {
                is_same = false;
                ControlFlow::Break(())
            };
            compare::compare(listing, opened.as_fd(), rules, &mut note)?;
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a damaged unpacked layer out of use if it can be unpacked again; returns the error.
    pub(super) fn damaged_form(
        &self,
        layer: DiffId,
        form: Option<ContentDigest>,
        path: TreePath,
        reason: String,
    ) -> Result<StoreError> {
        let is_removed = self.has_tar(layer)?;
        if is_removed {
            self.set_aside(layer, form)?;
        }
        Ok(StoreError::DamagedLayer { layer, path, reason, is_removed })
    }

    /// Takes the representation of a layer out of use in which a file turned out to be damaged when it
    /// was read; returns the error.
    #[must_use]
    pub fn damaged_content(&self, layer: DiffId, path: &TreePath) -> StoreError {
        if let Some(damage) = self.blob_damage(layer) {
            return damage;
        }
        let reason = "its content is not what was stored".to_owned();
        self.damaged_form(layer, None, path.clone(), reason).unwrap_or_else(|error| error)
    }

    /// Gives an unpacked layer a name under which it is not found. It stays there, because this process
    /// or others may have mounted it.
    fn set_aside(&self, layer: DiffId, form: Option<ContentDigest>) -> Result<()> {
        let _alone = self.lock_publishing(layer)?;
        self.set_aside_alone(layer, form)
    }

    fn set_aside_alone(&self, layer: DiffId, form: Option<ContentDigest>) -> Result<()> {
        self.forget_unpacked(layer)?;
        let home = self.layer_path(layer);
        let from = home.join(self.form_name(form));
        for number in 0_u32.. {
            let to = home.join(format!("damaged-{number}"));
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, flags) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => break,
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(PathError::new("rename", from, error).into()),
            }
        }
        Ok(())
    }

    /// The column for a form: which one, and under which ids it was compared.
    fn column(&self, form: Option<ContentDigest>) -> Vec<u8> {
        let mut column = form.map(|form| form.as_bytes().to_vec()).unwrap_or_default();
        column.extend(self.id_map.to_bytes());
        column
    }

    /// Removes what was set aside; no other process uses the store.
    pub(super) fn remove_set_aside(&self) -> Result<()> {
        let layers = self.root().join("layers");
        for layer in names_in(&layers)? {
            let home = layers.join(layer);
            for name in names_in(&home)?.iter().filter(|name| is_set_aside(name)) {
                pathio::remove_dir_all(&Path::new(&home).join(name))?;
            }
        }
        Ok(())
    }
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

    pub(super) fn remove_resolved(&self, name: &str, platform: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM resolved WHERE name = ?1 AND platform = ?2";
        self.check(self.connection.execute(SQL, params![name, platform])).map(drop)
    }
}
