//! A base image looks the same to every reader and after any earlier build. The random bases have
//! layers with the oddities of other tools: directories that are not listed, links over directories
//! and back, whiteouts of nothing and through links, opaque directories, hard links. They are read
//! by RUN, by `RUN --mount`, by `COPY --from` and in outputs, before and after they are unpacked.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::env::{Env, Who};

/// Number of bases that one build compares.
const BATCH: u64 = 40;
/// The names in an image that the random layers change.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A random number generator with a fixed sequence for each seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn path(&mut self) -> String {
        let names: Vec<&str> = (0..=self.below(3)).map(|_| self.of(&NAMES)).collect();
        names.join("/")
    }
}

/// The tar of a layer under construction. Each file of an image has a unique length, which stands
/// in for its content.
struct Layer<'a> {
    tar: tar::Builder<Vec<u8>>,
    next_size: &'a mut u64,
    random: &'a mut Random,
    files: Vec<String>,
}

impl Layer<'_> {
    fn entry(&mut self, name: &str, kind: tar::EntryType, target: Option<&str>, size: u64) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(self.random.of(&[0o755, 0o700, 0o711, 0o1777, 0o644, 0o4755]));
        header.set_uid(self.random.of(&[0, 0, 5, 1000]));
        header.set_gid(self.random.of(&[0, 0, 6]));
        header.set_mtime(1_600_000_000 + u64::try_from(self.random.below(9)).unwrap());
        header.set_size(size);
        let content = vec![b'x'; usize::try_from(size).unwrap()];
        match target {
            Some(target) => self.tar.append_link(&mut header, name, target).unwrap(),
            None => self.tar.append_data(&mut header, name, &*content).unwrap(),
        }
    }

    fn random_entry(&mut self) {
        let path = self.random.path();
        match self.random.below(12) {
            0..=2 => self.entry(&path, tar::EntryType::Directory, None, 0),
            3..=5 => {
                *self.next_size += 1;
                self.entry(&path, tar::EntryType::Regular, None, *self.next_size);
                self.files.push(path);
            }
            6 => {
                let target = self.random.path();
                let prefix = self.random.of(&["", "/", "../"]);
                self.entry(&path, tar::EntryType::Symlink, Some(&format!("{prefix}{target}")), 0);
            }
            7 if !self.files.is_empty() => {
                let target = self.files[self.random.below(self.files.len())].clone();
                self.entry(&path, tar::EntryType::Link, Some(&target), 0);
            }
            8 => self.entry(&format!("{path}/.wh..wh..opq"), tar::EntryType::Regular, None, 0),
            9 if self.random.below(8) == 0 => {
                self.entry(".wh..wh..opq", tar::EntryType::Regular, None, 0);
            }
            _ => {
                let (parent, name) = path.rsplit_once('/').map_or(("", &*path), |both| both);
                let slash = if parent.is_empty() { "" } else { "/" };
                let marker = format!("{parent}{slash}.wh.{name}");
                self.entry(&marker, tar::EntryType::Regular, None, 0);
            }
        }
    }
}

/// Returns the layers of a random base, without the layer that has busybox.
fn random_layers(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut next_size = 0;
    (0..=1 + random.below(2))
        .map(|_| {
            let mut layer = Layer {
                tar: tar::Builder::new(Vec::new()),
                next_size: &mut next_size,
                random: &mut random,
                files: Vec::new(),
            };
            (0..=layer.random.below(9)).for_each(|_| layer.random_entry());
            layer.tar.into_inner().unwrap()
        })
        .collect()
}

/// Returns a layer with busybox for steps to mount: the bases contain only random files.
fn busybox_layer() -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    let program = fs::read("/bin/busybox").expect("busybox-static is installed");
    header.set_size(u64::try_from(program.len()).unwrap());
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "busybox", &*program).unwrap();
    tar.into_inner().unwrap()
}

/// A file's attributes, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    mtime: i64,
    /// Length of a file, or target of a link.
    content: String,
    /// The same for all hard links of one file.
    file: String,
}

type View = BTreeMap<String, Seen>;

/// Returns a view as text. Hard links are shown by the first of their names.
fn shown(view: &View) -> String {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut text = String::new();
    for (path, seen) in view {
        let Seen { kind, mode, owner, mtime, content, file } = seen;
        let name = if *kind == 'd' { path } else { *first.entry(file).or_insert(path) };
        writeln!(text, "{path} {kind} {mode:o} {owner:?} {mtime} {content} {name}").unwrap();
    }
    text
}

