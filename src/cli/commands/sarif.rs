//! The result of `--check` as SARIF 2.1.0, the format that code scanning services read. Numbers of
//! sections refer to <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.

use std::path::{Component, Path};

use serde_json::{Value, json};

use crate::diag::{Code, Diagnostic, Fix, SourceFile, Span};
use crate::dockerfile::lint;

/// The `$schema` of a log file (3.13.3).
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Returns the log of one run: all rules, and a result for each of `found` in the Dockerfile at `path`.
pub(super) fn log(found: &[Diagnostic], source: &SourceFile, path: &Path) -> Value {
    let mut rules: Vec<Code> = lint::rules().iter().map(|rule| rule.code).collect();
    for diagnostic in found {
        if !rules.contains(&diagnostic.code) {
            rules.push(diagnostic.code);
        }
    }
    let file = SarifFile { source, uri: uri(path) };
    let results: Vec<Value> =
        found.iter().map(|diagnostic| result(diagnostic, &rules, &file)).collect();
    let driver = json!({
        "name": "rbuild",
        "version": env!("CARGO_PKG_VERSION"),
        "rules": rules.iter().map(|code| descriptor(*code)).collect::<Vec<_>>(),
    });
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            // Columns are characters, not units of UTF-16.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

/// Returns the `reportingDescriptor` of a rule (3.49).
fn descriptor(code: Code) -> Value {
    let mut rule = json!({
        "id": code.as_str(),
        "shortDescription": { "text": sentence(code.summary()) },
    });
    if let (Some(page), Some(members)) = (lint::rule_page(code), rule.as_object_mut()) {
        members.insert("helpUri".to_owned(), json!(page));
    }
    rule
}

/// Returns the `result` of a diagnostic (3.27).
fn result(diagnostic: &Diagnostic, rules: &[Code], file: &SarifFile<'_>) -> Value {
    let advice: String =
        diagnostic.helps.iter().map(|help| format!("\n{}", sentence(help))).collect();
    let mut result = json!({
        "ruleId": diagnostic.code.as_str(),
        "ruleIndex": rules.iter().position(|code| *code == diagnostic.code),
        "level": if diagnostic.is_error() { "error" } else { "warning" },
        "message": { "text": format!("{}{advice}", sentence(&diagnostic.message)) },
        "locations": [{ "physicalLocation": file.physical_location(diagnostic.span) }],
    });
    let others = diagnostic.labels.iter().filter(|label| label.span != diagnostic.span);
    let related: Vec<Value> = others
        .map(|label| {
            json!({
                "message": { "text": sentence(&label.text) },
                "physicalLocation": file.physical_location(label.span),
            })
        })
        .collect();
    if let Some(members) = result.as_object_mut() {
        if !related.is_empty() {
            members.insert("relatedLocations".to_owned(), json!(related));
        }
        if let Some(fix) = &diagnostic.fix {
            members.insert("fixes".to_owned(), json!([fix_of(fix, diagnostic.code, file)]));
        }
    }
    result
}

/// Returns a `fix` with its replacements (3.55).
fn fix_of(fix: &Fix, code: Code, file: &SarifFile<'_>) -> Value {
    let mut edits: Vec<_> = fix.edits.iter().collect();
    edits.sort();
    let replacements = edits.iter().map(|edit| {
        json!({
            "deletedRegion": file.region(edit.span),
            "insertedContent": { "text": edit.text },
        })
    });
    json!({
        "description": { "text": format!("Fixes {code}.") },
        "artifactChanges": [{
            "artifactLocation": { "uri": file.uri },
            "replacements": replacements.collect::<Vec<_>>(),
        }],
    })
}

/// The Dockerfile that all locations refer to, with its URI.
struct SarifFile<'a> {
    source: &'a SourceFile,
    uri: String,
}

impl SarifFile<'_> {
    /// Returns a `physicalLocation` (3.29), without the line breaks at the end of the span.
    fn physical_location(&self, span: Span) -> Value {
        let text = self.source.text().get(span.start..span.end).unwrap_or_default();
        let shown = text.trim_end_matches(['\n', '\r']).len();
        let region = self.region(Span::new(span.start, span.start + shown));
        json!({ "artifactLocation": { "uri": self.uri }, "region": region })
    }

    /// Returns a `region` (3.30). `endColumn` is the column after the last character.
    fn region(&self, span: Span) -> Value {
        let (start, end) = (self.source.line_column(span.start), self.source.line_column(span.end));
        json!({
            "startLine": start.line,
            "startColumn": start.column,
            "endLine": end.line,
            "endColumn": end.column,
        })
    }
}

/// Makes a message a sentence: plain text messages consist of sentences (3.11.3).
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

/// Converts a relative path to a relative reference (RFC 3986, section 4.2), an absolute path to a
/// `file:` URI.
fn uri(path: &Path) -> String {
    let mut uri = String::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => uri.push_str("file://"),
            Component::CurDir => {}
            Component::ParentDir | Component::Normal(_) => {
                let is_first = uri.is_empty();
                if !is_first {
                    uri.push('/');
                }
                push_encoded(&mut uri, &part.as_os_str().to_string_lossy());
            }
        }
    }
    uri
}

fn push_encoded(uri: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_relative_references() {
        for (path, want) in [
            ("Dockerfile", "Dockerfile"),
            ("./docker/My File", "docker/My%20File"),
            ("../app/Dockerfile", "../app/Dockerfile"),
            ("/srv/ä:b", "file:///srv/%C3%A4%3Ab"),
        ] {
            assert_eq!(uri(Path::new(path)), want);
        }
    }

    #[test]
    fn messages_are_sentences() {
        assert_eq!(sentence("the file is there"), "The file is there.");
        assert_eq!(sentence("did you mean `RUN`?"), "Did you mean `RUN`?");
        assert_eq!(sentence(""), ".");
    }
}
