//! The files of an image that list trusted certificates, extended for the time of a step.
//!
//! A mount on such a file would make `update-ca-certificates` fail: rename(2) refuses to replace a mount
//! point. So the certificates are written into the step's own copy of the files. Before the layer is made
//! they are removed from all files that the step changed: it may have copied a bundle elsewhere.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::limits::{MAX_BUNDLE_BYTES, MAX_CLEANED_BYTES, MAX_JAVA_VERSIONS};
use crate::pathio::{Context as _, PathError};
use crate::sandbox::FileTime;

use super::changed_files;
use super::java_keystore::{self, Entry};
use super::mount_point::IN_ROOT;
use super::run_trust::{RunTrust, bundle_variables};

/// The bundles of Debian, Alpine, Gentoo and Arch; OpenSSL's name of it; Fedora and Red Hat, old and new;
/// SUSE; FreeBSD's name, which some images have, too.
const BUNDLES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Truststores of Java in Debian, Fedora and Temurin's images.
const JAVA_STORES: [&str; 3] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/opt/java/openjdk/lib/security/cacerts",
];
/// The directory of Java versions in distributions.
const JAVA_VERSIONS: &str = "/usr/lib/jvm";
/// The truststore in a directory of Java, and that of Java 8.
const IN_JAVA: [&str; 2] = ["lib/security/cacerts", "jre/lib/security/cacerts"];

/// The files that were extended for a step.
#[derive(Debug)]
pub(in crate::executor) struct TrustedFiles {
    /// The lines that were appended to bundles.
    block: Vec<u8>,
    /// The content of the first bundle in the image.
    own_bundle: Option<Vec<u8>>,
    stores: Vec<JavaStore>,
    /// The time before the first change.
    since: FileTime,
}

/// A truststore of Java.
#[derive(Debug)]
struct JavaStore {
    path: String,
    content: Vec<u8>,
    /// Its content at the start of the step.
    extended: Vec<u8>,
}

impl TrustedFiles {
    /// Extends the files of `root`. `env` has the variables of the step, which may name more.
    pub(in crate::executor) fn extend(
        root: BorrowedFd<'_>,
        trust: &RunTrust,
        env: &[(String, String)],
    ) -> Result<Self, PathError> {
        let variable =
            |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let named = bundle_variables().filter_map(variable).filter(|path| path.starts_with('/'));
        let paths = BUNDLES.into_iter().chain(named.map(String::as_str));
        let block = trust.block().into_bytes();
        let (own_bundle, stores) = (None, Vec::new());
        let mut files = Self { block, own_bundle, stores, since: FileTime::now() };
        for path in paths {
            // Several names may stand for one file.
            if let Some((stat, content)) = read(root, path)?
                && !contains(&content, &files.block)
            {
                replace(root, path, &[content.as_slice(), &files.block].concat(), &stat)?;
                files.own_bundle.get_or_insert(content);
            }
        }
        files.extend_stores(root, trust, variable("JAVA_HOME"))?;
        Ok(files)
    }

    fn extend_stores(
        &mut self,
        root: BorrowedFd<'_>,
        trust: &RunTrust,
        java_home: Option<&String>,
    ) -> Result<(), PathError> {
        let mut paths: Vec<String> = JAVA_STORES.map(str::to_owned).to_vec();
        let homes = java_versions(root).into_iter().chain(java_home.cloned());
        paths.extend(homes.flat_map(|home| IN_JAVA.map(|path| format!("{home}/{path}"))));
        for path in paths {
            let Some((stat, content)) = read(root, &path)? else { continue };
            let own = java_keystore::parse(&content);
            if own.iter().flatten().any(Entry::is_added) {
                continue;
            }
            // Other formats are replaced: Java reads both.
            let roots = if own.is_none() { trust.roots.as_slice() } else { &[] };
            let added = trust.extra.iter().chain(roots).enumerate();
            let added = added.filter_map(|(nth, certificate)| Entry::added(nth, certificate));
            let entries: Vec<Entry> = own.into_iter().flatten().chain(added).collect();
            let Some(extended) = java_keystore::write(&entries) else { continue };
            replace(root, &path, &extended, &stat)?;
            self.stores.push(JavaStore { path, content, extended });
        }
        Ok(())
    }

    /// Returns the bundle of the image, if it has one.
    pub(in crate::executor) fn own_bundle(&self) -> Option<&[u8]> {
        self.own_bundle.as_deref()
    }

    /// Removes the added certificates from everything below `changed`, the changes of the step or a
    /// directory that contains them. Modes and times stay: a file that the step left alone is as before.
    ///
    /// # Errors
    /// The error of the kernel, or of a truststore whose changes cannot be told from the additions: in
    /// both cases the layer would contain them.
    pub(in crate::executor) fn clean(&self, changed: BorrowedFd<'_>) -> Result<(), PathError> {
        let min_bytes = self.stores.iter().map(|store| store.extended.len());
        let min_bytes = min_bytes.chain([self.block.len()]).min().unwrap_or(0);
        let range = (u64::try_from(min_bytes).unwrap_or(u64::MAX))..=MAX_CLEANED_BYTES;
        let is_candidate = |stat: &Stat| {
            let time = FileTime::new(stat.st_ctime, stat.st_ctime_nsec);
            let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
            time >= self.since && range.contains(&size)
        };
        changed_files::for_each(changed, &is_candidate, &mut |directory, name, stat| {
            let mut content = Vec::new();
            let file = changed_files::open(directory, name, stat)?;
            File::from(file).read_to_end(&mut content)?;
            if let Some(kept) = self.cleaned(&content)? {
                replace_at(directory, name, &kept, stat)?;
            }
            Ok(())
        })
    }

