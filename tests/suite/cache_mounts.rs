//! Directories of `RUN --mount=type=cache` that are exported and imported with a build cache.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rbuild::oci::Digest;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::registry::DockerRegistry;

as_root_and_as_user!(
    filled_cache_mount_goes_to_a_store_that_has_none,
    damaged_archives_leave_a_cache_empty,
    archives_stay_in_the_directory,
);

/// Runs a script with a cache mount in a store.
fn run(env: &Env, store: &str, mount: &str, script: &str, args: &[&str]) -> Done {
    let dockerfile = format!("FROM base:1\nRUN --mount=type=cache,{mount} {script}\n");
    build(env, store, &dockerfile, args)
}

fn build(env: &Env, store: &str, dockerfile: &str, args: &[&str]) -> Done {
    env.base_in(store);
    env.write("Dockerfile", dockerfile);
    env.hand_over("context");
    Done::of(env.command_in(store, &[&["build", "context"], args].concat()).output().unwrap())
}

const TO: &str = "type=local,dest=cache,mode=max,mounts=true";
const FROM: &str = "type=local,src=cache";
const RESTORED: &str = "restore the cache mount";

/// Script that creates files of every kind, with various owners and modes. Some look like a layer's
/// whiteouts.
const FILL: &str = "cd /c && mkdir -p d/e && echo content > d/f && ln d/f hard && ln -s ../../etc up \
    && mkfifo pipe && echo x > .wh.gone && echo y > .wh..wh..opq && chown 5:6 d/f && chmod 2750 d \
    && chmod 4751 hard && chown 7:8 d/e && touch -d @1000000000 d/e && echo long > $(printf '%0200d' 7)";
/// Script that checks the parts of them that must be restored.
const LOOK: &str = "cd /c && test \"$(cat hard)\" = content && test $(stat -c '%a %u:%g %h' hard | tr ' ' _) = 4751_5:6_2 \
    && test $(stat -c '%a_%u:%g' d) = 2750_0:0 && test $(stat -c '%u:%g_%Y' d/e) = 7:8_1000000000 \
    && test $(readlink up) = ../../etc && test -p pipe && test $(cat .wh.gone .wh..wh..opq | tr '\\n' -) = x-y- \
    && test $(cat $(printf '%0200d' 7)) = long && test $(stat -c %a_%u /c) = 711_3";

fn filled_cache_mount_goes_to_a_store_that_has_none(who: Who) {
    let registry = DockerRegistry::open();
    let env = Env::of(who);
    let (mount, cache) = ("target=/c,mode=0711,uid=3", format!("{}/cache:1", registry.host()));
    let to = format!("type=registry,ref={cache},mode=max,mounts=true");
    let from = format!("type=registry,ref={cache}");
    let fill = format!("{FILL} && if test $(id -u) = 0; then mknod null c 1 3 || true; fi");
    run(&env, "one", mount, &fill, &["--cache-to", &to]).ok();

    // The step is cached, so nothing needs the directory.
    let found = run(&env, "two", mount, &fill, &["--cache-from", &from]).ok();
    assert!(found.steps()[0].ends_with(": CACHED"), "{}", found.stderr);
    assert!(!found.stderr.contains(RESTORED), "{}", found.stderr);

    let look = format!("{LOOK} && ! test -e null && touch seen");
    let without =
        run(&env, "two", mount, &look, &["--cache-from", &format!("{from},mounts=false")]);
    without.fails(1, &["did not complete successfully"]);
    // That build has created the directory, empty. The local directory takes precedence.
    let kept = run(&env, "two", mount, &look, &["--cache-from", &from]);
    kept.fails(1, &["did not complete successfully"]);
    assert!(!kept.stderr.contains(RESTORED), "{}", kept.stderr);

    let restored = run(&env, "three", mount, &look, &["--cache-from", &from]).ok();
    assert!(restored.stderr.contains("restore the cache mount `/c`"), "{}", restored.stderr);
    // The next step sees the changes of the first.
    let again = run(&env, "three", mount, "test -e /c/seen", &["--cache-from", &from]).ok();
    assert!(!again.stderr.contains(RESTORED), "{}", again.stderr);
    // Another owner means another cache, and `--no-cache` starts with an empty one.
    run(&env, "four", "target=/c", "! test -e /c/hard", &["--cache-from", &from]).ok();
    let anew = ["--no-cache", "--cache-from", &from];
    run(&env, "four", mount, "! test -e /c/hard", &anew).ok();
    for store in ["one", "two", "three", "four"] {
        assert_eq!(env.leftovers(store), "");
    }
}

