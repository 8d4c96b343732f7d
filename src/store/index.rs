//! The index: an SQLite database in WAL mode (<https://www.sqlite.org/wal.html>), which several
//! processes read and write at once. Each change is one transaction.
//!
//! Here is the connection; the queries are beside the records that they read and write, as in
//! [`super::steps`] and [`super::tags`].

mod open;
mod schema;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::oci::Digest;

use super::{StoreError, reserve};

/// Times of last use younger than this are not updated: most rebuilds then only read the index.
pub(super) const LAST_USE_RESOLUTION_S: i64 = 60;

/// A connection to the index.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) connection: Connection,
    path: PathBuf,
    /// Id of the current boot.
    pub(super) boot: String,
    /// Current time, seconds since 1970.
    pub(super) now_s: i64,
    /// True if the tables of an earlier version were upgraded.
    pub(super) is_upgraded: bool,
    /// True after an error from which the connection does not recover by itself.
    is_stuck: Cell<bool>,
}

type Result<T> = std::result::Result<T, StoreError>;

/// Returns the error of an index at `path`. On a full disk SQLite reports any of several codes.
fn index_error(path: &Path, source: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    let code = source.sqlite_error_code();
    let may_be_full = matches!(code, Some(CannotOpen | DiskFull | SystemIoFailure));
    let directory = path.parent().filter(|_| may_be_full);
    match directory.and_then(reserve::missing_for_index) {
        Some(full) => StoreError::NoSpace(full),
        None => StoreError::Index { path: path.to_owned(), source },
    }
}

impl Index {
    /// Converts the error of a statement, and notes whether the connection is stuck.
    pub(super) fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        use rusqlite::ErrorCode::{DatabaseBusy, FileLockingProtocolFailed};
        result.map_err(|source| {
            let code = source.sqlite_error_code();
            if matches!(code, Some(DatabaseBusy | FileLockingProtocolFailed)) {
                self.is_stuck.set(true);
            }
            index_error(&self.path, source)
        })
    }

    /// Reconnects if the last statement waited in vain for a lock. From then on statements do not
    /// wait for other processes, so that the remaining work ends soon.
    ///
    /// If fcntl(2) fails while SQLite releases a lock, this process keeps the lock, and every later
    /// statement retries for 10 s (`SQLITE_PROTOCOL`, <https://www.sqlite.org/rescode.html#protocol>).
    /// Closing the database releases the lock.
    pub(super) fn reconnect_if_stuck(&mut self) {
        if !self.is_stuck.replace(false) {
            return;
        }
        // Connections of one process share their locks, so the old one is closed first. If no new
        // connection can be made, later statements fail because the tables are missing.
        if let Ok(closed) = Connection::open_in_memory() {
            self.connection = closed;
        }
        if let Ok(connection) = open::connect(&self.path, Duration::ZERO) {
            self.connection = connection;
        }
    }

    fn damaged(&self, reason: impl ToString) -> StoreError {
        StoreError::Record { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Parses a digest of a record.
    pub(super) fn digest(&self, text: &str) -> Result<Digest> {
        text.parse().map_err(|error: crate::oci::DigestError| self.damaged(error))
    }

    /// Parses a cache key or content digest of a record.
    pub(super) fn hash(&self, bytes: &[u8]) -> Result<[u8; 32]> {
        bytes.try_into().map_err(|_wrong_length| self.damaged("a key is not 32 bytes long"))
    }

    /// Returns the first column of every row.
    pub(super) fn texts(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<String>> {
        self.check(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_map(values, |row| row.get(0))?.collect()),
        )
    }

    /// Returns every row of a query without parameters.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.check(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_map([], |row| read(row))?.collect()),
        )
    }

    /// Returns a number that describes the state of the store as a whole.
    pub(super) fn state(&self, name: &str) -> Result<Option<i64>> {
        const SQL: &str = "SELECT value FROM state WHERE name = ?1";
        self.check(self.connection.query_row(SQL, params![name], |row| row.get(0)).optional())
    }

    /// Sets a number of [`Index::state`].
    pub(super) fn put_state(&self, name: &str, value: i64) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO state (name, value) VALUES (?1, ?2)";
        self.check(self.connection.execute(SQL, params![name, value])).map(drop)
    }

    /// Removes a number of [`Index::state`].
    pub(super) fn remove_state(&self, name: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM state WHERE name = ?1";
        self.check(self.connection.execute(SQL, params![name])).map(drop)
    }
}
