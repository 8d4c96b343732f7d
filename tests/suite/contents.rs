//! Files that steps put into an image: names that layers cannot hold, extended attributes, holes,
//! and ids that the builder does not have.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};

use crate::bounds;
use crate::support::env::{Done, Env, Who, as_root_and_as_user, skip};
use crate::support::images::{Layout, entries};
use crate::support::registry::DockerRegistry;

as_root_and_as_user!(
    names_that_mark_removals_are_refused,
    such_names_are_accepted_where_no_layer_is_written,
    user_attributes_are_kept_from_every_step,
    user_attributes_are_kept_in_caches,
    numbers_are_ids_also_where_users_and_groups_are_called_so,
    holes_take_no_space,
    several_sources_need_a_directory,
    parents_are_kept_behind_links,
);

const OCI: &str = "type=oci,dest=out,tar=false,compression=uncompressed";
const MIB: u64 = 1 << 20;

/// Returns the entries of the tar `name`.
fn tar_of(env: &Env, name: &str) -> BTreeMap<String, String> {
    entries(&fs::read(env.path(name)).unwrap())
}

fn names_that_mark_removals_are_refused(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("top/.wh.gone", "");
    env.write("top/.wh.dir/f", "");
    env.write("plain", "");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "in/.wh..wh.plnk", &b""[..]).unwrap();
    env.write("a.tar", tar.into_inner().unwrap());
    env.hand_over("context");
    for (step, path) in [
        ("RUN mkdir /d && touch /d/a /d/.wh.a", "/d/.wh.a"),
        ("RUN touch /.wh..wh..opq", "/.wh..wh..opq"),
        ("RUN mkdir /d /d/.wh.", "/d/.wh."),
        ("RUN ln /old/file /.wh...", "/.wh..."),
        ("COPY top/.wh.gone /d/", "/d/.wh.gone"),
        ("COPY top /d", "/d/.wh.dir"),
        ("COPY plain /.wh.d/new", "/.wh.d"),
        ("COPY --link plain /.wh.plain", "/.wh.plain"),
        ("COPY <<.wh.text /d/\n.wh.text", "/d/.wh.text"),
        ("ADD a.tar /", "/in/.wh..wh.plnk"),
        ("WORKDIR /.wh.w", "/.wh.w"),
    ] {
        let dockerfile = format!("FROM base:1\n{step}\nRUN ls /\n");
        let message = format!("error[E0414]: {path} cannot be in an image");
        let failed = env.build(&dockerfile, &[]);
        failed.fails(1, &[&message, "--> Dockerfile:2:1", "makes it", "choose another name"]);
    }
    env.build("FROM base:1\nCOPY --exclude=.wh.* top /d/\nRUN rm /old/file\n", &[]).ok();
}

fn such_names_are_accepted_where_no_layer_is_written(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("top/.wh.gone", "text");
    env.hand_over("context");
    let dockerfile = "FROM base:1\n\
        RUN --mount=target=/c grep text /c/top/.wh.gone\n\
        RUN --mount=type=cache,target=/cache touch /cache/.wh.a /cache/a\n\
        RUN --mount=type=cache,target=/cache ls /cache/.wh.a /cache/a\n\
        RUN --mount=type=tmpfs,target=/t touch /t/.wh.b\n\
        RUN touch /.wh.removed && rm /.wh.removed\n";
    env.build(dockerfile, &["-o", "type=tar,dest=all.tar"]).ok();
    let found = tar_of(&env, "all.tar");
    assert!(found.keys().all(|path| !path.contains(".wh.")), "{found:?}");
}

/// Sets extended attributes on a file of the context, one of them an attribute of overlayfs.
/// Returns false if the file system does not support them.
fn set_attributes(env: &Env, name: &str) -> bool {
    let path = env.path("context").join(name);
    if setxattr(&path, "user.note", b"v=\0", XattrFlags::empty()).is_err() {
        skip("attributes", "the file system has no extended attributes of users");
        return false;
    }
    // Where the attribute has a meaning, a user may not set it.
    let _refused = setxattr(&path, "user.overlay.opaque", b"y", XattrFlags::empty());
    true
}

