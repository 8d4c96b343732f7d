//! Laws and oracles of the tar module.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::oci::{DiffId, Digest};
use crate::tree::{
    CAPABILITY_XATTR, ContentHash, Device, Entry, File, FileOrigin, LayerEntries as _, LayerItem,
    LayerListing, Meta, Node, TreePath, Xattrs,
};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn file(bytes: &[u8]) -> Node {
    let origin = FileOrigin::Inline(Arc::from(bytes));
    let size = u64::try_from(bytes.len()).unwrap();
    Node::File(File { size, content: ContentHash::of(bytes), origin })
}

fn node(at: &str, meta: Meta, node: Node) -> Entry {
    Entry { path: path(at), item: LayerItem::Node(meta, node) }
}

fn open_inline(file: &File, _: &TreePath) -> io::Result<Box<dyn io::Read>> {
    let FileOrigin::Inline(bytes) = &file.origin else { panic!("{:?}", file.origin) };
    Ok(Box::new(io::Cursor::new(Arc::clone(bytes))))
}

/// Encodes the listing as the store keeps it.
fn to_bytes(listing: &LayerListing) -> Vec<u8> {
    let mut writer = ListingWriter::new(Vec::new(), listing.entries().len());
    listing.entries().iter().for_each(|entry| writer.entry(entry, tar_at(entry)).unwrap());
    writer.finish().unwrap()
}

fn tar_of(listing: &LayerListing) -> Vec<u8> {
    write_listing(listing, &open_inline, Vec::new()).unwrap()
}

/// Reads a layer by the conventions of the writer.
fn read_back(tar: &[u8]) -> Result<LayerListing, ArchiveError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut reader = TarReader::new(tar);
    while let Some(mut entry) = reader.next()? {
        let at = TreePath::clean(&entry.path);
        let name = at.name().unwrap_or_default().to_vec();
        if name == OPAQUE_NAME {
            let Some(LayerItem::Node(_, Node::Directory { opaque })) =
                entries.last_mut().map(|entry| &mut entry.item)
            else {
                panic!("an opaque marker stands behind its directory")
            };
            *opaque = true;
            continue;
        }
        if let Some(name) = name.strip_prefix(WHITEOUT_PREFIX) {
            let path = at.parent().unwrap_or_default().join(name);
            entries.push(Entry { path, item: LayerItem::Whiteout });
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        let meta = entry.meta.clone();
        let item = match entry.kind.clone() {
            EntryKind::File => LayerItem::Node(meta, file(&bytes)),
            EntryKind::Directory => LayerItem::Node(meta, Node::Directory { opaque: false }),
            EntryKind::HardLink(target) => LayerItem::HardLink(TreePath::clean(&target)),
            EntryKind::Symlink(target) => LayerItem::Node(meta, Node::Symlink(target.into())),
            EntryKind::CharDevice(device) => LayerItem::Node(meta, Node::CharDevice(device)),
            EntryKind::BlockDevice(device) => LayerItem::Node(meta, Node::BlockDevice(device)),
            EntryKind::Fifo => LayerItem::Node(meta, Node::Fifo),
        };
        entries.push(Entry { path: at, item });
    }
    Ok(LayerListing::new(entries))
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        8 => "[a-z.]{1,8}",
        1 => "[a-z]{90,120}",
        1 => "[äöü€ a-z]{1,20}",
    ];
    text.prop_map(String::into_bytes)
        .prop_filter("a name", |name| name != b"." && name != b".." && !name.starts_with(b".wh."))
}

fn tree_path() -> impl Strategy<Value = TreePath> {
    prop::collection::vec(name(), 1..4).prop_map(|names| TreePath::new(&names.join(&b'/')).unwrap())
}

