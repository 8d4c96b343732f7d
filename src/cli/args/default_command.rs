//! The default command: the word `build` may be left out.

use std::ffi::OsString;

/// Names of commands. Any other first word belongs to `build`.
pub(super) const COMMANDS: &[&str] = &[
    "build",
    "bake",
    "lock",
    "plan",
    "enter",
    "push",
    "pull",
    "login",
    "logout",
    "images",
    "inspect",
    "imagetools",
    "diff",
    "history",
    "explain",
    "tag",
    "rebase",
    "rmi",
    "save",
    "load",
    "du",
    "prune",
    "store",
    "doctor",
    "docker-plugin",
    "executor",
    "completion",
    "man",
    "version",
    "help",
];
/// Global options with a value.
const GLOBAL: [&str; 12] = [
    "--root",
    "--max-unpacked-size",
    "--isolation",
    "--ca",
    "--registry",
    "--retry",
    "--retry-delay",
    "--authfile",
    "--creds",
    "--cert-dir",
    "--credential-helpers",
    "--debug-log",
];
/// Global options whose value follows a `=`, if they have one.
const GLOBAL_FLAGS: [&str; 2] = ["--debug", "--tls-verify"];
const OWN_FLAGS: [&str; 4] = ["-h", "--help", "-V", "--version"];

/// Returns whether a word is a command, so that a directory of that name is written `./word`.
pub(crate) fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word)
}

/// Inserts the word `build` where it was left out.
pub(crate) fn with_default_command(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut typed: Vec<OsString> = typed.into_iter().collect();
    if let Some(at) = default_command_at(&typed) {
        typed.insert(at, "build".into());
    }
    typed
}

/// Returns the position at which `build` was left out.
pub(crate) fn default_command_at(typed: &[OsString]) -> Option<usize> {
    let at = command_at(typed)?;
    let word = typed.get(at)?.to_string_lossy();
    let is_own = COMMANDS.contains(&&*word) || OWN_FLAGS.contains(&&*word);
    (!is_own).then_some(at)
}

/// Returns the position of the first word after the global options.
pub(crate) fn command_at(typed: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = typed.get(at).map(|word| word.to_string_lossy()) {
        match &*word {
            "-D" => at += 1,
            word if GLOBAL_FLAGS.contains(&word) || word.starts_with("--tls-verify=") => at += 1,
            word if GLOBAL.contains(&word) => at += 2,
            word if word.split_once('=').is_some_and(|(name, _)| GLOBAL.contains(&name)) => at += 1,
            _ => return Some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_is_inserted_if_there_is_no_command() {
        for (typed, want) in [
            ("rbuild -t a .", "rbuild build -t a ."),
            ("rbuild .", "rbuild build ."),
            ("rbuild --root x images", "rbuild --root x images"),
            ("rbuild --root=x -q .", "rbuild --root=x build -q ."),
            ("rbuild --ca x --registry=y,http pull a", "rbuild --ca x --registry=y,http pull a"),
            ("rbuild --max-unpacked-size 1TB .", "rbuild --max-unpacked-size 1TB build ."),
            ("rbuild --isolation chroot images", "rbuild --isolation chroot images"),
            ("rbuild --isolation=chroot .", "rbuild --isolation=chroot build ."),
            ("rbuild --debug images", "rbuild --debug images"),
            ("rbuild --tls-verify=false pull a", "rbuild --tls-verify=false pull a"),
            ("rbuild --retry 9 --tls-verify .", "rbuild --retry 9 --tls-verify build ."),
            ("rbuild --debug-log f --debug .", "rbuild --debug-log f --debug build ."),
            ("rbuild --help", "rbuild --help"),
            ("rbuild", "rbuild"),
        ] {
            let words = with_default_command(typed.split(' ').map(OsString::from));
            assert_eq!(words, want.split(' ').collect::<Vec<_>>(), "{typed}");
        }
    }
}
