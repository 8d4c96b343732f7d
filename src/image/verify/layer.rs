//! Applies a layer's tar to the set of paths of the layers below.

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::oci::{Digest, Hasher, LayerCompression, MediaType};

use super::blobs::unreadable;
use super::{Result, VerifyError};

/// The existing paths, parents included.
#[derive(Default)]
pub(super) struct LayerPaths(BTreeSet<Vec<u8>>);

/// A reader that hashes its bytes.
struct HashingReader<R> {
    source: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_read = self.source.read(to)?;
        self.hasher.update(to.get(..n_read).unwrap_or_default());
        Ok(n_read)
    }
}

/// Returns the compression of a layer's media type. `None` if it is not a layer type.
pub(super) fn compression_of(media_type: &str) -> Option<LayerCompression> {
    let media_type = MediaType::from(media_type.to_owned());
    let is_current = !matches!(media_type, MediaType::Other(_));
    media_type.layer_compression().filter(|_| is_current)
}

fn decoded(source: Box<dyn Read>, compression: LayerCompression) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        LayerCompression::None => source,
        LayerCompression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(source)),
        LayerCompression::Zstd => Box::new(zstd::stream::read::Decoder::new(source)?),
    })
}

impl LayerPaths {
    /// Applies the layer that `open` opens. Returns the digest of its tar, and the tar's length.
    pub(super) fn apply(
        &mut self,
        file: &str,
        open: &dyn Fn() -> Result<Box<dyn Read>>,
        compression: LayerCompression,
    ) -> Result<(Digest, u64)> {
        let failed = |error| unreadable(file, error);
        let source = decoded(open()?, compression).map_err(failed)?;
        let mut archive = tar::Archive::new(HashingReader { source, hasher: Hasher::new() });
        let mut added = Vec::new();
        let below = self.0.clone();
        for entry in archive.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.header().entry_type();
            let path = clean(file, &entry.path_bytes())?;
            if let Some(removed) = whiteout_of(&path) {
                self.remove(file, &below, &removed)?;
                continue;
            }
            let target = entry.link_name_bytes().filter(|_| kind.is_hard_link());
            let target = target.map(|target| clean(file, &target)).transpose()?;
            added.push((path, kind.is_dir(), target));
        }
        let mut hashing = archive.into_inner();
        io::copy(&mut hashing, &mut io::sink()).map_err(failed)?;
        for (path, is_directory, target) in added {
            self.add(file, path, is_directory, target)?;
        }
        let n_bytes = hashing.hasher.n_bytes();
        Ok((hashing.hasher.finish(), n_bytes))
    }

    fn remove(&mut self, file: &str, below: &BTreeSet<Vec<u8>>, removed: &Whiteout) -> Result<()> {
        match removed {
            Whiteout::Content(directory) => self.remove_content(directory),
            Whiteout::Path(path) => {
                if !below.contains(path) {
                    return Err(VerifyError::Whiteout { file: file.to_owned(), name: shown(path) });
                }
                self.remove_content(path);
                self.0.remove(path);
            }
        }
        Ok(())
    }

    fn remove_content(&mut self, directory: &[u8]) {
        let first = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let within = |path: &&Vec<u8>| path.starts_with(&first);
        let gone: Vec<_> = self.0.range(first.clone()..).take_while(within).cloned().collect();
        for path in gone {
            self.0.remove(&path);
        }
    }

    fn add(
        &mut self,
        file: &str,
        path: Vec<u8>,
        is_directory: bool,
        target: Option<Vec<u8>>,
    ) -> Result<()> {
        if let Some(target) = target.filter(|target| !self.0.contains(target)) {
            let (name, target) = (shown(&path), shown(&target));
            return Err(VerifyError::HardLink { file: file.to_owned(), name, target });
        }
        if !is_directory {
            self.remove_content(&path);
        }
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let parents: Vec<_> =
            slashes.filter_map(|(at, _)| path.get(..at)).map(<[u8]>::to_vec).collect();
        self.0.extend(parents);
        self.0.insert(path);
        Ok(())
    }
}

/// The target of a whiteout (image-spec, layer.md, "Whiteouts").
enum Whiteout {
    Path(Vec<u8>),
    /// All content of this directory in lower layers ("Opaque Whiteout").
    Content(Vec<u8>),
}

fn whiteout_of(path: &[u8]) -> Option<Whiteout> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (directory, name) = match slash {
        Some(at) => (path.get(..at)?, path.get(at + 1..)?),
        None => (&[][..], path),
    };
    match name.strip_prefix(b".wh.")? {
        b".wh..opq" => Some(Whiteout::Content(directory.to_vec())),
        hidden if directory.is_empty() => Some(Whiteout::Path(hidden.to_vec())),
        hidden => Some(Whiteout::Path([directory, b"/", hidden].concat())),
    }
}

/// Normalizes a path: no empty names and no `.`. `..` is an error.
fn clean(file: &str, path: &[u8]) -> Result<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let names: Vec<&[u8]> = names.collect();
    if names.contains(&&b".."[..]) {
        return Err(VerifyError::Name { file: file.to_owned(), name: shown(path) });
    }
    Ok(names.join(&b'/'))
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
