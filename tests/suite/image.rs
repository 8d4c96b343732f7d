//! Images that rbuild writes, read back by `verify_layout` and by other tools.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests start programs and panic on failure"
)]

use std::path::Path;
use std::process::Command;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rbuild::archive::Packing;
use rbuild::image::{self, ExportOptions, ExportTarget, Image};
use rbuild::oci::{Digest, Reference};
use rbuild::store::Representation;
use rbuild::tree::{Entry, LayerItem, Meta, Node};
use serde_json::Value;

use crate::support::image::{
    CAPABILITY, Fixture, capable, dir, fifo, file, file_with, jobs, link, null_device, path,
};
use crate::support::registry::{DockerRegistry, client};
use crate::support::sandbox::{is_root, test_user, this_program};

fn options() -> ExportOptions {
    ExportOptions {
        packing: Packing::GZIP,
        force_packing: false,
        docker_media_types: false,
        always_index: false,
        jobs: jobs(2),
        names: vec![reference("app:1")],
        created: Some("2023-11-14T22:13:20Z".to_owned()),
        annotations: Vec::new(),
        by_digest: false,
        guarded_names: Vec::new(),
        ignores_immutable_tags: false,
        trusts_tag: false,
        split: None,
        keeps_special: false,
        deletes_others: false,
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Returns the standard output of a program that must succeed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("these tests need `{program}`: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn skopeo(args: &[&str]) -> Value {
    json(&run("skopeo", args))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Writes the image, and reads it back with `verify_layout`. Returns its digest.
fn export(
    fixture: &Fixture,
    image: &Image,
    target: &ExportTarget,
    options: &ExportOptions,
) -> Digest {
    let written = image::export(&fixture.store, image, target, options).unwrap();
    let (ExportTarget::OciArchive(path)
    | ExportTarget::OciDirectory(path)
    | ExportTarget::DockerArchive(path)) = target
    else {
        panic!("{target:?} is no layout")
    };
    let found = image::verify_layout(path).unwrap();
    assert!(found.iter().any(|found| found.manifest == written.digest), "{found:?}");
    for name in &options.names {
        let named = found.iter().find(|found| found.name.as_deref() == Some(&name.to_string()));
        assert_eq!(named.unwrap().manifest, written.digest);
    }
    written.digest
}

/// Returns the diff ids: packed sizes and the like differ between tools, the contents do not.
fn diff_ids(config: &Value) -> Vec<String> {
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn diff_ids_of(image: &Image) -> Vec<String> {
    image.layers().iter().map(|layer| layer.diff_id.to_string()).collect()
}

#[test]
fn an_oci_archive_is_read_by_skopeo() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("app.tar");
    let written = export(&fixture, &image, &ExportTarget::OciArchive(path.clone()), &options());
    let source = format!("oci-archive:{}:1", shown(&path));
    let inspected = skopeo(&["inspect", &source]);
    assert_eq!(inspected["Digest"], written.to_string());
    assert_eq!(inspected["Architecture"], "amd64");
    let config = skopeo(&["inspect", "--config", &source]);
    assert_eq!(diff_ids(&config), diff_ids_of(&image));
    // The copy unpacks every layer and compares it with the config.
    let copy = format!("dir:{}", shown(&fixture.path("copy")));
    run("skopeo", &["copy", "-q", "--dest-decompress", &source, &copy]);
}

#[test]
fn the_entries_of_an_archive_are_sorted_and_say_nothing_of_who_made_it() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("app.tar");
    image::export(&fixture.store, &image, &ExportTarget::DockerArchive(path.clone()), &options())
        .unwrap();
    let listed = run("tar", &["--utc", "--numeric-owner", "-tvf", &shown(&path)]);
    let lines: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line[5]).collect();
    assert_eq!(names[..2], ["blobs/", "blobs/sha256/"]);
    assert_eq!(names[names.len() - 3..], ["index.json", "manifest.json", "oci-layout"]);
    assert!(names.is_sorted(), "{names:?}");
    assert!(lines.iter().all(|line| line[1] == "0/0"), "{listed}");
    assert!(lines.iter().all(|line| line[3..5] == ["1970-01-01", "00:00"]), "{listed}");
    assert!(lines.iter().all(|line| ["drwxr-xr-x", "-rw-r--r--"].contains(&line[0])), "{listed}");
}

#[test]
fn the_same_image_gives_the_same_archive_with_any_number_of_threads() {
    let bytes = |n_jobs: usize| {
        let fixture = Fixture::new();
        let image = fixture.usual_image();
        let path = fixture.path("app.tar");
        let options = ExportOptions { jobs: jobs(n_jobs), ..options() };
        image::export(&fixture.store, &image, &ExportTarget::OciArchive(path.clone()), &options)
            .unwrap();
        Digest::of(&std::fs::read(path).unwrap())
    };
    assert_eq!(bytes(1), bytes(8));
}

#[test]
fn a_pushed_image_is_what_skopeo_reads() {
    let fixture = Fixture::new();
    let registry = DockerRegistry::open();
    let image = fixture.usual_image();
    let name = reference(&format!("{}/team/app:1", registry.host()));
    let sent = AtomicU64::new(0);
    let count = |more| {
        sent.fetch_add(more, Ordering::Relaxed);
    };
    let push = |name: &Reference, from: &[Reference]| {
        image::push(&fixture.store, &client(), &image, name, from, &options(), &count)
            .unwrap()
            .digest
    };
    let digest = push(&name, &[]);
    let first = sent.swap(0, Ordering::Relaxed);
    let packed = image::pack(&fixture.store, &image, &options()).unwrap();
    assert_eq!(digest, packed.digest());
    let mut sizes: Vec<(Digest, u64)> =
        packed.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
    sizes.push((packed.config.digest, packed.config.size));
    sizes.sort();
    sizes.dedup();
    assert_eq!(first, sizes.iter().map(|(_, size)| size).sum::<u64>());

    let source = format!("docker://{name}");
    let inspected = skopeo(&["inspect", "--tls-verify=false", &source]);
    assert_eq!(inspected["Digest"], digest.to_string());
    let copied = fixture.path("copy.tar");
    let copy = format!("oci-archive:{}:1", shown(&copied));
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &copy]);
    let config = skopeo(&["inspect", "--config", &copy]);
    assert_eq!(diff_ids(&config), diff_ids_of(&image));

    assert_eq!(image::verify_layout(&copied).unwrap()[0].manifest, digest);

    // Existing blobs are not sent again; those of another repository are mounted.
    assert_eq!(push(&name, &[]), digest);
    assert_eq!(sent.swap(0, Ordering::Relaxed), 0);
    let other = reference(&format!("{}/team/other:1", registry.host()));
    let nothing = reference(&format!("{}/team/nothing:1", registry.host()));
    assert_eq!(push(&other, &[nothing, name]), digest);
    assert_eq!(sent.swap(0, Ordering::Relaxed), packed.config.size);
}

