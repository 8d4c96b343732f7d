//! Hints for failed commands: their last output and exit code, translated into one line of help.

use crate::plan::Network;

use super::exec_diagnosis::ProgramDiagnosis;

/// A failed command.
#[derive(Clone, Copy)]
pub(in crate::executor) struct FailedCommand<'a> {
    /// The exit code.
    pub(in crate::executor) code: u8,
    /// Last lines of its output.
    pub(in crate::executor) lines: &'a [String],
    /// The whole command, including the shell.
    pub(in crate::executor) argv: &'a [String],
    /// True if the step trusts the certificates of `--ca-for-run`.
    pub(in crate::executor) has_run_ca: bool,
    /// Network access of the step.
    pub(in crate::executor) network: Network,
    /// Platform of the step, as `os/architecture`.
    pub(in crate::executor) platform: &'a str,
    /// Diagnoses a file of the image.
    pub(in crate::executor) look: &'a dyn Fn(&str) -> ProgramDiagnosis,
}

/// A text in the output whose cause is known.
struct KnownMessage {
    /// Alternative texts, one of which is in the line.
    any: &'static [&'static str],
    help: &'static str,
}

/// Specific texts come first.
const KNOWN_MESSAGES: &[KnownMessage] = &[
    KnownMessage {
        any: &[
            "ping: socktype",
            "ping: permission denied",
            "ping: can't create raw socket",
            "ping: Lacking privilege",
        ],
        help: "a step has no raw sockets: ping works if the machine allows the step's group to send echo requests (sysctl net.ipv4.ping_group_range); to test whether a host answers, open a TCP connection to it",
    },
    KnownMessage {
        any: &["bash\\r", "sh\\r", "python\\r", "python3\\r", "node\\r", "^M"],
        help: "the script has Windows line ends (CRLF): save it with LF, or convert it in an earlier step (`sed -i 's/\\r$//' FILE`)",
    },
    KnownMessage {
        any: &["unable to select packages", "ERROR: unsatisfiable constraints"],
        help: "apk finds no such package: install with `apk add --no-cache …`, which fetches the index; otherwise check the name",
    },
    KnownMessage {
        any: &["No space left on device"],
        help: "a disk is full: `rbuild du` shows what the store uses, `rbuild prune` frees space; a tmpfs mount is limited by its `size=`, and /dev/shm by --shm-size",
    },
    KnownMessage {
        any: &["Read-only file system"],
        help: "a bind mount is read-only unless it has `rw`, and then writes to it are discarded: write to a directory outside of it; /sys and parts of /proc are read-only in every step",
    },
    KnownMessage {
        any: &["externally-managed-environment"],
        help: "this Python belongs to the distribution: make an environment (`python3 -m venv /venv && /venv/bin/pip install …`), or use a python base image",
    },
    KnownMessage {
        any: &["npm ci` can only install", "The `npm ci` command can only install"],
        help: "package-lock.json is not in the image: COPY it with package.json, and check that .dockerignore does not exclude it",
    },
    KnownMessage {
        any: &["Exec format error", "exec format error"],
        help: "a program is for another architecture than this step's platform, or is a script without `#!` in its first line",
    },
    KnownMessage {
        any: &[
            "Could not open lock file",
            "are you root?",
            "dpkg: error: requested operation requires superuser",
        ],
        help: "packages are installed by root: put the RUN before USER, or `USER root` before it",
    },
    KnownMessage {
        any: &[
            "No such file or directory (os error 2)",
            "can't cd to",
            "cannot access",
            "can't open",
        ],
        help: "a file is not where the command looks for it: a RUN starts in the last WORKDIR, and sees only those files of the context that were copied or mounted",
    },
];

/// Messages about names that cannot be resolved.
const RESOLUTION_ERRORS: &[&str] = &[
    "Temporary failure resolving",
    "Temporary failure in name resolution",
    "Could not resolve host",
    "could not resolve host",
    "bad address '",
    "Name or service not known",
    "getaddrinfo EAI_AGAIN",
    "Network is unreachable",
    "no such host",
];

