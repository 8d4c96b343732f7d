//! BuildKit's `SolveStatus`, with the members of
//! [its JSON](https://github.com/moby/buildkit/blob/v0.32.2/client/graph.go).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::diag::{Diagnostic, SourceFile};
use crate::dockerfile::lint;
use crate::oci::Digest;

/// Changes of a build's state: one line of `--progress=rawjson`.
#[derive(Debug, Default, Serialize)]
pub(super) struct SolveStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) statuses: Vec<VertexStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) logs: Vec<VertexLog>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<VertexWarning>,
}

/// A step. Times are in RFC 3339.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Vertex {
    pub(super) digest: Digest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<Digest>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
}

/// Bytes that a step transferred.
#[derive(Debug, Serialize)]
pub(super) struct VertexStatus {
    pub(super) id: String,
    pub(super) vertex: Digest,
    pub(super) name: &'static str,
    /// Bytes in all; absent if unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) total: u64,
    pub(super) current: u64,
    pub(super) timestamp: String,
    pub(super) started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completed: Option<String>,
}

/// Output of a step's command.
#[derive(Debug, Serialize)]
pub(super) struct VertexLog {
    pub(super) vertex: Digest,
    /// File descriptor that was written to: 1 or 2.
    pub(super) stream: u8,
    /// The bytes in base64.
    pub(super) data: String,
    pub(super) timestamp: String,
}

/// A warning about the Dockerfile, or about the build if it has no location.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VertexWarning {
    vertex: Digest,
    level: u8,
    /// The warning in one line, in base64 like all texts.
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Debug, Clone, Serialize)]
struct SourceInfo {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

/// A line; BuildKit leaves the column of a warning out.
#[derive(Debug, Clone, Serialize)]
struct Position {
    line: usize,
}

/// The level of all warnings about Dockerfiles.
const WARNING_LEVEL: u8 = 1;

impl VertexWarning {
    /// Returns a warning without a location.
    pub(super) fn of_text(text: &str) -> Self {
        Self {
            vertex: definition_vertex(),
            level: WARNING_LEVEL,
            short: base64(text.as_bytes()),
            detail: Vec::new(),
            url: None,
            source_info: None,
            range: Vec::new(),
        }
    }

    /// Returns a diagnostic as BuildKit words it: `Rule: message (line 2)`.
    pub(super) fn of_diagnostic(found: &Diagnostic, source: &SourceFile) -> Self {
        let start = source.line_column(found.span.start).line;
        let end = source.line_column(found.span.end.saturating_sub(1).max(found.span.start)).line;
        let short = format!("{}: {} (line {start})", found.code, found.message);
        let texts = std::iter::once(found.code.summary());
        let texts = texts.chain(found.helps.iter().map(String::as_str));
        Self {
            detail: texts.map(|text| base64(text.as_bytes())).collect(),
            url: lint::rule_page(found.code),
            source_info: Some(SourceInfo {
                filename: source.name().to_owned(),
                data: base64(source.text().as_bytes()),
                language: "Dockerfile",
            }),
            range: vec![Range { start: Position { line: start }, end: Position { line: end } }],
            ..Self::of_text(&short)
        }
    }
}

/// Returns warnings as BuildKit reports them, for `--metadata-file`. The arguments must be free of
/// credentials.
pub(crate) fn vertex_warnings(found: &[Diagnostic], source: &SourceFile) -> Vec<VertexWarning> {
    let warnings = found.iter().filter(|found| !found.is_error());
    warnings.map(|found| VertexWarning::of_diagnostic(found, source)).collect()
}

/// Returns the vertex of the step that reads the Dockerfile.
pub(super) fn definition_vertex() -> Digest {
    Digest::of(b"build definition")
}

/// Encodes bytes as Go encodes `[]byte` in JSON.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