/// Returns the cache's manifest, and the document that it refers to.
fn documents(env: &Env) -> (Value, Value) {
    let json = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let blob = |descriptor: &Value| json(env.path("cache").join(blob_name(descriptor)));
    let manifest = blob(&json(env.path("cache/index.json"))["manifests"][0]);
    let document = blob(&manifest["config"]);
    (manifest, document)
}

fn blob_name(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/")
}

/// Returns the name and digest of every directory in the cache.
fn mounts(env: &Env) -> Vec<(String, String)> {
    let (manifest, document) = documents(env);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let none = Vec::new();
    let mounts = document["mounts"].as_array().unwrap_or(&none).iter().map(|mount| {
        let digest = &mount["blob"]["digest"];
        let layers = manifest["layers"].as_array().unwrap();
        assert!(layers.iter().any(|layer| layer["digest"] == *digest), "no blob for {mount}");
        (text(&mount["id"]), text(digest))
    });
    mounts.collect()
}

#[test]
fn same_files_are_the_same_archive_and_are_written_once() {
    let env = Env::new();
    let fill = "cd /c && for f in b a c; do echo $f > $f; done; touch -d @1 a b c";
    run(&env, "one", "target=/c", fill, &["--cache-to", TO]).ok();
    let first = mounts(&env);
    let inode = |digest: &str| {
        use std::os::unix::fs::MetadataExt as _;
        let hex = digest.strip_prefix("sha256:").unwrap();
        env.path("cache/blobs/sha256").join(hex).metadata().unwrap().ino()
    };
    let written = inode(&first[0].1);
    // Another store, where the files are created in another order, with another umask and at
    // another time.
    let other =
        "umask 077; cd /c && for f in c b a; do echo $f > $f; done; chmod 644 *; touch -d @1 *";
    run(&env, "two", "target=/c", other, &["--cache-to", TO]).ok();
    assert_eq!(mounts(&env), first);
    // A cached step changes nothing, and does not need the directory.
    let args = ["--cache-from", FROM, "--cache-to", TO];
    run(&env, "three", "target=/c", other, &args).ok();
    assert_eq!(mounts(&env), first);
    assert!(!env.path("three/cache-mounts").read_dir().unwrap().any(|_| true));
    run(&env, "two", "target=/c", other, &["--cache-to", TO]).ok();
    assert_eq!((mounts(&env), inode(&first[0].1)), (first.clone(), written));
    // A change of the directory changes its archive.
    run(&env, "two", "target=/c", "echo more >> /c/a", &["--cache-to", TO]).ok();
    assert_ne!(mounts(&env), first);
    // The store does not keep archives in addition to the directories.
    let names = |store: &str| {
        let blobs = env.path(store).join("blobs/sha256").read_dir().unwrap();
        blobs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let archive = mounts(&env)[0].1.replace("sha256:", "");
    assert!(!names("two").contains(&archive));
}

#[test]
fn largest_cache_mounts_stay_when_together_they_are_too_large() {
    let env = Env::new();
    let dockerfile = "FROM base:1\n\
        RUN --mount=type=cache,id=large,target=/l head -c 90000 /dev/zero > /l/f\n\
        RUN --mount=type=cache,id=small,target=/s head -c 10000 /dev/zero > /s/f\n\
        RUN --mount=type=cache,id=middle,target=/m head -c 20000 /dev/zero > /m/f\n";
    let to = |max: &str| format!("{TO},mounts-max={max}");
    let ids = || mounts(&env).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let done = build(&env, "one", dockerfile, &["--cache-to", &to("40k")]).ok();
    assert_eq!(ids(), ["small", "middle"]);
    let left = "the cache mount `large` (89.5 KiB) is left out of the cache, which takes 40.0 KiB";
    assert!(done.stderr.contains(left) && !done.stderr.contains("`middle` ("), "{}", done.stderr);
    // Each cache has its own limit.
    let other = "type=local,dest=other,mounts=true,mounts-max=15k";
    let done = build(&env, "one", dockerfile, &["--cache-to", &to("1m"), "--cache-to", other]).ok();
    assert_eq!(ids(), ["small", "middle", "large"]);
    for id in ["`middle` (21.5 KiB)", "`large` (89.5 KiB)"] {
        assert!(done.stderr.contains(id), "{}", done.stderr);
    }
    // A build that exports none keeps those of others, within its own limit.
    build(&env, "one", dockerfile, &["--cache-to", "type=local,dest=cache"]).ok();
    assert_eq!(ids(), ["small", "middle", "large"]);
    build(&env, "one", dockerfile, &["--cache-to", &to("15k")]).ok();
    assert_eq!(ids(), ["small"]);
}

#[test]
fn failed_build_exports_what_it_filled_and_keeps_what_it_did_not_come_to() {
    let env = Env::new();
    let dockerfile = |script: &str| {
        format!(
            "FROM base:1\nRUN --mount=type=cache,id=a,target=/c {script}\n\
             RUN --mount=type=cache,id=b,target=/c echo b > /c/f\n"
        )
    };
    build(&env, "one", &dockerfile("echo a > /c/f"), &["--cache-to", TO]).ok();
    let before = mounts(&env);
    assert_eq!(before.len(), 2);
    let args = ["--cache-from", FROM, "--cache-to", TO];
    let failing = dockerfile("test $(cat /c/f) = a && echo changed > /c/f && exit 7");
    build(&env, "two", &failing, &args).fails(1, &["exit code: 7"]);
    let after = mounts(&env);
    assert_eq!(after.len(), 2, "{after:?}");
    let digest = |mounts: &[(String, String)], id: &str| {
        mounts.iter().find(|(known, _)| known == id).map(|(_, digest)| digest.clone()).unwrap()
    };
    assert_ne!(digest(&after, "a"), digest(&before, "a"));
    assert_eq!(digest(&after, "b"), digest(&before, "b"));
    let look = "FROM base:1\nRUN --mount=type=cache,id=a,target=/a --mount=type=cache,id=b,target=/b \
        test $(cat /a/f /b/f | tr '\\n' -) = changed-b-\n";
    build(&env, "three", look, &["--cache-from", FROM]).ok();
}

/// The step runs, however the archive is damaged.
fn damaged_archives_leave_a_cache_empty(who: Who) {
    let env = Env::of(who);
    run(&env, "one", "target=/c", "echo x > /c/f", &["--cache-to", TO]).ok();
    let (_, document) = documents(&env);
    let blob = env.path("cache").join(blob_name(&document["mounts"][0]["blob"]));
    let good = fs::read(&blob).unwrap();
    let zeros = vec![0; 1 << 20];
    let bomb = {
        use std::io::Write as _;
        let mut packed = fs::File::create(env.path("zeros")).unwrap();
        packed.write_all(&zeros).unwrap();
        let zstd = env.program("zstd").args(["-q", "zeros", "-o", "bomb"]).status().unwrap();
        assert!(zstd.success());
        fs::read(env.path("bomb")).unwrap()
    };
    let half = good[..good.len() / 2].to_vec();
    for (n, bytes) in
        [Some(half), Some(b"no archive".to_vec()), Some(bomb), None].iter().enumerate()
    {
        match bytes {
            Some(bytes) => fs::write(&blob, bytes).unwrap(),
            None => fs::remove_file(&blob).unwrap(),
        }
        let store = format!("store{n}");
        let script = "ls -A /c; test -z \"$(ls -A /c)\"";
        let done = run(&env, &store, "target=/c", script, &["--cache-from", FROM]).ok();
        let warning = "the cache mount `/c` starts empty: it cannot be restored";
        assert!(done.stderr.contains(warning), "{n}: {}", done.stderr);
        assert_eq!(env.leftovers(&store), "");
        let (strict, store) = (format!("{FROM},ignore-error=false"), format!("strict{n}"));
        let failed = run(&env, &store, "target=/c", script, &["--cache-from", &strict]);
        failed.fails(3, &["error: cannot restore the cache mount /c: "]);
        assert_eq!(env.leftovers(&store), "");
    }
}

#[test]
fn cache_mount_that_another_build_uses_stays_as_the_cache_has_it() {
    let env = Env::new();
    run(&env, "one", "target=/c", "echo 1 > /c/f", &["--cache-to", TO]).ok();
    let before = mounts(&env);
    run(&env, "one", "target=/c", "echo 2 > /c/f", &[]).ok();
    let key = env.path("one/cache-mounts").read_dir().unwrap().next().unwrap().unwrap();
    let lock = fs::File::open(key.path().join("0/lock")).unwrap();
    // Locked as by a running step. The export waits for a while, then keeps the earlier archive.
    flock(&lock, FlockOperation::NonBlockingLockShared).unwrap();
    let started = Instant::now();
    let args = ["--cache-from", FROM, "--cache-to", TO];
    let done = run(&env, "one", "target=/c", "echo 3 > /c/f", &args).ok();
    assert!(started.elapsed() >= Duration::from_secs(5));
    let warning =
        "the cache mount `/c` is not exported in its current state: another build uses it";
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    assert_eq!(mounts(&env), before);
    drop(lock);
    run(&env, "one", "target=/c", "echo 4 > /c/f", &args).ok();
    assert_ne!(mounts(&env), before);
}

/// Replaces the archive of the cache's only directory.
fn replace_archive(env: &Env, tar: &[u8]) {
    let put = |bytes: &[u8], descriptor: &mut Value| {
        descriptor["digest"] = Digest::of(bytes).to_string().into();
        descriptor["size"] = bytes.len().into();
        fs::write(env.path("cache").join(blob_name(descriptor)), bytes).unwrap();
    };
    let (mut manifest, mut document) = documents(env);
    let mount = &mut document["mounts"][0];
    put(tar, &mut mount["blob"]);
    mount["blob"]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    mount["diffId"] = mount["blob"]["digest"].clone();
    mount["tarBytes"] = tar.len().into();
    put(document.to_string().as_bytes(), &mut manifest["config"]);
    let index = fs::read(env.path("cache/index.json")).unwrap();
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    put(manifest.to_string().as_bytes(), &mut index["manifests"][0]);
    fs::write(env.path("cache/index.json"), index.to_string()).unwrap();
}

/// Returns a tar of entries (name, type, link target or content) that only an attacker would write.
fn hostile_tar(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_ustar();
        let raw = header.as_mut_bytes();
        raw[..name.len()].copy_from_slice(name.as_bytes());
        raw[156] = *kind;
        header.set_mode(0o666);
        header.set_size(0);
        if matches!(kind, b'1' | b'2') {
            header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
        } else if *kind == b'0' {
            header.set_size(u64::try_from(text.len()).unwrap());
        } else {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        if *kind == b'0' {
            out.extend_from_slice(text.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn archives_stay_in_the_directory(who: Who) {
    let env = Env::of(who);
    run(&env, "one", "target=/c", "echo x > /c/f", &["--cache-to", TO]).ok();
    fs::create_dir(env.path("away")).unwrap();
    env.hand_over("away");
    let away = env.shown("away");
    let kept = [("out", b'2', away.as_str()), ("out/x", b'0', "3"), ("null", b'3', "")];
    replace_archive(&env, &hostile_tar(&kept));
    let look = "test -f /c/null && ! test -c /c/null";
    run(&env, "two", "target=/c", look, &["--cache-from", FROM]).ok();
    for (n, bad) in [("../up", b'0', "1"), ("hard", b'1', "/etc/passwd")].into_iter().enumerate() {
        replace_archive(&env, &hostile_tar(&[bad]));
        let store = format!("bad{n}");
        let done =
            run(&env, &store, "target=/c", "test -z \"$(ls -A /c)\"", &["--cache-from", FROM]);
        let warning = "cannot unpack the archive of a cache mount";
        let done = done.ok();
        assert!(done.stderr.contains(warning), "{}", done.stderr);
    }
    assert!(!env.path("away").read_dir().unwrap().any(|_| true));
}

#[test]
fn inline_cache_takes_no_mounts() {
    let env = Env::new();
    let args = ["--cache-to", "type=inline,mounts=true"];
    run(&env, "one", "target=/c", "true", &args).fails(2, &["type=inline does not support mounts"]);
}
