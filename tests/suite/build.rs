//! Built images: their programs run, their bytes are reproducible, and their layers follow the
//! image format.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::env::{Done, Env, Who, as_root_and_as_user, skip};
use crate::support::image::CAPABILITY;
use crate::support::images::{Layout, entries};
use crate::support::registry::DockerRegistry;

as_root_and_as_user!(
    two_stages_make_an_image_that_runs,
    reproducible_builds_are_equal_to_the_byte,
    layers_say_what_changed,
    provided_files_are_not_in_layers,
    deep_directories_are_a_layer_or_an_error,
    steps_run_on_equal_layers,
    high_stacks_show_what_low_ones_show,
    debian_two_stages,
);

/// More layers than are mounted individually.
const N_LAYERS: usize = 60;

fn steps_run_on_equal_layers(who: Who) {
    let env = Env::of(who);
    env.base();
    let file = |n_steps: usize, last: &str| {
        let steps: String = (0..n_steps)
            .map(|n| {
                format!(
                    "RUN echo {n}; touch -d @1 /old/file; rm -f /new\nRUN touch -d @1 /new /old\n"
                )
            })
            .collect();
        format!("FROM base:1\n{steps}RUN ls /new && echo {last} > /last\n")
    };
    // The layers of the second half equal those of the first, cached or not.
    for n_steps in [1, 2, 3, 30] {
        env.build(&file(n_steps, "one"), &[]).ok();
        env.build(&file(n_steps, "two"), &[]).ok();
    }
}

fn high_stacks_show_what_low_ones_show(who: Who) {
    let env = Env::of(who);
    env.base();
    let mut dockerfile = String::from("FROM base:1\n");
    for at in 0..N_LAYERS {
        let change = match at {
            10 => "mkdir /d && echo ten > /d/ten",
            20 => "rm /old/file",
            // An opaque directory, and a directory in place of a file.
            30 => "rm -r /d && mkdir /d && echo thirty > /d/thirty",
            40 => "rm /f5 && mkdir /f5 && touch /f5/inside",
            50 => "rm -r /f5 && echo again > /f5 && chmod 600 /f6",
            _ => "true",
        };
        writeln!(dockerfile, "RUN echo {at} > /f{at} && {change}").unwrap();
    }
    let seen = "find / -xdev -not -path '/proc*' -not -path '/sys*' -not -path '/dev*' -not -name seen -exec \
                stat -c '%n %f %u' {} + | sort > /tmp/seen";
    writeln!(dockerfile, "RUN {seen}").unwrap();
    env.build(&dockerfile, &["-o", "files", "-t", "high:1"]).ok();
    let files = |name: &str| fs::read_to_string(env.path("files").join(name)).unwrap();
    assert_eq!(files("d/thirty"), "thirty\n");
    assert_eq!(files("f5"), "again\n");
    assert_eq!(files("f59"), "59\n");
    for gone in ["d/ten", "old/file"] {
        assert!(!env.path("files").join(gone).exists(), "{gone}");
    }
    // One layer with all files, mounted by itself.
    let flat = format!("FROM scratch\nCOPY --from=high:1 / /\nRUN rm /tmp/seen && {seen}\n");
    env.build(&flat, &["-o", "flat"]).ok();
    let flat = fs::read_to_string(env.path("flat/tmp/seen")).unwrap();
    assert_eq!(files("tmp/seen"), flat);
    assert!(flat.contains("/old/directory/b ") && !flat.contains("/old/file"), "{flat}");
}

#[test]
fn compression_is_chosen_for_all_outputs_or_for_one() {
    let env = Env::new();
    let types = |directory: &str| {
        let manifest = Layout::read(&env.path(directory)).manifest;
        let layers = manifest["layers"].as_array().unwrap().iter();
        let types = layers.map(|layer| layer["mediaType"].as_str().unwrap().to_owned());
        types
            .map(|name| name.replace("application/vnd.oci.image.layer.v1.", ""))
            .collect::<Vec<_>>()
    };
    let outputs = [
        "--compression=zstd",
        "--compression-level=1",
        "-otype=oci,tar=false,dest=one",
        "-otype=oci,tar=false,dest=two,compression=gzip",
        "-otype=oci,tar=false,dest=three,compression=uncompressed",
    ];
    env.build("FROM scratch\nCOPY Dockerfile /\n", &outputs).ok();
    assert_eq!(types("one"), ["tar+zstd"]);
    assert_eq!(types("two"), ["tar+gzip"]);
    assert_eq!(types("three"), ["tar"]);
    env.build("FROM scratch\n", &["--compression=zstd"])
        .fails(2, &["no output has compressed layers"]);
    env.build("FROM scratch\n", &["--compression=lzma", "--push", "-tx"])
        .fails(2, &["unknown compression=lzma: use gzip, zstd or uncompressed"]);
}

