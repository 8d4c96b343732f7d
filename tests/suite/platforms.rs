//! Builds for other platforms than this machine's, and for several at once.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use rbuild::image::verify_layout;
use serde_json::Value;

use crate::support::env::{Done, Env, Who};
use crate::support::registry::DockerRegistry;

/// An ELF file for AArch64 that writes `arm64` to /made and ends, in 12 instructions: openat(2),
/// write(2), exit(2).
const ARM64_HEADER: &str = "7f454c460201010000000000000000000200b7000100000078004000000000004000000000000000\
                            000000000000000000000000400038000100000000000000";
const ARM64_SEGMENT: &str = "010000000500000000000000000000000000400000000000000040000000000\
                             0ba00000000000000ba000000000000000010000000000000";
const ARM64_CODE: &str = "600c809281010010220880d2833480d2080780d2010000d421010010c20080d2080880d2\
                          010000d4000080d2a80b80d2010000d42f6d61646500000061726d36340a";

fn arm64_program() -> Vec<u8> {
    let hex = [ARM64_HEADER, ARM64_SEGMENT, ARM64_CODE].concat();
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

const FOREIGN: &str = "FROM scratch\nCOPY --chmod=755 arm64 /arm64\nRUN [\"/arm64\"]\n";

const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

/// A stage for the build platform, one that depends on the target platform, and the image.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM base:1 AS tools\n\
                     RUN cat /proc/sys/kernel/random/uuid > /id\n\
                     FROM tools AS make\n\
                     ARG TARGETARCH\n\
                     RUN echo \"for $TARGETARCH\" > /out\n\
                     FROM scratch\n\
                     ARG TARGETPLATFORM\n\
                     LABEL platform=$TARGETPLATFORM\n\
                     COPY --from=make /id /out /\n";

fn cross(args: &[&str]) -> (Env, Done) {
    let env = Env::new();
    env.base();
    let done = env.build(CROSS, &[&BOTH, args].concat()).ok();
    (env, done)
}

#[test]
fn several_platforms_make_one_index_and_share_what_is_the_same() {
    let (env, done) = cross(&["-o", "type=oci,tar=false,dest=layout", "-o", "files", "-t", "x:1"]);
    done.ended(&[
        "RUN cat /proc/sys/kernel/random/uuid > /id: DONE",
        "RUN echo \"for $TARGETARCH\" > /out: DONE",
        "RUN echo \"for $TARGETARCH\" > /out: DONE",
        "COPY --from=make /id /out /: DONE",
        "COPY --from=make /id /out /: DONE",
    ]);
    assert!(done.stderr.contains("[linux/amd64 tools 2/2] RUN cat"), "{}", done.stderr);
    assert!(done.stderr.contains("[linux/amd64->arm64 make 2/2] RUN echo"), "{}", done.stderr);
    assert!(done.stderr.contains("[linux/arm64 stage-2 2/2] COPY"), "{}", done.stderr);

    let images = verify_layout(&env.path("layout")).unwrap();
    let found: Vec<_> =
        images.iter().map(|image| (image.name.clone().unwrap(), image.platform.clone())).collect();
    let name = "docker.io/library/x:1".to_owned();
    let want = ["linux/amd64", "linux/arm64"].map(|platform| (name.clone(), platform.to_owned()));
    assert_eq!(found, want);

    let file = |name: &str| fs::read_to_string(env.path("files").join(name)).unwrap();
    assert_eq!(file("linux_amd64/id"), file("linux_arm64/id"));
    assert_eq!(file("linux_amd64/out"), "for amd64\n");
    assert_eq!(file("linux_arm64/out"), "for arm64\n");
}

#[test]
fn index_of_the_store_is_shown_used_as_a_base_and_kept_by_prune() {
    let (env, _) = cross(&["-t", "x:1"]);
    let shown = env.rbuild(&["inspect", "--json", "x:1"]).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    for (at, platform) in ["linux/amd64", "linux/arm64"].into_iter().enumerate() {
        assert_eq!(shown["Images"][at]["Platform"], platform);
        let labels = &shown["Images"][at]["Config"]["config"]["Labels"];
        assert_eq!(labels["platform"], platform);
    }
    env.rbuild(&["prune"]).ok();
    let again = ["--platform", "linux/arm64", "-o", "files"];
    env.build("FROM x:1\nCOPY Dockerfile /\n", &again).ok();
    assert_eq!(fs::read_to_string(env.path("files/out")).unwrap(), "for arm64\n");
    let none = ["--platform", "linux/s390x"];
    env.build("FROM x:1\nCOPY Dockerfile /\n", &none).fails(3, &["x"]);
}

#[test]
fn index_is_pushed_with_its_images() {
    let registry = DockerRegistry::open();
    let (env, _) = cross(&[]);
    let name = format!("{}/team/x:1", registry.host());
    let more = ["-t", &name, "--push", "--metadata-file", "metadata.json"];
    let done = env.build(CROSS, &[&BOTH, more.as_slice()].concat()).ok();
    let metadata = fs::read_to_string(env.path("metadata.json")).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    let pushed = format!("pushed {name}@{digest}");
    assert!(done.stderr.contains(&pushed), "{}", done.stderr);
    assert_eq!(metadata["image.name"], name);
    assert_eq!(metadata.get("containerimage.config.digest"), None);
    let inspect = |args: &[&str]| {
        let image = format!("docker://{name}");
        let mut skopeo = env.program("skopeo");
        let output = skopeo.args(args).args(["inspect", "--tls-verify=false", &image]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for arch in ["amd64", "arm64"] {
        let image = inspect(&["--override-arch", arch]);
        assert_eq!(image["Architecture"], arch);
        assert_eq!(image["Labels"]["platform"], format!("linux/{arch}"));
    }
    // Pushed from the store, without a build.
    let done = env.rbuild(&["push", &name]).ok();
    assert!(done.stdout.starts_with(&format!("{name} sha256:")), "{}", done.stdout);
}

#[test]
fn index_of_one_image_is_made_when_it_is_asked_for() {
    let env = Env::new();
    let args = ["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-o", "files"];
    env.write("a", "a");
    env.build("FROM scratch\nCOPY a /\n", &args).ok();
    let platform = if cfg!(target_arch = "x86_64") { "linux_amd64" } else { "linux_arm64" };
    assert_eq!(fs::read_to_string(env.path("files").join(platform).join("a")).unwrap(), "a");
    env.build("FROM scratch\n", &["--build-arg", "BUILDKIT_MULTI_PLATFORM=maybe"])
        .fails(2, &["BUILDKIT_MULTI_PLATFORM=maybe must be true or false"]);
}

/// Returns the platform in the store's config of an image, as `linux/arm64` or `linux/arm/v6`.
fn platform_of(env: &Env, name: &str) -> Vec<String> {
    let shown = env.rbuild(&["inspect", "--json", name]).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let several = shown.get("Images").and_then(Value::as_array);
    let images = several.map_or(std::slice::from_ref(&shown), Vec::as_slice).iter();
    let one = |image: &Value| {
        let member = |name| image.get("Config")?.get(name)?.as_str();
        let parts = ["os", "architecture", "variant"].map(member);
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    };
    images.map(one).collect()
}

#[test]
fn image_is_for_the_platform_that_was_asked_for() {
    let env = Env::new();
    env.build("FROM scratch\nENV A=1\n", &["--platform", "linux/arm/v6", "-t", "v6:1"]).ok();
    let from_v6 = "FROM --platform=linux/arm/v6 v6:1\nENV B=2\n";
    for (file, platforms, want) in [
        ("FROM scratch\n", "linux/arm64", vec!["linux/arm64"]),
        ("FROM scratch\n", "linux/amd64/v3", vec!["linux/amd64/v3"]),
        (from_v6, "linux/arm64,linux/amd64", vec!["linux/arm64", "linux/amd64"]),
        (from_v6, "linux/arm/v5", vec!["linux/arm/v5"]),
        (from_v6, "linux/arm64/v9", vec!["linux/arm64/v9"]),
        ("FROM v6:1\n", "linux/arm/v6", vec!["linux/arm/v6"]),
    ] {
        env.build(file, &["--platform", platforms, "-t", "x:1"]).ok();
        assert_eq!(platform_of(&env, "x:1"), want, "{file}{platforms}");
    }
    // Unless a platform is given, the base decides.
    env.build(from_v6, &["-t", "x:1"]).ok();
    assert_eq!(platform_of(&env, "x:1"), ["linux/arm/v6"]);
}

#[test]
fn index_and_directories_have_the_platforms_of_images_that_share_a_stage() {
    let env = Env::new();
    env.base();
    let file = "FROM --platform=$BUILDPLATFORM base:1\nRUN echo a > /a\n";
    let args = ["-o", "type=oci,tar=false,dest=layout", "-o", "files"];
    let done = env.build(file, &[&BOTH, args.as_slice()].concat()).ok();
    done.ended(&["RUN echo a > /a: DONE"]);
    let images = verify_layout(&env.path("layout")).unwrap();
    let platforms: Vec<&str> = images.iter().map(|image| image.platform.as_str()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    for directory in ["linux_amd64", "linux_arm64"] {
        assert_eq!(fs::read_to_string(env.path("files").join(directory).join("a")).unwrap(), "a\n");
    }
}

#[test]
fn base_for_another_platform_only_is_a_warning_until_its_programs_run() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    env.write("arm64", arm64_program());
    let name = format!("{}/team/arm64:1", registry.host());
    let base = "FROM scratch\nCOPY --chmod=755 arm64 /arm64\n";
    env.build(base, &["--platform", "linux/arm64", "-t", &name, "--push"]).ok();
    env.rbuild(&["rmi", &name]).ok();
    let warning = "was pulled with platform \"linux/arm64\", expected \"linux/riscv64\"";
    let args = ["--platform", "linux/riscv64", "-t", "x:1"];
    // The second time, the registry's answer is cached.
    for args in [args.as_slice(), &[args.as_slice(), &["--offline"]].concat()] {
        let done = env.build(&format!("FROM {name}\nENV A=1\n"), args).ok();
        assert!(done.stderr.contains("InvalidBaseImagePlatform"), "{}", done.stderr);
        assert!(done.stderr.contains(warning), "{}", done.stderr);
        assert_eq!(platform_of(&env, "x:1"), ["linux/riscv64"]);
    }
    let done = env.build(&format!("FROM {name}\nRUN [\"/arm64\"]\n"), &args);
    if done.code == Some(0) {
        // This machine can run arm64 programs.
        return;
    }
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    done.fails(1, &["exit code: 126", "the step is for linux/arm64"]);
}

#[test]
fn image_of_the_store_for_another_platform_is_named_when_the_registry_has_none() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    let name = format!("{}/team/only-here:1", registry.host());
    env.build("FROM scratch\nENV A=1\n", &["--platform", "linux/arm64", "-t", &name]).ok();
    let help = format!("the store has {name} for linux/arm64 only");
    env.build(&format!("FROM {name}\n"), &["--platform", "linux/s390x"]).fails(1, &[&help]);
}

#[test]
fn docker_archive_takes_one_platform() {
    let env = Env::new();
    let args = [&BOTH, ["-o", "type=docker,dest=x.tar"].as_slice()].concat();
    env.build("FROM scratch\nCOPY Dockerfile /\n", &args)
        .fails(2, &["type=docker and --load support one platform: use type=oci"]);
}

#[test]
fn foreign_program_that_nothing_runs_names_what_to_install() {
    let env = Env::new();
    env.write("arm64", arm64_program());
    let done = env.build(FOREIGN, &["--platform", "linux/arm64"]);
    let direct =
        env.program("sh").args(["-c", "chmod 755 context/arm64 && context/arm64"]).output();
    if direct.unwrap().status.success() {
        // This machine can run arm64 programs, so the steps can too.
        done.ok();
        return;
    }
    done.fails(
        1,
        &["exit code: 126", "the step is for linux/arm64", "qemu-user-static binfmt-support"],
    );
}

/// Uses its own user namespace, which may register formats that the host does not have (Linux 6.7).
#[test]
fn priv_foreign_program_runs_where_binfmt_is_registered() {
    let Some(who) = Who::root() else { return };
    let env = Env::of(who);
    env.write("arm64", arm64_program());
    env.write("Dockerfile", FOREIGN);
    let register = "read go && mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && \
        printf ':test-arm64:M::\\\\x7fELF\\\\x02\\\\x01\\\\x01\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x02\\\\x00\\\\xb7\\\\x00::%s:F' \
        \"$(command -v qemu-aarch64-static)\" > /proc/sys/fs/binfmt_misc/register && exec \"$@\"";
    let mut inside = env.program("unshare");
    inside.args(["--user", "--mount", "sh", "-ec", register, "sh", env!("CARGO_BIN_EXE_rbuild")]);
    inside.args([
        "--root",
        "store",
        "build",
        "context",
        "--platform",
        "linux/arm64",
        "-o",
        "files",
    ]);
    inside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut inside = inside.spawn().unwrap();
    // unshare(1) does not fork; its ids are mapped from outside, once it is in the namespace.
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    while fs::read_link(format!("/proc/{}/ns/user", inside.id())).is_ok_and(|ns| ns == own) {
        std::thread::yield_now();
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", inside.id()), "0 0 65536\n").unwrap();
    }
    inside.stdin.take().unwrap().write_all(b"go\n").unwrap();
    Done::of(inside.wait_with_output().unwrap()).ok();
    assert_eq!(fs::read_to_string(env.path("files/made")).unwrap(), "arm64\n");
}
