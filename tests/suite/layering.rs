//! The fences between rooms: `src/ARCHITECTURE.md` has the table, this compares it with the code.
#![expect(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests say what they mean with them"
)]

use std::collections::{BTreeMap, BTreeSet};

use crate::support::source::{self, SourceText};

/// Below all other modules.
const FLOOR: [&str; 3] = ["limits", "pathio", "pool"];

/// Constants only: pure modules may use it, too.
const PURE_FLOOR: &str = "limits";

/// Crates that have one home: everywhere else they show through that room's own types only.
const HOMES: &[(&str, &str)] = &[
    ("annotate_snippets", "src/diag/"),
    ("clap", "src/cli/"),
    ("flate2", "src/archive/"),
    ("libc", "src/sandbox/"),
    ("nom", "src/syntax/"),
    ("rusqlite", "src/store/"),
    ("rustls", "src/registry/"),
    ("rusty_s3", "src/registry/"),
    ("sha2", "src/oci/"),
    ("signal_hook", "src/cli/"),
    ("oci_spec", "src/image/verify"),
    ("tar", "src/archive/"),
    ("toml", "src/cli/"),
    ("ureq", "src/registry/"),
];

/// What a pure room has no business with. Clippy refuses the single calls; these are whole modules.
const IO: [&str; 6] =
    ["std::fs", "std::net::Tcp", "std::os::unix::net", "std::process", "rustix::", "tempfile::"];

#[derive(Debug, PartialEq, Eq)]
struct Room {
    name: String,
    pure: bool,
    may: BTreeSet<String>,
}

/// The table's rows: `| `name` | owns | kind | imports |`.
fn table() -> Vec<Room> {
    let text = source::text_of("src/ARCHITECTURE.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rooms: Vec<Room> = rows
        .filter_map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _owns, kind, imports] = cells[..] else { return None };
            let may = imports.split(", ").filter(|name| !name.is_empty()).map(str::to_owned);
            let name = name.trim_matches('`').to_owned();
            Some(Room { name, pure: kind.starts_with("pure"), may: may.collect() })
        })
        .collect();
    assert!(rooms.len() > 10, "the table of rooms is not found");
    rooms
}

/// The names after `crate::` in a line, as in `use crate::{a::X, b}` or `crate::a::f()`.
fn rooms_named(line: &str) -> Vec<&str> {
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

/// The room that a file is in.
fn room_of(file: &SourceText) -> &str {
    let path = file.path.strip_prefix("src/").unwrap();
    path.split(['/', '.']).next().unwrap()
}

/// What each room imports, and one place where it does.
fn imports() -> BTreeMap<String, BTreeMap<String, String>> {
    let rooms: BTreeSet<String> =
        table().into_iter().map(|room| room.name).chain(FLOOR.map(str::to_owned)).collect();
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in source::rust_below("src") {
        let own = room_of(&file).to_owned();
        // Uses of several lines are read as one.
        let code: Vec<(usize, &str)> = file.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            let mut line = (*line).to_owned();
            if line.contains("crate::{") {
                let rest = code[at + 1..].iter().map(|(_, line)| *line);
                let rest = rest.take_while(|_| !line.contains(';')).collect::<Vec<_>>().join(" ");
                line = format!("{line} {rest}").split(';').next().unwrap().to_owned();
            }
            for name in rooms_named(&line) {
                if name != own && rooms.contains(name) {
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
fn rooms_named_in_a_line_are_found() {
    assert_eq!(rooms_named("use crate::tree::{Tree, File};"), ["tree"]);
    assert_eq!(rooms_named("use crate::{oci, tree::{A, B}, ir::Run};"), ["oci", "tree", "ir"]);
    assert_eq!(rooms_named("fn a(b: crate::oci::X) -> crate::ir::Y {"), ["oci", "ir"]);
    assert_eq!(rooms_named("other_crate::x"), [""; 0]);
}

#[test]
fn rooms_are_in_the_order_of_lib_rs() {
    let text = source::text_of("src/lib.rs");
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let modules: Vec<&str> = modules.map(|name| name.trim_end_matches(';')).collect();
    let table = table();
    let names = FLOOR.into_iter().chain(table.iter().map(|room| room.name.as_str()));
    assert_eq!(modules, names.collect::<Vec<_>>());
}

#[test]
fn arrows_of_the_table_point_up() {
    let mut above: BTreeSet<String> = FLOOR.map(str::to_owned).into();
    for room in table() {
        for import in &room.may {
            assert!(above.contains(import), "`{}` imports `{import}` from below", room.name);
        }
        above.insert(room.name);
    }
}

#[test]
fn rooms_import_what_the_table_says() {
    let mut found = imports();
    let mut wrong = Vec::new();
    for room in table() {
        let mut found = found.remove(&room.name).unwrap_or_default();
        for name in &room.may {
            if found.remove(name).is_none() {
                wrong.push(format!("`{}` does not import `{name}`: drop it there", room.name));
            }
        }
        // Every room that does IO stands on the floor.
        found.retain(|name, _| room.pure || !FLOOR.contains(&name.as_str()));
        found.remove(PURE_FLOOR);
        wrong.extend(found.iter().map(|(name, at)| {
            format!("`{}` imports `{name}` at {at}, which the table does not allow", room.name)
        }));
    }
    for floor in FLOOR {
        let mut above = found.remove(floor).unwrap_or_default();
        above.remove(PURE_FLOOR);
        assert!(above.is_empty(), "`{floor}` is under all rooms, but imports {above:?}");
    }
    assert!(wrong.is_empty(), "see src/ARCHITECTURE.md, Rooms:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_do_no_io() {
    let pure: BTreeSet<String> =
        table().into_iter().filter(|room| room.pure).map(|room| room.name).collect();
    for room in table().iter().filter(|room| room.pure) {
        let io: Vec<_> =
            room.may.iter().filter(|name| !pure.contains(*name) && *name != "pool").collect();
        assert!(io.is_empty(), "`{}` is pure, but imports {io:?}", room.name);
    }
    for file in source::rust_below("src").iter().filter(|file| pure.contains(room_of(file))) {
        for (number, line) in file.code() {
            let io = IO.iter().find(|module| line.contains(**module));
            assert_eq!(io, None, "{}:{number}: `{}` is pure", file.path, room_of(file));
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
                // `image::verify` reads with the eyes of others, not with ours.
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
fn unsafe_stays_in_its_room() {
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
