//! What a failed command's last words and exit code mean, where that is known: one line of help.

use crate::plan::Network;

/// A failed command.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailedRun<'a> {
    /// How it exited.
    pub(super) code: u8,
    /// The last lines of its output.
    pub(super) lines: &'a [String],
    /// What network it had.
    pub(super) network: Network,
}

/// What a line of output tells.
struct Sign {
    /// Text that is in the line, any of these.
    any: &'static [&'static str],
    help: &'static str,
}

/// Those that say more come first.
const SIGNS: &[Sign] = &[
    Sign {
        any: &["bash\\r", "sh\\r", "python\\r", "python3\\r", "node\\r", "^M"],
        help: "the script has Windows line ends: save it with LF, or convert it in an earlier step (`sed -i 's/\\r$//' FILE`)",
    },
    Sign {
        any: &["E: Unable to locate package", "has no installation candidate"],
        help: "apt knows no such package: images come without package lists, so run `apt-get update && apt-get install -y …` in one RUN; otherwise look at the name",
    },
    Sign {
        any: &["unable to select packages", "ERROR: unsatisfiable constraints"],
        help: "apk knows no such package: install with `apk add --no-cache …`, which fetches the index; otherwise look at the name",
    },
    Sign {
        any: &["No space left on device"],
        help: "a disk is full: `rbuild du` shows what the store takes, `rbuild prune` makes room; files in /dev/shm are limited by --shm-size",
    },
    Sign {
        any: &["Read-only file system"],
        help: "mounts of type bind are read-only unless they say `rw`, and so are /sys and parts of /proc in a step",
    },
    Sign {
        any: &["externally-managed-environment"],
        help: "this Python belongs to the distribution: make an environment (`python3 -m venv /venv && /venv/bin/pip install …`), or use a python base image",
    },
    Sign {
        any: &["npm ci` can only install", "The `npm ci` command can only install"],
        help: "package-lock.json is not in the image: COPY it beside package.json, and see that .dockerignore does not leave it out",
    },
    Sign {
        any: &["Exec format error", "exec format error"],
        help: "a program is for another kind of processor than this step's platform, or is a script without `#!` in its first line",
    },
    Sign {
        any: &[
            "Could not open lock file",
            "are you root?",
            "dpkg: error: requested operation requires superuser",
        ],
        help: "packages are installed by root: put the RUN before USER, or `USER root` before it",
    },
    Sign {
        any: &[
            "No such file or directory (os error 2)",
            "can't cd to",
            "cannot access",
            "can't open",
        ],
        help: "a file is not where the command looks for it: a RUN starts in the last WORKDIR, and sees of the context only what was copied or mounted",
    },
];

/// Names that cannot be looked up.
const NO_NAMES: &[&str] = &[
    "Temporary failure resolving",
    "Temporary failure in name resolution",
    "Could not resolve host",
    "could not resolve host",
    "bad address '",
    "Name or service not known",
    "getaddrinfo EAI_AGAIN",
    "Network is unreachable",
];

/// The most likely cause of the failure, and what to do about it.
pub(super) fn likely_cause(run: &FailedRun<'_>) -> Option<String> {
    let has =
        |texts: &[&str]| run.lines.iter().any(|line| texts.iter().any(|text| line.contains(text)));
    if has(NO_NAMES) {
        return Some(match run.network {
            Network::None => "the step has no network (--network=none): what it downloads must come from an earlier step or from ADD".to_owned(),
            Network::Host => "the step uses the machine's network and name servers: see whether the machine itself reaches the host; a proxy is given by --build-arg HTTPS_PROXY=…".to_owned(),
        });
    }
    let signs = SIGNS.iter().find(|sign| has(sign.any)).map(|sign| sign.help.to_owned());
    signs.or_else(|| missing_command(run)).or_else(|| of_code(run.code))
}

/// The command that a shell did not find.
fn missing_command(run: &FailedRun<'_>) -> Option<String> {
    if run.code != 127 {
        return None;
    }
    let name = run.lines.iter().rev().find_map(|line| {
        let rest = line.strip_suffix(": not found").or(line.strip_suffix(": command not found"))?;
        rest.rsplit(": ").next().filter(|name| !name.is_empty() && !name.contains(' '))
    })?;
    Some(if name.contains('/') {
        format!(
            "`{name}` is not in the image, or the interpreter in its first line is not: look with `ls -l {name}`"
        )
    } else {
        format!(
            "the image has no `{name}`: install it in an earlier step, or look at its spelling and at PATH"
        )
    })
}

fn of_code(code: u8) -> Option<String> {
    let help = match code {
        126 => {
            "126 means that a command was found but cannot be executed: `chmod +x` it, or copy it with --chmod=755"
        }
        127 => {
            "127 means that a command was not found: install it in an earlier step, or look at its spelling and PATH"
        }
        137 => "137 means that the command was killed: perhaps the machine ran out of memory",
        _ => return None,
    };
    Some(help.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_last_words_have_a_cause() {
        for (code, line, part) in [
            (100, "E: Unable to locate package gcc", "apt-get update &&"),
            (
                1,
                "  curl (no such package): ERROR: unable to select packages:",
                "apk add --no-cache",
            ),
            (127, "/usr/bin/env: 'bash\\r': No such file or directory", "Windows line ends"),
            (1, "cp: error writing '/x': No space left on device", "rbuild du"),
            (1, "touch: /src/a: Read-only file system", "`rw`"),
            (1, "error: externally-managed-environment", "venv"),
            (
                1,
                "npm ERR! The `npm ci` command can only install with an existing",
                "package-lock.json",
            ),
            (100, "E: Could not open lock file /var/lib/dpkg/lock - open (13)", "USER root"),
            (1, "cat: can't open 'x': No such file or directory", "last WORKDIR"),
            (127, "/bin/sh: 1: gcc: not found", "has no `gcc`"),
            (127, "bash: line 1: gcc: command not found", "has no `gcc`"),
            (127, "/bin/sh: ./run.sh: not found", "`./run.sh` is not in the image"),
            (127, "something else", "127 means"),
            (126, "/bin/sh: ./x: Permission denied", "126 means"),
            (6, "curl: (6) Could not resolve host: example.org", "machine's network"),
        ] {
            let lines = ["before".to_owned(), line.to_owned()];
            let cause = likely_cause(&FailedRun { code, lines: &lines, network: Network::Host });
            assert!(cause.as_ref().is_some_and(|cause| cause.contains(part)), "{line}: {cause:?}");
        }
    }

    #[test]
    fn without_a_network_the_step_says_so_and_without_a_sign_nothing_is_guessed() {
        let lines = ["wget: bad address 'example.org'".to_owned()];
        let run = FailedRun { code: 1, lines: &lines, network: Network::None };
        assert!(likely_cause(&run).is_some_and(|cause| cause.contains("--network=none")));
        let lines = ["make: *** [all] Error 1".to_owned()];
        let run = FailedRun { code: 2, lines: &lines, network: Network::Host };
        assert_eq!(likely_cause(&run), None);
    }
}
