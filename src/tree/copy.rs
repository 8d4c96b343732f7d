//! The result of COPY and ADD: the files of the source that are selected, and their paths on top of
//! the existing tree.
//!
//! The rules are BuildKit's (<https://docs.docker.com/reference/dockerfile/#copy>), as its
//! conformance cases show them. No file is read: contents are represented by their hash.

mod chosen;
mod copy_layer;
mod error;
mod placement;
mod select;

pub use copy_layer::CopyLayer;
pub use error::CopyError;

use super::glob::{DoubleStar, Glob};
use super::mode::Chmod;
use super::patterns::PatternError;
use super::{ContentDigest, ContentWriter, File, LayerItem, Meta, Node, Tree, TreePath};

use copy_layer::LinkNames;
use placement::Placement;
use select::Selected;

/// One COPY or ADD, with variables expanded.
#[derive(Debug, Clone, Copy)]
pub struct CopyRequest<'a> {
    /// The sources, as written.
    pub sources: &'a [CopyInput<'a>],
    /// The destination, as written: a trailing slash makes it a directory.
    pub destination: &'a str,
    /// The directory that a relative destination starts from.
    pub workdir: &'a str,
    /// The user id and group id of `--chown`.
    pub owner: Option<(u32, u32)>,
    /// The value of `--chmod`.
    pub mode: Option<&'a Chmod>,
    /// The patterns of `--exclude`.
    pub exclude: &'a [String],
    /// True for `--parents`: keeps the sources' parent directories.
    pub parents: bool,
    /// True if the source is a build context: its files become root's.
    pub from_context: bool,
    /// True for `--link`: the layer does not depend on the layers below.
    pub link: bool,
    /// Modification time of created directories, in seconds since 1970.
    pub now_s: i64,
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone)]
pub enum CopyInput<'a> {
    /// A path or pattern in the source tree.
    Path(&'a str),
    /// A single file from elsewhere, such as a heredoc or a download.
    File {
        /// The name in a destination that is a directory.
        name: &'a [u8],
        /// The mode, owner and time.
        meta: Meta,
        /// The size, hash and location of the content.
        file: File,
    },
    /// An unpacked archive: the contents of its root are copied to the destination and replace
    /// anything there. `--chmod` does not change them.
    Archive {
        /// The files of the archive.
        tree: &'a Tree,
        /// Directories without an entry of their own that contain entries, sorted. They keep the
        /// properties of the existing directory, or become root's.
        implied: &'a [TreePath],
    },
    /// A checkout of a git repository: the contents of its root are copied, as those of a directory
    /// source.
    Directory(&'a Tree),
}

/// Returns the layer that a COPY adds on top of `below`: the copied files, the created directories,
/// and all parent directories with their properties.
///
/// # Errors
/// [`CopyError::NotFound`] and [`CopyError::DanglingLink`] for a missing source,
/// [`CopyError::BadPattern`], [`CopyError::TooManyLinks`], and the other variants for a destination
/// that is in the way.
pub fn copy(
    source: &Tree,
    below: &Tree,
    request: &CopyRequest<'_>,
) -> Result<CopyLayer, CopyError> {
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

/// Returns the regular files that one source, a path or pattern, may select. Follows links and
/// leaves directories out. A missing file is not an error here.
///
/// # Errors
/// [`CopyError::BadPattern`].
pub fn matched_files(source: &Tree, text: &str) -> Result<Vec<TreePath>, CopyError> {
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

/// Returns the digest of a COPY's selected files, the part of its cache key that depends on
/// contents: paths, modes, contents, links, extended attributes, but not times. Owners count unless
/// the source is a context. The destination does not matter.
///
/// # Errors
/// [`CopyError`], as [`copy()`] for missing sources and bad patterns.
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
            key.item(&LayerItem::HardLink(first.clone()));
            continue;
        }
        // A directory whose contents are copied contributes no properties of its own.
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