fn meta() -> impl Strategy<Value = Meta> {
    let id = prop_oneof![4 => 0_u32..3000, 1 => any::<u32>()];
    let time = prop_oneof![4 => 0_i64..2_000_000_000, 1 => -(1_i64 << 40)..1_i64 << 40];
    let names = prop_oneof![
        Just(CAPABILITY_XATTR.to_vec()),
        Just(b"user.note".to_vec()),
        "user\\.[a-z\n %é.]{1,40}".prop_map(String::into_bytes),
    ];
    let value = prop::collection::vec(any::<u8>(), 0..24).prop_map(Vec::into_boxed_slice);
    let names = names.prop_map(Vec::into_boxed_slice);
    let xattrs = prop::option::weighted(0.1, prop::collection::btree_map(names, value, 1..4));
    (0_u32..0o10000, id.clone(), id, time, xattrs).prop_map(|(mode, uid, gid, mtime_s, xattrs)| {
        let xattrs = xattrs.map(|xattrs: Xattrs| Box::new(xattrs));
        Meta { mode, uid, gid, mtime_s, xattrs }
    })
}

fn item() -> impl Strategy<Value = LayerItem> {
    let device = (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Device { major, minor });
    let target = prop_oneof![4 => "[a-z./]{1,20}", 1 => "[a-zé/]{99,130}"];
    let node = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(|bytes| file(&bytes)),
        3 => any::<bool>().prop_map(|opaque| Node::Directory { opaque }),
        2 => target.prop_map(|target| Node::Symlink(target.into_bytes().into())),
        1 => device.clone().prop_map(Node::CharDevice),
        1 => device.prop_map(Node::BlockDevice),
        1 => Just(Node::Fifo),
    ];
    prop_oneof![
        9 => (meta(), node).prop_map(|(meta, node)| LayerItem::Node(meta, node)),
        1 => Just(LayerItem::Whiteout),
    ]
}

/// Generates layers whose entries may contradict each other, as those of a tar may.
fn listing() -> impl Strategy<Value = LayerListing> {
    let entry = (tree_path(), item()).prop_map(|(path, item)| Entry { path, item });
    let link = prop::option::of((any::<prop::sample::Index>(), tree_path()));
    (prop::collection::vec(entry, 0..12), link).prop_map(|(mut entries, link)| {
        if let Some((index, path)) = link
            && !entries.is_empty()
            && entries.iter().all(|entry| entry.path != path)
        {
            let target = index.get(&entries).clone();
            if matches!(target.item, LayerItem::Node(_, Node::File(_))) {
                entries.push(Entry { path, item: LayerItem::HardLink(target.path) });
            }
        }
        let by_last = LayerListing::new(entries);
        let is_file = |at: &TreePath| by_last.get(at).is_some_and(|item| item.file().is_some());
        let kept = by_last.entries().iter().filter(|entry| match &entry.item {
            LayerItem::HardLink(target) => is_file(target),
            LayerItem::Node(..) | LayerItem::Whiteout | LayerItem::Opaque => true,
        });
        LayerListing::new(kept.cloned().collect())
    })
}