#[test]
fn a_docker_archive_is_read_by_skopeo() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("app.tar");
    let names = ["app:1", "127.0.0.1:5000/team/app:2"].map(reference).to_vec();
    for docker_media_types in [false, true] {
        let options = ExportOptions { names: names.clone(), docker_media_types, ..options() };
        let target = ExportTarget::DockerArchive(path.clone());
        export(&fixture, &image, &target, &options);
        for (at, name) in ["", ":app:1", ":127.0.0.1:5000/team/app:2"].iter().enumerate() {
            let source = format!("docker-archive:{}{name}", shown(&path));
            let config = skopeo(&["inspect", "--config", &source]);
            assert_eq!(diff_ids(&config), diff_ids_of(&image));
            let copy = fixture.path(&format!("copy{docker_media_types}{at}"));
            run("skopeo", &["copy", "-q", &source, &format!("dir:{}", shown(&copy))]);
        }
    }
}

#[test]
fn a_second_image_joins_the_layout_directory_and_takes_over_its_name() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let empty = fixture.layer(Vec::new(), Representation::Tar);
    let small = Image::load(&fixture.store, fixture.image(&[(&empty, None)])).unwrap();
    let directory = fixture.path("layout");
    let names = |texts: &[&str]| ExportOptions {
        names: texts.iter().map(|text| reference(text)).collect(),
        created: None,
        annotations: Vec::new(),
        by_digest: false,
        guarded_names: Vec::new(),
        ignores_immutable_tags: false,
        split: None,
        keeps_special: false,
        deletes_others: false,
        ..options()
    };
    let target = ExportTarget::OciDirectory(directory.clone());
    let one = export(&fixture, &image, &target, &names(&["app:1", "app:2"]));
    let two = export(&fixture, &small, &target, &names(&["app:2"]));
    for (tag, want) in [("1", &one), ("2", &two)] {
        let inspected = skopeo(&["inspect", &format!("oci:{}:{tag}", shown(&directory))]);
        assert_eq!(inspected["Digest"], want.to_string());
    }
    let index = json(&std::fs::read_to_string(directory.join("index.json")).unwrap());
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    std::fs::write(directory.join("index.json"), "{}").unwrap();
    let error = image::export(&fixture.store, &image, &target, &names(&["app:1"])).unwrap_err();
    assert!(error.to_string().contains("is not the index of an OCI layout"), "{error}");
}

