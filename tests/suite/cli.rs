//! The command line and the screen: bad input, outputs, and the commands besides `build`.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::images::{Layout, entries};
use crate::support::registry::{Answer, DockerRegistry, Scripted};

/// A step that must stay cached whatever fails after it.
const FINISHED: &str = "FROM base:1\nRUN echo kept > /kept\n";

/// Checks a failure, and that the store is intact: the same steps without the bad one are cached.
#[track_caller]
fn fails_whole(env: &Env, bad: &str, code: i32, parts: &[&str]) {
    env.build(&format!("{FINISHED}{bad}"), &[]).fails(code, parts);
    env.build(FINISHED, &[]).ok().ended(&["RUN echo kept > /kept: CACHED"]);
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn unknown_instruction_is_named_with_a_suggestion() {
    let env = Env::new();
    let excerpt = " --> Dockerfile:2:1\n  |\n2 | RUNN make\n  | ^^^^ expected a keyword";
    let parts = ["error[E0103]: unknown instruction `RUNN`", excerpt, "help: did you mean `RUN`?"];
    env.build("FROM scratch\nRUNN make\n", &[]).fails(1, &parts);
}

#[test]
fn sources_that_are_not_there_are_named_and_earlier_steps_stay() {
    let env = Env::new();
    env.base();
    env.write("secret", "s");
    env.write(".dockerignore", "secret\n");
    let place = " --> Dockerfile:3:6\n";
    fails_whole(&env, "COPY a.txt /\n", 1, &["error[E0402]: `a.txt` does not exist\n", place]);
    let help = "help: the file is there, but excluded by .dockerignore, line 1: `secret`";
    fails_whole(&env, "COPY secret /\n", 1, &["`secret` does not exist\n", place, help]);
    let missing = "error[E0402]: `/nothing` does not exist";
    fails_whole(&env, "COPY --from=base:1 /nothing /\n", 1, &[missing, " --> Dockerfile:3:"]);
}

#[test]
fn failed_run_shows_its_exit_code_last_lines_and_place() {
    let env = Env::new();
    env.base();
    let bad = "RUN seq 1 30; echo sorry >&2; exit 3\n";
    let parts = [
        "\n#4 ERROR\n------\nlast lines of the failed step (`rbuild history logs` has all):\n  12\n  13\n",
        "  30\n  sorry\n------\n",
        "error[E0404]: process \"/bin/sh -c seq 1 30; echo sorry >&2; exit 3\" \
         did not complete successfully: exit code: 3\n --> Dockerfile:3:1\n",
    ];
    fails_whole(&env, bad, 1, &parts);
    let parts = ["exit code: 127\n", "help: the image has no `nonsense`: install it"];
    fails_whole(&env, "RUN nonsense\n", 1, &parts);
    let parts = ["exit code: 127", "help: the image has no `/bin/none`"];
    fails_whole(&env, "RUN [\"/bin/none\"]\n", 1, &parts);
    let parts =
        ["error[E0405]: cannot run as USER nobody", "help: create the user in an earlier RUN"];
    fails_whole(&env, "USER nobody\nRUN true\n", 1, &parts);
}

#[test]
fn run_killed_by_a_signal_says_so() {
    let env = Env::new();
    env.base();
    env.write("Dockerfile", format!("{FINISHED}RUN exec sleep 1111\n"));
    let child = env.command(&["build", "context"]).stderr(Stdio::piped()).spawn().unwrap();
    let pid = wait_for_process("sleep\u{0}1111\u{0}");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let done = Done { ..Done::of(child.wait_with_output().unwrap()) };
    done.fails(1, &["did not complete successfully: signal: 9 (killed)", "the command was killed"]);
    env.build(FINISHED, &[]).ok().ended(&["RUN echo kept > /kept: CACHED"]);
}

/// Waits until a process with this command line runs. Returns its id.
fn wait_for_process(line: &str) -> rustix::process::Pid {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            if fs::read(entry.path().join("cmdline")).is_ok_and(|found| found == line.as_bytes()) {
                let pid = entry.file_name().to_string_lossy().parse().unwrap();
                return rustix::process::Pid::from_raw(pid).unwrap();
            }
        }
        assert!(Instant::now() < deadline, "{line} does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn base_images_that_cannot_be_had_are_told_apart() {
    let env = Env::new();
    let registry = DockerRegistry::open();
    let host = registry.host();
    let parts = [
        &format!("error[E0401]: cannot get the image {host}/none:1: "),
        "it does not exist\n",
        " --> Dockerfile:1:6\n",
        "help: check the name and the tag",
    ];
    env.build(&format!("FROM {host}/none:1\n"), &[]).fails(1, &parts);
    let host = host.to_owned();
    drop(registry);
    let (cannot, help) = (format!("cannot reach {host}: "), "is the registry running at");
    let parts = [&*cannot, " --> Dockerfile:1:6", help];
    env.build(&format!("FROM {host}/none:1\n"), &[]).fails(3, &parts);
}

#[test]
fn layer_with_a_flipped_byte_is_refused_and_nothing_of_it_is_kept() {
    let env = Env::new();
    env.base();
    let registry = DockerRegistry::open();
    let name = format!("{}/base:1", registry.host());
    env.build("FROM base:1\n", &["-t", &name, "--push"]).ok();
    let origin = registry.host().to_owned();
    let flipping = Scripted::new(move |request, _| relay(&origin, &request.target));
    let damaged = format!("FROM {}/base:1\nRUN true\n", flipping.host());
    env.write("Dockerfile", damaged);
    let build = |store| Done::of(env.command_in(store, &["build", "context"]).output().unwrap());
    for _ in 0..2 {
        build("fresh").fails(3, &["cannot get the image", "wrong digest of "]);
    }
    env.write("Dockerfile", format!("FROM {name}\nRUN true\n"));
    build("fresh").ok();
}

/// Forwards a request, and changes one byte of the largest blobs.
fn relay(origin: &str, target: &str) -> Answer {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(origin).unwrap();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {origin}\r\n{accept}\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    if body.len() > 100_000 {
        body[50_000] ^= 1;
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or("");
    Answer::new(status, body).header("Content-Type", kind)
}

#[test]
fn wrong_usage_says_what_to_type() {
    let env = Env::new();
    env.write("a", "");
    env.write("docker/Dockerfile.app", "FROM scratch\n");
    let check = |args: &[&str], code, part: &str| env.rbuild(args).fails(code, &[part]);
    check(&["build", "none"], 2, "error: context \"none\" does not exist: give the directory");
    check(&["build", "context/a"], 2, "error: context \"context/a\" is not a directory");
    check(&["build", "-t", "good", "context"], 1, "error: no Dockerfile found: ");
    check(&["build", "context"], 1, "help: did you mean -f context/docker/Dockerfile.app?\n");
    env.write("app/Dockerfile", "FROM scratch\n");
    let own =
        "help: did you mean `rbuild -t good context/app` or -f context/docker/Dockerfile.app?";
    check(&["build", "-t", "good", "context"], 1, own);
    env.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    check(&["build", "-t", "Bad", "context"], 2, "Bad");
    let both = "error: --quiet and --progress cannot be used together";
    check(&["build", "-q", "--progress=json", "context"], 2, both);
    check(&["build", "--push", "context"], 2, "error: pushing needs a name: add -t REGISTRY/NAME");
    let known = "error: unknown --output type=nix: use one of oci, docker, local, tar";
    check(&["build", "-o", "type=nix,dest=x", "context"], 2, known);
    check(&["build", "-o", "type=local", "context"], 2, "type=local needs dest=PATH");
    check(&["build", "-o", "type=oci,dets=x", "context"], 2, "did you mean `dest`?");
    check(&["build", "--target", "nope", "context"], 1, "nope");
    check(&["build", "--platform", "linux/vax9/x/y", "context"], 2, "linux/vax9/x/y");
    check(&["build", "--jobs", "0", "context"], 2, "--jobs");
    check(&["push", "nothing:1"], 3, "error: no image nothing:1 in the store");
    check(&["inspect", "nothing:1"], 3, "error: no image nothing:1 in the store");
}

#[test]
fn a_progress_bar_is_one_line_and_a_long_log_says_where_the_rest_is() {
    let env = Env::new();
    env.base();
    let bar = "FROM base:1\nRUN for i in 1 2 3; do printf \"\\rat $i\"; done; echo; false\n";
    env.build(bar, &[]).fails(1, &["last lines of the failed step:\n  at 3\n------\n"]);
    let long = "FROM base:1\nRUN for i in $(seq 30); do echo line $i; done; false\n";
    let head = "last lines of the failed step (`rbuild history logs` has all):\n  line 11\n";
    env.build(long, &[]).fails(1, &[head, "  line 30\n"]);
}

/// Standard output that fails: a closed pipe, and a full disk.
#[test]
fn a_closed_pipe_is_not_a_failure_but_lost_output_is() {
    let env = Env::new();
    env.base();
    for args in [
        &["images"][..],
        &["inspect", "base:1"],
        &["diff", "base:1", "base:1"],
        &["diff", "--json", "base:1", "base:1"],
        &["history", "base:1"],
        &["history", "show", "--json"],
        &["version"],
        &["--version"],
        &["build", "--help"],
        &["help", "store"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = Done::of(env.command(args).stdout(writer).output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{args:?}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = Done::of(env.command(args).stdout(full).output().unwrap());
        done.fails(3, &["error: cannot write to standard output: No space left on device"]);
    }
}

#[test]
fn outputs_that_cannot_be_written_fail_by_name_after_the_build() {
    let env = Env::new();
    env.write("a", "");
    let dockerfile = "FROM scratch\nCOPY a /\n";
    for kind in ["oci", "docker", "tar"] {
        let output = format!("type={kind},dest=none/x");
        let done = env.build(dockerfile, &["-o", &output]);
        done.fails(3, &["error: ", "none"]);
    }
    env.build(dockerfile, &["--iidfile", "none/id"]).fails(3, &["error: ", "none/id"]);
    env.build(dockerfile, &[]).ok().ended(&["COPY a /: CACHED"]);
}

as_root_and_as_user!(
    store_of_a_newer_version_is_refused,
    ctrl_c_ends_everything,
    every_output_holds_the_image,
    images_are_listed_shown_pushed_pulled_and_pruned,
);

fn store_of_a_newer_version_is_refused(who: Who) {
    let env = Env::of(who);
    env.build("FROM scratch\nLABEL a=b\n", &["-t", "a"]).ok();
    // The version number and its SHA-256.
    let later = "7 7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451\n";
    fs::write(env.path("store/version"), later).unwrap();
    let parts =
        ["error: the store ", " has format 7, but this rbuild supports format ", "--root DIR"];
    for args in [&["images"][..], &["build", "context"], &["prune"]] {
        env.rbuild(args).fails(3, &parts);
    }
}

fn ctrl_c_ends_everything(who: Who) {
    let env = Env::of(who);
    env.base();
    // A unique duration, so that only processes of this test are found.
    let nth = if matches!(who, Who::User(_)) { 9 } else { 4 };
    let seconds = 1_000_000 + std::process::id() * 10 + nth;
    env.write("Dockerfile", format!("{FINISHED}RUN sleep {seconds} & sleep {seconds}\n"));
    let child = env.command(&["build", "context"]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_process(&format!("sleep\u{0}{seconds}\u{0}"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    done.fails(130, &["interrupted: ending the running steps", "CANCELED", "error: interrupted"]);
    assert_eq!(env.leftovers("store"), "");
    env.build(FINISHED, &[]).ok().ended(&["RUN echo kept > /kept: CACHED"]);
}

#[test]
fn priv_unreadable_store_fails_by_name() {
    let Some(who @ Who::User(_)) = Who::user() else { return };
    let env = Env::of(who);
    env.write("Dockerfile", "FROM scratch\n");
    fs::create_dir(env.path("store")).unwrap();
    fs::set_permissions(env.path("store"), fs::Permissions::from_mode(0o700)).unwrap();
    env.rbuild(&["build", "context"]).fails(3, &["error: ", "store", "ermission denied"]);
    env.rbuild(&["images"]).fails(3, &["error: ", "store", "ermission denied"]);
}

/// A store on a file system of 6 MB, in its own mount namespace.
#[test]
fn priv_full_disk_fails_and_is_well_once_there_is_room() {
    if Who::root().is_none() {
        return;
    }
    let env = Env::new();
    env.write_base();
    env.write(
        "Dockerfile",
        "FROM base:1\nRUN echo kept > /kept\nRUN sleep 1 && dd if=/dev/zero of=/f bs=1M count=30\n",
    );
    env.write("copy/Dockerfile", "FROM scratch\nCOPY big /\n");
    env.write("copy/big", vec![7; 30_000_000]);
    fs::create_dir(env.path("store")).unwrap();
    let script = "mount -t tmpfs -o size=12M none store || exit 99
        $R build base -t base:1 || exit 98
        $R build context; echo code $?
        $R build context/copy; echo code $?
        mount -o remount,size=90M store
        $R build context || exit 97
        $R build context/copy || exit 96
        ls store/tmp | wc -l";
    let mut command = env.program("unshare");
    command.env("R", concat!(env!("CARGO_BIN_EXE_rbuild"), " --root store"));
    let done = Done::of(command.args(["-m", "sh", "-c", script]).output().unwrap()).ok();
    assert_eq!(done.stdout, "code 1\ncode 3\n0\n", "{}", done.stderr);
    done.fails(
        0,
        &["No space left on device", "did not complete", "of which 251.6kB are reserved"],
    );
    done.fails(0, &["RUN echo kept > /kept\n", "#2 DONE", "RUN echo kept > /kept\n#2 CACHED"]);
}

/// Deletes, replaces and links files, so that layers must be merged correctly.
const OUTPUT: &str = "FROM base:1\nRUN rm /old/file /etc/passwd && rm -r /bin /root /tmp\n\
                      COPY a /a\nCOPY --chmod=4711 a /old/b\nENTRYPOINT [\"/a\"]\n";

fn every_output_holds_the_image(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("a", "content");
    let outputs = [
        "type=oci,dest=oci.tar",
        "type=oci,dest=oci,tar=false,compression=zstd",
        "type=docker,dest=docker.tar",
        "type=local,dest=local",
        "type=tar,dest=files.tar",
        "plain",
    ];
    let mut args = vec!["-t", "app:1", "-t", "app:2", "--reproducible", "--iidfile", "iid"];
    args.extend(["--allow", "local.special"]);
    args.extend(outputs.iter().flat_map(|output| ["-o", *output]));
    env.build(OUTPUT, &args).ok();
    let iid = fs::read_to_string(env.path("iid")).unwrap();
    for name in ["oci-archive:oci.tar:1", "oci:oci:1", "docker-archive:docker.tar:app:2"] {
        let config = skopeo(&env, &["inspect", "--config", "--raw", name]);
        assert_eq!(rbuild::oci::Digest::of(config.as_bytes()).to_string(), iid, "{name}");
    }
    let image = Layout::read(&env.path("oci"));
    assert_eq!(image.layers.len(), 4);
    let types = image.manifest["layers"].as_array().unwrap().iter();
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert!({ types }.all(|layer| layer["mediaType"] == zstd), "{}", image.manifest);

    let tar = entries(&fs::read(env.path("files.tar")).unwrap());
    let lines: Vec<String> = tar.iter().map(|(path, line)| format!("{path} {line}")).collect();
    let want = [
        "a file 644 0:0 7 @0",
        "dev/ dir 755 0:0 @0",
        "etc/ dir 755 0:0 @0",
        "etc/group file 644 0:0 10 @0",
        "old/ dir 755 0:0 @0",
        "old/b file 4711 0:0 7 @0",
        "old/directory/ dir 755 0:0 @0",
        "old/directory/a file 644 0:0 15 @0",
        "old/directory/b file 644 0:0 15 @0",
        "proc/ dir 755 0:0 @0",
        "sys/ dir 755 0:0 @0",
    ];
    assert_eq!(lines, want);
    for directory in ["local", "plain"] {
        let script =
            format!("cd {directory} && find . -mindepth 1 -printf '%P %m %T@ %l\\n' | sort");
        let done = Done::of(env.program("sh").args(["-c", &script]).output().unwrap()).ok();
        let want = "a 644 0.0000000000 \ndev 755 0.0000000000 \netc 755 0.0000000000 \n\
                    etc/group 644 0.0000000000 \nold 755 0.0000000000 \n\
                    old/b 4711 0.0000000000 \nold/directory 755 0.0000000000 \n\
                    old/directory/a 644 0.0000000000 \nold/directory/b 644 0.0000000000 \n\
                    proc 755 0.0000000000 \nsys 755 0.0000000000 \n";
        assert_eq!(done.stdout, want, "{directory}");
    }
    let quiet = env.rbuild(&["build", "context", "-q", "--reproducible"]).ok();
    assert_eq!((quiet.stdout, quiet.stderr), (format!("{iid}\n"), String::new()));
    let done = env.command(&["build", "context", "-o", "-", "--reproducible"]).output().unwrap();
    assert!(done.stdout == fs::read(env.path("files.tar")).unwrap());
}

#[track_caller]
fn skopeo(env: &Env, args: &[&str]) -> String {
    Done::of(env.program("skopeo").args(args).output().unwrap()).ok().stdout
}

fn images_are_listed_shown_pushed_pulled_and_pruned(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("a", "content");
    let registry = DockerRegistry::open();
    let host = registry.host();
    let names = [format!("{host}/app:1"), format!("{host}/deep/er/app:two")];
    let dockerfile = "FROM base:1\nCOPY a /a\n";
    let args = ["-t", &names[0], "-t", &names[1], "--push", "--iidfile", "iid"];
    let pushed = env.build(dockerfile, &args).ok();
    let iid = fs::read_to_string(env.path("iid")).unwrap();
    for name in &names {
        let remote = format!("docker://{name}");
        let config = skopeo(&env, &["inspect", "--config", "--raw", "--tls-verify=false", &remote]);
        assert_eq!(rbuild::oci::Digest::of(config.as_bytes()).to_string(), iid);
        let raw = skopeo(&env, &["inspect", "--raw", "--tls-verify=false", &remote]);
        let digest = rbuild::oci::Digest::of(raw.as_bytes());
        assert!(pushed.stderr.contains(&format!("pushed {name}@{digest}\n")), "{}", pushed.stderr);
    }

    let listed = env.rbuild(&["images"]).ok().stdout;
    let rows: Vec<Vec<&str>> = listed.lines().map(|l| l.split_whitespace().collect()).collect();
    let id: String = iid.trim_start_matches("sha256:").chars().take(12).collect();
    assert_eq!(rows[0], ["NAME", "ID", "CREATED", "SIZE", "COMPRESSED"]);
    let named = |name: &str| rows.iter().find(|row| row[0] == name).unwrap()[1];
    assert_eq!((named(&names[0]), named(&names[1]), rows.len()), (&*id, &*id, 4));
    let shown: Value =
        serde_json::from_str(&env.rbuild(&["inspect", "--json", &names[0]]).ok().stdout).unwrap();
    assert_eq!(shown["Id"], iid);
    assert_eq!(shown["Name"], names[0]);
    assert_eq!(shown["Config"]["rootfs"]["diff_ids"], shown["Layers"]);

    let fresh = |args: &[&str]| Done::of(env.command_in("fresh", args).output().unwrap());
    fresh(&["pull", &format!("{host}/nothing")]).fails(3, &["does not exist"]);
    fresh(&["pull", &names[0]]).ok();
    let pulled = fresh(&["inspect", "--json", &names[0]]).ok().stdout;
    let pulled: Value = serde_json::from_str(&pulled).unwrap();
    assert_eq!((&pulled["Id"], &pulled["Layers"]), (&shown["Id"], &shown["Layers"]));
    let again = format!("{host}/again:1");
    fs::write(env.path("context/Dockerfile"), format!("FROM {}\nLABEL a=b\n", names[0])).unwrap();
    fresh(&["build", "context", "-t", &again]).ok();
    fresh(&["push", &again]).ok();
    let remote = format!("docker://{again}");
    skopeo(&env, &["inspect", "--tls-verify=false", &remote]);

    env.build(OUTPUT, &[]).ok();
    let blobs = |store: &str| fs::read_dir(env.path(store).join("blobs/sha256")).unwrap().count();
    let before = blobs("store");
    let pruned = env.rbuild(&["prune"]).ok().stdout;
    assert!(pruned.starts_with("removed "), "{pruned}");
    assert!(blobs("store") < before);
    env.build(dockerfile, &[]).ok().ended(&["COPY a /a: DONE"]);
    env.rbuild(&["push", &names[0]]).ok();
    env.rbuild(&["prune", "--all"]).ok();
    assert_eq!(blobs("store"), 0);
    assert_eq!(fs::read_dir(env.path("store/layers")).unwrap().count(), 0);
    assert_eq!(env.rbuild(&["images"]).ok().stdout.lines().count(), 1);
    env.base();
    env.build(dockerfile, &[]).ok().ended(&["COPY a /a: DONE"]);
}