/// Messages about certificates of unknown authorities: Python, OpenSSL, curl, Node.js, Go, GnuTLS in git,
/// wget and apt, Java, Rust.
const UNTRUSTED: &[&str] = &[
    "CERTIFICATE_VERIFY_FAILED",
    "self-signed certificate in certificate chain",
    "self signed certificate in certificate chain",
    "unable to get local issuer certificate",
    "SSL certificate problem:",
    "SELF_SIGNED_CERT_IN_CHAIN",
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "x509: certificate signed by unknown authority",
    "server certificate verification failed",
    "Certificate verification failed: The certificate is NOT trusted",
    "'s certificate, issued by",
    "PKIX path building failed",
    "invalid peer certificate: UnknownIssuer",
    "certificate verify failed",
];

fn untrusted_hint(has_run_ca: bool) -> String {
    if has_run_ca {
        "the certificates of --ca-for-run do not include the authority of this server, or the program \
         looks for certificates elsewhere: set its own variable or option to $SSL_CERT_FILE"
            .to_owned()
    } else {
        "the image does not trust the authority of this server: if the network inspects TLS, pass the \
         certificate of its authority with --ca-for-run FILE, which is trusted during steps only"
            .to_owned()
    }
}

/// Returns the most likely cause of the failure, and what to do about it.
pub(in crate::executor) fn likely_cause(run: &FailedCommand<'_>) -> Option<String> {
    if run.has(RESOLUTION_ERRORS) {
        return Some(match run.network {
            Network::None => "the step has no network (--network=none): what it downloads must come from an earlier step or from ADD".to_owned(),
            Network::Private => "the step has a network of its own (--network=private), which reaches what this machine reaches, but none of its loopback addresses: check whether the machine itself reaches the host, and whether its name server answers".to_owned(),
            Network::Host => "the step uses the machine's network and name servers: check whether the machine itself reaches the host; set a proxy with --build-arg HTTPS_PROXY=…".to_owned(),
        });
    }
    if run.has(UNTRUSTED) {
        return Some(untrusted_hint(run.has_run_ca));
    }
    let known_message =
        || KNOWN_MESSAGES.iter().find(|sign| run.has(sign.any)).map(|sign| sign.help.to_owned());
    broken_list(run)
        .or_else(|| closed_device(run))
        .or_else(|| unfit_program(run))
        .or_else(|| unknown_package(run))
        .or_else(known_message)
        .or_else(|| missing_command(run))
        .or_else(|| exit_code_hint(run.code))
}

impl FailedCommand<'_> {
    fn has(&self, texts: &[&str]) -> bool {
        self.lines.iter().any(|line| texts.iter().any(|text| line.contains(text)))
    }

    /// Returns the argument of `-c`.
    fn script(&self) -> Option<&str> {
        match self.argv {
            [_, flag, script] if flag == "-c" => Some(script),
            _ => None,
        }
    }
}

/// Recognizes `RUN ['make', 'all']` or `RUN ["make",]`, which is not JSON and therefore runs in the
/// shell.
fn broken_list(run: &FailedCommand<'_>) -> Option<String> {
    let script = run.script()?.trim();
    let is_list = script.starts_with(['[']) && script.ends_with(']');
    if !is_list || !script.get(1..)?.trim_start().starts_with(['\'', '"']) {
        return None;
    }
    let mended = script.replace('\'', "\"");
    let is_good = serde_json::from_str::<Vec<String>>(&mended).is_ok();
    let write = if is_good { format!(": write RUN {mended}") } else { String::new() };
    Some(format!(
        "the exec form is a JSON list, with double quotes and without a trailing comma; this is not JSON, so it runs as a shell command{write}"
    ))
}