/// Returns a tar with one file that has the attribute `user.note`.
fn tar_with_attribute() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let pax =
        [("SCHILY.xattr.user.note", &b"v=\0"[..]), ("SCHILY.xattr.user.overlay.opaque", b"y")];
    tar.append_pax_extensions(pax).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "archived", &b""[..]).unwrap();
    tar.into_inner().unwrap()
}

/// Checks that exactly these paths have the attribute, and that none has an attribute of overlayfs.
fn check_attributes(found: &BTreeMap<String, String>, paths: &[&str]) {
    for (path, line) in found {
        let has = line.contains(r" SCHILY.xattr.user.note=v=\x00");
        assert_eq!(has, paths.contains(&path.as_str()), "{path}: {line}");
        assert!(!line.contains("overlay"), "{path}: {line}");
    }
    assert!(paths.iter().all(|path| found.contains_key(*path)), "{found:?}");
}

fn user_attributes_are_kept_from_every_step(who: Who) {
    let registry = DockerRegistry::open();
    let env = Env::of(who);
    env.base();
    env.write("f", "1");
    env.write("d/in", "2");
    env.write("a.tar", tar_with_attribute());
    env.hand_over("context");
    if !["f", "d", "d/in"].iter().all(|name| set_attributes(&env, name)) {
        return;
    }
    let name = format!("{}/noted:1", registry.host());
    let dockerfile = "FROM base:1 AS one\n\
        COPY f d/i* /c/\n\
        COPY . /all/\n\
        ADD a.tar /a/\n\
        RUN chmod 600 /c/f && ln /c/f /c/link && chmod 700 /all/d && mv /a/archived /moved\n\
        FROM scratch\n\
        COPY --from=one /c /c\n\
        COPY --from=one /all /all\n\
        COPY --from=one /moved /moved\n";
    let outputs = ["-o", "type=tar,dest=all.tar", "-o", "files", "-o", OCI, "-t", &name, "--push"];
    env.build(dockerfile, &outputs).ok();
    let noted = ["c/f", "c/in", "c/link", "all/f", "all/d/", "all/d/in", "moved"];
    check_attributes(&tar_of(&env, "all.tar"), &noted);
    let mut layers = BTreeMap::new();
    for layer in &Layout::read(&env.path("out")).layers {
        layers.extend(entries(layer));
    }
    check_attributes(&layers, &noted);
    for path in noted {
        let mut value = [0; 9];
        let path = env.path("files").join(path);
        let length = rustix::fs::getxattr(&path, "user.note", &mut value).unwrap();
        assert_eq!(&value[..length], b"v=\0", "{}", path.display());
    }

    // Pulled into another store: before and after a step.
    let pulled = format!(
        "FROM {name}\nCOPY --from=base:1 /bin /bin\nRUN [\"/bin/chmod\", \"640\", \"/moved\"]\n"
    );
    env.base_in("other");
    env.write("Dockerfile", &pulled);
    let args = ["build", "context", "-o", "type=tar,dest=other.tar"];
    Done::of(env.command_in("other", &args).output().unwrap()).ok();
    let found = tar_of(&env, "other.tar");
    assert!(found["moved"].contains("640"), "{found:?}");
    check_attributes(&found, &noted);
}

fn user_attributes_are_kept_in_caches(who: Who) {
    let env = Env::of(who);
    env.write_base();
    env.write("f", "1");
    env.hand_over("context");
    if !set_attributes(&env, "f") {
        return;
    }
    let dockerfile = "FROM scratch AS seed\nCOPY f /\n\
        FROM base:1\n\
        RUN --mount=type=cache,target=/c,from=seed cp /c/f /g && mv /c/f /c/moved\n\
        FROM base:1 AS second\n\
        RUN --mount=type=cache,target=/c,from=seed test -e /c/moved && chmod 600 /c/moved\n";
    env.base_in("one");
    env.base_in("two");
    env.write("Dockerfile", dockerfile);
    let run = |store: &str, args: &[&str]| {
        let args = [&["build", "context"], args].concat();
        Done::of(env.command_in(store, &args).output().unwrap()).ok()
    };
    run("one", &["--target", "1", "--cache-to", "type=local,dest=cache,mounts=true"]);
    run("two", &["--target", "second", "--cache-from", "type=local,src=cache,mounts=true"]);
    let caches = env.path("two/cache-mounts");
    let moved = walkdir::WalkDir::new(caches).into_iter().filter_map(Result::ok);
    let moved: Vec<_> = moved.filter(|entry| entry.file_name() == "moved").collect();
    assert_eq!(moved.len(), 1);
    let mut value = [0; 9];
    let length = rustix::fs::getxattr(moved[0].path(), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"v=\0");
}

