//! The image room: what it writes, read back by its own `verify` and by the tools of others.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may start programs, and ends by a panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rbuild::archive::Packing;
use rbuild::image::{self, ExportOptions, Image, Target};
use rbuild::oci::{Digest, Reference};
use rbuild::registry::{Client, Options};
use rbuild::store::Form;
use serde_json::Value;

use crate::support::image::{CAPABILITY, Fixture, dir, file, jobs};
use crate::support::registry::DockerRegistry;
use crate::support::sandbox::is_root;

fn options() -> ExportOptions {
    ExportOptions {
        packing: Packing::GZIP,
        force_packing: false,
        docker_media_types: false,
        jobs: jobs(2),
        names: vec![reference("app:1")],
        created: Some("2023-11-14T22:13:20Z".to_owned()),
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn client() -> Client {
    Client::new(Options {
        mirrors: BTreeMap::new(),
        plain_http: BTreeSet::new(),
        docker_config: None,
        user_agent: "rbuild-tests".to_owned(),
        retries: 2,
        first_delay: Duration::from_millis(1),
    })
    .unwrap()
}

/// What a program that must succeed writes to its standard output.
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

/// The layers' packed sizes and the like differ between tools; what they hold does not.
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
    let written =
        image::export(&fixture.store, &image, &Target::OciArchive(path.clone()), &options())
            .unwrap();
    let source = format!("oci-archive:{}:1", shown(&path));
    let inspected = skopeo(&["inspect", &source]);
    assert_eq!(inspected["Digest"], written.digest.to_string());
    assert_eq!(inspected["Architecture"], "amd64");
    let config = skopeo(&["inspect", "--config", &source]);
    assert_eq!(diff_ids(&config), diff_ids_of(&image));
    // A copy unpacks every layer and compares it with the config.
    let copy = format!("dir:{}", shown(&fixture.path("copy")));
    run("skopeo", &["copy", "-q", "--dest-decompress", &source, &copy]);
}

#[test]
fn the_entries_of_an_archive_are_sorted_and_say_nothing_of_who_made_it() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("app.tar");
    image::export(&fixture.store, &image, &Target::DockerArchive(path.clone()), &options())
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
        image::export(&fixture.store, &image, &Target::OciArchive(path.clone()), &options).unwrap();
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
        image::push(&fixture.store, &client(), &image, name, from, &options(), &count).unwrap()
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
    let copy = format!("oci-archive:{}:1", shown(&fixture.path("copy.tar")));
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &copy]);
    let config = skopeo(&["inspect", "--config", &copy]);
    assert_eq!(diff_ids(&config), diff_ids_of(&image));

    // What is there is not sent again; what another repository has is mounted.
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
        let target = Target::DockerArchive(path.clone());
        image::export(&fixture.store, &image, &target, &options).unwrap();
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
fn a_second_image_joins_the_layout_folder_and_takes_over_its_name() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let empty = fixture.layer(Vec::new(), Form::Tar);
    let small = Image::load(&fixture.store, fixture.image(&[(&empty, None)])).unwrap();
    let folder = fixture.path("layout");
    let names = |texts: &[&str]| ExportOptions {
        names: texts.iter().map(|text| reference(text)).collect(),
        created: None,
        ..options()
    };
    let target = Target::OciFolder(folder.clone());
    let export = |image: &Image, texts: &[&str]| {
        image::export(&fixture.store, image, &target, &names(texts)).unwrap()
    };
    let one = export(&image, &["app:1", "app:2"]);
    let two = export(&small, &["app:2"]);
    for (tag, want) in [("1", &one), ("2", &two)] {
        let inspected = skopeo(&["inspect", &format!("oci:{}:{tag}", shown(&folder))]);
        assert_eq!(inspected["Digest"], want.digest.to_string());
    }
    let index = json(&std::fs::read_to_string(folder.join("index.json")).unwrap());
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    std::fs::write(folder.join("index.json"), "{}").unwrap();
    let error = image::export(&fixture.store, &image, &target, &names(&["app:1"])).unwrap_err();
    assert!(error.to_string().contains("is not the index of an OCI layout"), "{error}");
}