#[test]
fn layers_of_the_base_keep_their_bytes_unless_recompressed() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let base = image.layers()[0].pulled.clone().unwrap();
    let packed = |packing, force_packing| {
        let options = ExportOptions { packing, force_packing, ..options() };
        let packed = image::pack(&fixture.store, &image, &options).unwrap();
        let archive = ExportTarget::OciArchive(fixture.path("app.tar"));
        assert_eq!(export(&fixture, &image, &archive, &options), packed.digest());
        let types: Vec<String> = packed
            .layers
            .iter()
            .map(|layer| layer.media_type.to_string().rsplit(['+', '.']).next().unwrap().to_owned())
            .collect();
        (packed.layers[0].digest == base.digest, types.join(" "))
    };
    assert_eq!(packed(Packing::ZSTD, false), (true, "gzip zstd zstd zstd zstd".to_owned()));
    assert_eq!(packed(Packing::ZSTD, true), (false, "zstd zstd zstd zstd zstd".to_owned()));
    assert_eq!(packed(Packing::GZIP, true), (true, "gzip gzip gzip gzip gzip".to_owned()));
    assert_eq!(packed(Packing::None, false), (true, "gzip tar tar tar tar".to_owned()));
    assert_eq!(packed(Packing::None, true), (false, "tar tar tar tar tar".to_owned()));
}

#[test]
fn an_image_without_layers_is_written() {
    let fixture = Fixture::new();
    let image = Image::load(&fixture.store, fixture.image(&[])).unwrap();
    let path = fixture.path("app.tar");
    let options = ExportOptions { names: Vec::new(), ..options() };
    export(&fixture, &image, &ExportTarget::DockerArchive(path.clone()), &options);
    let config = skopeo(&["inspect", "--config", &format!("oci-archive:{}", shown(&path))]);
    assert_eq!(diff_ids(&config), Vec::<String>::new());
}

#[test]
fn a_device_is_written_into_and_a_link_replaced() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    for link in [false, true] {
        let (path, kept) = (fixture.path("link.tar"), fixture.path("kept.tar"));
        if link {
            std::fs::write(&kept, "old").unwrap();
            std::os::unix::fs::symlink(&kept, &path).unwrap();
        }
        let target = ExportTarget::OciArchive(if link { path.clone() } else { "/dev/null".into() });
        image::export(&fixture.store, &image, &target, &options()).unwrap();
        assert!(!link || (!path.is_symlink() && path.metadata().unwrap().len() > 10_000));
        assert!(!link || std::fs::read(&kept).unwrap() == b"old");
    }
    assert!(!Path::new("/dev/null").is_file());
    let error = image::export(
        &fixture.store,
        &image,
        &ExportTarget::OciArchive(fixture.path("missing/app.tar")),
        &options(),
    );
    let want = format!("cannot open the directory of {}", shown(&fixture.path("missing/app.tar")));
    assert_eq!(error.unwrap_err().to_string(), want);
}

/// The tree of the usual image, as `find` and `tar` would print it.
const USUAL_TREE: &str = "\
app d 755 0:0 1600000000
app/mine f 4750 1000:100 1600000005 2 4 6d696e65
app/same f 4750 1000:100 1600000005 2 4 6d696e65
app/tool f 755 0:0 1600000005 1 300000
dev d 755 0:0 1600000000
dev/null c 666 0:0 1600000003 1,3
dev/pipe p 600 0:0 1600000004
etc d 755 0:0 1600000000
etc/base f 644 0:0 1600000001 1 8 6368616e6765640a
lib l 777 0:0 1600000002 usr/lib
";