proptest! {
    #[test]
    fn written_layer_is_read_back(listing in listing()) {
        let tar = tar_of(&listing);
        prop_assert_eq!(tar.len() % 512, 0);
        prop_assert_eq!(read_back(&tar).unwrap(), listing);
    }

    #[test]
    fn equal_layers_give_equal_bytes(listing in listing()) {
        let again = LayerListing::new(listing.entries().iter().rev().cloned().collect());
        prop_assert!(tar_of(&listing) == tar_of(&again));
    }

    #[test]
    fn entries_written_one_by_one_give_the_same_tar(listing in listing()) {
        let mut tar = TarWriter::new(Vec::new());
        for Entry { path, item } in listing.entries() {
            let mut content: Box<dyn io::Read> = match item.file() {
                Some(file) => open_inline(file, path).unwrap(),
                None => Box::new(io::empty()),
            };
            let at = tar.entry(path, item, &mut content).unwrap();
            prop_assert!(at <= tar.offset());
        }
        prop_assert!(tar.finish().unwrap() == tar_of(&listing));
    }

    #[test]
    fn stored_listing_is_read_back(listing in listing()) {
        let layer = DiffId::new(Digest::of(b"layer"));
        let mut want = listing;
        for (at, entry) in want.entries_mut().enumerate() {
            let Entry { path, item: LayerItem::Node(_, Node::File(file)) } = entry else { continue };
            let tar_at = u64::try_from(at).unwrap() << (at % 40);
            file.origin = FileOrigin::layer(layer, path.clone(), tar_at);
        }
        let packed = PackedListing::new(to_bytes(&want), layer).unwrap();
        prop_assert_eq!(packed.n_entries(), want.entries().len());
        let read: Vec<Entry> = packed.stream().map(Cow::into_owned).collect();
        prop_assert_eq!(&*read, want.entries());
    }

    #[test]
    fn damaged_listings_are_noticed(
        listing in listing(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let layer = DiffId::new(Digest::of(b"layer"));
        let whole = to_bytes(&listing);
        let mut bytes = whole.clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if bytes != whole {
            prop_assert!(PackedListing::new(bytes.clone(), layer).is_err());
        }
        // Version 2 has no checksum.
        bytes.truncate(whole.len() - 16);
        bytes[3] = 2;
        if let Ok(packed) = PackedListing::new(bytes, layer) {
            prop_assert_eq!(packed.stream().count(), packed.n_entries());
        }
        let cut = whole[..cut.index(whole.len())].to_vec();
        prop_assert!(PackedListing::new(cut, layer).is_err());
    }

    #[test]
    fn damaged_archives_never_panic(
        listing in listing(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut tar = tar_of(&listing);
        for (at, byte) in edits {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        drop(read_back_loosely(&tar));
        tar.truncate(cut.index(tar.len()));
        drop(read_back_loosely(&tar));
    }

    #[test]
    fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), kind in any::<u8>()) {
        drop(read_back_loosely(&bytes));
        // With a right checksum the reader looks further.
        if let Some(block) = bytes.get_mut(..512) {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.as_old_mut().linkflag = [b"0123456LKxSg"[usize::from(kind) % 12]];
            header.as_old_mut().size = *b"00000001000\0";
            header::seal(&mut header);
            block.copy_from_slice(header.as_bytes());
            drop(read_back_loosely(&bytes));
        }
    }
}

fn read_back_loosely(tar: &[u8]) -> Result<(), ArchiveError> {
    let mut reader = TarReader::new(tar);
    while let Some(mut entry) = reader.next()? {
        drop(io::copy(&mut entry, &mut io::sink()));
    }
    Ok(())
}

fn sample() -> LayerListing {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(60));
    let longer = format!("{}/{}", "d".repeat(120), "f".repeat(160));
    let capability = Xattrs::from([
        (CAPABILITY_XATTR.into(), b"\x01\0\0\x02\n\0"[..].into()),
        (b"user.comment"[..].into(), b"kept"[..].into()),
        (b"user.overlay.opaque"[..].into(), b"dropped"[..].into()),
    ]);
    let with_capability =
        Meta { xattrs: Some(Box::new(capability)), ..Meta::root(0o4755, 1_700_000_000) };
    let owned = Meta { uid: 3_000_000, gid: 5, ..Meta::root(0o640, -1) };
    LayerListing::new(vec![
        node("bin", Meta::root(0o755, 5), Node::Directory { opaque: false }),
        node("bin/ping", with_capability, file(b"elf")),
        node("bin/sh", Meta::root(0o777, 5), Node::Symlink(b"ping"[..].into())),
        Entry { path: path("bin/pong"), item: LayerItem::HardLink(path("bin/ping")) },
        Entry { path: path("bin/old"), item: LayerItem::Whiteout },
        node("dev", Meta::root(0o1777, 5), Node::Directory { opaque: true }),
        node("dev/null", Meta::root(0o666, 5), Node::CharDevice(Device { major: 1, minor: 3 })),
        node("dev/pipe", Meta::root(0o600, 5), Node::Fifo),
        node(&long, owned, file(&[b'x'; 600])),
        node(&longer, Meta::root(0o644, 5), file(b"")),
        node("ü", Meta::root(0o644, 5), file(b"u")),
    ])
}

