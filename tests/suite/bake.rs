//! `rbuild bake`: definitions of `testdata/bake`, compared with the recorded output of buildx.
//!
//! `tests/bake-record.py` records; it describes the files of a case.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read files and panic on failure"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rbuild::bake::{self, Ambient, ComposeSettings, DefinitionFile, Randomness, Settings};
use rbuild::diag::{Style, render};

use crate::support::env::{Done, Env};
use crate::support::generate::Random;
use crate::support::mutate::mutant;

/// Files of a case that are not its input.
const OWN: [&str; 7] = ["expected", "fails", "newer", "command", "env", "stdin", "message.snap"];

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bake");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn optional(case: &Path, name: &str) -> Option<String> {
    fs::read_to_string(case.join(name)).ok()
}

/// Runs `rbuild bake` in a copy of the case, with the case's environment only.
fn bake(env: &Env, case: &Path) -> Done {
    let name = case.file_name().unwrap().to_str().unwrap();
    copy(env, case, name);
    let directory = env.path("context").join(name);
    fs::create_dir_all(&directory).unwrap();
    let words = optional(case, "command").unwrap_or_default();
    let mut command = env.command(&["bake"]);
    if !words.contains("--list") {
        command.arg("--print");
    }
    run(command.args(words.split_whitespace()).current_dir(directory), case)
}

/// Copies the input of a case into a directory of the context.
fn copy(env: &Env, from: &Path, to: &str) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let own = entry.file_name();
        let to = format!("{to}/{}", own.to_str().unwrap());
        if entry.path().is_dir() {
            copy(env, &entry.path(), &to);
        } else if !OWN.contains(&own.to_str().unwrap()) {
            env.write(&to, fs::read(entry.path()).unwrap());
        }
    }
}

fn run(command: &mut Command, case: &Path) -> Done {
    let variables = optional(case, "env").unwrap_or_default();
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    command.envs(variables).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdin = optional(case, "stdin").unwrap_or_default();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    Done::of(child.wait_with_output().unwrap())
}

/// Returns lines with single blanks: tables of buildx have tabs.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn definitions_are_printed_as_buildx_prints_them() {
    let env = Env::new();
    let mut n_cases = 0;
    for case in cases() {
        let Some(expected) = optional(&case, "expected") else { continue };
        let done = bake(&env, &case).ok();
        if expected.starts_with(['{', '[']) {
            assert_eq!(done.stdout, expected, "{}", case.display());
        } else {
            assert_eq!(words(&done.stdout), words(&expected), "{}", case.display());
        }
        n_cases += 1;
    }
    assert!(n_cases >= 60, "the cases were read: {n_cases}");
}

#[test]
fn definitions_that_buildx_refuses_have_messages_with_a_position() {
    let env = Env::new();
    let mut n_cases = 0;
    for case in cases().iter().filter(|case| case.join("fails").exists()) {
        let done = bake(&env, case);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{}", case.display());
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(case);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("message", done.stderr));
        n_cases += 1;
    }
    assert!(n_cases >= 12, "the cases were read: {n_cases}");
}

#[test]
fn names_without_a_meaning_are_ignored_with_a_warning() {
    let env = Env::new();
    env.write("d/docker-bake.hcl", "target \"default\" {\n  tag = [\"a\"]\n}\n");
    let done =
        env.command(&["bake", "--print"]).current_dir(env.path("context/d")).output().unwrap();
    let done = Done::of(done).ok();
    let excerpt = " --> docker-bake.hcl:2:3\n  |\n2 |   tag = [\"a\"]\n  |   ^^^\n";
    for part in ["warning[W0003]: \"tag\" has no meaning in a target", excerpt, "did you mean"] {
        assert!(done.stderr.contains(part), "{part}\n{}", done.stderr);
    }
    assert!(!done.stdout.contains("tags"), "{}", done.stdout);
}

#[test]
fn contexts_are_relative_to_the_file_if_a_variable_asks_for_it() {
    let env = Env::new();
    env.write("d/sub/bake.hcl", "target \"default\" {}\ntarget \"o\" { context = \"x\" }\n");
    for (value, contexts) in [("0", [".", "x"]), ("true", ["sub", "sub/x"])] {
        let mut command = env.command(&["bake", "--print", "-f", "sub/bake.hcl", "default", "o"]);
        command.env("BUILDX_BAKE_FILE_RELATIVE_PATHS", value).current_dir(env.path("context/d"));
        let done = Done::of(command.output().unwrap()).ok();
        for context in contexts {
            let member = format!("\"context\": \"{context}\"");
            assert!(done.stdout.contains(&member), "{member}\n{}", done.stdout);
        }
    }
}

