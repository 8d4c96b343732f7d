//! Tags: names of images. Each is a row of the index, which commands read, and a file, from which a
//! lost index is rebuilt.
//!
//! The file `tags/<SHA-256 of the name>` has four lines: the name, the digest of the manifest or
//! index, the time in seconds since 1970, and the SHA-256 of these three lines.
//!
//! SQLite ignores the rest of a write-ahead log from the first frame with a wrong checksum
//! (<https://www.sqlite.org/fileformat2.html#walformat>): tags can be lost without an error. The index
//! therefore also holds the time of the last change of `tags`; if the two differ, the files are read.

use std::io::{self, Write as _};
use std::path::PathBuf;

use rusqlite::{Row, params};

use crate::oci::{Digest, Reference};
use crate::pathio::{self, Context as _};

use super::index::Index;
use super::locks::StoreLock;
use super::private_files::sorted_names;
use super::{Store, StoreError, private_files};

type Result<T> = std::result::Result<T, StoreError>;

/// Maximum size of a tag's file, bytes: a name has a few hundred at most.
const MAX_TAG_BYTES: u64 = 8 << 10;

/// State of the index: the modification time of `tags`, nanoseconds since 1970, when files and index
/// agreed.
const TAGS_CHANGED_NS: &str = "tags_changed_ns";
/// State of the index: tags were restored from files, but layers were not yet.
pub(super) const LOST_LAYERS: &str = "lost_layers";

/// A name and the image that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Full reference, as in `docker.io/library/busybox:latest`.
    pub name: String,
    /// Digest of the image's manifest or index, a blob of the store.
    pub manifest: Digest,
    /// Time at which it was set, seconds since 1970.
    pub updated_s: i64,
}

/// The tags of a store.
#[derive(Debug, Clone, Copy)]
pub struct Tags<'a> {
    pub(super) store: &'a Store,
}

impl Tags<'_> {
    /// Returns the manifest or index that `name` refers to.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn get(self, name: &Reference) -> Result<Option<Digest>> {
        self.store.with_index(|index| index.tag(&name.to_string()))
    }

    /// Returns all tags, sorted by name.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn all(self) -> Result<Vec<Tag>> {
        self.store.with_index(|index| index.tags())
    }

    /// Makes `name` refer to a manifest or index, which must be a blob of the store.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Io`].
    pub fn set(self, name: &Reference, manifest: Digest) -> Result<()> {
        let _lock = self.lock()?;
        let updated_s = self.store.with_index(|index| index.now_s);
        let tag = Tag { name: name.to_string(), manifest, updated_s };
        self.write_file(&tag)?;
        let changed_ns = self.files_changed_ns()?;
        self.store.with_index(|index| index.put_tags(&[&tag], changed_ns))
    }

    /// Removes a tag. Returns whether it existed.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Io`].
    pub fn remove(self, name: &Reference) -> Result<bool> {
        self.remove_by_text(&name.to_string())
    }

    /// Removes the tag with exactly this text as its name. Returns whether it existed.
    pub(super) fn remove_by_text(self, name: &str) -> Result<bool> {
        let _lock = self.lock()?;
        let existed = self.store.with_index(|index| index.remove_tag(name))?;
        self.remove_file(name)?;
        self.note_files_unchanged()?;
        Ok(existed)
    }

    /// Notes in the index that it agrees with the files.
    pub(super) fn note_files_unchanged(self) -> Result<()> {
        let changed_ns = self.files_changed_ns()?;
        self.store.with_index(|index| index.put_tags(&[], changed_ns))
    }

    /// Returns when a file of a tag was last added or removed, nanoseconds since 1970.
    fn files_changed_ns(self) -> Result<i64> {
        let home = self.store.root().join("tags");
        let stat = rustix::fs::lstat(&home).context("examine", &home)?;
        let ns = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Ok(stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(ns))
    }

    /// Restores tags that only the index or only their file has. If the index had lost some, it is
    /// marked with [`LOST_LAYERS`].
    pub(super) fn restore(self) -> Result<()> {
        let is_same = || -> Result<bool> {
            let noted_ns = self.store.with_index(|index| index.state(TAGS_CHANGED_NS))?;
            Ok(noted_ns == Some(self.files_changed_ns()?))
        };
        if is_same()? {
            return Ok(());
        }
        let _lock = self.lock()?;
        // Another process may have been changing a tag.
        if is_same()? {
            return Ok(());
        }
        let in_index = self.all()?;
        let (files, damaged) = self.read_files()?;
        let is_newer = |file: &&Tag| {
            let known = in_index.iter().find(|tag| tag.name == file.name);
            known.is_none_or(|tag| tag != *file && tag.updated_s <= file.updated_s)
        };
        // `prune` removes tags from the index before it removes their files and images.
        let lost: Vec<&Tag> =
            files.iter().filter(is_newer).filter(|tag| self.store.has_blob(tag.manifest)).collect();
        for tag in &in_index {
            let is_file = |name: &String| self.file_path(&tag.name).ends_with(name);
            if files.iter().all(|file| file.name != tag.name) && !damaged.iter().any(is_file) {
                self.write_file(tag)?;
            }
        }
        if !lost.is_empty() {
            self.store.with_index(|index| index.put_state(LOST_LAYERS, 1))?;
        }
        let changed_ns = self.files_changed_ns()?;
        self.store.with_index(|index| index.put_tags(&lost, changed_ns))
    }

    /// Waits for the lock under which tags are changed: index and files agree while it is held.
    pub(super) fn lock(self) -> Result<StoreLock> {
        Ok(StoreLock::named(self.store.root(), "tags")?)
    }

    /// Returns the path of a tag's file.
    pub(super) fn file_path(self, name: &str) -> PathBuf {
        self.store.root().join("tags").join(Digest::of(name.as_bytes()).hex())
    }

    /// Removes the file of a tag, if it exists.
    pub(super) fn remove_file(self, name: &str) -> Result<()> {
        match pathio::remove_file(&self.file_path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _gone => Ok(()),
        }
    }

    /// Writes the file of a tag and replaces an existing one.
    pub(super) fn write_file(self, tag: &Tag) -> Result<()> {
        let draft = self.store.work.process()?.fresh_path();
        let path = self.file_path(&tag.name);
        let text = text_of(tag);
        private_files::create_file(&draft)?.write_all(text.as_bytes()).context("write", &draft)?;
        Ok(pathio::rename(&draft, &path)?)
    }

    /// Reads the files of all tags; also returns the names of the files that are damaged.
    pub(super) fn read_files(self) -> Result<(Vec<Tag>, Vec<String>)> {
        let (mut tags, mut damaged) = (Vec::new(), Vec::new());
        let home = self.store.root().join("tags");
        for name in sorted_names(&home)? {
            let bytes = match private_files::read_file(&home.join(&name), MAX_TAG_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.unwrap_or_default(),
            };
            match parse(&bytes).filter(|tag| self.file_path(&tag.name) == home.join(&name)) {
                Some(tag) => tags.push(tag),
                None => damaged.push(name),
            }
        }
        Ok((tags, damaged))
    }
}

