//! Downloads: which blob a URL gave, and how its server names that version.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::oci::Digest;

use super::index::Index;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadRecord {
    /// Its bytes.
    pub blob: Digest,
    /// How many.
    pub n_bytes: u64,
    /// The server's name for this version.
    pub etag: Option<String>,
    /// When it changed, as the server wrote it.
    pub last_modified: Option<String>,
}

impl Store {
    /// The file that was last downloaded from `url`, if its bytes are still there.
    ///
    /// # Errors
    /// The index's.
    pub fn download(&self, url: &str) -> Result<Option<DownloadRecord>> {
        let record = self.with_index(|index| index.download(url))?;
        Ok(record.filter(|record| self.has_blob(record.blob)))
    }

    /// What is known of a download with these bytes, if they are still there.
    ///
    /// # Errors
    /// The index's.
    pub fn download_of(&self, blob: Digest) -> Result<Option<DownloadRecord>> {
        let record = self.with_index(|index| index.download_of(blob))?;
        Ok(record.filter(|record| self.has_blob(record.blob)))
    }

    /// Remembers what was downloaded from `url`.
    ///
    /// # Errors
    /// The index's.
    pub fn record_download(&self, url: &str, record: &DownloadRecord) -> Result<()> {
        self.with_index(|index| index.put_download(url, record))
    }
}

impl Index {
    fn download(&self, url: &str) -> Result<Option<DownloadRecord>> {
        self.one_download("url = ?1", url)
    }

    fn download_of(&self, blob: Digest) -> Result<Option<DownloadRecord>> {
        self.one_download("blob = ?1 ORDER BY used_s DESC LIMIT 1", &blob.to_string())
    }

    fn one_download(&self, condition: &str, value: &str) -> Result<Option<DownloadRecord>> {
        let sql =
            format!("SELECT blob, bytes, etag, last_modified FROM download WHERE {condition}");
        type Raw = (String, i64, Option<String>, Option<String>);
        let row: Option<Raw> =
            self.check(self.connection.prepare_cached(&sql).and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_row(params![value], read).optional()
            }))?;
        let Some((blob, bytes, etag, last_modified)) = row else { return Ok(None) };
        let (blob, n_bytes) = (self.digest(&blob)?, bytes.unsigned_abs());
        Ok(Some(DownloadRecord { blob, n_bytes, etag, last_modified }))
    }

    fn put_download(&self, url: &str, record: &DownloadRecord) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO download
            (url, blob, bytes, etag, last_modified, used_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let bytes = i64::try_from(record.n_bytes).unwrap_or(i64::MAX);
        let (etag, modified) = (&record.etag, &record.last_modified);
        let values = params![url, record.blob.to_string(), bytes, etag, modified, self.now_s];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }
}
