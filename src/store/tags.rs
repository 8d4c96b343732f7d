//! Names of images, kept beside the objects: from them an index that was lost is rebuilt.
//!
//! `tags/<SHA-256 of the name>` has four lines: the name, the manifest's digest, the time in seconds
//! since 1970, and the SHA-256 of the three. The index is what commands read.
//!
//! SQLite passes over the rest of a write-ahead log at the first frame that is damaged (sqlite.org/wal.html):
//! names are lost then without an error. So the index has the time of the last change of `tags`, and when
//! the two differ, the files are read.

use std::io::{self, Write as _};
use std::path::PathBuf;

use rusqlite::{OptionalExtension as _, params};

use crate::oci::{Digest, Reference};
use crate::pathio::{self, Context as _};

use super::index::Index;
use super::lock::StepLock;
use super::verify::names_in;
use super::{Store, StoreError, Tag, guard};

type Result<T> = std::result::Result<T, StoreError>;

/// A name has at most a few hundred bytes.
const MAX_TAG_BYTES: u64 = 8 << 10;

/// The time in nanoseconds since 1970 when the files and the index agreed.
const TAGS_CHANGED_NS: &str = "tags_changed_ns";
/// Names were restored, and layers were not yet.
const LOST_LAYERS: &str = "lost_layers";

impl Store {
    /// Names the image with this manifest, which must be a blob of the store.
    ///
    /// # Errors
    /// The index's; the kernel's, with the path.
    pub fn set_tag(&self, name: &Reference, manifest: Digest) -> Result<()> {
        let _alone = self.lock_tags()?;
        let updated_s = self.with_index(|index| index.now_s);
        let tag = Tag { name: name.to_string(), manifest, updated_s };
        self.write_tag(&tag)?;
        let changed_ns = self.tags_changed_ns()?;
        self.with_index(|index| index.put_tags(&[&tag], changed_ns))
    }

    /// Takes a name away from the image that has it; gives whether one had it.
    ///
    /// # Errors
    /// The index's; the kernel's, with the path.
    pub fn remove_tag(&self, name: &Reference) -> Result<bool> {
        self.remove_tag_named(&name.to_string())
    }

    pub(super) fn remove_tag_named(&self, name: &str) -> Result<bool> {
        let _alone = self.lock_tags()?;
        let was_there = self.with_index(|index| index.remove_tag(name))?;
        self.remove_tag_file(name)?;
        self.note_tag_files()?;
        Ok(was_there)
    }

    /// Notes in the index that the files and the index agree.
    pub(super) fn note_tag_files(&self) -> Result<()> {
        let changed_ns = self.tags_changed_ns()?;
        self.with_index(|index| index.put_tags(&[], changed_ns))
    }

    /// Returns when a name of an image last changed, in nanoseconds since 1970.
    fn tags_changed_ns(&self) -> Result<i64> {
        let home = self.root().join("tags");
        let stat = rustix::fs::lstat(&home).context("examine", &home)?;
        let ns = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Ok(stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(ns))
    }

    /// Restores the names that the index lost, and records the layers of which it lost the records.
    pub(super) fn restore_lost(&self) -> Result<()> {
        self.restore_tags()?;
        // Others than root see other owners outside of their namespace.
        if self.id_map.may_unpack() && self.with_index(|index| index.state(LOST_LAYERS))?.is_some()
        {
            self.restore_layers()?;
            self.with_index(|index| index.remove_state(LOST_LAYERS))?;
        }
        Ok(())
    }

    fn restore_tags(&self) -> Result<()> {
        let is_same = || -> Result<bool> {
            let noted_ns = self.with_index(|index| index.state(TAGS_CHANGED_NS))?;
            Ok(noted_ns == Some(self.tags_changed_ns()?))
        };
        if is_same()? {
            return Ok(());
        }
        let _alone = self.lock_tags()?;
        // Another process was changing a name.
        if is_same()? {
            return Ok(());
        }
        let in_index = self.tags()?;
        let (files, damaged) = self.tag_files()?;
        let is_newer = |file: &&Tag| {
            let known = in_index.iter().find(|tag| tag.name == file.name);
            known.is_none_or(|tag| tag != *file && tag.updated_s <= file.updated_s)
        };
        // `prune` removes names from the index before it removes their files and images.
        let lost: Vec<&Tag> =
            files.iter().filter(is_newer).filter(|tag| self.has_blob(tag.manifest)).collect();
        for tag in &in_index {
            let is_file = |name: &String| self.tag_path(&tag.name).ends_with(name);
            if files.iter().all(|file| file.name != tag.name) && !damaged.iter().any(is_file) {
                self.write_tag(tag)?;
            }
        }
        if !lost.is_empty() {
            self.with_index(|index| index.put_state(LOST_LAYERS, 1))?;
        }
        let changed_ns = self.tags_changed_ns()?;
        self.with_index(|index| index.put_tags(&lost, changed_ns))
    }

