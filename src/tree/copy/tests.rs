//! Tables of COPY steps: `testdata/copy/*.tbl`.

use std::sync::Arc;

use crate::tree::mode::{Chmod, parse_chmod};
use crate::tree::{
    ContentDigest, ContentHash, Dir, File, FileOrigin, LayerEntries as _, Leaf, Meta, Node, Tree,
    TreeNode, TreePath,
};

use super::{CopyInput, CopyRequest, copy, select_digest};

/// One COPY line, its flags read as the planner would.
#[derive(Default)]
struct Line {
    sources: Vec<String>,
    destination: String,
    owner: Option<(u32, u32)>,
    mode: Option<Chmod>,
    exclude: Vec<String>,
    parents: bool,
    link: bool,
    from_stage: bool,
}

impl Line {
    fn parse(line: &str) -> Self {
        let rest = line.trim().strip_prefix("COPY").unwrap().trim();
        let mut parsed = Self::default();
        let mut words: Vec<String> = serde_json::from_str(rest)
            .unwrap_or_else(|_| rest.split_whitespace().map(str::to_owned).collect());
        while words.first().is_some_and(|word| word.starts_with("--")) {
            let flag = words.remove(0);
            let (name, value) = flag.split_once('=').unwrap_or((&flag, ""));
            match name {
                "--chown" => parsed.owner = Some(owner(value)),
                "--chmod" => parsed.mode = Some(parse_chmod(value).unwrap()),
                "--exclude" => parsed.exclude.push(value.to_owned()),
                "--parents" => parsed.parents = true,
                "--link" => parsed.link = true,
                "--from" => parsed.from_stage = true,
                other => panic!("unknown flag {other}"),
            }
        }
        parsed.destination = words.pop().unwrap();
        parsed.sources = words;
        parsed
    }

