//! The tables of the index, and the upgrade of earlier versions.

use std::cmp::Ordering;

use rusqlite::Connection;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS layer (
    diff_id TEXT PRIMARY KEY, content BLOB NOT NULL, tar_bytes INTEGER NOT NULL,
    created_s INTEGER NOT NULL, boot TEXT NOT NULL, durable INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packed (
    blob TEXT PRIMARY KEY, diff_id TEXT NOT NULL, compression TEXT NOT NULL,
    level INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS packed_diff_id ON packed (diff_id);
CREATE TABLE IF NOT EXISTS source (
    place TEXT NOT NULL, blob TEXT NOT NULL, diff_id TEXT NOT NULL, media_type TEXT NOT NULL,
    bytes INTEGER NOT NULL, updated_s INTEGER NOT NULL, PRIMARY KEY (place, blob)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS source_diff_id ON source (diff_id);
CREATE TABLE IF NOT EXISTS step (
    definition BLOB NOT NULL, content BLOB NOT NULL, operation BLOB NOT NULL, components TEXT NOT NULL,
    layer TEXT NOT NULL, created_s INTEGER NOT NULL, duration_ms INTEGER NOT NULL,
    used_s INTEGER NOT NULL, nth INTEGER NOT NULL DEFAULT 0, origin TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (definition, origin)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS step_content ON step (content);
CREATE INDEX IF NOT EXISTS step_operation ON step (operation);
CREATE INDEX IF NOT EXISTS step_used ON step (used_s, nth);
CREATE TABLE IF NOT EXISTS tag (
    name TEXT PRIMARY KEY, manifest TEXT NOT NULL, updated_s INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resolved (
    name TEXT NOT NULL, platform TEXT NOT NULL, manifest TEXT NOT NULL, updated_s INTEGER NOT NULL,
    PRIMARY KEY (name, platform)) WITHOUT ROWID;
DROP TABLE IF EXISTS memo;
CREATE TABLE IF NOT EXISTS download (
    url TEXT PRIMARY KEY, blob TEXT NOT NULL, bytes INTEGER NOT NULL, etag TEXT,
    last_modified TEXT, used_s INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS download_blob ON download (blob);
CREATE TABLE IF NOT EXISTS stacked (
    chain TEXT PRIMARY KEY, diff_id TEXT NOT NULL, form BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checked (
    diff_id TEXT NOT NULL, form BLOB NOT NULL, boot TEXT NOT NULL,
    PRIMARY KEY (diff_id, form)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// Upgrade to version 7: before, unpacked layers of base images depended on the layers that they were
/// first unpacked on. They are unpacked again.
const FORGET_UNPACKED: &str = "
UPDATE layer SET durable = 0, boot = ''
    WHERE diff_id IN (SELECT diff_id FROM packed WHERE level = -1);
";

/// Upgrade to version 5: before, steps of the same second had no order.
const ADD_ORDER: &str = "ALTER TABLE step ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;";

/// Upgrade to version 6: before, records did not name the cache that they were imported from. Steps
/// whose layer has a source may be imported: they get an origin that no build can name. Layers with
/// a source count as claims of a cache.
const ADD_ORIGIN: &str = "
ALTER TABLE step RENAME TO old_step;
ALTER TABLE layer ADD COLUMN claimed INTEGER NOT NULL DEFAULT 0;
UPDATE layer SET claimed = 1 WHERE diff_id IN (SELECT diff_id FROM source);
DROP INDEX IF EXISTS step_content;
DROP INDEX IF EXISTS step_operation;
DROP INDEX IF EXISTS step_used;
";
/// Upgrade to version 6, after the new table of steps was created.
const MOVE_STEPS: &str = "
INSERT INTO step SELECT definition, content, operation, components, layer, created_s, duration_ms,
    used_s, nth, CASE WHEN layer IN (SELECT diff_id FROM source) THEN '?' ELSE '' END FROM old_step;
DROP TABLE old_step;
";

/// Version of the tables, in the database header
/// (<https://www.sqlite.org/pragma.html#pragma_user_version>): an index that has it is opened without a
/// write.
pub(super) const SCHEMA_VERSION: i64 = 9;

/// State of an index's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemaState {
    /// They have the version of this rbuild.
    Current,
    /// They do not exist, or have the version of an earlier rbuild.
    Older,
    /// They have the version of a later rbuild.
    Newer(i64),
}

/// Returns the state of the tables.
pub(super) fn schema_state(connection: &Connection) -> rusqlite::Result<SchemaState> {
    let version = version_of(connection)?;
    Ok(match version.cmp(&SCHEMA_VERSION) {
        Ordering::Equal => SchemaState::Current,
        Ordering::Less => SchemaState::Older,
        Ordering::Greater => SchemaState::Newer(version),
    })
}

/// Returns whether the table of steps exists and lacks this column.
fn steps_lack(connection: &Connection, column: &str) -> rusqlite::Result<bool> {
    const SQL: &str = "SELECT COUNT(*) > 0 AND SUM(name = ?1) = 0 FROM pragma_table_info('step')";
    connection
        .query_row(SQL, [column], |row| row.get::<_, Option<bool>>(0))
        .map(|lacks| lacks == Some(true))
}

/// Creates or upgrades the tables; the caller holds a lock.
pub(super) fn create_schema(connection: &Connection) -> rusqlite::Result<()> {
    create_tables(connection)?;
    mark_complete(connection)
}

/// Marks the tables as complete, with all their rows.
pub(super) fn mark_complete(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Returns the version of the tables; 0 for a database that was never completed.
pub(super) fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Creates or upgrades the tables, and switches to WAL mode, which the file keeps.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    let _mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    let older = if steps_lack(connection, "nth")? { ADD_ORDER } else { "" };
    let is_old = steps_lack(connection, "origin")?;
    let (before, after) = if is_old { (ADD_ORIGIN, MOVE_STEPS) } else { ("", "") };
    let version = version_of(connection)?;
    let forget = if version < 7 { FORGET_UNPACKED } else { "" };
    connection
        .execute_batch(&format!("BEGIN IMMEDIATE;{older}{before}{SCHEMA}{after}{forget}COMMIT;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrade_gives_possibly_imported_records_an_unknown_origin() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE layer (diff_id TEXT PRIMARY KEY, content BLOB NOT NULL,
                     tar_bytes INTEGER NOT NULL, created_s INTEGER NOT NULL, boot TEXT NOT NULL,
                     durable INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
                 CREATE TABLE source (place TEXT NOT NULL, blob TEXT NOT NULL, diff_id TEXT NOT NULL,
                     media_type TEXT NOT NULL, bytes INTEGER NOT NULL, updated_s INTEGER NOT NULL,
                     PRIMARY KEY (place, blob)) WITHOUT ROWID;
                 CREATE TABLE step (definition BLOB PRIMARY KEY, content BLOB NOT NULL,
                     operation BLOB NOT NULL, components TEXT NOT NULL, layer TEXT NOT NULL,
                     created_s INTEGER NOT NULL, duration_ms INTEGER NOT NULL,
                     used_s INTEGER NOT NULL) WITHOUT ROWID;
                 CREATE INDEX step_content ON step (content);
                 INSERT INTO layer VALUES ('own', x'00', 1, 2, 'b', 1), ('other', x'00', 1, 2, 'b', 1);
                 INSERT INTO source VALUES ('a.example/x', 'blob', 'other', 'type', 3, 4);
                 INSERT INTO step VALUES (x'01', x'', x'', '[]', 'own', 5, 6, 7),
                     (x'02', x'', x'', '[]', 'other', 5, 6, 7);",
            )
            .unwrap();
        // The second upgrade changes nothing.
        for _ in 0..2 {
            create_schema(&connection).unwrap();
            assert_eq!(schema_state(&connection).unwrap(), SchemaState::Current);
            let rows = |sql: &str| -> Vec<(String, String)> {
                let mut statement = connection.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                rows.map(Result::unwrap).collect()
            };
            let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
            let steps = rows("SELECT hex(definition), origin FROM step ORDER BY 1");
            assert_eq!(steps, [text("01", ""), text("02", "?")]);
            let layers = rows("SELECT diff_id, CAST(claimed AS TEXT) FROM layer ORDER BY 1");
            assert_eq!(layers, [text("other", "1"), text("own", "0")]);
        }
    }
}