#[test]
fn encoding_of_a_listing_is_pinned() {
    let bytes = to_bytes(&sample());
    assert_eq!(
        Digest::of(&bytes).hex(),
        "0f6d03bd8e852d1e041edd275237d17da575aca597de021309447af2b1cd0421"
    );
    let error = PackedListing::new(b"rbL\x04".to_vec(), DiffId::new(Digest::of(b""))).unwrap_err();
    assert_eq!(error, ListingError::UnknownVersion);
}

#[test]
fn empty_layer_is_1024_zero_bytes() {
    let tar = tar_of(&LayerListing::default());
    let want = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(Digest::of(&tar).hex(), want);
}

#[test]
fn tar_of_a_layer_is_pinned() {
    assert_eq!(
        Digest::of(&tar_of(&sample())).hex(),
        "3e08d81c6cb4811935c13b99e1777767782a25ba480cbc6c7413ebe5f6089020"
    );
}

/// Starts `program` with `stdin`; `None` when the machine does not have it.
#[expect(clippy::disallowed_methods, reason = "the oracles are programs")]
fn run(program: &str, args: &[&str], stdin: Vec<u8>) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::Builder::new().spawn(move || drop(input.write_all(&stdin))).unwrap();
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    Some(output.stdout)
}

#[test]
fn gnu_tar_lists_the_written_entries() {
    let Some(text) = run("tar", &["--numeric-owner", "-tvf", "-"], tar_of(&sample())) else {
        println!("SKIP: no tar");
        return;
    };
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(60));
    let longer = format!("{}/{}", "d".repeat(120), "f".repeat(160));
    let want = [
        "drwxr-xr-x 0/0 0 1970-01-01 00:00 bin/".to_owned(),
        "---------- 0/0 0 1970-01-01 00:00 bin/.wh.old".to_owned(),
        "-rwsr-xr-x 0/0 3 2023-11-14 22:13 bin/ping".to_owned(),
        "hrwsr-xr-x 0/0 0 2023-11-14 22:13 bin/pong link to bin/ping".to_owned(),
        "lrwxrwxrwx 0/0 0 1970-01-01 00:00 bin/sh -> ping".to_owned(),
        format!("-rw-r----- 3000000/5 600 1969-12-31 23:59 {long}"),
        format!("-rw-r--r-- 0/0 0 1970-01-01 00:00 {longer}"),
        "drwxrwxrwt 0/0 0 1970-01-01 00:00 dev/".to_owned(),
        "---------- 0/0 0 1970-01-01 00:00 dev/.wh..wh..opq".to_owned(),
        "crw-rw-rw- 0/0 1,3 1970-01-01 00:00 dev/null".to_owned(),
        "prw------- 0/0 0 1970-01-01 00:00 dev/pipe".to_owned(),
        "-rw-r--r-- 0/0 1 1970-01-01 00:00 ü".to_owned(),
    ];
    assert_eq!(lines, want);
}

#[test]
fn python_reads_names_sizes_and_capabilities() {
    let script = "import tarfile,sys,io
t=tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()))
for m in t:
    c=m.pax_headers.get('SCHILY.xattr.security.capability')
    print(len(m.name),m.size,m.uid,int(m.mtime),m.type.decode(),'cap' if c else '-')";
    let Some(text) = run("python3", &["-c", script], tar_of(&sample())) else {
        println!("SKIP: no python3");
        return;
    };
    let want = "3 0 0 5 5 -\n11 0 0 0 0 -\n8 3 0 1700000000 0 cap\n8 0 0 1700000000 1 cap\n\
                6 0 0 5 2 -\n181 600 3000000 -1 0 -\n281 0 0 5 0 -\n3 0 0 5 5 -\n16 0 0 0 0 -\n\
                8 0 0 5 3 -\n8 0 0 5 6 -\n1 1 0 5 0 -\n";
    assert_eq!(String::from_utf8(text).unwrap(), want);
}