const OCI: &str = "type=oci,dest=out,tar=false,compression=uncompressed";

fn two_stages_make_an_image_that_runs(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("greet.sh", "#!/bin/sh\necho \"hello $1 from $(id -u):$(id -g) in $(pwd)\"\n");
    let dockerfile = "FROM base:1 AS build\nCOPY greet.sh /src/\n\
        RUN sed s/hello/moin/ /src/greet.sh > /greet && chmod 755 /greet\n\
        FROM base:1\nRUN echo app:x:1234:1234::/home/app:/bin/sh >> /etc/passwd\nCOPY --from=build /greet /usr/bin/greet\n\
        WORKDIR /srv/app\nUSER app\nENV NAME=you PATH=/usr/bin:/bin\n\
        EXPOSE 80\nLABEL a=b\nSTOPSIGNAL SIGINT\nVOLUME /data\n\
        HEALTHCHECK --interval=5s --retries=2 CMD greet x\n\
        ENTRYPOINT [\"greet\"]\nCMD [\"you\"]\n";
    env.build(dockerfile, &["-t", "app:1", "-o", OCI]).ok();
    let image = Layout::read(&env.path("out"));
    assert_eq!(image.config["config"], app_config());
    let ids = image.config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(ids.len(), image.layers.len());
    let history = image.config["history"].as_array().unwrap();
    let n_layers = history.iter().filter(|entry| entry["empty_layer"] != json!(true)).count();
    assert_eq!(n_layers, image.layers.len());

    let run = env.build("FROM app:1\nRUN greet \"$NAME\" && test $HOME = /home/app\n", &[]).ok();
    assert!(run.stderr.contains(" moin you from 1234:1234 in /srv/app\n"), "{}", run.stderr);
    if matches!(who, Who::Caller) && Who::root().is_some() {
        env.rbuild(&["build", "context", "-o", "rootfs"]).ok();
        let mut chroot = env.program("chroot");
        let root = env.shown("rootfs");
        let output = chroot.args(["--userspec=1234:1234", &root, "/usr/bin/greet", "all"]).output();
        let done = Done::of(output.unwrap()).ok();
        assert_eq!(done.stdout, "moin all from 1234:1234 in /\n");
    }
}

fn app_config() -> Value {
    json!({
        "User": "app",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/usr/bin:/bin", "NAME=you"],
        "Entrypoint": ["greet"],
        "Cmd": ["you"],
        "ArgsEscaped": true,
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv/app",
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "Healthcheck": {
            "Test": ["CMD-SHELL", "greet x"], "Interval": 5_000_000_000_u64, "Retries": 2
        },
    })
}

/// A Dockerfile with everything that makes builds differ.
const HARD: &str = include_str!("../../testdata/build/everything/Dockerfile");

/// Expected entries of its own layers, base first, without those of the base image.
const HARD_LAYERS: &str = include_str!("../../testdata/build/everything/layers.txt");

fn hard_context(env: &Env) {
    env.write("files/plain", "plain");
    env.write("files/deep/est/file", "deep");
    fs::create_dir_all(env.path("context/files/empty")).unwrap();
    symlink("plain", env.path("context/files/link")).unwrap();
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(env.path("context/files").join(name), "coffee").unwrap();
    fs::write(env.path("context/files").join("n".repeat(200)), "long").unwrap();
    env.write("special.tar", special_tar());
    env.hand_over("context");
    // Set last: changing the owner clears these bits.
    fs::set_permissions(env.path("context/files/plain"), fs::Permissions::from_mode(0o4755))
        .unwrap();
}