#[test]
fn an_attribute_that_no_tar_can_name_is_an_error() {
    let env = Env::new();
    env.write("f", "1");
    if !set_attributes(&env, "f") {
        return;
    }
    let path = env.path("context/f");
    setxattr(&path, "user.a=b", b"", XattrFlags::empty()).unwrap();
    let failed = env.build("FROM scratch\nCOPY f /\n", &[]);
    failed.fails(3, &["cannot store /f in an archive", "extended attribute contains `=`"]);
}

fn numbers_are_ids_also_where_users_and_groups_are_called_so(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("f", "1");
    env.hand_over("context");
    let dockerfile = "FROM base:1\n\
        RUN printf 'root:x:0:0::/root:/bin/sh\\n1000:x:0:0::/root:/bin/sh\\njoe:x:500:77::/:/bin/sh\\n' > /etc/passwd; \
            printf 'root:x:0:\\n77:x:0:\\n88:x:0:joe\\n' > /etc/group; mkdir -m 1777 /o\n\
        USER 1000\n\
        WORKDIR /made\n\
        RUN id -u > /o/user && id -g >> /o/user && pwd > /made/f\n\
        USER joe:77\n\
        RUN id -u > /o/group && id -G >> /o/group\n\
        USER joe\n\
        RUN id -G > /o/groups\n\
        COPY --chown=1000:77 f /copied\n\
        COPY --link --chown=1000:77 f /linked\n\
        ADD --chown=joe:88 f /added\n";
    env.build(dockerfile, &["-o", "files", "-o", "type=tar,dest=all.tar"]).ok();
    let said = |name: &str| fs::read_to_string(env.path("files/o").join(name)).unwrap();
    assert_eq!(said("user"), "1000\n0\n");
    assert_eq!(said("group"), "500\n77\n");
    assert_eq!(said("groups"), "77 0\n");
    let found = tar_of(&env, "all.tar");
    for (path, want) in [
        ("made/", "1000:1000"),
        ("made/f", "1000:0"),
        ("copied", "1000:77"),
        ("linked", "1000:77"),
        ("added", "500:88"),
    ] {
        assert!(found[path].contains(&format!(" {want} ")), "{path}: {}", found[path]);
    }
    let too_large = dockerfile.replace("USER 1000", "USER 4294967295");
    env.build(&too_large, &[]).fails(1, &["E0405", "has no user `4294967295`"]);
    let mount = "FROM base:1\nRUN --mount=type=cache,target=/c,uid=4294967295 true\n";
    env.build(mount, &[]).fails(1, &["invalid value `4294967295`", "below 4294967295"]);
}

/// Checks that a file has the given length and content, and takes little space.
#[track_caller]
fn check_sparse(path: &Path, n_bytes: u64, data: &[(u64, u8)]) {
    let file = fs::File::open(path).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), n_bytes, "{}", path.display());
    assert!(meta.blocks() * 512 <= MIB / 4, "{}: {} blocks", path.display(), meta.blocks());
    for (at, byte) in data {
        let mut around = [9; 3];
        file.read_exact_at(&mut around, at - 1).unwrap();
        assert_eq!(around, [0, *byte, 0], "{}", path.display());
    }
}

