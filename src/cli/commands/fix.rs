//! `rbuild --check --fix`: writes the fixes of build checks into the Dockerfile.

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

/// Prints the changed lines, and the rules whose warnings were fixed.
pub(crate) fn show(name: &Path, old: &str, fixed: &FixedFile) {
    let mut names: Vec<&str> = fixed.rules.iter().map(|rule| rule.as_str()).collect();
    let n_fixes = names.len();
    names.dedup();
    let noun = if n_fixes == 1 { "warning" } else { "warnings" };
    stdout::lines(&line_diff(&one_line(&name.to_string_lossy()), old, &fixed.text), false);
    say!("fixed {n_fixes} {noun}: {}\n", names.join(", "));
}

/// Replaces the content `old` of the Dockerfile by `new` atomically, keeping mode and owner. A symbolic
/// link is followed, but never out of the context.
///
/// # Errors
/// [`Exit::Environment`] if the file cannot be written, or no longer has the content `old`.
pub(super) fn write(
    file: &FileInside,
    old: &str,
    new: &str,
    max_bytes: u64,
) -> Result<(), CliError> {
    replace(file, old, new, max_bytes)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))
}

fn replace(file: &FileInside, old: &str, new: &str, max_bytes: u64) -> Result<(), PathError> {
    let error = |verb, error| PathError::new(verb, file.shown(), error);
    // Reading replaced bytes that are not UTF-8: writing would lose them.
    if file.read(max_bytes)? != old.as_bytes() {
        let cause = "it is not UTF-8, or it changed in the meantime";
        return Err(error("fix", std::io::Error::other(cause)));
    }
    let was = file.open()?.metadata().map_err(|cause| error("inspect", cause))?;
    let mut draft = file.replace()?;
    keep_owner(draft.file(), &was).map_err(|cause| error("fix", cause))?;
    let mode = Permissions::from_mode(was.permissions().mode() & 0o7777);
    let written = draft.write_all(new.as_bytes()).and_then(|()| {
        // fchmod(2) ignores the umask, unlike open(2).
        draft.file().set_permissions(mode)
    });
    written.map_err(|cause| error("write a new version of", cause))?;
    draft.finish_synced()
}

/// Changes the owner of the draft to that of the file that it replaces.
fn keep_owner(draft: &File, was: &Metadata) -> std::io::Result<()> {
    let is = draft.metadata()?;
    if (is.uid(), is.gid()) == (was.uid(), was.gid()) {
        return Ok(());
    }
    fchown(draft, Some(was.uid()), Some(was.gid())).map_err(|cause| {
        let owner = format!("uid {}, gid {}", was.uid(), was.gid());
        let text = format!("cannot keep its owner ({owner}): {cause}");
        std::io::Error::new(cause.kind(), text)
    })
}
