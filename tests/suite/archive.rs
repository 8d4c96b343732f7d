//! Directories and layers: unpacking, and changes in an upper directory. Owners and devices need
//! root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "this whole crate is tests"
)]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rbuild::archive::{ArchiveBounds, TarReader, TarWriter, write_listing};
use rbuild::oci::{DiffId, Digest};
use rbuild::store::layer_diff::{diff_upper, write_layer};
use rbuild::store::unpack::{UnpackOptions, UnpackedArchive, Whiteouts, unpack};
use rbuild::tree::{
    ContentHash, Device, Entry, File, FileOrigin, LayerItem, LayerListing, Meta, Node, TreePath,
    Xattrs,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

const OPTIONS: UnpackOptions = UnpackOptions {
    ownership: true,
    devices: true,
    whiteouts: Whiteouts::Overlay { user_xattr: false },
    bounds: ArchiveBounds { max_bytes: 1 << 30, max_entries: 10_000, max_expansion: None },
};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn open(at: &Path) -> OwnedFd {
    rustix::fs::open(at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn inline(bytes: &[u8]) -> Node {
    let origin = FileOrigin::Inline(Arc::from(bytes));
    let size = u64::try_from(bytes.len()).unwrap();
    Node::File(File { size, content: ContentHash::of(bytes), origin })
}

fn node(at: &str, meta: Meta, node: Node) -> Entry {
    Entry { path: path(at), item: LayerItem::Node(meta, node) }
}

fn directory(at: &str, mode: u32) -> Entry {
    node(at, Meta::root(mode, 7), Node::Directory { opaque: false })
}

fn link(at: &str, target: &str) -> Entry {
    node(at, Meta::root(0o777, 7), Node::Symlink(target.as_bytes().into()))
}

fn open_inline(file: &File, _: &TreePath) -> io::Result<Box<dyn Read>> {
    match &file.origin {
        FileOrigin::Inline(bytes) => Ok(Box::new(io::Cursor::new(Arc::clone(bytes)))),
        other => panic!("{other:?}"),
    }
}

fn tar_of(entries: Vec<Entry>) -> Vec<u8> {
    write_listing(&LayerListing::new(entries), &open_inline, Vec::new()).unwrap()
}

/// Returns a tar with the entries in the given order, valid or not, under raw names.
fn raw_tar(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        if *kind == b'0' {
            header.set_size(u64::try_from(content.len()).unwrap());
        } else {
            header.set_size(0);
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        let body = if *kind == b'0' { content.as_bytes() } else { b"" };
        out.append(&header, body).unwrap();
    }
    out.into_inner().unwrap()
}

fn unpack_to(at: &Path, tar: &[u8], options: &UnpackOptions) -> Result<UnpackedArchive, String> {
    let layer = DiffId::new(Digest::of(tar));
    let origin = |path: &TreePath, tar_at: u64| FileOrigin::layer(layer, path.clone(), tar_at);
    unpack(&mut &*tar, open(at).as_fd(), options, &origin).map_err(|error| error.to_string())
}

/// Returns the listing of changed files, and the tar written from them.
fn written(changed: Vec<Entry>, upper: BorrowedFd<'_>) -> (LayerListing, Vec<u8>) {
    let (mut entries, mut tar) = (Vec::new(), Vec::new());
    let mut note = |entry: &Entry, _tar_at| {
        entries.push(entry.clone());
        Ok(())
    };
    write_layer(&changed, upper, &mut tar, &mut note).unwrap();
    (LayerListing::new(entries), tar)
}

/// Returns the contents of the directory on disk, one line per file.
fn dump(at: &Path) -> Vec<String> {
    let mut lines = BTreeMap::new();
    for entry in walkdir::WalkDir::new(at).min_depth(1) {
        let entry = entry.unwrap();
        let file =
            rustix::fs::statat(rustix::fs::CWD, entry.path(), AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let what = match FileType::from_raw_mode(file.st_mode) {
            FileType::Directory => "dir".to_owned(),
            FileType::Symlink => format!("-> {}", entry.path().read_link().unwrap().display()),
            FileType::CharacterDevice => format!("char {}", file.st_rdev),
            FileType::Fifo => "fifo".to_owned(),
            _ => {
                let bytes = rbuild::pathio::read(entry.path(), 1 << 20).unwrap();
                format!("{:?}", String::from_utf8_lossy(&bytes))
            }
        };
        let name = entry.path().strip_prefix(at).unwrap().display().to_string();
        let line = format!(
            "{name} {:o} {}:{} {} {what}",
            file.st_mode & 0o7777,
            file.st_uid,
            file.st_gid,
            file.st_mtime,
        );
        lines.insert(name, line);
    }
    lines.into_values().collect()
}

/// Returns the listing without origins: these are locations of bytes, which differ by design.
fn without_origins(listing: &LayerListing) -> LayerListing {
    let mut listing = listing.clone();
    for entry in listing.entries_mut() {
        if let LayerItem::Node(_, Node::File(file)) = &mut entry.item {
            file.origin = FileOrigin::Inline(Arc::from(&b""[..]));
        }
    }
    listing
}

fn sample() -> Vec<Entry> {
    let capability = Xattrs::from([(
        b"security.capability"[..].into(),
        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..].into(),
    )]);
    let capable = Meta { xattrs: Some(Box::new(capability)), ..Meta::root(0o4755, 11) };
    let owned = |mode| Meta { uid: 1000, gid: 2000, ..Meta::root(mode, 12) };
    vec![
        node("a", owned(0o2750), Node::Directory { opaque: true }),
        node("a/ping", capable, inline(b"elf")),
        node("a/set", owned(0o6755), inline(b"#!")),
        Entry { path: path("a/zing"), item: LayerItem::HardLink(path("a/ping")) },
        directory("b", 0o500),
        node("b/big", Meta::root(0o600, 13), inline(&[b'x'; 5000])),
        link("b/l", "../nowhere"),
        node("b/null", owned(0o666), Node::CharDevice(Device { major: 1, minor: 3 })),
        node("b/p", owned(0o640), Node::Fifo),
        Entry { path: path("gone"), item: LayerItem::Whiteout },
    ]
}

#[test]
fn priv_a_layer_is_unpacked_with_all_that_it_says() {
    let into = tempfile::tempdir().unwrap();
    let tar = tar_of(sample());
    let unpacked = unpack_to(into.path(), &tar, &OPTIONS).unwrap();
    let want = LayerListing::new(sample());
    assert_eq!(without_origins(&unpacked.listing), without_origins(&want));
    assert_eq!(unpacked.implied, []);
    let lines = [
        "a 2750 1000:2000 12 dir",
        "a/ping 4755 0:0 11 \"elf\"",
        "a/set 6755 1000:2000 12 \"#!\"",
        "a/zing 4755 0:0 11 \"elf\"",
        "b 500 0:0 7 dir",
        &format!("b/big 600 0:0 13 {:?}", "x".repeat(5000)),
        "b/l 777 0:0 7 -> ../nowhere",
        "b/null 666 1000:2000 12 char 259",
        "b/p 640 1000:2000 12 fifo",
    ];
    let found = dump(into.path());
    assert_eq!(found[..9], lines);
    assert!(found[9].starts_with("gone 0 0:0 ") && found[9].ends_with(" char 0"), "{}", found[9]);
    let mut value = [0; 32];
    let a = open(&into.path().join("a"));
    let n_bytes = rustix::fs::fgetxattr(&a, "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(value[..n_bytes], *b"y");
    let ping = open(&into.path().join("a/ping"));
    assert_eq!(rustix::fs::fgetxattr(&ping, "security.capability", &mut value), Ok(20));
    // The offsets point to the contents in the tar.
    for entry in unpacked.listing.entries() {
        let Some(File { size, content, origin }) = entry.item.file() else { continue };
        let [from, size] = [origin.tar_at().unwrap(), *size].map(|n| usize::try_from(n).unwrap());
        assert_eq!(ContentHash::of(&tar[from..from + size]), *content);
    }
}

#[test]
fn priv_names_and_links_stay_inside_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    let into = tempfile::tempdir().unwrap();
    let away = outside.path().display().to_string();
    let tar = raw_tar(&[
        ("../../up", b'0', "1"),
        ("/abs/file", b'0', "2"),
        ("out", b'2', &away),
        ("out/x", b'0', "3"),
        ("rel", b'2', "../../.."),
        ("rel/y", b'0', "4"),
        ("abs/../../z", b'0', "5"),
        ("hard", b'1', "rel/abs/file"),
    ]);
    let unpacked = unpack_to(into.path(), &tar, &OPTIONS).unwrap();
    assert_eq!(dump(outside.path()), Vec::<String>::new());
    let inside = away.trim_start_matches('/').to_owned();
    let want = [
        "abs".to_owned(),
        "abs/file".to_owned(),
        "hard".to_owned(),
        "out".to_owned(),
        "rel".to_owned(),
        "tmp".to_owned(),
        inside.clone(),
        format!("{inside}/x"),
        "up".to_owned(),
        "y".to_owned(),
        "z".to_owned(),
    ];
    let mut names: Vec<String> =
        dump(into.path()).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    names.sort();
    let mut want: Vec<String> = want.to_vec();
    // The temporary directory may lie deeper than /tmp.
    let first = inside.split('/').next().unwrap().to_owned();
    want.retain(|name| name != "tmp");
    let mut at = String::new();
    for name in inside.split('/').take(inside.split('/').count() - 1) {
        at = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        want.push(at.clone());
    }
    want.sort();
    assert_eq!(names, want);
    assert!(unpacked.implied.contains(&path("abs")) && unpacked.implied.contains(&path(&first)));
}

#[test]
fn archives_that_make_no_sense_are_refused_by_name() {
    let check = |entries: &[(&str, u8, &str)], want: &str| {
        let into = tempfile::tempdir().unwrap();
        let error = unpack_to(into.path(), &raw_tar(entries), &OPTIONS).unwrap_err();
        assert_eq!(error, want);
    };
    check(
        &[("a", b'1', "missing")],
        "the archive's hard link /a points to /missing, which is not a file of the archive",
    );
    check(
        &[("d", b'5', ""), ("a", b'1', "d")],
        "the archive's hard link /a points to /d, which is not a file of the archive",
    );
    check(
        &[("l", b'2', "l"), ("l/x", b'0', "")],
        "the archive's symbolic links on the path to /l/x form a loop",
    );
    check(
        &[("f", b'0', ""), ("f/x", b'0', "")],
        "the archive has /f/x, but the earlier entry /f is not a directory",
    );
    check(
        &[("a/.wh...", b'0', "")],
        "the archive has an entry named `a/.wh...`, which is not a valid file name",
    );
    check(
        &[("wh", b'3', "")],
        "the archive has a character device 0/0 at /wh, which overlayfs treats as the mark of a removed file",
    );
}

#[test]
fn entries_without_a_name_and_content_are_passed_over() {
    let into = tempfile::tempdir().unwrap();
    let entries = [("", b'0', ""), ("./", b'5', ""), ("f", b'0', "x"), ("/", b'0', "")];
    let unpacked = unpack_to(into.path(), &raw_tar(&entries), &OPTIONS).unwrap();
    let names: Vec<String> =
        unpacked.listing.entries().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/f"]);
    let into = tempfile::tempdir().unwrap();
    let error = unpack_to(into.path(), &raw_tar(&[("", b'0', "x")]), &OPTIONS).unwrap_err();
    assert_eq!(error, "the archive has an entry named ``, which is not a valid file name");
}

#[test]
fn bounds_of_the_caller_hold() {
    let into = tempfile::tempdir().unwrap();
    let tar = raw_tar(&[("a", b'0', "123"), ("b", b'0', "456")]);
    let few = ArchiveBounds { max_entries: 1, ..OPTIONS.bounds };
    let few = UnpackOptions { bounds: few, ..OPTIONS };
    let error = unpack_to(into.path(), &tar, &few).unwrap_err();
    assert!(error.starts_with("the archive has more than 1 entries; "), "{error}");
    let into = tempfile::tempdir().unwrap();
    let small = ArchiveBounds { max_bytes: 5, ..OPTIONS.bounds };
    let small = UnpackOptions { bounds: small, ..OPTIONS };
    let error = unpack_to(into.path(), &tar, &small).unwrap_err();
    assert!(error.starts_with("the archive unpacks to more than 5 bytes; "), "{error}");
}

#[test]
fn priv_of_two_entries_for_one_path_the_later_counts() {
    let into = tempfile::tempdir().unwrap();
    let tar = raw_tar(&[
        ("a", b'0', "first"),
        ("b", b'1', "a"),
        ("c", b'1', "b"),
        ("a", b'0', "second"),
        ("d/e/f", b'0', "deep"),
        ("d", b'2', "b"),
        ("g", b'0', "file"),
        ("g", b'5', ""),
        (".wh.h", b'0', ""),
        ("h", b'5', ""),
        ("i", b'0', "new"),
        (".wh.i", b'0', ""),
    ]);
    let unpacked = unpack_to(into.path(), &tar, &OPTIONS).unwrap();
    let meta = || Meta::root(0o644, 7);
    let want = LayerListing::new(vec![
        node("a", meta(), inline(b"second")),
        node("b", meta(), inline(b"first")),
        Entry { path: path("c"), item: LayerItem::HardLink(path("b")) },
        node("d", meta(), Node::Symlink(b"b"[..].into())),
        node("g", meta(), Node::Directory { opaque: false }),
        node("h", meta(), Node::Directory { opaque: true }),
        node("i", meta(), inline(b"new")),
    ]);
    assert_eq!(without_origins(&unpacked.listing), without_origins(&want));
    let want = [
        "a 644 0:0 7 \"second\"",
        "b 644 0:0 7 \"first\"",
        "c 644 0:0 7 \"first\"",
        "d 777 0:0 7 -> b",
        "g 644 0:0 7 dir",
        "h 644 0:0 7 dir",
        "i 644 0:0 7 \"new\"",
    ];
    assert_eq!(dump(into.path()), want);
}

/// Generates trees that a program could create: no entries below a file, and hard links to existing
/// files only.
fn tree() -> impl Strategy<Value = LayerListing> {
    let name = || prop::sample::select(vec!["a", "b", "c.d", "é", ".wh"]);
    let at = prop::collection::vec(name(), 1..5).prop_map(|names| path(&names.join("/")));
    let bytes = || prop::collection::vec(any::<u8>(), 0..700);
    let kind = prop_oneof![
        3 => bytes().prop_map(|bytes| Some(inline(&bytes))),
        2 => any::<bool>().prop_map(|opaque| Some(Node::Directory { opaque })),
        1 => "[a-c/.]{1,9}".prop_map(|target| Some(Node::Symlink(target.into_bytes().into()))),
        1 => Just(Some(Node::CharDevice(Device { major: 5, minor: 1 }))),
        1 => Just(Some(Node::Fifo)),
        1 => Just(None),
    ];
    let entry = (at.clone(), kind, 0_u32..0o10000, any::<u16>(), any::<i32>());
    let links = prop::collection::vec((at, any::<prop::sample::Index>()), 0..3);
    (prop::collection::vec(entry, 0..14), links).prop_map(|(entries, links)| {
        let entries = entries.into_iter().map(|(path, node, mode, id, time)| {
            let id = u32::from(id);
            // Linux stores no mode for a symbolic link and reports this one.
            let is_link = matches!(node, Some(Node::Symlink(_)));
            let mode = if is_link { 0o777 } else { mode };
            let meta = Meta { uid: id, gid: id / 2, ..Meta::root(mode, i64::from(time)) };
            let item = node.map_or(LayerItem::Whiteout, |node| LayerItem::Node(meta, node));
            Entry { path, item }
        });
        let mut tree: BTreeMap<TreePath, LayerItem> =
            entries.map(|entry| (entry.path, entry.item)).collect();
        let files: Vec<TreePath> = tree
            .iter()
            .filter(|(_, item)| item.file().is_some())
            .map(|(path, _)| path.clone())
            .collect();
        for (path, target) in links {
            if !files.is_empty() && !tree.contains_key(&path) {
                tree.insert(path, LayerItem::HardLink(target.get(&files).clone()));
            }
        }
        consistent(tree)
    })
}

/// Turns every parent into a directory, and drops hard links whose target was lost by that.
fn consistent(mut tree: BTreeMap<TreePath, LayerItem>) -> LayerListing {
    let paths: Vec<TreePath> = tree.keys().cloned().collect();
    for path in paths {
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            let item = tree.entry(directory.clone()).or_insert(LayerItem::Whiteout);
            if !item.is_directory() {
                let node = Node::Directory { opaque: false };
                *item = LayerItem::Node(Meta::root(0o755, 3), node);
            }
            above = directory.parent();
        }
    }
    let files: Vec<TreePath> = tree
        .iter()
        .filter(|(_, item)| item.file().is_some())
        .map(|(path, _)| path.clone())
        .collect();
    tree.retain(|_, item| match item {
        LayerItem::HardLink(target) => files.contains(target),
        LayerItem::Node(..) | LayerItem::Whiteout | LayerItem::Opaque => true,
    });
    LayerListing::new(tree.into_iter().map(|(path, item)| Entry { path, item }).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn priv_what_is_written_is_unpacked(listing in tree()) {
        let into = tempfile::tempdir().unwrap();
        let tar = write_listing(&listing, &open_inline, Vec::new()).unwrap();
        let unpacked = unpack_to(into.path(), &tar, &OPTIONS).unwrap();
        prop_assert_eq!(without_origins(&unpacked.listing), without_origins(&listing));
        prop_assert_eq!(unpacked.implied, vec![]);
        // The directory on disk has the same contents, except for entries that hide nothing.
        let at = open(into.path());
        let changed = diff_upper(at.as_fd(), &[], false).unwrap();
        let (found, again) = written(changed, at.as_fd());
        let shown = listing.entries().iter().filter(|entry| entry.item != LayerItem::Whiteout);
        let mut want = LayerListing::new(shown.cloned().collect());
        for entry in want.entries_mut() {
            if let LayerItem::Node(_, Node::Directory { opaque }) = &mut entry.item {
                *opaque = false;
            }
        }
        prop_assert_eq!(without_origins(&found), without_origins(&want));
        prop_assert!(again == write_listing(&want, &open_inline, Vec::new()).unwrap());
    }
}

#[test]
fn an_added_archive_keeps_files_that_look_like_whiteouts() {
    let into = tempfile::tempdir().unwrap();
    let options = UnpackOptions { whiteouts: Whiteouts::Keep, ..OPTIONS };
    let tar = raw_tar(&[("d/.wh.x", b'0', "1"), ("d/.wh..wh..opq", b'0', "2")]);
    let unpacked = unpack_to(into.path(), &tar, &options).unwrap();
    let names: Vec<String> =
        unpacked.listing.entries().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/d", "/d/.wh..wh..opq", "/d/.wh.x"]);
    assert_eq!(unpacked.implied, [path("d")]);
}

#[test]
fn directories_deeper_than_the_descriptors_that_are_kept_are_reached() {
    let into = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..120).map(|at| format!("d{at}")).collect();
    let mut tar = TarWriter::new(Vec::new());
    for n_names in [120, 60, 119, 3] {
        let at = path(&names[..n_names].join("/")).join(b"file");
        let item = LayerItem::Node(Meta::root(0o644, 7), inline(b"x"));
        tar.entry(&at, &item, &mut &b"x"[..]).unwrap();
    }
    let unpacked = unpack_to(into.path(), &tar.finish().unwrap(), &OPTIONS).unwrap();
    assert_eq!((unpacked.listing.entries().len(), unpacked.implied.len()), (124, 120));
    assert_eq!(dump(into.path()).len(), 124);
}

/// A stack of directories as overlayfs keeps them.
struct Stack {
    at: tempfile::TempDir,
}

impl Stack {
    fn new(layers: &[(&str, Vec<Entry>)]) -> Self {
        let at = tempfile::tempdir().unwrap();
        for (name, entries) in layers {
            let directory = at.path().join(name);
            rbuild::pathio::create_dir_all(&directory).unwrap();
            unpack_to(&directory, &tar_of(entries.clone()), &OPTIONS).unwrap();
        }
        Self { at }
    }

    fn open(&self, name: &str) -> OwnedFd {
        open(&self.at.path().join(name))
    }

    fn diff(&self, lowers: &[&str]) -> Vec<String> {
        let lowers: Vec<OwnedFd> = lowers.iter().map(|name| self.open(name)).collect();
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let changed = diff_upper(self.open("upper").as_fd(), &lowers, false).unwrap();
        changed.iter().map(describe).collect()
    }
}

fn describe(entry: &Entry) -> String {
    match &entry.item {
        LayerItem::Whiteout => format!("{} gone", entry.path),
        LayerItem::Opaque => format!("{} opaque", entry.path),
        LayerItem::HardLink(target) => format!("{} = {target}", entry.path),
        LayerItem::Node(meta, node) => {
            let kind = match node {
                Node::Directory { .. } => "dir",
                Node::File(_) => "file",
                Node::Symlink(_) => "link",
                Node::CharDevice(_) | Node::BlockDevice(_) => "device",
                Node::Fifo => "fifo",
            };
            format!("{} {kind} {:o}", entry.path, meta.mode)
        }
    }
}

fn file(at: &str, text: &str) -> Entry {
    node(at, Meta::root(0o644, 7), inline(text.as_bytes()))
}

fn gone(at: &str) -> Entry {
    Entry { path: path(at), item: LayerItem::Whiteout }
}

#[test]
fn priv_what_did_not_change_is_left_out() {
    let stack = Stack::new(&[
        (
            "base",
            vec![
                directory("d", 0o755),
                file("d/same", "1"),
                file("d/text", "1"),
                directory("e", 0o755),
                file("e/f", "1"),
            ],
        ),
        (
            "upper",
            vec![
                directory("d", 0o755),
                file("d/same", "1"),
                file("d/text", "2"),
                directory("e", 0o755),
                file("e/f", "1"),
                gone("never/was"),
                gone("nor"),
                directory("n", 0o700),
                link("n/l", "x"),
            ],
        ),
    ]);
    let want = ["/d dir 755", "/d/text file 644", "/n dir 700", "/n/l link 777", "/never dir 755"];
    assert_eq!(stack.diff(&["base"]), want);
}

#[test]
fn priv_an_equal_time_does_not_hide_another_content() {
    let stack = Stack::new(&[("base", vec![file("f", "1")]), ("upper", vec![file("f", "2")])]);
    for name in ["base", "upper"] {
        let time = Timespec { tv_sec: 7, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(stack.open(name), "f", &times, AtFlags::empty()).unwrap();
    }
    assert_eq!(stack.diff(&["base"]), ["/f file 644"]);
}

#[test]
fn priv_removals_are_of_what_the_layers_below_show() {
    let stack = Stack::new(&[
        ("one", vec![directory("d", 0o755), file("d/a", "1"), file("d/b", "1"), file("top", "1")]),
        ("two", vec![directory("d", 0o755), gone("d/a"), file("d/c", "1"), gone("top")]),
        ("upper", vec![directory("d", 0o755), gone("d/a"), gone("d/b"), gone("d/c"), gone("top")]),
    ]);
    assert_eq!(stack.diff(&["one", "two"]), ["/d dir 755", "/d/b gone", "/d/c gone"]);
    assert_eq!(stack.diff(&["one"]), ["/d dir 755", "/d/a gone", "/d/b gone", "/top gone"],);
}

#[test]
fn priv_an_opaque_directory_becomes_whiteouts_of_what_it_hides() {
    let opaque = |at| node(at, Meta::root(0o755, 7), Node::Directory { opaque: true });
    let stack = Stack::new(&[
        (
            "base",
            vec![
                directory("d", 0o755),
                file("d/a", "1"),
                directory("d/s", 0o755),
                file("d/s/x", "1"),
                file("d/s/y", "1"),
                directory("d/t", 0o755),
                file("d/t/z", "1"),
            ],
        ),
        (
            "upper",
            vec![opaque("d"), file("d/new", "1"), directory("d/s", 0o755), file("d/s/y", "22")],
        ),
    ]);
    let want = [
        "/d dir 755",
        "/d/a gone",
        "/d/new file 644",
        "/d/s dir 755",
        "/d/s/x gone",
        "/d/s/y file 644",
        "/d/t gone",
    ];
    assert_eq!(stack.diff(&["base"]), want);
}

#[test]
fn priv_hard_links_are_found_among_what_changed() {
    let pair = |text| {
        vec![
            file("a", text),
            Entry { path: path("z"), item: LayerItem::HardLink(path("a")) },
            file("other", "1"),
        ]
    };
    let stack = Stack::new(&[("base", vec![file("a", "1")]), ("upper", pair("1"))]);
    // A new name for an unchanged file. Its old name is in another layer, to which a hard link is
    // not possible, so the new name is a separate file (as in BuildKit).
    assert_eq!(stack.diff(&["base"]), ["/other file 644", "/z file 644"]);
    let stack = Stack::new(&[("base", pair("1")), ("upper", pair("1"))]);
    assert_eq!(stack.diff(&["base"]), Vec::<String>::new());
}

#[test]
fn priv_attributes_count_as_changes_and_sockets_do_not() {
    let stack = Stack::new(&[("base", vec![file("a", "1"), file("b", "1")])]);
    let upper = stack.at.path().join("upper");
    rbuild::pathio::create_dir_all(&upper).unwrap();
    unpack_to(&upper, &tar_of(vec![file("a", "1"), file("b", "1")]), &OPTIONS).unwrap();
    let a = open(&upper.join("a"));
    let value = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::fsetxattr(&a, "security.capability", value, XattrFlags::empty()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap());
    assert_eq!(stack.diff(&["base"]), ["/a file 644"]);
}

#[test]
fn priv_a_layer_is_written_and_unpacked_again() {
    let stack = Stack::new(&[("upper", sample())]);
    let upper = stack.open("upper");
    let changed = diff_upper(upper.as_fd(), &[], false).unwrap();
    let (listing, tar) = written(changed, upper.as_fd());
    let mut want = sample();
    // Without a lower directory, nothing can be removed or hidden.
    want.pop();
    want[0] = node(
        "a",
        Meta { uid: 1000, gid: 2000, ..Meta::root(0o2750, 12) },
        Node::Directory { opaque: false },
    );
    assert_eq!(without_origins(&listing), without_origins(&LayerListing::new(want.clone())));
    assert!(tar == tar_of(want));
    let mut reader = TarReader::new(&*tar);
    let mut n_entries = 0;
    while reader.next().unwrap().is_some() {
        n_entries += 1;
    }
    assert_eq!(n_entries, listing.entries().len());
    let again = tempfile::tempdir().unwrap();
    let unpacked = unpack_to(again.path(), &tar, &OPTIONS).unwrap();
    assert_eq!(unpacked.listing.content_digest(), listing.content_digest());
}
