//! Errors for missing directories and Dockerfiles, with suggestions of similar ones.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::args::build::BuildArgs;
use crate::cli::args::default_command::is_command;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::images::config_text::one_line;
use crate::diag::nearest;
use crate::oci::Reference;
use crate::pathio::PathError;
use crate::plan::redacted;

/// Maximum number of files that a message names.
const MAX_NAMED: usize = 4;
/// Maximum number of directory entries that are read.
const MAX_ENTRIES: usize = 10_000;
/// Directories whose Dockerfiles are not the user's.
const FOREIGN: [&str; 4] = ["node_modules", "vendor", "target", "testdata"];

/// A minimal Dockerfile, shown if there is none.
pub(crate) const SMALLEST: &str = "  FROM busybox\n  COPY . /app\n  CMD [\"sh\", \"/app/run.sh\"]";

/// Returns the message for `rbuild` without arguments.
pub(crate) fn first_run() -> CliError {
    let here = Path::new(".");
    let cwd = std::path::absolute(here).unwrap_or_default();
    let directory = cwd.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let is_name = |name: &String| name.parse::<Reference>().is_ok() && !name.contains(['/', ':']);
    let name = directory.filter(is_name).unwrap_or_else(|| "app".to_owned());
    let found = dockerfiles(here);
    let is_usual = |path: &PathBuf| path == Path::new("Dockerfile");
    let (what, rest) = match found.iter().find(|path| is_usual(path)).or(found.first()) {
        Some(path) if is_usual(path) => ("Build ./Dockerfile with".to_owned(), " .".to_owned()),
        Some(path) => {
            let rest = match own_context(path) {
                Some(directory) => format!(" {}", one_line(&directory.to_string_lossy())),
                None => format!(" -f {} .", one_line(&path.to_string_lossy())),
            };
            let path = one_line(&path.to_string_lossy());
            (format!("There is no ./Dockerfile, but {path}; build that with"), rest)
        }
        None => (
            format!(
                "There is no Dockerfile in this directory; a small one is\n\n{SMALLEST}\n\n\
                 Write it to ./Dockerfile, then build it with"
            ),
            " .".to_owned(),
        ),
    };
    let text = format!(
        "rbuild builds an image from a Dockerfile and a directory. {what}\n\n  rbuild -t {name}{rest}\n\n\
         `rbuild -h` lists the commands, `rbuild build -h` the options; `--help` has details."
    );
    CliError::new(text, Exit::Usage)
}

/// Returns the error for a context that is not a directory.
pub(crate) fn directory(context: &str) -> CliError {
    let (shown, path) = (redacted(context), Path::new(context));
    let (what, help) = if path.exists() {
        ("is not a directory", instead_of_file(path))
    } else {
        ("does not exist", near_directory(path).map(|near| format!("did you mean `{near}`?")))
    };
    let help = help.map_or_else(String::new, |help| format!("\nhelp: {help}"));
    CliError::new(
        format!("error: context \"{shown}\" {what}: give the directory that COPY reads from{help}"),
        Exit::Usage,
    )
}

/// Returns how to pass a file that was given as the context.
fn instead_of_file(path: &Path) -> Option<String> {
    let shown = path.display();
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    if is_dockerfile(&name) {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).display();
        return Some(format!("pass a Dockerfile with -f: `rbuild -f {shown} {directory}`"));
    }
    is_archive(&name).then(|| format!("`rbuild tar://{shown}` reads an archive"))
}

/// Returns whether the name is that of an archive, which may be a context.
pub(crate) fn is_archive(name: &str) -> bool {
    const ENDS: [&str; 7] =
        [".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.bzip2"];
    ENDS.iter().any(|end| name.to_lowercase().ends_with(end))
}

/// Returns the sibling directory with the most similar name.
fn near_directory(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directories: Vec<String> = names_in(parent.unwrap_or(Path::new(".")), |kind| kind.is_dir());
    let near = nearest(name, directories.iter().map(String::as_str))?;
    Some(path.with_file_name(near).display().to_string())
}

fn names_in(directory: &Path, wanted: impl Fn(std::fs::FileType) -> bool) -> Vec<String> {
    walkdir::WalkDir::new(directory)
        .min_depth(1)
        .max_depth(1)
        .into_iter()
        .take(MAX_ENTRIES)
        .flatten()
        .filter(|entry| wanted(entry.file_type()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn is_dockerfile(name: &str) -> bool {
    (name.contains("dockerfile") || name.contains("containerfile"))
        && !name.ends_with(".dockerignore")
}

/// Returns paths of Dockerfiles in a directory and its subdirectories, relative to it, nearest first.
pub(crate) fn dockerfiles(directory: &Path) -> Vec<PathBuf> {
    let is_ours = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0
            || entry.file_type().is_file()
            || !(name.starts_with('.') || FOREIGN.contains(&&*name))
    };
    let found = walkdir::WalkDir::new(directory)
        .max_depth(2)
        .into_iter()
        .filter_entry(is_ours)
        .take(MAX_ENTRIES)
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| is_dockerfile(&entry.file_name().to_string_lossy().to_lowercase()));
    let mut found: Vec<(usize, PathBuf)> = found
        .filter_map(|entry| {
            Some((entry.depth(), entry.path().strip_prefix(directory).ok()?.into()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Returns the command that builds a directory which has a Dockerfile.
fn build_of(directory: &Path, tags: &[String]) -> String {
    let tags: String = tags.iter().map(|tag| format!("-t {} ", one_line(tag))).collect();
    let directory = one_line(&directory.to_string_lossy());
    let here = if is_command(&directory) { "./" } else { "" };
    format!("rbuild {tags}{here}{directory}")
}

/// Returns the directory of a Dockerfile, if that is found without `-f` there.
fn own_context(path: &Path) -> Option<&Path> {
    let is_usual =
        path.file_name().is_some_and(|name| name == "Dockerfile" || name == "dockerfile");
    path.parent().filter(|parent| is_usual && !parent.as_os_str().is_empty())
}

/// Returns the error for a Dockerfile that does not exist or cannot be read.
///
/// `typed` is the context as it was typed, if that is a directory of this machine: then `-f` is relative
/// to the working directory.
pub(crate) fn dockerfile(
    error: &PathError,
    context: &Path,
    typed: Option<(&Path, &BuildArgs)>,
) -> CliError {
    if error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::IsADirectory {
        return CliError::from_error(error, Exit::Build);
    }
    let (is_directory, path) = (error.path().is_dir(), error.path().display());
    let found = dockerfiles(if is_directory { error.path() } else { context });
    let from = if is_directory { Some(error.path()) } else { typed.map(|(context, _)| context) };
    let shown = |path: &PathBuf| {
        let joined = from.map_or_else(|| path.clone(), |directory| directory.join(path));
        let plain = joined.strip_prefix("./").unwrap_or(&joined);
        match (typed, own_context(plain)) {
            (Some((_, args)), Some(directory)) if args.file.is_none() => {
                format!("`{}`", build_of(directory, &args.tag))
            }
            _ => format!("-f {}", one_line(&plain.to_string_lossy())),
        }
    };
    let named: Vec<String> = found.iter().take(MAX_NAMED).map(shown).collect();
    let help = if named.is_empty() {
        format!("give another file with -f FILE, or create one; a small one is\n\n{SMALLEST}")
    } else {
        format!("did you mean {}?", named.join(" or "))
    };
    let why = if is_directory { "is a directory" } else { "does not exist" };
    CliError::new(format!("error: no Dockerfile found: {path} {why}\nhelp: {help}"), Exit::Build)
}
