//! Docker's credential helpers: programs that keep secrets in a key store.
#![expect(clippy::disallowed_methods, reason = "the helpers' protocol is to be started")]

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::credentials::{Credential, of_user};
use super::error::shown;
use crate::pool;

/// How long a helper may take. It may have to ask its user for a password.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// How often it is looked whether the helper, whose answer is complete, has ended.
const POLL: Duration = Duration::from_millis(5);

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
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err("config.json names a credential helper with an odd name".to_owned());
    }
    let program = format!("docker-credential-{name}");
    let (succeeded, answer) = run(&program, key, limit)?;
    if succeeded {
        let bad = |_quotes_the_secret| format!("the answer of {program} is not as it should be");
        let answer: Answer = serde_json::from_slice(&answer).map_err(bad)?;
        return Ok(Some(of_user(&answer.username, &answer.secret)));
    }
    let text = shown(&String::from_utf8_lossy(&answer));
    if text.contains("credentials not found") || text.contains("no credentials server URL") {
        return Ok(None);
    }
    let text = if text.is_empty() || text.contains('{') { "it gave no reason" } else { &text };
    Err(format!("{program} failed: {text}"))
}

/// Starts `program`, and gives whether it succeeded and what it printed.
fn run(program: &str, key: &str, limit: Duration) -> Result<(bool, Vec<u8>), String> {
    let deadline = Instant::now() + limit;
    let started = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| {
        format!("cannot start {program}, which config.json names ({error}); is it installed?")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends without reading says more in its answer. The key fits into the pipe.
        drop(stdin.write_all(key.as_bytes()));
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // In the background: what a helper leaves running may hold the pipe open for ever.
        pool::background(move || {
            let mut bytes = Vec::new();
            drop(stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes));
            drop(sender.send(bytes));
        });
    }
    let answer = receiver.recv_timeout(limit);
    let ended = wait_until(&mut child, deadline);
    match (answer, ended) {
        (Ok(bytes), Some(succeeded)) => Ok((succeeded, bytes)),
        _ => Err(format!("{program} did not answer within {} s", limit.as_secs())),
    }
}

/// Whether `child` succeeded; it is killed at the deadline.
fn wait_until(child: &mut Child, deadline: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) | Err(_) => {
                // Both fail only for a process that is gone.
                drop(child.kill());
                drop(child.wait());
                return None;
            }
        }
    }
}
