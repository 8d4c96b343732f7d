//! The boundaries between modules: compares the table in `src/ARCHITECTURE.md` with the code.
#![expect(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests panic on failure and slice strings freely"
)]

use std::collections::{BTreeMap, BTreeSet};

use crate::support::imports::Imports;
use crate::support::source::{self, SourceText};

/// The modules below all others.
const FOUNDATION: [&str; 3] = ["limits", "pathio", "pool"];

/// Contains constants only, so pure modules may use it too.
const PURE_FOUNDATION: &str = "limits";

/// Crates that only one module may name. Others see them only through that module's types.
const HOMES: &[(&str, &str)] = &[
    ("annotate_snippets", "src/diag/"),
    ("clap", "src/cli/"),
    ("flate2", "src/archive/"),
    ("granit_parser", "src/bake/"),
    ("hcl_edit", "src/bake/"),
    ("httpdate", "src/registry/"),
    ("libc", "src/sandbox/"),
    ("nom", "src/dockerfile/syntax/"),
    ("rusqlite", "src/store/"),
    ("rustls", "src/registry/"),
    ("rusty_s3", "src/registry/"),
    ("sha2", "src/oci/"),
    ("signal_hook", "src/cli/"),
    ("oci_spec", "src/image/verify"),
    ("similar", "src/cli/"),
    ("tar", "src/archive/"),
    ("toml", "src/cli/"),
    ("tracing_subscriber", "src/cli/"),
    ("ureq", "src/registry/"),
    ("url", "src/registry/"),
];

/// Modules that a pure module must not use. Clippy rejects single functions; these are whole
/// modules.
const IO: [&str; 6] =
    ["std::fs", "std::net::Tcp", "std::os::unix::net", "std::process", "rustix::", "tempfile::"];

#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: String,
    pure: bool,
    may: BTreeSet<String>,
}

/// Returns the table's rows: `| `name` | owns | kind | imports |`.
fn table() -> Vec<Module> {
    let text = source::text_of("src/ARCHITECTURE.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let modules: Vec<Module> = rows
        .filter_map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _owns, kind, imports] = cells[..] else { return None };
            let may = imports.split(", ").filter(|name| !name.is_empty()).map(str::to_owned);
            let name = name.trim_matches('`').to_owned();
            Some(Module { name, pure: kind.starts_with("pure"), may: may.collect() })
        })
        .collect();
    assert!(modules.len() > 10, "the table of modules is not found");
    modules
}

/// Returns the names after `crate::` in a line, as in `use crate::{a::X, b}` or `crate::a::f()`.
fn modules_named(line: &str) -> Vec<&str> {
    let word = |text: &'static str| move |c: char| !(c.is_alphanumeric() || text.contains(c));
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0_i32;
                let group = group.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                });
                named.extend(group.filter_map(|item| item.trim().split(word("_")).next()));
            }
            None => named.extend(rest.split(word("_")).next()),
        }
    }
    named.retain(|name| !name.is_empty());
    named
}

/// Returns the module that a file belongs to.
fn module_of(file: &SourceText) -> &str {
    let path = file.path.strip_prefix("src/").unwrap();
    path.split(['/', '.']).next().unwrap()
}

/// Returns the imports of each module, each with one location.
fn imports() -> BTreeMap<String, BTreeMap<String, String>> {
    let modules: BTreeSet<String> = table()
        .into_iter()
        .map(|module| module.name)
        .chain(FOUNDATION.map(str::to_owned))
        .collect();
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in source::rust_below("src") {
        let own = module_of(&file).to_owned();
        // Imports that span several lines are joined.
        let code: Vec<(usize, &str)> = file.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            let mut line = (*line).to_owned();
            if line.contains("crate::{") {
                let rest = code[at + 1..].iter().map(|(_, line)| *line);
                let rest = rest.take_while(|_| !line.contains(';')).collect::<Vec<_>>().join(" ");
                line = format!("{line} {rest}").split(';').next().unwrap().to_owned();
            }
            for name in modules_named(&line) {
                if name != own && modules.contains(name) {
                    let place = format!("{}:{number}", file.path);
                    let places = found.entry(own.clone()).or_default();
                    places.entry(name.to_owned()).or_insert(place);
                }
            }
        }
    }
    found
}

#[test]
fn modules_named_in_a_line_are_found() {
    assert_eq!(modules_named("use crate::tree::{Tree, File};"), ["tree"]);
    assert_eq!(modules_named("use crate::{oci, tree::{A, B}, plan::X};"), ["oci", "tree", "plan"]);
    assert_eq!(modules_named("fn a(b: crate::oci::X) -> crate::plan::Y {"), ["oci", "plan"]);
    assert_eq!(modules_named("other_crate::x"), [""; 0]);
}

