//! The Dockerfile of a context on this machine, and the files beside it.
//!
//! A context may be an untrusted checkout. Paths in it are resolved with the context as root, as by
//! BuildKit: `Dockerfile -> /etc/passwd` means `etc/passwd` of the context. A path of `-f` outside of
//! the context is the user's choice, and may be a pipe, as in `-f <(command)`.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use crate::cli::args::build::BuildArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::context::{IgnoreRules, parse_ignore};
use crate::diag::SourceFile;
use crate::pathio::inside::{FileInside, read_given};
use crate::pathio::{self, PathError};

use super::not_found;

type Result<T> = std::result::Result<T, CliError>;

/// Maximum length of a Dockerfile or an ignore file.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;
/// Names of a Dockerfile that is not called so: that of older versions of docker, and podman's.
pub(crate) const OTHER_NAMES: [&str; 2] = ["dockerfile", "Containerfile"];
/// Names of ignore files, and ends of their names beside a Dockerfile.
const IGNORE_FILES: [&str; 2] = [".dockerignore", ".containerignore"];

/// A Dockerfile of this machine.
#[derive(Debug)]
pub(crate) struct LocatedDockerfile {
    pub(crate) source: SourceFile,
    /// Its location, for files beside it; `Dockerfile` in the context if it was read from standard
    /// input.
    pub(crate) file: FileInside,
}

/// Location of a file that the command line names.
#[derive(Debug)]
pub(crate) enum FileLocation {
    /// A path in the context.
    Inside(FileInside),
    /// A path outside of the context.
    Elsewhere(PathBuf),
}

impl FileLocation {
    /// Returns the location of `path`. Removes `.` and `..` first, as docker does.
    pub(crate) fn of(path: &Path, context: Option<&Path>) -> Self {
        let inside = context.and_then(|context| {
            let name = below(path, context)?;
            Some(Self::Inside(FileInside::new(context, name, path)))
        });
        inside.unwrap_or_else(|| Self::Elsewhere(path.to_owned()))
    }

    /// Reads the file, up to a maximum length.
    pub(crate) fn read(&self, max_bytes: u64) -> std::result::Result<Vec<u8>, PathError> {
        match self {
            Self::Inside(file) => file.read(max_bytes),
            Self::Elsewhere(path) => read_given(path, max_bytes),
        }
    }

    /// Returns the file in a directory that it must not leave: the context, or else its own.
    fn contained(self) -> FileInside {
        match self {
            Self::Inside(file) => file,
            Self::Elsewhere(path) => {
                let parent = path.parent().unwrap_or(Path::new("")).to_owned();
                let name = path.file_name().unwrap_or_default().to_owned();
                FileInside::new(parent, name, path)
            }
        }
    }
}

/// Returns `path` relative to the context, if it is inside of that.
fn below(path: &Path, context: &Path) -> Option<PathBuf> {
    let path = cleaned(&std::path::absolute(path).ok()?);
    // Descriptors of the caller (proc_pid_fd(5)).
    if ["/dev/fd", "/dev/stdin", "/proc"].iter().any(|top| path.starts_with(top)) {
        return None;
    }
    if let Ok(name) = path.strip_prefix(cleaned(context)) {
        return Some(name.to_owned()).filter(|name| name.file_name().is_some());
    }
    // The same directory through a symbolic link.
    let parent = path.parent()?.canonicalize().ok()?;
    let inside = parent.strip_prefix(context.canonicalize().ok()?).ok()?.to_owned();
    Some(inside.join(path.file_name()?))
}

/// Removes `.` and `..` from an absolute path, without following links.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => {
                clean.push(component);
            }
        }
    }
    clean
}

/// Reads the Dockerfile of the context in the directory `context`.
pub(crate) fn find(args: &BuildArgs, context: &Path) -> Result<LocatedDockerfile> {
    let usual = |name: &str| FileInside::new(context, name, Path::new(&args.context).join(name));
    if let Some(text) = &args.bake.dockerfile {
        let source = SourceFile::new("Dockerfile", text.as_str());
        return Ok(LocatedDockerfile { source, file: usual("Dockerfile") });
    }
    if is_stdin(args) {
        return Ok(LocatedDockerfile { source: of_stdin()?, file: usual("Dockerfile") });
    }
    let place = match &args.file {
        Some(path) => FileLocation::of(path, Some(context)),
        None => FileLocation::Inside(usual("Dockerfile")),
    };
    let (place, bytes) = match place.read(MAX_FILE_BYTES) {
        Err(absent) if args.file.is_none() && absent.kind() == std::io::ErrorKind::NotFound => {
            other_name(context, &usual)
        }
        bytes => (place, bytes),
    };
    let bytes = bytes.map_err(|error| {
        not_found::dockerfile(&error, context, Some((Path::new(&args.context), args)))
    })?;
    let file = place.contained();
    let shown = file.shown().file_name().map_or("Dockerfile".into(), |name| name.to_string_lossy());
    let source = SourceFile::new(shown, String::from_utf8_lossy(&bytes));
    Ok(LocatedDockerfile { source, file })
}

