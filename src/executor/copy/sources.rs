//! Selection of the sources of COPY and ADD, and the layer that they become.

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::diag::{Diagnostic, Span, codes};
use crate::limits::MAX_ACCOUNTS_BYTES;
use crate::pathio::{PathError, interrupt};
use crate::plan::{self, CopyFrom, CopyOperation, PlannedSource};
use crate::store::OpenContent;
use crate::tree::{
    self, Accounts, Chmod, ContentDigest, ContentHash, ContentWriter, CopyInput, CopyLayer,
    CopyRequest, File, FileOrigin, Meta, Tree, TreePath,
};

use crate::executor::BuildError;
use crate::executor::error::unshared;
use crate::executor::inputs::contexts::CONTEXT_DIRECTORY;
use crate::executor::outline::Outline;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;

use super::archives::{AddInput, UnpackedArchive};
use super::error::copy_error;
use super::remote::{self, RemoteFiles};

type Result<T> = std::result::Result<T, BuildError>;

/// The selected sources of one COPY or ADD.
#[derive(Debug)]
pub(in crate::executor) struct CopySources {
    pub(in crate::executor) tree: Tree,
    pub(in crate::executor) chmod: Option<Chmod>,
    pub(in crate::executor) archives: Vec<UnpackedArchive>,
    /// Remote sources, by the index of their part.
    pub(in crate::executor) remotes: BTreeMap<usize, RemoteFiles>,
    /// The parts, archives separated from other files; empty before the archives are unpacked.
    pub(in crate::executor) classified: Vec<AddInput>,
}

/// Selects the sources and checks the flags. Files of the context are hashed here.
pub(in crate::executor) fn select(
    state: &BuildState<'_>,
    operation: &CopyOperation,
    span: Span,
) -> Result<CopySources> {
    let chmod = operation.chmod.as_ref().map(|(text, span)| plan::parse_chmod(text, *span));
    let chmod = chmod.transpose().map_err(|error| BuildError::from(*error))?;
    let paths: Vec<&str> = operation.parts.iter().filter_map(PlannedSource::path).collect();
    let tree = match &operation.from {
        CopyFrom::Named(name) => {
            let named = state.inputs.named_context(name).map_err(|error| error.at(Some(span)))?;
            named.files(&paths)?
        }
        CopyFrom::Context => match &state.options.context.tree {
            _ if paths.is_empty() => Tree::default(),
            Some(tree) => tree.clone(),
            None => state.inputs.context_files(&paths)?,
        },
        CopyFrom::Stage(number) => state.stage_tree(*number)?,
        CopyFrom::Image(request) => state.image_tree(request)?,
    };
    let mut remotes = BTreeMap::new();
    for (at, part) in operation.parts.iter().enumerate() {
        if let PlannedSource::Remote(part) = part {
            remotes.insert(at, remote::find(state, part)?);
        }
    }
    Ok(CopySources { tree, chmod, archives: Vec::new(), remotes, classified: Vec::new() })
}

impl CopySources {
    /// Returns the tree that local sources are selected from.
    pub(in crate::executor) const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the digest of the selected files for the key.
    pub(in crate::executor) fn digest(
        &self,
        state: &BuildState<'_>,
        operation: &CopyOperation,
        span: Span,
    ) -> Result<ContentDigest> {
        let inputs = self.inputs(state, operation);
        let request = self.request(state, operation, &inputs, None);
        let local = tree::select_digest(&self.tree, &request)
            .map_err(|error| copy_error(state, operation, span, &error))?;
        if self.remotes.is_empty() {
            return Ok(local);
        }
        let mut key = ContentWriter::new("rbuild/add-source/v1");
        key.field(local.as_bytes());
        for found in self.remotes.values() {
            key.field(found.name().as_bytes());
        }
        Ok(key.finish())
    }

    /// Returns the layer that the COPY adds on top of `below`.
    pub(in crate::executor) fn layer(
        &mut self,
        state: &BuildState<'_>,
        operation: &CopyOperation,
        below: &Tree,
        accounts: &Accounts,
        span: Span,
    ) -> Result<CopyLayer> {
        for (at, part) in operation.parts.iter().enumerate() {
            if let (PlannedSource::Remote(part), Some(found)) = (part, self.remotes.get_mut(&at)) {
                found.fetch(state, part)?;
            }
        }
        let unpacks =
            |part: &PlannedSource| matches!(part, PlannedSource::Remote(part) if part.unpack);
        if operation.unpack || operation.parts.iter().any(unpacks) {
            self.unpack_archives(state, operation, span)?;
        }
        let owner =
            operation.chown.as_ref().map(|(text, at)| chown(accounts, text, *at)).transpose()?;
        let inputs = self.inputs(state, operation);
        let request = self.request(state, operation, &inputs, owner);
        tree::copy(&self.tree, below, &request)
            .map_err(|error| copy_error(state, operation, span, &error))
    }

