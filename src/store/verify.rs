//! Checks everything in the store; on request, removes or rebuilds damaged objects.

mod images;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::archive::PackedListing;
use crate::limits::MAX_LISTING_BYTES;
use crate::oci::{DiffId, Digest, Hasher};
use crate::pathio::{self, Context as _};
use crate::tree::{FileOrigin, LayerContent, LayerEntries as _, LayerItem, Node, TreePath};

use super::layer_tar::LayerTarReader;
use super::listing_comparison::{self, ComparisonRules};
use super::private_files::{open_directory, sorted_names};
use super::unpacked_check::{self, is_set_aside};
use super::{Store, StoreError, exclusive, listing_scan, private_files, version};

type Result<T> = std::result::Result<T, StoreError>;

/// Maximum number of differences of one directory that are reported one by one.
const MAX_DIFFERENCES: usize = 50;

/// A damaged object of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageReport {
    /// Path below the root of the store, or name of an image.
    pub subject: String,
    /// Description of the damage.
    pub reason: String,
}

/// An event of a check. A repair follows the damage that it repairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyFinding {
    /// An object is damaged.
    Damaged(DamageReport),
    /// The last damaged object was repaired.
    Repaired {
        /// Path below the root of the store, or name of an image.
        subject: String,
        /// The action that was taken.
        action: &'static str,
    },
}

/// Called with each finding.
pub type OnFinding<'a> = dyn FnMut(VerifyFinding) + 'a;

/// Counts of a check of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifySummary {
    /// Number of blobs that were hashed.
    pub n_blobs: usize,
    /// Number of layers that were compared with their listings.
    pub n_layers: usize,
    /// Number of entries of unpacked layers that were compared.
    pub n_files: u64,
    /// Number of tags whose images were checked.
    pub n_images: usize,
    /// Number of damaged files, directories and tags.
    pub n_damaged: usize,
    /// Number of damaged ones that were repaired.
    pub n_repaired: usize,
}

/// A running check of one store.
pub(super) struct Verifier<'a> {
    store: &'a Store,
    is_repairing: bool,
    report: &'a mut OnFinding<'a>,
    found: VerifySummary,
}

/// Implements [`Store::verify`].
pub(super) fn verify<'a>(
    store: &'a Store,
    is_repairing: bool,
    report: &'a mut OnFinding<'a>,
) -> Result<VerifySummary> {
    if is_repairing && !store.in_use.try_upgrade() {
        store.in_use.downgrade();
        return Err(exclusive::in_use(store.root()));
    }
    let found = VerifySummary::default();
    let mut verifier = Verifier { store, is_repairing, report, found };
    let done = verifier.all();
    let found = verifier.found;
    if is_repairing {
        store.in_use.downgrade();
    }
    done.map(|()| found)
}

