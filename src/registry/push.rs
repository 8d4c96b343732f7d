//! Pushes: uploads only content that the registry lacks, and mounts blobs from other repositories
//! if possible.

use super::auth::Scope;
use super::blob_locations::SendingLock;
use super::endpoint::Endpoint;
use super::http::{Body, Method, Request};
use super::resolve::stated_digest;
use super::upload::Upload;
use super::upload_source::{OpenBlob, ReopenableBlob, UploadSource as _};
use super::url::Url;
use super::{Client, RegistryError};
use crate::oci::{Descriptor, DiffId, Digest, MediaType, Reference};

/// Maximum size of a blob that is sent in one request, bytes. It saves one of two round trips, and
/// repeating it after a broken connection takes less than a second on any line where that matters.
const WHOLE_BYTES: u64 = 4 << 20;

/// The way in which a pushed blob got into the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The repository had it before.
    AlreadyThere,
    /// The registry mounted it from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Client {
    /// Ensures that `name`'s repository has the blob: finds it there, mounts it from another repository
    /// of the same registry, or uploads the bytes of `open`. A repository that this client knows to
    /// have it is better than `mount_from`, which may have it.
    ///
    /// After a failure the upload resumes at the registry's offset, or starts again and calls
    /// `open` again. `progress` counts each byte once.
    ///
    /// # Errors
    /// [`RegistryError::Local`] if `open` or its reader fails; [`RegistryError::WrongSize`] if it
    /// yields more or fewer bytes than `blob` says; otherwise the registry's error.
    pub fn push_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        open: OpenBlob<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PushOutcome, RegistryError> {
        if self.blob_locations.has(name, blob.digest) {
            return Ok(PushOutcome::AlreadyThere);
        }
        let outcome = self.ensure_blob(name, blob, mount_from, open, progress)?;
        self.blob_locations.note(name, blob.digest);
        Ok(outcome)
    }

    fn ensure_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        open: OpenBlob<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PushOutcome, RegistryError> {
        let endpoint = Endpoint::of(name, &self.options);
        let scope = Scope::push(name.repository());
        let is_absent = self.blob_locations.take_absent(name, blob.digest);
        // Another repository certainly has it: the answer to a mount is the same whether this one has it.
        let known = self.blob_locations.elsewhere(name, blob.digest);
        let mut started = None;
        if let Some(from) = &known {
            match self.mount(name, &endpoint, blob.digest, from) {
                MountResult::Done => return Ok(PushOutcome::Mounted),
                MountResult::Upload(location) => started = location,
            }
        }
        if !is_absent && self.has_blob(&endpoint, &scope, name, blob.digest)? {
            return Ok(PushOutcome::AlreadyThere);
        }
        if let Some(from) = mount_from.filter(|from| known.is_none() && *from != name.repository())
        {
            match self.mount(name, &endpoint, blob.digest, from) {
                MountResult::Done => return Ok(PushOutcome::Mounted),
                MountResult::Upload(location) => started = location,
            }
        }
        self.upload_blob(name, blob, started, ReopenableBlob::new(open, blob.size, progress))?;
        Ok(PushOutcome::Uploaded)
    }

    /// Notes that the repository of `name` will be read, and written if `is_written`. One token then grants
    /// all the access that a build needs in a registry.
    pub fn expect_access(&self, name: &Reference, is_written: bool) {
        let repository = name.repository();
        let scope = if is_written { Scope::push(repository) } else { Scope::pull(repository) };
        self.auth.expect(&Endpoint::of(name, &self.options), &scope);
    }

    /// Asks `name`'s repository for a blob that will be pushed there, unless the answer is known: the push
    /// then need not ask. A failed request is ignored, since the push repeats it.
    pub fn find_before_push(&self, name: &Reference, digest: Digest) {
        if self.blob_locations.has(name, digest) {
            return;
        }
        let scope = Scope::push(name.repository());
        match self.has_blob(&Endpoint::of(name, &self.options), &scope, name, digest) {
            Ok(true) => self.blob_locations.note(name, digest),
            Ok(false) => self.blob_locations.note_absent(name, digest),
            Err(_repeated) => {}
        }
    }

    /// Notes that a blob is new, so that the push need not ask for it.
    pub fn expect_absent(&self, name: &Reference, digest: Digest) {
        self.blob_locations.note_absent(name, digest);
    }

    /// Takes the lock for sending a layer to the registry of `name`. The second thread that needs the layer
    /// there waits for the first, and finds its blob to mount.
    pub fn lock_sending(&self, name: &Reference, layer: DiffId) -> SendingLock {
        self.blob_locations.lock(name, layer)
    }

    /// Takes the lock of [`Self::lock_sending`], unless another thread has it.
    pub fn try_lock_sending(&self, name: &Reference, layer: DiffId) -> Option<SendingLock> {
        self.blob_locations.try_lock(name, layer)
    }

    /// Returns whether this client knows a repository of the registry of `name` that has the blob.
    pub fn knows_location_of(&self, name: &Reference, digest: Digest) -> bool {
        self.blob_locations.has(name, digest)
            || self.blob_locations.elsewhere(name, digest).is_some()
    }

    /// Uploads a blob, into the upload `started` if the registry has opened one.
    fn upload_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        started: Option<Url>,
        mut source: ReopenableBlob<'_>,
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", blob.digest, name.name());
        let mut upload = Upload::start(self, name, what, started)?;
        let mut attempts = self.retry_policy.attempts();
        let (mut whole, mut may_renew) = (blob.size <= WHOLE_BYTES, true);
        loop {
            let expected_continue = upload.expects_continue();
            let sent = if whole {
                upload.put(&mut source, blob.size, blob.digest)
            } else {
                let filled = upload.send_source(&mut source, &mut attempts);
                filled.and_then(|()| upload.close(blob.digest, &mut attempts))
            };
            let Err(error) = sent else { return Ok(()) };
            if may_renew && error.is_unauthorized() {
                // The token expired between two requests of the upload. A new one was fetched.
                may_renew = false;
            } else if expected_continue && !upload.expects_continue() {
                // Repeat without `Expect: 100-continue`.
            } else if whole && error.is_too_large() {
                whole = false;
                upload.chunks.shrink();
            } else {
                // An upload that no longer exists may have completed.
                let gone = error.is_not_found();
                if gone {
                    attempts.wait(error)?;
                } else {
                    attempts.failed(error)?;
                }
                if upload.is_stored(blob.digest)? {
                    return Ok(());
                }
            }
            source.go_back(0);
            upload.open()?;
        }
    }

    /// Pushes a manifest or index under `name`'s tag, or under its digest if it has no tag
    /// (distribution-spec, "Pushing Manifests").
    ///
    /// # Errors
    /// [`RegistryError::WrongDigest`] if `name` has another digest than `bytes`, or the registry
    /// stored other bytes; [`RegistryError::NotStored`]; otherwise the registry's error.
    pub fn push_manifest(
        &self,
        name: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let what = name.to_string();
        let digest = Digest::of(bytes);
        let check = |want: Digest, got: Digest| {
            let what = what.clone();
            if want == got { Ok(()) } else { Err(RegistryError::WrongDigest { what, want, got }) }
        };
        if let Some(want) = name.digest() {
            check(want, digest)?;
        }
        let endpoint = Endpoint::of(name, &self.options);
        let scope = Scope::push(name.repository());
        let selector = name.tag().map_or_else(|| digest.to_string(), str::to_owned);
        self.retry_policy.run(|| {
            let url = endpoint.url(name.repository(), &format!("manifests/{selector}"));
            let mut request =
                Request::new(Method::Put, url).header("content-type", media_type.as_str());
            request.body = Body::Bytes(bytes);
            let mut response = self.call(&endpoint, &scope, &what, request)?;
            if !matches!(response.status(), 200..=202) {
                return Err(response.into_error(&what));
            }
            let (stated, status, host) =
                (stated_digest(&response), response.status(), response.host());
            response.discard();
            match stated {
                Some(got) => check(digest, got),
                // The status of a registry. Any other may come from a proxy.
                None if status == 201 => Ok(()),
                None if self.has_manifest(&endpoint, name, digest)? => Ok(()),
                None => Err(RegistryError::NotStored { host, what: what.clone(), status }),
            }
        })?;
        self.seen_tags.note(name, Some(digest));
        Ok(digest)
    }

    /// Returns whether the registry has the manifest or index, under `name`'s tag if it has one.
    fn has_manifest(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let by_digest = name.with_digest(digest);
        let asked = if name.tag().is_some() && name.digest().is_none() { name } else { &by_digest };
        match self.retry_policy.run(|| self.ask_manifest(endpoint, asked, Method::Head)) {
            Ok(mut response) => {
                let stated = stated_digest(&response);
                response.discard();
                Ok(stated.is_none_or(|stated| stated == digest))
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds the tag of `name` to the manifest or index `digest` in `name`'s repository.
    ///
    /// # Errors
    /// The registry's error.
    pub fn push_tag(&self, name: &Reference, digest: Digest) -> Result<(), RegistryError> {
        let there = name.with_digest(digest);
        // Not from a mirror, which may not have it yet.
        let endpoint = Endpoint::of(name, &self.options);
        let fetched = self.fetch_manifest(&endpoint, &self.retry_policy, &there)?;
        self.push_manifest(name, &fetched.media_type, &fetched.bytes).map(drop)
    }

    /// Requests a mount of the blob from another repository (distribution-spec, "Mounting a blob
    /// from another repository").
    ///
    /// Errors are ignored: the upload that follows shows whether they matter.
    fn mount(
        &self,
        name: &Reference,
        endpoint: &Endpoint,
        digest: Digest,
        from: &str,
    ) -> MountResult {
        let what = format!("blob {digest} of {}", name.name());
        let url = endpoint.url(name.repository(), "blobs/uploads/");
        let url = url.with_query("mount", &digest.to_string()).with_query("from", from);
        let scope = Scope::push(name.repository()).and_pull(from);
        let result = self.retry_policy.run(|| {
            let request = Request::new(Method::Post, url.clone());
            let response = self.call(endpoint, &scope, &what, request)?;
            let transient = response.status() == 429 || response.status() >= 500;
            if transient { Err(response.into_error(&what)) } else { Ok(response) }
        });
        match result {
            Ok(mut response) => {
                response.discard();
                match response.status() {
                    201 => MountResult::Done,
                    // The registry opened an upload instead.
                    202 => MountResult::Upload(response.location().ok()),
                    _ => MountResult::Upload(None),
                }
            }
            Err(_) => MountResult::Upload(None),
        }
    }
}

/// The result of a mount request.
enum MountResult {
    Done,
    /// Not mounted: upload the blob, to this location if the registry opened an upload.
    Upload(Option<Url>),
}