/// Recognizes a device that the command made and may not open.
fn closed_device(run: &FailedCommand<'_>) -> Option<String> {
    let makes_devices = ["mknod ", "debootstrap "].iter().any(|made| {
        run.script().is_some_and(|script| script.contains(made))
            || run.lines.iter().any(|line| line.contains(made))
    });
    let is_refused = run.has(&["Permission denied", "cannot install into target"]);
    (makes_devices && is_refused).then(|| {
        "a step cannot open devices that it makes itself, only those in /dev; as root, `RUN --security=insecure` with `--allow security.insecure` opens all".to_owned()
    })
}

/// Recognizes a file that the command tried to execute, and cannot.
fn unfit_program(run: &FailedCommand<'_>) -> Option<String> {
    // Shells exit with 2 if they read a program as a script.
    if ![126, 127, 2].contains(&run.code) {
        return None;
    }
    let said = run.lines.iter().rev().flat_map(|line| line.split(": "));
    let typed = run.script().unwrap_or("").split([' ', ';', '&', '|', '\n']);
    let first = run.argv.first().map(String::as_str);
    let paths = said.chain(first).chain(typed).map(|word| word.trim_matches(['\'', '"', '`', ' ']));
    paths
        .filter(|word| !word.is_empty() && !word.contains([' ', '=']))
        .find_map(|path| program_hint(run, path))
}

fn program_hint(run: &FailedCommand<'_>, path: &str) -> Option<String> {
    let platform = run.platform;
    Some(match (run.look)(path) {
        ProgramDiagnosis::NotExecutable if run.code == 126 => format!(
            "`{path}` exists, but is not executable: `chmod +x` it in the context, or copy it with `COPY --chmod=755`, or give it to its interpreter (`RUN sh {path}`)"
        ),
        ProgramDiagnosis::WindowsScript { interpreter } => format!(
            "`{path}` exists, but has Windows line ends (CRLF), so that its interpreter is `{interpreter}\\r`: save it with LF, or convert it in an earlier step (`RUN sed -i 's/\\r$//' {path}`)"
        ),
        ProgramDiagnosis::NoInterpreter { interpreter, is_script: true } => format!(
            "`{path}` exists, but `{interpreter}`, which its first line asks for, is not: install that in an earlier step, or name an interpreter that the image has, such as /bin/sh"
        ),
        ProgramDiagnosis::NoInterpreter { interpreter, is_script: false } => format!(
            "`{path}` exists, but `{interpreter}`, which loads its libraries, is not: it was built on another distribution (glibc or musl): build it in a stage that starts from the same image, or link it statically"
        ),
        ProgramDiagnosis::OtherMachine { machine } => format!(
            "`{path}` is a program for {machine}, and this step runs as {platform}: take the one for {platform}, or build for the other with --platform"
        ),
        ProgramDiagnosis::NotExecutable | ProgramDiagnosis::Absent | ProgramDiagnosis::Fine => {
            return None;
        }
    })
}

/// Recognizes a package that apt does not find.
fn unknown_package(run: &FailedCommand<'_>) -> Option<String> {
    let name = run.lines.iter().find_map(|line| {
        let unknown = line.strip_prefix("E: Unable to locate package ");
        let without = line.strip_prefix("E: Package '").and_then(|rest| rest.split_once('\''));
        unknown
            .or(without.filter(|(_, rest)| rest.contains("no installation")).map(|(name, _)| name))
    })?;
    let script = run.script().unwrap_or("");
    let name = name.trim();
    Some(if script.contains("apt-get update") || script.contains("apt update") {
        format!(
            "the distribution of the image has no package `{name}`: check its spelling (`apt-cache search WORD` after an update), or add the source that has it"
        )
    } else {
        format!(
            "images come without package lists: fetch them in the same RUN, `RUN apt-get update && apt-get install -y {name}`; if that does not help, check the name"
        )
    })
}

