//! Steps in a directory that is changed in place, because the store is on an overlay: they make the same
//! layers as steps on overlays.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild::archive::Packing;
use rbuild::sandbox::{Attributes, FileId, FileTime};
use rbuild::store::{LayerOptions, Representation, RootDirectory, Store, StoredLayer};
use rbuild::tree::{Entry, LayerEntries as _, LayerItem, Meta, Node, Tree};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, StatxFlags};

use crate::support::env::{Done, Env, Who, skip};
use crate::support::image::{
    Fixture, capable, dir, file, file_with, link, null_device, path, symlink,
};

/// An overlay that is mounted at `store` of an environment.
struct MountedStore(PathBuf);

impl MountedStore {
    /// Mounts an overlay at the directory `store`; `None` if that is not permitted. Its own upper
    /// directory is on a tmpfs, because the environment may be on an overlay itself.
    fn new(env: &Env, store: &str) -> Option<Self> {
        Who::root()?;
        let (memory, at) = (env.path("memory"), env.path(store));
        for directory in [&memory, &at] {
            fs::create_dir(directory).unwrap();
        }
        let mount = |args: &[&str], at: &PathBuf| {
            Command::new("mount").args(args).arg(at).status().is_ok_and(|done| done.success())
        };
        let mounted = Self(at);
        let is_mounted = mount(&["-t", "tmpfs", "none"], &memory) && {
            let [lower, upper, work] = ["lower", "upper", "work"].map(|name| memory.join(name));
            for directory in [&lower, &upper, &work] {
                fs::create_dir(directory).unwrap();
            }
            let [lower, upper, work] = [lower, upper, work].map(|path| path.display().to_string());
            let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
            mount(&["-t", "overlay", "none", "-o", &options], &mounted.0)
        };
        if !is_mounted {
            skip("mount", "file systems cannot be mounted");
            return None;
        }
        Some(mounted)
    }
}

