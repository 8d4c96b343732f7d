//! Checks all that the store holds, and removes what is damaged where it can be made again.

mod names;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::archive::PackedListing;
use crate::limits::MAX_LISTING_BYTES;
use crate::oci::{DiffId, Digest, Hasher};
use crate::pathio::{self, Context as _};
use crate::tree::{FileOrigin, Item, LayerContent, LayerEntries as _, Node, TreePath};

use super::compare::{self, Rules};
use super::forms::TarSource;
use super::work::open_directory;
use super::{Store, StoreError, alone, guard, scan, version};

type Result<T> = std::result::Result<T, StoreError>;

/// Differences of one directory that are reported one by one.
const MAX_DIFFERENCES: usize = 50;

/// Something in the store that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory of the store, or the name of an image.
    pub subject: String,
    /// The fault.
    pub reason: String,
}

/// A fault that a check found, or an action, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Something is damaged.
    Damaged(Damage),
    /// Something was repaired.
    Repaired {
        /// The file or directory of the store, or the name of an image.
        subject: String,
        /// The action.
        action: &'static str,
    },
}

/// Learns of each finding.
pub type ReportFinding<'a> = dyn FnMut(Finding) + 'a;

/// Counts and faults of a check of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Blobs that were hashed.
    pub n_blobs: usize,
    /// Layers that were compared with their listings.
    pub n_layers: usize,
    /// Entries of unpacked layers.
    pub n_files: u64,
    /// Names of images.
    pub n_images: usize,
    /// Files, directories and names that are damaged.
    pub n_damaged: usize,
    /// Those of them that were repaired.
    pub n_repaired: usize,
}

/// A check that goes on.
pub(super) struct Verifier<'a> {
    store: &'a Store,
    is_repairing: bool,
    report: &'a mut ReportFinding<'a>,
    found: Verified,
}

impl Store {
    /// Checks every blob, listing, unpacked layer and name of an image; with `is_repairing`, removes
    /// what is damaged.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when it is to repair and another process uses the store; the index's; the
    /// kernel's, with the path.
    pub fn verify<'a>(
        &'a self,
        is_repairing: bool,
        report: &'a mut ReportFinding<'a>,
    ) -> Result<Verified> {
        if is_repairing && !self.in_use.try_upgrade() {
            self.in_use.downgrade();
            return Err(alone::in_use(self.root()));
        }
        let found = Verified::default();
        let mut verifier = Verifier { store: self, is_repairing, report, found };
        let done = verifier.all();
        let found = verifier.found;
        if is_repairing {
            self.in_use.downgrade();
        }
        done.map(|()| found)
    }
}