    fn with<R>(&self, workdir: &str, run: impl FnOnce(&CopyRequest<'_>) -> R) -> R {
        let sources: Vec<CopyInput<'_>> =
            self.sources.iter().map(|source| CopyInput::Path(source)).collect();
        run(&CopyRequest {
            sources: &sources,
            destination: &self.destination,
            workdir,
            owner: self.owner,
            mode: self.mode.as_ref(),
            exclude: &self.exclude,
            parents: self.parents,
            from_context: !self.from_stage,
            link: self.link,
            now_s: 7,
        })
    }
}

fn owner(text: &str) -> (u32, u32) {
    let (uid, gid) = text.split_once(':').unwrap();
    (uid.parse().unwrap(), gid.parse().unwrap())
}

fn quoted(text: &str) -> (String, &str) {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = stream.next().unwrap().unwrap();
    (value, text.split_at(stream.byte_offset()).1.trim())
}

/// Adds the file that a line of a table describes.
fn add(tree: &mut Tree, line: &str) {
    let (name, rest) = quoted(line.trim());
    let path = TreePath::new(name.as_bytes()).unwrap();
    if let Some(target) = rest.strip_prefix("->") {
        let node = Node::Symlink(quoted(target.trim()).0.as_bytes().into());
        return tree.insert(&path, TreeNode::Leaf(Leaf::new(Meta::root(0o777, 1), node)));
    }
    if let Some(first) = rest.strip_prefix("= ") {
        let first = TreePath::new(quoted(first).0.as_bytes()).unwrap();
        let leaf = tree.link(&first).unwrap();
        return tree.insert(&path, TreeNode::Leaf(leaf));
    }
    let (fifo, rest) = rest.strip_prefix("fifo ").map_or((false, rest), |rest| (true, rest));
    let (mode, rest) = rest.split_once(' ').unwrap();
    let (owners, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let (uid, gid) = owner(owners);
    let mode = u32::from_str_radix(mode, 8).unwrap();
    let meta = Meta { uid, gid, ..Meta::root(mode, 1) };
    let node = if name.ends_with('/') {
        TreeNode::Dir(Arc::new(Dir { meta, ..Dir::default() }))
    } else if fifo {
        TreeNode::Leaf(Leaf::new(meta, Node::Fifo))
    } else {
        TreeNode::Leaf(Leaf::new(meta, Node::File(file(&quoted(text).0))))
    };
    tree.insert(&path, node);
}

fn file(text: &str) -> File {
    let bytes: Arc<[u8]> = text.as_bytes().into();
    let size = u64::try_from(text.len()).unwrap();
    File { size, content: ContentHash::of(&bytes), origin: FileOrigin::Inline(bytes) }
}

/// The tree in the table's form.
fn show(tree: &Tree) -> Vec<String> {
    let mut linked: Vec<(usize, String)> = Vec::new();
    let mut lines = Vec::new();
    for (path, node) in tree.walk(&TreePath::root()) {
        let name = String::from_utf8(path.as_bytes().to_vec()).unwrap();
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let meta = node.meta();
        let rest = format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid);
        let TreeNode::Leaf(leaf) = node else {
            lines.push(format!("{} {rest}", json(&format!("{name}/"))));
            continue;
        };
        let id = leaf.identity();
        if let Some((_, first)) = linked.iter().find(|(other, _)| Some(*other) == id) {
            lines.push(format!("{} = {}", json(&name), json(first)));
            continue;
        }
        linked.extend(id.map(|id| (id, name.clone())));
        lines.push(match leaf.node() {
            Node::File(File { origin: FileOrigin::Inline(text), .. }) => {
                format!("{} {rest} {}", json(&name), json(std::str::from_utf8(text).unwrap()))
            }
            Node::Symlink(target) => {
                format!("{} -> {}", json(&name), json(std::str::from_utf8(target).unwrap()))
            }
            Node::Fifo => format!("{} fifo {rest}", json(&name)),
            Node::Directory { .. } | Node::File(_) | Node::CharDevice(_) | Node::BlockDevice(_) => {
                panic!("no table has {leaf:?}")
            }
        });
    }
    lines
}

/// Runs one case; gives what differs.
fn run(case: &str) -> Result<(), String> {
    let (mut source, mut below) = (Tree::default(), Tree::default());
    let (mut section, mut workdir) = ("", "/".to_owned());
    let (mut want, mut failure) = (Vec::new(), None);
    for line in case.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        match line.split_whitespace().next().unwrap() {
            word @ ("source" | "below" | "result") if !line.starts_with(' ') => section = word,
            "WORKDIR" => {
                workdir = line.trim_start_matches("WORKDIR").trim().to_owned();
                let dir =
                    TreeNode::Dir(Arc::new(Dir { meta: Meta::root(0o755, 1), ..Dir::default() }));
                below.insert(&TreePath::clean(workdir.as_bytes()), dir);
            }
            "COPY" => {
                let copied =
                    Line::parse(line).with(&workdir, |request| copy(&source, &below, request));
                match copied {
                    Ok(layer) => below.apply(&layer),
                    Err(error) => failure = Some(error.to_string()),
                }
            }
            "fails" => {
                let message = line.trim_start_matches("fails").trim();
                return match failure.as_deref() {
                    Some(found) if found == message => Ok(()),
                    found => Err(format!("should fail: {message}\n      found: {found:?}")),
                };
            }
            _ if section == "source" => add(&mut source, line),
            _ if section == "below" => add(&mut below, line),
            _ => want.push(line.trim().to_owned()),
        }
    }
    let found = show(&below);
    if failure.is_some() || found != want {
        let (found, want) = (found.join("\n  "), want.join("\n  "));
        return Err(format!("found {failure:?}\n  {found}\nwant\n  {want}"));
    }
    Ok(())
}

