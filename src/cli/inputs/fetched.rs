//! Files in a fetched context, read without following links out of it.

use std::io::Read as _;
use std::path::Path;

use crate::cli::args::build::BuildArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::context::{Context, HashCache, IgnoreRules};
use crate::diag::SourceFile;
use crate::executor::FetchedContext;
use crate::pathio::{self, PathError};

use super::dockerfile::{MAX_FILE_BYTES, OTHER_NAMES};
use super::{lockfile, not_found};

type Result<T> = std::result::Result<T, CliError>;

/// Reads the Dockerfile of a fetched context.
pub(crate) fn dockerfile_in(args: &BuildArgs, fetched: &FetchedContext) -> Result<SourceFile> {
    if let Some(text) = &args.bake.dockerfile {
        return Ok(SourceFile::new("Dockerfile", text.as_str()));
    }
    let names: Vec<String> = match (&args.file, fetched.single_file()) {
        (Some(file), _) => vec![file.to_string_lossy().into_owned()],
        (None, Some(name)) => vec![name.to_owned()],
        (None, None) => ["Dockerfile"].into_iter().chain(OTHER_NAMES).map(str::to_owned).collect(),
    };
    for name in &names {
        let Some(bytes) = file_in(fetched, name)? else { continue };
        let shown = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        let shown = if fetched.single_file().is_some() { "Dockerfile".into() } else { shown };
        return Ok(SourceFile::new(shown, String::from_utf8_lossy(&bytes).into_owned()));
    }
    let name = names.into_iter().next().unwrap_or_default();
    let error = PathError::new("open", name, std::io::Error::from(std::io::ErrorKind::NotFound));
    Err(not_found::dockerfile(&error, fetched.path(), None))
}

/// Reads the lock file beside the Dockerfile of a fetched context, if there is one.
pub(crate) fn lock_in(args: &BuildArgs, fetched: &FetchedContext) -> Result<Option<String>> {
    let beside = args.file.clone().unwrap_or_default().with_file_name(lockfile::NAME);
    let bytes = file_in(fetched, &beside.to_string_lossy())?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads a file of a fetched context, if it exists there.
pub(crate) fn file_in(fetched: &FetchedContext, name: &str) -> Result<Option<Vec<u8>>> {
    let failed = |error: PathError| CliError::from_error(&error, Exit::Build);
    let rules = IgnoreRules::default();
    let context = Context::open(fetched.path(), rules, 0, HashCache::none()).map_err(failed)?;
    let tree = context.tree(&[name]).map_err(failed)?;
    let Ok(path) = tree.resolve(name.as_bytes()) else { return Ok(None) };
    if tree.file(&path).is_none() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let file = context.read(&path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(PathError::new("read", name, error)))?;
    pathio::bounded(bytes, MAX_FILE_BYTES, Path::new(name)).map(Some).map_err(failed)
}