impl Verifier<'_> {
    fn all(&mut self) -> Result<()> {
        self.opened()?;
        self.blobs()?;
        self.layers()?;
        self.images()?;
        self.tags()
    }

    pub(super) fn damaged(&mut self, subject: &str, reason: impl Into<String>) {
        let (subject, reason) = (subject.to_owned(), reason.into());
        self.found.n_damaged += 1;
        (self.report)(Finding::Damaged(Damage { subject, reason }));
    }

    /// Repairs what was just reported, if that is asked for.
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
        (self.report)(Finding::Repaired { subject: subject.to_owned(), action });
        Ok(())
    }

    /// Reports the damage that was found when the store was opened.
    fn opened(&mut self) -> Result<()> {
        let store = self.store;
        if let Some(damage) = &store.damage.version {
            self.damaged("version", text(damage));
            self.repair("version", "written again", |store| version::write(store.root()))?;
        }
        if let Some(damage) = &store.damage.index {
            let action = "rebuilt from the objects; cached steps are not in it";
            self.damaged("index.db", text(damage));
            self.repair("index.db", action, |_store| Ok(()))?;
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for blob in self.store.blobs()? {
            let reason = match digest_of(self.store, blob) {
                // Another process has just found it damaged.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(got) if got == blob => None,
                Ok(got) => Some(format!("it holds {got}")),
                Err(error) => Some(text(&error)),
            };
            self.found.n_blobs += 1;
            let Some(reason) = reason else { continue };
            let subject = format!("blobs/sha256/{}", blob.hex());
            self.damaged(&subject, reason);
            let action = "removed; it is made again, or pulled, when it is needed";
            let path = self.store.root().join(&subject);
            self.repair(&subject, action, |_store| Ok(pathio::remove_file(&path)?))?;
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let home = self.store.root().join("layers");
        for name in names_in(&home)? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            self.layer(DiffId::new(digest))?;
        }
        Ok(())
    }

    fn layer(&mut self, layer: DiffId) -> Result<()> {
        let home = self.store.layer_path(layer);
        let names = names_in(&home)?;
        if self.is_repairing {
            names.iter().filter(|name| is_set_aside(name)).try_for_each(|name| {
                pathio::remove_dir_all(&home.join(name)).map_err(StoreError::from)
            })?;
        }
        let forms: Vec<&String> =
            names.iter().filter(|name| self.store.is_own_form(name)).collect();
        let has_tree = names.iter().any(|name| name == "tree");
        // A process that ended may have left an empty directory.
        if forms.is_empty() && !has_tree {
            return Ok(());
        }
        self.found.n_layers += 1;
        let Some(listing) = self.listing(layer)? else { return Ok(()) };
        for form in forms {
            if !self.form(layer, form, &listing)? {
                break;
            }
        }
        Ok(())
    }

    /// The layer's listing if it is good, or was made again.
    fn listing(&mut self, layer: DiffId) -> Result<Option<PackedListing>> {
        let path = self.store.layer_path(layer).join("tree");
        let reason = match read_listing(&path, layer) {
            Ok(listing) => match self.unlike(layer, &listing)? {
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
        self.repair(&subject, "made again from the layer's archive", |store| {
            match pathio::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _gone => {}
            }
            store.forget_unpacked(layer)?;
            store.listing(layer).map(drop)
        })?;
        if self.is_repairing { self.store.listing_if_there(layer) } else { Ok(None) }
    }

    /// Compares a listing with the index and with the layer's archive, where there is one.
    fn unlike(&self, layer: DiffId, listing: &PackedListing) -> Result<Option<String>> {
        // Its unpacked layer is unpacked again before it is used.
        if listing.is_of_version_1() {
            return Ok(None);
        }
        let mut content = LayerContent::new();
        listing.stream().for_each(|entry| content.entry(&entry));
        let record = self.store.with_index(|index| index.layer(layer))?;
        if record.is_some_and(|record| record.content != content.finish()) {
            return Ok(Some("it is not what the index says of the layer".to_owned()));
        }
        if !self.store.has_tar(layer)? {
            return Ok(None);
        }
        let Ok(tar) = self.store.open_tar(layer) else { return Ok(None) };
        let mut tar = TarSource::new(tar);
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(layer, path.clone(), tar_at);
        let Ok(scanned) = scan::list(&mut tar, &self.store.unpack_options(), &origin) else {
            // The blob was reported, and without repairing it is still there.
            return Ok(None);
        };
        let is_same = scanned.entries().len() == listing.n_entries()
            && listing.stream().zip(scanned.entries()).all(|(listed, scanned)| {
                listed.path == scanned.path && is_same_item(&listed.item, &scanned.item)
            });
        Ok((!is_same).then(|| "it is not what the layer's archive holds".to_owned()))
    }

    /// Compares an unpacked layer with its listing; returns whether the layer is still there.
    fn form(&mut self, layer: DiffId, form: &str, listing: &PackedListing) -> Result<bool> {
        let path = self.store.layer_path(layer).join(form);
        let rules = Rules {
            contents: true,
            ..self.store.rules(layer, form != self.store.form_name(None))?
        };
        let opened = open_directory(&path)?;
        let (mut differences, mut n_all) = (Vec::new(), 0_usize);
        let mut note = |path: &TreePath, text: &str| {
            n_all += 1;
            if differences.len() < MAX_DIFFERENCES {
                differences.push((path.clone(), text.to_owned()));
            }
            ControlFlow::Continue(())
        };
        self.found.n_files += compare::compare(listing, opened.as_fd(), rules, &mut note)?;
        if n_all == 0 {
            return Ok(true);
        }
        let n_more = n_all - differences.len();
        let subject = self.subject(layer, form);
        for (path, text) in differences {
            let path = path.as_path().display();
            let file = format!("{subject}/{path}");
            self.found.n_damaged += 1;
            (self.report)(Finding::Damaged(Damage { subject: file, reason: text }));
        }
        if n_more > 0 {
            self.damaged(&subject, format!("{n_more} more entries differ"));
        }
        let n_reported = n_all.min(MAX_DIFFERENCES) + usize::from(n_more > 0);
        let n_before = self.found.n_repaired;
        let is_left = self.store.has_tar(layer)?;
        if is_left {
            let action = "removed; it is unpacked again from the layer's archive";
            self.repair(&subject, action, |store| {
                pathio::remove_dir_all(&path)?;
                store.forget_unpacked(layer)
            })?;
        } else {
            self.remove_layer(layer, &subject)?;
        }
        if self.found.n_repaired > n_before {
            self.found.n_repaired = n_before + n_reported;
        }
        Ok(is_left || !self.is_repairing)
    }

    /// Removes a layer of which nothing good is left.
    fn remove_layer(&mut self, layer: DiffId, subject: &str) -> Result<()> {
        let action = "removed with the whole layer; a build makes it again";
        self.repair(subject, action, |store| {
            store.forget_layer(layer)?;
            Ok(pathio::remove_dir_all(&store.layer_path(layer))?)
        })
    }

    fn subject(&self, layer: DiffId, name: &str) -> String {
        let path = self.store.layer_path(layer).join(name);
        path.strip_prefix(self.store.root()).unwrap_or(&path).display().to_string()
    }
}

/// The entries are equal; where a content lies in the archive need not be known.
fn is_same_item(listed: &Item, scanned: &Item) -> bool {
    match (listed, scanned) {
        (Item::Node(meta, Node::File(file)), Item::Node(other_meta, Node::File(other))) => {
            let tar_at = file.origin.tar_at();
            let is_at = tar_at.is_none_or(|at| at == crate::archive::NOT_IN_ONE_PIECE)
                || tar_at == other.origin.tar_at();
            is_at && meta == other_meta && file.size == other.size && file.content == other.content
        }
        (listed, scanned) => listed == scanned,
    }
}

fn read_listing(path: &Path, layer: DiffId) -> std::result::Result<PackedListing, String> {
    let bytes = match guard::read_file(path, MAX_LISTING_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("it is not there".to_owned());
        }
        bytes => bytes.map_err(|error| text(&error))?,
    };
    PackedListing::new(bytes, layer).map_err(|error| error.to_string())
}

/// An error with all that caused it.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn digest_of(store: &Store, blob: Digest) -> std::result::Result<Digest, pathio::PathError> {
    let path = store.root().join("blobs/sha256").join(blob.hex());
    let mut file = guard::open_file(&path)?;
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

pub(super) fn names_in(directory: &PathBuf) -> std::result::Result<Vec<String>, pathio::PathError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).context("list", directory)? {
        names.extend(entry.context("list", directory)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// True of an unpacked layer that was found damaged, and that another process may still have mounted.
pub(super) fn is_set_aside(name: &str) -> bool {
    name.starts_with("damaged-")
}
