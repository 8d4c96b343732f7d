//! `--check --fix`: the fixed Dockerfile has the same meaning; and SARIF.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use rbuild::diag::Diagnostic;
use rbuild::dockerfile::ir;
use rbuild::dockerfile::lint::{self, FixedFile, LintOptions, RuleSelection};
use rbuild::dockerfile::syntax;
use rbuild::oci::{ImageConfig, Platform};
use rbuild::plan::{self, BaseImage, Images, Outcome, Request, Uncached};

use crate::support::env::{Env, Who, as_root_and_as_user};
use crate::support::sandbox::is_root;

as_root_and_as_user!(a_file_stays_its_owners);

const AUTHORS: &str = "org.opencontainers.image.authors";

/// Returns the file after its fixes.
fn fixed(text: &str) -> FixedFile {
    let platform = Platform::new("linux", "amd64", None);
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
    lint::fix_all(text, &options, std::slice::from_ref(&platform))
}

/// Returns the images of the file, with the steps that build them, or `None` if it cannot be
/// planned. The author is stored in one place, so that MAINTAINER and its label are equal.
fn planned(file: &ir::Dockerfile) -> Option<Vec<String>> {
    let platform = Platform::new("linux", "amd64", None);
    let request = Request {
        build_args: BTreeMap::new(),
        target: None,
        platforms: vec![platform.clone()],
        platform_given: false,
        build_platform: platform,
        labels: Vec::new(),
        changes: Default::default(),
        first_base: None,
        network: plan::Network::Host,
        allow_host_network: true,
        allow_insecure: true,
        uncached: Uncached::None,
        run: plan::RunSettings::default(),
        contexts: plan::NamedContexts::default(),
    };
    let mut images = Images::new();
    let plan = loop {
        match plan::plan(file, &request, &images) {
            Ok(Outcome::Ready(plan)) => break plan,
            Ok(Outcome::Needs(needs)) => images.extend(needs.into_iter().map(|(image, _)| {
                let config = ImageConfig::scratch(&image.platform);
                (image, BaseImage { config, triggers: Vec::new() })
            })),
            Err(_) => return None,
        }
    };
    let stages = plan.stages.iter().map(|stage| {
        let mut config = serde_json::to_value(&stage.config).unwrap();
        let members = config.as_object_mut().unwrap();
        members.remove("history");
        if let Some(author) = members.remove("author") {
            members["config"]["Labels"][AUTHORS] = author;
        }
        let operations: Vec<String> = stage
            .steps
            .iter()
            .map(|step| without_places(&format!("{:#?}", step.operation)))
            .collect();
        format!("{config:#}\n{}", operations.join("\n"))
    });
    Some(stages.collect())
}