#[test]
fn modules_are_in_the_order_of_lib_rs() {
    let text = source::text_of("src/lib.rs");
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let modules: Vec<&str> = modules.map(|name| name.trim_end_matches(';')).collect();
    let table = table();
    let names = FOUNDATION.into_iter().chain(table.iter().map(|module| module.name.as_str()));
    assert_eq!(modules, names.collect::<Vec<_>>());
}

#[test]
fn arrows_of_the_table_point_up() {
    let mut above: BTreeSet<String> = FOUNDATION.map(str::to_owned).into();
    for module in table() {
        for import in &module.may {
            assert!(above.contains(import), "`{}` imports `{import}` from below", module.name);
        }
        above.insert(module.name);
    }
}

#[test]
fn modules_import_what_the_table_says() {
    let mut found = imports();
    let mut wrong = Vec::new();
    for module in table() {
        let mut found = found.remove(&module.name).unwrap_or_default();
        for name in &module.may {
            if found.remove(name).is_none() {
                wrong.push(format!("`{}` does not import `{name}`: drop it there", module.name));
            }
        }
        // Every module that does IO may use the foundation.
        found.retain(|name, _| module.pure || !FOUNDATION.contains(&name.as_str()));
        found.remove(PURE_FOUNDATION);
        wrong.extend(found.iter().map(|(name, at)| {
            format!("`{}` imports `{name}` at {at}, which the table does not allow", module.name)
        }));
    }
    for foundation in FOUNDATION {
        let mut above = found.remove(foundation).unwrap_or_default();
        above.remove(PURE_FOUNDATION);
        assert!(above.is_empty(), "`{foundation}` is under all modules, but imports {above:?}");
    }
    assert!(wrong.is_empty(), "see src/ARCHITECTURE.md, Modules:\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_do_no_io() {
    let pure: BTreeSet<String> =
        table().into_iter().filter(|module| module.pure).map(|module| module.name).collect();
    for module in table().iter().filter(|module| module.pure) {
        let io: Vec<_> =
            module.may.iter().filter(|name| !pure.contains(*name) && *name != "pool").collect();
        assert!(io.is_empty(), "`{}` is pure, but imports {io:?}", module.name);
    }
    for file in source::rust_below("src").iter().filter(|file| pure.contains(module_of(file))) {
        for (number, line) in file.code() {
            let io = IO.iter().find(|module| line.contains(**module));
            assert_eq!(io, None, "{}:{number}: `{}` is pure", file.path, module_of(file));
        }
    }
}

#[test]
fn crates_stay_in_their_homes() {
    for file in source::rust_below("src") {
        for (number, line) in file.code() {
            for (name, home) in HOMES {
                let path = format!("{name}::");
                let names = line.match_indices(&path).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c))
                });
                // `image::verify` reads images as other tools do, independently of our types.
                let reader = file.path.starts_with("src/image/verify");
                assert!(
                    !names || file.path.starts_with(home) || reader,
                    "{}:{number}: `{name}` is for {home} only",
                    file.path
                );
            }
        }
    }
}

#[test]
fn unsafe_stays_in_its_module() {
    let files = source::rust_below("src");
    let outside = files.iter().filter(|file| !file.path.starts_with("src/sandbox/sys/"));
    for file in outside {
        for (number, line) in file.code_lines() {
            let code = line.split("//").next().unwrap();
            let word = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            let found = word.into_iter().any(|word| word == concat!("un", "safe"));
            assert!(!found, "{}:{number}: only src/sandbox/sys may", file.path);
        }
    }
    let Some(allowed) = files.iter().find(|file| file.path == "src/sandbox/sys/mod.rs") else {
        panic!("src/sandbox/sys/mod.rs is gone");
    };
    assert!(allowed.text.contains("unsafe_code"), "the one exception from the lint is there");
}

/// Maximum number of files in an import cycle.
const MAX_CYCLE: usize = 4;

/// Larger cycles, each with its reason. The list must only shrink.
const KNOWN_CYCLES: &[(&str, &str)] = &[(
    "sandbox/supervisor",
    "the calls of a step change one state, and each file has the methods for some of them",
)];

#[test]
fn files_of_a_module_import_each_other_in_small_circles_only() {
    let mut wrong: Vec<String> = Vec::new();
    let mut known: BTreeSet<&str> = KNOWN_CYCLES.iter().map(|(first, _)| *first).collect();
    for cycle in Imports::read().cycles().into_iter().filter(|cycle| cycle.len() > MAX_CYCLE) {
        if !known.remove(&*cycle[0]) {
            wrong.push(format!("{} files: {}", cycle.len(), cycle.join(" ")));
        }
    }
    assert!(known.is_empty(), "these circles are gone, drop them from the list: {known:?}");
    assert!(
        wrong.is_empty(),
        "more than {MAX_CYCLE} files import each other:\n{}",
        wrong.join("\n")
    );
}