    /// Returns the files as a COPY into an empty root would write them, without unpacking archives.
    pub(in crate::executor) fn plain_layer(
        &self,
        state: &BuildState<'_>,
        operation: &CopyOperation,
        span: Span,
    ) -> Result<CopyLayer> {
        let inputs = self.inputs(state, operation);
        let request = self.request(state, operation, &inputs, None);
        tree::copy(&self.tree, &Tree::default(), &request)
            .map_err(|error| copy_error(state, operation, span, &error))
    }

    fn request<'a>(
        &'a self,
        state: &BuildState<'_>,
        operation: &'a CopyOperation,
        inputs: &'a [CopyInput<'a>],
        owner: Option<(u32, u32)>,
    ) -> CopyRequest<'a> {
        CopyRequest {
            sources: inputs,
            destination: &operation.destination,
            workdir: &operation.workdir,
            owner,
            mode: self.chmod.as_ref(),
            exclude: &operation.exclude,
            parents: operation.parents,
            from_context: belongs_to_root(state, &operation.from),
            link: operation.link,
            now_s: state.options.file_time_s(),
        }
    }

    /// Returns the sources in order. Unpacked archives replace their files.
    fn inputs<'a>(
        &'a self,
        state: &BuildState<'_>,
        operation: &'a CopyOperation,
    ) -> Vec<CopyInput<'a>> {
        let part = |(at, part): (usize, &'a PlannedSource)| match part {
            PlannedSource::Path { text, .. } => Some(CopyInput::Path(text)),
            PlannedSource::Inline { name, content } => {
                Some(inline(name, content, state.options.file_time_s()))
            }
            PlannedSource::Remote(_) => self.remotes.get(&at).and_then(RemoteFiles::input),
        };
        if self.classified.is_empty() {
            return operation.parts.iter().enumerate().filter_map(part).collect();
        }
        let inputs = self.classified.iter().filter_map(|input| match input {
            AddInput::Path(text) => Some(CopyInput::Path(text)),
            AddInput::Archive(at) => self.archives.get(*at).map(UnpackedArchive::as_input),
            AddInput::Part(at) => operation.parts.get(*at).and_then(|it| part((*at, it))),
        });
        inputs.collect()
    }

    /// Opens the content of a selected file.
    pub(in crate::executor) fn open(
        &self,
        state: &BuildState<'_>,
        file: &File,
        _path: &TreePath,
    ) -> io::Result<Box<dyn Read + Send>> {
        match &file.origin {
            FileOrigin::Inline(bytes) => Ok(Box::new(io::Cursor::new(Arc::clone(bytes)))),
            FileOrigin::Directory(place) => {
                self.open_in_directory(state, place.opened(), &place.path())
            }
            FileOrigin::Layer(place) => {
                let store = state.services.store;
                let opened =
                    store.open_layer_file(place.layer, &place.path, place.tar_at, file.size);
                opened.map_err(io::Error::other)
            }
        }
    }

    fn open_in_directory(
        &self,
        state: &BuildState<'_>,
        directory: u32,
        path: &TreePath,
    ) -> io::Result<Box<dyn Read + Send>> {
        if directory == CONTEXT_DIRECTORY {
            let context = state.inputs.context().map_err(io::Error::other)?;
            return Ok(Box::new(context.read(path).map_err(io::Error::other)?));
        }
        if let Some(named) = state.inputs.named_directory(directory) {
            return Ok(Box::new(named.context.read(path).map_err(io::Error::other)?));
        }
        let fetched = self.remotes.values().find_map(|it| it.open(state, directory, path));
        if let Some(opened) = fetched {
            return Ok(Box::new(opened.map_err(io::Error::other)?));
        }
        let mut archives = self.archives.iter();
        let archive = archives.find(|a| a.directory == directory).ok_or(io::ErrorKind::NotFound)?;
        let path = archive.work.path().join("fs").join(path.as_path());
        Ok(Box::new(OsFile::from(rustix::fs::open(
            path,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?)))
    }

    /// Calls `write` with a function that opens the contents of selected files.
    pub(in crate::executor) fn with_contents<R>(
        &self,
        state: &BuildState<'_>,
        write: impl FnOnce(&OpenContent<'_>) -> R,
    ) -> R {
        write(&|file, path| {
            let content: Box<dyn Read> = Box::new(Interruptible(self.open(state, file, path)?));
            Ok(content)
        })
    }
}

/// A content whose reads fail once the process is asked to end: a file can have a hundred GiB.
struct Interruptible(Box<dyn Read + Send>);

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt::check()?;
        self.0.read(buffer)
    }
}

