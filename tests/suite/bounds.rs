//! Costs of untrusted input: archives, images, caches and steps that try to exhaust disk space,
//! memory or time.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Runs rbuild with limits on file size and time, so that a successful attack cannot bring the
/// machine down.
fn guarded(env: &Env, args: &[&str], stdin: Option<&Path>) -> Done {
    let script = "ulimit -f 2097152; exec timeout 120 \"$0\" --root store \"$@\"";
    let mut command = env.program("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_rbuild")]).args(args);
    if let Some(stdin) = stdin {
        command.stdin(Stdio::from(fs::File::open(stdin).unwrap()));
    }
    Done::of(command.output().unwrap())
}

fn guarded_build(env: &Env, dockerfile: &str, args: &[&str]) -> Done {
    env.write("Dockerfile", dockerfile);
    guarded(env, &[&["build", "context"], args].concat(), None)
}

/// Returns the disk usage of everything below `path`, in bytes.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).into_iter().filter_map(Result::ok);
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Writes a number as GNU tar writes large ones: base 256, with the first bit set.
fn large(field: &mut [u8], value: u64) {
    let (front, back) = field.split_at_mut(field.len() - 8);
    front.fill(0);
    front.first_mut().map(|byte| *byte = 0x80).unwrap();
    back.copy_from_slice(&value.to_be_bytes());
}

fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Returns a tar whose only file is a hole except for its first bytes.
pub(crate) fn sparse_tar(name: &str, size: u64, begin: &[u8]) -> Vec<u8> {
    let mut block = begin.to_vec();
    block.resize(512, b'\n');
    let mut header = header(name, tar::EntryType::GNUSparse, 512);
    let gnu = header.as_gnu_mut().unwrap();
    large(&mut gnu.realsize, size);
    for (piece, (at, n_bytes)) in gnu.sparse.iter_mut().zip([(0, 512), (size, 0)]) {
        large(&mut piece.offset, at);
        large(&mut piece.numbytes, n_bytes);
    }
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, &*block).unwrap();
    tar.into_inner().unwrap()
}

/// Writes an OCI layout whose image has this single layer. Returns its `--build-context` option.
pub(crate) fn layout(env: &Env, name: &str, layer: &[u8]) -> String {
    format!("base=oci-layout://{}", env.write_layout(name, &[layer]))
}

as_root_and_as_user!(
    sparse_file_of_a_terabyte_fills_no_disk,
    sparse_file_takes_no_disk_where_it_is_allowed,
    archive_that_replaces_depth_for_size_is_refused,
    huge_passwd_of_a_base_is_not_read,
    special_files_in_place_of_passwd_do_not_hang,
    tampered_local_cache_costs_nothing,
    record_of_endless_output_is_bounded,
    step_that_leaves_a_sparse_file_of_a_terabyte_fails,
);

