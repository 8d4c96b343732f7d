//! Opens the index, and creates a new one.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::pathio;

use super::super::StoreError;
use super::super::locks::FileLock;
use super::schema::{
    SCHEMA_VERSION, SchemaState, create_schema, create_tables, mark_complete, schema_state,
    version_of,
};
use super::{Index, Result, index_error};

/// Maximum time that a statement waits for a transaction of another process
/// (<https://www.sqlite.org/c3ref/busy_timeout.html>).
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns whether the index has the tables of this version; `false` if they have to be created or
/// upgraded.
///
/// # Errors
/// [`StoreError::NewerIndex`] for the tables of a later rbuild, which this one would misread.
fn is_known(connection: &Connection, path: &Path) -> Result<bool> {
    let failed = |source| index_error(path, source);
    match schema_state(connection).map_err(failed)? {
        SchemaState::Current => Ok(true),
        SchemaState::Older => Ok(false),
        SchemaState::Newer(found) => {
            Err(StoreError::NewerIndex { path: path.to_owned(), found, known: SCHEMA_VERSION })
        }
    }
}

impl Index {
    /// Opens the index at `path`. The file `lock` is locked while tables are created or upgraded.
    ///
    /// # Errors
    /// [`StoreError::LostIndex`] if the index is new and the store is not,
    /// [`StoreError::NewerIndex`], [`StoreError::NoSpace`] or [`StoreError::Index`].
    pub(in crate::store) fn open(path: &Path, lock: &Path, now_s: i64) -> Result<Self> {
        let failed = |source| index_error(path, source);
        let connection = connect(path, BUSY_TIMEOUT).map_err(failed)?;
        let mut is_upgraded = false;
        if !is_known(&connection, path)? {
            // The change to WAL mode needs exclusive access, and SQLite does not call the busy handler
            // for it: it fails at once while another process has the file open.
            let _lock = FileLock::exclusive(lock)?;
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

    /// Creates an index that [`Index::open`] refuses until [`Index::finish`] is called.
    pub(in crate::store) fn unfinished(path: &Path, now_s: i64) -> Result<Self> {
        let failed = |source| index_error(path, source);
        let connection = connect(path, BUSY_TIMEOUT).map_err(failed)?;
        create_tables(&connection).map_err(failed)?;
        let (path, boot, is_stuck) = (path.to_owned(), boot_id(), Cell::new(false));
        Ok(Self { connection, path, boot, now_s, is_upgraded: false, is_stuck })
    }

    /// Marks a new index as complete.
    pub(in crate::store) fn finish(&self) -> Result<()> {
        self.check(mark_complete(&self.connection))
    }

    /// Checks the database with SQLite (<https://www.sqlite.org/pragma.html#pragma_integrity_check>),
    /// and reads all records that keep blobs and layers alive.
    ///
    /// # Errors
    /// [`StoreError::Record`] or [`StoreError::Index`] if it is damaged.
    pub(in crate::store) fn check_integrity(&self) -> Result<()> {
        let found = self.texts("PRAGMA integrity_check(1)", [])?;
        match found.first() {
            Some(found) if found != "ok" => Err(self.damaged(found.replace('\n', " "))),
            _good => self.check_records(),
        }
    }

    fn check_records(&self) -> Result<()> {
        self.check_tags()?;
        self.all_packed()?;
        self.all_resolved()?;
        self.all_steps(false)?;
        self.all_downloads()?;
        self.volatile_layers().map(drop)
    }
}

/// Returns the random id that the kernel generates at each boot (random(4)).
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

/// Connects to the database at `path`. With `synchronous=NORMAL` in WAL mode, a crash of the machine
/// may undo the last transactions but does not damage the database
/// (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
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
    fn statement_that_fails_at_a_stuck_lock_replaces_the_connection() {
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
            index.check_tags().unwrap();
        }
    }
}
