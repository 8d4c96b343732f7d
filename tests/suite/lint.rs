//! The build checks: every rule fires on `testdata/lint/RULE/bad.Dockerfile` and is silent on
//! `good.Dockerfile`; ordinary Dockerfiles give no warnings.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and do IO")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rbuild::diag::{Diagnostic, SourceFile, Style, render};
use rbuild::dockerfile::lint::{self, BaseFacts, LintOptions, RuleSelection};
use rbuild::dockerfile::syntax;
use rbuild::oci::{Platform, Reference};

use crate::support::env::Env;

#[test]
fn every_rule_fires_on_its_bad_file_and_is_silent_on_its_good_one() {
    for rule in lint::rules() {
        let name = rule.code.as_str();
        let directory = testdata().join(name);
        let bad = fs::read_to_string(directory.join("bad.Dockerfile")).unwrap();
        let found = check(&bad, &[]);
        assert!(names(&found).contains(&name), "{name} does not fire");
        snapshot(&directory, "bad", &shown(&bad, &found));
        let good = fs::read_to_string(directory.join("good.Dockerfile")).unwrap();
        let found = check(&good, &[]);
        assert!(!names(&found).contains(&name), "{}", shown(&good, &found));
    }
    assert_eq!(lint::rules().len(), 23);
}

#[test]
fn ordinary_files_give_no_warning() {
    let mut n_files = 0;
    for entry in fs::read_dir(testdata().join("realistic")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let found = check(&text, &[]);
        assert!(found.is_empty(), "{}\n{}", path.display(), shown(&text, &found));
        n_files += 1;
    }
    assert!(n_files >= 8, "the files were read");
}

#[test]
fn skip_and_experimental_choose_rules() {
    let file = "FROM scratch AS Base\n# no such name\nARG x\nCMD a\n";
    let stage_and_json = &["StageNameCasing", "JSONArgsRecommended"][..];
    for (directive, want) in [
        ("", stage_and_json),
        ("# check=skip=all\n", &[]),
        ("# check=skip=StageNameCasing\n", &["JSONArgsRecommended"]),
        ("# check=skip=StageNameCasing,JSONArgsRecommended\n", &[]),
        ("# check=skip=all;experimental=all\n", &["InvalidDefinitionDescription"]),
        ("# check=skip=Unknown;error=true\n", stage_and_json),
    ] {
        assert_eq!(names(&check(&format!("{directive}{file}"), &[])), want, "{directive}");
    }
}

#[test]
fn comment_above_an_instruction_skips_rules_there_only() {
    for (comment, want) in [
        ("# check=skip=JSONArgsRecommended the shell is wanted", vec!["StageNameCasing"; 2]),
        ("# check=skip=all", vec!["StageNameCasing"; 2]),
        (
            "# check=skip=StageNameCasing",
            vec!["StageNameCasing", "StageNameCasing", "JSONArgsRecommended"],
        ),
        ("#", vec!["StageNameCasing", "StageNameCasing", "JSONArgsRecommended"]),
    ] {
        let file = format!("FROM scratch AS A\nFROM scratch AS B\n{comment}\nCMD a\n");
        assert_eq!(names(&check(&file, &[])), want, "{comment}");
    }
    let file = "FROM scratch AS A\n# check=skip=StageNameCasing\nFROM scratch AS B\n";
    assert_eq!(names(&check(file, &[])), ["StageNameCasing"]);
}

#[test]
fn build_argument_takes_the_place_of_the_directive() {
    let file = "# check=skip=all;error=true\nFROM scratch AS A\nCMD a\n";
    let given = [("BUILDKIT_DOCKERFILE_CHECK", "skip=StageNameCasing")];
    assert_eq!(names(&check(file, &given)), ["JSONArgsRecommended"]);
    assert_eq!(violation(file, &given), None);
    let given = [("BUILDKIT_DOCKERFILE_CHECK", "error=true")];
    let want = "lint violation found for rules: JSONArgsRecommended, StageNameCasing";
    assert_eq!(violation(file, &given).unwrap(), want);
}

#[test]
fn error_true_makes_an_error_that_names_the_rules() {
    let want = Some("lint violation found for rules: StageNameCasing".to_owned());
    assert_eq!(violation("# check=error=true\nFROM a AS B\nFROM a AS C\n", &[]), want);
    assert_eq!(violation("# check=error=true\nFROM a AS b\n", &[]), None);
    assert_eq!(violation("FROM a AS B\n", &[]), None);
    assert_eq!(violation("# check=error=true;skip=all\nFROM a AS B\n", &[]), None);
}

#[test]
fn undefined_variable_of_a_known_image_is_reported_unless_the_image_defines_it() {
    let file = "FROM everywhere\nCOPY $foo .\nWORKDIR $GIVEN/x\n";
    let found = check(file, &[]);
    assert_eq!(names(&found), ["UndefinedVar"], "{}", shown(file, &found));
}

