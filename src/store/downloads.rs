//! Records of downloads: the blob that a URL returned, and the server's validators for that version
//! (RFC 9110, section 8.8).

use rusqlite::{OptionalExtension as _, Row, params};

use crate::oci::Digest;

use super::index::Index;
use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// A file that ADD downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadRecord {
    /// Digest of the file's bytes.
    pub blob: Digest,
    /// Length of the file, bytes.
    pub n_bytes: u64,
    /// Value of the `ETag` header (RFC 9110, section 8.8.3).
    pub etag: Option<String>,
    /// Value of the `Last-Modified` header, unparsed.
    pub last_modified: Option<String>,
}

/// The downloads of a store.
#[derive(Debug, Clone, Copy)]
pub struct Downloads<'a> {
    pub(super) store: &'a Store,
}

impl Downloads<'_> {
    /// Returns the file that was last downloaded from `url`, if its blob still exists.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn by_url(self, url: &str) -> Result<Option<DownloadRecord>> {
        let record = self.store.with_index(|index| index.download(url))?;
        Ok(record.filter(|record| self.store.has_blob(record.blob)))
    }

    /// Returns the latest download that gave `blob`, if the blob still exists.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn by_blob(self, blob: Digest) -> Result<Option<DownloadRecord>> {
        let record = self.store.with_index(|index| index.download_by_blob(blob))?;
        Ok(record.filter(|record| self.store.has_blob(record.blob)))
    }

    /// Records a download from `url`, which replaces an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn record(self, url: &str, record: &DownloadRecord) -> Result<()> {
        self.store.with_index(|index| index.put_download(url, record))
    }
}

impl Index {
    fn download(&self, url: &str) -> Result<Option<DownloadRecord>> {
        self.one_download("url = ?1", url)
    }

    fn download_by_blob(&self, blob: Digest) -> Result<Option<DownloadRecord>> {
        self.one_download("blob = ?1 ORDER BY used_s DESC LIMIT 1", &blob.to_string())
    }

    fn one_download(&self, condition: &str, value: &str) -> Result<Option<DownloadRecord>> {
        let sql =
            format!("SELECT blob, bytes, etag, last_modified FROM download WHERE {condition}");
        type DownloadRow = (String, i64, Option<String>, Option<String>);
        let row: Option<DownloadRow> =
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

    /// Returns URL, blob and time of last use of every download.
    pub(super) fn all_downloads(&self) -> Result<Vec<(String, Digest, i64)>> {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
        let rows = self.rows("SELECT url, blob, used_s FROM download", read)?;
        rows.into_iter().map(|(url, blob, used_s)| Ok((url, self.digest(&blob)?, used_s))).collect()
    }
}