fn is_of_interest(path: &str) -> bool {
    NAMES.contains(&path.split('/').next().unwrap())
}

/// Returns the files of a tar below `prefix`.
fn tar_view(tar: &[u8], prefix: &str) -> View {
    let mut view = View::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
        let Some(path) = path.strip_prefix(prefix).filter(|path| is_of_interest(path)) else {
            continue;
        };
        let header = entry.header();
        let target = entry.link_name().unwrap().map(|name| name.display().to_string());
        let target = target.unwrap_or_default();
        let entry_type = header.entry_type();
        let (kind, content) = if entry_type == tar::EntryType::Directory {
            ('d', String::new())
        } else if entry_type == tar::EntryType::Symlink {
            ('l', target.clone())
        } else {
            assert!(matches!(entry_type, tar::EntryType::Regular | tar::EntryType::Link));
            ('f', header.size().unwrap().to_string())
        };
        let mode = if kind == 'l' { 0o777 } else { header.mode().unwrap() };
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        let mtime = header.mtime().unwrap().cast_signed();
        let mut seen = Seen { kind, mode, owner, mtime, content, file: path.to_owned() };
        if entry_type == tar::EntryType::Link {
            seen = view[target.strip_prefix(prefix).unwrap()].clone();
        }
        view.insert(path.to_owned(), seen);
    }
    view
}

/// Parses the output of `stat` for the files below `prefix`.
fn stat_view(text: &str, prefix: &str) -> View {
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        let path = fields[0].strip_prefix(prefix)?;
        let mode = u32::from_str_radix(fields[1], 16).unwrap();
        let number = |at: usize| fields[at].parse::<u64>().unwrap();
        let (kind, content) = match mode & 0o170_000 {
            0o040_000 => ('d', String::new()),
            0o120_000 => ('l', fields[7].split_once(" -> ")?.1.trim_matches('\'').to_owned()),
            _ => ('f', fields[5].to_owned()),
        };
        let owner = (number(2), number(3));
        let mtime = number(4).cast_signed();
        let file = fields[6].to_owned();
        Some((path.to_owned(), Seen { kind, mode: mode & 0o7777, owner, mtime, content, file }))
    });
    lines.filter(|(path, _)| is_of_interest(path)).collect()
}

/// Returns the files of a directory on this machine.
fn directory_view(at: &Path) -> View {
    let files = walkdir::WalkDir::new(at).min_depth(1).into_iter().map(Result::unwrap);
    let seen = files.filter_map(|entry| {
        let path = entry.path().strip_prefix(at).unwrap().to_str().unwrap().to_owned();
        let meta = entry.path().symlink_metadata().unwrap();
        let (kind, content) = if meta.is_dir() {
            ('d', String::new())
        } else if meta.is_symlink() {
            ('l', fs::read_link(entry.path()).unwrap().display().to_string())
        } else {
            ('f', meta.size().to_string())
        };
        let owner = (u64::from(meta.uid()), u64::from(meta.gid()));
        let (mtime, file) = (meta.mtime(), meta.ino().to_string());
        let seen = Seen { kind, mode: meta.mode() & 0o7777, owner, mtime, content, file };
        is_of_interest(&path).then_some((path, seen))
    });
    seen.collect()
}

/// Returns a step that lists the random files below `prefix` with a mounted busybox.
fn listing_step(mount: &str, prefix: &str) -> String {
    let tops = NAMES.map(|top| format!("{prefix}{top}")).join(" ");
    let stat = "/tools/busybox stat -c '%n|%f|%u|%g|%Y|%s|%i|%N' {} +";
    let list = format!("/tools/busybox find {tops} -exec {stat} > /seen 2>/dev/null || true");
    format!(
        "RUN {mount} --mount=from=tools,target=/tools [\"/tools/busybox\", \"sh\", \"-c\", \"{list}\"]\n"
    )
}

/// Some bases, their store and their locations.
struct Bases<'a> {
    env: &'a Env,
    store: String,
    contexts: BTreeMap<String, String>,
}

