//! The cases of `testdata/parse`: files that parse, with their IR, and files that do not, with
//! their diagnostics.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and do IO")]

use std::fs;
use std::path::{Path, PathBuf};

use rbuild::diag::{Diagnostic, SourceFile, Style, render};
use rbuild::dockerfile::ir::{CopySource, Kind};
use rbuild::dockerfile::syntax;

#[test]
fn good_files_give_the_recorded_ir() {
    for case in cases("ok") {
        let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let (file, diagnostics) = syntax::parse(&text);
        assert!(!diagnostics.iter().any(Diagnostic::is_error), "{}", report(&text, &diagnostics));
        check(&case, "ir", &format!("{file:#?}\n\n{}", report(&text, &diagnostics)));
    }
}

#[test]
fn bad_files_give_the_recorded_report() {
    for case in cases("err") {
        let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let (_, diagnostics) = syntax::parse(&text);
        assert!(diagnostics.iter().any(Diagnostic::is_error), "{} parses", case.display());
        check(&case, "report", &report(&text, &diagnostics));
    }
}

#[test]
fn trigger_with_a_heredoc_keeps_its_body() {
    let (instruction, diagnostics) = syntax::parse_trigger("COPY <<-X /x\n\ttab\nX");
    assert_eq!(diagnostics, Vec::new());
    let instruction = instruction.unwrap();
    assert_eq!((instruction.span.start, instruction.span.end), (0, 19));
    let Kind::Copy(copy) = instruction.kind else { panic!("{:?}", instruction.kind) };
    let [CopySource::Heredoc(heredoc)] = copy.sources.as_slice() else { panic!("{copy:?}") };
    assert_eq!(heredoc.body.value, "tab\n");
}

#[test]
fn trigger_that_is_bad_says_why() {
    for (trigger, want) in [
        ("", "E0101 0..0 the trigger has no instruction"),
        ("FROM x", "E0113 0..4 FROM is not allowed as an ONBUILD trigger"),
        ("RNU x", "E0103 0..3 unknown instruction `RNU`"),
        ("RUN x\nRUN y", "E0113 6..11 a trigger must be one instruction"),
        ("RUN <<E\n", "E0106 4..7 unterminated heredoc: no line consists of `E`"),
    ] {
        let (_, diagnostics) = syntax::parse_trigger(trigger);
        let got: Vec<String> = diagnostics
            .iter()
            .map(|diagnostic| {
                let span = diagnostic.span;
                format!("{} {}..{} {}", diagnostic.code, span.start, span.end, diagnostic.message)
            })
            .collect();
        assert_eq!(got, [want], "{trigger}");
    }
}

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parse").join(kind);
    let mut cases: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn check(case: &Path, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(case);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Returns the report for people, and the codes and spans for programs.
fn report(text: &str, diagnostics: &[Diagnostic]) -> String {
    let mut report = render(diagnostics, &SourceFile::new("Dockerfile", text), Style::Plain);
    for diagnostic in diagnostics {
        let span = diagnostic.span;
        report.push_str(&format!("\n{} {}..{}", diagnostic.code, span.start, span.end));
    }
    report
}
