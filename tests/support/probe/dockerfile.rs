//! Dockerfiles: places lie in the text, what is printed means the same, and planning ends.

use std::collections::BTreeMap;

use rbuild::diag::{Diagnostic, SourceFile, Span, Style, render};
use rbuild::dockerfile::ir;
use rbuild::dockerfile::lint::{self, LintOptions, RuleSelection};
use rbuild::dockerfile::syntax;
use rbuild::oci::{ImageConfig, Platform};
use rbuild::plan::{
    BaseImage, Images, NamedContexts, Network, Outcome, Request, RunSettings, Uncached, plan,
};

/// Reads `bytes` as a Dockerfile.
pub(crate) fn probe(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, diagnostics) = syntax::parse(&text);
    assert_places(&text, &format!("{file:?} {diagnostics:?}"));
    show(&text, &diagnostics);
    drop(syntax::parse_trigger(&text));
    if diagnostics.iter().any(Diagnostic::is_error) {
        return;
    }
    let printed = ir::print(&file);
    let (again, diagnostics_again) = syntax::parse(&printed);
    assert!(
        !diagnostics_again.iter().any(Diagnostic::is_error),
        "{text}\n--- printed as ---\n{printed}\n{diagnostics_again:?}"
    );
    assert_eq!(meaning(&again), meaning(&file), "printed as\n{printed}");
    plan_and_lint(&text, &file, &diagnostics);
}

/// The IR without places and without the one-line texts made for logs.
pub(crate) fn meaning(file: &ir::Dockerfile) -> String {
    let mut meaning = String::new();
    for line in format!("{file:#?}").lines() {
        let text = line.trim_start();
        let place = ["start: ", "end: "].iter().any(|name| text.starts_with(name));
        if !place && !text.starts_with("text: \"") {
            meaning.push_str(line);
            meaning.push('\n');
        }
    }
    meaning
}

/// Every span in the debug text of something must be one of whole characters of `text`.
fn assert_places(text: &str, debug: &str) {
    for part in debug.split("Span { start: ").skip(1) {
        let numbers = part.split_once(" }").map(|(numbers, _)| numbers);
        let pair = numbers.and_then(|numbers| numbers.split_once(", end: "));
        if let Some((start, end)) = pair
            && let (Ok(start), Ok(end)) = (start.parse(), end.parse())
        {
            let span = Span::new(start, end);
            assert!(text.get(start..end).is_some(), "{span:?} is not in {text:?}");
        }
    }
}

fn show(text: &str, diagnostics: &[Diagnostic]) {
    drop(render(diagnostics, &SourceFile::new("Dockerfile", text), Style::Plain));
}

/// Plans with a request for nothing special, and once more when every image is known.
fn plan_and_lint(text: &str, file: &ir::Dockerfile, parsed: &[Diagnostic]) {
    let platform = Platform::new("linux", "amd64", None);
    let mut images = Images::new();
    for _ in 0..2 {
        match plan(file, &request(&platform), &images) {
            Ok(Outcome::Needs(needed)) => images.extend(needed.into_iter().map(|(image, _)| {
                let config = ImageConfig::scratch(&image.platform);
                (image, BaseImage { config, triggers: Vec::new() })
            })),
            Ok(Outcome::Ready(_)) => break,
            Err(diagnostics) => {
                assert_places(text, &format!("{diagnostics:?}"));
                show(text, &diagnostics);
                break;
            }
        }
    }
    let options = LintOptions {
        build_args: &BTreeMap::new(),
        platform: &platform,
        build_platform: &platform,
        target: None,
        only_needed: false,
        ignored: None,
        bases: None,
        selection: RuleSelection::All,
    };
    let warnings = lint::check(file, text, parsed, &options);
    assert_places(text, &format!("{warnings:?}"));
    show(text, &warnings);
}

pub(crate) fn request(platform: &Platform) -> Request {
    Request {
        build_args: BTreeMap::new(),
        target: None,
        platforms: vec![platform.clone()],
        platform_given: false,
        build_platform: platform.clone(),
        labels: Vec::new(),
        changes: Default::default(),
        first_base: None,
        network: Network::None,
        allow_host_network: false,
        allow_insecure: false,
        uncached: Uncached::None,
        run: RunSettings::default(),
        contexts: NamedContexts::default(),
    }
}
