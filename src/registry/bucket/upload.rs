//! Blobs into buckets: small ones in one request, large ones in parts, each with tries of its own.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CompleteMultipartUploadResponse,
    CreateMultipartUpload, PutObject, UploadPart,
};

use super::{Bucket, BucketDirectory, Result};
use crate::limits::MAX_BUCKET_ANSWER_BYTES;
use crate::oci::Descriptor;
use crate::registry::http::{Body, Method, Request, protocol};
use crate::registry::url::Url;
use crate::registry::{Client, RegistryError};

/// More than this goes up in parts: what breaks is sent again, and one request takes 5 GB at most.
const PART_BYTES: u64 = 64 << 20;
/// An upload has no more parts than this.
const MAX_PARTS: u64 = 10_000;

/// Opens the file that a blob is in.
type Open<'a> = &'a (dyn Fn() -> io::Result<File> + Sync);

/// A blob on its way into a bucket.
struct Upload<'a> {
    bucket: &'a Bucket,
    key: String,
    n_bytes: u64,
    open: Open<'a>,
}

impl Client {
    /// Writes a blob, whose file `open` opens as often as it must be sent anew.
    ///
    /// # Errors
    /// `Local` when the file cannot be read; else the server's.
    pub fn push_object(
        &self,
        directory: &BucketDirectory,
        blob: &Descriptor,
        open: Open<'_>,
    ) -> Result<()> {
        let bucket = &directory.bucket;
        let upload = Upload { bucket, key: directory.key(blob.digest), n_bytes: blob.size, open };
        if blob.size <= PART_BYTES {
            let action = PutObject::new(&bucket.bucket, Some(&bucket.credentials), &upload.key);
            return self.put_range(&upload, 0, blob.size, &|| bucket.sign(&action)).map(drop);
        }
        let id = self.begin_parts(&upload)?;
        let done =
            self.put_parts(&upload, &id).and_then(|etags| self.end_parts(&upload, &id, &etags));
        if done.is_err() {
            self.abort_parts(&upload, &id);
        }
        done
    }

    /// Sends part of the file; gives the ETag that it has there.
    fn put_range(
        &self,
        upload: &Upload<'_>,
        from: u64,
        n_bytes: u64,
        address: &dyn Fn() -> Result<Url>,
    ) -> Result<String> {
        let local = |source| {
            let what = upload.bucket.what(&upload.key);
            RegistryError::Local { verb: "read", what, source }
        };
        self.schedule.run(|| {
            let mut file = (upload.open)().map_err(local)?;
            file.seek(SeekFrom::Start(from)).map_err(local)?;
            let mut reader = file.take(n_bytes);
            let mut request = Request::new(Method::Put, address()?);
            request.body = Body::Stream { reader: &mut reader, n_bytes: Some(n_bytes) };
            let mut response = self.done(upload.bucket, &upload.key, &mut request)?;
            response.discard();
            Ok(response.header("etag").unwrap_or_default().to_owned())
        })
    }

    fn begin_parts(&self, upload: &Upload<'_>) -> Result<String> {
        let Bucket { bucket, credentials } = upload.bucket;
        let what = upload.bucket.what(&upload.key);
        self.schedule.run(|| {
            let action = CreateMultipartUpload::new(bucket, Some(credentials), &upload.key);
            let mut request = Request::new(Method::Post, upload.bucket.sign(&action)?);
            let mut response = self.done(upload.bucket, &upload.key, &mut request)?;
            let text = response.read_all(&what, MAX_BUCKET_ANSWER_BYTES)?;
            let answer = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&text));
            let answer = answer.map_err(|_bad| {
                protocol(response.url(), "it begins an upload without naming it".to_owned())
            })?;
            Ok(answer.upload_id().to_owned())
        })
    }

    fn put_parts(&self, upload: &Upload<'_>, id: &str) -> Result<Vec<String>> {
        let Bucket { bucket, credentials } = upload.bucket;
        let part_bytes = part_bytes(upload.n_bytes);
        let starts = (0..).map(|n: u64| n * part_bytes).take_while(|from| *from < upload.n_bytes);
        let parts = (1_u16..).zip(starts).map(|(number, from)| {
            let action = UploadPart::new(bucket, Some(credentials), &upload.key, number, id);
            let n_bytes = part_bytes.min(upload.n_bytes - from);
            self.put_range(upload, from, n_bytes, &|| upload.bucket.sign(&action))
        });
        parts.collect()
    }

    fn end_parts(&self, upload: &Upload<'_>, id: &str, etags: &[String]) -> Result<()> {
        let Bucket { bucket, credentials } = upload.bucket;
        let what = upload.bucket.what(&upload.key);
        let ended = self.schedule.run(|| {
            let etags = etags.iter().map(String::as_str);
            let action =
                CompleteMultipartUpload::new(bucket, Some(credentials), &upload.key, id, etags);
            let mut request = Request::new(Method::Post, upload.bucket.sign(&action)?);
            let body = action.body();
            request.body = Body::Bytes(body.as_bytes());
            let mut response = self.done(upload.bucket, &upload.key, &mut request)?;
            let text = response.read_all(&what, MAX_BUCKET_ANSWER_BYTES)?;
            upload.bucket.check_answer(&response, &upload.key, &text)?;
            CompleteMultipartUploadResponse::parse(&String::from_utf8_lossy(&text))
                .map(drop)
                .map_err(|_bad| {
                    protocol(response.url(), "it ends an upload with no result".to_owned())
                })
        });
        // A try whose answer was lost may have ended it: then the next one finds no upload.
        ended.or_else(|error| match self.find_object(upload.bucket, &upload.key) {
            Ok(Some(object)) if object.n_bytes == upload.n_bytes => Ok(()),
            _ => Err(error),
        })
    }

    /// Lets the server forget the parts, which are paid for. If it does not, its rules must.
    fn abort_parts(&self, upload: &Upload<'_>, id: &str) {
        let Bucket { bucket, credentials } = upload.bucket;
        let action = AbortMultipartUpload::new(bucket, Some(credentials), &upload.key, id);
        let _gone = upload.bucket.sign(&action).and_then(|url| {
            self.done(upload.bucket, &upload.key, &mut Request::new(Method::Delete, url))
        });
    }
}

/// How long a part is, so that there are not too many.
const fn part_bytes(n_bytes: u64) -> u64 {
    let least = n_bytes.div_ceil(MAX_PARTS);
    if least > PART_BYTES { least } else { PART_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_parts() {
        for (n_bytes, want) in
            [(1, PART_BYTES), (MAX_PARTS * PART_BYTES, PART_BYTES), (1 << 40, 109_951_163)]
        {
            assert_eq!(part_bytes(n_bytes), want);
            assert!(n_bytes.div_ceil(part_bytes(n_bytes)) <= MAX_PARTS);
        }
    }
}
