//! `rbuild store verify`: finds damage of every kind, and removes it so that the next build gives
//! the image of a clean store.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::env::{Env, Who, as_root_and_as_user};

as_root_and_as_user!(
    damage_is_found_and_repaired,
    damaged_archive_is_not_copied_from,
    damaged_content_does_not_leave,
    damaged_layer_is_not_mounted,
    damaged_layer_without_archive_is_an_error,
    lost_index_is_rebuilt_from_the_objects,
    names_in_a_lost_log_are_restored,
    step_that_runs_again_replaces_a_damaged_layer,
    whole_store_is_not_damaged,
);

const DOCKERFILE: &str = "FROM base:1\nCOPY file /data/file\nRUN seq 20000 > /numbers && ln -s numbers /link \
    && mkdir /d && chmod 750 /d && ln /numbers /same && mv /bin/busybox /bin/b && cp -p /bin/b /bin/busybox\n\
    RUN rm -r /data && mkdir -p /data/new && touch -d @7 /data/new/old && ! test -e /data/file\n";

fn id_of(env: &Env, name: &str) -> String {
    env.write("file", "content");
    let args = ["-t", "app", "--reproducible", "-q", "--iidfile", name];
    env.build(DOCKERFILE, &args).ok();
    fs::read_to_string(env.path(name)).unwrap()
}

/// Returns all files below a directory of the store, sorted.
fn files(env: &Env, below: &str) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(env.path(below)).sort_by_file_name();
    let entries = walk.into_iter().map(Result::unwrap);
    entries.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().into()).collect()
}

/// Changes a byte in the middle; size, times and mode stay.
fn flip(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes.get_mut(middle).map(|byte| *byte ^= 4).unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::open(path).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
}

fn whole_store_is_not_damaged(who: Who) {
    let env = Env::of(who);
    env.base();
    id_of(&env, "id");
    env.rbuild(&["save", "app", "-o", "app.tar"]).ok();
    let done = env.rbuild(&["store", "verify"]).ok();
    assert!(done.stdout.contains("no damage found"), "{}", done.stdout);
    env.rbuild(&["store", "verify", "--repair"]).ok();
}

