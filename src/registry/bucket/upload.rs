//! Uploads blobs to buckets: small ones in one request, large ones in parts. Each part is retried
//! on its own.

use std::io::{Read as _, Seek as _, SeekFrom};

use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CompleteMultipartUploadResponse,
    CreateMultipartUpload, PutObject, UploadPart,
};

use super::{Bucket, BucketDirectory, Result};
use crate::limits::MAX_BUCKET_ANSWER_BYTES;
use crate::oci::Descriptor;
use crate::registry::blob_directory::OpenFile;
use crate::registry::http::{Body, Method, Request, protocol};
use crate::registry::url::Url;
use crate::registry::{Client, RegistryError};

/// Size of a part, and the largest blob that is sent in one request. Only the failed part is sent
/// again. S3 accepts at most 5 GB in one request
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const PART_BYTES: u64 = 64 << 20;
/// Maximum number of parts of a multipart upload
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const MAX_PARTS: u64 = 10_000;

/// A blob to be uploaded, and its key.
struct BlobUpload<'a> {
    client: &'a Client,
    bucket: &'a Bucket,
    key: String,
    n_bytes: u64,
    open: OpenFile<'a>,
}

impl BucketDirectory {
    /// Uploads a blob. `open` opens its file, again for each attempt.
    ///
    /// # Errors
    /// [`RegistryError::Local`] if the file cannot be read; otherwise the server's error.
    pub(super) fn upload_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        open: OpenFile<'_>,
    ) -> Result<()> {
        let bucket = &self.bucket;
        let (key, n_bytes) = (self.key(blob.digest), blob.size);
        let upload = BlobUpload { client, bucket, key, n_bytes, open };
        if n_bytes <= PART_BYTES {
            let action = PutObject::new(&bucket.bucket, Some(&bucket.credentials), &upload.key);
            return upload.put_range(0, n_bytes, &|| bucket.sign(&action)).map(drop);
        }
        let id = upload.begin_parts()?;
        let done = upload.put_parts(&id).and_then(|etags| upload.end_parts(&id, &etags));
        if done.is_err() {
            upload.abort_parts(&id);
        }
        done
    }
}

impl BlobUpload<'_> {
    /// Sends a range of the file and returns the ETag of the stored part.
    fn put_range(
        &self,
        from: u64,
        n_bytes: u64,
        address: &dyn Fn() -> Result<Url>,
    ) -> Result<String> {
        let local = |source| {
            let what = self.bucket.shown_object(&self.key);
            RegistryError::Local { verb: "read", what, source }
        };
        self.client.retry_policy.run(|| {
            let mut file = (self.open)().map_err(local)?;
            file.seek(SeekFrom::Start(from)).map_err(local)?;
            let mut reader = file.take(n_bytes);
            let mut request = Request::new(Method::Put, address()?);
            request.body = Body::Stream { reader: &mut reader, n_bytes: Some(n_bytes) };
            let mut response = self.bucket.send_checked(self.client, &self.key, &mut request)?;
            response.discard();
            Ok(response.header("etag").unwrap_or_default().to_owned())
        })
    }

    fn begin_parts(&self) -> Result<String> {
        let Bucket { bucket, credentials } = self.bucket;
        let what = self.bucket.shown_object(&self.key);
        self.client.retry_policy.run(|| {
            let action = CreateMultipartUpload::new(bucket, Some(credentials), &self.key);
            let mut request = Request::new(Method::Post, self.bucket.sign(&action)?);
            let mut response = self.bucket.send_checked(self.client, &self.key, &mut request)?;
            let text = response.read_all(&what, MAX_BUCKET_ANSWER_BYTES)?;
            let answer = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&text));
            let answer = answer.map_err(|_bad| {
                protocol(response.url(), "its response has no upload ID".to_owned())
            })?;
            Ok(answer.upload_id().to_owned())
        })
    }

    fn put_parts(&self, id: &str) -> Result<Vec<String>> {
        let Bucket { bucket, credentials } = self.bucket;
        let part_bytes = part_bytes(self.n_bytes);
        let starts = (0..).map(|n: u64| n * part_bytes).take_while(|from| *from < self.n_bytes);
        let parts = (1_u16..).zip(starts).map(|(number, from)| {
            let action = UploadPart::new(bucket, Some(credentials), &self.key, number, id);
            let n_bytes = part_bytes.min(self.n_bytes - from);
            self.put_range(from, n_bytes, &|| self.bucket.sign(&action))
        });
        parts.collect()
    }

    fn end_parts(&self, id: &str, etags: &[String]) -> Result<()> {
        let Bucket { bucket, credentials } = self.bucket;
        let what = self.bucket.shown_object(&self.key);
        let ended = self.client.retry_policy.run(|| {
            let etags = etags.iter().map(String::as_str);
            let action =
                CompleteMultipartUpload::new(bucket, Some(credentials), &self.key, id, etags);
            let mut request = Request::new(Method::Post, self.bucket.sign(&action)?);
            let body = action.body();
            request.body = Body::Bytes(body.as_bytes());
            let mut response = self.bucket.send_checked(self.client, &self.key, &mut request)?;
            let text = response.read_all(&what, MAX_BUCKET_ANSWER_BYTES)?;
            self.bucket.check_answer(&response, &self.key, &text)?;
            CompleteMultipartUploadResponse::parse(&String::from_utf8_lossy(&text))
                .map(drop)
                .map_err(|_bad| {
                    protocol(
                        response.url(),
                        "its response to a completed upload is invalid".to_owned(),
                    )
                })
        });
        // An attempt whose response was lost may have completed the upload. The next one gets
        // `NoSuchUpload`.
        ended.or_else(|error| match self.bucket.find_object(self.client, &self.key) {
            Ok(Some(object)) if object.n_bytes == self.n_bytes => Ok(()),
            _ => Err(error),
        })
    }

    /// Asks the server to delete the parts, which cost money. If that fails, a lifecycle rule must
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html>).
    fn abort_parts(&self, id: &str) {
        let Bucket { bucket, credentials } = self.bucket;
        let action = AbortMultipartUpload::new(bucket, Some(credentials), &self.key, id);
        let _gone = self.bucket.sign(&action).and_then(|url| {
            self.bucket.send_checked(self.client, &self.key, &mut Request::new(Method::Delete, url))
        });
    }
}

/// Returns the size of a part, so that there are at most [`MAX_PARTS`].
const fn part_bytes(n_bytes: u64) -> u64 {
    let least = n_bytes.div_ceil(MAX_PARTS);
    if least > PART_BYTES { least } else { PART_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_parts_is_limited() {
        for (n_bytes, want) in
            [(1, PART_BYTES), (MAX_PARTS * PART_BYTES, PART_BYTES), (1 << 40, 109_951_163)]
        {
            assert_eq!(part_bytes(n_bytes), want);
            assert!(n_bytes.div_ceil(part_bytes(n_bytes)) <= MAX_PARTS);
        }
    }
}