/// Python script that lists a directory.
const LIST_DIRECTORY: &str = r#"
import os, stat, sys
top = os.fsencode(sys.argv[1])
for directory, directories, files in os.walk(top):
    directories.sort()
    for name in directories + files:
        path = os.path.join(directory, name)
        s = os.lstat(path)
        kind = {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l", stat.S_IFCHR: "c",
                stat.S_IFIFO: "p"}[stat.S_IFMT(s.st_mode)]
        text = f"{os.fsdecode(path[len(top) + 1:])} {kind} {s.st_mode & 0o7777:o} {s.st_uid}:{s.st_gid} {int(s.st_mtime)}"
        if kind == "f":
            text += f" {s.st_nlink} {s.st_size}"
            if s.st_size < 100:
                text += " " + open(path, "rb").read().hex()
            if "security.capability" in os.listxattr(path):
                text += "+" + os.getxattr(path, "security.capability").hex()
        elif kind == "l":
            text += " " + os.readlink(os.fsdecode(path))
        elif kind == "c":
            text += f" {os.major(s.st_rdev)},{os.minor(s.st_rdev)}"
        print(text)
"#;

/// Returns the sorted listing of a directory without the long name, and the capabilities of
/// `app/tool`.
fn list(directory: &Path) -> (String, Option<String>) {
    let listed = run("python3", &["-c", LIST_DIRECTORY, &shown(directory)]);
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    let mut capability = None;
    let short = lines.into_iter().filter(|line| !line.starts_with("nnn")).map(|line| {
        let (line, value) = line.split_once('+').unwrap_or((&line, ""));
        if line.starts_with("app/tool") && !value.is_empty() {
            capability = Some(value.to_owned());
        }
        format!("{line}\n")
    });
    let short = short.collect();
    (short, capability)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_files_of_an_image_come_out_as_a_directory() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let directory = fixture.path("rootfs");
    let mut warnings = Vec::new();
    let target = ExportTarget::Directory(directory.clone());
    let export = |warnings: &mut Vec<image::ExportWarning>| {
        let options = ExportOptions { keeps_special: true, ..options() };
        image::export_all(&fixture.store, slice::from_ref(&image), &target, &options, &mut |w| {
            warnings.push(w);
        })
        .unwrap()
    };
    let written = export(&mut warnings);
    assert_eq!(written.digest, image.config_digest());
    assert!(directory.join("n".repeat(120)).join("deep").is_file());
    if is_root() {
        let want = (USUAL_TREE.to_owned(), Some(hex(&CAPABILITY)));
        assert_eq!(list(&directory), want);
        // Exported over itself, and over files of other types.
        std::fs::remove_dir_all(directory.join("app")).unwrap();
        std::os::unix::fs::symlink("/", directory.join("app")).unwrap();
        std::fs::remove_file(directory.join("lib")).unwrap();
        std::fs::create_dir_all(directory.join("lib/full")).unwrap();
        std::fs::write(directory.join("lib/full/x"), "").unwrap();
        export(&mut warnings);
        assert_eq!(list(&directory), want);
        assert_eq!(warnings, []);
    }
}

#[test]
fn devices_set_id_bits_and_capabilities_stay_out_of_a_directory_unless_asked_for() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let directory = fixture.path("rootfs");
    let mut warnings = Vec::new();
    let target = ExportTarget::Directory(directory.clone());
    image::export_all(&fixture.store, slice::from_ref(&image), &target, &options(), &mut |w| {
        warnings.push(w.to_string());
    })
    .unwrap();
    let text =
        "1 devices, 1 set-user-ID and set-group-ID bits, 2 attributes such as file capabilities";
    let want =
        format!("omitted from {}: {text}; `--allow local.special` keeps them", shown(&directory));
    assert!(warnings.contains(&want), "{warnings:?}");
    assert!(!directory.join("dev/null").exists());
    if is_root() {
        let plain: String = USUAL_TREE
            .lines()
            .filter(|line| !line.starts_with("dev/null"))
            .map(|line| format!("{}\n", line.replace(" f 4750 ", " f 750 ")))
            .collect();
        assert_eq!(list(&directory), (plain, None));
    }
}