/// A way to damage a store: the name of the kind, and the change.
type Harm = (&'static str, fn(&Env));

fn flip_unpacked(env: &Env, name: &str) {
    let all = files(env, "store/layers");
    let path = all.iter().find(|path| path.ends_with(name)).unwrap();
    flip(path);
}

const HARMS: &[Harm] = &[
    ("version", |env| fs::write(env.path("store/version"), "3\n").unwrap()),
    ("version", |env| fs::write(env.path("store/version"), "").unwrap()),
    ("blobs/", |env| {
        let all = files(env, "store/blobs");
        let gzip = |path: &&PathBuf| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
        flip(all.iter().find(gzip).unwrap());
    }),
    ("blobs/", |env| {
        let all = files(env, "store/blobs");
        for path in all.iter().filter(|path| fs::read(path).unwrap().starts_with(b"{")) {
            flip(path);
        }
    }),
    ("/tree", |env| {
        for path in files(env, "store/layers").iter().filter(|path| path.ends_with("tree")) {
            flip(path);
        }
    }),
    ("numbers: its content", |env| flip_unpacked(env, "fs/numbers")),
    ("busybox: its content", |env| {
        // In the base: the listing of the RUN's layer leaves out its own, equal copy.
        let all = files(env, "store/layers");
        let is_of_base = |path: &&PathBuf| {
            path.ends_with("fs/bin/busybox") && !path.with_file_name("../numbers").exists()
        };
        flip(all.iter().find(is_of_base).unwrap());
    }),
    ("numbers: its mode", |env| {
        let all = files(env, "store/layers");
        let path = all.iter().find(|path| path.ends_with("fs/numbers")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    }),
    ("numbers: its extended attributes", |env| {
        let all = files(env, "store/layers");
        let path = all.iter().find(|path| path.ends_with("fs/numbers")).unwrap();
        rustix::fs::setxattr(path, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    }),
    ("numbers: it is missing", |env| {
        let all = files(env, "store/layers");
        fs::remove_file(all.iter().find(|path| path.ends_with("fs/numbers")).unwrap()).unwrap();
    }),
    ("link: ", |env| {
        let entries = fs::read_dir(env.path("store/layers")).unwrap();
        let links = entries.map(|entry| entry.unwrap().path().join("fs/link"));
        let link = links.into_iter().find(|path| path.is_symlink()).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("elsewhere", link).unwrap();
    }),
];

fn damage_is_found_and_repaired(who: Who) {
    let env = Env::of(who);
    env.base();
    let clean = id_of(&env, "id");
    for (kind, harm) in HARMS {
        // Restores all representations: a repaired layer is not unpacked before it is needed.
        env.build(DOCKERFILE, &["-t", "app", "--reproducible", "--no-cache"]).ok();
        env.rbuild(&["save", "app", "-o", "app.tar"]).ok();
        harm(&env);
        let found = env.rbuild(&["store", "verify"]);
        assert_eq!(found.code, Some(1), "{kind}: {} {}", found.stdout, found.stderr);
        assert!(found.stdout.contains("damaged: "), "{kind}: {}", found.stdout);
        assert!(found.stdout.contains(kind), "{kind}: {}", found.stdout);
        let repaired = env.rbuild(&["store", "verify", "--repair"]).ok();
        assert!(repaired.stdout.contains("repaired: "), "{kind}: {}", repaired.stdout);
        let again = env.rbuild(&["store", "verify"]).ok();
        assert!(again.stdout.contains("no damage found"), "{kind}: {}", again.stdout);
        // The damage may have been in the base image.
        env.base();
        assert_eq!(id_of(&env, "again"), clean, "{kind}");
    }
}

/// Changes the mode of a file of an unpacked layer.
fn set_mode(env: &Env, name: &str) {
    let all = files(env, "store/layers");
    let path = all.iter().find(|path| path.ends_with(name)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o606)).unwrap();
}

fn damaged_layer_is_not_mounted(who: Who) {
    let env = Env::of(who);
    env.base();
    let clean = id_of(&env, "id");
    // Stores the layers as archives too.
    env.rbuild(&["save", "app", "-o", "app.tar"]).ok();
    set_mode(&env, "fs/etc/group");
    let args = ["-t", "app", "--reproducible", "--no-cache", "--iidfile", "again"];
    let done = env.build(DOCKERFILE, &args).ok();
    assert!(done.stderr.contains("etc/group: its mode is 0606"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(env.path("again")).unwrap(), clean);
    let done = env.build(DOCKERFILE, &args).ok();
    assert!(!done.stderr.contains("damaged"), "{}", done.stderr);
    env.rbuild(&["store", "verify"]).ok();
    // A repair removes the directories that were set aside.
    env.rbuild(&["store", "verify", "--repair"]).ok();
    let all = files(&env, "store/layers");
    assert!(!all.iter().any(|path| path.display().to_string().contains("/damaged-")), "{all:?}");
}

fn damaged_layer_without_archive_is_an_error(who: Who) {
    let env = Env::of(who);
    env.base();
    id_of(&env, "id");
    set_mode(&env, "fs/numbers");
    let more = format!("{DOCKERFILE}RUN wc -l < /numbers > /count\n");
    let done = env.build(&more, &["-t", "app", "--reproducible"]);
    let help = "run `rbuild store verify --repair`";
    done.fails(done.code.unwrap(), &["numbers: its mode is 0606 instead of 0644", help]);
    assert_ne!(done.code, Some(0));
    env.rbuild(&["store", "verify", "--repair"]).ok();
    env.build(&more, &["-t", "app", "--reproducible"]).ok();
}

fn damaged_content_does_not_leave(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile = "FROM base:1\nRUN seq 20000 > /numbers\n";
    let outputs = ["type=tar,dest=out.tar", "type=local,dest=out"];
    for output in outputs {
        let args = ["-t", "app", "--reproducible", "-o", output];
        env.build(dockerfile, &args).ok();
        flip_unpacked(&env, "fs/numbers");
        let done = env.build(dockerfile, &args);
        let help = "run `rbuild store verify --repair`";
        done.fails(done.code.unwrap(), &["numbers: its content has changed", help]);
        assert_ne!(done.code, Some(0));
        env.rbuild(&["store", "verify", "--repair"]).ok();
        env.build(dockerfile, &args).ok();
        // With an archive of the layer, the build uses the archive.
        env.rbuild(&["save", "app", "-o", "app.tar"]).ok();
        flip_unpacked(&env, "fs/numbers");
        let done = env.build(dockerfile, &args).ok();
        assert!(done.stderr.contains("its content has changed"), "{}", done.stderr);
        env.build(dockerfile, &args).ok();
        env.rbuild(&["store", "verify", "--repair"]).ok();
        env.rbuild(&["prune", "--all"]).ok();
        env.base();
    }
    let numbers: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert_eq!(fs::read_to_string(env.path("out/numbers")).unwrap(), numbers);
}

fn lost_index_is_rebuilt_from_the_objects(who: Who) {
    let env = Env::of(who);
    env.base();
    let clean = id_of(&env, "id");
    env.rbuild(&["tag", "app", "other.example/name:2"]).ok();
    let images = || {
        let lines = env.rbuild(&["images"]).ok().stdout;
        // The sizes are compressed sizes, and the times are those of the names.
        let names = lines.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>());
        names.map(|words| words.join(" ")).collect::<Vec<_>>()
    };
    let before = images();
    let harms: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, [7; 8192]).unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            let n_bytes = bytes.len();
            bytes.get_mut(4096..n_bytes).unwrap().fill(0x55);
            fs::write(path, bytes).unwrap();
        },
    ];
    for harm in harms {
        for name in ["store/index.db-wal", "store/index.db-shm"] {
            let path = env.path(name);
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        harm(&env.path("store/index.db"));
        for args in [&["images"][..], &["build", "context"], &["prune", "--all"], &["du"]] {
            let done = env.rbuild(args);
            done.fails(done.code.unwrap(), &["rbuild store verify --repair"]);
            assert_ne!(done.code, Some(0));
        }
        let found = env.rbuild(&["store", "verify"]);
        assert_eq!(found.code, Some(1), "{} {}", found.stdout, found.stderr);
        assert!(found.stdout.contains("damaged: index.db: "), "{}", found.stdout);
        let repaired = env.rbuild(&["store", "verify", "--repair"]).ok();
        assert!(repaired.stdout.contains("repaired: index.db: "), "{}", repaired.stdout);
        assert_eq!(images(), before);
        env.rbuild(&["store", "verify"]).ok();
        env.rbuild(&["save", "app", "-o", "app.tar"]).ok();
        assert_eq!(id_of(&env, "again"), clean);
    }
    // Removed names do not come back, and damage to the file of a name is found.
    env.rbuild(&["rmi", "other.example/name:2"]).ok();
    flip(files(&env, "store/tags").first().unwrap());
    let found = env.rbuild(&["store", "verify"]);
    assert_eq!(found.code, Some(1), "{} {}", found.stdout, found.stderr);
    assert!(found.stdout.contains("damaged: tags/"), "{}", found.stdout);
    env.rbuild(&["store", "verify", "--repair"]).ok();
    fs::remove_file(env.path("store/index.db")).unwrap();
    env.rbuild(&["store", "verify", "--repair"]).ok();
    let names: Vec<String> = before.into_iter().filter(|line| !line.contains("other")).collect();
    assert_eq!(images(), names);
}

