//! Resolves names: manifests and indexes by tag or digest (distribution-spec, "Pulling manifests").

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Method, Request, Response};
use super::retry::RetryPolicy;
use super::{Client, RegistryError};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::oci::{Digest, MediaType, Reference};

/// A manifest or index as the registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The type in the response header, or else in the document.
    pub media_type: MediaType,
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Fetches the manifest or index `name` from a mirror or the registry. If `name` has a digest,
    /// the bytes have it too.
    ///
    /// # Errors
    /// The last server's error: [`RegistryError::NotFound`], [`RegistryError::Unauthorized`],
    /// [`RegistryError::Unreachable`], [`RegistryError::WrongDigest`], [`RegistryError::TooLarge`]
    /// and others.
    pub fn manifest(&self, name: &Reference) -> Result<FetchedManifest, RegistryError> {
        self.try_each_endpoint(name, |endpoint, retry_policy| {
            self.fetch_manifest(endpoint, retry_policy, name)
        })
    }

    /// Resolves `name` to its current digest, without fetching the document if possible.
    ///
    /// # Errors
    /// The same as [`Self::manifest`].
    pub fn digest(&self, name: &Reference) -> Result<Digest, RegistryError> {
        self.try_each_endpoint(name, |endpoint, retry_policy| {
            self.digest_from(endpoint, retry_policy, name)
        })
    }

    fn digest_from(
        &self,
        endpoint: &Endpoint,
        retry_policy: &RetryPolicy,
        name: &Reference,
    ) -> Result<Digest, RegistryError> {
        match retry_policy.run(|| self.ask_manifest(endpoint, name, Method::Head)) {
            Ok(mut response) => {
                let stated = stated_digest(&response);
                response.discard();
                match (stated, name.digest()) {
                    (Some(got), Some(want)) if want != got => Err(wrong_digest(name, want, got)),
                    (Some(got), _) => Ok(got),
                    (None, _) => self.fetched_digest(endpoint, retry_policy, name),
                }
            }
            Err(RegistryError::Status { status: 400..=499, .. }) => {
                self.fetched_digest(endpoint, retry_policy, name)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the digest that the registry itself, not a mirror, has under the tag of `name`. `None` if there
    /// is none.
    ///
    /// # Errors
    /// The registry's error, except [`RegistryError::NotFound`].
    pub fn tag_digest(&self, name: &Reference) -> Result<Option<Digest>, RegistryError> {
        let endpoint = Endpoint::of(name, &self.options);
        match self.digest_from(&endpoint, &self.retry_policy, name) {
            Ok(digest) => Ok(Some(digest)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches the index that the registry itself, not a mirror, has under `name`. `None` if the
    /// name refers to a single image. The type is requested first, because Docker Hub counts GET
    /// requests of manifests against the pull limit but no HEAD requests
    /// (<https://docs.docker.com/docker-hub/usage/pulls/>).
    ///
    /// # Errors
    /// The same as [`Self::manifest`], from the registry.
    pub fn index(
        &self,
        name: &Reference,
        retries: bool,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        let endpoint = Endpoint::of(name, &self.options);
        let once = RetryPolicy { retries: 0, reconnects: false, ..self.retry_policy.clone() };
        let retry_policy = if retries { &self.retry_policy } else { &once };
        let head = retry_policy.run(|| self.ask_manifest(&endpoint, name, Method::Head));
        let kind = match head {
            Ok(mut response) => {
                let kind = media_type_of(response.header("content-type"), &[]);
                response.discard();
                kind
            }
            // Some registries do not support HEAD for manifests.
            Err(RegistryError::Status { status: 400..=499, .. }) => MediaType::OciIndex,
            Err(error) => return Err(error),
        };
        if matches!(kind, MediaType::OciManifest | MediaType::DockerManifest) {
            return Ok(None);
        }
        let fetched = self.fetch_manifest(&endpoint, retry_policy, name)?;
        let is_index = matches!(fetched.media_type, MediaType::OciIndex | MediaType::DockerIndex);
        Ok(is_index.then_some(fetched))
    }

    fn fetched_digest(
        &self,
        endpoint: &Endpoint,
        retry_policy: &RetryPolicy,
        name: &Reference,
    ) -> Result<Digest, RegistryError> {
        Ok(self.fetch_manifest(endpoint, retry_policy, name)?.digest)
    }

    pub(super) fn fetch_manifest(
        &self,
        endpoint: &Endpoint,
        retry_policy: &RetryPolicy,
        name: &Reference,
    ) -> Result<FetchedManifest, RegistryError> {
        retry_policy.run(|| {
            let response = self.ask_manifest(endpoint, name, Method::Get)?;
            read_manifest(name, response)
        })
    }

    pub(super) fn ask_manifest(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        method: Method,
    ) -> Result<Response, RegistryError> {
        let url = endpoint.url(name.repository(), &format!("manifests/{}", name.selector()));
        let scope = Scope::pull(&endpoint.repository(name.repository()));
        let accepted = [
            MediaType::OciIndex,
            MediaType::OciManifest,
            MediaType::DockerIndex,
            MediaType::DockerManifest,
        ];
        let accepted = accepted.each_ref().map(MediaType::as_str).join(", ");
        let request = Request::new(method, url).header("accept", accepted);
        let what = name.to_string();
        let response = self.call(endpoint, &scope, &what, request)?;
        if *endpoint == Endpoint::of(name, &self.options) {
            match (response.status(), stated_digest(&response)) {
                (200, Some(digest)) => self.seen_tags.note(name, Some(digest)),
                (404, _) => self.seen_tags.note(name, None),
                _ => {}
            }
        }
        if response.status() == 200 { Ok(response) } else { Err(response.into_error(&what)) }
    }
}

fn read_manifest(
    name: &Reference,
    mut response: Response,
) -> Result<FetchedManifest, RegistryError> {
    let bytes = response.read_all(&name.to_string(), MAX_MANIFEST_BYTES)?;
    let digest = Digest::of(&bytes);
    let media_type = media_type_of(response.header("content-type"), &bytes);
    // The digest of a signed manifest of schema 1 does not cover all its bytes
    // (<https://distribution.github.io/distribution/spec/deprecated-schema-v1/>).
    let is_other = matches!(media_type, MediaType::Other(_));
    let stated = stated_digest(&response).filter(|_| !is_other);
    match name.digest().or(stated).filter(|want| *want != digest) {
        Some(want) => Err(wrong_digest(name, want, digest)),
        None => Ok(FetchedManifest { digest, media_type, bytes }),
    }
}

fn wrong_digest(name: &Reference, want: Digest, got: Digest) -> RegistryError {
    RegistryError::WrongDigest { what: name.to_string(), want, got }
}

/// Returns the digest in `Docker-Content-Digest` (distribution-spec, "Pulling manifests"). Other
/// algorithms than sha256 are ignored.
pub(super) fn stated_digest(response: &Response) -> Option<Digest> {
    response.header("docker-content-digest")?.parse().ok()
}

/// Returns the header's media type if it is a known one, else the document's own.
fn media_type_of(header: Option<&str>, bytes: &[u8]) -> MediaType {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        media_type: Option<String>,
    }
    let stated = header.and_then(|value| value.split(';').next()).map(str::trim);
    let stated = MediaType::from(stated.unwrap_or_default().to_owned());
    if !matches!(stated, MediaType::Other(_)) {
        return stated;
    }
    let document: Option<Document> = serde_json::from_slice(bytes).ok();
    document.and_then(|document| document.media_type).map_or(stated, MediaType::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_of_header_wins_unless_unknown() {
        let own = br#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        for (header, bytes, want) in [
            (Some("application/vnd.oci.image.manifest.v1+json"), &own[..], MediaType::OciManifest),
            (
                Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"),
                b"{}",
                MediaType::DockerManifest,
            ),
            (Some("application/json"), own, MediaType::OciIndex),
            (None, own, MediaType::OciIndex),
            (Some("text/plain"), b"no json", MediaType::Other("text/plain".into())),
        ] {
            assert_eq!(media_type_of(header, bytes), want);
        }
    }
}
