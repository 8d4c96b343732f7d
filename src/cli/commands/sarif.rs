//! What a check found as SARIF 2.1.0, which code scanning reads (OASIS, sarif-v2.1.0).

use std::path::{Component, Path};

use serde_json::{Value, json};

use super::check::rule_page;
use crate::diag::{Code, Diagnostic, Fix, SourceFile, Span};
use crate::dockerfile::lint;

/// What the schema calls itself.
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The log of one run: every rule, and a result for each of `found`, which are in the file at `path`.
pub(super) fn log(found: &[Diagnostic], source: &SourceFile, path: &Path) -> Value {
    let mut rules: Vec<Code> = lint::rules().iter().map(|rule| rule.code).collect();
    for said in found {
        if !rules.contains(&said.code) {
            rules.push(said.code);
        }
    }
    let place = Place { source, uri: uri(path) };
    let results: Vec<Value> = found.iter().map(|said| result(said, &rules, &place)).collect();
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

/// `reportingDescriptor` (3.49).
fn descriptor(code: Code) -> Value {
    let mut rule = json!({
        "id": code.as_str(),
        "shortDescription": { "text": sentence(code.summary()) },
    });
    if let (Some(page), Some(members)) = (rule_page(code), rule.as_object_mut()) {
        members.insert("helpUri".to_owned(), json!(page));
    }
    rule
}

/// `result` (3.27).
fn result(said: &Diagnostic, rules: &[Code], place: &Place<'_>) -> Value {
    let advice: String = said.helps.iter().map(|help| format!("\n{}", sentence(help))).collect();
    let mut result = json!({
        "ruleId": said.code.as_str(),
        "ruleIndex": rules.iter().position(|code| *code == said.code),
        "level": if said.is_error() { "error" } else { "warning" },
        "message": { "text": format!("{}{advice}", sentence(&said.message)) },
        "locations": [{ "physicalLocation": place.physical(said.span) }],
    });
    let others = said.labels.iter().filter(|label| label.span != said.span);
    let related: Vec<Value> = others
        .map(|label| {
            json!({
                "message": { "text": sentence(&label.text) },
                "physicalLocation": place.physical(label.span),
            })
        })
        .collect();
    if let Some(members) = result.as_object_mut() {
        if !related.is_empty() {
            members.insert("relatedLocations".to_owned(), json!(related));
        }
        if let Some(fix) = &said.fix {
            members.insert("fixes".to_owned(), json!([fix_of(fix, said.code, place)]));
        }
    }
    result
}

/// `fix` (3.55).
fn fix_of(fix: &Fix, code: Code, place: &Place<'_>) -> Value {
    let mut edits: Vec<_> = fix.edits.iter().collect();
    edits.sort();
    let replacements = edits.iter().map(|edit| {
        json!({
            "deletedRegion": place.exact(edit.span),
            "insertedContent": { "text": edit.text },
        })
    });
    json!({
        "description": { "text": format!("Mends {code}.") },
        "artifactChanges": [{
            "artifactLocation": { "uri": place.uri },
            "replacements": replacements.collect::<Vec<_>>(),
        }],
    })
}

/// The Dockerfile.
struct Place<'a> {
    source: &'a SourceFile,
    uri: String,
}

impl Place<'_> {
    fn physical(&self, span: Span) -> Value {
        let text = self.source.text().get(span.start..span.end).unwrap_or_default();
        let shown = text.trim_end_matches(['\n', '\r']).len();
        let region = self.exact(Span::new(span.start, span.start + shown));
        json!({ "artifactLocation": { "uri": self.uri }, "region": region })
    }

    /// `region` (3.30): the end is the first character that is no part of it.
    fn exact(&self, span: Span) -> Value {
        let (start, end) = (self.source.line_column(span.start), self.source.line_column(span.end));
        json!({
            "startLine": start.line,
            "startColumn": start.column,
            "endLine": end.line,
            "endColumn": end.column,
        })
    }
}

/// A message as SARIF wants it: a sentence (3.11.4).
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

/// The path as a relative reference (RFC 3986, 4.2), as it was typed; an absolute one as `file:`.
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