/// Returns debug text without spans.
fn without_places(debug: &str) -> String {
    let mut text = String::new();
    let mut lines = debug.lines();
    while let Some(line) = lines.next() {
        if line.trim_end().ends_with("Span {") {
            for _ in 0..3 {
                lines.next();
            }
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Checks that the fixed file makes the same image, and has nothing left to fix. Returns whether it
/// changed.
#[track_caller]
fn check_meaning(text: &str, name: &str) -> bool {
    let (file, said) = syntax::parse(text);
    let once = fixed(text);
    if said.iter().any(Diagnostic::is_error) {
        assert_eq!(once.text, text, "{name}: a file with mistakes is left alone");
        return false;
    }
    let (file_after, said) = syntax::parse(&once.text);
    assert!(!said.iter().any(Diagnostic::is_error), "{name}:\n{}", once.text);
    assert_eq!(planned(&file_after), planned(&file), "{name}:\n{}", once.text);
    assert_eq!(fixed(&once.text).text, once.text, "{name}: fixed twice");
    once.text != text
}

/// Collects every Dockerfile below a directory.
fn dockerfiles(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            dockerfiles(&path, found);
        } else if path.file_name().unwrap().to_string_lossy().contains("Dockerfile") {
            found.push(path);
        }
    }
}

#[test]
fn fixed_files_make_the_same_images() {
    let mut all = Vec::new();
    dockerfiles(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"), &mut all);
    let mut n_fixed = 0;
    for path in &all {
        let Ok(text) = fs::read_to_string(path) else { continue };
        n_fixed += usize::from(check_meaning(&text, &path.display().to_string()));
    }
    assert!(all.len() > 150 && n_fixed >= 10, "{} files, {n_fixed} fixed", all.len());
}

#[test]
fn every_rule_with_a_fix_writes_what_it_asks_for() {
    for (before, after) in [
        ("from a as B\nCOPY x /\ncopy y /\n", "from a as b\ncopy x /\ncopy y /\n"),
        ("FROM a as b\n", "FROM a AS b\n"),
        (
            "FROM a\nMAINTAINER Jo <jo@x.org>\n",
            "FROM a\nLABEL org.opencontainers.image.authors=\"Jo <jo@x.org>\"\n",
        ),
        (
            "FROM a\nMAINTAINER Jo $HOME\n",
            "FROM a\nLABEL org.opencontainers.image.authors=\"Jo \\$HOME\"\n",
        ),
        ("FROM a\nMAINTAINER Jo\nLABEL org.opencontainers.image.authors=x\n", ""),
        ("FROM a\nENV k v\nLABEL k v\n", "FROM a\nENV k=v\nLABEL k=v\n"),
        ("FROM a\nENV k\tv  w $x\n", "FROM a\nENV k=\"v  w $x\"\n"),
        ("FROM a\nENV k \"v\" 'w'\n", ""),
        ("FROM a\nENV k \"v\"\n", "FROM a\nENV k=\"v\"\n"),
        ("FROM a\nENV k v \\\n  w\n", ""),
        ("# escape=`\nFROM a\nENV k c:\\x y\n", "# escape=`\nFROM a\nENV k=\"c:\\x y\"\n"),
        (
            "FROM a AS Base\nFROM base\nRUN --mount=from=BASE,target=/x true\nCOPY --from=Base / /\n",
            "FROM a AS base\nFROM base\nRUN --mount=from=base,target=/x true\nCOPY --from=base / /\n",
        ),
        ("FROM a AS B\nFROM a AS b\n", ""),
        (
            "FROM a\nRUN a \\\n\n  \n# c\n\n  b\nRUN <<E\n\nE\n",
            "FROM a\nRUN a \\\n# c\n  b\nRUN <<E\n\nE\n",
        ),
        ("FROM a\nEXPOSE 80/TCP 53/Udp\n", "FROM a\nEXPOSE 80/tcp 53/udp\n"),
        ("FROM --platform=$TARGETPLATFORM a\n", "FROM a\n"),
        // Lines silenced by a comment are not changed, nor are line ends and comments.
        ("FROM a\n# check=skip=LegacyKeyValueFormat\nENV k v\n", ""),
        ("FROM a\r\n# here\r\nENV k v\r\n", "FROM a\r\n# here\r\nENV k=v\r\n"),
        // A relative WORKDIR and the shell form have no safe fix.
        ("FROM a\nWORKDIR x\nCMD echo\n", ""),
    ] {
        let want = if after.is_empty() { before } else { after };
        assert_eq!(fixed(before).text, want, "{before}");
        check_meaning(before, before);
        assert!(planned(&syntax::parse(before).0).is_some(), "{before}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Values of every kind keep their meaning.
    #[test]
    fn legacy_values_keep_their_meaning(value in r#"[a-c \\"'$`{}#=:/]{1,12}"#) {
        for line in ["ENV k ", "LABEL k ", "MAINTAINER "] {
            let text = format!("FROM scratch\n{line}{value}\n");
            check_meaning(&text, &text);
        }
    }
}

const OLD: &str = "FROM scratch as Base\nENV NAME some text\nWORKDIR rel\n";
const NEW: &str = "FROM scratch AS base\nENV NAME=\"some text\"\nWORKDIR rel\n";

#[test]
fn fix_shows_and_writes_what_it_changes_and_keeps_the_rest() {
    let env = Env::new();
    env.write("docker/real", OLD);
    let path = env.path("context/Dockerfile");
    symlink("docker/real", &path).unwrap();
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(&path, mode(0o640)).unwrap();
    let done = env.rbuild(&["--check", "--fix", "context"]);
    let want = "--- context/Dockerfile\n+++ context/Dockerfile\n@@ -1,2 +1,2 @@\n\
                -FROM scratch as Base\n-ENV NAME some text\n\
                +FROM scratch AS base\n+ENV NAME=\"some text\"\n\
                fixed 3 warnings: FromAsCasing, LegacyKeyValueFormat, StageNameCasing\n\n\
                warning[WorkdirRelativePath]";
    assert!(done.stdout.starts_with(want), "{}", done.stdout);
    assert_eq!((done.code, &*done.stderr), (Some(1), "1 warning\n"));
    assert_eq!(fs::read_to_string(&path).unwrap(), NEW);
    assert!(path.symlink_metadata().unwrap().is_symlink());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(env.path("context/docker")).unwrap().count(), 1);
    // A second run changes nothing.
    let again = env.rbuild(&["--check", "--fix", "context"]);
    assert!(again.stdout.starts_with("warning[WorkdirRelativePath]"), "{}", again.stdout);
    assert_eq!(fs::read_to_string(&path).unwrap(), NEW);
}

#[test]
fn fix_leaves_alone_what_it_cannot_know() {
    let env = Env::new();
    let broken = "FROM scratch as Base\nRNU x\n";
    env.write("Dockerfile", broken);
    env.rbuild(&["--check", "--fix", "context"]).fails(1, &[]);
    assert_eq!(fs::read_to_string(env.path("context/Dockerfile")).unwrap(), broken);
    let latin = b"FROM scratch as Base\n# caf\xe9\n";
    env.write("Dockerfile", latin);
    env.rbuild(&["--check", "--fix", "context"]).fails(3, &["it is not UTF-8"]);
    assert_eq!(fs::read(env.path("context/Dockerfile")).unwrap(), latin);
    let goes_with = "error: --fix can only be used with --check";
    for (args, part) in [
        (&["--fix", "context"][..], goes_with),
        (&["--call=outline", "--fix", "context"], goes_with),
        (&["--format=sarif", "context"], "error: --format can only be used with --check"),
        (&["--call=targets", "--format=sarif", "context"], "use format=json"),
        (&["--check", "--fix", "-"], "--fix needs a Dockerfile in a local directory"),
        (
            &["--check", "--fix", "-f", "-", "context"],
            "--fix needs a Dockerfile in a local directory",
        ),
        (
            &["--check", "--fix", "https://127.0.0.1:1/x.tar"],
            "--fix needs a Dockerfile in a local directory",
        ),
        (&["--check", "--format=xml", "context"], "`xml` is not one of text, json, sarif"),
    ] {
        env.rbuild(args).fails(2, &[part]);
    }
}

/// Returns a member that must exist.
#[track_caller]
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

#[test]
fn sarif_has_what_the_standard_asks_for() {
    let env = Env::new();
    env.write("docker/My File", "FROM scratch AS Base\n# ää\nENV ä b c\nCOPY $foo /\nCMD a\nfoo\n");
    let args = ["--check", "--format=sarif", "-f", "context/docker/My File", "context"];
    let done = env.rbuild(&args);
    assert_eq!(done.code, Some(1));
    let log: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    assert!(at(&log, "/$schema").as_str().unwrap().ends_with("sarif-2.1.0.json"));
    assert_eq!(log["runs"].as_array().unwrap().len(), 1);
    assert_eq!(at(&log, "/runs/0/columnKind"), "unicodeCodePoints");
    assert_eq!(at(&log, "/runs/0/tool/driver/name"), "rbuild");
    let rules = at(&log, "/runs/0/tool/driver/rules").as_array().unwrap();
    let ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
    for rule in rules {
        let text = at(rule, "/shortDescription/text").as_str().unwrap();
        assert!(text.ends_with('.'), "{text}");
        let is_check = lint::rules().iter().any(|check| rule["id"] == check.code.as_str());
        assert_eq!(rule.get("helpUri").is_some(), is_check, "{rule}");
    }
    let results = at(&log, "/runs/0/results").as_array().unwrap();
    for result in results {
        check_result(result, &ids);
    }
    let legacy = results.iter().find(|it| it["ruleId"] == "LegacyKeyValueFormat").unwrap();
    let region = json!({ "startLine": 3, "startColumn": 1, "endLine": 3, "endColumn": 10 });
    assert_eq!(*at(legacy, "/locations/0/physicalLocation/region"), region);
    let replacement = at(legacy, "/fixes/0/artifactChanges/0/replacements/0");
    let deleted = json!({ "startLine": 3, "startColumn": 6, "endLine": 3, "endColumn": 10 });
    assert_eq!(replacement["deletedRegion"], deleted);
    assert_eq!(replacement["insertedContent"]["text"], "=\"b c\"");
    let levels: Vec<&str> = results.iter().map(|it| it["level"].as_str().unwrap()).collect();
    assert!(levels.contains(&"error") && levels.contains(&"warning"), "{levels:?}");
    // The other way to request SARIF.
    let call = ["--call=check,format=sarif", "-f", "context/docker/My File", "context"];
    assert_eq!(env.rbuild(&call).stdout, done.stdout);
}

fn check_result(result: &Value, ids: &[&str]) {
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(result["ruleId"], ids[index]);
    assert!(["error", "warning"].contains(&result["level"].as_str().unwrap()));
    assert!(!at(result, "/message/text").as_str().unwrap().is_empty());
    let related = result["relatedLocations"].as_array().into_iter().flatten();
    for location in result["locations"].as_array().unwrap().iter().chain(related) {
        let place = at(location, "/physicalLocation");
        assert_eq!(at(place, "/artifactLocation/uri"), "context/docker/My%20File");
        let number = |name: &str| place["region"][name].as_u64().unwrap();
        let (start, end) = (
            (number("startLine"), number("startColumn")),
            (number("endLine"), number("endColumn")),
        );
        assert!(start.0 >= 1 && start.1 >= 1 && end >= start, "{place}");
    }
    for fix in result["fixes"].as_array().into_iter().flatten() {
        let change = at(fix, "/artifactChanges/0");
        assert_eq!(at(change, "/artifactLocation/uri"), "context/docker/My%20File");
        assert!(!change["replacements"].as_array().unwrap().is_empty());
    }
}

#[test]
fn control_sequences_of_a_dockerfile_are_not_shown() {
    let env = Env::new();
    let file = "ARG V=a\u{1b}]0;pwn\u{7}\n# Base is \u{1b}]0;pwn\u{7}\nFROM scratch as Base\n\
                # A is \u{1b}]0;pwn\u{7}\nARG A=b\u{1b}]0;pwn\u{7}\n\
                ENV NAME so\u{1b}]0;pwn\u{7}me text\nWORKDIR rel\u{1b}]0;pwn\u{7}\n";
    env.write("Dockerfile", file);
    for args in [&["--call=outline"][..], &["--call=targets"], &["--check"], &["--check", "--fix"]]
    {
        let done = env.rbuild(&[args, &["context"]].concat());
        let shown = done.stdout + &done.stderr;
        assert!(shown.lines().count() >= 2, "{args:?}: {shown}");
        let is_bad = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(is_bad), "{args:?}: {shown:?}");
    }
}

fn a_file_stays_its_owners(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", OLD);
    let path = env.path("context/Dockerfile");
    let owner = |path: &Path| path.metadata().map(|meta| (meta.uid(), meta.gid())).unwrap();
    if matches!(who, Who::User(_)) {
        // The user owns the directory, root owns the file.
        env.rbuild(&["--check", "--fix", "context"])
            .fails(3, &["Dockerfile", "its owner", "Operation not permitted"]);
        assert_eq!((owner(&path), fs::read_to_string(&path).unwrap()), ((0, 0), OLD.to_owned()));
        assert_eq!(fs::read_dir(env.path("context")).unwrap().count(), 1);
        env.hand_over("context");
    } else if is_root() {
        chown(&path, Some(1234), Some(2345)).unwrap();
    }
    let before = owner(&path);
    env.rbuild(&["--check", "--fix", "context"]).fails(1, &["1 warning"]);
    assert_eq!((owner(&path), fs::read_to_string(&path).unwrap()), (before, NEW.to_owned()));
}
