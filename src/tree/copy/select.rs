//! Resolves the sources of a COPY to files and directories.

use std::borrow::Cow;
use std::sync::Arc;

use crate::diag;
use crate::tree::glob::{self, DoubleStar, Glob};
use crate::tree::patterns::{PatternError, Patterns};
use crate::tree::{Dir, Leaf, LookupError, Tree, TreeNode, TreePath};

use super::chosen::{ChosenFile, DirectoryContents};
use super::{CopyError, CopyInput, CopyRequest};

/// The files that one source selects.
#[derive(Debug)]
pub(super) struct SourceSelection<'a> {
    pub(super) items: Vec<Selected<'a>>,
}

/// One file, or one directory whose contents are copied.
#[derive(Debug)]
pub(super) struct Selected<'a> {
    /// The name by which it was found; empty for a directory's contents.
    pub(super) name: &'a [u8],
    pub(super) what: SelectedKind<'a>,
    /// For an archive, the directories that it only implies. Files of an archive replace anything
    /// at their path.
    pub(super) archive: Option<&'a [TreePath]>,
    /// True for `--parents`: parent directories are created with the properties that they have in
    /// the source.
    pub(super) keeps_parents: bool,
    /// The modification time of a source directory, which the destination gets.
    pub(super) modified_s: Option<i64>,
}

/// The kind of a selection.
#[derive(Debug)]
pub(super) enum SelectedKind<'a> {
    /// A single node that is not a directory.
    Leaf(TreeNode),
    /// The selected contents of a directory; `None` if the directory does not exist.
    Contents(Option<DirectoryContents<'a>>),
}

impl Selected<'_> {
    pub(super) const fn is_dir(&self) -> bool {
        matches!(self.what, SelectedKind::Contents(_))
    }

    pub(super) const fn is_archive(&self) -> bool {
        self.archive.is_some()
    }

    /// Returns whether the archive contains files in this directory but no entry for it.
    pub(super) fn only_implies(&self, path: &TreePath) -> bool {
        self.archive.is_some_and(|implied| implied.binary_search(path).is_ok())
    }

    /// Iterates over the selected files; a single file has the root as its path.
    pub(super) fn entries(&self) -> Box<dyn Iterator<Item = ChosenFile<'_>> + '_> {
        match &self.what {
            SelectedKind::Leaf(node) => {
                let path = TreePath::root();
                Box::new(std::iter::once(ChosenFile { path, node, on_the_way: false }))
            }
            SelectedKind::Contents(contents) => {
                Box::new(contents.iter().flat_map(DirectoryContents::iter))
            }
        }
    }
}

/// Resolves every source of the request, in order.
pub(super) fn all<'a>(
    source: &'a Tree,
    request: &CopyRequest<'a>,
) -> Result<Vec<SourceSelection<'a>>, CopyError> {
    let exclude = Arc::new(patterns(request.exclude.iter().map(String::as_str))?);
    let mut inputs = Vec::with_capacity(request.sources.len());
    for (index, input) in request.sources.iter().enumerate() {
        let resolver = SourceResolver { source, exclude: &exclude, index };
        let items = match input {
            CopyInput::Path(text) if request.parents => resolver.with_parents(text)?,
            CopyInput::Path(text) => resolver.path(text)?,
            CopyInput::File { name, meta, file } => {
                let leaf = Leaf::new(meta.clone(), crate::tree::Node::File(file.clone()));
                vec![selected(name, SelectedKind::Leaf(TreeNode::Leaf(leaf)))]
            }
            CopyInput::Directory(tree) => {
                vec![resolver.contents(tree.root(), None)]
            }
            CopyInput::Archive { tree, implied } => {
                vec![Selected { archive: Some(implied), ..resolver.contents(tree.root(), None) }]
            }
        };
        inputs.push(SourceSelection { items });
    }
    Ok(inputs)
}