    /// One process at a time changes names: the index and the files say the same then.
    pub(super) fn lock_tags(&self) -> Result<StepLock> {
        Ok(self.lock_name("tags")?)
    }

    pub(super) fn tag_path(&self, name: &str) -> PathBuf {
        self.root().join("tags").join(Digest::of(name.as_bytes()).hex())
    }

    pub(super) fn remove_tag_file(&self, name: &str) -> Result<()> {
        match pathio::remove_file(&self.tag_path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _gone => Ok(()),
        }
    }

    pub(super) fn write_tag(&self, tag: &Tag) -> Result<()> {
        let draft = self.process_directory()?.fresh();
        let path = self.tag_path(&tag.name);
        let text = text_of(tag);
        guard::create_file(&draft)?.write_all(text.as_bytes()).context("write", &draft)?;
        Ok(pathio::rename(&draft, &path)?)
    }

    /// The tags that have files, and the names of the files that hold none.
    pub(super) fn tag_files(&self) -> Result<(Vec<Tag>, Vec<String>)> {
        let (mut tags, mut damaged) = (Vec::new(), Vec::new());
        let home = self.root().join("tags");
        for name in names_in(&home)? {
            let bytes = match guard::read_file(&home.join(&name), MAX_TAG_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.unwrap_or_default(),
            };
            match tag_in(&bytes).filter(|tag| self.tag_path(&tag.name) == home.join(&name)) {
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

fn tag_in(bytes: &[u8]) -> Option<Tag> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let (name, manifest, updated_s) = (lines.next()?, lines.next()?, lines.next()?);
    let (manifest, updated_s) = (manifest.parse().ok()?, updated_s.parse().ok()?);
    let tag = Tag { name: name.to_owned(), manifest, updated_s };
    (text_of(&tag) == text).then_some(tag)
}

impl Index {
    pub(super) fn put_tag(&self, tag: &Tag) -> Result<()> {
        const SQL: &str =
            "INSERT OR REPLACE INTO tag (name, manifest, updated_s) VALUES (?1, ?2, ?3)";
        let values = params![tag.name, tag.manifest.to_string(), tag.updated_s];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }

    /// Names images, and notes when a name was last changed.
    fn put_tags(&self, tags: &[&Tag], changed_ns: i64) -> Result<()> {
        let transaction = self.check(self.connection.unchecked_transaction())?;
        tags.iter().try_for_each(|tag| self.put_tag(tag))?;
        self.put_state(TAGS_CHANGED_NS, changed_ns)?;
        self.check(transaction.commit())
    }

    fn state(&self, name: &str) -> Result<Option<i64>> {
        const SQL: &str = "SELECT value FROM state WHERE name = ?1";
        self.check(self.connection.query_row(SQL, params![name], |row| row.get(0)).optional())
    }

    fn put_state(&self, name: &str, value: i64) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO state (name, value) VALUES (?1, ?2)";
        self.check(self.connection.execute(SQL, params![name, value])).map(drop)
    }

    fn remove_state(&self, name: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM state WHERE name = ?1";
        self.check(self.connection.execute(SQL, params![name])).map(drop)
    }

    fn remove_tag(&self, name: &str) -> Result<bool> {
        let removed = self.connection.execute("DELETE FROM tag WHERE name = ?1", params![name]);
        Ok(self.check(removed)? > 0)
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
        assert_eq!(tag_in(text.as_bytes()), Some(tag));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 4;
            assert_eq!(tag_in(&bytes), None, "{at}");
            assert_eq!(tag_in(&text.as_bytes()[..at]), None, "{at}");
        }
    }
}