fn step_that_leaves_a_sparse_file_of_a_terabyte_fails(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile = "FROM base:1\nRUN busybox truncate -s 1099511627776 /disk\n";
    // Not guarded: the kernel counts holes against the limit on file size.
    let started = Instant::now();
    env.build(dockerfile, &[]).fails(3, &["/disk", "1099511627776", "--max-unpacked-size"]);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

fn sparse_file_of_a_terabyte_fills_no_disk(who: Who) {
    let env = Env::of(who);
    let tar = sparse_tar("big", TIB, b"x");
    env.write("bomb.tar", &tar);
    let parts = ["the archive unpacks to more than 137438953472 bytes", "--max-unpacked-size"];

    let started = Instant::now();
    guarded_build(&env, "FROM scratch\nADD bomb.tar /x/\n", &[]).fails(1, &parts);

    env.write("within.tar", sparse_tar("big", 100 * GIB, b"x"));
    let expands = "the archive unpacks to over 1100 times its 1024 bytes";
    guarded_build(&env, "FROM scratch\nADD within.tar /x/\n", &[]).fails(1, &[expands]);

    let base = layout(&env, "hostile", &tar);
    let dockerfile = "FROM base\nCOPY Dockerfile /y\n";
    guarded_build(&env, dockerfile, &["--build-context", &base]).fails(3, &parts);
    guarded_build(&env, "FROM base\nRUN [\"/x\"]\n", &["--build-context", &base]).fails(3, &parts);

    fs::write(env.path("context.tar"), &tar).unwrap();
    let done = guarded(&env, &["build", "-"], Some(&env.path("context.tar")));
    done.fails(3, &parts);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    let n_bytes = disk_bytes(&env.path("store"));
    assert!(n_bytes < 32 * MIB, "{n_bytes}");
}

fn sparse_file_takes_no_disk_where_it_is_allowed(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("disk.tar", sparse_tar("disk", GIB / 2, b"begin"));
    let before = disk_bytes(&env.path("store"));
    let dockerfile = "FROM base:1\nADD disk.tar /x/\n\
                      RUN test $(stat -c %s /x/disk) = 536870912 && head -c 5 /x/disk | grep begin\n";
    guarded_build(&env, dockerfile, &[]).ok();
    let n_bytes = disk_bytes(&env.path("store")) - before;
    assert!(n_bytes < 32 * MIB, "{n_bytes}");

    let small = ["--max-unpacked-size", "100MB"];
    let limit = "the archive unpacks to more than 100000000 bytes";
    guarded_build(&env, "FROM scratch\nADD disk.tar /y/\n", &small).fails(1, &[limit]);
}

fn archive_that_replaces_depth_for_size_is_refused(who: Who) {
    let env = Env::of(who);
    let refused = |name: &str, tar: Vec<u8>, part: &str| {
        env.write(name, tar);
        let dockerfile = format!("FROM scratch\nADD {name} /x/\n");
        let args = ["--max-unpacked-size", "1GiB"];
        guarded_build(&env, &dockerfile, &args).fails(1, &[name, part]);
    };
    let named = |name: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = header("x", tar::EntryType::Regular, 0);
        tar.append_data(&mut header, name, &b""[..]).unwrap();
        tar.into_inner().unwrap()
    };
    refused("levels.tar", named(&"d/".repeat(5000)), "a path of more than 4096");
    refused("deep.tar", named(&format!("{}f", "d/".repeat(600))), "a depth of more than 500");
    refused("long.tar", named(&"n".repeat(2 << 20)), "a header of more than 1048576");
    let mut many = tar::Builder::new(Vec::new());
    for at in 0..70_000 {
        many.append(&header(&format!("f{at}"), tar::EntryType::Regular, 0), &b""[..]).unwrap();
    }
    refused("many.tar", many.into_inner().unwrap(), "more than 65536 entries");
    // Each entry implies 400 directories.
    let mut implied = tar::Builder::new(Vec::new());
    for at in 0..200 {
        let mut header = header("x", tar::EntryType::Regular, 0);
        let name = format!("{at}/{}f", "d/".repeat(400));
        implied.append_data(&mut header, name, &b""[..]).unwrap();
    }
    refused("implied.tar", implied.into_inner().unwrap(), "more than 65536 entries");
}

fn huge_passwd_of_a_base_is_not_read(who: Who) {
    let env = Env::of(who);
    let tar = sparse_tar("etc/passwd", GIB / 2, b"app:x:7:7::/:/bin/sh\n");
    let base = layout(&env, "hostile", &tar);
    env.write("file", "content");
    let too_large = "larger than the limit of 16777216 bytes";
    for step in ["USER app\nWORKDIR /w", "COPY --chown=app file /y", "USER app\nRUN [\"/x\"]"] {
        let dockerfile = format!("FROM base\n{step}\n");
        let done = guarded_build(&env, &dockerfile, &["--build-context", &base]);
        done.fails(3, &["cannot read the image's", "/etc/passwd", too_large]);
    }
    for step_without_names in ["WORKDIR /w", "COPY file /y"] {
        let dockerfile = format!("FROM base\n{step_without_names}\n");
        guarded_build(&env, &dockerfile, &["--build-context", &base]).ok();
    }
}

fn special_files_in_place_of_passwd_do_not_hang(who: Who) {
    let env = Env::of(who);
    env.base();
    for setup in ["mkfifo /etc/passwd", "ln -s /dev/zero /etc/passwd", "ln -s passwd /etc/passwd"] {
        let dockerfile = format!(
            "FROM base:1\nRUN rm /etc/passwd && {setup}\nRUN true\nWORKDIR /w\nUSER 7\nRUN true\n"
        );
        guarded_build(&env, &dockerfile, &[]).ok();
        let dockerfile = format!("{dockerfile}USER app\nRUN true\n");
        guarded_build(&env, &dockerfile, &[]).fails(1, &["no user `app`"]);
    }
}

