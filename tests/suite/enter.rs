//! Ways into a step: a shell where a RUN failed, as somebody at a terminal sees it.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests say what they mean with them"
)]

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::env::{Env, Who, as_root_and_as_user};
use crate::support::tmux::Terminal;

as_root_and_as_user!(
    a_shell_opens_where_a_step_failed,
    an_image_without_a_shell_is_lent_one,
    a_signal_ends_the_shell_and_leaves_the_terminal_as_it_was,
);

const SIZE: (u16, u16) = (100, 40);

/// Types a line.
fn enter(terminal: &Terminal<'_>, line: &str) {
    terminal.keys(line);
    terminal.keys("Enter");
}

/// Processes with this among their arguments.
fn running(argument: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()).then_some(pid)
    });
    processes.collect()
}

fn until_running(argument: &str, want: bool) {
    let start = Instant::now();
    while running(argument).is_empty() == want {
        assert!(start.elapsed() < Duration::from_secs(60), "{argument}: {want}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Nothing is left; what the terminal ran ends a little later than it.
fn until_nothing_is_left(env: &Env) {
    let start = Instant::now();
    while !env.leftovers("store").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", env.leftovers("store"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Arguments of `sleep` that nobody else has.
fn seconds(n: u32) -> String {
    format!("{}", 1_000_000 + std::process::id() * 10 + n)
}

fn a_shell_opens_where_a_step_failed(who: Who) {
    let env = Env::of(who);
    env.base();
    fs::write(env.path("word"), "sesame\n").unwrap();
    env.hand_over("word");
    env.write(
        "Dockerfile",
        "FROM base:1 AS build\nWORKDIR /src\nENV GREETING=moin\n\
         RUN echo app:x:1234:1234::/home/app:/bin/sh >> /etc/passwd && mkdir -m 777 /out\nUSER app\n\
         RUN --mount=type=secret,id=word,mode=0444 --mount=type=tmpfs,target=/scratch \\\n  \
         echo left > /out/file && echo gone > /scratch/file && exit 7\n",
    );
    let arguments = ["build", "--on-error=shell", "--secret", "id=word,src=word", "context"];
    let terminal = Terminal::rbuild(&env, SIZE, &arguments);
    let screen = terminal.until_shown(&["(rbuild) /src $"]);
    for part in ["exit code: 7", "a shell in [build 4/4] RUN --mount", "/src, as app", "Ctrl-D"] {
        assert!(screen.contains(part), "no `{part}`:\n{screen}");
    }
    enter(&terminal, "cat /out/file /scratch/file /run/secrets/word; echo $GREETING $(id -u)");
    terminal.until_shown(&["\nleft\ngone\nsesame\nmoin 1234\n"]);
    enter(&terminal, "busybox stty size; busybox tty");
    terminal.until_shown(&["\n40 100\n/dev/pts/0\n"]);
    terminal.resize(90, 30);
    terminal.until(|_| {
        enter(&terminal, "busybox stty size");
        terminal.screen().contains("\n30 90\n")
    });
    enter(&terminal, "eval \"$RBUILD_COMMAND\"; echo again=$?");
    terminal.until_shown(&["\nagain=7\n"]);

    // Keys are the shell's, its jobs are its own.
    let (before, behind) = (seconds(1), seconds(2));
    enter(&terminal, &format!("sleep {before}"));
    until_running(&before, true);
    terminal.keys("C-c");
    until_running(&before, false);
    enter(&terminal, &format!("sleep {behind} & echo $((20 + 1))"));
    terminal.until_shown(&["\n21\n"]);
    until_running(&behind, true);

    // Nobody takes away what it stands on.
    let pruned = env.rbuild(&["prune", "--all"]);
    assert_eq!(pruned.code, Some(3), "{}", pruned.stderr);
    enter(&terminal, "clear; cat /out/file");
    terminal.until(|screen| screen.starts_with("left\n"));

    enter(&terminal, "exit 3");
    terminal.ended(1);
    until_running(&behind, false);
    drop(terminal);
    until_nothing_is_left(&env);
}

fn an_image_without_a_shell_is_lent_one(who: Who) {
    let env = Env::of(who);
    env.write("tool", fs::read("/bin/busybox").unwrap());
    let dockerfile =
        "FROM scratch\nCOPY --chmod=755 tool /busybox\nRUN [\"/busybox\", \"false\"]\n";
    env.write("Dockerfile", dockerfile);
    let terminal = Terminal::rbuild(&env, SIZE, &["build", "--on-error=shell", "context"]);
    terminal.until_shown(&["busybox is lent", "(rbuild) / #"]);
    enter(
        &terminal,
        "clear; which ls; ls /; echo > /dev/rbuild/x; eval $RBUILD_COMMAND || echo no=$?",
    );
    let screen = terminal.until_shown(&["\nno=1\n"]);
    for part in ["/dev/rbuild/ls\nbusybox ", "/dev/rbuild/x: Read-only file system"] {
        assert!(screen.contains(part), "no `{part}`:\n{screen}");
    }
    terminal.keys("C-d");
    terminal.ended(1);
    drop(terminal);
    until_nothing_is_left(&env);
}

fn a_signal_ends_the_shell_and_leaves_the_terminal_as_it_was(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("Dockerfile", "FROM base:1\nRUN false\n");
    let program = env!("CARGO_BIN_EXE_rbuild");
    let script = format!(
        "stty -g > before\n'{program}' --root store --on-error=shell context\n\
         echo \"exit=$?\"\nstty -g > after\nexec sleep 1000"
    );
    let terminal = Terminal::shell(&env, SIZE, &script);
    terminal.until_shown(&["(rbuild) / #"]);
    let shown = env.shown("store");
    // The first is the one that was started; an ordinary user's goes on in another.
    let pid = env.processes().iter().find_map(|process| {
        let (pid, line) = process.split_once(' ')?;
        line.starts_with(program).then(|| pid.parse().unwrap())
    });
    let pid = Pid::from_raw(pid.expect(&shown)).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    terminal.ended(1);
    let start = Instant::now();
    let settings = |name: &str| fs::read_to_string(env.path(name)).unwrap_or_default();
    while settings("after").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(settings("after"), settings("before"));
}

#[test]
fn a_shell_without_a_terminal_is_refused_before_anything_is_done() {
    let env = Env::new();
    let done = env.build("FROM scratch\n", &["--on-error=shell"]);
    done.fails(2, &["error: --on-error=shell needs a terminal"]);
    assert!(!env.path("store").exists());
}