#[test]
fn gunzip_and_zstd_read_packed_layers() {
    let tar = tar_of(&sample());
    for (program, packing) in [("gzip", Packing::GZIP), ("zstd", Packing::ZSTD)] {
        let mut out = packer(Vec::new(), packing, std::num::NonZeroUsize::MIN).unwrap();
        out.write_all(&tar).unwrap();
        match run(program, &["-dc"], out.finish().unwrap()) {
            Some(unpacked) => assert!(unpacked == tar, "{program}"),
            None => println!("SKIP: no {program}"),
        }
    }
}

#[test]
fn file_that_changes_its_length_is_an_error() {
    let listing = LayerListing::new(vec![node("a", Meta::root(0o644, 0), file(b"abc"))]);
    for now in [&b"ab"[..], b"abcd"] {
        let open = |_: &File, _: &TreePath| -> io::Result<Box<dyn io::Read>> { Ok(Box::new(now)) };
        let error = write_listing(&listing, &open, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "/a is not 3 bytes long: it changed while it was being read");
    }
}

#[test]
fn unrepresentable_entries_are_errors() {
    let check = |entry: Entry, want: &str| {
        let mut tar = TarWriter::new(Vec::new());
        let error = tar.entry(&entry.path, &entry.item, &mut io::empty()).unwrap_err();
        assert_eq!(error.to_string(), want);
    };
    let device = Node::CharDevice(Device { major: 1 << 21, minor: 0 });
    check(
        node("d", Meta::root(0, 0), device),
        "cannot store /d in an archive: its device number is too large",
    );
    check(
        node("", Meta::root(0, 0), Node::Fifo),
        "cannot store / in an archive: the root has no entry in a layer",
    );
    check(
        Entry { path: path("l"), item: LayerItem::HardLink(path("m")) },
        "cannot store /l in an archive: it is a hard link to a file that does not precede it",
    );
}

/// Creates an archive of one file with holes by GNU tar: 1 MiB of zeros, then `end`.
fn sparse_tar(format: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("holes");
    let out = rustix::fs::open(
        &at,
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    for (at, text) in [(0, "start"), (1 << 20, "middle"), (2 << 20, "end")] {
        rustix::io::pwrite(&out, text.as_bytes(), at).unwrap();
    }
    let directory = directory.path().to_str().unwrap().to_owned();
    run("tar", &[format, &["-C", &directory, "-Sc", "holes"]].concat(), Vec::new())
}

#[test]
fn sparse_files_are_expanded_in_every_format() {
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let Some(tar) = sparse_tar(format) else {
            println!("SKIP: no tar");
            return;
        };
        let mut reader = TarReader::new(&*tar);
        let mut entry = reader.next().unwrap().unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let mut want = vec![0; (2 << 20) + 3];
        want[..5].copy_from_slice(b"start");
        want[1 << 20..(1 << 20) + 6].copy_from_slice(b"middle");
        want[2 << 20..].copy_from_slice(b"end");
        assert_eq!(String::from_utf8_lossy(&entry.path), "holes");
        assert!(bytes == want, "{format:?}");
        assert!(reader.next().unwrap().is_none(), "{format:?}");
    }
}

