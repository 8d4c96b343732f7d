//! Writes an archive to standard output, or as a file by [`Output`].

use std::io::{self, Write};
use std::path::Path;

use crate::pathio::Context as _;
use crate::pathio::output::Output;

use super::Result;

/// The path that stands for standard output.
const STDOUT: &str = "-";

/// Calls `fill` to write the file `path`. A regular file appears only when it is complete.
pub(super) fn write<T>(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    if path == Path::new(STDOUT) {
        let mut out = io::stdout().lock();
        let done = fill(&mut out)?;
        out.flush().context("write", Path::new("standard output"))?;
        return Ok(done);
    }
    let mut out = Output::create(path)?;
    let done = fill(&mut out)?;
    out.finish()?;
    Ok(done)
}
