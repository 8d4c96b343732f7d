//! `rbuild --check --fix`: what the warnings ask for, written into the Dockerfile.

use std::fs::{File, Metadata, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use super::{CliError, Exit};
use crate::cli::display::line_diff::line_diff;
use crate::cli::display::stdout::{self, say};
use crate::cli::images::config_text::one_line;
use crate::dockerfile::lint::FixedFile;
use crate::pathio::PathError;
use crate::pathio::inside::FileInside;

/// Says what was fixed, and in which lines.
pub(super) fn show(name: &Path, old: &str, fixed: &FixedFile) {
    let mut names: Vec<&str> = fixed.rules.iter().map(|rule| rule.as_str()).collect();
    let n_fixes = names.len();
    names.dedup();
    let noun = if n_fixes == 1 { "warning" } else { "warnings" };
    stdout::lines(&line_diff(&one_line(&name.to_string_lossy()), old, &fixed.text), false);
    say!("fixed {n_fixes} {noun}: {}\n", names.join(", "));
}

/// Replaces the content `old` of the Dockerfile by `new`: whole, with the same mode and owner, or
/// not at all. A symbolic link stays one; none leads out of the file's context.
pub(super) fn write(
    file: &FileInside,
    old: &str,
    new: &str,
    max_bytes: u64,
) -> Result<(), CliError> {
    replaced(file, old, new, max_bytes)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))
}

fn replaced(file: &FileInside, old: &str, new: &str, max_bytes: u64) -> Result<(), PathError> {
    let error = |verb, error| PathError::new(verb, file.shown(), error);
    // Bytes that are no UTF-8 were replaced when it was read: they would be lost.
    if file.read(max_bytes)? != old.as_bytes() {
        let cause = "it is not UTF-8, or was changed meanwhile";
        return Err(error("fix", std::io::Error::other(cause)));
    }
    let was = file.open()?.metadata().map_err(|cause| error("look at", cause))?;
    let mut draft = file.replace()?;
    keep_owner(draft.file(), &was).map_err(|cause| error("fix", cause))?;
    let mode = Permissions::from_mode(was.permissions().mode() & 0o7777);
    let written = draft.write_all(new.as_bytes()).and_then(|()| {
        // Whatever the umask is.
        draft.file().set_permissions(mode)
    });
    written.map_err(|cause| error("write beside", cause))?;
    draft.finish_synced()
}

/// Gives the draft to the owner of the file whose place it takes.
fn keep_owner(draft: &File, was: &Metadata) -> std::io::Result<()> {
    let is = draft.metadata()?;
    if (is.uid(), is.gid()) == (was.uid(), was.gid()) {
        return Ok(());
    }
    fchown(draft, Some(was.uid()), Some(was.gid())).map_err(|cause| {
        let owner = format!("uid {}, gid {}", was.uid(), was.gid());
        let text = format!("the new file could not be given to its owner ({owner}): {cause}");
        std::io::Error::new(cause.kind(), text)
    })
}