fn holes_take_no_space(who: Who) {
    let env = Env::of(who);
    env.base();
    let data = [(5 * MIB + 7, 1), (20 * MIB, 2), (20 * MIB + 300_000, 3)];
    for (name, data) in [("some", &data[..]), ("none", &[])] {
        env.write(name, "");
        let path = env.path("context").join(name);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        data.iter().for_each(|(at, byte)| file.write_all_at(&[*byte], *at).unwrap());
    }
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(env.path("context/some"), "some").unwrap();
    env.write("a.tar", tar.into_inner().unwrap());
    env.hand_over("context");
    let before = bounds::disk_bytes(&env.path("store"));
    let check = |stage: &str, output: &str| {
        let names = ["context/some", "context/none", "from/some", "from/none", "added/some"];
        for name in names {
            let is_some = name.ends_with("some");
            let path = env.path(output).join(name);
            check_sparse(&path, 64 * MIB, if is_some { &data } else { &[] });
        }
        let more = bounds::disk_bytes(&env.path("store")) - before;
        assert!(more < 8 * MIB, "{stage}: {more} bytes more in the store");
    };
    // Layers that no step mounts are tars, others are directories.
    let copies = "COPY some none /context/\nCOPY --from=one /from /from\nADD a.tar /added/\n";
    let source = "FROM base:1 AS one\nRUN --mount=target=/c mkdir /from && \
                  dd if=/dev/zero of=/from/none bs=1 count=0 seek=64M\n";
    let holes = "RUN dd if=/dev/zero of=/from/some bs=1 count=0 seek=64M";
    let mut steps = holes.to_owned();
    for (at, byte) in data {
        steps +=
            &format!(" && printf '\\{byte:03o}' | dd of=/from/some bs=1 seek={at} conv=notrunc");
    }
    let tars = format!("{source}{steps}\nFROM scratch\n{copies}");
    env.build(&tars, &["-o", "one"]).ok();
    check("tars", "one");
    let mounted = format!(
        "{source}{steps}\nFROM base:1\n{copies}RUN test $(stat -c %s /context/none) = 67108864\n"
    );
    env.build(&mounted, &["-o", "two"]).ok();
    check("directories", "two");
    // Unpacked from a compressed layer.
    env.build(&mounted, &["-o", OCI.replace("uncompressed", "gzip").as_str()]).ok();
    let context = format!("base=oci-layout://{}", env.path("out").display());
    env.write("Dockerfile", "FROM base\nRUN test $(stat -c %s /from/none) = 67108864\n");
    let args = ["build", "context", "--build-context", &context, "-o", "three"];
    Done::of(env.command_in("other", &args).output().unwrap()).ok();
    for name in ["context/some", "from/some", "added/some"] {
        check_sparse(&env.path("three").join(name), 64 * MIB, &data);
    }
    let n_bytes = bounds::disk_bytes(&env.path("other"));
    assert!(n_bytes < 16 * MIB, "{n_bytes}");
}

fn several_sources_need_a_directory(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("a1", "1");
    env.write("a2", "2");
    env.hand_over("context");
    for step in [
        "COPY a1 a2 /dest",
        "COPY a* /dest",
        "ADD a1 a2 /dest",
        "COPY --link a1 a2 /dest",
        "COPY [\"a1\", \"a2\", \"/dest\"]",
        "COPY a1 <<x /dest\nh\nx",
        "COPY --from=base:1 /old/file /etc/passwd /dest",
    ] {
        let failed = env.build(&format!("FROM base:1\n{step}\n"), &[]);
        let help = "end the destination with a slash: `/dest/`";
        failed.fails(1, &["E0403", "several files", "`/dest`", "Dockerfile:2:1", help]);
    }
    let good = "FROM base:1\nCOPY a1 a2 /new/\nCOPY a1 a2 /old\nCOPY a1* /one\nWORKDIR /old\nCOPY a1 a2 .\n";
    let built = env.build(good, &["-o", "files"]).ok();
    assert!(built.stderr.contains("CopyDestinationSlash"), "{}", built.stderr);
    for path in ["new/a1", "new/a2", "old/a1", "old/a2", "one"] {
        assert!(env.path("files").join(path).is_file(), "{path}");
    }
}

