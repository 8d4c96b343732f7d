//! Where an archive is written: a temporary beside its name, then the name; or straight into what
//! cannot be replaced, such as a pipe.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::pathio::{self, Context as _};

use super::Result;

/// The path that stands for standard output.
const STDOUT: &str = "-";

/// Lets `fill` write the file `path`; a regular file appears only when it is complete.
pub(super) fn write<T>(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    if path == Path::new(STDOUT) {
        let mut out = io::stdout().lock();
        let done = fill(&mut out)?;
        out.flush().context("write", Path::new("standard output"))?;
        return Ok(done);
    }
    let path = followed(path)?;
    if let Some(mut special) = open_special(&path)? {
        return fill(&mut special);
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut draft = tempfile::Builder::new()
        .prefix(".rbuild-")
        // As for any new file: the umask takes its bits.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .context("create a file in", folder)?;
    let done = fill(draft.as_file_mut())?;
    draft.persist(&path).map_err(|error| error.error).context("rename a file to", &path)?;
    Ok(done)
}

/// Where a symbolic link leads, so that the link itself stays; a name that is free is itself.
fn followed(path: &Path) -> Result<PathBuf> {
    match rustix::fs::readlink(path, Vec::new()) {
        Ok(_target) => match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
            other => Ok(other.context("follow the link", path)?),
        },
        Err(_not_a_link) => Ok(path.to_owned()),
    }
}

/// Opens what is there, if it is no regular file: a pipe or a device must not be replaced.
fn open_special(path: &Path) -> Result<Option<File>> {
    let Ok(stat) = rustix::fs::stat(path) else { return Ok(None) };
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(None);
    }
    Ok(Some(pathio::create(path)?))
}
