//! A store with an image whose base was pulled.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild::archive::{self, Packing};
use rbuild::image::Image;
use rbuild::oci::{
    Descriptor, Digest, History, ImageConfig, LayerCompression, Manifest, MediaType, Platform,
    RootFs, pretty,
};
use rbuild::store::{LayerOptions, OpenOptions, Representation, Store, StoredLayer};
use rbuild::tree::{
    self, ContentHash, Device, Entry, File, FileOrigin, LayerItem, LayerListing, Meta, Node,
    TreePath, Xattrs,
};

/// A capability set as `setcap cap_net_raw=ep` writes it.
pub(crate) const CAPABILITY: [u8; 20] =
    [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A store in a temporary directory.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn entry(at: &str, meta: Meta, node: Node) -> Entry {
    Entry { path: path(at), item: LayerItem::Node(meta, node) }
}

/// Returns a directory owned by root.
pub(crate) fn dir(at: &str) -> Entry {
    entry(at, Meta::root(0o755, 1_600_000_000), Node::Directory { opaque: false })
}

/// Returns a file with this content.
pub(crate) fn file(at: &str, text: &str) -> Entry {
    file_with(at, text, Meta::root(0o644, 1_600_000_001))
}

/// Returns a file with this content and metadata.
pub(crate) fn file_with(at: &str, text: &str, meta: Meta) -> Entry {
    let bytes: Arc<[u8]> = text.as_bytes().into();
    let size = u64::try_from(bytes.len()).unwrap();
    let content = ContentHash::of(&bytes);
    entry(at, meta, Node::File(File { size, content, origin: FileOrigin::Inline(bytes) }))
}

/// Returns a symbolic link.
pub(crate) fn symlink(at: &str, target: &str) -> Entry {
    entry(at, Meta::root(0o777, 1_600_000_002), Node::Symlink(target.as_bytes().into()))
}

/// Returns a hard link to an earlier file.
pub(crate) fn link(at: &str, target: &str) -> Entry {
    Entry { path: path(at), item: LayerItem::HardLink(path(target)) }
}

/// Returns a whiteout.
pub(crate) fn gone(at: &str) -> Entry {
    Entry { path: path(at), item: LayerItem::Whiteout }
}

/// Returns the device `/dev/null`.
pub(crate) fn null_device(at: &str) -> Entry {
    let device = Device { major: 1, minor: 3 };
    entry(at, Meta::root(0o666, 1_600_000_003), Node::CharDevice(device))
}

/// Returns a named pipe, fifo(7).
pub(crate) fn fifo(at: &str) -> Entry {
    entry(at, Meta::root(0o600, 1_600_000_004), Node::Fifo)
}

/// Returns metadata that a layer's tar stores in PAX records.
pub(crate) fn capable(uid: u32, gid: u32, mode: u32) -> Meta {
    let xattrs: Xattrs = [(tree::CAPABILITY_XATTR.into(), CAPABILITY.into())].into();
    Meta { mode, uid, gid, mtime_s: 1_600_000_005, xattrs: Some(Box::new(xattrs)) }
}

pub(crate) fn jobs(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

impl Fixture {
    /// Creates an empty store.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions { user_namespace: false, now_s: 1_700_000_000 };
        let store = Store::open(&directory.path().join("store"), &options).unwrap();
        Self { store, directory }
    }

    /// Returns a path next to the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a layer of `entries`.
    pub(crate) fn layer(&self, entries: Vec<Entry>, form: Representation) -> StoredLayer {
        let open = |file: &File, _path: &TreePath| -> io::Result<Box<dyn Read>> {
            match &file.origin {
                FileOrigin::Inline(bytes) => Ok(Box::new(Cursor::new(bytes.to_vec()))),
                other @ (FileOrigin::Layer(_) | FileOrigin::Directory(_)) => {
                    Err(io::Error::other(format!("{other:?}")))
                }
            }
        };
        let options = LayerOptions { clamp_s: None, created_s: 1_700_000_000 };
        let made =
            self.store.layer_from_entries(&LayerListing::new(entries), &open, form, &options);
        made.unwrap().0
    }

    /// Creates a layer that the store has only as a blob, as if it had been pulled from a registry.
    pub(crate) fn pulled(
        &self,
        entries: Vec<Entry>,
        packing: Packing,
    ) -> (StoredLayer, Descriptor) {
        let elsewhere = Self::new();
        let made = elsewhere.layer(entries, Representation::Tar);
        let mut tar = Vec::new();
        elsewhere.store.write_tar(made.diff_id, &mut tar).unwrap();
        let mut packer = archive::packer(Vec::new(), packing, jobs(1)).unwrap();
        packer.write_all(&tar).unwrap();
        let blob = packer.finish().unwrap();
        let compression = match packing {
            Packing::None => LayerCompression::None,
            Packing::Gzip { .. } => LayerCompression::Gzip,
            Packing::Zstd { .. } => LayerCompression::Zstd,
        };
        let layer = Descriptor::of(MediaType::OciLayer(compression), &blob);
        self.store.put_blob(&blob).unwrap();
        self.store.record_pulled(made.diff_id, &layer, compression).unwrap();
        (made, layer)
    }

    /// Creates the config and the manifest for `layers`, as a build does.
    pub(crate) fn image(&self, layers: &[(&StoredLayer, Option<Descriptor>)]) -> Digest {
        self.image_for("linux/amd64", layers)
    }

    /// Creates the same for another platform.
    pub(crate) fn image_for(
        &self,
        platform: &str,
        layers: &[(&StoredLayer, Option<Descriptor>)],
    ) -> Digest {
        let mut config = ImageConfig::scratch(&platform.parse::<Platform>().unwrap());
        config.created = Some("2023-11-14T22:13:20Z".to_owned());
        config.config.set_env("PATH", "/bin");
        let entry = |n| History {
            created: config.created.clone(),
            created_by: Some(format!("step {n}")),
            ..History::default()
        };
        config.history = (0..layers.len()).map(entry).collect();
        config.history.push(History { empty_layer: true, ..entry(layers.len()) });
        let diff_ids = layers.iter().map(|(layer, _)| layer.diff_id).collect();
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        let bytes = config.to_json();
        self.store.put_blob(&bytes).unwrap();
        let described = |(layer, pulled): &(&StoredLayer, Option<Descriptor>)| {
            let tar_type = MediaType::OciLayer(LayerCompression::None);
            let plain = Descriptor::new(tar_type, layer.diff_id.digest(), layer.record.tar_bytes);
            pulled.clone().unwrap_or(plain)
        };
        let manifest = pretty(&Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            config: Descriptor::of(MediaType::OciConfig, &bytes),
            layers: layers.iter().map(described).collect(),
            annotations: BTreeMap::new(),
        });
        self.store.put_blob(&manifest).unwrap()
    }

    /// Returns the image that most tests use: a gzip base, a layer that is a plain tar, one that is
    /// a directory, and an empty one twice.
    pub(crate) fn usual_image(&self) -> Image {
        let (base, blob) = self.pulled(
            vec![
                dir("etc"),
                file("etc/base", "from the base\n"),
                file("etc/gone", "not for long\n"),
                dir("old"),
                file("old/x", "x"),
                symlink("lib", "usr/lib"),
            ],
            Packing::Gzip { level: 9 },
        );
        let tar = self.layer(
            vec![
                gone("etc/gone"),
                gone("old"),
                dir("app"),
                file_with("app/tool", &"some text\n".repeat(30_000), capable(0, 0, 0o755)),
                file_with(
                    "app/mine",
                    "mine",
                    Meta { uid: 1000, gid: 100, ..capable(0, 0, 0o4750) },
                ),
                link("app/same", "app/mine"),
            ],
            Representation::Tar,
        );
        let directory = self.layer(
            vec![
                dir("dev"),
                fifo("dev/pipe"),
                null_device("dev/null"),
                dir("etc"),
                file("etc/base", "changed\n"),
                file(&format!("{}/deep", "n".repeat(120)), "long name"),
                dir(&"n".repeat(120)),
            ],
            Representation::Directory,
        );
        let empty = self.layer(Vec::new(), Representation::Tar);
        let layers =
            [(&base, Some(blob)), (&tar, None), (&directory, None), (&empty, None), (&empty, None)];
        let manifest = self.image(&layers);
        Image::load(&self.store, manifest).unwrap()
    }
}
