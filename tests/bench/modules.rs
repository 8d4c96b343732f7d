//! `cargo bench`: what the pure modules do in a second. Rates are of input bytes, or of entries.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark stops where it fails, and has no callers"
)]

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use rbuild::archive::{Packing, packer, write_listing};
use rbuild::dockerfile::{ir, syntax};
use rbuild::plan::{self, Network, OperationKey, RunOperation, RunSettings};
use rbuild::tree::{
    ContentHash, CopyInput, CopyRequest, Entry, File, FileOrigin, LayerItem, LayerListing, Meta,
    Node, Tree, TreePath, select_digest,
};

#[path = "../support/ebnf.rs"]
mod ebnf;
#[path = "../support/generate.rs"]
mod generate;

fn main() {
    divan::main();
}

/// Sentences of the grammar, one after the other in one file of about so many bytes.
fn dockerfile(n_bytes: usize) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("grammar");
    let text = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let mut grammar = ebnf::Grammar::default();
    for file in ["lines.ebnf", "dockerfile.ebnf", "words.ebnf"] {
        grammar.read(&text(file)).unwrap();
    }
    let weights: generate::Weights = toml::from_str(&text("weights.toml")).unwrap();
    let mut generator = generate::Generator::new(&grammar, &weights, 1);
    let mut all = String::from("FROM scratch\n");
    while all.len() < n_bytes {
        let one = generator.sentence("run");
        if syntax::parse(&format!("FROM scratch\n{one}\n")).1.is_empty() {
            all.push_str(&one);
            all.push('\n');
        }
    }
    all
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let text = dockerfile(1 << 20);
    bencher.counter(BytesCount::of_str(&text)).bench(|| syntax::parse(black_box(&text)));
}

#[divan::bench]
fn print(bencher: Bencher<'_, '_>) {
    let text = dockerfile(1 << 20);
    let (file, _) = syntax::parse(&text);
    bencher.counter(BytesCount::of_str(&text)).bench(|| ir::print(black_box(&file)));
}

/// A layer of so many files of 100 bytes, 100 a directory.
fn layer(n_files: usize) -> LayerListing {
    let bytes: Arc<[u8]> = vec![b'x'; 100].into();
    let content = ContentHash::of(&bytes);
    let mut entries = Vec::new();
    for at in 0..n_files {
        let directory = format!("src/d{:04}", at / 100);
        if at % 100 == 0 {
            let item = LayerItem::Node(Meta::root(0o755, 0), Node::Directory { opaque: false });
            entries.push(Entry { path: TreePath::new(directory.as_bytes()).unwrap(), item });
        }
        let path = TreePath::new(format!("{directory}/f{at}").as_bytes()).unwrap();
        let file = File { size: 100, content, origin: FileOrigin::Inline(Arc::clone(&bytes)) };
        entries.push(Entry { path, item: LayerItem::Node(Meta::root(0o644, 0), Node::File(file)) });
    }
    LayerListing::new(entries)
}

const N_FILES: usize = 100_000;

#[divan::bench(sample_count = 10)]
fn merge_a_layer(bencher: Bencher<'_, '_>) {
    let layer = layer(N_FILES);
    bencher.counter(ItemsCount::new(N_FILES)).bench(|| {
        let mut tree = Tree::default();
        tree.apply(black_box(&layer));
        tree
    });
}

#[divan::bench(sample_count = 10)]
fn name_a_layer_by_content(bencher: Bencher<'_, '_>) {
    let layer = layer(N_FILES);
    bencher.counter(ItemsCount::new(N_FILES)).bench(|| black_box(&layer).content_digest());
}

#[divan::bench(sample_count = 10)]
fn key_of_a_copy(bencher: Bencher<'_, '_>) {
    let mut tree = Tree::default();
    tree.apply(&layer(N_FILES));
    let sources = [CopyInput::Path("src")];
    let request = CopyRequest {
        sources: &sources,
        destination: "/src",
        workdir: "/",
        owner: None,
        mode: None,
        exclude: &[],
        parents: false,
        from_context: true,
        link: false,
        now_s: 0,
    };
    bencher.counter(ItemsCount::new(N_FILES)).bench(|| select_digest(black_box(&tree), &request));
}

#[divan::bench]
fn key_of_a_run(bencher: Bencher<'_, '_>) {
    let env = |n: usize| (format!("NAME_{n}"), format!("value {n}"));
    let run = RunOperation {
        argv: ["/bin/sh", "-c", "make -j4 all install"].map(str::to_owned).to_vec(),
        env: (0..20).map(env).collect(),
        proxy: Vec::new(),
        cwd: "/src".to_owned(),
        user: String::new(),
        network: Network::Host,
        insecure: false,
        mounts: Vec::new(),
        patience: rbuild::dockerfile::ir::Patience::default(),
        settings: RunSettings::default(),
        files: Vec::new(),
        hostname: "host".to_owned(),
        platform: "linux/amd64".to_owned(),
    };
    let parent = plan::Chain::empty();
    bencher.bench(|| OperationKey::run(black_box(&run), &[]).key().on(parent));
}

#[divan::bench(sample_count = 10)]
fn write_a_tar(bencher: Bencher<'_, '_>) {
    let layer = layer(N_FILES);
    let open = |file: &File, _path: &TreePath| -> io::Result<Box<dyn io::Read>> {
        match &file.origin {
            FileOrigin::Inline(bytes) => Ok(Box::new(io::Cursor::new(Arc::clone(bytes)))),
            FileOrigin::Directory { .. } | FileOrigin::Layer { .. } => {
                Err(io::ErrorKind::NotFound.into())
            }
        }
    };
    bencher
        .counter(ItemsCount::new(N_FILES))
        .bench(|| write_listing(black_box(&layer), &open, io::sink()).unwrap());
}

/// Text that packs about as well as programs do.
fn sample(n_bytes: usize) -> Vec<u8> {
    let mut random = generate::Random(1);
    let mut bytes = Vec::with_capacity(n_bytes + 64);
    while bytes.len() < n_bytes {
        let word = random.next();
        bytes.extend_from_slice((word >> 44).to_string().as_bytes());
        match word % 4 {
            0 => bytes.extend_from_slice(b"/usr/share/doc/"),
            1 => bytes.extend_from_slice(&word.to_le_bytes()),
            _ => bytes.push(b'\n'),
        }
    }
    bytes.truncate(n_bytes);
    bytes
}

const PACKINGS: [(Packing, usize); 4] =
    [(Packing::GZIP, 1), (Packing::GZIP, 2), (Packing::ZSTD, 1), (Packing::ZSTD, 2)];

#[divan::bench(args = PACKINGS, sample_count = 5)]
fn pack(bencher: Bencher<'_, '_>, (packing, jobs): (Packing, usize)) {
    let bytes = sample(32 << 20);
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let mut out = packer(io::sink(), packing, NonZeroUsize::new(jobs).unwrap()).unwrap();
        out.write_all(black_box(&bytes)).unwrap();
        out.finish().unwrap()
    });
}