    /// Returns the content of a file without additions; `None` if there are none.
    fn cleaned(&self, content: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        if let Some(store) = self.stores.iter().find(|store| store.extended == content) {
            return Ok(Some(store.content.clone()));
        }
        if let Some(kept) = without(content, &self.block) {
            return Ok(Some(kept));
        }
        let Some(mut entries) = java_keystore::parse(content) else { return Ok(None) };
        if !entries.iter().any(Entry::is_added) {
            return Ok(None);
        }
        let is_jks = |store: &JavaStore| java_keystore::parse(&store.content).is_some();
        if let Some(other) = self.stores.iter().find(|store| !is_jks(store)) {
            let why = format!(
                "the step changed a truststore of Java, perhaps {}: that cannot be told from the certificates \
                 that were added for the step; change it in a step without them",
                other.path
            );
            return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, why));
        }
        entries.retain(|entry| !entry.is_added());
        Ok(java_keystore::write(&entries))
    }
}

/// Returns whether `path` is a file or a directory of the image.
pub(in crate::executor) fn has_file(root: BorrowedFd<'_>, path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), IN_ROOT).is_ok()
}

/// Returns a regular file of moderate size; `None` if there is none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<Option<(Stat, Vec<u8>)>, PathError> {
    let shown = Path::new(path);
    let open = |flags: OFlags| {
        rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)
    };
    let stat = match open(OFlags::PATH).and_then(rustix::fs::fstat) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(PathError::new("open", shown, errno)),
    };
    let is_small = u64::try_from(stat.st_size).is_ok_and(|size| size <= MAX_BUNDLE_BYTES);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_small {
        return Ok(None);
    }
    let mut content = Vec::new();
    let file = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK).context("open", shown)?);
    file.take(MAX_BUNDLE_BYTES).read_to_end(&mut content).context("read", shown)?;
    Ok(Some((stat, content)))
}

/// Writes a file that exists, and leaves its mode, owner and modification time as in `stat`.
fn replace(root: BorrowedFd<'_>, path: &str, content: &[u8], stat: &Stat) -> Result<(), PathError> {
    let open = |flags| rustix::fs::openat2(root, path, flags, Mode::empty(), IN_ROOT);
    overwrite(&open, content, stat).context("write", Path::new(path))
}

/// Does the same as [`replace`] for a name in a directory.
fn replace_at(
    directory: BorrowedFd<'_>,
    name: &CStr,
    content: &[u8],
    stat: &Stat,
) -> std::io::Result<()> {
    let open = |flags| rustix::fs::openat(directory, name, flags | OFlags::NOFOLLOW, Mode::empty());
    overwrite(&open, content, stat)
}

fn overwrite(
    open: &dyn Fn(OFlags) -> rustix::io::Result<OwnedFd>,
    content: &[u8],
    stat: &Stat,
) -> std::io::Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match open(flags) {
        // Read-only for its owner, who has no rights of root.
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(open(OFlags::RDONLY | OFlags::CLOEXEC)?, mode | Mode::WUSR)?;
            open(flags)?
        }
        opened => opened?,
    };
    let mut file = File::from(file);
    file.write_all(content)?;
    rustix::fs::fchmod(&file, mode)?;
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access, last_modification })?)
}

/// Returns the directories in [`JAVA_VERSIONS`].
fn java_versions(root: BorrowedFd<'_>) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat2(root, JAVA_VERSIONS, flags, Mode::empty(), IN_ROOT);
    let Ok(listed) = listed.and_then(|directory| Dir::read_from(directory.as_fd())) else {
        return Vec::new();
    };
    let names = listed.filter_map(Result::ok);
    let names = names.filter_map(|entry| entry.file_name().to_str().map(str::to_owned).ok());
    let names = names.filter(|name| !name.starts_with('.')).take(MAX_JAVA_VERSIONS);
    names.map(|name| format!("{JAVA_VERSIONS}/{name}")).collect()
}

fn contains(content: &[u8], block: &[u8]) -> bool {
    position(content, block).is_some()
}

/// Finds the first copy of `block`, whose second byte is `#`, in one pass.
fn position(content: &[u8], block: &[u8]) -> Option<usize> {
    let mut from = 0_usize;
    while let Some(at) = content.get(from..)?.iter().position(|byte| *byte == b'#') {
        let at = from.checked_add(at)?;
        if let Some(start) = at.checked_sub(1)
            && content.get(start..)?.starts_with(block)
        {
            return Some(start);
        }
        from = at.checked_add(1)?;
    }
    None
}

/// Returns the content without all copies of `block`; `None` if there is none.
fn without(content: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    let mut kept: Vec<u8> = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = position(rest, block) {
        kept.extend_from_slice(rest.get(..at)?);
        rest = rest.get(at.checked_add(block.len())?..)?;
    }
    if rest.len() == content.len() {
        return None;
    }
    kept.extend_from_slice(rest);
    Some(kept)
}