/// Returns whether files from there are copied as root's: those of a directory are, those of an
/// archive keep their owners.
fn belongs_to_root(state: &BuildState<'_>, from: &CopyFrom) -> bool {
    match from {
        CopyFrom::Context => state.options.context.tree.is_none(),
        CopyFrom::Named(name) => {
            state.inputs.named_context(name).is_ok_and(|named| !named.has_owners())
        }
        CopyFrom::Stage(_) | CopyFrom::Image(_) => false,
    }
}

/// Returns whether the layer depends on the layers below: with `--link`, only for names in
/// `--chown`. Otherwise the base image need not be read.
pub(in crate::executor) fn depends_on_what_is_below(operation: &CopyOperation) -> bool {
    !operation.link || operation.chown.as_ref().is_some_and(|(text, _)| needs_accounts(text))
}

/// Returns whether an owner is given by name.
pub(in crate::executor) fn needs_accounts(owner: &str) -> bool {
    !owner.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')
}

/// Returns a heredoc as a file.
fn inline<'a>(name: &'a str, content: &str, mtime_s: i64) -> CopyInput<'a> {
    let bytes: Arc<[u8]> = content.as_bytes().into();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let content = ContentHash::of(&bytes);
    let meta = Meta::root(0o644, mtime_s);
    let file = File { size, content, origin: FileOrigin::Inline(bytes) };
    CopyInput::File { name: name.as_bytes(), meta, file }
}

/// Returns a pattern that matches just this path.
pub(in crate::executor) fn escaped(path: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | '\\');
    path.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn chown(accounts: &Accounts, text: &str, span: Span) -> Result<(u32, u32)> {
    accounts.owner(text).map_err(|error| {
        let message = format!("invalid --chown={text}: {error}");
        let help = "create the user in an earlier RUN, or use numbers";
        Diagnostic::error(codes::BAD_USER, span, message).help(help).into()
    })
}

/// Returns the accounts that `--chown` needs; reads no file of the image for numbers.
pub(in crate::executor) fn accounts_for(
    state: &BuildState<'_>,
    stack: &Stack,
    below: &Outline,
    operation: &CopyOperation,
) -> Result<Accounts> {
    if operation.chown.as_ref().is_some_and(|(text, _)| needs_accounts(text)) {
        return accounts(state, stack, below);
    }
    Ok(Accounts::default())
}

/// Reads `/etc/passwd` or `/etc/group`, up to [`MAX_ACCOUNTS_BYTES`].
pub(in crate::executor) fn read_accounts(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_ACCOUNTS_BYTES + 1).read_to_end(&mut bytes)?;
    let n_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if n_bytes > MAX_ACCOUNTS_BYTES { Err(accounts_too_large()) } else { Ok(bytes) }
}

fn accounts_too_large() -> io::Error {
    let text = format!("it is larger than the limit of {MAX_ACCOUNTS_BYTES} bytes");
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

/// Returns the accounts of an image, read from the files `below`, the outline of `stack`.
pub(in crate::executor) fn accounts(
    state: &BuildState<'_>,
    stack: &Stack,
    below: &Outline,
) -> Result<Accounts> {
    if !below.claims().is_own() {
        // The files have to be fetched.
        return accounts(state, stack, &Outline::of_tree(state.tree(stack).map_err(unshared)?));
    }
    let tree = below.tree();
    let read = |path: &[u8]| -> Result<Vec<u8>> {
        let Ok(path) = tree.resolve(path) else { return Ok(Vec::new()) };
        let Some(file) = tree.file(&path) else { return Ok(Vec::new()) };
        let sources = CopySources {
            tree: Tree::default(),
            chmod: None,
            archives: Vec::new(),
            remotes: BTreeMap::new(),
            classified: Vec::new(),
        };
        let shown = Path::new("/").join(path.as_path());
        let in_path = |error| PathError::new("read the image's", &shown, error);
        if file.size > MAX_ACCOUNTS_BYTES {
            return Err(in_path(accounts_too_large()).into());
        }
        let opened: io::Result<Box<dyn Read + Send>> = match below.open_listed(file, &path)? {
            Some(listed) => Ok(Box::new(listed)),
            None => sources.open(state, file, &path),
        };
        let bytes = opened.and_then(read_accounts).map_err(in_path)?;
        if let FileOrigin::Layer(place) = &file.origin
            && ContentHash::of(&bytes) != file.content
        {
            return Err(state.services.store.damaged_content(place.layer, &place.path).into());
        }
        Ok(bytes)
    };
    Ok(Accounts::parse(&read(b"etc/passwd")?, &read(b"etc/group")?))
}