/// Package managers, and the distributions that have them.
const INSTALLERS: [(&str, &str); 6] = [
    ("apt-get", "of Debian and Ubuntu"),
    ("apt", "of Debian and Ubuntu"),
    ("apk", "of Alpine"),
    ("dnf", "of Fedora and Red Hat"),
    ("yum", "of Fedora and Red Hat"),
    ("microdnf", "of Red Hat's small images"),
];

/// Recognizes a command that the shell did not find.
fn missing_command(run: &FailedCommand<'_>) -> Option<String> {
    if run.code != 127 {
        return None;
    }
    let name = run.lines.iter().rev().find_map(|line| {
        let rest = line.strip_suffix(": not found").or(line.strip_suffix(": command not found"))?;
        rest.rsplit(": ").next().filter(|name| !name.is_empty() && !name.contains(' '))
    })?;
    if let Some((_, whose)) = INSTALLERS.iter().find(|(installer, _)| *installer == name) {
        return Some(format!(
            "`{name}` is the package manager {whose}, and the image is none of these: use its own (`apk add` on Alpine, `apt-get install` on Debian and Ubuntu, `dnf install` on Fedora), or another base image"
        ));
    }
    if name == "sudo" {
        return Some(
            "a RUN is root unless a USER above says otherwise: leave `sudo` out".to_owned(),
        );
    }
    Some(if name.contains('/') {
        format!(
            "`{name}` is not in the image: copy it first, and check the directory; each RUN starts in the last WORKDIR, whatever an earlier RUN did with `cd`"
        )
    } else {
        format!(
            "the image has no `{name}`: install it in an earlier step, or check its spelling and PATH"
        )
    })
}

fn exit_code_hint(code: u8) -> Option<String> {
    let help = match code {
        126 => {
            "126 means that a command was found but cannot be executed: `chmod +x` it, or copy it with --chmod=755"
        }
        127 => {
            "127 means that a command was not found: install it in an earlier step, or check its spelling and PATH"
        }
        129..=192 => return signal_hint(i32::from(code) - 128),
        _ => return None,
    };
    Some(help.to_owned())
}

/// Returns the meaning of a signal that ended a command (signal(7)).
pub(in crate::executor) fn signal_hint(signal: i32) -> Option<String> {
    let (name, meaning) = match signal {
        4 => (
            "SIGILL",
            "the program uses instructions that this processor does not have: it was built for a newer one",
        ),
        6 => ("SIGABRT", "the program aborted itself; its output says why"),
        7 => ("SIGBUS", CRASHED),
        9 => (
            "SIGKILL",
            "the command was killed: perhaps the machine, or the container that builds, ran out of memory; limit its parallelism, as with `make -j2`",
        ),
        11 => ("SIGSEGV", CRASHED),
        15 => ("SIGTERM", "something asked the command to end"),
        _ => return None,
    };
    Some(format!("exit code {} stands for signal {signal}, {name}: {meaning}", 128 + signal))
}

const CRASHED: &str =
    "the program crashed: it has a bug, or was built against other libraries than the image has";

#[cfg(test)]
mod tests {
    use super::*;

