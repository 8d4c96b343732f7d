//! Docker's credential helpers: programs that keep secrets in a key store.
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

/// How long a helper may take. It may have to ask its user for a password.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether the helper, whose answer is complete, has ended.
const POLL: Duration = Duration::from_millis(5);
/// Pause between two checks whether this process was asked to end, while it waits for the answer.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-<name>` for the credential stored under `key`.
///
/// `Err` has the reason; what a helper wrote to standard error, or a credential that it printed
/// before it failed, is not in it.
pub(super) fn get(name: &str, key: &str, limit: Duration) -> Result<Option<Credential>, String> {
    ask(&format!("docker-credential-{}", checked(name)?), key, limit)
}

/// Gives `docker-credential-<name>` a credential to keep.
pub(super) fn store(name: &str, entry: &[u8]) -> Result<(), String> {
    tell(name, "store", entry)
}

/// Has `docker-credential-<name>` forget what it keeps under `key`.
pub(super) fn erase(name: &str, key: &[u8]) -> Result<(), String> {
    tell(name, "erase", key)
}

fn tell(name: &str, verb: &str, input: &[u8]) -> Result<(), String> {
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
    Err("config.json names a credential helper with an odd name".to_owned())
}

fn ask(program: &str, key: &str, limit: Duration) -> Result<Option<Credential>, String> {
    let (succeeded, answer) = run(program, "get", key.as_bytes(), limit)?;
    read_answer(program, succeeded, &answer)
}

/// Reads what `program` has printed.
pub(super) fn read_answer(
    program: &str,
    succeeded: bool,
    answer: &[u8],
) -> Result<Option<Credential>, String> {
    if succeeded {
        let bad = |_quotes_the_secret| format!("the answer of {program} is not as it should be");
        let answer: Answer = serde_json::from_slice(answer).map_err(bad)?;
        return Ok(Some(of_user(&answer.username, &answer.secret)));
    }
    let text = shown(&String::from_utf8_lossy(answer));
    if text.contains("credentials not found") || text.contains("no credentials server URL") {
        return Ok(None);
    }
    let text = if text.is_empty() || text.contains('{') { "it gave no reason" } else { &text };
    Err(format!("{program} failed: {text}"))
}

/// Starts `program`, and gives whether it succeeded and what it printed.
fn run(
    program: &str,
    verb: &str,
    input: &[u8],
    limit: Duration,
) -> Result<(bool, Vec<u8>), String> {
    let deadline = Instant::now() + limit;
    // On a terminal, it stays in the group of this process: only that one may ask for a password
    // there, and Ctrl-C reaches it. Elsewhere, what it starts has to end with it.
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
        // A helper that ends without reading says more in its answer. A pipe takes 64 KiB, and no
        // key or credential is longer.
        drop(stdin.write_all(input));
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // In the background: what a helper leaves running may hold the pipe open for ever.
        pool::background(move || {
            let mut bytes = Vec::new();
            drop(stdout.take(MAX_HELPER_ANSWER_BYTES).read_to_end(&mut bytes));
            drop(sender.send(bytes));
        })
        .map_err(|error| format!("cannot read the answer of {program}: {error}"))?;
    }
    let answer = loop {
        match receiver.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout)
                if Instant::now() < deadline && !interrupt::is_asked() => {}
            answer => break answer,
        }
    };
    let ended = wait_until(&mut child, deadline, own_group);
    match (answer, ended) {
        (Ok(bytes), Some(succeeded)) => Ok((succeeded, bytes)),
        _ if interrupt::is_asked() => {
            Err(format!("{program} was ended: the build was interrupted"))
        }
        _ => Err(format!("{program} did not answer within {} s", limit.as_secs())),
    }
}

/// Returns whether `child` succeeded; it is killed at the deadline, or when this process is asked to end.
fn wait_until(child: &mut Child, deadline: Instant, own_group: bool) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline && !interrupt::is_asked() => {
                thread::sleep(POLL);
            }
            Ok(None) | Err(_) => {
                // All fail only for a process that is gone.
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

    /// Asks a helper that is the shell script `body`.
    fn asked(body: &str, limit: Duration) -> Result<Option<Credential>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("helper");
        pathio::write(&path, format!("#!/bin/sh\n{body}\n").as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = path.to_str().unwrap();
        loop {
            let answer = ask(program, "h.example", limit);
            // Another test's child may hold our descriptor of the script until it executes.
            if !matches!(&answer, Err(why) if why.contains("Text file busy")) {
                return answer.map_err(|why| why.replace(program, "HELPER"));
            }
        }
    }

    #[test]
    fn helpers_are_asked_by_key_and_believed() {
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
            ("echo secret", Err("the answer of HELPER is not as it should be")),
        ] {
            assert_eq!(asked(body, TIME_LIMIT), want.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn helpers_that_hang_are_ended() {
        let started = Instant::now();
        let answer = asked("exec sleep 60", Duration::from_secs(1));
        assert_eq!(answer, Err("HELPER did not answer within 1 s".to_owned()));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn helpers_with_odd_names_or_missing_are_errors() {
        let error = get("../evil", "h.example", TIME_LIMIT).unwrap_err();
        assert_eq!(error, "config.json names a credential helper with an odd name");
        let error = get("surely-not-there", "h.example", TIME_LIMIT).unwrap_err();
        assert_eq!(
            error,
            "cannot start docker-credential-surely-not-there, which config.json names (No such \
             file or directory (os error 2)); is it installed?"
        );
    }
}
