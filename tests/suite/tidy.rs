//! Checks of the checkout that the compiler does not make.
#![expect(clippy::string_slice, reason = "slices are at positions that a search returned")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::source::{self, SourceText};

/// Maximum number of lines of a file, without its tests. Longer files are split by concept.
const MAX_LINES: usize = 600;

/// Directories with text of this project; `testdata` has its own rules.
const DIRECTORIES: [&str; 9] =
    ["src", "tests", "grammar", "docs", "examples", "packaging", ".ci", ".cargo", ".github"];
const TOP: [&str; 11] = [
    "Cargo.toml",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deny.toml",
    "install.sh",
    ".clippy.toml",
    ".rustfmt.toml",
    ".gitignore",
    "LICENSE",
];

fn rust() -> Vec<SourceText> {
    ["src", "tests"].iter().flat_map(|directory| source::rust_below(directory)).collect()
}

fn all_texts() -> Vec<SourceText> {
    let texts = DIRECTORIES.iter().chain(&TOP).flat_map(|path| source::texts_below(path));
    texts.filter(|file| !file.path.starts_with("tests/conformance/cases/")).collect()
}

fn complain(what: &str, places: &[String]) {
    assert!(places.is_empty(), "{what}:\n{}", places.join("\n"));
}

/// Returns each line for which `wrong` holds, as `path:line: text`.
fn lines_with(file: &SourceText, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = (1..).zip(file.text.lines()).filter(|(_, line)| wrong(line));
    lines.map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())).collect()
}

#[test]
fn every_file_says_what_it_is() {
    let without: Vec<String> =
        rust().into_iter().filter(|f| !f.text.starts_with("//! ")).map(|f| f.path).collect();
    complain("these do not begin with `//!`", &without);
}

#[test]
fn no_file_is_long() {
    let mut wrong = Vec::new();
    let is_code = |file: &SourceText| {
        let extension = std::path::Path::new(&file.path).extension();
        extension
            .is_some_and(|extension| ["rs", "css", "js"].map(AsRef::as_ref).contains(&extension))
    };
    for file in source::texts_below("src").into_iter().filter(is_code) {
        let n_lines = file.code_lines().count();
        if n_lines > MAX_LINES {
            wrong.push(format!("{} has {n_lines} lines, {MAX_LINES} are allowed", file.path));
        }
    }
    complain("lines besides tests", &wrong);
}

#[test]
fn every_test_runs_and_says_what_it_expects() {
    let unwanted = [concat!("#[ign", "ore"), concat!("should", "_panic")];
    let found = rust();
    let found = found.iter().flat_map(|file| {
        lines_with(file, |line| unwanted.iter().any(|attribute| line.contains(attribute)))
    });
    complain("tests that do not run, or pass by any panic", &found.collect::<Vec<_>>());
}

#[test]
fn no_line_ends_in_a_blank() {
    let texts = all_texts();
    let snapshots = |file: &&SourceText| !file.path.ends_with(".snap");
    let found = texts.iter().filter(snapshots).flat_map(|file| {
        let mut found = lines_with(file, |line| line.ends_with([' ', '\t', '\r']));
        if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
            found.push(format!("{}: its end is not one line feed", file.path));
        }
        found
    });
    complain("blanks", &found.collect::<Vec<_>>());
}

#[test]
fn every_diagnostic_code_is_used() {
    let codes = source::text_of("src/diag/code.rs");
    let is_constant =
        |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b"_0123456789".contains(&b));
    let constants: Vec<(&str, &str)> = codes
        .lines()
        .filter_map(|line| line.trim().split_once(" = \""))
        .filter(|(name, _)| is_constant(name))
        .map(|(name, rest)| (name, rest.split('"').next().unwrap()))
        .collect();
    assert_eq!(constants.len(), rbuild::diag::all_codes().len(), "code.rs is read wrongly");
    let unique: BTreeSet<&str> = constants.iter().map(|(_, code)| *code).collect();
    assert_eq!(unique.len(), constants.len(), "a code stands for two things");

    let files = source::rust_below("src");
    let used = |name: &str| {
        let path = format!("codes::{name}");
        files.iter().filter(|file| file.path != "src/diag/code.rs").any(|file| {
            file.code_lines().any(|(_, line)| {
                line.match_indices(&path).any(|(at, _)| {
                    !line[at + path.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            })
        })
    };
    let unused = constants.iter().filter(|(name, _)| !UNUSED_CODES.contains(name) && !used(name));
    complain(
        "nothing makes these",
        &unused.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(),
    );
    let stale = UNUSED_CODES.iter().filter(|name| used(name));
    complain("take these off the list", &stale.map(|name| (*name).to_owned()).collect::<Vec<_>>());
}

/// Codes that are not used yet.
const UNUSED_CODES: &[&str] = &["NOT_UTF8", "CYCLE"];

#[test]
fn every_test_file_is_a_module() {
    for (directory, main) in [("tests/suite", "main.rs"), ("tests/support", "mod.rs")] {
        let main = source::text_of(&format!("{directory}/{main}"));
        let declared: BTreeSet<&str> = main
            .lines()
            .filter_map(|line| line.trim_start_matches("pub(crate) ").strip_prefix("mod "))
            .map(|name| name.trim_end_matches(';'))
            .collect();
        let forgotten: Vec<String> = fs::read_dir(source::root().join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .filter(|name| !["main", "mod"].contains(&&**name) && !declared.contains(&**name))
            .collect();
        complain(&format!("files of {directory} that no `mod` names"), &forgotten);
    }
}

#[test]
fn every_case_and_table_is_read() {
    let directories = ["parse", "expand", "copy", "dockerignore"];
    let tests: String = rust().into_iter().map(|file| file.text).collect();
    let mut unread = Vec::new();
    for entry in fs::read_dir(source::root().join("testdata")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !(directories.contains(&&*name) || tests.contains(&format!("testdata/{name}"))) {
            unread.push(name);
        }
    }
    unread.retain(|name| name != "README.md");
    complain("nothing reads these of testdata", &unread);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Steps have a /dev/shm and may have a /work; paths below them belong to one machine.
    let places = [concat!("/dev/", "shm/"), concat!("/wo", "rk/"), concat!("/ro", "ot/.")];
    let mut texts = all_texts();
    // The other files of `testdata` contain paths in images.
    let ours = ["testdata/README.md"];
    texts.extend(ours.iter().flat_map(|path| source::texts_below(path)));
    // Paths of the hostile suite belong to the throw-away host that it creates, those of examples
    // to images.
    let of_others = ["tests/hostile/", "examples/"];
    texts.retain(|file| !of_others.iter().any(|directory| file.path.starts_with(directory)));
    let found = texts.iter().flat_map(|file| {
        lines_with(file, |line| {
            places.iter().any(|place| {
                line.match_indices(place).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.".contains(c))
                })
            })
        })
    });
    complain("paths of one machine", &found.collect::<Vec<_>>());
}

#[test]
fn scripts_are_executable_and_nothing_else_is() {
    let texts = all_texts();
    let wrong = texts.iter().filter(|file| {
        let mode = fs::metadata(source::root().join(&file.path)).unwrap().permissions().mode();
        (mode & 0o111 != 0) != file.text.starts_with("#!/")
    });
    complain("modes and `#!`", &wrong.map(|file| file.path.clone()).collect::<Vec<_>>());
}
