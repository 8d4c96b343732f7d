//! `--report FILE`: the HTML report of a build, written at its end or from its record.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{CliError, Environment, Exit, Global, open_store};
use crate::cli::args::build::BuildArgs;
use crate::cli::html_report::{ReportPage, ReportedImage};
use crate::cli::progress::Reporter;
use crate::cli::records::{BuildEnd, BuildStatus, BuiltSummary, Recorded};
use crate::pathio::PathError;
use crate::pathio::output::write_output;
use crate::store::Store;

/// A build to report.
#[derive(Debug)]
pub(super) struct BuildReport<'a> {
    /// Id of the build record, if the store has one.
    pub(super) id: Option<&'a str>,
    pub(super) status: BuildStatus,
    pub(super) recorded: &'a Recorded,
    /// The store with the layers of the image, if it could be opened.
    pub(super) store: Option<&'a Store>,
}

impl BuildReport<'_> {
    /// Writes the report to a file.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let (images, no_images) = self.images();
        let page = ReportPage {
            id: self.id,
            status: self.status,
            recorded: self.recorded,
            images: &images,
            no_images: no_images.as_deref(),
        };
        write_output(path, page.html().as_bytes()).map_err(|error| not_written(&error))
    }

    /// Returns the built images, or an explanation why the store cannot show them.
    fn images(&self) -> (Vec<ReportedImage>, Option<String>) {
        let (Some(store), Some(BuildEnd::Built(BuiltSummary { id, .. }))) =
            (self.store, &self.recorded.end)
        else {
            return (Vec::new(), None);
        };
        match ReportedImage::all(store, id) {
            Ok(images) => (images, None),
            Err(error) => (Vec::new(), Some(crate::executor::chain(&error))),
        }
    }
}

/// Writes the report of a build that has just ended. The error of the build takes precedence over one
/// of writing.
pub(super) fn at_end(
    path: &Path,
    done: Result<(), CliError>,
    reporter: &Reporter<'_>,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let (recorded, id) = reporter.recorded();
    // A store that cannot be opened was reported by the build.
    let store = open_store(global, environment).ok();
    let (id, status) = (id.as_deref(), recorded.status(false));
    let report = BuildReport { id, status, recorded: &recorded, store: store.as_ref() };
    match (done, report.write(path)) {
        (Ok(()), written) => written,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(unwritten)) => {
            let text = unwritten.to_string().replacen("error:", "warning:", 1);
            Err(CliError::new(text, error.exit()))
        }
    }
}

/// Checks `--report` before the build: fails if nothing is built or the file cannot be written.
pub(super) fn check(args: &BuildArgs) -> Result<(), CliError> {
    match &args.report {
        Some(_) if args.dry_run || args.inspection().is_some() => {
            let text = "error: --report cannot be used here: nothing is built";
            Err(CliError::new(text, Exit::Usage))
        }
        Some(path) => check_writable(path),
        None => Ok(()),
    }
}

/// Checks whether the file can be created or replaced.
fn check_writable(path: &Path) -> Result<(), CliError> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) | None => Path::new("."),
    };
    let failed =
        |path: &Path, errno: rustix::io::Errno| not_written(&PathError::new("write", path, errno));
    if path.is_dir() {
        return Err(failed(path, rustix::io::Errno::ISDIR));
    }
    let checked = if path.exists() { path } else { directory };
    access(checked, Access::WRITE_OK).map_err(|errno| failed(checked, errno))
}

fn not_written(error: &PathError) -> CliError {
    let why = crate::executor::chain(error);
    let text = format!("error: cannot write the report: {why}");
    CliError::new(text, Exit::Environment)
}