const fn selected<'a>(name: &'a [u8], what: SelectedKind<'a>) -> Selected<'a> {
    Selected { name, what, archive: None, keeps_parents: false, modified_s: None }
}

fn patterns<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Patterns, CopyError> {
    let mut patterns = Patterns::default();
    for text in texts {
        patterns
            .push(text)
            .map_err(|reason| CopyError::BadPattern { pattern: text.to_owned(), reason })?;
    }
    Ok(patterns)
}

/// The paths below a directory that a pattern matches, with the last name of each.
type Matches<'a> = Vec<(TreePath, &'a [u8])>;

/// Resolves one source of a COPY.
struct SourceResolver<'a, 'b> {
    source: &'a Tree,
    exclude: &'b Arc<Patterns>,
    index: usize,
}

impl<'a> SourceResolver<'a, '_> {
    /// Resolves a path or pattern without `--parents`.
    fn path(&self, text: &'a str) -> Result<Vec<Selected<'a>>, CopyError> {
        if glob::has_wildcard(text) {
            return self.pattern(text);
        }
        match self.resolve(text, text) {
            Err(CopyError::NotFound { .. }) if text.contains('\\') => {
                // `a\*` selects the file `a*`, unless a file has the backslash in its name.
                let plain = glob::unescape(text);
                let at = self.resolve(&plain, text)?;
                Ok(vec![self.at(&at, self.name_of(&plain))])
            }
            found => Ok(vec![self.at(&found?, self.name_of(text))]),
        }
    }

    /// Returns the last name of a path, if it exists; links at the end are not followed.
    fn name_of(&self, text: &str) -> &'a [u8] {
        let clean = TreePath::clean(text.as_bytes());
        let at = self.source.resolve_parents(clean.as_bytes()).unwrap_or_default();
        let directory = at.parent().and_then(|parent| self.source.dir(&parent));
        let name = at.name().and_then(|name| directory?.children.get_named(name));
        name.map(|(name, _)| name).unwrap_or_default()
    }

    /// Selects the node at the resolved path `at`, found by `name`.
    fn at(&self, at: &TreePath, name: &'a [u8]) -> Selected<'a> {
        match self.source.get(at) {
            Some(TreeNode::Dir(dir)) => self.directory(dir),
            Some(leaf @ TreeNode::Leaf(_)) => selected(name, SelectedKind::Leaf(leaf.clone())),
            None => self.directory(self.source.root()),
        }
    }

    /// Selects a directory that the source names: the destination gets its time.
    fn directory(&self, dir: &'a Dir) -> Selected<'a> {
        Selected { modified_s: Some(dir.meta.mtime_s), ..self.contents(dir, None) }
    }

    /// Selects the contents of `dir`: everything, or what `include` matches.
    fn contents(&self, dir: &'a Dir, include: Option<Patterns>) -> Selected<'a> {
        self.contents_of(Cow::Borrowed(dir), include)
    }

    fn contents_of(&self, dir: Cow<'a, Dir>, include: Option<Patterns>) -> Selected<'a> {
        selected(
            b"",
            SelectedKind::Contents(Some(DirectoryContents::new(dir, include, self.exclude))),
        )
    }

    /// Resolves all links of `text`; `written` is named in errors.
    fn resolve(&self, text: &str, written: &str) -> Result<TreePath, CopyError> {
        let clean = TreePath::clean(text.as_bytes());
        let at = self.follow(&clean, written)?;
        if at.is_root() || self.source.get(&at).is_some() {
            return Ok(at);
        }
        let path = written.to_owned();
        let source_index = self.index;
        let link = self.source.resolve_parents(clean.as_bytes()).ok();
        match link.and_then(|link| self.source.get(&link)) {
            Some(_) => Err(CopyError::DanglingLink { source_index, path, target: at }),
            None => {
                let nearest = self.nearest(&at, written);
                Err(CopyError::NotFound { source_index, path, nearest })
            }
        }
    }

    fn follow(&self, clean: &TreePath, written: &str) -> Result<TreePath, CopyError> {
        let path = written.to_owned();
        self.source.resolve(clean.as_bytes()).map_err(|error| match error {
            LookupError::TooManyLinks(_) => CopyError::TooManyLinks { path },
            LookupError::NotADirectory(_) => {
                CopyError::NotFound { source_index: self.index, path, nearest: None }
            }
        })
    }

    /// Returns the path as written, with its last name replaced by the most similar existing one.
    fn nearest(&self, at: &TreePath, written: &str) -> Option<String> {
        let siblings = self.source.dir(&at.parent()?)?;
        let names = siblings.children.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok());
        let name = diag::nearest(std::str::from_utf8(at.name()?).ok()?, names)?;
        let (directory, _) = written.trim_end_matches('/').rsplit_once('/').unzip();
        Some(directory.map_or_else(|| name.to_owned(), |directory| format!("{directory}/{name}")))
    }

    /// Selects everything that a pattern matches, in order; no match is not an error.
    fn pattern(&self, text: &'a str) -> Result<Vec<Selected<'a>>, CopyError> {
        let (directory, found) = self.matching(text)?;
        let mut items = Vec::with_capacity(found.len());
        for (path, name) in found {
            if self.excluded(&path) {
                continue;
            }
            let at = self.resolve_found(&directory.join_path(&path))?;
            items.push(self.at(&at, name));
        }
        Ok(items)
    }

    /// Returns the directory of a pattern's literal prefix, and the paths below it that the pattern
    /// matches, with the last name of each. Does not follow links.
    fn matching(&self, text: &str) -> Result<(TreePath, Matches<'a>), CopyError> {
        let names: Vec<&str> = clean_names(text);
        let n_plain = names.iter().take_while(|name| !glob::has_wildcard(name)).count();
        let (plain, wild) = names.split_at_checked(n_plain).unwrap_or_default();
        let globs: Vec<Glob> =
            wild.iter().map(|name| compile(name, text)).collect::<Result<_, _>>()?;
        let directory = match self.follow(&TreePath::clean(plain.join("/").as_bytes()), text) {
            Err(CopyError::NotFound { .. }) => return Ok((TreePath::root(), Vec::new())),
            directory => directory?,
        };
        let mut found = Vec::new();
        if let Some(dir) = self.source.dir(&directory) {
            match_names(dir, &TreePath::root(), &globs, &mut found);
        }
        Ok((directory, found))
    }

    fn resolve_found(&self, whole: &TreePath) -> Result<TreePath, CopyError> {
        let path = String::from_utf8_lossy(whole.as_bytes()).into_owned();
        let at = self.follow(whole, &path)?;
        if at.is_root() || self.source.get(&at).is_some() {
            return Ok(at);
        }
        Err(CopyError::DanglingLink { source_index: self.index, path, target: at })
    }

    /// Returns whether `--exclude` leaves out a file that a wildcard matched: by its path below the
    /// pattern's literal prefix, or by its name.
    fn excluded(&self, path: &TreePath) -> bool {
        let name = TreePath::clean(path.name().unwrap_or_default());
        self.exclude.matches_from_root(path) || self.exclude.matches_from_root(&name)
    }

    /// Resolves a source of `--parents`: the directories before `/./`, or else the root, each with
    /// what the rest selects.
    fn with_parents(&self, text: &'a str) -> Result<Vec<Selected<'a>>, CopyError> {
        let (base, pattern) = text.split_once("/./").unwrap_or(("/", text));
        if glob::has_wildcard(base) {
            let (directory, found) = self.matching(base)?;
            let whole = found.iter().map(|(path, _name)| directory.join_path(path));
            let selected = |whole: TreePath| self.below(&self.resolve_found(&whole)?, pattern);
            return whole.map(selected).collect();
        }
        let base = self.resolve(base, text)?;
        let selected = self.below(&base, pattern)?;
        if !glob::has_wildcard(pattern) && selected.entries().next().is_none() {
            self.require(&base, &clean_names(pattern).join("/"), text)?;
        }
        Ok(vec![selected])
    }

    /// Selects the files that a pattern of `--parents` matches below the directory `base`.
    fn below(&self, base: &TreePath, pattern: &str) -> Result<Selected<'a>, CopyError> {
        let names = clean_names(pattern);
        let selected = match self.source.dir(base) {
            Some(dir) if names.is_empty() => self.contents(dir, None),
            Some(dir) => {
                let dir = self.with_links_followed(base, dir, &names, pattern)?;
                self.contents_of(dir, Some(patterns([names.join("/").as_str()])?))
            }
            None => selected(b"", SelectedKind::Contents(None)),
        };
        Ok(Selected { keeps_parents: true, ..selected })
    }

    /// Returns the directory `dir` at `base`, with links replaced by their directories along
    /// `names`, up to the first wildcard and without the last name. `--parents` creates directories
    /// there, like `cp --parents` of cp(1).
    fn with_links_followed(
        &self,
        base: &TreePath,
        dir: &'a Dir,
        names: &[&str],
        text: &str,
    ) -> Result<Cow<'a, Dir>, CopyError> {
        let on_the_way = names.split_last().map_or(&[][..], |(_, on_the_way)| on_the_way);
        let mut followed: Option<Tree> = None;
        let mut at = base.clone();
        for name in on_the_way.iter().take_while(|name| !glob::has_wildcard(name)) {
            at = at.join(glob::unescape(name).as_bytes());
            let node = followed.as_ref().unwrap_or(self.source).get(&at);
            match node {
                Some(TreeNode::Dir(_)) => {}
                Some(node) if node.as_symlink().is_some() => {
                    let target = self.follow(&at, text)?;
                    let Some(dir) = self.source.dir(&target) else { break };
                    let tree = followed.get_or_insert_with(|| self.source.clone());
                    tree.insert(&at, TreeNode::Dir(Arc::new(dir.clone())));
                }
                Some(TreeNode::Leaf(_)) | None => break,
            }
        }
        let followed = followed.as_ref().and_then(|tree| tree.dir(base));
        Ok(followed.map_or(Cow::Borrowed(dir), |dir| Cow::Owned(dir.clone())))
    }

    /// Checks that a path without wildcards exists.
    fn require(&self, base: &TreePath, clean: &str, text: &str) -> Result<(), CopyError> {
        let below = TreePath::clean(glob::unescape(clean).as_bytes());
        let at = self.follow(&base.join_path(&below), text)?;
        if self.source.get(&at).is_some() {
            return Ok(());
        }
        let nearest = self.nearest(&at, text);
        Err(CopyError::NotFound { source_index: self.index, path: text.to_owned(), nearest })
    }
}

fn compile(name: &str, text: &str) -> Result<Glob, CopyError> {
    Glob::new(name, DoubleStar::AsSingle).map_err(|reason| CopyError::BadPattern {
        pattern: text.to_owned(),
        reason: PatternError::Bad { pattern: text.to_owned(), reason },
    })
}

/// Splits a source into names, with `.` and `..` resolved.
fn clean_names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
}

/// Collects the paths below `dir` that match, name by name. Does not follow links.
fn match_names<'a>(dir: &'a Dir, at: &TreePath, globs: &[Glob], found: &mut Matches<'a>) {
    let Some((glob, rest)) = globs.split_first() else { return };
    for (name, child) in dir.children.iter().filter(|(name, _)| glob.matches(name)) {
        let path = at.join(name);
        if rest.is_empty() {
            found.push((path, name));
        } else if let Some(dir) = child.as_dir() {
            match_names(dir, &path, rest, found);
        }
    }
}
