//! `install.sh`, which installs a release and verifies its checksum.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::Path;

use crate::support::env::{Done, Env};
use crate::support::source;

/// Name of the release file for this machine.
const NAME: &str = "rbuild-x86_64-linux";

/// Stands in for the program, which would take longer to copy.
const PROGRAM: &str = "#!/bin/sh\necho \"rbuild 0.1.0\"\n";

/// Writes a release with this checksum, or the correct one.
fn release(directory: &Path, checksum: Option<&str>) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(NAME), PROGRAM).unwrap();
    let right = rbuild::oci::Digest::of(PROGRAM.as_bytes()).hex();
    let checksum = checksum.unwrap_or(&right);
    fs::write(directory.join(format!("{NAME}.sha256")), format!("{checksum}  {NAME}\n")).unwrap();
}

fn install(env: &Env, releases: &str, arguments: &[&str]) -> Done {
    let script = source::root().join("install.sh");
    let mut command = env.program(script.to_str().unwrap());
    command.args(arguments).args(["--to", "bin"]).env("RBUILD_RELEASES", releases);
    Done::of(command.output().unwrap())
}

#[test]
fn a_release_is_installed_if_its_checksum_is_right() {
    let env = Env::new();
    release(&env.path("releases/latest/download"), None);
    release(&env.path("releases/download/v0.1.0"), None);
    let url = format!("file://{}", env.shown("releases"));
    for arguments in [&[][..], &["--version", "0.1.0"], &["--version", "v0.1.0"]] {
        let done = install(&env, &url, arguments).ok();
        assert_eq!(done.stdout, "installed bin/rbuild, rbuild 0.1.0\n");
        let files = fs::read_dir(env.path("bin")).unwrap();
        assert_eq!(files.count(), 1, "nothing but the program is left there");
        fs::remove_file(env.path("bin/rbuild")).unwrap();
    }
    install(&env, &url, &["--version", "9"]).fails(1, &["cannot download", "/download/v9/"]);
}

#[test]
fn a_wrong_checksum_installs_nothing_and_keeps_what_is_there() {
    let env = Env::new();
    release(&env.path("releases/latest/download"), Some(&"0".repeat(64)));
    fs::create_dir(env.path("bin")).unwrap();
    fs::write(env.path("bin/rbuild"), "old").unwrap();
    let url = format!("file://{}", env.shown("releases"));
    install(&env, &url, &[]).fails(1, &["checksum", NAME, "nothing was installed"]);
    assert_eq!(fs::read_to_string(env.path("bin/rbuild")).unwrap(), "old");
    // A file without a checksum is not installed either.
    fs::write(env.path("releases/latest/download").join(format!("{NAME}.sha256")), "").unwrap();
    install(&env, &url, &[]).fails(1, &["nothing was installed"]);
}

#[test]
fn wrong_arguments_are_named() {
    let env = Env::new();
    install(&env, "", &[]).fails(1, &["RBUILD_RELEASES is not set"]);
    install(&env, "file:///none", &["--force"]).fails(1, &["unknown argument: --force"]);
    let help = install(&env, "", &["--help"]).ok();
    assert!(help.stdout.contains("install.sh [--version VERSION] [--to DIRECTORY]"), "{help:?}");
}
