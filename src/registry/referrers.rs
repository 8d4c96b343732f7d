//! Referrers: manifests that name another one as their subject, such as signatures and attestations
//! (distribution-spec, "Listing Referrers").

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Method, Request};
use super::{Client, RegistryError};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::oci::{Digest, IndexDocument, IndexEntry, MediaType, Reference};

impl Client {
    /// Returns the manifests in the repository of `name` that refer to `subject`. A registry without the
    /// API has them in an index with a tag made from the digest (distribution-spec, "Referrers Tag
    /// Schema").
    ///
    /// # Errors
    /// The registry's error, except that there are none.
    pub fn referrers(
        &self,
        name: &Reference,
        subject: Digest,
    ) -> Result<Vec<IndexEntry>, RegistryError> {
        let endpoint = Endpoint::of(name, &self.options);
        let what = format!("the referrers of {subject} in {}", name.name());
        let scope = Scope::pull(name.repository());
        let bytes = self.retry_policy.run(|| {
            let url = endpoint.url(name.repository(), &format!("referrers/{subject}"));
            let request =
                Request::new(Method::Get, url).header("accept", MediaType::OciIndex.as_str());
            let mut response = self.call(&endpoint, &scope, &what, request)?;
            match response.status() {
                200 => response.read_all(&what, MAX_MANIFEST_BYTES).map(Some),
                // Registries without the API have various answers to an unknown path.
                400 | 404 | 405 | 501 => {
                    response.discard();
                    Ok(None)
                }
                _ => Err(response.into_error(&what)),
            }
        })?;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => {
                let tag = format!("{}:{}", name.name(), subject.to_string().replace(':', "-"));
                let Ok(tag) = tag.parse() else { return Ok(Vec::new()) };
                match self.fetch_manifest(&endpoint, &self.retry_policy, &tag) {
                    Ok(fetched) => fetched.bytes,
                    Err(error) if error.is_not_found() => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
            }
        };
        // Anything else under that tag is not a list of referrers.
        let index: Option<IndexDocument> = serde_json::from_slice(&bytes).ok();
        Ok(index.map(|index| index.manifests).unwrap_or_default())
    }
}
