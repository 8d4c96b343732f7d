//! `/etc/passwd` and `/etc/group` of images.

use rbuild::tree::Accounts;

/// Reads `bytes` as what USER says, the first line, and both files, with a NUL between them.
pub(crate) fn probe(bytes: &[u8]) {
    let (name, files) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(0));
    let middle = files.iter().position(|byte| *byte == 0).unwrap_or(files.len());
    let (passwd, group) = files.split_at(middle);
    let accounts = Accounts::parse(passwd, group);
    let name = String::from_utf8_lossy(name);
    for name in [name.as_ref(), "root", "0", ":", "root:root"] {
        if let Ok(user) = accounts.user(name) {
            assert!(!user.groups.is_empty() && user.groups.contains(&user.gid));
        }
        let _ = accounts.owner(name);
    }
}