impl Verifier<'_> {
    fn all(&mut self) -> Result<()> {
        self.check_open_damage()?;
        self.blobs()?;
        self.layers()?;
        self.images()?;
        self.tags()
    }

    pub(super) fn damaged(&mut self, subject: &str, reason: impl Into<String>) {
        let (subject, reason) = (subject.to_owned(), reason.into());
        self.found.n_damaged += 1;
        (self.report)(VerifyFinding::Damaged(DamageReport { subject, reason }));
    }

    /// Calls `work` to repair the damage that was just reported, unless the check is read-only.
    pub(super) fn repair(
        &mut self,
        subject: &str,
        action: &'static str,
        work: impl FnOnce(&Store) -> Result<()>,
    ) -> Result<()> {
        if !self.is_repairing {
            return Ok(());
        }
        work(self.store)?;
        self.found.n_repaired += 1;
        (self.report)(VerifyFinding::Repaired { subject: subject.to_owned(), action });
        Ok(())
    }

    /// Reports the damage that was found when the store was opened.
    fn check_open_damage(&mut self) -> Result<()> {
        let store = self.store;
        if let Some(damage) = &store.damage.version {
            self.damaged("version", text(damage));
            self.repair("version", "rewritten", |store| version::write(store.root()))?;
        }
        if let Some(damage) = &store.damage.index {
            let action = "rebuilt from blobs and layers; cached steps are lost";
            self.damaged("index.db", text(damage));
            self.repair("index.db", action, |_store| Ok(()))?;
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for blob in self.store.blobs()? {
            let reason = match digest_of(self.store, blob) {
                // Another process found it damaged and removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(got) if got == blob => None,
                Ok(got) => Some(format!("its content has the digest {got}")),
                Err(error) => Some(text(&error)),
            };
            self.found.n_blobs += 1;
            let Some(reason) = reason else { continue };
            let subject = format!("blobs/sha256/{}", blob.hex());
            self.damaged(&subject, reason);
            let action = "removed; it is rebuilt or pulled when needed";
            let path = self.store.root().join(&subject);
            self.repair(&subject, action, |_store| Ok(pathio::remove_file(&path)?))?;
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let home = self.store.root().join("layers");
        for name in sorted_names(&home)? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            self.layer(DiffId::new(digest))?;
        }
        Ok(())
    }

    fn layer(&mut self, layer: DiffId) -> Result<()> {
        let home = self.store.layer_path(layer);
        let names = sorted_names(&home)?;
        if self.is_repairing {
            names.iter().filter(|name| is_set_aside(name)).try_for_each(|name| {
                pathio::remove_dir_all(&home.join(name)).map_err(StoreError::from)
            })?;
        }
        let directories: Vec<&String> =
            names.iter().filter(|name| self.store.is_own_directory(name)).collect();
        let has_tree = names.iter().any(|name| name == "tree");
        // A process that was killed may have left an empty directory.
        if directories.is_empty() && !has_tree {
            return Ok(());
        }
        self.found.n_layers += 1;
        let Some(listing) = self.listing(layer)? else { return Ok(()) };
        for name in directories {
            if !self.directory(layer, name, &listing)? {
                break;
            }
        }
        Ok(())
    }

    /// Checks the layer's listing; returns it if it is intact or was rebuilt.
    fn listing(&mut self, layer: DiffId) -> Result<Option<PackedListing>> {
        let path = self.store.layer_path(layer).join("tree");
        let reason = match read_listing(&path, layer) {
            Ok(listing) => match self.listing_damage(layer, &listing)? {
                None => return Ok(Some(listing)),
                Some(reason) => reason,
            },
            Err(reason) => reason,
        };
        let subject = self.subject(layer, "tree");
        self.damaged(&subject, reason);
        if !self.store.has_tar(layer)? {
            self.remove_layer(layer, &subject)?;
            return Ok(None);
        }
        self.repair(&subject, "rebuilt from the layer's archive", |store| {
            match pathio::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _gone => {}
            }
            unpacked_check::forget_checks(store, layer)?;
            store.listing(layer).map(drop)
        })?;
        if self.is_repairing { self.store.listing_if_exists(layer) } else { Ok(None) }
    }

    /// Compares a listing with the index, and with the layer's archive if there is one; returns the
    /// damage.
    fn listing_damage(&self, layer: DiffId, listing: &PackedListing) -> Result<Option<String>> {
        // Layers with such a listing are unpacked again before they are used.
        if listing.is_of_version_1() {
            return Ok(None);
        }
        let mut content = LayerContent::new();
        listing.stream().for_each(|entry| content.entry(&entry));
        let record = self.store.with_index(|index| index.layer(layer))?;
        if record.is_some_and(|record| record.content != content.finish()) {
            return Ok(Some("it does not match the record of the layer in the index".to_owned()));
        }
        if !self.store.has_tar(layer)? {
            return Ok(None);
        }
        let Ok(tar) = self.store.open_tar(layer) else { return Ok(None) };
        let mut tar = LayerTarReader::new(tar);
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(layer, path.clone(), tar_at);
        let Ok(scanned) = listing_scan::list(&mut tar, &self.store.unpack_options(), &origin)
        else {
            // The damaged blob was reported, and still exists if the check is read-only.
            return Ok(None);
        };
        let is_same = scanned.entries().len() == listing.n_entries()
            && listing.stream().zip(scanned.entries()).all(|(listed, scanned)| {
                listed.path == scanned.path && is_same_item(&listed.item, &scanned.item)
            });
        Ok((!is_same).then(|| "it does not match the layer's archive".to_owned()))
    }

    /// Compares a directory of a layer with its listing; returns whether the layer still exists.
    fn directory(&mut self, layer: DiffId, name: &str, listing: &PackedListing) -> Result<bool> {
        let path = self.store.layer_path(layer).join(name);
        let is_fitted = name != self.store.directory_name(None);
        let rules = unpacked_check::comparison_rules(self.store, layer, is_fitted)?;
        let rules = ComparisonRules { contents: true, ..rules };
        let opened = open_directory(&path)?;
        let (mut differences, mut n_all) = (Vec::new(), 0_usize);
        let mut note = |path: &TreePath, text: &str| {
            n_all += 1;
            if differences.len() < MAX_DIFFERENCES {
                differences.push((path.clone(), text.to_owned()));
            }
            ControlFlow::Continue(())
        };
        self.found.n_files +=
            listing_comparison::compare(listing, opened.as_fd(), rules, &mut note)?;
        if n_all == 0 {
            return Ok(true);
        }
        let n_more = n_all - differences.len();
        let subject = self.subject(layer, name);
        for (path, text) in differences {
            let path = path.as_path().display();
            let file = format!("{subject}/{path}");
            self.found.n_damaged += 1;
            (self.report)(VerifyFinding::Damaged(DamageReport { subject: file, reason: text }));
        }
        if n_more > 0 {
            let entries = if n_more == 1 { "entry differs" } else { "entries differ" };
            self.damaged(&subject, format!("{n_more} more {entries}"));
        }
        let n_reported = n_all.min(MAX_DIFFERENCES) + usize::from(n_more > 0);
        let n_before = self.found.n_repaired;
        let is_left = self.store.has_tar(layer)?;
        if is_left {
            let action = "removed; it is unpacked again when needed";
            self.repair(&subject, action, |store| {
                pathio::remove_dir_all(&path)?;
                unpacked_check::forget_checks(store, layer)
            })?;
        } else {
            self.remove_layer(layer, &subject)?;
        }
        if self.found.n_repaired > n_before {
            self.found.n_repaired = n_before + n_reported;
        }
        Ok(is_left || !self.is_repairing)
    }

    /// Removes a layer that has no intact representation.
    fn remove_layer(&mut self, layer: DiffId, subject: &str) -> Result<()> {
        let action = "removed with the whole layer; a build creates it again";
        self.repair(subject, action, |store| {
            unpacked_check::forget_layer(store, layer)?;
            Ok(pathio::remove_dir_all(&store.layer_path(layer))?)
        })
    }

    fn subject(&self, layer: DiffId, name: &str) -> String {
        let path = self.store.layer_path(layer).join(name);
        path.strip_prefix(self.store.root()).unwrap_or(&path).display().to_string()
    }
}

