//! Ownership of a store: only its owner can use it, and one that others can write to is refused.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::namespace::Namespace;

as_root_and_as_user!(
    store_that_was_there_is_closed_to_others,
    store_that_others_can_write_to_is_refused,
    store_that_holds_links_is_refused_and_they_lead_nowhere,
    drafts_of_the_store_are_not_written_through_planted_links,
);

const DOCKERFILE: &str = "FROM scratch\nARG PASSWORD\nCOPY Dockerfile /\nCOPY . /all\n";

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns all files of the store, except the contents of layers, whose modes come from their
/// images.
fn own_files(store: &Path) -> Vec<PathBuf> {
    let mut found = vec![store.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() && path.file_name().unwrap() != "fs" {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.retain(|path| path.file_name().unwrap() != "fs");
    found
}

fn store_that_was_there_is_closed_to_others(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", DOCKERFILE);
    for name in ["store", "store/locks", "store/builds"] {
        fs::create_dir(env.path(name)).unwrap();
        set_mode(&env.path(name), 0o755);
    }
    fs::write(env.path("store/index.db"), "").unwrap();
    set_mode(&env.path("store/index.db"), 0o644);
    env.hand_over(".");
    let build = "umask 0; exec \"$0\" --root store build context --report page -o type=oci,dest=x";
    for _ in 0..2 {
        let mut command = env.program("sh");
        command.args(["-c", build, env!("CARGO_BIN_EXE_rbuild")]);
        Done::of(command.output().unwrap()).ok();
    }
    for path in own_files(&env.path("store")) {
        let want = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), want, "{}", path.display());
    }
}

fn store_that_others_can_write_to_is_refused(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", DOCKERFILE);
    let store = env.path("store");
    fs::create_dir(&store).unwrap();
    env.hand_over(".");
    set_mode(&store, 0o777);
    // An empty store contains nothing from others.
    env.rbuild(&["build", "context"]).ok();
    assert_eq!(mode(&store), 0o700);
    for open in [0o777, 0o720] {
        set_mode(&store, open);
        let want = ["store cannot be used as a store: others can write to it", "--root DIR"];
        env.rbuild(&["build", "context"]).fails(3, &want);
        env.rbuild(&["images"]).fails(3, &want);
        assert_eq!(mode(&store), open);
    }
    // A store that everyone could replace is refused too.
    fs::create_dir(env.path("open")).unwrap();
    env.hand_over("open");
    set_mode(&env.path("open"), 0o777);
    let done = Done::of(env.command_in("open/store", &["build", "context"]).output().unwrap());
    done.fails(3, &["it is below", "open, which everyone can write to"]);
}

fn store_that_holds_links_is_refused_and_they_lead_nowhere(who: Who) {
    for name in [
        "tmp",
        "locks",
        "layers",
        "blobs",
        "blobs/sha256",
        "memo",
        "builds",
        "cache-mounts",
        "id-maps",
        "version",
        "index.db",
        "index.db-wal",
        "index.db-shm",
        "locks/in-use",
        "locks/index",
    ] {
        let env = Env::of(who);
        env.write("Dockerfile", DOCKERFILE);
        let victim = env.path("victim");
        fs::create_dir_all(victim.join("old")).unwrap();
        fs::write(victim.join("old/file"), "precious").unwrap();
        fs::write(victim.join("file"), "precious").unwrap();
        let is_file = name.contains("index") || name.contains("in-use") || name == "version";
        let target = if is_file { victim.join("file") } else { victim.clone() };
        let link = env.path("store").join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, &link).unwrap();
        env.hand_over(".");
        set_mode(&env.path("store"), 0o700);
        // Files in `tmp` that are older than a minute are removed.
        let mut touch = env.program("touch");
        let touch = touch.args(["-d", "1 hour ago", "victim/old", "victim/file"]);
        assert!(touch.status().unwrap().success());
        let done = env.rbuild(&["build", "context"]);
        let want = if is_file { "it is not a regular file" } else { "it is not a directory" };
        done.fails(3, &[&format!("store/{name} cannot be used as a store: {want}")]);
        let left = fs::read_dir(&victim).unwrap().count();
        assert_eq!(left, 2, "{name}");
        for file in ["file", "old/file"] {
            assert_eq!(fs::read_to_string(victim.join(file)).unwrap(), "precious", "{name}");
        }
    }
}

fn drafts_of_the_store_are_not_written_through_planted_links(who: Who) {
    let env = Env::of(who);
    env.write("Dockerfile", DOCKERFILE);
    fs::create_dir_all(env.path("store/tmp")).unwrap();
    fs::write(env.path("victim"), "precious").unwrap();
    env.hand_over(".");
    set_mode(&env.path("store"), 0o700);
    let plant = "python3 -c \"import os; [os.symlink('../../victim', f'store/tmp/version.{n}') \
                 for n in range($$, $$ + 3000)]\"; exec \"$0\" --root store build context";
    let mut command = env.program("sh");
    command.args(["-c", plant, env!("CARGO_BIN_EXE_rbuild")]);
    Done::of(command.output().unwrap()).ok();
    assert_eq!(fs::read_to_string(env.path("victim")).unwrap(), "precious");
}