impl Drop for MountedStore {
    fn drop(&mut self) {
        for path in [self.0.clone(), self.0.with_file_name("memory")] {
            let _done = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

/// Builds the context in both stores; returns the results: with overlays, and in place.
fn build_both(env: &Env, args: &[&str]) -> [Done; 2] {
    ["plain", "overlaid"].map(|store| {
        env.base_in(store);
        let args = [&["build", "context", "--reproducible", "-q"], args].concat();
        Done::of(env.command_in(store, &args).output().unwrap())
    })
}

fn assert_same_image(env: &Env, args: &[&str]) {
    let [overlay, in_place] = build_both(env, args).map(Done::ok);
    assert!(!overlay.stdout.is_empty());
    assert_eq!(overlay.stdout, in_place.stdout, "{}", in_place.stderr);
    assert_eq!(env.leftovers("plain"), "");
}

/// Steps that change files in every way but one: an overlay breaks the hard links of a file of a lower
/// layer that a step writes to or moves with its directory ("Non-standard behavior", overlayfs.html).
const CHANGES: &str = "\
FROM base:1 AS base
RUN mkdir -p /d/sub/deep && cd /d && for i in a b c gone same mode owner time; do echo $i > $i; done \
    && ln a a2 && ln -s sub link && mkfifo fifo && chmod 4755 b && chmod 2750 sub
RUN cd /d && echo changed >> c && rm gone && mv a same && chmod 600 mode && chown 5:6 owner && touch -d @5 time
COPY copied /d/
RUN cd /d && echo more >> copied && cp -p time time2 && mv time2 time && echo > /old/new && echo x > mode && echo mode > mode
RUN cd /d && rm link && mkdir link && echo in > link/in && rm -r sub && echo file > sub && ln b b3
RUN rm -r /old/directory && mkdir /old/directory && echo old/directory/c > /old/directory/c
RUN rm -r /old && echo file > /old && mkdir /e && mv /d/c /d/copied /d/link /d/mode /e
RUN mknod /e/null c 1 3 && mknod /e/disk b 7 0 && mkdir /e/closed && echo x > /e/closed/x && chmod 0 /e/closed/x /e/closed
RUN chmod 644 /e/copied && chmod 644 /e/copied && touch /etc/passwd
WORKDIR /made/here
RUN chmod 1777 /tmp
USER 7:8
WORKDIR /made/by/user
RUN id > /tmp/id
USER 0

FROM base AS other
RUN echo other > /other && rm -r /e

FROM base
RUN true
COPY --from=other /other /e/other
RUN cat /e/other > /e/both && rm /e/other /d/b3
";

#[test]
fn priv_steps_in_place_make_the_same_layers() {
    let env = Env::new();
    let Some(_mounted) = MountedStore::new(&env, "overlaid") else { return };
    env.write("copied", "copied");
    env.write("Dockerfile", CHANGES);
    assert_same_image(&env, &["--no-cache"]);
    // The second build finds the first steps, and makes a directory of their layers.
    env.write("Dockerfile", CHANGES.replace("RUN true", "RUN rm /etc/group"));
    assert_same_image(&env, &[]);
    env.write("Dockerfile", CHANGES.replace("RUN true", "RUN echo more >> /e/copied"));
    assert_same_image(&env, &["--jobs", "1"]);
}

#[test]
fn priv_mounts_of_steps_in_place_leave_no_trace() {
    let env = Env::new();
    let Some(_mounted) = MountedStore::new(&env, "overlaid") else { return };
    env.write("file", "content");
    env.write("directory/inner", "inner");
    let secret = format!("id=key,src={}", env.shown("context/file"));
    env.write(
        "Dockerfile",
        "FROM base:1 AS base\n\
         RUN mkdir /d && echo stage > /d/stage && chown 3:4 /d/stage\n\
         FROM base:1\n\
         RUN --mount=type=bind,source=file,target=/m/file --mount=type=bind,source=directory,target=/m/d,rw \
         --mount=type=bind,from=base,source=/d,target=/m/stage --mount=type=cache,target=/root/cache \
         --mount=type=tmpfs,target=/t/tmpfs --mount=type=secret,id=key,uid=5,mode=0440 \
         cat /m/file /m/d/inner /m/stage/stage /run/secrets/key > /all \
         && stat -c '%u:%g %a' /m/stage/stage /run/secrets/key >> /all \
         && echo x > /m/d/inner && echo y > /root/cache/y && echo z > /t/tmpfs/z\n\
         RUN --mount=type=bind,source=directory,target=/m/d cat /m/d/inner > /unchanged && touch /root/own\n",
    );
    assert_same_image(&env, &["--secret", &secret]);
}

#[test]
fn priv_failed_step_in_place_leaves_no_files() {
    let env = Env::new();
    let Some(_mounted) = MountedStore::new(&env, "overlaid") else { return };
    env.write("Dockerfile", "FROM base:1\nRUN echo x > /x\nRUN echo y > /y && false\n");
    for done in build_both(&env, &[]) {
        done.fails(1, &["did not complete successfully"]);
    }
    let left = fs::read_dir(env.path("overlaid/tmp")).unwrap().count();
    assert_eq!(left, 0, "files of steps");
    env.write("Dockerfile", "FROM base:1\nRUN echo x > /x\nRUN ls / > /list && ! test -e /y\n");
    assert_same_image(&env, &[]);
}

const OPTIONS: LayerOptions = LayerOptions { clamp_s: None, created_s: 0 };

/// Returns the merged tree of layers.
fn tree(store: &Store, layers: &[&StoredLayer]) -> Tree {
    let mut tree = Tree::default();
    for layer in layers {
        tree.apply(&*store.listing(layer.diff_id).unwrap());
    }
    tree
}

fn stat(directory: &RootDirectory, name: &str) -> Stat {
    rustix::fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).unwrap()
}

#[test]
fn emulated_attributes_go_to_the_layer_and_not_to_the_disk() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let owned = Meta { uid: 7, gid: 8, ..Meta::root(0o4750, 1_600_000_000) };
    // A compressed layer: its files are created while it is read.
    let entries = vec![
        dir("d"),
        file_with("d/capable", "capable", capable(0, 0, 0o755)),
        null_device("d/null"),
        file_with("d/owned", "owned", owned),
        file_with("d/secret", "secret", Meta::root(0, 5)),
        symlink("d/to", "owned"),
        link("d/twin", "d/owned"),
    ];
    let (base, _blob) = fixture.pulled(entries, Packing::Gzip { level: 6 });
    let mut root = store.root_directory(&tree(store, &[&base]), true).unwrap();
    let on_disk = stat(&root, "d/owned");
    let own = fs::metadata(fixture.directory.path()).unwrap();
    assert_eq!((on_disk.st_uid, on_disk.st_mode & 0o7777), (own.uid(), 0o750));
    assert_eq!((on_disk.st_nlink, on_disk.st_ino), (2, stat(&root, "d/twin").st_ino));
    assert_eq!(stat(&root, "d/secret").st_mode & 0o7777, 0o600);
    assert_eq!(stat(&root, "d/secret").st_mtime, 5);
    let mut attributes = root.take_attributes();
    let seen = attributes.of(&on_disk);
    assert_eq!((seen.uid, seen.gid, seen.mode & 0o7777), (7, 8, 0o4750));
    let null = attributes.of(&stat(&root, "d/null"));
    assert_eq!((null.mode, null.device), (0o20666, rustix::fs::makedev(1, 3)));

    // A step without changes makes an empty layer.
    root.set_attributes(attributes.clone());
    let unchanged = store.layer_from_root(&mut root, &OPTIONS).unwrap();
    assert_eq!(store.listing(unchanged.diff_id).unwrap().n_entries(), 0);

    // The step changes an owner, and nothing on the disk.
    attributes = root.take_attributes();
    let secret = stat(&root, "d/secret");
    let given = Attributes { uid: 9, ..attributes.of(&secret) };
    attributes.set(FileId::of(&secret), given);
    root.set_attributes(attributes);
    let changed = store.layer_from_root(&mut root, &OPTIONS).unwrap();
    let listing = store.listing(changed.diff_id).unwrap();
    let entries: Vec<Entry> = listing.stream().map(std::borrow::Cow::into_owned).collect();
    let [directory, entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((&directory.path, &entry.path), (&path("d"), &path("d/secret")));
    let LayerItem::Node(meta, Node::File(_)) = &entry.item else { panic!("{entry:?}") };
    assert_eq!((meta.uid, meta.mode, meta.mtime_s), (9, 0, 5));

    // Attributes of files that another layer replaces are forgotten.
    root.set_tree(tree(store, &[&base, &changed]));
    let top = vec![dir("d"), file("d/capable", "new"), file("d/null", "new")];
    let top = fixture.layer(top, Representation::Tar);
    store.update_root(&mut root, &tree(store, &[&base, &changed, &top])).unwrap();
    let attributes = root.take_attributes();
    for name in ["d/capable", "d/null"] {
        assert_eq!(attributes.get(FileId::of(&stat(&root, name))), None, "{name}");
    }
    assert_eq!(attributes.of(&stat(&root, "d/secret")).uid, 9);
    root.set_attributes(attributes);
    let unchanged = store.layer_from_root(&mut root, &OPTIONS).unwrap();
    assert_eq!(store.listing(unchanged.diff_id).unwrap().n_entries(), 0);
}

/// Makes changes as a step does, and returns the number of entries of its layer.
fn step(store: &Store, root: &mut RootDirectory, change: &dyn Fn(&Path)) -> usize {
    root.begin_changes();
    change(&root.work().path().join("fs"));
    root.note_changes();
    let attributes = root.take_attributes();
    root.set_attributes(attributes);
    let layer = store.layer_from_root(root, &OPTIONS).unwrap();
    store.listing(layer.diff_id).unwrap().n_entries()
}

#[test]
fn changes_in_a_directory_with_the_inode_number_of_a_removed_one_are_noticed() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (base, _blob) = fixture.pulled(vec![dir("d")], Packing::Gzip { level: 6 });
    let mut root = store.root_directory(&tree(store, &[&base]), false).unwrap();
    // Most file systems, but not tmpfs, use the number of a removed directory for the next one.
    for round in 0..20 {
        let make = |root: &Path| fs::create_dir_all(root.join("d/inner/deep")).unwrap();
        assert_eq!(step(store, &mut root, &make), 3, "round {round}");
        let make_again = |root: &Path| {
            fs::remove_dir_all(root.join("d/inner")).unwrap();
            fs::create_dir_all(root.join("d/inner/deep")).unwrap();
        };
        step(store, &mut root, &make_again);
        // The times of the last scan are no longer recent.
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(step(store, &mut root, &|_root| ()), 0, "round {round}");
        let write = |root: &Path| fs::write(root.join("d/inner/deep/new"), "x").unwrap();
        assert_eq!(step(store, &mut root, &write), 4, "round {round}");
        let remove = |root: &Path| fs::remove_dir_all(root.join("d/inner")).unwrap();
        assert_eq!(step(store, &mut root, &remove), 2, "round {round}");
    }
}

/// Since Linux 6.13 a new file may be younger than the kernel's clock for times of files says.
#[test]
fn start_of_a_step_is_between_the_files_before_it_and_its_own() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (base, _blob) = fixture.pulled(vec![dir("d")], Packing::Gzip { level: 6 });
    let mut root = store.root_directory(&tree(store, &[&base]), false).unwrap();
    let born = |root: &RootDirectory, name: &str| {
        let facts =
            rustix::fs::statx(root.as_fd(), name, AtFlags::empty(), StatxFlags::BTIME).unwrap();
        let has_time = StatxFlags::from_bits_retain(facts.stx_mask).contains(StatxFlags::BTIME);
        let born = facts.stx_btime;
        has_time.then(|| FileTime::new(born.tv_sec, born.tv_nsec.into()))
    };
    for round in 0..200 {
        let (old, new) = (format!("d/old{round}"), format!("d/new{round}"));
        let make = |root: &Path| {
            // The second change of a file that was looked at gets a finer time, and so do later files.
            let looked_at = root.join("d/looked-at");
            fs::write(&looked_at, "x").unwrap();
            fs::metadata(&looked_at).unwrap();
            fs::set_permissions(&looked_at, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(root.join(&old), "x").unwrap();
        };
        step(store, &mut root, &make);
        let started = root.start_time().unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(root.as_fd(), &new, flags, Mode::RWXU).unwrap());
        let (Some(old), Some(new)) = (born(&root, &old), born(&root, &new)) else {
            return skip("btime", "this file system records no time of creation");
        };
        assert!(old < started && started <= new, "round {round}: {old:?} {started:?} {new:?}");
    }
}
