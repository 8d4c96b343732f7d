//! Uploads: only what the registry does not have, mounted from another repository if possible.

use std::cell::RefCell;
use std::io::{self, Read};

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Body, Method, Request};
use super::resolve::stated_digest;
use super::url::Url;
use super::{Client, RegistryError};
use crate::oci::{Descriptor, Digest, MediaType, Reference};

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

/// A blob on its way to a registry.
struct Upload<'a> {
    what: String,
    name: &'a Reference,
    endpoint: Endpoint,
    scope: Scope,
    blob: &'a Descriptor,
    open: &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    progress: &'a (dyn Fn(u64) + Sync),
    /// The most that any try sent: a later try reports only what goes beyond.
    reported: u64,
}

impl Client {
    /// Sees to it that `name`'s repository has the blob: finds it there, or has it mounted from
    /// the repository `mount_from` of the same registry, or uploads what `open` gives.
    ///
    /// After a failure the upload starts anew, with `open` called again; `progress` is told each
    /// byte's number once.
    ///
    /// # Errors
    /// `Local` when `open` or its reader fails, `WrongSize` when it gives more or fewer bytes than
    /// `blob` says; else the registry's.
    pub fn push_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed, RegistryError> {
        let what = format!("blob {} of {}", blob.digest, name.name());
        let endpoint = Endpoint::of(name, &self.options);
        let scope = Scope::push(name.repository());
        let mut upload = Upload { what, name, endpoint, scope, blob, open, progress, reported: 0 };
        if self.has_blob(&upload.endpoint, &upload.scope, name, blob.digest)? {
            return Ok(Pushed::AlreadyThere);
        }
        let mut started = None;
        if let Some(from) = mount_from.filter(|from| *from != name.repository()) {
            match self.mount(&upload, from) {
                Mount::Done => return Ok(Pushed::Mounted),
                Mount::Instead(location) => started = location,
            }
        }
        let mut may_renew = true;
        self.schedule.run(|| {
            match self.upload(&mut upload, started.take()) {
                // The token ended between two requests of the upload; there is a new one now.
                Err(RegistryError::Unauthorized { .. }) if may_renew => {
                    may_renew = false;
                    self.upload(&mut upload, None)
                }
                result => result,
            }
        })?;
        Ok(Pushed::Uploaded)
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
            response.discard();
            stated_digest(&response).map_or(Ok(()), |got| check(digest, got))
        })?;
        Ok(digest)
    }

    /// Asks for the blob of another repository (distribution-spec, "Mounting a blob").
    ///
    /// No error is one: whatever keeps a mount from working, an upload shows whether it matters.
    fn mount(&self, upload: &Upload<'_>, from: &str) -> Mount {
        let url = upload.endpoint.url(upload.name.repository(), "blobs/uploads/");
        let url = url.with_query("mount", &upload.blob.digest.to_string()).with_query("from", from);
        let scope = upload.scope.clone().and_pull(from);
        let result = self.schedule.run(|| {
            let request = Request::new(Method::Post, url.clone());
            let response = self.call(&upload.endpoint, &scope, &upload.what, request)?;
            let transient = response.status() == 429 || response.status() >= 500;
            if transient { Err(response.into_error(&upload.what)) } else { Ok(response) }
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

    /// One try, in an upload that was `started` or in a new one.
    fn upload(&self, upload: &mut Upload<'_>, started: Option<Url>) -> Result<(), RegistryError> {
        let location = match started {
            Some(location) => location,
            None => self.start(upload)?,
        };
        let url = location.with_query("digest", &upload.blob.digest.to_string());
        let local = |what: &str, source| RegistryError::Local {
            verb: "read",
            what: what.to_owned(),
            source,
        };
        let reader = (upload.open)().map_err(|source| local(&upload.what, source))?;
        let failure = RefCell::new(None);
        let mut source = Source {
            reader,
            n_bytes: 0,
            size: upload.blob.size,
            reported: &mut upload.reported,
            progress: upload.progress,
            failure: &failure,
        };
        let mut request =
            Request::new(Method::Put, url).header("content-type", "application/octet-stream");
        request.body = Body::Stream { reader: &mut source, n_bytes: upload.blob.size };
        let result = self.call(&upload.endpoint, &upload.scope, &upload.what, request);
        match failure.take() {
            Some(Failure::Io(source)) => return Err(local(&upload.what, source)),
            Some(Failure::Size(got)) => {
                let (what, want) = (upload.what.clone(), upload.blob.size);
                return Err(RegistryError::WrongSize { what, want, got });
            }
            None => {}
        }
        let mut response = result?;
        if !matches!(response.status(), 200..=204) {
            return Err(response.into_error(&upload.what));
        }
        response.discard();
        Ok(())
    }

    fn start(&self, upload: &Upload<'_>) -> Result<Url, RegistryError> {
        let url = upload.endpoint.url(upload.name.repository(), "blobs/uploads/");
        let request = Request::new(Method::Post, url);
        let mut response = self.call(&upload.endpoint, &upload.scope, &upload.what, request)?;
        if response.status() != 202 {
            return Err(response.into_error(&upload.what));
        }
        response.discard();
        response.location()
    }
}

/// What came of asking for a mount.
enum Mount {
    Done,
    /// Upload, to this place if the registry named one.
    Instead(Option<Url>),
}

/// Why the source of an upload gave no good bytes.
enum Failure {
    Io(io::Error),
    Size(u64),
}

/// Gives exactly as many bytes as announced. Its own failures are kept apart, since the HTTP
/// library hands back all errors in one type.
struct Source<'a> {
    reader: Box<dyn Read + Send>,
    n_bytes: u64,
    size: u64,
    reported: &'a mut u64,
    progress: &'a (dyn Fn(u64) + Sync),
    failure: &'a RefCell<Option<Failure>>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stop = |failure| {
            self.failure.replace(Some(failure));
            Err(io::Error::other("the source of the upload failed"))
        };
        let n_read = loop {
            match self.reader.read(buffer) {
                Ok(n_read) => break n_read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return stop(Failure::Io(error)),
            }
        };
        let more = u64::try_from(n_read).expect("a buffer is shorter than 2^64");
        self.n_bytes = self.n_bytes.saturating_add(more);
        if self.n_bytes > self.size || (more == 0 && !buffer.is_empty() && self.n_bytes < self.size)
        {
            return stop(Failure::Size(self.n_bytes));
        }
        if self.n_bytes > *self.reported {
            (self.progress)(self.n_bytes - *self.reported);
            *self.reported = self.n_bytes;
        }
        Ok(n_read)
    }
}
