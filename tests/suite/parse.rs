//! The cases of `testdata/parse`: files that parse, with their IR, and files that do not, with
//! what is said about them.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild::diag::{Diagnostic, SourceFile, Style, render};
use rbuild::syntax;

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

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parse").join(kind);
    let mut cases: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
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

/// What a person sees, and the codes and spans that a program sees.
fn report(text: &str, diagnostics: &[Diagnostic]) -> String {
    let mut report = render(diagnostics, &SourceFile::new("Dockerfile", text), Style::Plain);
    for diagnostic in diagnostics {
        let span = diagnostic.span;
        report.push_str(&format!("\n{} {}..{}", diagnostic.code, span.start, span.end));
    }
    report
}