#[test]
fn a_link_in_the_target_directory_does_not_lead_out_of_it() {
    let fixture = Fixture::new();
    let layer = fixture.layer(
        vec![dir("etc"), file("etc/passwd", "evil"), dir("home"), file("home/x", "evil")],
        Representation::Tar,
    );
    let image = Image::load(&fixture.store, fixture.image(&[(&layer, None)])).unwrap();
    let (directory, outside) = (fixture.path("rootfs"), fixture.path("outside"));
    std::fs::create_dir_all(directory.join("etc")).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("passwd"), "good").unwrap();
    std::fs::hard_link(outside.join("passwd"), fixture.path("hard")).unwrap();
    std::os::unix::fs::symlink(outside.join("passwd"), directory.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink(&outside, directory.join("home")).unwrap();
    std::fs::write(directory.join("kept"), "kept").unwrap();
    image::export(&fixture.store, &image, &ExportTarget::Directory(directory.clone()), &options())
        .unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&outside.join("passwd")), "good");
    assert!(!outside.join("x").exists());
    assert_eq!(read(&directory.join("etc/passwd")), "evil");
    assert_eq!(read(&directory.join("home/x")), "evil");
    assert_eq!(read(&directory.join("kept")), "kept");
}

#[test]
fn the_files_of_an_image_come_out_as_a_tar() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("rootfs.tar");
    image::export(&fixture.store, &image, &ExportTarget::Tar(path.clone()), &options()).unwrap();
    let mut streamed = Vec::new();
    let form = image::StreamFormat::Tar;
    image::export_stream(&fixture.store, &[image], form, &mut streamed, &options()).unwrap();
    assert_eq!(Digest::of(&streamed), Digest::of(&std::fs::read(&path).unwrap()));
    let listed = run("tar", &["--utc", "--numeric-owner", "-tvf", &shown(&path)]);
    let names: Vec<String> = listed
        .lines()
        .map(|line| line.split_whitespace().skip(5).collect::<Vec<_>>().join(" "))
        .filter(|name| !name.starts_with("nnn"))
        .collect();
    let want = [
        "app/",
        "app/mine",
        "app/same link to app/mine",
        "app/tool",
        "dev/",
        "dev/null",
        "dev/pipe",
        "etc/",
        "etc/base",
        "lib -> usr/lib",
    ];
    assert_eq!(names, want);
    if is_root() {
        let directory = fixture.path("unpacked");
        std::fs::create_dir(&directory).unwrap();
        let args = ["--xattrs", "--xattrs-include=*", "-xpf"];
        run("tar", &[&args[..], &[&shown(&path), "-C", &shown(&directory)]].concat());
        assert_eq!(list(&directory), (USUAL_TREE.to_owned(), Some(hex(&CAPABILITY))));
    }
}

/// Returns the error of `verify_layout` for a layout of the usual image that `spoil` has changed.
fn verdict(spoil: impl Fn(&Path, &mut Value)) -> String {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let directory = fixture.path("layout");
    export(&fixture, &image, &ExportTarget::OciDirectory(directory.clone()), &options());
    let path = directory.join("index.json");
    let mut index = json(&std::fs::read_to_string(&path).unwrap());
    spoil(&directory, &mut index);
    std::fs::write(&path, index.to_string()).unwrap();
    let verdict = image::verify_layout(&directory).unwrap_err().to_string();
    let digest = |at: usize| verdict[at..].find(|c: char| !c.is_ascii_hexdigit());
    match verdict.find("sha256/").map(|at| (at, digest(at + 7))) {
        Some((at, Some(length))) => verdict.replace(&verdict[at + 7..at + 7 + length], "…"),
        _ => verdict,
    }
}