fn check(table: &str) {
    let cases: Vec<&str> = table.split("\ncase ").skip(1).collect();
    assert!(!cases.is_empty());
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let name = case.lines().next().unwrap();
            run(case).err().map(|error| format!("{name}\n{error}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn copies_are_as_buildkit_makes_them() {
    check(include_str!("../../../testdata/copy/buildkit.tbl"));
}

#[test]
fn copies_follow_the_rules_that_no_recorded_case_shows() {
    check(include_str!("../../../testdata/copy/rules.tbl"));
}

fn tree(lines: &[&str]) -> Tree {
    let mut tree = Tree::default();
    lines.iter().for_each(|line| add(&mut tree, line));
    tree
}

fn request<'a>(sources: &'a [CopyInput<'a>], destination: &'a str) -> CopyRequest<'a> {
    CopyRequest {
        sources,
        destination,
        workdir: "/",
        owner: None,
        mode: None,
        exclude: &[],
        parents: false,
        from_context: true,
        link: false,
        now_s: 7,
    }
}

/// `below` after its layer, and the layer's own paths.
fn applied(below: &Tree, request: &CopyRequest<'_>) -> (Vec<String>, Vec<String>) {
    let layer = copy(&Tree::default(), below, request).unwrap();
    let mut after = below.clone();
    after.apply(&layer);
    let paths: Vec<String> = layer.stream().map(|entry| entry.path.to_string()).collect();
    assert_eq!(layer.n_entries(), paths.len());
    (show(&after), paths)
}

#[test]
fn an_unpacked_archive_replaces_what_is_in_the_way_and_follows_links_to_directories() {
    let archive = tree(&[
        r#""lib/" 0755 11:22"#,
        r#""lib/x" 0644 11:22 "x""#,
        r#""file" 0644 11:22 "was a directory""#,
        r#""dir/" 0711 11:22"#,
        r#""dir/y" 0644 11:22 "y""#,
    ]);
    let below = tree(&[
        r#""lib" -> "/real""#,
        r#""real/" 0755 0:0"#,
        r#""file/" 0755 0:0"#,
        r#""file/old" 0644 0:0 "o""#,
        r#""dir" 0644 0:0 "was a file""#,
    ]);
    let sources = [archive_input(&archive, &[])];
    let (after, paths) = applied(&below, &request(&sources, "/"));
    let want = [
        r#""dir/" 0711 11:22"#,
        r#""dir/y" 0644 11:22 "y""#,
        r#""file" 0644 11:22 "was a directory""#,
        r#""lib" -> "/real""#,
        r#""real/" 0755 11:22"#,
        r#""real/x" 0644 11:22 "x""#,
    ];
    assert_eq!(after, want);
    assert_eq!(paths, ["/dir", "/dir/y", "/file", "/real", "/real/x"]);
}

#[test]
fn what_a_later_archive_replaces_is_not_in_the_layer() {
    let first = tree(&[r#""d/" 0755 1:1"#, r#""d/e/" 0755 1:1"#, r#""d/e/x" 0644 1:1 "x""#]);
    let second = tree(&[r#""d/" 0700 2:2"#, r#""d/e" 0644 2:2 "a file""#]);
    let sources = [archive_input(&first, &[]), archive_input(&second, &[])];
    let want = [r#""d/" 0700 2:2"#, r#""d/e" 0644 2:2 "a file""#];
    for below in [Tree::default(), tree(&[r#""d/" 0711 0:0"#])] {
        let (after, paths) = applied(&below, &request(&sources, "/"));
        assert_eq!(after, want);
        assert_eq!(paths, ["/d", "/d/e"]);
    }
}

const fn archive_input<'a>(tree: &'a Tree, implied: &'a [TreePath]) -> CopyInput<'a> {
    CopyInput::Archive { tree, implied }
}

#[test]
fn directories_that_an_archive_only_implies_are_left_as_they_are_or_are_roots() {
    let archive = tree(&[
        r#""a/" 0700 1:1"#,
        r#""a/b/" 0700 1:1"#,
        r#""a/b/x" 0600 7:8 "x""#,
        r#""c/" 0711 7:8"#,
    ]);
    let implied = [TreePath::clean(b"a"), TreePath::clean(b"a/b")];
    let below = tree(&[r#""a/" 0711 5:6"#]);
    let sources = [archive_input(&archive, &implied)];
    let chmod = Chmod::Octal(0o640);
    let owned = CopyRequest { owner: Some((3, 4)), mode: Some(&chmod), ..request(&sources, "/") };
    let want =
        [r#""a/" 0711 5:6"#, r#""a/b/" 0755 0:0"#, r#""a/b/x" 0600 3:4 "x""#, r#""c/" 0711 3:4"#];
    assert_eq!(applied(&below, &owned).0, want);
    let made = CopyRequest { destination: "/new", ..owned };
    assert_eq!(
        applied(&Tree::default(), &made).0[..2],
        [r#""new/" 0755 3:4"#, r#""new/a/" 0755 0:0"#,]
    );
    let named = [archive_input(&archive, &[])];
    let digest = |request| select_digest(&Tree::default(), &request).unwrap();
    assert_ne!(digest(owned), digest(CopyRequest { sources: &named, ..owned }));
}

#[test]
fn a_file_of_its_own_takes_its_name_only_in_a_directory() {
    let below = tree(&[r#""d/" 0700 3:4"#]);
    let input = || CopyInput::File { name: b"tool", meta: Meta::root(0o600, 9), file: file("t") };
    let (sources, below_paths) = ([input()], |destination: &str, sources: &[CopyInput<'_>]| {
        applied(&below, &request(sources, destination)).0
    });
    assert_eq!(below_paths("/d", &sources), [r#""d/" 0700 3:4"#, r#""d/tool" 0600 0:0 "t""#]);
    assert_eq!(below_paths("/e", &sources), [r#""d/" 0700 3:4"#, r#""e" 0600 0:0 "t""#]);
}

#[test]
fn a_layer_lists_the_directories_on_the_way_as_they_are() {
    let below = tree(&[r#""a/" 0711 3:4"#, r#""a/b/" 0700 5:6"#, r#""a/b/old" 0644 0:0 "o""#]);
    let sources = [CopyInput::File { name: b"n", meta: Meta::root(0o644, 9), file: file("n") }];
    let (after, paths) = applied(&below, &request(&sources, "/a/b/c/"));
    assert_eq!(paths, ["/a", "/a/b", "/a/b/c", "/a/b/c/n"]);
    assert_eq!(after[..2], [r#""a/" 0711 3:4"#, r#""a/b/" 0700 5:6"#]);
}

fn digest(lines: &[&str], copy_line: &str) -> ContentDigest {
    let source = tree(lines);
    Line::parse(copy_line).with("/", |request| select_digest(&source, request).unwrap())
}

#[test]
fn the_digest_names_what_is_selected_and_nothing_else() {
    let base = [r#""d/" 0755 0:0"#, r#""d/f" 0644 3:4 "x""#, r#""other" 0644 0:0 "o""#];
    let same = |lines: &[&str], line: &str| digest(lines, line) == digest(&base, line);
    assert!(same(&[base[0], base[1], r#""other" 0600 0:0 "changed""#], "COPY d /x"));
    assert!(same(&[r#""d/" 0700 9:9"#, base[1]], "COPY d /x"), "only the contents are copied");
    assert!(same(&[base[0], r#""d/f" 0644 5:6 "x""#], "COPY d /x"), "owners are not kept");
    assert!(!same(&[base[0], r#""d/f" 0644 5:6 "x""#], "COPY --from=s d /x"));
    assert!(!same(&[base[0], r#""d/f" 0600 3:4 "x""#], "COPY d /x"));
    assert!(!same(&[base[0], r#""d/f" 0644 3:4 "y""#], "COPY d /x"));
    assert!(!same(&[base[0], r#""d/g" 0644 3:4 "x""#], "COPY d /x"));
    assert!(!same(&[base[0], r#""d/g" 0644 3:4 "x""#], "COPY d/* /x/"), "a new name is a change");
    assert!(!same(&[base[0], base[1], r#""d/g" = "d/f""#], "COPY d /x"));
    assert_ne!(
        digest(&[base[0], r#""d/f" 0644 0:0 "x""#, r#""d/g" = "d/f""#], "COPY d /x"),
        digest(&[base[0], r#""d/f" 0644 0:0 "x""#, r#""d/g" 0644 0:0 "x""#], "COPY d /x"),
    );
}