#[test]
fn layers_of_the_base_keep_their_bytes_unless_they_are_to_be_packed_anew() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let base = image.layers()[0].pulled.clone().unwrap();
    let packed = |packing, force_packing| {
        let options = ExportOptions { packing, force_packing, ..options() };
        let packed = image::pack(&fixture.store, &image, &options).unwrap();
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
    image::export(&fixture.store, &image, &Target::DockerArchive(path.clone()), &options).unwrap();
    let config = skopeo(&["inspect", "--config", &format!("oci-archive:{}", shown(&path))]);
    assert_eq!(diff_ids(&config), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_replaced_is_written_into() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    for link in [false, true] {
        let (path, kept) = (fixture.path("link.tar"), fixture.path("kept.tar"));
        if link {
            std::fs::write(&kept, "old").unwrap();
            std::os::unix::fs::symlink(&kept, &path).unwrap();
        }
        let target = Target::OciArchive(if link { path.clone() } else { "/dev/null".into() });
        image::export(&fixture.store, &image, &target, &options()).unwrap();
        assert!(!link || (path.is_symlink() && kept.metadata().unwrap().len() > 10_000));
    }
    assert!(!Path::new("/dev/null").is_file());
    let error = image::export(
        &fixture.store,
        &image,
        &Target::OciArchive(fixture.path("missing/app.tar")),
        &options(),
    );
    let want = format!("cannot create a file in {}", shown(&fixture.path("missing")));
    assert_eq!(error.unwrap_err().to_string(), want);
}

/// What a tree of the usual image is, as `find` and `tar` would print it.
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

/// Lists a folder with an outside program.
const LIST_FOLDER: &str = r#"
import os, stat, sys
top = os.fsencode(sys.argv[1])
for folder, folders, files in os.walk(top):
    folders.sort()
    for name in folders + files:
        path = os.path.join(folder, name)
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

/// The listing of a folder, sorted, without the long name, and the capabilities of `app/tool`.
fn list(folder: &Path) -> (String, Option<String>) {
    let listed = run("python3", &["-c", LIST_FOLDER, &shown(folder)]);
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
fn the_files_of_an_image_come_out_as_a_folder() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let folder = fixture.path("rootfs");
    let mut warnings = Vec::new();
    let target = Target::Folder(folder.clone());
    let export = |warnings: &mut Vec<image::Warning>| {
        image::export_with(&fixture.store, &image, &target, &options(), &mut |w| warnings.push(w))
            .unwrap()
    };
    let written = export(&mut warnings);
    assert_eq!(written.digest, image.config_digest());
    assert!(folder.join("n".repeat(120)).join("deep").is_file());
    if is_root() {
        let want = (USUAL_TREE.to_owned(), Some(hex(&CAPABILITY)));
        assert_eq!(list(&folder), want);
        // Over itself, and over what is of another kind.
        std::fs::remove_dir_all(folder.join("app")).unwrap();
        std::os::unix::fs::symlink("/", folder.join("app")).unwrap();
        std::fs::remove_file(folder.join("lib")).unwrap();
        std::fs::create_dir_all(folder.join("lib/full")).unwrap();
        std::fs::write(folder.join("lib/full/x"), "").unwrap();
        export(&mut warnings);
        assert_eq!(list(&folder), want);
        assert_eq!(warnings, []);
    }
}

#[test]
fn a_link_in_the_target_folder_does_not_lead_out_of_it() {
    let fixture = Fixture::new();
    let layer = fixture.layer(
        vec![dir("etc"), file("etc/passwd", "evil"), dir("home"), file("home/x", "evil")],
        Form::Tar,
    );
    let image = Image::load(&fixture.store, fixture.image(&[(&layer, None)])).unwrap();
    let (folder, outside) = (fixture.path("rootfs"), fixture.path("outside"));
    std::fs::create_dir_all(folder.join("etc")).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("passwd"), "good").unwrap();
    std::fs::hard_link(outside.join("passwd"), fixture.path("hard")).unwrap();
    std::os::unix::fs::symlink(outside.join("passwd"), folder.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("home")).unwrap();
    std::fs::write(folder.join("kept"), "kept").unwrap();
    image::export(&fixture.store, &image, &Target::Folder(folder.clone()), &options()).unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&outside.join("passwd")), "good");
    assert!(!outside.join("x").exists());
    assert_eq!(read(&folder.join("etc/passwd")), "evil");
    assert_eq!(read(&folder.join("home/x")), "evil");
    assert_eq!(read(&folder.join("kept")), "kept");
}

#[test]
fn the_files_of_an_image_come_out_as_a_tar() {
    let fixture = Fixture::new();
    let image = fixture.usual_image();
    let path = fixture.path("rootfs.tar");
    image::export(&fixture.store, &image, &Target::Tar(path.clone()), &options()).unwrap();
    let mut streamed = Vec::new();
    let form = image::StreamForm::Tar;
    image::export_stream(&fixture.store, &image, form, &mut streamed, &options()).unwrap();
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
        let folder = fixture.path("unpacked");
        std::fs::create_dir(&folder).unwrap();
        let args = ["--xattrs", "--xattrs-include=*", "-xpf"];
        run("tar", &[&args[..], &[&shown(&path), "-C", &shown(&folder)]].concat());
        assert_eq!(list(&folder), (USUAL_TREE.to_owned(), Some(hex(&CAPABILITY))));
    }
}
