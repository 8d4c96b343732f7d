//! Whose a store is: it is for its owner alone, and one that others could write into is refused.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests say what they mean with them"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

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

/// All that lies in the store, but for the content of layers, whose modes are their images'.
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
    // An empty one holds nothing that others made.
    env.rbuild(&["build", "context"]).ok();
    assert_eq!(mode(&store), 0o700);
    for open in [0o777, 0o720] {
        set_mode(&store, open);
        let want = ["store cannot be used as a store: others can write to it", "--root DIR"];
        env.rbuild(&["build", "context"]).fails(3, &want);
        env.rbuild(&["images"]).fails(3, &want);
        assert_eq!(mode(&store), open);
    }
    // Neither is one that everybody could replace.
    fs::create_dir(env.path("open")).unwrap();
    env.hand_over("open");
    set_mode(&env.path("open"), 0o777);
    let done = Done::of(env.command_in("open/store", &["build", "context"]).output().unwrap());
    done.fails(3, &["it is below", "open, which everybody can write to"]);
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
        // What is older than a minute in `tmp` is swept.
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
    // In a directory of another user it can be replaced while root writes to it.
    fs::create_dir(env.path("home-of-user")).unwrap();
    own(&env.path("home-of-user"), user.uid);
    let done = Done::of(env.command_in("home-of-user/store", &["images"]).output().unwrap());
    done.fails(3, &["it is below", "home-of-user, which belongs to user"]);
    let meta = env.path("home-of-user").metadata().unwrap();
    assert_eq!(meta.uid(), user.uid);
}
