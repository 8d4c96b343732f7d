//! Docker's credential helpers: programs that keep secrets in a key store
//! (<https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>).
#![expect(clippy::disallowed_methods, reason = "the helpers' protocol is to be started")]

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::credentials::{Credential, of_user};
use super::error::shown;
use crate::limits::MAX_HELPER_ANSWER_BYTES;
use crate::pathio::interrupt;
use crate::pool;

/// Time limit for a helper, which may prompt the user for a password.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Interval between checks whether the helper has exited after its complete output.
const EXIT_POLL: Duration = Duration::from_millis(5);
/// Interval between checks for an interrupt while waiting for the output.
const INTERRUPT_POLL: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperOutput {
    username: String,
    secret: String,
}

/// Requests the credential under `key` from `docker-credential-<name>`.
///
/// `Err` is the reason. It never contains standard error of the helper, nor a credential that was
/// printed before a failure.
pub(super) fn get(name: &str, key: &str, limit: Duration) -> Result<Option<Credential>, String> {
    get_from(&format!("docker-credential-{}", checked(name)?), key, limit)
}

/// Stores a credential with `docker-credential-<name>`.
pub(super) fn store(name: &str, entry: &[u8]) -> Result<(), String> {
    call(name, "store", entry)
}

/// Erases the credential under `key` with `docker-credential-<name>`.
pub(super) fn erase(name: &str, key: &[u8]) -> Result<(), String> {
    call(name, "erase", key)
}

fn call(name: &str, verb: &str, input: &[u8]) -> Result<(), String> {
    let program = format!("docker-credential-{}", checked(name)?);
    match run(&program, verb, input, TIME_LIMIT)? {
        (true, _) => Ok(()),
        (false, answer) => {
            let text = shown(&String::from_utf8_lossy(&answer));
            Err(format!("{program} {verb} failed: {text}"))
        }
    }
}

fn checked(name: &str) -> Result<&str, String> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(name);
    }
    Err("config.json has an invalid name of a credential helper".to_owned())
}

fn get_from(program: &str, key: &str, limit: Duration) -> Result<Option<Credential>, String> {
    let (succeeded, answer) = run(program, "get", key.as_bytes(), limit)?;
    parse_output(program, succeeded, &answer)
}

/// Parses the output of `program`, called with `get`.
pub(super) fn parse_output(
    program: &str,
    succeeded: bool,
    answer: &[u8],
) -> Result<Option<Credential>, String> {
    if succeeded {
        let bad = |_quotes_the_secret| format!("the output of {program} is not valid JSON");
        let answer: HelperOutput = serde_json::from_slice(answer).map_err(bad)?;
        return Ok(Some(of_user(&answer.username, &answer.secret)));
    }
    let text = shown(&String::from_utf8_lossy(answer));
    if text.contains("credentials not found") || text.contains("no credentials server URL") {
        return Ok(None);
    }
    let text = if text.is_empty() || text.contains('{') { "it gave no reason" } else { &text };
    Err(format!("{program} failed: {text}"))
}

/// Runs `program` and returns whether it succeeded, with its output.
fn run(
    program: &str,
    verb: &str,
    input: &[u8],
    limit: Duration,
) -> Result<(bool, Vec<u8>), String> {
    let deadline = Instant::now() + limit;
    // On a terminal the helper stays in this process group: only the foreground group may read from
    // the terminal (setpgid(2)), and Ctrl-C reaches it. Elsewhere, processes that it starts must
    // end with it.
    let own_group = !std::io::stdin().is_terminal();
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if own_group {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| {
        format!("cannot start {program}, which config.json names ({error}); is it installed?")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that exits without reading explains itself in its output. A pipe holds 64 KiB
        // (pipe(7)), more than any key or credential.
        drop(stdin.write_all(input));
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // In the background: a process that the helper leaves running may hold the pipe open.
        pool::background(move || {
            let mut bytes = Vec::new();
            drop(stdout.take(MAX_HELPER_ANSWER_BYTES).read_to_end(&mut bytes));
            drop(sender.send(bytes));
        })
        .map_err(|error| format!("cannot read the output of {program}: {error}"))?;
    }
    let answer = loop {
        match receiver.recv_timeout(INTERRUPT_POLL) {
            Err(mpsc::RecvTimeoutError::Timeout)
                if Instant::now() < deadline && !interrupt::is_asked() => {}
            answer => break answer,
        }
    };
    let ended = wait_for_exit(&mut child, deadline, own_group);
    match (answer, ended) {
        (Ok(bytes), Some(succeeded)) => Ok((succeeded, bytes)),
        _ if interrupt::is_asked() => {
            Err(format!("{program} was killed: the build was interrupted"))
        }
        _ => Err(format!("{program} did not answer within {} s", limit.as_secs())),
    }
}

/// Waits for `child` and returns whether it succeeded. `None` if it was killed, at the deadline or
/// on an interrupt.
fn wait_for_exit(child: &mut Child, deadline: Instant, own_group: bool) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline && !interrupt::is_asked() => {
                thread::sleep(EXIT_POLL);
            }
            Ok(None) | Err(_) => {
                // These fail only if the process has exited.
                if own_group {
                    let _ended = kill_process_group(Pid::from_child(child), Signal::KILL);
                }
                drop(child.kill());
                drop(child.wait());
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::pathio;

    /// Runs the shell script `body` as a helper.
    fn run_script(body: &str, limit: Duration) -> Result<Option<Credential>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("helper");
        pathio::write(&path, format!("#!/bin/sh\n{body}\n").as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = path.to_str().unwrap();
        loop {
            let answer = get_from(program, "h.example", limit);
            // A child of another test may have inherited the script's descriptor until it executes.
            if !matches!(&answer, Err(why) if why.contains("Text file busy")) {
                return answer.map_err(|why| why.replace(program, "HELPER"));
            }
        }
    }

    #[test]
    fn helpers_are_called_with_the_key() {
        let password = |password: &str| Credential::Password {
            user: "u".to_owned(),
            password: password.to_owned(),
        };
        for (body, want) in [
            (
                r#"printf '{"ServerURL":"","Username":"u","Secret":"%s-%s"}' "$1" "$(cat)""#,
                Ok(Some(password("get-h.example"))),
            ),
            (
                r#"echo '{"Username":"<token>","Secret":"id"}'"#,
                Ok(Some(Credential::Identity("id".to_owned()))),
            ),
            ("echo credentials not found in native keychain; exit 1", Ok(None)),
            ("echo the store is locked; exit 1", Err("HELPER failed: the store is locked")),
            (
                r#"echo '{"Username":"u","Secret":"s"}'; exit 1"#,
                Err("HELPER failed: it gave no reason"),
            ),
            ("echo secret", Err("the output of HELPER is not valid JSON")),
        ] {
            assert_eq!(run_script(body, TIME_LIMIT), want.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn helpers_are_killed_at_the_time_limit() {
        let started = Instant::now();
        let answer = run_script("exec sleep 60", Duration::from_secs(1));
        assert_eq!(answer, Err("HELPER did not answer within 1 s".to_owned()));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn invalid_and_missing_helpers_are_errors() {
        let error = get("../evil", "h.example", TIME_LIMIT).unwrap_err();
        assert_eq!(error, "config.json has an invalid name of a credential helper");
        let error = get("surely-not-there", "h.example", TIME_LIMIT).unwrap_err();
        assert_eq!(
            error,
            "cannot start docker-credential-surely-not-there, which config.json names (No such \
             file or directory (os error 2)); is it installed?"
        );
    }
}
