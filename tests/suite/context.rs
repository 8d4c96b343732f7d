//! The build context on temporary directories.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "tests panic on failure and prepare directories as a user would"
)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rbuild::context::{Context, HashCache, IgnoreRules, parse_ignore};
use rbuild::tree::{FileOrigin, Node, Tree, TreeNode, TreePath};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use tempfile::TempDir;

/// Creates a directory with these files: a name that ends with `/` is a directory, `a -> b` a link.
fn directory(entries: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for entry in entries {
        let at = |name: &str| directory.path().join(name.trim());
        if let Some((name, target)) = entry.split_once("->") {
            symlink(target.trim(), at(name)).unwrap();
        } else if entry.ends_with('/') {
            fs::create_dir_all(at(entry)).unwrap();
        } else {
            fs::create_dir_all(at(entry).parent().unwrap()).unwrap();
            write(&at(entry), entry);
        }
    }
    directory
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn open(directory: &TempDir, ignore: &str) -> Context {
    let rules = parse_ignore(ignore).unwrap();
    Context::open(directory.path(), rules, 3, HashCache::none()).unwrap()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// Returns the paths of a tree, directories with a slash and links with their targets.
fn show(tree: &Tree) -> String {
    let mut text = String::new();
    for (path, node) in tree.walk(&TreePath::root()) {
        let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let end = match (node, node.as_symlink()) {
            (TreeNode::Dir(_), _) => "/".to_owned(),
            (_, Some(target)) => format!("->{}", String::from_utf8_lossy(target)),
            (_, None) => String::new(),
        };
        write!(text, "{path}{end} ").unwrap();
    }
    text.trim_end().to_owned()
}

/// Checks the files that a list of sources selects.
fn check(directory: &TempDir, ignore: &str, sources: &[&str], want: &str) {
    assert_eq!(show(&open(directory, ignore).tree(sources).unwrap()), want, "{sources:?}");
}

#[test]
fn only_what_a_source_can_name_is_in_the_tree() {
    let directory = directory(&["a.txt", "b.md", "d/one", "d/sub/two", "e/one", ".hidden"]);
    check(&directory, "", &["a.txt"], "a.txt");
    check(&directory, "", &["/d/../a.txt", "../../b.md"], "a.txt b.md");
    check(&directory, "", &["d/sub"], "d/ d/sub/ d/sub/two");
    check(&directory, "", &["*/one"], "d/ d/one e/ e/one");
    check(&directory, "", &["*.txt"], "a.txt");
    check(&directory, "", &["d/**/two"], "d/ d/one d/sub/ d/sub/two");
    check(&directory, "", &["missing", "a.txt/below", "none*"], "");
    let all = ".hidden a.txt b.md d/ d/one d/sub/ d/sub/two e/ e/one";
    check(&directory, "", &["."], all);
    check(&directory, "", &["**/x"], all);
    check(&directory, "", &["a.txt", "d", "./"], all);
}

#[test]
fn links_bring_their_targets_along_but_never_what_is_outside() {
    let directory = directory(&[
        "etc/passwd",
        "d/file",
        "abs -> /etc/passwd",
        "up -> ../../../etc/passwd",
        "dir -> d",
        "chain -> dir",
        "loop -> loop",
        "out -> /nonexistent/x",
    ]);
    check(&directory, "", &["abs"], "abs->/etc/passwd etc/ etc/passwd");
    check(&directory, "", &["up"], "etc/ etc/passwd up->../../../etc/passwd");
    check(&directory, "", &["chain/file"], "chain->dir d/ d/file dir->d");
    check(&directory, "", &["di*"], "d/ d/file dir->d");
    check(&directory, "", &["loop", "out"], "loop->loop out->/nonexistent/x");
}

#[test]
fn ignored_files_are_absent() {
    let directory =
        directory(&["a.txt", "tmp/keep", "tmp/drop", "node/deep/x", "src/a.md", "src/b"]);
    let ignore = "tmp\n!tmp/keep\nnode\n**/*.md\n";
    check(&directory, ignore, &["."], "a.txt src/ src/b tmp/ tmp/keep");
    check(&directory, ignore, &["tmp"], "tmp/ tmp/keep");
    check(&directory, ignore, &["tmp/drop", "node", "node/deep", "src/a.md"], "");
    check(&directory, ignore, &["tmp/*", "src/*"], "src/ src/b tmp/ tmp/keep");
    let context = open(&directory, ignore);
    assert!(context.ignored_by(&path("tmp/drop")).is_some());
    assert_eq!(context.ignored_by(&path("tmp/missing")), None);
    assert_eq!(context.ignored_by(&path("a.txt")), None);
}

#[test]
fn files_that_no_source_names_are_not_read() {
    let directory = directory(&["used", "loop -> loop"]);
    fifo(&directory.path().join("pipe"));
    fs::create_dir(directory.path().join("closed")).unwrap();
    fs::set_permissions(directory.path().join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    check(&directory, "", &["used"], "used");
    check(&directory, "closed", &["."], "loop->loop pipe used");
}

fn fifo(at: &Path) {
    mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
}

#[test]
fn every_kind_of_file_becomes_what_an_image_can_hold() {
    let directory = directory(&["file", "link -> file"]);
    fifo(&directory.path().join("pipe"));
    let socket = UnixListener::bind(directory.path().join("socket")).unwrap();
    let context = open(&directory, "");
    let tree = context.tree(&["."]).unwrap();
    let node = |name: &str| match tree.get(&path(name)) {
        Some(TreeNode::Leaf(leaf)) => (leaf.meta().clone(), leaf.node().clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(node("pipe").1, Node::Fifo);
    assert_eq!(node("pipe").0.mode, 0o640);
    assert!(matches!(node("socket").1, Node::File(file) if file.size == 0));
    let (meta, Node::File(file)) = node("file") else { panic!("a file") };
    let on_disk = fs::metadata(directory.path().join("file")).unwrap();
    assert_eq!((meta.mode, meta.uid, meta.gid), (0o644, 0, 0));
    assert_eq!((meta.mtime_s, file.size), (on_disk.mtime(), 4));
    assert_eq!(file.origin, FileOrigin::directory(3, path("file")));
    assert_eq!(file.content, rbuild::tree::ContentHash::of(b"file"));
    let mut text = String::new();
    context.read(&path("file")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "file");
    drop(socket);
}

#[test]
fn hard_links_share_a_leaf_and_user_attributes_are_kept() {
    let directory = directory(&["a", "d/"]);
    fs::hard_link(directory.path().join("a"), directory.path().join("d/b")).unwrap();
    let attribute = setxattr(directory.path().join("a"), "user.x", b"1", XattrFlags::empty());
    let tree = open(&directory, "").tree(&["."]).unwrap();
    let leaf = |name: &str| match tree.get(&path(name)) {
        Some(TreeNode::Leaf(leaf)) => leaf.clone(),
        other => panic!("{other:?}"),
    };
    assert!(leaf("a").identity().is_some());
    assert_eq!(leaf("a").identity(), leaf("d/b").identity());
    // Not every file system supports extended attributes.
    if attribute.is_ok() {
        let xattrs: Vec<_> =
            leaf("a").meta().xattrs().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        assert_eq!(xattrs, [(b"user.x".to_vec(), b"1".to_vec())]);
    }
}

#[test]
fn a_link_that_took_a_files_place_is_not_followed() {
    let outside = directory(&["secret"]);
    let directory = directory(&["d/file", "d2/"]);
    let context = open(&directory, "");
    context.tree(&["."]).unwrap();
    let file = directory.path().join("d/file");
    fs::remove_file(&file).unwrap();
    symlink(outside.path().join("secret"), &file).unwrap();
    let error = context.read(&path("d/file")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", file.display()));
    fs::remove_dir_all(directory.path().join("d")).unwrap();
    symlink(outside.path(), directory.path().join("d")).unwrap();
    context.read(&path("d/secret")).unwrap_err();
}

#[test]
fn a_pipe_that_took_a_files_place_does_not_block() {
    let directory = directory(&["file"]);
    let context = open(&directory, "");
    fs::remove_file(directory.path().join("file")).unwrap();
    fifo(&directory.path().join("file"));
    let error = context.read(&path("file")).unwrap_err();
    assert_eq!(error.path(), directory.path().join("file"));
}

/// Returns the time some seconds from now, in nanoseconds since 1970.
fn later(seconds: u64) -> i64 {
    let time = SystemTime::now() + Duration::from_secs(seconds);
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn content(context: &Context, name: &str) -> rbuild::tree::ContentHash {
    match context.tree(&["."]).unwrap().get(&path(name)) {
        Some(TreeNode::Leaf(leaf)) => match leaf.node() {
            Node::File(file) => file.content,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_remembered_file_is_read_again_only_after_a_change() {
    let directory = directory(&["a"]);
    let at = directory.path().join("a");
    let spill = std::env::temp_dir();
    let open = |table: Option<&File>, now_ns| {
        let memo = HashCache::new(table.map(|file| file.try_clone().unwrap()), now_ns, &spill);
        Context::open(directory.path(), IgnoreRules::default(), 0, memo).unwrap()
    };
    let first = open(None, later(10));
    let before = content(&first, "a");
    let mut table = tempfile::tempfile().unwrap();
    first.hashes().write(&mut table).unwrap();
    // There are no new entries if nothing has to be read.
    let second = open(Some(&table), later(10));
    assert_eq!(content(&second, "a"), before);
    assert!(!second.hashes().has_new_entries());
    // Same size, and the mtime restored: only the ctime differs.
    let time = fs::metadata(&at).unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&at, "b").unwrap();
    File::options().write(true).open(&at).unwrap().set_modified(time).unwrap();
    let third = open(Some(&table), later(10));
    assert_ne!(content(&third, "a"), before);
    assert!(third.hashes().has_new_entries());
    // Hashed at the instant of the change, so the hash is not cached.
    let racy = open(Some(&table), later(0));
    content(&racy, "a");
    assert!(!racy.hashes().has_new_entries());
}

#[test]
fn a_context_that_is_not_a_directory_is_named_in_the_error() {
    let directory = directory(&["file"]);
    let at = directory.path().join("file");
    let error = Context::open(&at, IgnoreRules::default(), 0, HashCache::none()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open the build context {}", at.display()));
}

#[test]
fn deep_directories_are_walked() {
    let directory = TempDir::new().unwrap();
    let deep = "d/".repeat(1500);
    fs::create_dir_all(directory.path().join(&deep)).unwrap();
    write(&directory.path().join(&deep).join("f"), "x");
    let tree = open(&directory, "").tree(&["."]).unwrap();
    assert!(tree.get(&path(&format!("{deep}f"))).is_some());
}

#[test]
fn a_sparse_file_of_a_terabyte_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::File::create(directory.path().join("holes")).unwrap().set_len(1 << 40).unwrap();
    let context = open(&directory, "");
    for sources in [["holes"], ["."], ["h*"]] {
        let error = context.tree(&sources).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.path(), directory.path().join("holes"));
        assert!(why.starts_with("it has 1099511627776 bytes, more than the limit of"), "{why}");
    }
}
