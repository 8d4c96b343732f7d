//! Downloads: a file becomes a blob of the store, and is downloaded again only if the server's ETag
//! has changed (RFC 9110, section 8.8.3).

use std::io::Write as _;

use crate::limits::MAX_DOWNLOAD_BYTES;
use crate::oci::Digest;
use crate::plan::redacted;
use crate::registry::{Download, Downloaded, parse_http_date};
use crate::store::{BlobDraft, DownloadRecord, StoreError};

use super::authorization::http_authorization;

use crate::executor::{ChecksumBy, DownloadError, Outcome, Services};

type Result<T> = std::result::Result<T, DownloadError>;

/// Downloads the current content of `url` into the store.
pub(in crate::executor) fn download(services: &Services<'_>, url: &str) -> Result<DownloadRecord> {
    let shown = redacted(url);
    let step = services.start(format!("[internal] download {shown}"));
    let done = ask(services, url, &shown);
    let outcome = match &done {
        Ok((_, Downloaded::Same)) => Outcome::Cached,
        Ok((_, Downloaded::New(_))) => Outcome::Done,
        Err(_) => Outcome::Failed,
    };
    services.finish(step, outcome);
    done.map(|(record, _)| record)
}

/// Returns the content with the digest `want`. Sends no request if the store has it.
pub(in crate::executor) fn download_exactly(
    services: &Services<'_>,
    url: &str,
    want: Digest,
    by: ChecksumBy,
) -> Result<DownloadRecord> {
    let store = services.store;
    let own = store.downloads().by_url(&key(services, url))?.filter(|record| record.blob == want);
    let known = match own {
        Some(record) => Some(record),
        None => store.downloads().by_blob(want)?,
    };
    if let Some(record) = known {
        return Ok(record);
    }
    let record = download(services, url)?;
    if record.blob != want {
        let (shown, got) = (redacted(url), record.blob);
        return Err(DownloadError::Checksum { shown, got, want, by });
    }
    Ok(record)
}

fn ask(services: &Services<'_>, url: &str, shown: &str) -> Result<(DownloadRecord, Downloaded)> {
    let store = services.store;
    let key = key(services, url);
    let known = store.downloads().by_url(&key)?;
    if services.registry.is_offline()
        && let Some(known) = known
    {
        return Ok((known, Downloaded::Same));
    }
    let authorization = http_authorization(services, url);
    let file = Download {
        url,
        shown,
        authorization: authorization.as_deref(),
        etag: known.as_ref().and_then(|known| known.etag.as_deref()),
        max_bytes: MAX_DOWNLOAD_BYTES,
    };
    let mut draft = |_length| store.bounded_draft().map_err(std::io::Error::other);
    let answer = file
        .run::<BlobDraft>(services.registry, &mut draft, &|| !services.cancel.is_set())
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
        ((_, _), None) => unreachable!("a server sends 304 only to a request with an ETag"),
    }
}

/// Returns the key of a download in the store. It covers the credentials: another user may not see
/// the same file.
fn key(services: &Services<'_>, url: &str) -> String {
    let shown = redacted(url);
    let authorization = http_authorization(services, url);
    if shown == url && authorization.is_none() {
        return shown;
    }
    let secret = format!("{url}\n{}", authorization.unwrap_or_default());
    format!("{shown} {}", Digest::of(secret.as_bytes()))
}

/// Returns the server's Last-Modified time of the file; 0 if it sent none.
pub(in crate::executor) fn modified_s(record: &DownloadRecord) -> i64 {
    record.last_modified.as_deref().and_then(parse_http_date).unwrap_or(0)
}
