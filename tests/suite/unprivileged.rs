//! A user without subordinate ids, capabilities and namespaces can do everything except RUN.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::bounds::{layout, sparse_tar};
use crate::support::env::{Done, Env, Who};
use crate::support::namespace::Namespace;
use crate::support::registry::DockerRegistry;

/// Returns the command for rbuild as the user `id`, without any privilege that a container may
/// lack.
fn command(env: &Env, id: u32, store: &str, args: &[&str]) -> Command {
    let mut command = bare_command(env, id);
    command.args(["--root", store]).args(args);
    command
}

/// Returns the same command without arguments.
fn bare_command(env: &Env, id: u32) -> Command {
    let id = id.to_string();
    let mut command = env.program("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_rbuild")]);
    command
}

/// Runs rbuild as root, with another store.
fn rbuild_as_root(env: &Env, args: &[&str]) -> Done {
    Done::of(env.command_in("roots", args).output().unwrap())
}

fn rbuild(env: &Env, id: u32, store: &str, args: &[&str]) -> Done {
    Done::of(command(env, id, store, args).output().unwrap())
}

/// Returns an environment of a user who is not in `/etc/subuid`.
fn env_of_nobody() -> Option<(Env, u32)> {
    let id = 1_710_000_000 + std::process::id();
    Some((Env::owned_by(id)?, id))
}

/// Returns an archive with owners, modes that its owner cannot read, a set-user-ID bit, links and a
/// device.
fn archive() -> Vec<u8> {
    with_files(tar::Builder::new(Vec::new()))
}

/// Returns the same archive with a Dockerfile, which makes it a context.
fn context_archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let dockerfile = b"FROM scratch\nCOPY . /all\n";
    let mut header = tar::Header::new_ustar();
    header.set_size(dockerfile.len().try_into().unwrap());
    tar.append_data(&mut header, "Dockerfile", &dockerfile[..]).unwrap();
    with_files(tar)
}

fn with_files(mut tar: tar::Builder<Vec<u8>>) -> Vec<u8> {
    let mut add = |name: &str, kind, mode, (uid, gid), content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len().try_into().unwrap());
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        if kind == tar::EntryType::Link {
            header.set_link_name("closed/none").unwrap();
        }
        tar.append_data(&mut header, name, content).unwrap();
    };
    add("closed/", tar::EntryType::Directory, 0o555, (7, 8), b"");
    add("closed/none", tar::EntryType::Regular, 0, (9, 9), b"secret\n");
    add("closed/setuid", tar::EntryType::Regular, 0o4711, (10, 0), b"#!/bin/sh\n");
    add("closed/again", tar::EntryType::Link, 0, (9, 9), b"");
    add("null", tar::EntryType::Char, 0o666, (0, 0), b"");
    add("never/", tar::EntryType::Directory, 0, (11, 12), b"");
    add("never/inside", tar::EntryType::Regular, 0o644, (13, 14), b"inside\n");
    tar.into_inner().unwrap()
}

const WITHOUT_RUN: &str = "FROM base:1 AS one\n\
                           COPY --chown=7:8 --chmod=4755 Dockerfile /own\n\
                           ADD files.tar /added/\n\
                           WORKDIR /deep/er\n\
                           FROM base:1\n\
                           COPY --from=one /added /moved\n\
                           COPY --from=one --chown=3 /own /deep /to/\n\
                           COPY <<EOF /text\n\
                           here\n\
                           EOF\n\
                           ENV A=1\n\
                           USER 5:6\n\
                           WORKDIR /home/five\n";

