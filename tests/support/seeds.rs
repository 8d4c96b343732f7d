//! The seeds of fuzzing: sentences of the grammar, the Dockerfiles of `testdata`, small archives and
//! documents.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests panic on failure and do IO"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use rbuild::oci::{ImageConfig, Platform};

use super::ebnf::{Expr, Grammar};
use super::generate::{Generator, Weights};

/// Sentences of each production.
const SENTENCES: usize = 300;

/// Targets that the grammar feeds, its files, and the productions that sentences start from.
const GRAMMARS: [(&str, &[&str], &[&str]); 4] = [
    ("dockerfile", &["lines", "dockerfile", "words"], &["dockerfile"]),
    ("words", &["words"], &["word", "heredoc_text"]),
    ("ignore", &["dockerignore", "lines"], &["dockerignore"]),
    ("reference", &["reference"], &["reference"]),
];

/// Targets whose inputs are short texts.
const TEXTS: [(&str, &[&str]); 4] = [
    (
        "accounts",
        &[
            "app:staff\nroot:x:0:0:root:/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n\
             \0root:x:0:\nstaff:x:50:app,root\n",
            "7\n+::::::\nx:x:4294967295:-1::relative:\nx::::::\n\0g::99999999999:x,,x\n",
        ],
    ),
    (
        "lockfile",
        &[
            "version = 1\nplatforms = [\"linux/amd64\"]\n",
            "version = 1\n\n[[image]]\nname = \"docker.io/library/busybox:1\"\n\
             platform = \"linux/arm64/v8\"\ndigest = \"sha256:\
             0000000000000000000000000000000000000000000000000000000000000000\"\n\n\
             [[url]]\nurl = \"https://a.example/f\"\ndigest = \"sha256:\
             0000000000000000000000000000000000000000000000000000000000000000\"\n\n\
             [[git]]\nrepository = \"https://a.example/r.git\"\nreference = \"main\"\n\
             commit = \"0000000000000000000000000000000000000000\"\n",
        ],
    ),
    (
        "registries",
        &[
            "transfers = 4\nca = [\"ca.pem\"]\n\n[registry.\"registry.example:5000\"]\nhttp = true\n\
           insecure = false\nmirrors = [\"https://mirror.example/path\"]\nca = [\"a.pem\"]\n\
           cert = \"c.pem\"\nkey = \"k.pem\"\n",
        ],
    ),
    (
        "registry",
        &[
            "Bearer realm=\"https://auth.example/token\",service=\"r\",scope=\"repository:a/b:pull,push\"",
            "Basic realm=x, Bearer realm = https://a.example , scope=\"a \\\"b\\\"\"\nNegotiate abc==",
            "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"},\"registry.example:5000\":\
             {\"username\":\"u\",\"password\":\"p\"}},\"credsStore\":\"x\",\"credHelpers\":{\"a\":\"b\"}}",
            "{\"Username\":\"<token>\",\"Secret\":\"s\"}",
            "credentials not found in native keychain\n",
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>",
        ],
    ),
];

/// The seeds of one target, and the grammar's literals where a grammar feeds it.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    pub(crate) inputs: BTreeSet<Vec<u8>>,
    pub(crate) dictionary: BTreeSet<String>,
}

/// Returns the seeds by the name of their target, the same ones at each call.
pub(crate) fn by_target() -> BTreeMap<&'static str, Seeds> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let weights = fs::read_to_string(root.join("grammar/weights.toml")).unwrap();
    let weights: Weights = toml::from_str(&weights).unwrap();
    let mut seeds = BTreeMap::<_, Seeds>::new();
    for (target, files, entries) in GRAMMARS {
        let mut grammar = Grammar::default();
        for file in files {
            let text = fs::read_to_string(root.join(format!("grammar/{file}.ebnf"))).unwrap();
            grammar.read(&text).unwrap();
        }
        let mut generator = Generator::new(&grammar, &weights, 1);
        let seeds = seeds.entry(target).or_default();
        for entry in entries {
            let sentences = (0..SENTENCES).map(|_| generator.sentence(entry).into_bytes());
            seeds.inputs.extend(sentences.map(|sentence| framed(target, &sentence)));
        }
        seeds.dictionary = literals(&grammar);
    }
    for (target, inputs) in [
        ("dockerfile", dockerfiles(root)),
        ("archive", archives()),
        ("manifest", documents()),
        ("load", [documents(), tables()].concat()),
        ("cache", caches()),
    ] {
        seeds.entry(target).or_default().inputs.extend(inputs);
    }
    for (target, texts) in TEXTS {
        let texts = texts.iter().map(|text| text.as_bytes().to_vec());
        seeds.entry(target).or_default().inputs.extend(texts);
    }
    seeds
}

/// The sentence as the target expects it: with settings, or with paths to look up.
fn framed(target: &str, sentence: &[u8]) -> Vec<u8> {
    match target {
        "words" => {
            let settings = u8::try_from(sentence.len() % 8).unwrap();
            [&[settings], sentence].concat()
        }
        "ignore" => [b"a/b/c\nx\na/X.b\n\n", sentence].concat(),
        _ => sentence.to_vec(),
    }
}