#[test]
fn gnu_long_names_and_base_256_numbers_are_read() {
    let mut tar = tar::Builder::new(Vec::new());
    let name = format!("{}/x", "long".repeat(60));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    header.set_uid(4_000_000_000);
    header.set_gid(0);
    tar.append_data(&mut header, &name, &b"hi"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    tar.append_link(&mut header, "l", "t".repeat(300)).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut reader = TarReader::new(&*tar);
    let entry = reader.next().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&entry.path), name);
    assert_eq!((entry.meta.uid, entry.meta.mode, entry.size), (4_000_000_000, 0o644, 2));
    let entry = reader.next().unwrap().unwrap();
    assert_eq!(entry.kind, EntryKind::Symlink(vec![b't'; 300]));
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn errors_of_bad_archives_name_the_offset() {
    let check = |bytes: &[u8], want: &str| {
        assert_eq!(read_back_loosely(bytes).unwrap_err().to_string(), want);
    };
    let tar = tar_of(&LayerListing::new(vec![node("a", Meta::root(0, 0), file(&[1; 600]))]));
    check(&tar[..100], "the archive ends at byte 100, in the middle of an entry");
    check(&tar[..1000], "the archive ends at byte 1000, in the middle of an entry");
    check(&[7; 512], "the archive is damaged near byte 512: a header has a wrong checksum");
    let with_kind = |kind: u8| {
        let mut header = tar::Header::from_byte_slice(&tar[..512]).clone();
        header.as_old_mut().linkflag = [kind];
        header::seal(&mut header);
        header.as_bytes().to_vec()
    };
    check(&with_kind(b'V'), "the archive has an entry of unknown type 'V' near byte 512");
    let mut header = tar::Header::from_byte_slice(&with_kind(b'x')).clone();
    header.set_size(1 << 30);
    header::seal(&mut header);
    check(header.as_bytes(), "the archive has a header of more than 1048576 near byte 512");
}

#[test]
fn holes_are_skipped_and_the_rest_is_read() {
    let Some(tar) = sparse_tar(&["--format=gnu"]) else {
        println!("SKIP: no tar");
        return;
    };
    let mut reader = TarReader::new(&*tar);
    let mut entry = reader.next().unwrap().unwrap();
    let (mut stored, mut holes) = (Vec::new(), 0);
    loop {
        match entry.next_run() {
            ContentRun::Hole(n_bytes) => holes += n_bytes,
            ContentRun::Stored(n_bytes) => {
                let mut piece = vec![0; usize::try_from(n_bytes).unwrap()];
                entry.read_exact(&mut piece).unwrap();
                stored.extend(piece);
            }
            ContentRun::End => break,
        }
    }
    let n_stored = u64::try_from(stored.len()).unwrap();
    assert_eq!(n_stored + holes, (2 << 20) + 3);
    assert!(n_stored < 64 << 10, "{n_stored}");
    stored.retain(|byte| *byte != 0);
    assert_eq!(stored, b"startmiddleend");
}

#[test]
fn large_stored_file_is_not_a_bomb() {
    let mut header = tar::Header::new_gnu();
    header.set_path("large").unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(100 << 30);
    header.set_cksum();
    let bytes = header.as_bytes().as_slice();
    assert_eq!(TarReader::new(bytes).next().unwrap().unwrap().size, 100 << 30);
    let bounds = ArchiveBounds::up_to(99 << 30);
    let error = TarReader::bounded(bytes, bounds).next().unwrap_err().to_string();
    assert!(error.starts_with("the archive unpacks to more than "), "{error}");
}

#[test]
fn packed_stream_that_expands_beyond_its_bounds_ends_with_an_error() {
    let zeros = vec![0; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).unwrap();
    // Two members: what follows the first one counts as well.
    let gzip = gzip.finish().unwrap().repeat(2);
    let read = |max_bytes: u64| {
        let bounds = ArchiveBounds { max_bytes, max_entries: 0, max_expansion: None };
        let (_, mut unpacked) = decoder(Box::new(io::Cursor::new(gzip.clone())), &bounds).unwrap();
        io::copy(&mut unpacked, &mut io::sink()).map_err(|error| error.kind())
    };
    assert_eq!(read(2 << 20), Ok(2 << 20));
    assert_eq!(read((2 << 20) - 1), Err(io::ErrorKind::FileTooLarge));
}
