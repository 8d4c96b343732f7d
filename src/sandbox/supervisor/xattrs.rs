//! Calls about extended attributes (xattr(7)).

use std::ffi::CString;

use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;

use super::lookup::Found;
use super::permissions::{READ, WRITE};
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, number_argument};
use crate::sandbox::sys::notify::Notification;

/// Maximum size of the value of an extended attribute (xattr(7), `XATTR_SIZE_MAX`).
const MAX_XATTR_BYTES: u64 = 65_536;

impl Supervisor {
    pub(super) fn setxattr(&mut self, call: &Notification) -> Answer {
        self.set_xattr(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn lsetxattr(&mut self, call: &Notification) -> Answer {
        self.set_xattr(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn fsetxattr(&mut self, call: &Notification) -> Answer {
        self.set_xattr(call, XattrPlace::Descriptor)
    }

    pub(super) fn getxattr(&mut self, call: &Notification) -> Answer {
        self.get_xattr(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn lgetxattr(&mut self, call: &Notification) -> Answer {
        self.get_xattr(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn fgetxattr(&mut self, call: &Notification) -> Answer {
        self.get_xattr(call, XattrPlace::Descriptor)
    }

    pub(super) fn listxattr(&mut self, call: &Notification) -> Answer {
        self.list_xattrs(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn llistxattr(&mut self, call: &Notification) -> Answer {
        self.list_xattrs(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn flistxattr(&mut self, call: &Notification) -> Answer {
        self.list_xattrs(call, XattrPlace::Descriptor)
    }

    pub(super) fn removexattr(&mut self, call: &Notification) -> Answer {
        self.remove_xattr(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn lremovexattr(&mut self, call: &Notification) -> Answer {
        self.remove_xattr(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn fremovexattr(&mut self, call: &Notification) -> Answer {
        self.remove_xattr(call, XattrPlace::Descriptor)
    }

    fn xattr_file(&self, target: Target, place: XattrPlace, argument: u64) -> Result<Found, Stop> {
        match place {
            XattrPlace::Path { follows } => {
                let path = self.path(target, argument)?;
                self.locate(target, AT_FDCWD, &path, follows)
            }
            XattrPlace::Descriptor => Ok(self.find_descriptor(target, number_argument(argument))?),
        }
    }

    fn xattr_file_to_change(
        &mut self,
        target: Target,
        place: XattrPlace,
        argument: u64,
    ) -> Result<Found, Stop> {
        if let XattrPlace::Path { follows } = place {
            let path = self.path(target, argument)?;
            return self.locate_to_change(target, &path, follows);
        }
        let found = self.xattr_file(target, place, argument)?;
        Ok(self.with_own_file(found)?)
    }

    fn set_xattr(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, name, value, size, flags, _] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file_to_change(target, place, file)?;
        let name = target.string(name)?;
        if size > MAX_XATTR_BYTES {
            return Err(Errno::TOOBIG.into());
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        target.read_exact(value, &mut bytes)?;
        self.check_read_only(&found)?;
        let flags = XattrFlags::from_bits_retain(u32::try_from(flags & 0xff).unwrap_or(0));
        if !self.is_emulated_xattr(&name) {
            self.check(&found, &self.state(target), WRITE)?;
            rustix::fs::setxattr(found.own_path(), name.as_slice(), &bytes, flags)?;
            return Ok(Reply::Value(0));
        }
        if name.starts_with(b"system.") {
            // Access control lists, without which copying programs continue.
            return Err(Errno::OPNOTSUPP.into());
        }
        if !self.state(target).is_privileged() {
            return Err(Errno::PERM.into());
        }
        let mut attributes = self.files.of(&found.stat);
        let exists = attributes.xattrs.contains_key(&name);
        if exists && flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EXIST.into());
        }
        if !exists && flags.contains(XattrFlags::REPLACE) {
            return Err(Errno::NODATA.into());
        }
        attributes.xattrs.insert(name, bytes);
        self.record(&found.stat, attributes);
        Ok(Reply::Value(0))
    }

    /// Returns whether an attribute is one that this process may not set on the disk.
    fn is_emulated_xattr(&self, name: &[u8]) -> bool {
        self.rules.emulates_owners && !name.starts_with(b"user.")
    }

    fn get_xattr(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, name, buffer, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file(target, place, file)?;
        let name = target.string(name)?;
        let value = if self.is_emulated_xattr(&name) {
            if name.starts_with(b"system.") {
                return Err(Errno::OPNOTSUPP.into());
            }
            let mut xattrs = self.files.of(&found.stat).xattrs;
            xattrs.remove(&name).ok_or(Errno::NODATA)?
        } else {
            self.check(&found, &self.state(target), READ)?;
            read_xattr(&found.own_path(), &name)?
        };
        write_sized(target, &value, buffer, size)
    }

    fn list_xattrs(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, buffer, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file(target, place, file)?;
        let mut all = Vec::new();
        if found.file_type() != FileType::Symlink {
            let mut names = vec![0; usize::try_from(MAX_XATTR_BYTES).unwrap_or(0)];
            // A file system without extended attributes has none to list.
            let len = rustix::fs::listxattr(found.own_path(), &mut names).unwrap_or(0);
            names.truncate(len);
            for name in names.split_inclusive(|byte| *byte == 0) {
                if !self.is_emulated_xattr(name) {
                    all.extend_from_slice(name);
                }
            }
        }
        if self.rules.emulates_owners {
            for name in self.files.of(&found.stat).xattrs.keys() {
                all.extend_from_slice(name);
                all.push(0);
            }
        }
        write_sized(target, &all, buffer, size)
    }

    fn remove_xattr(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, name, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file_to_change(target, place, file)?;
        let name = target.string(name)?;
        self.check_read_only(&found)?;
        if !self.is_emulated_xattr(&name) {
            self.check(&found, &self.state(target), WRITE)?;
            rustix::fs::removexattr(found.own_path(), name.as_slice())?;
            return Ok(Reply::Value(0));
        }
        if !self.state(target).is_privileged() {
            return Err(Errno::PERM.into());
        }
        let mut attributes = self.files.of(&found.stat);
        attributes.xattrs.remove(&name).ok_or(Errno::NODATA)?;
        self.record(&found.stat, attributes);
        Ok(Reply::Value(0))
    }
}

/// The kind of the first argument of a call about extended attributes.
#[derive(Debug, Clone, Copy)]
enum XattrPlace {
    Path { follows: bool },
    Descriptor,
}

fn read_xattr(path: &CString, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; usize::try_from(MAX_XATTR_BYTES).unwrap_or(0)];
    let len = rustix::fs::getxattr(path, name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

/// Writes a value as getxattr(2) does: a size of 0 only asks for its length.
fn write_sized(target: Target, value: &[u8], buffer: u64, size: u64) -> Answer {
    let len = u64::try_from(value.len()).unwrap_or(u64::MAX);
    if size != 0 {
        if len > size {
            return Err(Errno::RANGE.into());
        }
        target.write(buffer, value)?;
    }
    Ok(Reply::Value(len.cast_signed()))
}