fn blob(directory: &Path, descriptor: &Value) -> std::path::PathBuf {
    directory.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

/// Changes a blob that `at` describes, and updates the descriptor.
fn rewrite(directory: &Path, at: &mut Value, change: impl FnOnce(&mut Value)) {
    let mut document = json(&std::fs::read_to_string(blob(directory, at)).unwrap());
    change(&mut document);
    let text = document.to_string();
    at["digest"] = Digest::of(text.as_bytes()).to_string().into();
    at["size"] = text.len().into();
    std::fs::write(blob(directory, at), text).unwrap();
}

#[test]
fn verify_finds_what_does_not_fit_together() {
    let manifest = |change: fn(&Path, &mut Value)| {
        move |directory: &Path, index: &mut Value| {
            rewrite(directory, &mut index["manifests"][0], |manifest| change(directory, manifest));
        }
    };
    let check = |spoil: &dyn Fn(&Path, &mut Value), want: &str| assert_eq!(verdict(spoil), want);
    check(
        &|directory, _| {
            std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"2"}"#).unwrap();
        },
        "the layout has version 2, not 1.0.0",
    );
    check(
        &|_, index| index["manifests"][0]["size"] = 1.into(),
        &format!("blobs/sha256/… has {} bytes, but its descriptor says 1", manifest_bytes()),
    );
    check(
        &|_, index| index["manifests"][0]["platform"]["architecture"] = "arm64".into(),
        "the index says linux/arm64, but the config says linux/amd64",
    );
    check(
        &|directory, index| std::fs::remove_file(blob(directory, &index["manifests"][0])).unwrap(),
        "blobs/sha256/… is missing",
    );
    check(
        &manifest(|_, manifest| drop(manifest["layers"].as_array_mut().unwrap().pop())),
        "blobs/sha256/… has 4 layers, its config 5 and its history 5 of them",
    );
    check(
        &manifest(|directory, manifest| {
            rewrite(directory, &mut manifest["config"], |config| {
                drop(config["history"].as_array_mut().unwrap().remove(0));
            });
        }),
        "blobs/sha256/… has 5 layers, its config 5 and its history 4 of them",
    );
    check(
        &manifest(|_, manifest| manifest["layers"][1]["mediaType"] = "text/plain".into()),
        "blobs/sha256/… has the media type `text/plain`, which is invalid here",
    );
    check(
        &manifest(|_, manifest| manifest["mediaType"] = "text/plain".into()),
        "blobs/sha256/… has the media type `text/plain`, which is invalid here",
    );
    let swapped = verdict(manifest(|_, manifest| {
        manifest["layers"].as_array_mut().unwrap().swap(2, 3);
    }));
    assert!(swapped.contains(" has the DiffID sha256:"), "{swapped}");
    let first_gone = verdict(manifest(|directory, manifest| {
        drop(manifest["layers"].as_array_mut().unwrap().remove(0));
        rewrite(directory, &mut manifest["config"], |config| {
            drop(config["history"].as_array_mut().unwrap().remove(0));
            drop(config["rootfs"]["diff_ids"].as_array_mut().unwrap().remove(0));
        });
    }));
    assert_eq!(first_gone, "blobs/sha256/… removes /etc/gone, which no layer below has");
}

fn manifest_bytes() -> u64 {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    image::pack(&fixture.store, &image, &options()).unwrap().descriptor.size
}

#[test]
fn an_ordinary_user_gets_the_files_without_their_owners() {
    if is_root() {
        let name = "image::an_ordinary_user_gets_the_files_without_their_owners";
        let output = this_program(name, Some(test_user().unwrap())).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        return;
    }
    let fixture = Fixture::new();
    let read_only = Meta { mode: 0o555, ..Meta::root(0, 1_600_000_000) };
    let closed = Entry {
        path: path("closed"),
        item: LayerItem::Node(read_only, Node::Directory { opaque: false }),
    };
    let layer = fixture.layer(
        vec![
            closed,
            file_with("closed/tool", "tool", capable(0, 0, 0o4755)),
            link("closed/same", "closed/tool"),
            fifo("pipe"),
            null_device("null"),
        ],
        Representation::Tar,
    );
    let image = Image::load(&fixture.store, fixture.image(&[(&layer, None)])).unwrap();
    let directory = fixture.path("rootfs");
    let target = ExportTarget::Directory(directory.clone());
    let mut warnings = Vec::new();
    let mut warn = |warning: image::ExportWarning| warnings.push(warning.to_string());
    let options = ExportOptions { keeps_special: true, ..options() };
    image::export_all(&fixture.store, &[image], &target, &options, &mut warn).unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let want = format!(
        "closed d 555 {uid}:{gid} 1600000000\n\
         closed/same f 755 {uid}:{gid} 1600000005 2 4 746f6f6c\n\
         closed/tool f 755 {uid}:{gid} 1600000005 2 4 746f6f6c\n\
         pipe p 600 {uid}:{gid} 1600000004\n"
    );
    assert_eq!(list(&directory), (want, None));
    let lost = "/closed/same has lost its attribute security.capability: only root can set it, and \
                not on every file system";
    let device = "/null is a device, which only root can create: it was omitted";
    assert_eq!(warnings, [lost, device]);
    rustix::fs::chmod(directory.join("closed"), rustix::fs::Mode::RWXU).unwrap();
}