fn text_of(tag: &Tag) -> String {
    let text = format!("{}\n{}\n{}\n", tag.name, tag.manifest, tag.updated_s);
    let sum = Digest::of(text.as_bytes());
    format!("{text}{}\n", sum.hex())
}

/// Parses the file of a tag; `None` if the checksum or another line is wrong.
fn parse(bytes: &[u8]) -> Option<Tag> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let (name, manifest, updated_s) = (lines.next()?, lines.next()?, lines.next()?);
    let (manifest, updated_s) = (manifest.parse().ok()?, updated_s.parse().ok()?);
    let tag = Tag { name: name.to_owned(), manifest, updated_s };
    (text_of(&tag) == text).then_some(tag)
}

impl Index {
    fn tags(&self) -> Result<Vec<Tag>> {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
        let rows = self.rows("SELECT name, manifest, updated_s FROM tag ORDER BY name", read)?;
        let tag = |(name, manifest, updated_s): (String, String, i64)| {
            Ok(Tag { name, manifest: self.digest(&manifest)?, updated_s })
        };
        rows.into_iter().map(tag).collect()
    }

    fn tag(&self, name: &str) -> Result<Option<Digest>> {
        let texts = self.texts("SELECT manifest FROM tag WHERE name = ?1", params![name])?;
        texts.first().map(|text| self.digest(text)).transpose()
    }

    pub(super) fn put_tag(&self, tag: &Tag) -> Result<()> {
        const SQL: &str =
            "INSERT OR REPLACE INTO tag (name, manifest, updated_s) VALUES (?1, ?2, ?3)";
        let values = params![tag.name, tag.manifest.to_string(), tag.updated_s];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    /// Records tags, and when a file of a tag was last changed.
    fn put_tags(&self, tags: &[&Tag], changed_ns: i64) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        tags.iter().try_for_each(|tag| self.put_tag(tag))?;
        self.put_state(TAGS_CHANGED_NS, changed_ns)?;
        self.check(transaction.commit())
    }

    fn remove_tag(&self, name: &str) -> Result<bool> {
        let removed = self.connection.execute("DELETE FROM tag WHERE name = ?1", params![name]);
        Ok(self.check(removed)? > 0)
    }

    /// Reads every tag.
    ///
    /// # Errors
    /// [`StoreError::Record`] for the first that cannot be read.
    pub(super) fn check_tags(&self) -> Result<()> {
        self.tags().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_file_is_read_only_if_it_is_whole() {
        let manifest = Digest::of(b"manifest");
        let tag = Tag { name: "example.com/a:1".to_owned(), manifest, updated_s: 7 };
        let text = text_of(&tag);
        assert_eq!(parse(text.as_bytes()), Some(tag));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 4;
            assert_eq!(parse(&bytes), None, "{at}");
            assert_eq!(parse(&text.as_bytes()[..at]), None, "{at}");
        }
    }
}