#[test]
fn priv_store_of_another_user_is_refused() {
    let (Some(root), Some(Who::User(user))) = (Who::root(), Who::user()) else { return };
    let env = Env::of(root);
    env.write("Dockerfile", DOCKERFILE);
    env.rbuild(&["build", "context"]).ok();
    let store = env.path("store");
    let own = |path: &Path, uid| chown(path, Some(uid), None).unwrap();
    own(&store, user.uid);
    let belongs = format!("it belongs to user {}, and rbuild runs as 0", user.uid);
    env.rbuild(&["build", "context"]).fails(3, &[&belongs, "run rbuild as the owner"]);
    own(&store, 0);
    for name in ["layers", "blobs/sha256", "index.db", "locks/in-use"] {
        own(&store.join(name), user.uid);
        env.rbuild(&["images"]).fails(3, &[name, &belongs]);
        own(&store.join(name), 0);
    }
    env.rbuild(&["images"]).ok();
    // In another user's directory, a store can be replaced while root writes to it.
    fs::create_dir(env.path("home-of-user")).unwrap();
    own(&env.path("home-of-user"), user.uid);
    let done = Done::of(env.command_in("home-of-user/store", &["images"]).output().unwrap());
    done.fails(3, &["it is below", "home-of-user, which belongs to user"]);
    let meta = env.path("home-of-user").metadata().unwrap();
    assert_eq!(meta.uid(), user.uid);
}

/// Returns an environment whose store belongs to user 1,000,000 and has a base image.
fn env_of_1000000() -> Option<Env> {
    let env = Env::owned_by(1_000_000)?;
    let ids = Namespace::new(1_000_000, 1_100_000, 65_536);
    ids.rbuild(&env, &["build", "base", "-t", "base:1"]).ok();
    Some(env)
}

fn build(ids: &Namespace, env: &Env, dockerfile: &str) -> Done {
    ids.build(env, dockerfile, &["-t", "a:1"])
}

/// Returns a step that creates files of several users, and one that shows them.
fn owners(private: &str, number: u32) -> String {
    format!(
        "FROM base:1\nRUN mkdir -p /d && echo x > /d/f && chown -R 1000:70 /d {private}\n\
         RUN --mount=type=cache,target=/c : {number}; touch /c/{number} && chown 7:8 /c/* && \
         stat -c '%n %u:%g' /d /d/f /c/* /bin > /seen && cat /seen\n"
    )
}

#[track_caller]
fn sees(done: &Done, lines: &[&str], is_cached: bool) {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let line = |line: &str| done.stderr.lines().any(|found| found.ends_with(line));
    for want in lines.iter().chain(&["/d 1000:70", "/d/f 1000:70", "/bin 0:0"]) {
        assert!(line(want), "{want}: {}", done.stderr);
    }
    let steps = done.steps();
    assert_eq!(steps.iter().any(|step| step.ends_with("CACHED")), is_cached, "{}", done.stderr);
}

#[test]
fn priv_layers_and_caches_of_other_ids_are_not_mounted() {
    let Some(env) = env_of_1000000() else { return };
    let first = Namespace::new(1_000_000, 1_100_000, 65_536);
    sees(&build(&first, &env, &owners("", 1)), &["/c/1 7:8"], false);
    // The layers can be read, so the step need not run again. The cache mount is a different one.
    let second = Namespace::new(1_000_000, 2_100_000, 65_536);
    let done = build(&second, &env, &owners("", 2));
    sees(&done, &["/c/2 7:8"], true);
    assert!(!done.stderr.contains("/c/1"), "{}", done.stderr);
    // The first ones are unchanged, and are used by processes that have at least their ids.
    for (number, ids) in [(3, first), (4, Namespace::new(1_000_000, 1_100_000, 70_000))] {
        let own = format!("/c/{number} 7:8");
        sees(&build(&ids, &env, &owners("", number)), &["/c/1 7:8", &own], true);
        second.rbuild(&env, &["store", "verify"]).ok();
    }
    assert_eq!(fs::read_dir(env.path("store/id-maps")).unwrap().count(), 2);
    // With too few ids, files that cannot be given to their owner are not created.
    let few = Namespace::new(1_000_000, 1_100_000, 500);
    build(&few, &env, &owners("", 5)).fails(3, &["the user id 1000 is not one of those"]);
}

#[test]
fn priv_layers_of_other_ids_that_cannot_be_read_are_made_again() {
    let Some(env) = env_of_1000000() else { return };
    let first = Namespace::new(1_000_000, 1_100_000, 65_536);
    let private = "&& chmod 700 /d";
    sees(&build(&first, &env, &owners(private, 1)), &["/c/1 7:8"], false);
    let second = Namespace::new(1_000_000, 2_100_000, 65_536);
    let want = ["was created under other user and group ids", "build the image again"];
    second.rbuild(&env, &["save", "a:1", "-o", "context/a.tar"]).fails(3, &want);
    sees(&build(&second, &env, &owners(private, 2)), &["/c/2 7:8"], false);
    // Directories that this user cannot remove are named after all else is removed. Their owner can
    // remove them.
    let pruned = second.rbuild(&env, &["prune", "--all", "--force"]);
    pruned.fails(3, &["store/layers/", "remove the directory as root"]);
    first.rbuild(&env, &["prune", "--all", "--force"]).ok();
    assert_eq!(fs::read_dir(env.path("store/layers")).unwrap().count(), 0);
}

#[test]
fn priv_store_of_a_user_is_refused_to_root() {
    let Some(env) = env_of_1000000() else { return };
    build(&Namespace::new(1_000_000, 1_100_000, 65_536), &env, &owners("", 1)).ok();
    let want = ["it belongs to user 1000000, and rbuild runs as 0", "--root DIR"];
    env.rbuild(&["build", "context"]).fails(3, &want);
}