#[test]
fn options_set_variables_instead_of_the_environment() {
    let env = Env::new();
    env.write("d/docker-bake.hcl", "variable \"X\" {}\ntarget \"default\" { args = { X = X } }\n");
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = env.command(&[&["bake", "--print"], args].concat());
        command.envs(variables.iter().copied()).current_dir(env.path("context/d"));
        Done::of(command.output().unwrap())
    };
    let shown = |done: Done| done.ok().stdout.contains("\"X\": \"option\"");
    assert!(shown(run(&["--var", "X=option"], &[("X", "env")])));
    let disabled = ("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP", "1");
    assert!(!run(&[], &[("X", "env"), disabled]).ok().stdout.contains("\"X\": \"env\""));
    run(&["--var", "X"], &[]).fails(2, &["bad --var `X`", "NAME=VALUE"]);
}

#[test]
fn bombs_end_with_an_error() {
    let env = Env::new();
    let doubled = (0..60).map(|n| format!("v{} = \"${{v{n}}}${{v{n}}}\"\n", n + 1));
    let doubled = format!("v0 = \"0123456789\"\n{}", doubled.collect::<String>());
    let chain = (0..3000).map(|n| format!("v{} = v{n}\n", n + 1)).collect::<String>();
    let aliases = (0..40).map(|n| format!("x{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1));
    let aliases = format!("x0: &a0 [a, b]\n{}services: {{}}\n", aliases.collect::<String>());
    let row = "range(1000)";
    let matrix = format!("target \"a\" {{\n matrix = {{ a = {row}, b = {row} }}\n}}\n");
    for (name, text, part) in [
        ("a.hcl", doubled.as_str(), "take more than"),
        ("b.hcl", &format!("v0 = 1\n{chain}"), "refer to one another"),
        ("c.yaml", &aliases, "denote too much"),
        ("d.hcl", &matrix, "more than 100000 targets"),
        ("e.json", &"[".repeat(100_000), "inside one another"),
        ("f.hcl", &format!("a = {}1{}\n", "(".repeat(10_000), ")".repeat(10_000)), "f.hcl:1:"),
        ("g.yaml", &format!("a: {}\n", "[".repeat(10_000)), "g.yaml:1:"),
    ] {
        env.write(name, text);
        let path = env.shown(&format!("context/{name}"));
        env.rbuild(&["bake", "--print", "-f", &path]).fails(2, &[part]);
    }
}

/// Returns the definition files of all cases, with their names.
fn definitions() -> Vec<(String, String)> {
    let files = cases().into_iter().flat_map(|case| fs::read_dir(case).unwrap());
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        ["hcl", "json", "yaml", "yml"].contains(&ending)
    });
    let named = files.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    named.collect()
}

#[test]
fn damaged_definitions_are_read_or_refused_at_a_position() {
    let settings = Settings {
        lookup: &|_| None,
        builtins: [("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned())].into(),
        ambient: Ambient { now_s: 0, home: "/".to_owned(), randomness: Randomness::of([0; 32]) },
    };
    let compose = ComposeSettings {
        environment: [("TAG".to_owned(), "1".to_owned())].into(),
        dotenv: None,
        read: &|_| Ok(None),
    };
    let mut random = Random(7);
    let (mut n_read, mut n_refused) = (0, 0);
    for (name, text) in definitions() {
        for _ in 0..40 {
            let data = mutant(&text, "\"${}%[]()=,:\n~*&!<>?|-#\\é0a", &mut random).into_bytes();
            let files = [DefinitionFile { name: name.clone(), data }];
            match bake::parse(&files, &settings, &compose, true) {
                Ok(_) => n_read += 1,
                Err(errors) => {
                    n_refused += 1;
                    for error in errors {
                        let found = error.diagnostic(&files);
                        let (diagnostic, source) = found.unwrap_or_else(|| panic!("{error}"));
                        assert!(render(&[diagnostic], &source, Style::Plain).contains(" --> "));
                    }
                }
            }
        }
    }
    assert!(n_read > 500 && n_refused > 500, "{n_read} read, {n_refused} refused");
}
