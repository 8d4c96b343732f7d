//! The inputs of `testdata/corpus`: each once broke something, or would if a check were removed.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and do IO")]

use std::error::Error;
use std::fs;
use std::io::{self, Cursor};
use std::panic;
use std::path::{Path, PathBuf};

use rbuild::archive::{self, ArchiveBounds, PackedListing, TarReader};
use rbuild::context::parse_ignore;
use rbuild::dockerfile::expand;
use rbuild::dockerfile::ir::Escape;
use rbuild::dockerfile::syntax;
use rbuild::oci::{DiffId, Digest, ImageConfig, ManifestOrIndex, Platform, Reference};
use rbuild::plan::{Images, plan};

use crate::support::generate::Random;
use crate::support::mutate::damaged;
use crate::support::{probe, seeds};

type Probe = fn(&[u8]);

/// Of each target.
const DAMAGED_SEEDS: usize = 20_000;

const TARGETS: [(&str, Probe); 12] = [
    ("accounts", probe::accounts::probe),
    ("archive", probe::archive::probe),
    ("cache", probe::cache::probe),
    ("dockerfile", probe::dockerfile::probe),
    ("ignore", probe::ignore::probe),
    ("load", probe::load::probe),
    ("lockfile", probe::lockfile::probe),
    ("manifest", probe::manifest::probe),
    ("reference", probe::reference::probe),
    ("registries", probe::registries::probe),
    ("registry", probe::registry::probe),
    ("words", probe::words::probe),
];