/// Returns an archive with files that neither a context nor an ordinary user's RUN can have.
fn special_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(1_500_000_000);
        header.set_size(content.len().try_into().unwrap());
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        builder.append_data(&mut header, name, content).unwrap();
    };
    let xattr = ["SCHILY.xattr.security.capability=", "\n"];
    let length = xattr.concat().len() + CAPABILITY.len() + "55 ".len();
    let record = [format!("{length} {}", xattr[0]).as_bytes(), &CAPABILITY, b"\n"].concat();
    assert_eq!(record.len(), length);
    add("pax", tar::EntryType::XHeader, 0o644, &record);
    add("special/able", tar::EntryType::Regular, 0o755, b"able");
    add("special/null", tar::EntryType::Char, 0o666, b"");
    add("special/pipe", tar::EntryType::Fifo, 0o600, b"");
    add("special/sticky/", tar::EntryType::Directory, 0o3777, b"");
    add("special/sticky/suid", tar::EntryType::Regular, 0o6711, b"");
    builder.into_inner().unwrap()
}

/// Builds [`HARD`] in its own store. Returns the image's id and the bytes of the archive.
fn hard_build(env: &Env, store: &str, args: &[&str]) -> (String, Vec<u8>) {
    env.write("Dockerfile", HARD);
    env.base_in(store);
    let usual = ["build", "context", "--reproducible", "-t", "app:1"];
    let output = format!("type=oci,dest={store}.tar");
    let outputs = ["--iidfile", "iid", "-o", &output];
    let args = [&usual[..], &outputs, args].concat();
    Done::of(env.command_in(store, &args).output().unwrap()).ok();
    let archive = fs::read(env.path(&format!("{store}.tar"))).unwrap();
    (fs::read_to_string(env.path("iid")).unwrap(), archive)
}