fn literals(grammar: &Grammar) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for expr in grammar.productions.values() {
        expr.walk(&mut |expr| {
            if let Expr::Literal(text) = expr {
                found.insert(text.clone());
            }
        });
    }
    found
}

/// The files of `testdata` that are Dockerfiles.
fn dockerfiles(root: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut todo = vec![root.join("testdata")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_str().unwrap().ends_with("Dockerfile") {
            found.push(fs::read(&path).unwrap());
        }
    }
    found
}

/// Small tars of every kind of entry, plain and in each compression; and a stored listing.
fn archives() -> Vec<Vec<u8>> {
    let mut seeds = vec![b"rbL\x01\x01\x00\x01a\x02\xed\x03\x00\x00\x00\x00".to_vec()];
    for tar in [tar_of_all_kinds(), tar_of_extensions()] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        gzip.write_all(&tar).unwrap();
        bzip2.write_all(&tar).unwrap();
        xz.write_all(&tar).unwrap();
        seeds.push(gzip.finish().unwrap());
        seeds.push(bzip2.finish().unwrap());
        seeds.push(xz.finish().unwrap());
        seeds.push(zstd::encode_all(&*tar, 1).unwrap());
        seeds.push(tar);
    }
    seeds
}

fn tar_of_all_kinds() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, link, content) in [
        (tar::EntryType::Regular, None, &b"content"[..]),
        (tar::EntryType::Directory, None, b""),
        (tar::EntryType::Symlink, Some("target"), b""),
        (tar::EntryType::Link, Some("other"), b""),
        (tar::EntryType::Char, None, b""),
        (tar::EntryType::Fifo, None, b""),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len().try_into().unwrap());
        header.set_mode(0o755);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, format!("a/{kind:?}"), content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Long names, PAX records, and files with holes in GNU's form and in PAX's.
fn tar_of_extensions() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    tar.append_data(&mut header, "long/".repeat(40), &b"abc"[..]).unwrap();
    tar.append_pax_extensions([
        ("SCHILY.xattr.user.k", &b"v"[..]),
        ("mtime", b"12.5"),
        ("uid", b"70000"),
    ])
    .unwrap();
    tar.append_data(&mut header, "x", &b"abc"[..]).unwrap();
    tar.append_pax_extensions([
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"5000"),
    ])
    .unwrap();
    let map = [b"1\n4000\n3\n".to_vec(), vec![0; 503], b"abc".to_vec()].concat();
    header.set_size(map.len().try_into().unwrap());
    tar.append_data(&mut header, "GNUSparseFile.0/holes", &*map).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(3);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize[..11].copy_from_slice(b"00000010000");
    gnu.sparse[0].offset[..11].copy_from_slice(b"00000001000");
    gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000003");
    tar.append_data(&mut header, "gnu", &b"abc"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn documents() -> Vec<Vec<u8>> {
    let hex = "0".repeat(64);
    let descriptor = |kind: &str| {
        let kind = format!("application/vnd.oci.image.{kind}");
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{hex}","size":7}}"#)
    };
    let (config, layer) = (descriptor("config.v1+json"), descriptor("layer.v1.tar+gzip"));
    let manifest = descriptor("manifest.v1+json");
    let mut full = ImageConfig::scratch(&Platform::new("linux", "arm64", Some("v8")));
    full.config.set_env("PATH", "/bin");
    full.config.entrypoint = Some(vec!["sh".to_owned()]);
    vec![
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#).into_bytes(),
        format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#).into_bytes(),
        full.to_json(),
    ]
}

/// Tables of contents as `docker save` writes them.
fn tables() -> Vec<Vec<u8>> {
    let hex = "0".repeat(64);
    let table = format!(
        r#"[{{"Config":"{hex}.json","RepoTags":["a/b:1",null],"Layers":["{hex}/layer.tar"]}},
        {{"Config":"blobs/sha256/{hex}","RepoTags":null,"Layers":null}}]"#
    );
    vec![table.into_bytes(), b"[]".to_vec()]
}

/// Documents of build caches.
fn caches() -> Vec<Vec<u8>> {
    let hex = "0".repeat(64);
    let blob = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"sha256:{hex}","size":7}}"#
    );
    let layer = format!(
        r#"{{"diffId":"sha256:{hex}","content":"{hex}","tarBytes":9,"created":1,"blob":{blob}}}"#
    );
    let step = format!(
        r#"{{"definition":"{hex}","content":"{hex}","operation":"{hex}","components":[["argv","true"]],"layer":"sha256:{hex}","created":2,"durationMs":3}}"#
    );
    let mount = format!(
        r#"{{"id":"go","key":"{hex}","diffId":"sha256:{hex}","tarBytes":9,"blob":{blob}}}"#
    );
    let full = format!(r#"{{"layers":[{layer}],"steps":[{step}],"mounts":[{mount}]}}"#);
    vec![full.into_bytes(), br#"{"layers":[],"steps":[]}"#.to_vec()]
}