#[test]
fn kept_inputs_break_nothing() {
    let mut kept: Vec<String> = names(&directory());
    kept.retain(|target| !TARGETS.iter().any(|(known, _)| known == target));
    assert_eq!(kept, Vec::<String>::new(), "nothing replays these");
    for (target, probe) in TARGETS {
        for name in names(&directory().join(target)) {
            probe(&input(target, &name));
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let (manifest, run) = (text("Cargo.toml"), text("run"));
    for (target, _) in TARGETS {
        let probe = format!("#[path = \"../support/probe/{target}.rs\"]\nmod probe;");
        assert!(text(&format!("{target}.rs")).contains(&probe), "{target}");
        assert!(manifest.contains(&format!("name = \"{target}\"\npath = \"{target}.rs\"")));
        assert!(run.contains(&format!("[{target}]=")), "{target}");
    }
}

/// Finds what a fuzzer would find in its first seconds.
#[test]
fn damaged_seeds_break_nothing() {
    let by_target = seeds::by_target();
    assert_eq!(by_target.keys().copied().collect::<Vec<_>>(), TARGETS.map(|(target, _)| target));
    for (target, probe) in TARGETS {
        let seeds = &by_target[target];
        let inputs: Vec<&[u8]> = seeds.inputs.iter().map(Vec::as_slice).collect();
        let words: Vec<&[u8]> = seeds.dictionary.iter().map(String::as_bytes).collect();
        let mut random = Random(1);
        for _ in 0..DAMAGED_SEEDS {
            let input = damaged(inputs[random.below(inputs.len())], &words, &mut random);
            let passed = panic::catch_unwind(|| probe(&input));
            assert!(passed.is_ok(), "{target}: b\"{}\"", input.escape_ascii());
        }
    }
}

#[test]
fn hostile_archives_are_refused_with_a_reason() {
    for (name, want) in [
        ("xz-dictionary-of-4-gib", "cannot read the archive: "),
        ("zstd-window-of-2-gib", "cannot read the archive: "),
        (
            "pax-headers-without-end",
            "the archive has a header of more than 1048576 near byte 802304",
        ),
        ("long-name-of-2-gib", "the archive has a header of more than 1048576 near byte 512"),
        (
            "size-beyond-64-bits",
            "the archive is damaged near byte 512: an entry has an invalid size",
        ),
        ("negative-size", "the archive is damaged near byte 512: an entry has an invalid size"),
        (
            "sparse-pieces-overlap",
            "the archive is damaged near byte 512: a sparse file has an impossible map",
        ),
        (
            "sparse-piece-past-the-end",
            "the archive is damaged near byte 512: a sparse file has an impossible map",
        ),
        (
            "sparse-map-without-end",
            "the archive is damaged near byte 2048: a sparse file has no complete map",
        ),
        ("listing-of-2-63-entries", "the layer listing is damaged near byte 13"),
        ("listing-shares-too-much", "the layer listing is damaged near byte 10"),
        ("listing-out-of-order", "the layer listing is damaged near byte 13"),
    ] {
        let said = read(&input("archive", name)).unwrap_err();
        assert!(said.starts_with(want), "{name}: {said}");
    }
}

#[test]
fn a_file_that_is_nearly_all_hole_takes_no_memory() {
    let refused = TarReader::new(Cursor::new(input("archive", "sparse-file-of-8-eib")));
    let error = { refused }.next().unwrap_err().to_string();
    assert!(error.starts_with("the archive unpacks to more than 137438953472 bytes"), "{error}");
    let bounds = ArchiveBounds::up_to(u64::MAX);
    let input = Cursor::new(input("archive", "sparse-file-of-8-eib"));
    let mut tar = TarReader::bounded(input, bounds);
    assert_eq!(tar.next().unwrap().unwrap().size, (1 << 63) - 1);
    assert!(tar.next().unwrap().is_none());
}

#[test]
fn hostile_dockerfiles_get_a_diagnostic_or_none() {
    for (name, want) in [
        ("replacements-multiply", "expansion makes the text longer by more than 131072 bytes"),
        ("variables-double", "expansion makes the text longer by more than 131072 bytes"),
        ("braces-nest", "`${…}` is nested more than 100 deep"),
        ("arrays-nest", "the JSON form of CMD must be an array of strings only"),
        ("spaced-heredocs", ""),
        ("surrogates", ""),
        ("continues-past-the-end", ""),
        ("heredoc-in-the-last-line", "unterminated heredoc: no line consists of `é '`"),
    ] {
        let text = String::from_utf8(input("dockerfile", name)).unwrap();
        let (file, mut diagnostics) = syntax::parse(&text);
        let request = probe::dockerfile::request(&Platform::new("linux", "amd64", None));
        if let Err(more) = plan(&file, &request, &Images::new()) {
            diagnostics.extend(more);
        }
        let first = diagnostics.iter().find(|diagnostic| diagnostic.is_error());
        assert_eq!(first.map_or("", |diagnostic| &diagnostic.message), want, "{name}");
    }
}

#[test]
fn hostile_words_end_in_an_error() {
    for (name, want) in [
        ("replacements-multiply", "expansion makes the text longer by more than 131072 bytes"),
        ("braces-nest", "`${…}` is nested more than 100 deep"),
        ("quotes-and-ends", "a single quote is not closed"),
    ] {
        let text = input("words", name).split_off(1);
        let text = String::from_utf8(text).unwrap();
        let env = |_: &str| Some("0123456789".to_owned());
        let said = expand::word(&text, Escape::Backslash, &env).unwrap_err();
        assert_eq!(said.to_string(), want, "{name}");
    }
}

#[test]
fn hostile_documents_and_names_are_refused_with_a_reason() {
    for (name, want) in [
        ("both-kinds", "it is both an index and a manifest"),
        ("members-nest", "recursion limit exceeded at line 1 column 160"),
        ("size-beyond-64-bits", "invalid type: floating point `1e+30`, expected u64"),
    ] {
        let bytes = input("manifest", name);
        let said = ManifestOrIndex::parse(&bytes).unwrap_err().to_string();
        assert_eq!(said, format!("the manifest is not valid: {want}"), "{name}");
        assert!(ImageConfig::parse(&bytes).is_err(), "{name}");
    }
    for name in ["255-bytes-without-host", "256-bytes", "only-separators"] {
        let text = String::from_utf8(input("reference", name)).unwrap();
        assert!(text.parse::<Reference>().is_err(), "{name}");
    }
    let text = String::from_utf8(input("reference", "path-that-looks-like-a-host")).unwrap();
    assert_eq!(text.parse::<Reference>().unwrap().familiar(), format!("{text}:latest"));
    let text = String::from_utf8(input("ignore", "bad-ranges")).unwrap();
    let said = parse_ignore(&text).unwrap_err().to_string();
    assert_eq!(said, "line 4: `\\` is not a pattern: `\\` at the end escapes nothing");
}

/// Reads an archive or a listing to its end.
fn read(bytes: &[u8]) -> Result<(), String> {
    if bytes.starts_with(b"rbL") {
        let listing = PackedListing::new(bytes.to_vec(), DiffId::new(Digest::of(b"")));
        return listing.map(drop).map_err(|error| error.to_string());
    }
    let (_, decoded) =
        archive::decoder(Box::new(Cursor::new(bytes.to_vec())), &ArchiveBounds::default()).unwrap();
    let mut tar = TarReader::new(decoded);
    while let Some(mut entry) = tar.next().map_err(|error| chain(&error))? {
        io::copy(&mut entry, &mut io::sink()).map_err(|error| chain(&error))?;
    }
    Ok(())
}

fn chain(error: &dyn Error) -> String {
    let cause = error.source().map(chain);
    cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/corpus")
}

fn input(target: &str, name: &str) -> Vec<u8> {
    fs::read(directory().join(target).join(name)).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
