//! A build cache in a registry, which tests read, change and write.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests write files and panic on failure"
)]

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;

use rbuild::oci::{Descriptor, Digest, MediaType, Reference};
use rbuild::registry::Client;
use serde_json::{Value, json};

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
        let bytes = pulled(&client, &name, &manifest["config"]);
        let document = serde_json::from_slice(&bytes).unwrap();
        Self { client, name, manifest, document }
    }

    /// Writes the cache as it was last written to the registry into a directory, under the tag `latest`.
    pub(crate) fn write_directory(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let manifest = serde_json::to_vec(&self.manifest).unwrap();
        let listings = self.document["listings"].as_array().unwrap().iter();
        let listings = listings.map(|listing| &listing["blob"]).filter(|blob| blob.is_object());
        let layers = self.manifest["layers"].as_array().unwrap().iter();
        for blob in layers.chain(listings).chain([&self.manifest["config"]]) {
            let hex = blob["digest"].as_str().unwrap().trim_start_matches("sha256:");
            fs::write(blobs.join(hex), pulled(&self.client, &self.name, blob)).unwrap();
        }
        fs::write(blobs.join(Digest::of(&manifest).hex()), &manifest).unwrap();
        let media_type = MediaType::from(self.manifest["mediaType"].as_str().unwrap().to_owned());
        let mut entry = serde_json::to_value(Descriptor::of(media_type, &manifest)).unwrap();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
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

fn pulled(client: &Client, name: &Reference, blob: &Value) -> Vec<u8> {
    let blob: Descriptor = serde_json::from_value(blob.clone()).unwrap();
    let mut bytes = Vec::new();
    client.pull_blob(name, &blob, &mut bytes, &|_| ()).unwrap();
    bytes
}
