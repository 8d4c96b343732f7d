//! Dockerfiles in the style of well-known projects: `testdata/real`. Each is parsed, printed,
//! planned and checked; those with a context are built.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild::diag::{Diagnostic, SourceFile, Style, render};
use rbuild::dockerfile::ir;
use rbuild::dockerfile::lint::{self, LintOptions, RuleSelection};
use rbuild::dockerfile::syntax;
use rbuild::oci::{ImageConfig, Platform};
use rbuild::plan::{self, BaseImage, Images, Outcome, Plan, Request, Uncached};

use crate::support::env::{Env, Who, as_root_and_as_user};

as_root_and_as_user!(those_with_a_context_build);

/// Number of cases, and of those that can be built without a network.
const N_FILES: (usize, usize) = (31, 6);

#[test]
fn real_files_parse_and_print_to_the_same_meaning() {
    let cases = cases();
    assert_eq!(cases.len(), N_FILES.0);
    for case in cases {
        let file = parsed(&case);
        let (again, diagnostics) = syntax::parse(&ir::print(&file));
        assert!(!diagnostics.iter().any(Diagnostic::is_error), "{}", case.display());
        assert_eq!(meaning(&again), meaning(&file), "{}", case.display());
    }
}

#[test]
fn real_files_plan_for_two_platforms() {
    for case in cases() {
        let file = parsed(&case);
        for architecture in ["amd64", "arm64"] {
            let platform = Platform::new("linux", architecture, None);
            let plan = planned(&file, &platform, &case);
            assert!(plan.stages.iter().all(|stage| stage.config.os == "linux"));
            let last = plan.stages.get(plan.targets[0].stage).unwrap();
            let config = &last.config;
            assert_eq!(config.architecture, architecture, "{}", case.display());
            let starts = !(config.config.entrypoint.is_none() && config.config.cmd.is_none());
            let is_data = ["static-site", "mounts-everywhere"];
            let is_data = is_data.iter().any(|name| case.ends_with(name));
            assert_ne!(starts, is_data, "{}", case.display());
        }
    }
}

#[test]
fn real_files_give_the_recorded_warnings_and_no_other() {
    for case in cases() {
        let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let file = parsed(&case);
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
        let (_, diagnostics) = syntax::parse(&text);
        let found = lint::check(&file, &text, &diagnostics, &options);
        let shown = render(&found, &SourceFile::new("Dockerfile", &text), Style::Plain);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&case);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("warnings", shown));
    }
}

fn those_with_a_context_build(who: Who) {
    let cases: Vec<PathBuf> =
        cases().into_iter().filter(|case| case.join("context").exists()).collect();
    assert_eq!(cases.len(), N_FILES.1);
    let env = Env::of(who);
    env.base();
    for case in cases {
        fs::remove_dir_all(env.path("context")).unwrap();
        copy(&case.join("context"), &env.path("context"));
        env.hand_over("context");
        let dockerfile = fs::read_to_string(case.join("Dockerfile")).unwrap();
        env.build(&dockerfile, &["-o", "out"]).ok();
        let want = fs::read_to_string(case.join("files.txt")).unwrap();
        for line in want.lines() {
            let (path, text) = line.split_once(": ").unwrap();
            let found = fs::read_to_string(env.path("out").join(path)).unwrap();
            assert_eq!(found.trim_end().replace('\n', "|"), text, "{}: {path}", case.display());
        }
        fs::remove_dir_all(env.path("out")).unwrap();
    }
}

/// Copies a directory of text files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::write(to, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/real");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn parsed(case: &Path) -> ir::Dockerfile {
    let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
    let (file, diagnostics) = syntax::parse(&text);
    let errors: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    let shown = render(&errors, &SourceFile::new("Dockerfile", &text), Style::Plain);
    assert!(errors.is_empty(), "{}: {shown}", case.display());
    file
}

/// Returns the plan, with a made-up config for every image that it needs.
fn planned(file: &ir::Dockerfile, platform: &Platform, case: &Path) -> Plan {
    let request = Request {
        build_args: BTreeMap::new(),
        target: None,
        platforms: vec![platform.clone()],
        platform_given: false,
        build_platform: Platform::new("linux", "amd64", None),
        labels: Vec::new(),
        changes: Default::default(),
        first_base: None,
        network: plan::Network::Host,
        allow_host_network: false,
        allow_insecure: false,
        uncached: Uncached::None,
        run: plan::RunSettings::default(),
        contexts: plan::NamedContexts::default(),
    };
    let mut images = Images::new();
    loop {
        match plan::plan(file, &request, &images) {
            Ok(Outcome::Ready(plan)) => return *plan,
            Ok(Outcome::Needs(needs)) => {
                let known = images.len();
                images.extend(needs.into_iter().map(|(image, _)| {
                    let mut config = ImageConfig::scratch(&image.platform);
                    for (name, value) in
                        [("PHP_INI_DIR", "/usr/local/etc/php"), ("APP_UID", "1654")]
                    {
                        config.config.set_env(name, value);
                    }
                    if image.name.familiar().contains("nginx") {
                        config.config.cmd = Some(vec!["nginx".to_owned()]);
                    }
                    (image, BaseImage { config, triggers: Vec::new() })
                }));
                assert!(images.len() > known, "{} asks twice", case.display());
            }
            Err(errors) => panic!("{}: {errors:#?}", case.display()),
        }
    }
}

/// Returns the IR without positions and without the one-line texts for logs.
fn meaning(file: &ir::Dockerfile) -> String {
    let debug = format!("{file:#?}");
    let kept = debug.lines().filter(|line| {
        let text = line.trim_start();
        !["start: ", "end: ", "text: \""].iter().any(|name| text.starts_with(name))
    });
    kept.collect::<Vec<_>>().join("\n")
}