fn parents_are_kept_behind_links(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("x/real/c", "c");
    env.write("x/real/d/e", "e");
    symlink("real", env.path("context/x/link")).unwrap();
    symlink("/x/link/d", env.path("context/abs")).unwrap();
    env.hand_over("context");
    let dockerfile = "FROM base:1 AS one\nCOPY . /\n\
        FROM scratch\n\
        COPY --parents x/link/c /q/\n\
        COPY --parents abs/e x/./link/d/* /r/\n\
        COPY --parents --from=one /x/link/c /s/\n\
        ONBUILD RUN true\n";
    env.build(dockerfile, &["-o", "files"]).ok();
    for path in ["q/x/link/c", "r/abs/e", "r/link/d/e", "s/x/link/c"] {
        assert!(env.path("files").join(path).is_file(), "{path}");
    }
    assert!(!env.path("files/q/x/link").is_symlink());
    let failed = env.build("FROM scratch\nCOPY --parents x/link/e /q/\n", &[]);
    failed.fails(1, &["E0402", "`x/link/e` does not exist", "Dockerfile:2:16"]);
}

/// Returns the last id that the builder has.
fn last_id(env: &Env) -> u64 {
    let uid = env.program("id").arg("-u").output().unwrap();
    let name = env.program("id").arg("-un").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    let (uid, name) = (text(uid.stdout), text(name.stdout));
    let granted = fs::read_to_string("/etc/subuid").unwrap();
    let counts = granted.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        (who == uid || who == name).then(|| fields.nth(1)?.parse::<u64>().ok()).flatten()
    });
    counts.sum()
}

#[test]
fn priv_an_id_that_is_not_granted_is_named_with_its_place() {
    let Some(who) = Who::user() else { return };
    let env = Env::of(who);
    env.base();
    let last = last_id(&env);
    let granted = format!("/etc/subuid grants, which are 0 to {last} here");
    let fails = |step: &str, line: u32, path: &str| {
        let dockerfile = format!("FROM base:1\n{step}\nRUN ls /\n");
        let failed = env.build(&dockerfile, &[]);
        let id = "the user id 205001 is not one of those that ";
        let help = "grant more ids in /etc/subuid";
        let place = format!("--> Dockerfile:{line}:");
        failed.fails(3, &["error[E0415]", path, id, &granted, &place, help]);
    };
    env.write("f", "1");
    env.hand_over("context");
    fails("COPY --chown=205001:5 f /x", 2, "chown x");
    fails("USER 205001\nWORKDIR /w", 3, "chown w");
    fails("USER 205001\nRUN true", 3, "switch to user 205001:0");
    fails("RUN --mount=type=cache,target=/c,uid=205001 true", 2, "the owner of");
    let secret = "FROM base:1\nRUN --mount=type=secret,id=s,target=/c,uid=205001 true\n";
    let failed = env.build(secret, &["--secret", "id=s,src=context/f"]);
    failed.fails(3, &["error[E0415]", "/c", "205001", &granted, "--> Dockerfile:2:"]);
    let group = env.build("FROM base:1\nCOPY --chown=5:205002 f /x\nRUN ls /\n", &[]);
    group.fails(3, &["the group id 205002 is not one of those that /etc/subgid grants"]);

    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(205_001);
    header.set_gid(5000);
    header.set_cksum();
    tar.append_data(&mut header, "big", &b""[..]).unwrap();
    let context = bounds::layout(&env, "hostile", &tar.into_inner().unwrap());
    env.hand_over("hostile");
    let args = ["--build-context", &context];
    let dockerfile = "FROM base:1 AS one\n\nFROM base\nRUN [\"/big\"]\n";
    let failed = env.build(dockerfile, &args);
    failed.fails(3, &["error[E0415]", "205001", &granted, "--> Dockerfile:3:"]);
    // If nothing is unpacked, the image keeps the owner.
    let dockerfile = "FROM base\nCOPY --chown=205001:5 f /x\n";
    env.build(dockerfile, &[&args[..], &["-o", "type=tar,dest=all.tar"]].concat()).ok();
    let found = tar_of(&env, "all.tar");
    assert!(found["big"].contains("205001:5000") && found["x"].contains("205001:5"), "{found:?}");
}
