//! `--metadata-file`: facts about a build for programs, with the member names of
//! [`docker buildx build`](https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file).

use serde_json::{Map, Value, json};

use super::write_out::WrittenOutputs;
use crate::cli::display::redact;
use crate::cli::environment::Environment;
use crate::cli::progress::{Reporter, vertex_warnings};
use crate::diag::{Diagnostic, SourceFile};
use crate::executor::{Built, Services};
use crate::oci::Reference;
use crate::sandbox;

/// The format version of the metadata file. New members do not change it.
const VERSION: u32 = 1;
/// Buildx's names of the builder and its node, which begin a reference to a build.
const BUILDER: &str = "default/default";

/// The result of a build, as the metadata file describes it.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    pub(super) built: &'a Built,
    pub(super) written: &'a WrittenOutputs,
    /// Every name that the image got.
    pub(super) tags: &'a [Reference],
    /// Warnings about the Dockerfile.
    pub(super) warnings: &'a [Diagnostic],
}

impl Metadata<'_> {
    /// Returns the document. It has warnings only if `BUILDX_METADATA_WARNINGS` asks for them.
    pub(super) fn document(
        &self,
        services: &Services<'_>,
        reporter: &Reporter<'_>,
        environment: &Environment,
        source: &SourceFile,
    ) -> Value {
        let Self { built, written, tags, warnings } = self;
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
        let digest = written.top.as_ref().map_or(built.top, |top| top.digest);
        add("containerimage.digest", json!(digest));
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
}