impl Bases<'_> {
    fn build(&self, store: &str, dockerfile: &str, args: &[&str]) -> Result<(), String> {
        self.env.write("Dockerfile", dockerfile);
        let mut all = vec!["build".to_owned(), "context".to_owned(), "-q".to_owned()];
        for (name, path) in &self.contexts {
            all.extend(["--build-context".to_owned(), format!("{name}=oci-layout://{path}")]);
        }
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let output = self.env.command_in(store, &all).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(error) }
    }

    fn tar(&self, store: &str, dockerfile: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        let dest = self.env.path("out.tar");
        let output = format!("type=tar,dest={}", dest.display());
        self.build(store, dockerfile, &[&["-o", &output], args].concat())?;
        Ok(fs::read(dest).unwrap())
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.contexts.keys().filter(|name| *name != "tools")
    }

    /// Exports some of the bases as images for another store, as if they had been pushed and
    /// pulled.
    fn elsewhere(&self) -> Bases<'_> {
        let mut contexts = BTreeMap::new();
        contexts.insert("tools".to_owned(), self.contexts["tools"].clone());
        for name in self.names().filter(|name| is_written(name)) {
            let path = self.env.path(&format!("image-{name}")).display().to_string();
            let output = format!("type=oci,tar=false,dest={path}");
            self.build(&self.store, &format!("FROM {name}\n"), &["-o", &output]).unwrap();
            contexts.insert(name.clone(), path);
        }
        Bases { env: self.env, store: format!("{}-elsewhere", self.store), contexts }
    }

    /// Returns each base as an output, or the error if the base is refused.
    fn outputs(&self, store: &str) -> BTreeMap<String, Result<Vec<u8>, String>> {
        let of = |name: &String| self.tar(store, &format!("FROM {name}\n"), &[]);
        self.names().map(|name| (name.clone(), of(name))).collect()
    }

    /// Removes the bases that are refused, after checking that a RUN refuses them too.
    fn leave_out_refused(&mut self, outputs: &BTreeMap<String, Result<Vec<u8>, String>>) {
        for (name, refused) in outputs.iter().filter(|(_, output)| output.is_err()) {
            let run = self.build(
                &self.store,
                &format!("FROM {name}\nRUN true\n"),
                &["-o", "type=cacheonly"],
            );
            assert!(
                run.is_err(),
                "{name} is refused for an output, and not for a RUN: {refused:?}"
            );
            self.contexts.remove(name);
        }
    }

    /// Returns an image into which all bases are copied.
    fn copies(&self, store: &str) -> Vec<u8> {
        let mut dockerfile = "FROM scratch\n".to_owned();
        for name in self.names() {
            writeln!(dockerfile, "COPY --from={name} / /{name}/").unwrap();
        }
        self.tar(store, &dockerfile, &["--no-cache"]).unwrap()
    }

    /// Lists the files in a RUN on each base, and in a RUN that mounts it.
    fn steps(&self) -> Vec<u8> {
        let mut dockerfile = String::new();
        let mut last = "FROM scratch\n".to_owned();
        for name in self.names() {
            let mount = format!("--mount=from={name},target=/m");
            let (own, mounted) = (listing_step("", "/"), listing_step(&mount, "/m/"));
            write!(dockerfile, "FROM {name} AS run-{name}\n{own}").unwrap();
            write!(dockerfile, "FROM scratch AS mount-{name}\n{mounted}").unwrap();
            writeln!(last, "COPY --from=run-{name} /seen /run/{name}").unwrap();
            writeln!(last, "COPY --from=mount-{name} /seen /mount/{name}").unwrap();
        }
        self.tar(&self.store, &format!("{dockerfile}{last}"), &["--no-cache"]).unwrap()
    }
}

/// Returns whether a base is also exported as a directory and as an image. Only some are, since
/// each export starts its own processes.
fn is_written(name: &str) -> bool {
    name.ends_with(['0', '5'])
}

fn text_in(tar: &[u8], name: &str) -> String {
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut found = entries.find(|entry| entry.path().unwrap() == Path::new(name)).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut found, &mut text).unwrap();
    text
}

fn random_bases(env: &Env, seeds: std::ops::Range<u64>) -> Bases<'_> {
    let busybox = busybox_layer();
    let mut contexts = BTreeMap::new();
    contexts.insert("tools".to_owned(), env.write_layout("bases/tools", &[&busybox]));
    for seed in seeds.clone() {
        let layers = random_layers(seed);
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let at = env.write_layout(&format!("bases/{seed}"), &layers);
        contexts.insert(format!("b{seed}"), at);
    }
    let store = format!("store-{}", seeds.start);
    Bases { env, store, contexts }
}

