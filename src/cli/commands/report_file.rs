//! `--report FILE`: the page of a build, at its end or from the history.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{CliError, Environment, Exit, Global, open_store};
use crate::cli::args::build::BuildArgs;
use crate::cli::html_report::{ImageFiles, Page};
use crate::cli::progress::Reporter;
use crate::cli::records::{End, Recorded, Status};
use crate::pathio::PathError;
use crate::pathio::output::write_output;
use crate::store::Store;

/// A build that is reported of.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// Of the build, if the store remembers it.
    pub(super) id: Option<&'a str>,
    pub(super) status: Status,
    pub(super) recorded: &'a Recorded,
    /// Where its layers are, if there is a store.
    pub(super) store: Option<&'a Store>,
}

impl Report<'_> {
    /// Writes the page.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let (images, no_images) = self.images();
        let page = Page {
            id: self.id,
            status: self.status,
            recorded: self.recorded,
            images: &images,
            no_images: no_images.as_deref(),
        };
        write_output(path, page.html().as_bytes()).map_err(|error| not_written(&error))
    }

    /// What was built, or why it cannot be shown.
    fn images(&self) -> (Vec<ImageFiles>, Option<String>) {
        let (Some(store), Some(End::Built { id, .. })) = (self.store, &self.recorded.end) else {
            return (Vec::new(), None);
        };
        match ImageFiles::all(store, id) {
            Ok(images) => (images, None),
            Err(error) => (Vec::new(), Some(crate::executor::chain(&error))),
        }
    }
}

/// Writes the page of a build that has just ended; how that went comes first.
pub(super) fn at_end(
    path: &Path,
    done: Result<(), CliError>,
    reporter: &Reporter<'_>,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let (recorded, id) = reporter.recorded();
    // If there is none, the build has said so.
    let store = open_store(global, environment).ok();
    let (id, status) = (id.as_deref(), recorded.status(false));
    let report = Report { id, status, recorded: &recorded, store: store.as_ref() };
    match (done, report.write(path)) {
        (Ok(()), written) => written,
        (Err(complaint), Ok(())) => Err(complaint),
        (Err(complaint), Err(unwritten)) => {
            let text = unwritten.to_string().replacen("error:", "warning:", 1);
            Err(CliError::new(text, complaint.exit()))
        }
    }
}

/// Looks at what was asked for, before a build that may take long.
pub(super) fn check(args: &BuildArgs) -> Result<(), CliError> {
    match &args.report {
        Some(_) if args.dry_run || args.inspection().is_some() => {
            let text =
                "error: there is nothing to report of where nothing is built: leave out --report";
            Err(CliError::new(text, Exit::Usage))
        }
        Some(path) => check_place(path),
        None => Ok(()),
    }
}

/// Looks whether a report could be written there.
fn check_place(path: &Path) -> Result<(), CliError> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) | None => Path::new("."),
    };
    let failed =
        |path: &Path, errno: rustix::io::Errno| not_written(&PathError::new("write", path, errno));
    if path.is_dir() {
        return Err(failed(path, rustix::io::Errno::ISDIR));
    }
    let place = if path.exists() { path } else { directory };
    access(place, Access::WRITE_OK).map_err(|errno| failed(place, errno))
}

fn not_written(error: &PathError) -> CliError {
    let why = crate::executor::chain(error);
    let text = format!("error: the report of --report is not written: {why}");
    CliError::new(text, Exit::Environment)
}