#[test]
fn images_for_several_platforms_go_out_under_an_index() {
    let fixture = Fixture::new();
    let registry = DockerRegistry::open();
    let layer =
        fixture.layer(vec![dir("a"), file("a/b", "text"), link("a/c", "a/b")], Representation::Tar);
    let platforms = ["linux/amd64", "linux/arm/v7"];
    let images = platforms.map(|platform| {
        let manifest = fixture.image_for(platform, &[(&layer, None)]);
        Image::load(&fixture.store, manifest).unwrap()
    });
    let warn = &mut |warning: image::ExportWarning| panic!("{warning}");
    let mut export_all = |target: ExportTarget| {
        image::export_all(&fixture.store, &images, &target, &options(), warn)
    };
    let archive = fixture.path("app.tar");
    let written = export_all(ExportTarget::OciArchive(archive.clone())).unwrap();
    let found = image::verify_layout(&archive).unwrap();
    let named =
        |found: &image::VerifiedImage| (found.name.clone().unwrap(), found.platform.clone());
    let name = "docker.io/library/app:1".to_owned();
    let want = [(name.clone(), "linux/amd64".to_owned()), (name, "linux/arm".to_owned())];
    assert_eq!(found.iter().map(named).collect::<Vec<_>>(), want);
    let arm = ["--override-arch=arm", "--override-variant=v7", "inspect", "--config"];
    let source = format!("oci-archive:{}:1", shown(&archive));
    assert_eq!(skopeo(&[&arm[..], &[&source]].concat())["variant"], "v7");

    let name = reference(&format!("{}/app:1", registry.host()));
    let none = &|_more| {};
    let digest = image::push_all(&fixture.store, &client(), &images, &name, &[], &options(), none)
        .unwrap()
        .digest;
    assert_eq!(digest, written.digest);
    let source = format!("docker://{name}");
    let remote = [&arm[..], &["--tls-verify=false", &source]].concat();
    assert_eq!(skopeo(&remote)["variant"], "v7");

    let (directory, tar) = (fixture.path("files"), fixture.path("files.tar"));
    export_all(ExportTarget::Directory(directory.clone())).unwrap();
    assert!(
        directory.join("linux_amd64/a/b").is_file() && directory.join("linux_arm_v7/a/c").is_file()
    );
    export_all(ExportTarget::Tar(tar.clone())).unwrap();
    assert_eq!(
        run("tar", &["-tf", &shown(&tar)]).lines().collect::<Vec<_>>(),
        [
            "linux_amd64/",
            "linux_amd64/a/",
            "linux_amd64/a/b",
            "linux_amd64/a/c",
            "linux_arm_v7/",
            "linux_arm_v7/a/",
            "linux_arm_v7/a/b",
            "linux_arm_v7/a/c",
        ]
    );
    let error = export_all(ExportTarget::DockerArchive(archive)).unwrap_err().to_string();
    let want = "a docker archive takes one image, any other target at least one; there are 2";
    assert_eq!(error, want);
}