/// Compares all views of a batch of bases. Returns the number of bases that are not refused.
fn check_batch(env: &Env, seeds: std::ops::Range<u64>) -> usize {
    let mut bases = random_bases(env, seeds.clone());
    let before = bases.outputs(&bases.store);
    bases.leave_out_refused(&before);
    let copied_before = bases.copies(&bases.store);
    // First with layers that were just unpacked, then with layers that another process left.
    let (steps, again) = (bases.steps(), bases.steps());
    let copied_after = bases.copies(&bases.store);
    assert!(copied_before == copied_after, "{seeds:?}: COPY --from depends on what was unpacked");
    let after = bases.outputs(&bases.store);
    let elsewhere = bases.elsewhere();
    let output_elsewhere = elsewhere.outputs(&elsewhere.store);
    let steps_elsewhere = elsewhere.steps();
    let mut wrong = BTreeSet::new();
    for name in bases.names() {
        let (before, after) = (before[name].clone().unwrap(), after[name].clone().unwrap());
        assert!(before == after, "{name}: the output depends on what was unpacked");
        let want = tar_view(&before, "");
        let directory = env.path(&format!("local-{name}"));
        let output = format!("type=local,dest={}", directory.display());
        if is_written(name) {
            bases.build(&bases.store, &format!("FROM {name}\n"), &["-o", &output]).unwrap();
        }
        let views = [
            ("RUN", stat_view(&text_in(&steps, &format!("run/{name}")), "/")),
            ("RUN again", stat_view(&text_in(&again, &format!("run/{name}")), "/")),
            ("--mount", stat_view(&text_in(&steps, &format!("mount/{name}")), "/m/")),
            ("COPY", tar_view(&copied_after, &format!("{name}/"))),
        ];
        let local = is_written(name).then(|| ("local", directory_view(&directory)));
        let pulled = is_written(name).then(|| {
            let run = stat_view(&text_in(&steps_elsewhere, &format!("run/{name}")), "/");
            [
                ("RUN elsewhere", run),
                ("elsewhere", tar_view(&output_elsewhere[name].clone().unwrap(), "")),
            ]
        });
        for (view, mut have) in views.into_iter().chain(local).chain(pulled.into_iter().flatten()) {
            if view == "local" {
                // A caller who may not change owners owns the files, and set-id bits are left out.
                have = with_ownership_of(have, &want);
            }
            if shown(&have) != shown(&want) {
                wrong.insert(format!("{name}, {view}:\n{}want:\n{}", shown(&have), shown(&want)));
            }
        }
    }
    for path in elsewhere.contexts.iter().filter(|(name, _)| *name != "tools").map(|(_, path)| path)
    {
        fs::remove_dir_all(path).unwrap();
    }
    let n_wrong = wrong.len();
    let some: Vec<String> = wrong.into_iter().take(3).collect();
    assert!(n_wrong == 0, "{n_wrong} views differ, among them\n{}", some.join("\n"));
    fs::remove_dir_all(env.path("bases")).unwrap();
    bases.names().count()
}

fn with_ownership_of(mut view: View, of: &View) -> View {
    for (path, seen) in &mut view {
        let Some(other) = of.get(path) else { continue };
        seen.owner = other.owner;
        seen.mode |= other.mode & 0o6000;
    }
    view
}

fn check(who: Who, n_bases: u64) {
    let mut n_seen = 0;
    for batch in 0..n_bases.div_ceil(BATCH) {
        let env = Env::of(who);
        let first = batch * BATCH;
        n_seen += check_batch(&env, first..first + BATCH);
    }
    let n_seen = u64::try_from(n_seen).unwrap();
    assert!(n_seen > n_bases / 2, "only {n_seen} of {n_bases} bases are not refused");
}

#[test]
fn priv_random_bases_are_one_tree_as_root() {
    if let Some(who) = Who::root() {
        check(who, 1_600);
    }
}

#[test]
fn priv_random_bases_are_one_tree_as_user() {
    if let Some(who) = Who::user() {
        check(who, 400);
    }
}
