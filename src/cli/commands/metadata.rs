//! `--metadata-file`: facts about a build for programs, with the member names of
//! [`docker buildx build`](https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file).

use serde_json::{Map, Value, json};

use super::one_build::FinishedBuild;
use crate::cli::display::redact;
use crate::cli::environment::Environment;
use crate::cli::progress::{Reporter, vertex_warnings};
use crate::diag::SourceFile;
use crate::executor::Services;
use crate::sandbox;

/// The format version of the metadata file. New members do not change it.
const VERSION: u32 = 1;
/// Buildx's names of the builder and its node, which begin a reference to a build.
const BUILDER: &str = "default/default";

/// Returns the document. It has warnings only if `BUILDX_METADATA_WARNINGS` asks for them.
pub(super) fn document(
    done: &FinishedBuild,
    services: &Services<'_>,
    reporter: &Reporter<'_>,
    environment: &Environment,
    source: &SourceFile,
) -> Value {
    let FinishedBuild { built, written, tags, warnings } = done;
    let mut members = Map::new();
    let mut add = |name: &str, value| drop(members.insert(name.to_owned(), value));
    add("rbuild.metadata.version", json!(VERSION));
    // Absent if every step was cached.
    let isolation = services.numbers.has_executed().then(sandbox::isolation).flatten();
    if let Some(isolation) = isolation {
        add("rbuild.isolation", json!(isolation.name()));
    }
    if let Some(id) = reporter.build_id() {
        add("buildx.build.ref", json!(format!("{BUILDER}/{id}")));
    }
    if !warnings.is_empty() && environment.is_true("BUILDX_METADATA_WARNINGS") {
        let (found, source) = (redact::diagnostics(warnings), redact::source(source));
        add("buildx.build.warnings", json!(vertex_warnings(&found, &source)));
    }
    add("containerimage.digest", json!(done.digest()));
    if let Some(top) = &written.top {
        add("containerimage.descriptor", json!(top));
    }
    // For several platforms, the id is that of the index and not of a config.
    if built.id != built.top {
        add("containerimage.config.digest", json!(built.id));
    }
    let names = tags.iter().chain(&written.canonical).map(ToString::to_string);
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        add("image.name", json!(names.join(",")));
    }
    Value::Object(members)
}