    fn failed<'a>(code: u8, lines: &'a [String], argv: &'a [String]) -> FailedCommand<'a> {
        let (network, platform) = (Network::Host, "linux/amd64");
        let (has_run_ca, look) = (false, &|_: &str| ProgramDiagnosis::Absent);
        FailedCommand { code, lines, argv, has_run_ca, network, platform, look }
    }

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn known_messages_have_a_hint() {
        for (code, line, part) in [
            (100, "E: Unable to locate package gcc", "apt-get update && apt-get install -y gcc"),
            (100, "E: Package 'gcc' has no installation candidate", "install -y gcc"),
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
                "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]",
                "--ca-for-run FILE",
            ),
            (1, "x509: certificate signed by unknown authority", "--ca-for-run FILE"),
            (
                60,
                "curl: (60) SSL certificate problem: unable to get local issuer certificate",
                "--ca-for-run FILE",
            ),
            (1, "ERROR: cannot verify h's certificate, issued by x", "--ca-for-run FILE"),
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
            (127, "/bin/sh: apk: not found", "package manager of Alpine"),
            (127, "/bin/sh: sudo: not found", "leave `sudo` out"),
            (139, "Segmentation fault", "crashed"),
            (137, "Killed", "out of memory"),
            (127, "something else", "127 means"),
            (126, "/bin/sh: ./x: Permission denied", "126 means"),
            (2, "ping: permission denied (are you root?)", "ping_group_range"),
            (1, "dial tcp: lookup proxy.golang.org: no such host", "name servers"),
            (1, "/bin/sh: mknod /n c 1 3: /n: Permission denied", "security.insecure"),
            (6, "curl: (6) Could not resolve host: example.org", "machine's network"),
        ] {
            let lines = ["before".to_owned(), line.to_owned()];
            let cause = likely_cause(&failed(code, &lines, &shell("make")));
            assert!(cause.as_ref().is_some_and(|cause| cause.contains(part)), "{line}: {cause:?}");
        }
    }

    #[test]
    fn missing_network_is_named_and_unknown_messages_have_no_hint() {
        let lines = ["wget: bad address 'example.org'".to_owned()];
        let argv = shell("make");
        let run = FailedCommand { network: Network::None, ..failed(1, &lines, &argv) };
        assert!(likely_cause(&run).is_some_and(|cause| cause.contains("--network=none")));
        let lines = ["make: *** [all] Error 1".to_owned()];
        assert_eq!(likely_cause(&failed(2, &lines, &argv)), None);
    }

    #[test]
    fn package_unknown_after_an_update_is_misspelt() {
        let lines = ["E: Unable to locate package crul".to_owned()];
        let argv = shell("apt-get update && apt-get install -y crul");
        let cause = likely_cause(&failed(100, &lines, &argv));
        assert!(cause.is_some_and(|cause| cause.contains("has no package `crul`")));
    }

    #[test]
    fn list_in_single_quotes_differs_from_a_test_in_brackets() {
        let check = |script: &str, want: Option<&str>| {
            let cause = likely_cause(&failed(3, &[], &shell(script)));
            assert_eq!(cause.as_deref().and_then(|text| text.split("write ").nth(1)), want);
        };
        check("['echo', 'a b']", Some("RUN [\"echo\", \"a b\"]"));
        check("[ -f 'x' ]", None);
    }

    #[test]
    fn files_named_by_output_or_command_are_diagnosed() {
        let look = |path: &str| match path {
            "/script" => ProgramDiagnosis::NoInterpreter {
                interpreter: "/bin/bash".to_owned(),
                is_script: true,
            },
            "./plain" => ProgramDiagnosis::NotExecutable,
            "/tool" => ProgramDiagnosis::OtherMachine { machine: "arm64".to_owned() },
            _ => ProgramDiagnosis::Absent,
        };
        for (code, line, script, part) in [
            (127, "/bin/sh: 1: /script: not found", "/script", "`/bin/bash`, which its first line"),
            (126, "/bin/sh: 1: ./plain: Permission denied", "cd /x && ./plain", "chmod +x"),
            (2, "/tool: 1: Syntax error: \"(\" unexpected", "/tool", "for arm64"),
            (127, "/tool: line 1: ELF: not found", "/tool -v", "for arm64"),
            (126, "said nothing", "A=1 /tool;true", "for arm64"),
            (1, "/script: not found", "/script", ""),
        ] {
            let (lines, argv) = ([line.to_owned()], shell(script));
            let cause = likely_cause(&FailedCommand { look: &look, ..failed(code, &lines, &argv) });
            assert_eq!(cause.is_some(), !part.is_empty(), "{line}");
            assert!(cause.unwrap_or_default().contains(part), "{line}");
        }
    }
}
