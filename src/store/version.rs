//! The store's format number.
//!
//! The file of format 1 has the number alone. That of a later format has to hold the number, a space and
//! the SHA-256 of the number: anything else is damage, and not another format.

use std::io::Write as _;
use std::path::Path;

use crate::oci::Digest;
use crate::pathio::Context as _;

use super::{StoreError, guard};

/// The format that this rbuild reads and writes.
const VERSION: &str = "1";

/// The file has one short line.
const MAX_VERSION_BYTES: u64 = 100;

/// Checks the format number, and writes it into a new store.
///
/// # Errors
/// [`StoreError::Version`] for a later format; [`StoreError::DamagedVersion`]; the kernel's, with the path.
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    match guard::read_file(&path, MAX_VERSION_BYTES) {
        Ok(found) if found.trim_ascii() == VERSION.as_bytes() => Ok(()),
        Ok(found) => Err(match later(&found) {
            Some(found) => StoreError::Version { root: root.to_owned(), found, known: VERSION },
            None => StoreError::DamagedVersion { path },
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write(root),
        Err(error) => Err(error.into()),
    }
}

/// Writes the format number, in place of the file that may be there.
pub(super) fn write(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    // The draft's name is random, and it is not opened if it is there.
    let tmp = root.join("tmp");
    let mut draft = tempfile::NamedTempFile::new_in(&tmp).context("create a file in", &tmp)?;
    writeln!(draft, "{VERSION}").context("write", &path)?;
    draft.persist(&path).map_err(|refused| refused.error).context("create", &path)?;
    Ok(())
}

/// Returns the number in the file of a later format.
fn later(content: &[u8]) -> Option<String> {
    let (number, sum) = std::str::from_utf8(content).ok()?.trim().split_once(' ')?;
    (Digest::of(number.as_bytes()).hex() == sum).then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_format_is_told_from_damage() {
        let sum = Digest::of(b"2").hex();
        assert_eq!(later(format!("2 {sum}\n").as_bytes()).as_deref(), Some("2"));
        for damaged in ["3", "", "\0", "1J\n", "2\n", &format!("3 {sum}\n")] {
            assert_eq!(later(damaged.as_bytes()), None, "{damaged:?}");
        }
    }
}
