//! How the index is opened, and how a new one is made.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::pathio;

use super::super::StoreError;
use super::super::lock::Lease;
use super::super::schema::{
    SCHEMA_VERSION, Schema, create_schema, create_tables, mark_complete, schema, version_of,
};
use super::{Index, Result, index_error};

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns whether the index has the tables that this rbuild knows; those of a later one it would
/// misread.
fn is_known(connection: &Connection, path: &Path) -> Result<bool> {
    let failed = |source| index_error(path, source);
    match schema(connection).map_err(failed)? {
        Schema::Known => Ok(true),
        Schema::Older => Ok(false),
        Schema::Newer(found) => {
            Err(StoreError::NewerIndex { path: path.to_owned(), found, known: SCHEMA_VERSION })
        }
    }
}

impl Index {
    /// Opens the database at `path`; `lock` is held while a new one is made.
    ///
    /// # Errors
    /// [`StoreError::LostIndex`] when it is new, and the store is not.
    pub(in crate::store) fn open(path: &Path, lock: &Path, now_s: i64) -> Result<Self> {
        let failed = |source| index_error(path, source);
        let connection = connect(path, BUSY_TIMEOUT).map_err(failed)?;
        let mut is_upgraded = false;
        if !is_known(&connection, path)? {
            // Changing to WAL wants the file alone, and does not wait for it.
            let _alone = Lease::exclusive(lock)?;
            if !is_known(&connection, path)? {
                let version = version_of(&connection).map_err(failed)?;
                if version == 0 && has_objects(path) {
                    return Err(StoreError::LostIndex { path: path.to_owned() });
                }
                is_upgraded = version > 0;
                create_schema(&connection).map_err(failed)?;
            }
        }
        let is_stuck = Cell::new(false);
        Ok(Self {
            connection,
            path: path.to_owned(),
            boot: boot_id(),
            now_s,
            is_upgraded,
            is_stuck,
        })
    }

    /// Makes a new database that is not used until it is finished.
    pub(in crate::store) fn unfinished(path: &Path, now_s: i64) -> Result<Self> {
        let failed = |source| index_error(path, source);
        let connection = connect(path, BUSY_TIMEOUT).map_err(failed)?;
        create_tables(&connection).map_err(failed)?;
        let (path, boot, is_stuck) = (path.to_owned(), boot_id(), Cell::new(false));
        Ok(Self { connection, path, boot, now_s, is_upgraded: false, is_stuck })
    }

    /// Says that all is in it.
    pub(in crate::store) fn finish(&self) -> Result<()> {
        self.check(mark_complete(&self.connection))
    }

    /// Lets SQLite compare all tables with their indexes.
    pub(in crate::store) fn check_integrity(&self) -> Result<()> {
        let found = self.texts("PRAGMA integrity_check(1)", [])?;
        match found.first() {
            Some(found) if found != "ok" => Err(self.damaged(found.replace('\n', " "))),
            _good => self.read_all(),
        }
    }
}

fn boot_id() -> String {
    pathio::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"), 100)
        .map_or_else(|_unknown| "unknown".to_owned(), |id| id.trim().to_owned())
}

/// Returns whether the store of this index holds blobs or layers.
fn has_objects(path: &Path) -> bool {
    let root = path.parent().unwrap_or(path);
    let has_entries = |name: &str| {
        std::fs::read_dir(root.join(name)).is_ok_and(|mut entries| entries.next().is_some())
    };
    has_entries("blobs/sha256") || has_entries("layers")
}

pub(super) fn connect(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    /// Returns whether the connection is still the one that made the temporary table `mark`.
    fn is_marked(index: &Index) -> bool {
        index.connection.execute("INSERT INTO temp.mark VALUES (1)", []).is_ok()
    }

    #[test]
    fn a_statement_that_failed_by_a_stuck_lock_is_the_last_of_its_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.db");
        for (code, expected) in
            [(ffi::SQLITE_PROTOCOL, false), (ffi::SQLITE_BUSY, false), (ffi::SQLITE_FULL, true)]
        {
            let mut index = Index::open(&path, &directory.path().join("lock"), 0).unwrap();
            index.connection.execute("CREATE TEMP TABLE mark (x)", []).unwrap();
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            index.check::<()>(Err(error)).unwrap_err();
            index.reconnect_if_stuck();
            assert_eq!(is_marked(&index), expected, "{code}");
            assert_eq!(index.tags().unwrap(), []);
        }
    }
}