/// Returns whether a listed and a scanned item are equal. The offset in the archive may be missing in
/// the listing.
fn is_same_item(listed: &LayerItem, scanned: &LayerItem) -> bool {
    match (listed, scanned) {
        (
            LayerItem::Node(meta, Node::File(file)),
            LayerItem::Node(other_meta, Node::File(other)),
        ) => {
            let tar_at = file.origin.tar_at();
            let is_at = tar_at.is_none_or(|at| at == crate::archive::NOT_IN_ONE_PIECE)
                || tar_at == other.origin.tar_at();
            is_at && meta == other_meta && file.size == other.size && file.content == other.content
        }
        (listed, scanned) => listed == scanned,
    }
}

fn read_listing(path: &Path, layer: DiffId) -> std::result::Result<PackedListing, String> {
    let bytes = match private_files::read_file(path, MAX_LISTING_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("it is missing".to_owned());
        }
        bytes => bytes.map_err(|error| text(&error))?,
    };
    PackedListing::new(bytes, layer).map_err(|error| error.to_string())
}

/// Returns the message of an error, with those of its sources.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Returns the digest of a blob's content.
fn digest_of(store: &Store, blob: Digest) -> std::result::Result<Digest, pathio::PathError> {
    let path = store.root().join("blobs/sha256").join(blob.hex());
    let mut file = private_files::open_file(&path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n_bytes = io::Read::read(&mut file, &mut buffer).context("read", &path)?;
        if n_bytes == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..n_bytes).unwrap_or_default());
    }
}