/// Reads the Dockerfile under its other names.
fn other_name(
    context: &Path,
    usual: &dyn Fn(&str) -> FileInside,
) -> (FileLocation, std::result::Result<Vec<u8>, PathError>) {
    let is_absent = |error: &PathError| error.kind() == std::io::ErrorKind::NotFound;
    for name in OTHER_NAMES {
        let file = usual(name);
        match file.read(MAX_FILE_BYTES) {
            Err(error) if is_absent(&error) => {}
            bytes => return (FileLocation::Inside(file), bytes),
        }
    }
    // If all are missing, the error names the usual one.
    let error = PathError::new("open", context.join("Dockerfile"), std::io::ErrorKind::NotFound);
    (FileLocation::Inside(usual("Dockerfile")), Err(error))
}

/// Returns whether the Dockerfile is read from standard input.
pub(crate) fn is_stdin(args: &BuildArgs) -> bool {
    args.file.as_deref() == Some(Path::new("-"))
}

/// Reads the Dockerfile from standard input.
pub(crate) fn of_stdin() -> Result<SourceFile> {
    let failed = |error: PathError| CliError::from_error(&error, Exit::Environment);
    let mut bytes = Vec::new();
    let stdin = std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    stdin.map_err(|error| failed(PathError::new("read", "-", error)))?;
    let bytes = pathio::bounded(bytes, MAX_FILE_BYTES, Path::new("-")).map_err(failed)?;
    Ok(SourceFile::new("Dockerfile", String::from_utf8_lossy(&bytes)))
}

/// Reads the ignore file that the command line names (`--ignorefile`).
pub(crate) fn given_ignore_rules(path: &Path) -> Result<IgnoreRules> {
    let bytes = read_given(path, MAX_FILE_BYTES)
        .map_err(|error| CliError::from_error(&error, Exit::Usage))?;
    parsed_ignore_rules(&bytes, path)
}

fn parsed_ignore_rules(bytes: &[u8], shown: &Path) -> Result<IgnoreRules> {
    parse_ignore(&String::from_utf8_lossy(bytes))
        .map_err(|error| CliError::new(format!("error: {}: {error}", shown.display()), Exit::Build))
}

/// Reads the ignore file: that of the Dockerfile, such as `Dockerfile.dockerignore`, or else that of
/// the context. Docker's names come before podman's.
pub(crate) fn ignore_rules(dockerfile: Option<&FileInside>, context: &Path) -> Result<IgnoreRules> {
    let own = dockerfile.into_iter().flat_map(|file| IGNORE_FILES.map(|end| file.with_suffix(end)));
    let common = IGNORE_FILES.map(|name| FileInside::new(context, name, context.join(name)));
    for file in own.chain(common) {
        match file.read(MAX_FILE_BYTES) {
            Ok(bytes) => return parsed_ignore_rules(&bytes, file.shown()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::from_error(&error, Exit::Build)),
        }
    }
    Ok(IgnoreRules::default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make their own files")]

    use super::*;

    #[test]
    fn paths_in_the_context_are_recognized() {
        let directory = tempfile::tempdir().unwrap();
        let context = directory.path().join("context");
        std::fs::create_dir_all(context.join("sub")).unwrap();
        std::os::unix::fs::symlink("context/sub", directory.path().join("alias")).unwrap();
        for (path, want) in [
            ("context/Dockerfile", Some("Dockerfile")),
            ("context/sub/../x", Some("x")),
            ("context/../context/x", Some("x")),
            ("alias/x", Some("sub/x")),
            ("context/../x", None),
            ("contexts/x", None),
            ("context", None),
            ("x", None),
        ] {
            let found = below(&directory.path().join(path), &context);
            assert_eq!(found.as_deref(), want.map(Path::new), "{path}");
        }
        assert_eq!(below(Path::new("/dev/stdin"), Path::new("/")), None);
    }
}
