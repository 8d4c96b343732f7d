//! The values that PAX records and GNU headers give for the entry that follows them.

use crate::tree::Meta;

use super::ArchiveError;
use super::pax::{self, XATTR_PREFIX};
use super::sparse::PaxSparse;

/// Values that override the fields of the next header (POSIX pax(1), "pax Extended Header"; GNU tar
/// manual, "Basic Tar Format").
#[derive(Debug, Default)]
pub(super) struct HeaderOverrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) meta: Meta,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime_s: Option<i64>,
    pub(super) size: Option<u64>,
    pub(super) sparse: PaxSparse,
}

impl HeaderOverrides {
    pub(super) fn read_pax(&mut self, bytes: &[u8], at: u64) -> Result<(), ArchiveError> {
        let wrong = || ArchiveError::Malformed { at, what: "a PAX value is not a number" };
        let id = |value: &[u8]| {
            pax::decimal(value).and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)
        };
        for (key, value) in pax::decode(bytes, at)? {
            match key {
                // An empty value deletes the record, so the header's field counts (POSIX pax(1)).
                b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
                b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
                b"uid" if !value.is_empty() => self.uid = Some(id(value)?),
                b"gid" if !value.is_empty() => self.gid = Some(id(value)?),
                b"size" if !value.is_empty() => {
                    self.size = Some(pax::decimal(value).ok_or_else(wrong)?);
                }
                b"mtime" if !value.is_empty() => {
                    self.mtime_s = Some(pax::seconds(value).ok_or_else(wrong)?);
                }
                _ => self.read_other(key, value, at)?,
            }
        }
        Ok(())
    }

    fn read_other(&mut self, key: &[u8], value: &[u8], at: u64) -> Result<(), ArchiveError> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            let xattrs = self.meta.xattrs.get_or_insert_default();
            xattrs.insert(name.into(), value.into());
        } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            self.sparse.read(name, value, at)?;
        }
        // Other records (comments, times, names of owners) contain nothing that a layer keeps.
        Ok(())
    }
}
