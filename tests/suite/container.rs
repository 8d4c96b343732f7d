//! rbuild as a container image that rbuild builds, and its requirements inside a container.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::container::{copy_libraries, program};
use crate::support::env::{Done, Env, Who};
use crate::support::images::Layout;
use crate::support::registry::DockerRegistry;
use crate::support::source;

/// Builds packaging/image, with the config in the directory `out` and the files in `rootfs`.
fn build(env: &Env, more: &[&str]) {
    fs::write(env.path("certificates"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let mut script = env.program(source::root().join("packaging/image/build").to_str().unwrap());
    script.arg(program()).args(["--root", &env.shown("store")]).args(more);
    script.args(["-o", "type=oci,dest=out,tar=false,compression=uncompressed", "-o", "rootfs"]);
    script.env("CERTIFICATES", env.path("certificates"));
    Done::of(script.output().unwrap()).ok();
    copy_libraries(&program(), &env.path("rootfs"));
}

/// Runs the image as an engine would: with a volume for the store, the image's root and the image's
/// environment.
fn contained(env: &Env, rights: &[&str], command: &[&str]) -> Done {
    let config = Layout::read(&env.path("out")).config["config"].clone();
    let mut bwrap = env.program("bwrap");
    for directory in ["volume", "rootfs/proc", "rootfs/dev"] {
        fs::create_dir_all(env.path(directory)).unwrap();
    }
    bwrap.args(["--bind", "rootfs", "/", "--dev", "/dev", "--bind", "volume", "/var/lib/rbuild"]);
    bwrap.args(["--bind", "context", "/workspace", "--clearenv"]);
    for variable in config["Env"].as_array().unwrap() {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        bwrap.args(["--setenv", name, value]);
    }
    bwrap.args(["--chdir", config["WorkingDir"].as_str().unwrap()]).args(rights);
    if let Some(entrypoint) = config["Entrypoint"].as_array() {
        bwrap.args(entrypoint.iter().map(|word| word.as_str().unwrap()));
    }
    Done::of(bwrap.args(command).output().unwrap())
}

/// Arguments for an engine that does not mask parts of /proc.
const PLAIN_PROC: [&str; 3] = ["--dev-bind", "/proc", "/proc"];
/// The capabilities that Docker leaves to root in a container, as far as they matter here.
const USUAL_RIGHTS: [&str; 16] = [
    "--cap-drop",
    "ALL",
    "--cap-add",
    "CAP_CHOWN",
    "--cap-add",
    "CAP_DAC_OVERRIDE",
    "--cap-add",
    "CAP_FOWNER",
    "--cap-add",
    "CAP_SETUID",
    "--cap-add",
    "CAP_SETGID",
    "--cap-add",
    "CAP_SETFCAP",
    "--cap-add",
    "CAP_MKNOD",
];

#[test]
fn priv_the_image_holds_what_it_needs_and_no_more() {
    if Who::root().is_none() {
        return;
    }
    let env = Env::new();
    build(&env, &[]);
    let config = Layout::read(&env.path("out")).config["config"].clone();
    assert_eq!(config["Entrypoint"][0], "/usr/bin/rbuild");
    assert_eq!(config["WorkingDir"], "/workspace");
    assert!(config["Volumes"]["/var/lib/rbuild"].is_object(), "{config}");
    let mut names = std::collections::BTreeSet::new();
    for layer in &Layout::read(&env.path("out")).layers {
        names.extend(crate::support::images::entries(layer).into_keys());
    }
    let want = [
        "etc/",
        "etc/group",
        "etc/passwd",
        "etc/ssl/",
        "etc/ssl/certs/",
        "etc/ssl/certs/ca-certificates.crt",
        "root/",
        "tmp/",
        "usr/",
        "usr/bin/",
        "usr/bin/rbuild",
        "workspace/",
    ];
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), want);
    let mode = |name: &str| fs::metadata(env.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("rootfs/tmp"), 0o1777);
    assert_eq!(mode("rootfs/usr/bin/rbuild"), 0o755);
    assert_eq!(mode("rootfs/etc/ssl/certs/ca-certificates.crt"), 0o644);
}

#[test]
fn priv_it_builds_in_a_container_with_and_without_privileges() {
    if Who::root().is_none() {
        return;
    }
    let (env, registry) = (Env::new(), DockerRegistry::open());
    build(&env, &[]);
    fs::copy("/bin/busybox", env.path("context/busybox")).unwrap();
    env.write(
        "Dockerfile",
        "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo $$ > /pid\"]\n",
    );
    let usual = [&PLAIN_PROC[..], &USUAL_RIGHTS].concat();
    for (name, rights) in [("privileged", &PLAIN_PROC[..]), ("usual", &usual)] {
        let image = format!("{}/{name}:1", registry.host());
        let args = ["--no-cache", "-t", &image, "--push", "-o", "out", "."];
        contained(&env, rights, &args).ok();
        assert_eq!(fs::read_to_string(env.path("context/out/pid")).unwrap(), "1\n", "{name}");
        env.rbuild(&["pull", &image]).ok();
        fs::remove_dir_all(env.path("context/out")).unwrap();
    }
    // Where namespaces are not permitted, the step runs without, or the error names what is missing.
    let masked = [&["--proc", "/proc"], &USUAL_RIGHTS[..]].concat();
    contained(&env, &masked, &["--no-cache", "."]).ok();
    let asked = ["--no-cache", "--isolation", "namespace", "."];
    contained(&env, &masked, &asked).fails(3, &["systempaths=unconfined"]);
    let none = [&PLAIN_PROC[..], &["--cap-drop", "ALL"]].concat();
    contained(&env, &none, &["--no-cache", "."]).ok();
    contained(&env, &none, &asked).fails(3, &["lacks the capabilities CAP_SETUID and CAP_SETGID"]);
    env.write("Dockerfile", "FROM scratch\nCOPY --chown=7 busybox /bin/\nWORKDIR /w\n");
    contained(&env, &none, &["--no-cache", "."]).ok();
}

#[test]
fn priv_its_other_target_runs_scripts() {
    if Who::root().is_none() {
        return;
    }
    let env = Env::new();
    build(&env, &["--target", "shell"]);
    let done = contained(&env, &PLAIN_PROC, &["/bin/sh", "-c", "rbuild version | head -n 1"]).ok();
    assert!(done.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", done.stdout);
}