#[test]
fn priv_image_without_run_needs_no_rights() {
    let Some((env, id)) = env_of_nobody() else { return };
    env.write("files.tar", archive());
    env.write("Dockerfile", WITHOUT_RUN);
    let mut ids = Vec::new();
    let mut build = |run: &dyn Fn(&[&str]) -> Done| {
        run(&["build", "base", "-t", "base:1", "--reproducible"]).ok();
        let args = ["build", "context", "-t", "app", "--reproducible", "--quiet"];
        ids.push(run(&args).ok().stdout);
        // Cached this time.
        ids.push(run(&args).ok().stdout);
    };
    build(&|args| rbuild(&env, id, "store", args));
    build(&|args| rbuild_as_root(&env, args));
    assert!(ids.iter().all(|other| *other == ids[0]), "{ids:?}");
    let owner = fs::metadata(env.path("store/index.db")).unwrap().uid();
    assert_eq!(owner, id);
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn priv_context_from_standard_input_needs_no_rights() {
    let Some((env, id)) = env_of_nobody() else { return };
    fs::write(env.path("context.tar"), context_archive()).unwrap();
    let piped = |mut command: Command| {
        command.stdin(fs::File::open(env.path("context.tar")).unwrap());
        Done::of(command.output().unwrap()).ok().stdout
    };
    let args = ["build", "-", "--reproducible", "--quiet"];
    let own = piped(command(&env, id, "store", &args));
    assert_eq!(own, piped(env.command_in("roots", &args)));
}

#[test]
fn priv_home_that_cannot_be_written_to_is_an_error_with_advice() {
    let Some((env, id)) = env_of_nobody() else { return };
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for (home, code, cause) in [(Some("/"), 3, "Permission denied"), (None, 2, "HOME is not set")] {
        let mut command = bare_command(&env, id);
        command.args(["build", "context"]).env_remove("XDG_DATA_HOME").env_remove("RBUILD_ROOT");
        match home {
            Some(home) => command.env("HOME", home),
            None => command.env_remove("HOME"),
        };
        let done = Done::of(command.output().unwrap());
        done.fails(code, &[cause, "--root DIR or RBUILD_ROOT"]);
    }
}

/// The content of a sparse file is not contiguous in its archive.
#[test]
fn priv_sparse_file_of_a_base_is_copied_without_rights() {
    let Some((env, id)) = env_of_nobody() else { return };
    let base = layout(&env, "sparse", &sparse_tar("sparse", 1 << 20, b"begin"));
    env.write("Dockerfile", "FROM scratch\nCOPY --from=base /sparse /copied\n");
    let args = ["build", "context", "--build-context", &base, "--reproducible", "--quiet"];
    let own = rbuild(&env, id, "store", &args).ok().stdout;
    assert_eq!(own, rbuild_as_root(&env, &args).ok().stdout);
}

#[test]
fn priv_commands_need_no_rights() {
    let Some((mut env, id)) = env_of_nobody() else { return };
    let registry = DockerRegistry::open();
    env.mirror(registry.host());
    env.write("files.tar", archive());
    env.write("Dockerfile", WITHOUT_RUN);
    let name = format!("{}/app:1", registry.host());
    fs::create_dir(env.path("out")).unwrap();
    chown(env.path("out"), Some(id), Some(id)).unwrap();
    let run = |args: &[&str]| rbuild(&env, id, "store", args).ok();
    run(&["build", "base", "-t", "base:1"]);
    run(&["build", "context", "-t", &name, "-o", "type=oci,dest=out/image.tar", "--push"]);
    run(&["build", "context", "-o", "type=tar,dest=out/files.tar"]);
    run(&["build", "context", "-o", "type=local,dest=out/files"]);
    run(&["save", &name, "-o", "out/saved.tar"]);
    run(&["diff", "base:1", &name]);
    run(&["inspect", &name]);
    run(&["store", "verify"]);
    run(&["rmi", &name]);
    run(&["load", "-i", "out/saved.tar"]);
    run(&["pull", &name]);
    run(&["du"]);
    run(&["prune", "--all"]);
    assert_eq!(fs::read_to_string(env.path("out/files/text")).unwrap(), "here\n");
    let mode = fs::metadata(env.path("out/files/moved/closed/none")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0);
}

#[test]
fn priv_run_without_rights_says_what_is_missing() {
    let Some((mut env, id)) = env_of_nobody() else { return };
    env.set("RBUILD_ISOLATION", "chroot");
    rbuild(&env, id, "store", &["build", "base", "-t", "base:1"]).ok();
    env.write("Dockerfile", "FROM base:1\nCOPY Dockerfile /\nRUN true\n");
    let failed = rbuild(&env, id, "store", &["build", "context"]);
    let refused = ["isolation `chroot` is not permitted here", "(os error 1); run rbuild as root"];
    failed.fails(3, &[&refused[..], &["Dockerfile:3:1"]].concat());
    failed.ended(&["COPY Dockerfile /: DONE", "RUN true: ERROR"]);
    let entered = rbuild(&env, id, "store", &["enter", "base:1", "--", "true"]);
    entered.fails(3, &refused);
    // An option names what this build needs: it is refused before the first step.
    let chosen = rbuild(&env, id, "store", &["build", "context", "--isolation", "chroot"]);
    chosen.fails(3, &refused);
    chosen.ended(&[]);
}

#[test]
fn priv_doctor_tells_whether_run_works() {
    let Some((env, id)) = env_of_nobody() else { return };
    let none = rbuild(&env, id, "store", &["doctor", "--isolation", "chroot"]);
    assert_eq!((none.code, &*none.stderr), (Some(3), ""), "{}", none.stdout);
    for want in [
        "    namespace           refused: a user namespace with many ids: the user",
        "    chroot              refused: chroot(2) and several user ids, with CAP_SYS_CHROOT and CAP_SETUID: Operation not permitted",
        "RUN     does not work: isolation `chroot` is not permitted here: chroot(2)",
    ] {
        assert!(none.stdout.contains(want), "{}", none.stdout);
    }
    let own = rbuild(&env, id, "store", &["doctor"]).ok().stdout;
    for want in ["  * namespace (one id)  permitted\n", "RUN     works: namespace (one id)\n"] {
        assert!(own.contains(want), "{own}");
    }
    for kind in ["namespace", "chroot", "emulated"] {
        let done = rbuild_as_root(&env, &["doctor", "--isolation", kind]).ok();
        assert!(done.stdout.contains(&format!("RUN     works: {kind}\n")), "{}", done.stdout);
        let starred = format!("  * {kind:<20}permitted\n");
        assert!(done.stdout.contains(&starred), "{}", done.stdout);
    }
    let ids = Namespace::new(id, id + 1, 65_536);
    for works in [ids.rbuild(&env, &["doctor"]), rbuild_as_root(&env, &["doctor"])] {
        let works = works.ok();
        assert!(works.stdout.contains("RUN     works"), "{}", works.stdout);
    }
    assert_eq!(env.leftovers("store"), "");
}

/// `$PATH` often has directories that only another user may search, after su(1) for example.
#[test]
fn priv_missing_program_for_ids_leaves_other_kinds_of_isolation() {
    let Some(user) = Who::user() else { return };
    let env = Env::of(user);
    fs::create_dir(env.path("closed")).unwrap();
    fs::set_permissions(env.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    for (path, words) in [
        (env.shown("closed"), "newuidmap is missing or cannot be executed: Permission denied"),
        ("/nonexistent".to_owned(), "newuidmap is missing"),
    ] {
        let mut command = env.program("sh");
        command.args([
            "-c",
            "PATH=$1; exec \"$2\" doctor",
            "sh",
            &path,
            env!("CARGO_BIN_EXE_rbuild"),
        ]);
        let done = Done::of(command.output().unwrap()).ok().stdout;
        for want in [words, "  * namespace (one id)  permitted\n"] {
            assert!(done.contains(want), "{done}");
        }
    }
}

/// As in Docker's default profile: root may change owners, but may neither mount nor create
/// namespaces.
#[test]
fn priv_root_of_a_container_builds_without_namespaces() {
    let Some((env, id)) = env_of_nobody() else { return };
    let ids = Namespace::new(id, id + 1, 65_536);
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-sys_admin \"$0\" --root store \"$@\"";
    let command = |args: &[&str]| {
        let mut command = ids.program(&env, "sh");
        command.args(["-c", forbid, env!("CARGO_BIN_EXE_rbuild")]).args(args);
        command
    };
    let contained = |args: &[&str]| Done::of(command(args).output().unwrap());
    env.write("files.tar", archive());
    env.write("Dockerfile", WITHOUT_RUN);
    contained(&["build", "base", "-t", "base:1", "--reproducible"]).ok();
    let args = ["build", "context", "--reproducible", "--quiet"];
    let own = contained(&args).ok().stdout;
    rbuild_as_root(&env, &["build", "base", "-t", "base:1", "--reproducible"]).ok();
    assert_eq!(own, rbuild_as_root(&env, &args).ok().stdout);
    env.write("Dockerfile", "FROM base:1\nRUN true\n");
    contained(&["build", "context", "--isolation", "namespace"])
        .fails(3, &["isolation `namespace` is not permitted here", "max_user_namespaces"]);

    // It waits for a Dockerfile. The second signal ends it at once: signals were blocked for the
    // attempt only.
    let mut waiting = command(&["build", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(waiting.try_wait().unwrap().is_none());
    let deadline = Instant::now() + Duration::from_secs(20);
    while waiting.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "SIGTERM does not end it");
        kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(400));
    }
}

/// Layers that a user's rbuild unpacked under subordinate ids are read if their modes permit it.
#[test]
fn priv_store_of_a_namespace_is_used_without_one() {
    let Some((env, id)) = env_of_nobody() else { return };
    let ids = Namespace::new(id, id + 1, 65_536);
    ids.rbuild(&env, &["build", "base", "-t", "base:1"]).ok();
    let dockerfile = "FROM base:1\nRUN mkdir /d && echo text > /d/f && chown 3:4 /d /d/f\n";
    ids.build(&env, dockerfile, &["-t", "app"]).ok();
    env.write("Dockerfile", "FROM app\nCOPY --from=base:1 /old /copied\nCOPY --from=app /d /e\n");
    rbuild(&env, id, "store", &["build", "context", "-o", "type=oci,dest=store/out.tar"]).ok();
    let again = format!("{dockerfile}RUN cat /d/f\n");
    ids.build(&env, &again, &[]).ok();
    rbuild(&env, id, "store", &["store", "verify"]).ok();
}