fn names_in_a_lost_log_are_restored(who: Who) {
    let env = Env::of(who);
    env.base();
    let clean = id_of(&env, "id");
    // While a connection is open, later changes stay in the write-ahead log.
    let index = rusqlite::Connection::open(env.path("store/index.db")).unwrap();
    let _n_tags: i64 = index.query_row("SELECT count(*) FROM tag", [], |row| row.get(0)).unwrap();
    let before = fs::read(env.path("store/index.db")).unwrap();
    env.hand_over("store/index.db-wal");
    env.hand_over("store/index.db-shm");
    let dockerfile = format!("{DOCKERFILE}RUN echo more > /more\n");
    env.build(&dockerfile, &["-t", "app", "-q", "--iidfile", "moved"]).ok();
    let moved = fs::read_to_string(env.path("moved")).unwrap();
    env.rbuild(&["tag", "app", "new"]).ok();
    drop(index);
    fs::write(env.path("store/index.db"), &before).unwrap();
    for name in ["store/index.db-wal", "store/index.db-shm"] {
        assert!(!env.path(name).exists());
    }
    let images = env.rbuild(&["images"]).ok().stdout;
    assert!(images.contains("new:latest"), "{images}");
    for name in ["app", "new"] {
        let found = env.rbuild(&["inspect", name]).ok().stdout;
        assert!(found.contains(moved.trim()), "{found}");
        env.rbuild(&["save", name, "-o", "app.tar"]).ok();
    }
    assert_ne!(moved, clean);
    assert_eq!(id_of(&env, "again"), clean);
    env.rbuild(&["store", "verify"]).ok();
}