fn reproducible_builds_are_equal_to_the_byte(who: Who) {
    let env = Env::of(who);
    hard_context(&env);
    let first = hard_build(&env, "one", &["--jobs", "1"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    for (store, args) in [("two", &["--jobs", "8"][..]), ("three", &[]), ("one", &["--no-cache"])] {
        let next = hard_build(&env, store, args);
        assert_eq!(next.0, first.0, "{store} {args:?}");
        assert!(next.1 == first.1, "{store} {args:?}: archives differ");
    }
    if matches!(who, Who::User(_)) {
        let env = Env::new();
        hard_context(&env);
        let by_root = hard_build(&env, "one", &[]);
        assert_eq!(by_root.0, first.0);
        assert!(by_root.1 == first.1, "the archives of root and of a user differ");
    }
}

fn layers_say_what_changed(who: Who) {
    let mut env = Env::of(who);
    env.set("SOURCE_DATE_EPOCH", "1600000000");
    hard_context(&env);
    env.write("Dockerfile", HARD);
    env.base();
    env.rbuild(&["build", "context", "--reproducible", "-o", OCI]).ok();
    let mut found = String::new();
    for (at, layer) in Layout::read(&env.path("out")).layers.iter().enumerate().skip(1) {
        writeln!(found, "layer {at}").unwrap();
        for (path, line) in entries(layer) {
            writeln!(found, "  {path}  {line}").unwrap();
        }
    }
    assert_eq!(found, HARD_LAYERS);
}

fn provided_files_are_not_in_layers(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile = "FROM base:1\nRUN cat /etc/hosts /etc/resolv.conf > /dev/null; test -d /proc/1 \
                      && test -e /dev/null && test -d /sys/kernel && echo a > /a\nRUN true\n";
    env.build(dockerfile, &["-o", OCI]).ok();
    let layers = Layout::read(&env.path("out")).layers;
    let paths = |at: usize| entries(&layers[at]).into_keys().collect::<Vec<_>>().join(" ");
    assert_eq!(paths(1), "a");
    assert_eq!(paths(2), "");
    // Directories that a RUN needs and the base lacks stay in the image, empty, as in BuildKit.
    let bare = "FROM base:1 AS b\nFROM scratch\nCOPY --from=b /bin /bin\nRUN [\"/bin/true\"]\n";
    env.build(bare, &["-o", OCI]).ok();
    let top: Vec<_> = Layout::read(&env.path("out")).top().into_keys().collect();
    assert_eq!(top, ["dev/", "proc/", "sys/"]);
}

fn deep_directories_are_a_layer_or_an_error(who: Who) {
    let env = Env::of(who);
    env.base();
    let nested = |depth: usize| {
        let script = "for i in $(seq 1 DEPTH); do mkdir d; cd d; done; echo deep > f";
        format!("FROM base:1\nRUN {}\n", script.replace("DEPTH", &depth.to_string()))
    };
    let dockerfile = format!("{}RUN test $(find / -xdev -name f | wc -c) = 963\n", nested(480));
    env.build(&dockerfile, &["-o", OCI]).ok();
    env.build(&nested(1500), &[]).fails(3, &["error: ", "File name too long"]);
    assert_eq!(env.leftovers("store"), "");
}

/// The registry that CI fills with Debian's images.
const DEBIAN_HOST: &str = "127.0.0.1:5000";

/// Needs that registry, and the network for Debian's packages.
fn debian_two_stages(who: Who) {
    let debian = format!("docker://{DEBIAN_HOST}/library/debian:bookworm");
    let mut skopeo = Command::new("skopeo");
    let found = skopeo.args(["inspect", "--raw", "--tls-verify=false", &debian]);
    if !found.output().is_ok_and(|output| output.status.success()) {
        return skip(
            "debian",
            &format!("no registry at {DEBIAN_HOST} has library/debian:bookworm"),
        );
    }
    let mut env = Env::of(who);
    env.mirror(DEBIAN_HOST);
    let registry = DockerRegistry::open();
    let host = registry.host();
    env.write(
        "src/main.c",
        "#include <stdio.h>\n#include <unistd.h>\n\
         int main(void) { printf(\"moin from %d\\n\", (int)getuid()); return 0; }\n",
    );
    let dockerfile = "FROM debian:bookworm AS build\n\
        RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev\n\
        COPY src /src\nRUN gcc -O2 -Wall -o /moin /src/main.c\n\
        FROM debian:bookworm\nRUN useradd --uid 4321 app\nCOPY --from=build /moin /usr/bin/\n\
        USER app\nENTRYPOINT [\"moin\"]\nHEALTHCHECK --timeout=3s CMD [\"moin\"]\n\
        RUN moin | grep -x 'moin from 4321'\n";
    let name = format!("{host}/app:1");
    env.build(dockerfile, &["-t", &name, "--push", "-o", OCI]).ok();
    let read = |args: &[&str]| {
        let done = Done::of(env.program("skopeo").args(args).output().unwrap()).ok();
        serde_json::from_str::<Value>(&done.stdout).unwrap_or_default()
    };
    let remote = format!("docker://{name}");
    let config = read(&["inspect", "--config", "--raw", "--tls-verify=false", &remote]);
    assert_eq!(config, Layout::read(&env.path("out")).config);
    assert_eq!(config["config"]["User"], "app");
    assert_eq!(config["config"]["Entrypoint"], json!(["moin"]));
    assert_eq!(config["config"]["Healthcheck"]["Test"], json!(["CMD", "moin"]));
    read(&["--insecure-policy", "copy", "--src-tls-verify=false", &remote, "oci:copied:1"]);
    let copied = Layout::read(&env.path("copied"));
    assert_eq!(copied.config, config);
    let top: Vec<String> = entries(&copied.layers[2]).into_keys().collect();
    assert_eq!(top, ["usr/", "usr/bin/", "usr/bin/moin"]);
}

#[test]
fn layers_that_will_go_out_are_packed_while_later_steps_run() {
    let file = "FROM base:1 AS other\nRUN echo other > /other\nFROM base:1\n\
                COPY --from=other /other /\nRUN echo own > /own\nRUN sleep 3; false\n";
    let out = ["-o", "type=oci,dest=out.tar"];
    for (args, want) in [(&[][..], 0), (&out, 2), (&[&out[..], &["--jobs", "1"]].concat(), 0)] {
        let env = Env::new();
        env.base();
        let before = n_gzip_blobs(&env);
        env.build(file, args).fails(1, &["sleep 3"]);
        assert_eq!(n_gzip_blobs(&env) - before, want, "{args:?}");
    }
}

fn n_gzip_blobs(env: &Env) -> usize {
    let blobs = fs::read_dir(env.path("store/blobs/sha256")).unwrap();
    let is_gzip = |path: &Path| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
    blobs.filter(|blob| is_gzip(&blob.as_ref().unwrap().path())).count()
}
