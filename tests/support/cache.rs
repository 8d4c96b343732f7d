//! A build cache in a registry, which tests read, change and write.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests panic on failure")]

use std::io::{self, Cursor, Read};

use rbuild::oci::{Descriptor, MediaType, Reference};
use rbuild::registry::Client;
use serde_json::Value;

use super::registry::client;

/// The document of a cache, and the manifest that names its blobs.
pub(crate) struct RegistryCache {
    client: Client,
    name: Reference,
    manifest: Value,
    pub(crate) document: Value,
}

impl RegistryCache {
    pub(crate) fn read(name: &str) -> Self {
        let (client, name): (Client, Reference) = (client(), name.parse().unwrap());
        let fetched = client.manifest(&name).unwrap();
        let manifest: Value = serde_json::from_slice(&fetched.bytes).unwrap();
        let config: Descriptor = serde_json::from_value(manifest["config"].clone()).unwrap();
        let mut bytes = Vec::new();
        client.pull_blob(&name, &config, &mut bytes, &|_| ()).unwrap();
        let document = serde_json::from_slice(&bytes).unwrap();
        Self { client, name, manifest, document }
    }

    /// Returns the entries of a list of the document.
    pub(crate) fn entries(&mut self, list: &str) -> &mut Vec<Value> {
        self.document[list].as_array_mut().unwrap()
    }

    /// Sends a blob, which is not part of the manifest yet.
    pub(crate) fn send(&self, media_type: &str, bytes: &[u8]) -> Value {
        let blob = Descriptor::of(MediaType::from(media_type.to_owned()), bytes);
        let open =
            || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
        self.client.push_blob(&self.name, &blob, None, &open, &|_| ()).unwrap();
        serde_json::to_value(blob).unwrap()
    }

    /// Adds blobs to the manifest.
    pub(crate) fn name_blobs(&mut self, blobs: impl IntoIterator<Item = Value>) {
        self.manifest["layers"].as_array_mut().unwrap().extend(blobs);
    }

    /// Writes the document under another tag.
    pub(crate) fn write(&mut self, tag: &str) {
        let document = serde_json::to_vec(&self.document).unwrap();
        let media_type = self.manifest["config"]["mediaType"].as_str().unwrap().to_owned();
        self.manifest["config"] = self.send(&media_type, &document);
        let manifest = serde_json::to_vec(&self.manifest).unwrap();
        let media_type = MediaType::from(self.manifest["mediaType"].as_str().unwrap().to_owned());
        let name: Reference = format!("{}:{tag}", self.name.name()).parse().unwrap();
        self.client.push_manifest(&name, &media_type, &manifest).unwrap();
    }
}
