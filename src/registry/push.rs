//! Pushes: only what the registry does not have, mounted from another repository if possible.

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Body, Method, Request};
use super::resolve::stated_digest;
use super::source::{Blob, Open, Source as _};
use super::upload::Upload;
use super::url::Url;
use super::{Client, RegistryError};
use crate::oci::{Descriptor, Digest, MediaType, Reference};

/// Blobs up to this size go up in one request. It saves one round trip of two, and a broken
/// connection costs less than a second of any line on which that matters.
const WHOLE_BYTES: u64 = 4 << 20;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    AlreadyThere,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Sees to it that `name`'s repository has the blob: finds it there, or has it mounted from
    /// the repository `mount_from` of the same registry, or uploads what `open` gives.
    ///
    /// After a failure the upload goes on where the registry stands, or starts anew, with `open`
    /// called again; `progress` is told each byte's number once.
    ///
    /// # Errors
    /// `Local` when `open` or its reader fails, `WrongSize` when it gives more or fewer bytes than
    /// `blob` says; else the registry's.
    pub fn push_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        open: Open<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed, RegistryError> {
        let endpoint = Endpoint::of(name, &self.options);
        let scope = Scope::push(name.repository());
        if self.has_blob(&endpoint, &scope, name, blob.digest)? {
            return Ok(Pushed::AlreadyThere);
        }
        let mut started = None;
        if let Some(from) = mount_from.filter(|from| *from != name.repository()) {
            match self.mount(name, &endpoint, blob.digest, from) {
                Mount::Done => return Ok(Pushed::Mounted),
                Mount::Instead(location) => started = location,
            }
        }
        self.upload_blob(name, blob, started, Blob::new(open, blob.size, progress))?;
        Ok(Pushed::Uploaded)
    }

    /// Uploads a blob, into the upload that was `started` if there is one.
    fn upload_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        started: Option<Url>,
        mut source: Blob<'_>,
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", blob.digest, name.name());
        let mut upload = Upload::start(self, name, what, started)?;
        let mut tries = self.schedule.tries();
        let (mut whole, mut may_renew) = (blob.size <= WHOLE_BYTES, true);
        loop {
            let asked = upload.asks();
            let sent = if whole {
                upload.put(&mut source, blob.size, blob.digest)
            } else {
                let filled = upload.send_source(&mut source, &mut tries);
                filled.and_then(|()| upload.close(blob.digest, &mut tries))
            };
            let Err(error) = sent else { return Ok(()) };
            if may_renew && error.is_unauthorized() {
                // The token ended between two requests of the upload; there is a new one now.
                may_renew = false;
            } else if asked && !upload.asks() {
                // The same again, without asking.
            } else if whole && error.is_too_long() {
                whole = false;
                upload.chunks.shrink();
            } else {
                // An upload that is gone may have come to its end.
                let gone = error.is_not_found();
                if gone {
                    tries.wait(error)?;
                } else {
                    tries.failed(error)?;
                }
                if upload.is_there(blob.digest)? {
                    return Ok(());
                }
            }
            source.go_back(0);
            upload.open()?;
        }
    }

    /// Pushes a manifest or index: under `name`'s tag, or under its digest if it has no tag.
    ///
    /// # Errors
    /// `WrongDigest` when `name` has another digest than `bytes`, or the registry stored other
    /// bytes; else the registry's.
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
        self.schedule.run(|| {
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
                // What the registry answers; another answer may be a proxy's own.
                None if status == 201 => Ok(()),
                None if self.has_manifest(&endpoint, name, digest)? => Ok(()),
                None => Err(RegistryError::NotStored { host, what: what.clone(), status }),
            }
        })?;
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
        match self.schedule.run(|| self.ask_manifest(endpoint, asked, Method::Head)) {
            Ok(mut response) => {
                let stated = stated_digest(&response);
                response.discard();
                Ok(stated.is_none_or(|stated| stated == digest))
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the manifest or index `digest` of `name`'s repository the tag that `name` has.
    ///
    /// # Errors
    /// The registry's.
    pub fn push_tag(&self, name: &Reference, digest: Digest) -> Result<(), RegistryError> {
        let there = name.with_digest(digest);
        // A mirror may not have it yet.
        let endpoint = Endpoint::of(name, &self.options);
        let fetched = self.fetch_manifest(&endpoint, &self.schedule, &there)?;
        self.push_manifest(name, &fetched.media_type, &fetched.bytes).map(drop)
    }

    /// Asks for the blob of another repository (distribution-spec, "Mounting a blob").
    ///
    /// No error is one: whatever keeps a mount from working, an upload shows whether it matters.
    fn mount(&self, name: &Reference, endpoint: &Endpoint, digest: Digest, from: &str) -> Mount {
        let what = format!("blob {digest} of {}", name.name());
        let url = endpoint.url(name.repository(), "blobs/uploads/");
        let url = url.with_query("mount", &digest.to_string()).with_query("from", from);
        let scope = Scope::push(name.repository()).and_pull(from);
        let result = self.schedule.run(|| {
            let request = Request::new(Method::Post, url.clone());
            let response = self.call(endpoint, &scope, &what, request)?;
            let transient = response.status() == 429 || response.status() >= 500;
            if transient { Err(response.into_error(&what)) } else { Ok(response) }
        });
        match result {
            Ok(mut response) => {
                response.discard();
                match response.status() {
                    201 => Mount::Done,
                    // The registry has opened an upload instead.
                    202 => Mount::Instead(response.location().ok()),
                    _ => Mount::Instead(None),
                }
            }
            Err(_) => Mount::Instead(None),
        }
    }
}

/// What came of asking for a mount.
enum Mount {
    Done,
    /// Upload, to this place if the registry named one.
    Instead(Option<Url>),
}