#[test]
fn defaults_of_one_arg_see_those_before_them() {
    for (line, want) in [
        ("ARG A=1 B=$A C=$B", &[][..]),
        ("ARG B=$A A=1", &["UndefinedVar"]),
        ("ARG A=$A", &["UndefinedVar"]),
        ("ENV A=1 B=$A", &["UndefinedVar"]),
    ] {
        assert_eq!(names(&check(&format!("FROM scratch\n{line}\n"), &[])), want, "{line}");
    }
}

#[test]
fn only_windows_has_roots_with_drives_and_backslashes() {
    let check = |file: &str, os: &str| {
        let (build_args, platform) = (BTreeMap::new(), Platform::new(os, "amd64", None));
        let (parsed, said) = syntax::parse(file);
        let ignored = |_: &str| false;
        let found = lint::check(&parsed, file, &said, &options(&build_args, &platform, &ignored));
        names(&found).len()
    };
    for (path, n_linux, n_windows) in [
        ("C:\\foo", 1, 0),
        ("C:/foo", 1, 0),
        ("\\foo", 1, 0),
        ("C:foo", 1, 1),
        ("foo", 1, 1),
        ("/foo", 0, 0),
    ] {
        let file = format!("# escape=`\nFROM scratch AS a\nFROM a\nWORKDIR {path}\n");
        assert_eq!(check(&file, "linux"), n_linux, "{path}");
        assert_eq!(check(&file, "windows"), n_windows, "{path}");
    }
    let file = "# escape=`\nARG P=windows/amd64\nFROM --platform=$P everywhere AS a\n\
                FROM a\nWORKDIR C:\\foo\n";
    assert_eq!(check(file, "linux"), 0);
}

#[test]
fn triggers_are_checked_where_they_are_written_once_a_stage_starts_from_them() {
    let triggers = "FROM scratch AS a\nONBUILD WORKDIR rel\nONBUILD CMD a b\nONBUILD ENV A b\n\
                    ONBUILD ENV SECRET_KEY=b\nONBUILD COPY $undef /x\nONBUILD EXPOSE 80/TCP\n";
    assert_eq!(names(&check(triggers, &[])), [""; 0]);
    let want = [
        "WorkdirRelativePath",
        "JSONArgsRecommended",
        "LegacyKeyValueFormat",
        "SecretsUsedInArgOrEnv",
        "UndefinedVar",
        "ExposeProtoCasing",
    ];
    let started = format!("{triggers}FROM a\nCMD [\"c\"]\nFROM a\nWORKDIR other\nENV B=$A\n");
    let found = check(&started, &[]);
    assert_eq!(names(&found), want, "{}", shown(&started, &found));
    assert!(found.iter().all(|warning| warning.span.start < triggers.len()));
}

#[test]
fn build_looks_only_into_stages_that_the_target_needs() {
    let text = "FROM scratch AS a\nCMD a\nFROM scratch AS b\nCMD b\nFROM a\n";
    let (file, parsed) = syntax::parse(text);
    let build_args = BTreeMap::new();
    let platform = Platform::new("linux", "arm64", None);
    for (only_needed, target, want) in
        [(false, None, 2), (true, None, 1), (true, Some("b"), 1), (true, Some("0"), 1)]
    {
        let options = LintOptions {
            only_needed,
            target,
            bases: None,
            ..options(&build_args, &platform, &|_| false)
        };
        assert_eq!(lint::check(&file, text, &parsed, &options).len(), want, "{target:?}");
    }
}