fn damaged_archive_is_not_copied_from(who: Who) {
    let env = Env::of(who);
    env.base();
    let first = "FROM base:1 AS tool\nCOPY passwd /etc/passwd\nCOPY file /data/file\n";
    let text: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    env.write("file", &text);
    env.write("passwd", "app:x:12:13::/:/bin/sh\n");
    let copies = "FROM base:1\nCOPY --from=tool /data /copied\n";
    let owned = "FROM tool\nCOPY --chown=app file /owned\n";
    let build = |rest: &str, name: &str| {
        let args = ["--reproducible", "--iidfile", name];
        let done = env.build(&format!("{first}{rest}"), &args).ok();
        (fs::read_to_string(env.path(name)).unwrap(), done.stderr)
    };
    let archives = |env: &Env| -> Vec<PathBuf> {
        let all = files(env, "store/blobs");
        let is_own = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            bytes.starts_with(b"data/") || bytes.starts_with(b"etc/")
        };
        all.into_iter().filter(is_own).collect()
    };
    let clean = build(copies, "id").0;
    let clean_owned = build(owned, "id").0;
    for (rest, clean) in [(copies, &clean), (owned, &clean_owned)] {
        env.rbuild(&["prune", "--all"]).ok();
        env.base();
        build("", "tool");
        let damaged = archives(&env);
        assert!(!damaged.is_empty());
        for path in damaged {
            let mut bytes = fs::read(&path).unwrap();
            let at =
                bytes.windows(4).position(|bytes| bytes == b"12:1" || bytes == b"19\n2").unwrap();
            *bytes.get_mut(at).unwrap() ^= 4;
            fs::write(&path, bytes).unwrap();
        }
        let (id, stderr) = build(rest, "again");
        assert_eq!(&id, clean);
        assert!(stderr.contains("is damaged"), "{stderr}");
        assert!(!build(rest, "again").1.contains("is damaged"));
    }
}

fn step_that_runs_again_replaces_a_damaged_layer(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile = "FROM base:1\nCOPY file /data/file\nRUN cat /data/file > /copy\n";
    let text: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    env.write("file", &text);
    let build = |name: &str| {
        let args = ["--reproducible", "--no-cache", "-q", "--iidfile", name];
        env.build(dockerfile, &args).ok();
        fs::read_to_string(env.path(name)).unwrap()
    };
    let clean = build("id");
    let all = files(&env, "store/layers");
    let path = all.iter().find(|path| path.ends_with("fs/data/file")).unwrap();
    let listings = files(&env, "store/layers");
    listings
        .iter()
        .filter(|path| path.ends_with("tree"))
        .for_each(|path| fs::remove_file(path).unwrap());
    // The length stays the same, and the mtime is that of the damage.
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, &[0; 4096]).unwrap();
    drop(file);
    assert_eq!(build("again"), clean);
    let found = env.rbuild(&["store", "verify"]).ok();
    assert!(found.stdout.contains("no damage found"), "{}", found.stdout);
}
