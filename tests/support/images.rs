//! Base images with busybox, and written images, read back.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rbuild::oci::Digest;
use serde_json::{Value, json};

use super::env::Env;

const APPLETS: &str = "sh ls cat echo true false id pwd env sleep mkdir rmdir rm mv cp touch ln ps \
                       kill stat find test head tail wc sort readlink mknod mkfifo grep sed dd \
                       chmod chown tr date seq sha256sum xargs usleep";

impl Env {
    /// Builds `base:1`: busybox, a root account, and some files to change.
    pub(crate) fn base(&self) {
        self.base_in("store");
    }

    /// Builds the same image in another store.
    pub(crate) fn base_in(&self, store: &str) {
        self.write_base();
        let args = ["build", "base", "-t", "base:1", "--reproducible"];
        let done = self.command_in(store, &args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Writes the directory `base`, from which the base image is built.
    pub(crate) fn write_base(&self) {
        let base = self.path("base");
        if base.is_dir() {
            return;
        }
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "old/directory"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(base.join("etc/group"), "root:x:0:\n").unwrap();
        for name in ["old/file", "old/directory/a", "old/directory/b"] {
            fs::write(base.join(name), name).unwrap();
        }
        let dockerfile = "FROM scratch\nCOPY . /\nENV PATH=/bin\nCMD [\"/bin/sh\"]\n";
        fs::write(base.join("Dockerfile"), dockerfile).unwrap();
        fs::write(base.join(".dockerignore"), "Dockerfile\n.dockerignore\n").unwrap();
        self.hand_over("base");
    }
}

impl Env {
    /// Writes an OCI layout whose image has these layers, base first. Returns its path.
    pub(crate) fn write_layout(&self, name: &str, layers: &[&[u8]]) -> String {
        let at = self.path(name);
        fs::create_dir_all(at.join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8], media_type: &str| {
            let digest = Digest::of(bytes);
            fs::write(at.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
            let media_type = format!("application/vnd.oci.image.{media_type}");
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
        };
        let layers: Vec<Value> = layers.iter().map(|layer| put(layer, "layer.v1.tar")).collect();
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = put(config.to_string().as_bytes(), "config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let manifest = put(manifest.to_string().as_bytes(), "manifest.v1+json");
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(at.join("index.json"), index.to_string()).unwrap();
        fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        self.hand_over(name);
        at.display().to_string()
    }
}

/// An OCI layout directory.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    /// The layers' tars, base first.
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Layout {
    /// Reads the last image of a layout.
    pub(crate) fn read(directory: &Path) -> Self {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = json(&fs::read(directory.join("index.json")).unwrap());
        let blob = |descriptor: &Value| {
            let hex = descriptor["digest"].as_str().unwrap().replace("sha256:", "");
            fs::read(directory.join("blobs/sha256").join(hex)).unwrap()
        };
        let manifest = json(&blob(index["manifests"].as_array().unwrap().last().unwrap()));
        let config = json(&blob(&manifest["config"]));
        let layers = manifest["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| {
            let packed = blob(layer);
            let mut tar = Vec::new();
            let (_, mut decoded) = rbuild::archive::decoder(
                Box::new(std::io::Cursor::new(packed)),
                &rbuild::archive::ArchiveBounds::default(),
            )
            .unwrap();
            decoded.read_to_end(&mut tar).unwrap();
            tar
        });
        Self { layers: layers.collect(), manifest, config }
    }

    /// Returns the entries of the last layer.
    pub(crate) fn top(&self) -> BTreeMap<String, String> {
        entries(self.layers.last().unwrap())
    }
}

/// Returns the entries of a tar as lines by path: `kind mode uid:gid size`, and what else there is.
pub(crate) fn entries(tar: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().escape_ascii().to_string();
        let header = entry.header();
        let kind = kind(header.entry_type());
        let mode = header.mode().unwrap() & 0o7777;
        let size = header.size().unwrap();
        let mut line = format!(
            "{kind} {mode:o} {}:{}",
            entry_id(&mut entry, "uid"),
            entry_id(&mut entry, "gid")
        );
        if kind == "file" {
            line += &format!(" {size}");
        }
        line += &format!(" @{}", entry.header().mtime().unwrap());
        if let Some(target) = entry.link_name_bytes() {
            line += &format!(" -> {}", target.escape_ascii());
        }
        let header = entry.header();
        if let (Ok(Some(major)), Ok(Some(minor))) = (header.device_major(), header.device_minor())
            && ["char", "block"].contains(&kind)
        {
            line += &format!(" {major}:{minor}");
        }
        for (name, value) in pax(&mut entry) {
            match &*name {
                "path" | "linkpath" => {}
                name => line += &format!(" {name}={}", value.escape_ascii()),
            }
        }
        found.insert(path, line);
    }
    found
}

fn kind(kind: tar::EntryType) -> &'static str {
    let names = [
        (tar::EntryType::Regular, "file"),
        (tar::EntryType::Directory, "dir"),
        (tar::EntryType::Symlink, "symlink"),
        (tar::EntryType::Link, "link"),
        (tar::EntryType::Fifo, "fifo"),
        (tar::EntryType::Char, "char"),
        (tar::EntryType::Block, "block"),
    ];
    names.iter().find(|(known, _)| *known == kind).map_or("other", |(_, name)| name)
}

/// Returns the extended headers of an entry.
fn pax(entry: &mut tar::Entry<'_, &[u8]>) -> Vec<(String, Vec<u8>)> {
    let Some(extensions) = entry.pax_extensions().unwrap() else { return Vec::new() };
    let pairs = extensions.map(|pair| {
        let pair = pair.unwrap();
        (pair.key().unwrap().to_owned(), pair.value_bytes().to_vec())
    });
    pairs.collect()
}

fn entry_id(entry: &mut tar::Entry<'_, &[u8]>, which: &str) -> u64 {
    let long = pax(entry).into_iter().find(|(name, _)| name == which);
    match (long, which) {
        (Some((_, value)), _) => String::from_utf8(value).unwrap().parse().unwrap(),
        (None, "uid") => entry.header().uid().unwrap(),
        (None, _) => entry.header().gid().unwrap(),
    }
}
