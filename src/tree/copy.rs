//! What COPY and ADD make of two trees: which files of the source are meant, and where they go on
//! top of what is there.
//!
//! The rules are BuildKit's, as its conformance cases show them. Nothing is read: contents are
//! named by hash.

mod chosen;
mod error;
mod place;
mod placed;
mod select;

pub use error::CopyError;
pub use placed::Placed;

use super::glob::{DoubleStar, Glob};
use super::mode::Chmod;
use super::patterns::PatternError;
use super::{ContentDigest, ContentWriter, File, Item, Meta, Node, Tree, TreePath};

use place::Placement;
use placed::LinkNames;
use select::Selected;

/// One COPY or ADD, expanded.
#[derive(Debug, Clone, Copy)]
pub struct CopyRequest<'a> {
    /// What is copied, as written.
    pub sources: &'a [CopyInput<'a>],
    /// Where to, as written: a slash at the end says that it is a directory.
    pub destination: &'a str,
    /// Where a relative destination starts.
    pub workdir: &'a str,
    /// Uid and gid that `--chown` means.
    pub owner: Option<(u32, u32)>,
    /// What `--chmod` says.
    pub mode: Option<&'a Chmod>,
    /// The `--exclude` patterns.
    pub exclude: &'a [String],
    /// `--parents`: the sources' own directories are kept.
    pub parents: bool,
    /// The source is a build context: its files belong to root.
    pub from_context: bool,
    /// `--link`: the layer does not depend on what is below.
    pub link: bool,
    /// Modification time of directories that are made, seconds since 1970.
    pub now_s: i64,
}

/// One source.
#[derive(Debug, Clone)]
pub enum CopyInput<'a> {
    /// A path or pattern in the source tree.
    Path(&'a str),
    /// A file of its own, such as a heredoc or a download.
    File {
        /// Its name in a destination that is a directory.
        name: &'a [u8],
        /// Its properties.
        meta: Meta,
        /// Its content.
        file: File,
    },
    /// An unpacked archive: what its root holds goes into the destination, in place of whatever is
    /// there. `--chmod` does not change it.
    Archive {
        /// What it holds.
        tree: &'a Tree,
        /// Directories that it does not name but has files in, sorted: they are as they are below, or
        /// root's.
        implied: &'a [TreePath],
    },
    /// A checkout: what its root holds goes into the destination, as of a directory that is named.
    Directory(&'a Tree),
}

/// What a COPY adds on top of `below`: the copied files, the directories that had to be made, and all
/// directories on the way with what they are.
///
/// # Errors
/// [`CopyError`] when a source is missing or something of another kind is in the way.
pub fn copy(source: &Tree, below: &Tree, request: &CopyRequest<'_>) -> Result<Placed, CopyError> {
    let selected = select::all(source, request)?;
    let empty = Tree::default();
    let below = if request.link { &empty } else { below };
    let mut placement = Placement::new(below, request);
    let several = selected.iter().map(|input| input.items.len()).sum::<usize>() > 1;
    for input in &selected {
        for item in &input.items {
            placement.put(item, several)?;
        }
    }
    Ok(placement.finish())
}

/// The regular files that one source of a COPY, a path or pattern, can mean: links are followed,
/// directories left out. What is not there is no error here.
///
/// # Errors
/// [`CopyError::BadPattern`].
pub fn files_meant(source: &Tree, text: &str) -> Result<Vec<TreePath>, CopyError> {
    let resolved =
        |path: &[u8]| source.resolve(path).ok().filter(|path| source.file(path).is_some());
    if !super::glob::has_wildcard(text) {
        return Ok(resolved(super::glob::unescape(text).as_bytes()).into_iter().collect());
    }
    let pattern = TreePath::clean(text.as_bytes());
    let pattern = String::from_utf8_lossy(pattern.as_bytes()).into_owned();
    let glob = Glob::new(&pattern, DoubleStar::AsSingle).map_err(|reason| {
        let pattern = text.to_owned();
        let reason = PatternError::Bad { pattern: pattern.clone(), reason };
        CopyError::BadPattern { pattern, reason }
    })?;
    let root = TreePath::root();
    let named = source.walk(&root).filter(|(path, _)| glob.matches(path.as_bytes()));
    Ok(named.filter_map(|(path, _)| resolved(path.as_bytes())).collect())
}

/// Names what a COPY selects, without a look at where it goes: paths, modes, contents, links,
/// extended attributes, not mtimes. Owners count unless the source is a context.
///
/// # Errors
/// [`CopyError`] when a source is missing.
pub fn select_digest(source: &Tree, request: &CopyRequest<'_>) -> Result<ContentDigest, CopyError> {
    let mut key = ContentWriter::new("rbuild/copy-source/v1");
    for input in &select::all(source, request)? {
        key.number(u64::try_from(input.items.len()).unwrap_or(u64::MAX));
        for item in &input.items {
            key.field(item.name);
            write_item(&mut key, item, request);
        }
    }
    Ok(key.finish())
}

fn write_item(key: &mut ContentWriter, item: &Selected<'_>, request: &CopyRequest<'_>) {
    key.number(u64::from(item.is_dir()));
    let mut links = LinkNames::default();
    for entry in item.entries() {
        let (path, node) = (&entry.path, entry.node);
        key.field(path.as_bytes());
        key.number(u64::from(entry.on_the_way) | u64::from(item.only_implies(path)) << 1);
        if let Some(first) = links.first_name(node, path) {
            key.item(&Item::HardLink(first.clone()));
            continue;
        }
        // The directory whose contents are copied gives nothing of itself.
        if path.is_root() && item.is_dir() {
            continue;
        }
        let mut meta = node.meta().clone();
        if request.from_context && !item.is_archive() {
            (meta.uid, meta.gid) = (0, 0);
        }
        key.meta(&meta);
        match node {
            super::TreeNode::Dir(_) => key.node(&Node::Directory { opaque: false }),
            super::TreeNode::Leaf(leaf) => key.node(leaf.node()),
        }
    }
}

#[cfg(test)]
mod tests;