/// Returns the blobs of a layout that are not JSON documents.
fn layers_of(layout: &Path) -> Vec<PathBuf> {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let blobs = blobs.map(|entry| entry.unwrap().path());
    blobs.filter(|path| !fs::read(path).unwrap().starts_with(b"{")).collect()
}

fn tampered_local_cache_costs_nothing(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("file", "content");
    let dockerfile = "FROM base:1\nCOPY file /a\nRUN cp /a /b\nRUN cp /b /c\n";
    let cache_to = format!("type=local,dest={},mode=max", env.shown("cache"));
    guarded_build(&env, dockerfile, &["--cache-to", &cache_to]).ok();
    let tampered = |tamper: &dyn Fn(&Path)| {
        let cache = env.path("tampered");
        drop(fs::remove_dir_all(&cache));
        let copied = Command::new("cp").arg("-r").args([env.path("cache"), cache.clone()]).status();
        assert!(copied.unwrap().success());
        let layers = layers_of(&cache);
        assert!(!layers.is_empty(), "the cache has layers");
        for layer in layers {
            fs::remove_file(&layer).unwrap();
            tamper(&layer);
        }
        env.hand_over("tampered");
        guarded(&env, &["prune", "--all"], None).ok();
        env.base();
        let cache_from = format!("type=local,src={}", cache.display());
        let done = guarded_build(&env, dockerfile, &["--cache-from", &cache_from, "-o", "out"]);
        assert!(done.code.is_some_and(|code| code < 4), "{}", done.stderr);
        let n_bytes = disk_bytes(&env.path("store"));
        assert!(n_bytes < 64 * MIB, "{n_bytes}");
        done
    };
    tampered(&|layer| fs::File::create(layer).unwrap().set_len(200 * MIB).unwrap()).ok();
    tampered(&|layer| symlink("/dev/zero", layer).unwrap()).ok();
    tampered(&|layer| {
        assert!(Command::new("mkfifo").arg(layer).status().unwrap().success());
    })
    .ok();
}

fn record_of_endless_output_is_bounded(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile =
        "FROM base:1\nRUN echo first; busybox yes 0123456789abcdef | head -c 40000000; echo last\n";
    guarded_build(&env, dockerfile, &["--progress", "quiet"]).ok();
    let records = fs::read_dir(env.path("store/builds")).unwrap();
    let sizes: Vec<u64> = records.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size < 8 * MIB), "{sizes:?}");
    let log = guarded(&env, &["history", "logs"], None).ok().stdout;
    for part in ["first", "[rbuild: the record leaves out ", "last"] {
        assert!(log.contains(part), "no `{part}`");
    }
}

/// A small file system, unmounted on drop.
struct Tmpfs(PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn priv_layer_without_room_leaves_space_unused() {
    let Some(_root) = Who::root() else { return };
    let env = Env::new();
    fs::create_dir(env.path("store")).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "none"]).arg(env.path("store"));
    assert!(mount.status().unwrap().success());
    let _mounted = Tmpfs(env.path("store"));
    // Not zeros, which would be stored as holes.
    let random: Vec<u8> = (0..25_000_000_u32).flat_map(|at| (at | 1 << 31).to_be_bytes()).collect();
    let mut tar = tar::Builder::new(Vec::new());
    let size = u64::try_from(random.len()).unwrap();
    tar.append(&header("a/small", tar::EntryType::Regular, 0), &b""[..]).unwrap();
    tar.append(&header("a/large", tar::EntryType::Regular, size), &*random).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    env.write("large.tar.gz", gzip.finish().unwrap());
    let done = guarded_build(&env, "FROM scratch\nADD large.tar.gz /x/\n", &[]);
    let parts = ["large.tar.gz", "not enough space for /a/large (100.0MB)", "rbuild prune"];
    done.fails(1, &parts);
    let found = rustix::fs::statvfs(env.path("store")).unwrap();
    let (free, total) = (found.f_bavail, found.f_blocks);
    assert!(free * 50 >= total, "{free} of {total}");
}