#[test]
fn a_base_layer_that_only_the_registry_has_as_a_blob_is_mounted_and_else_packed() {
    let registry = DockerRegistry::open();
    let name = |rest: &str| reference(&format!("{}/{rest}", registry.host()));
    let entries = vec![dir("a"), file("a/b", "text")];
    let first = Fixture::new();
    let (base, blob) = first.pulled(entries.clone(), Packing::Gzip { level: 1 });
    let image = Image::load(&first.store, first.image(&[(&base, Some(blob.clone()))])).unwrap();
    let none = &|_more| {};
    image::push(&first.store, &client(), &image, &name("base:1"), &[], &options(), none).unwrap();

    // Another store has the same layer, but built it itself.
    let second = Fixture::new();
    let made = second.layer(entries, Representation::Tar);
    assert_eq!(made.diff_id, base.diff_id);
    let image = Image::load(&second.store, second.image(&[(&made, Some(blob.clone()))])).unwrap();
    let layer_in_registry = |to: &str, from: &[Reference]| {
        image::push(&second.store, &client(), &image, &name(to), from, &options(), none).unwrap();
        let source = format!("docker://{}", name(to));
        skopeo(&["inspect", "--tls-verify=false", &source])["Layers"][0].clone()
    };
    assert_eq!(layer_in_registry("mounted:1", &[name("base:1")]), blob.digest.to_string());
    let packed = layer_in_registry("packed:1", &[]);
    assert_ne!(packed, blob.digest.to_string());
    assert_eq!(
        packed,
        image::pack(&second.store, &image, &options()).unwrap().layers[0].digest.to_string()
    );
}

#[test]
fn a_registry_that_refuses_is_named_and_so_is_a_layer_that_is_gone() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let none = &|_more| {};
    let registry = DockerRegistry::with_password();
    let name = reference(&format!("{}/team/app:1", registry.host()));
    let push = |image: &Image, name: &Reference| {
        image::push(&fixture.store, &client(), image, name, &[], &options(), none).unwrap_err()
    };
    let error = push(&image, &name);
    assert_eq!(error.to_string(), format!("cannot push {name}"));
    let elsewhere = Fixture::new().layer(vec![dir("a")], Representation::Tar);
    let image = Image::load(&fixture.store, fixture.image(&[(&elsewhere, None)])).unwrap();
    let error = image::pack(&fixture.store, &image, &options()).unwrap_err().to_string();
    let want = format!(
        "the store lacks the layer {}; run the build again with --no-cache",
        elsewhere.diff_id
    );
    assert_eq!(error, want);
}

#[test]
fn other_files_are_not_loaded_as_images() {
    let fixture = Fixture::new();
    let layer = fixture.layer(Vec::new(), Representation::Tar);
    let check = |manifest: &str, want: &str| {
        let digest = fixture.store.put_blob(manifest.as_bytes()).unwrap();
        let error = Image::load(&fixture.store, digest).unwrap_err().to_string();
        assert_eq!(error.replace(&digest.to_string(), "DIGEST"), want);
    };
    check("no JSON", "the image DIGEST cannot be read");
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    check(index, "DIGEST is an index of several images; choose one by its platform");
    let good = fixture.image(&[(&layer, None)]);
    let good = String::from_utf8(fixture.store.read_blob(good, 1 << 20).unwrap()).unwrap();
    let mut manifest = json(&good);
    manifest["layers"][0]["mediaType"] = "text/plain".into();
    let want = "the image DIGEST has a layer of type text/plain, which is not a layer type";
    check(&manifest.to_string(), want);
    manifest["layers"] = Value::Array(Vec::new());
    check(&manifest.to_string(), "the manifest DIGEST has 0 layers, but its config 1");
}

#[test]
fn blob_of_another_version_of_the_gzip_writer_is_not_used() {
    let fixture = Fixture::new();
    let layer = fixture.layer(vec![file("f", "text")], Representation::Tar).diff_id;
    let packed = fixture.store.pack(layer, Packing::GZIP, jobs(1)).unwrap();
    let found = || fixture.store.find_packed(layer, Packing::GZIP).unwrap();
    assert_eq!(found(), Some(packed.clone()));
    // As the first version recorded it.
    let index = rusqlite::Connection::open(fixture.path("store").join("index.db")).unwrap();
    assert_eq!(index.execute("UPDATE packed SET level = 4", []).unwrap(), 1);
    assert_eq!(found(), None);
    // This content has the same bytes in both versions.
    assert_eq!(fixture.store.pack(layer, Packing::GZIP, jobs(1)).unwrap(), packed);
    assert_eq!(found(), Some(packed));
}