#[test]
fn check_prints_warnings_and_fails_if_there_is_one() {
    let directory = context("FROM scratch AS Base\nCOPY secret /\n");
    fs::write(directory.path().join(".dockerignore"), "secret\n").unwrap();
    let output = rbuild(&["--check"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("check", text(&output.stdout));
    assert_eq!(text(&output.stderr), "2 warnings\n");
    let output = rbuild(&["--call=check,format=json"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("check_json", text(&output.stdout));
    let directory = context("FROM scratch\n");
    let output = rbuild(&["--check"], directory.path());
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "no warnings\n".to_owned()));
}

#[test]
fn check_shows_mistakes_too() {
    let directory = context("FROM scratch AS Base\nBADCMD\n");
    let output = rbuild(&["--check"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(shown.contains("unknown instruction `BADCMD`"), "{shown}");
    assert!(shown.contains("warning[StageNameCasing]"), "{shown}");
}

#[test]
fn outline_and_targets_show_what_the_file_offers() {
    let file = "\
# VERSION is what to build
ARG VERSION=1.2
ARG UNUSED=1
# build makes the program
FROM golang:$VERSION AS build
# FLAGS of the compiler
ARG FLAGS=\"-O2\"
ARG VERSION
ARG EMPTY
RUN --mount=type=secret,id=netrc,required=true --mount=type=ssh make
FROM scratch AS other
ARG NOT_NEEDED
FROM --platform=linux/amd64 scratch
COPY --from=build /a /
";
    let directory = context(file);
    for (call, name) in [
        ("--call=outline", "outline"),
        ("--call=outline,format=json", "outline_json"),
        ("--call=targets", "targets"),
        ("--call=targets,format=json", "targets_json"),
    ] {
        let output = rbuild(&[call, "--build-arg", "EMPTY=given"], directory.path());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        insta::assert_snapshot!(name, text(&output.stdout));
    }
    let output = rbuild(&["--call=outline", "--target=none"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("error[E0304]: target stage \"none\" could not be found\n"), "{said}");
    assert_eq!(rbuild(&["--call=other"], directory.path()).status.code(), Some(2));
}

#[test]
fn build_stops_before_its_first_step_when_asked_to() {
    for (file, rule) in [
        ("# check=error=true\nFROM scratch AS Base\n", "StageNameCasing"),
        ("# check=error=true\nFROM scratch\nLABEL a=$b\n", "UndefinedVar"),
    ] {
        let directory = context(file);
        let output = rbuild(&[], directory.path());
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains(&format!("warning[{rule}]")), "{shown}");
        assert!(shown.contains(&format!("lint violation found for rules: {rule}")), "{shown}");
    }
    let directory = context("FROM scratch AS Base\nLABEL a=$b\n");
    let output = rbuild(&[], directory.path());
    let shown = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("warning[StageNameCasing]"), "{shown}");
    assert!(shown.contains("warning[UndefinedVar]"), "{shown}");
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/lint")
}

fn options<'a>(
    build_args: &'a BTreeMap<String, String>,
    platform: &'a Platform,
    ignored: &'a dyn Fn(&str) -> bool,
) -> LintOptions<'a> {
    LintOptions {
        build_args,
        platform,
        build_platform: platform,
        target: None,
        only_needed: false,
        ignored: Some(ignored),
        bases: Some(&facts),
        selection: RuleSelection::All,
    }
}

/// Returns facts about two known images.
fn facts(name: &Reference, platform: &Platform) -> Option<BaseFacts> {
    let env = vec![("GIVEN".to_owned(), "/given".to_owned())];
    let platform = match name.familiar().as_str() {
        "amd64-only:latest" => Platform::new("linux", "amd64", None),
        "everywhere:latest" => platform.clone(),
        _ => return None,
    };
    Some(BaseFacts { env, platform, triggers: Vec::new() })
}

/// Checks a file as if the ignore file contained `tmp`.
fn check(text: &str, build_args: &[(&str, &str)]) -> Vec<Diagnostic> {
    let (file, parsed) = syntax::parse(text);
    assert!(!parsed.iter().any(Diagnostic::is_error), "{}", shown(text, &parsed));
    let platform = Platform::new("linux", "arm64", None);
    let build_args = map(build_args);
    let ignored = |path: &str| path == "tmp" || path.starts_with("tmp/");
    lint::check(&file, text, &parsed, &options(&build_args, &platform, &ignored))
}

fn violation(text: &str, build_args: &[(&str, &str)]) -> Option<String> {
    let found = check(text, build_args);
    let error = lint::violation(&syntax::parse(text).0, &map(build_args), &found)?;
    assert_eq!(error.code.as_str(), "E0501");
    Some(error.message)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn names(found: &[Diagnostic]) -> Vec<&str> {
    found.iter().map(|warning| warning.code.as_str()).collect()
}

fn shown(text: &str, found: &[Diagnostic]) -> String {
    render(found, &SourceFile::new("Dockerfile", text), Style::Plain)
}

fn snapshot(directory: &Path, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(directory);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn context(dockerfile: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
    directory
}

fn rbuild(arguments: &[&str], context: &Path) -> Output {
    let root = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_rbuild"))
        .arg("build")
        .arg("--root")
        .arg(root.path())
        .args(arguments)
        .arg(context)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn another_frontend_that_an_argument_names_is_a_warning() {
    let env = Env::new();
    let foreign = ["--build-arg", "BUILDKIT_SYNTAX=example.com/other:1"];
    let done = env.build("FROM scratch\nCOPY Dockerfile /\n", &foreign).ok();
    assert!(
        done.stderr.contains("BUILDKIT_SYNTAX=example.com/other:1 is ignored"),
        "{}",
        done.stderr
    );
    let own = ["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1.7-labs"];
    let done = env.build("FROM scratch\nCOPY Dockerfile /\n", &own).ok();
    assert!(!done.stderr.contains("is ignored"), "{}", done.stderr);
}
