//! Downloads: a file's bytes become a blob of the store, and are asked for again only if the server
//! has others, which an ETag tells.

use std::io::Write as _;

use crate::limits::MAX_DOWNLOAD_BYTES;
use crate::oci::Digest;
use crate::plan::redacted;
use crate::registry::{Download, Downloaded, RegistryError, parse_http_date};
use crate::store::{BlobDraft, DownloadRecord, StoreError};

use super::shared::Steps;
use super::{Outcome, fetch};

/// Why a URL gives nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not give it.
    #[error("cannot download {shown}")]
    Fetch {
        /// The URL, without credentials.
        shown: String,
        /// Why.
        source: Box<RegistryError>,
    },
    /// It is not what it has to be.
    #[error("{shown} has the digest {got}, not {want} as {by} says")]
    Checksum {
        /// The URL, without credentials.
        shown: String,
        /// What came.
        got: Digest,
        /// What was to come.
        want: Digest,
        /// Who says so.
        by: ChecksumBy,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DownloadError {
    /// What a server answered that did not give the file, in one line that has the address once.
    pub(super) fn refusal(&self) -> Option<String> {
        let Self::Fetch { shown, source } = self else { return None };
        let RegistryError::Status { host, status, message, .. } = &**source else { return None };
        Some(format!("cannot download {shown}: {host} answered {status}: {message}"))
    }
}

/// Who says what a download has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChecksumBy {
    /// The Dockerfile.
    Flag,
    /// The lock file of this name.
    LockFile(String),
}

impl std::fmt::Display for ChecksumBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flag => "--checksum",
            Self::LockFile(file) => file,
        })
    }
}

type Result<T> = std::result::Result<T, DownloadError>;

/// What lies behind `url`, as its server says now; the bytes are in the store.
pub(super) fn download(shared: &Steps<'_>, url: &str) -> Result<DownloadRecord> {
    let shown = redacted(url);
    let step = shared.start(format!("[internal] download {shown}"));
    let done = ask(shared, url, &shown);
    let outcome = match &done {
        Ok((_, Downloaded::Same)) => Outcome::Cached,
        Ok((_, Downloaded::New(_))) => Outcome::Done,
        Err(_) => Outcome::Failed,
    };
    shared.finish(step, outcome);
    done.map(|(record, _)| record)
}

/// What has the digest `want`: without a word to the server if it is in the store.
pub(super) fn download_exactly(
    shared: &Steps<'_>,
    url: &str,
    want: Digest,
    by: ChecksumBy,
) -> Result<DownloadRecord> {
    let store = shared.services.store;
    let own = store.downloads().by_url(&key(shared, url))?.filter(|record| record.blob == want);
    let known = match own {
        Some(record) => Some(record),
        None => store.downloads().by_blob(want)?,
    };
    if let Some(record) = known {
        return Ok(record);
    }
    let record = download(shared, url)?;
    if record.blob != want {
        let (shown, got) = (redacted(url), record.blob);
        return Err(DownloadError::Checksum { shown, got, want, by });
    }
    Ok(record)
}

fn ask(shared: &Steps<'_>, url: &str, shown: &str) -> Result<(DownloadRecord, Downloaded)> {
    let services = shared.services;
    let store = services.store;
    let key = key(shared, url);
    let known = store.downloads().by_url(&key)?;
    if services.registry.is_offline()
        && let Some(known) = known
    {
        return Ok((known, Downloaded::Same));
    }
    let authorization = fetch::http_authorization(shared, url);
    let file = Download {
        url,
        shown,
        authorization: authorization.as_deref(),
        etag: known.as_ref().and_then(|known| known.etag.as_deref()),
        max_bytes: MAX_DOWNLOAD_BYTES,
    };
    let mut draft = |_length| store.bounded_draft().map_err(std::io::Error::other);
    let answer = file
        .run::<BlobDraft>(services.registry, &mut draft, &|| !services.stop.is_thrown())
        .map_err(|source| DownloadError::Fetch {
            shown: shown.to_owned(),
            source: source.into(),
        })?;
    match (answer, known) {
        ((Downloaded::New(headers), Some(mut draft)), _) => {
            draft
                .flush()
                .map_err(|error| crate::pathio::PathError::new("write", shown, error))
                .map_err(StoreError::from)?;
            let (blob, n_bytes) = store.publish(draft)?;
            let (etag, last_modified) = (headers.etag.clone(), headers.last_modified.clone());
            let record = DownloadRecord { blob, n_bytes, etag, last_modified };
            store.downloads().record(&key, &record)?;
            Ok((record, Downloaded::New(headers)))
        }
        ((_, _), Some(known)) => Ok((known, Downloaded::Same)),
        ((_, _), None) => unreachable!("only who has the file is told that it is the same"),
    }
}

/// What a download is remembered under: what one may see, another may not.
fn key(shared: &Steps<'_>, url: &str) -> String {
    let shown = redacted(url);
    let authorization = fetch::http_authorization(shared, url);
    if shown == url && authorization.is_none() {
        return shown;
    }
    let secret = format!("{url}\n{}", authorization.unwrap_or_default());
    format!("{shown} {}", Digest::of(secret.as_bytes()))
}

/// When the file changed, by the server's own account; 1970 if it says nothing.
pub(super) fn modified_s(record: &DownloadRecord) -> i64 {
    record.last_modified.as_deref().and_then(parse_http_date).unwrap_or(0)
}
