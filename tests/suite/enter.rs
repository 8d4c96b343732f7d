//! Debug sessions in a step, as a user at a terminal sees them.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::sandbox::WAYS_UP;
use crate::support::tmux::Terminal;

as_root_and_as_user!(
    a_shell_opens_where_a_step_failed,
    an_image_without_a_shell_gets_a_fallback_shell,
    a_debug_shell_cannot_leave_the_rootfs,
    a_signal_ends_the_shell_and_leaves_the_terminal_as_it_was,
    a_command_runs_in_an_image_as_in_a_pipeline,
    a_step_is_entered_before_it_runs,
    who_enters_at_a_terminal_has_one,
    late_answers_of_the_terminal_are_not_left_for_the_shell_of_the_caller,
);

const SIZE: (u16, u16) = (100, 40);

/// Types a line into the terminal.
fn enter(terminal: &Terminal<'_>, line: &str) {
    terminal.keys(line);
    terminal.keys("Enter");
}

/// Returns the `sleep` processes with this argument. Their parents may have it on their command
/// line too.
fn running(argument: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        (line == format!("sleep\0{argument}\0").as_bytes()).then_some(pid)
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

/// Waits until nothing is left: what the terminal ran ends a little later than the terminal.
fn until_nothing_is_left(env: &Env) {
    let start = Instant::now();
    while !env.leftovers("store").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", env.leftovers("store"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns a unique argument for `sleep`.
fn seconds(who: Who, n: u32) -> String {
    let n = if matches!(who, Who::User(_)) { n + 5 } else { n };
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

    // Keys go to the shell, which controls its own jobs.
    let (before, behind) = (seconds(who, 1), seconds(who, 2));
    enter(&terminal, &format!("sleep {before}"));
    until_running(&before, true);
    terminal.keys("C-c");
    until_running(&before, false);
    enter(&terminal, &format!("sleep {behind} & echo $((20 + 1))"));
    terminal.until_shown(&["\n21\n"]);
    until_running(&behind, true);

    // No command removes the layers under the shell.
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

fn an_image_without_a_shell_gets_a_fallback_shell(who: Who) {
    let env = Env::of(who);
    env.write("tool", fs::read("/bin/busybox").unwrap());
    let dockerfile =
        "FROM scratch\nCOPY --chmod=755 tool /busybox\nRUN [\"/busybox\", \"false\"]\n";
    env.write("Dockerfile", dockerfile);
    let terminal = Terminal::rbuild(&env, SIZE, &["build", "--on-error=shell", "context"]);
    terminal.until_shown(&["the image has no shell: using", "(rbuild) / #"]);
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

fn a_debug_shell_cannot_leave_the_rootfs(who: Who) {
    let env = Env::of(who);
    env.base();
    for name in ["word", "mark"] {
        fs::write(env.path(name), "sesame\n").unwrap();
        env.hand_over(name);
    }
    env.write("up", WAYS_UP);
    let dockerfile = format!(
        "FROM base:1 AS other\nFROM base:1\nENV MARK={}\nCOPY up /\n\
         RUN --mount=type=secret,id=word --mount=from=other,source=/bin,target=/other \\\n  \
         sh /up > /first && exit 7\n",
        env.path("mark").display(),
    );
    env.write("Dockerfile", dockerfile);
    let arguments = ["build", "--on-error=shell", "--secret", "id=word,src=word", "context"];
    let terminal = Terminal::rbuild(&env, SIZE, &arguments);
    terminal.until_shown(&["(rbuild) / #"]);
    enter(&terminal, "clear; sh /up > /second; cat /first /second; echo $((20 + 1))");
    let screen = terminal.until_shown(&["\n21\n"]);
    assert!(screen.contains("\ntried\ntried\n21\n"), "{screen}");
    terminal.keys("C-d");
    terminal.ended(1);
    drop(terminal);
    until_nothing_is_left(&env);
}

/// Returns the rbuild processes in this environment, oldest first: an ordinary user's rbuild
/// continues in a child process.
fn rbuilds(env: &Env) -> Vec<Pid> {
    let pids = env.processes().into_iter().filter_map(|process| {
        let (pid, line) = process.split_once(' ')?;
        let pid = line.starts_with(env!("CARGO_BIN_EXE_rbuild")).then(|| pid.parse().unwrap());
        pid.and_then(Pid::from_raw)
    });
    let mut pids: Vec<Pid> = pids.collect();
    pids.sort_by_key(|pid| pid.as_raw_nonzero());
    pids
}

fn a_signal_ends_the_shell_and_leaves_the_terminal_as_it_was(who: Who) {
    let progress = "--progress=plain";
    for (signal, progress) in [
        (Signal::TERM, "--progress=tty"),
        (Signal::QUIT, "--progress=tty"),
        (Signal::QUIT, progress),
    ] {
        let env = Env::of(who);
        env.base();
        env.write("Dockerfile", "FROM base:1\nRUN false\n");
        let script = format!(
            "ulimit -c 0; tty > tty; stty -g > before\n\
             '{}' --root store {progress} --on-error=shell context\n\
             echo \"exit=$?\"\nstty -g > after\nexec sleep 1000",
            env!("CARGO_BIN_EXE_rbuild"),
        );
        let terminal = Terminal::shell(&env, SIZE, &script);
        terminal.until_shown(&["(rbuild) / #"]);
        let read = |name: &str| fs::read_to_string(env.path(name)).unwrap_or_default();
        let settings = || {
            let tty = read("tty");
            let stty = Command::new("stty").args(["-g", "-F", tty.trim()]).output().unwrap();
            String::from_utf8(stty.stdout).unwrap()
        };
        let until = |is: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !is() {
                assert!(start.elapsed() < Duration::from_secs(60), "{signal:?} {progress}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        assert_ne!(settings(), read("before"));
        let send = |pids: &[Pid], signal| {
            pids.iter().for_each(|pid| rustix::process::kill_process(*pid, signal).unwrap());
        };
        let pids = rbuilds(&env);
        send(&pids, Signal::TSTP);
        until(&|| settings() == read("before"));
        send(&pids, Signal::CONT);
        until(&|| settings() != read("before"));
        enter(&terminal, "echo $((20 + 1))");
        terminal.until_shown(&["\n21\n"]);

        send(pids.get(..1).unwrap(), signal);
        until(&|| !read("after").is_empty());
        assert_eq!(read("after"), read("before"), "{signal:?} {progress}");
        let screen = terminal.until_shown(&["exit="]);
        let is_told = screen.contains("\ninterrupted: ending it (again to stop at once)\n");
        assert_eq!(is_told, signal == Signal::TERM, "{screen}");
    }
}

fn late_answers_of_the_terminal_are_not_left_for_the_shell_of_the_caller(who: Who) {
    let env = Env::of(who);
    env.base();
    env.hand_over("context");
    // Each `ESC [ 6 n` asks for the cursor's position. The terminal answers as if it were typed.
    let ask = "i=0; while test $i -lt 300; do printf \"\\033[6n\"; i=$((i + 1)); done";
    let script = format!(
        "'{}' --root store enter base:1 -- sh -c '{ask}'\necho \"exit=$?\"\nstty -icanon min 0 time 10\n\
         dd bs=4k count=1 2> dd | od -An -c > left\ntouch done\nexec sleep 1000",
        env!("CARGO_BIN_EXE_rbuild"),
    );
    let terminal = Terminal::shell(&env, SIZE, &script);
    terminal.until(|_screen| env.path("done").exists());
    let left = fs::read_to_string(env.path("left")).unwrap();
    assert_eq!(left, "", "{}", terminal.screen());
    terminal.until_shown(&["exit=0"]);
}

#[test]
fn a_shell_without_a_terminal_is_refused_before_anything_is_done() {
    let env = Env::new();
    let done = env.build("FROM scratch\n", &["--on-error=shell"]);
    done.fails(2, &["error: --on-error=shell needs a terminal"]);
    let done = env.rbuild(&["enter", "--report", "x.html", "bb", "--", "true"]);
    done.fails(2, &["error: --report has no effect with `rbuild enter`"]);
    assert!(!env.rbuild(&["enter", "--help"]).ok().stdout.contains("--report"));
    assert!(!env.path("store").exists());
}

/// Runs rbuild with this standard input.
fn fed(env: &Env, args: &[&str], input: &[u8]) -> Done {
    let mut command = env.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let done = Done::of(child.wait_with_output().unwrap());
    writer.join().unwrap();
    done
}

fn a_command_runs_in_an_image_as_in_a_pipeline(who: Who) {
    let env = Env::of(who);
    env.base();
    let dockerfile = "FROM base:1\nENV A=b\nWORKDIR /w\nUSER 7\nONBUILD RUN false\n";
    let built = env.build(dockerfile, &["-q", "-t", "app:1"]).ok();
    let script = "echo $A $(id -u) $PWD; echo oops >&2; exit 9";
    for image in ["app:1", built.stdout.trim()] {
        let done = env.rbuild(&["enter", image, "--", "sh", "-c", script]);
        let (stdout, stderr) = (done.stdout.as_str(), done.stderr.as_str());
        assert_eq!((done.code, stdout, stderr), (Some(9), "b 7 /w\n", "oops\n"), "{image}");
    }
    // More than the capacity of a pipe, in both directions.
    let many = "line\n".repeat(100_000);
    let copied = fed(&env, &["enter", "base:1", "--", "cat"], many.as_bytes()).ok();
    assert!(copied.stdout == many, "{} bytes", copied.stdout.len());
    let script = fed(&env, &["enter", "base:1"], b"touch /new; ls /new\n").ok();
    assert_eq!(script.stdout, "/new\n");
    env.rbuild(&["enter", "base:1", "--", "ls", "/new"]).fails(1, &["No such file"]);
    env.rbuild(&["enter", "base:1", "--", "nothing"])
        .fails(127, &["error: `nothing` was not found in the image"]);
    env.rbuild(&["enter", "--offline", "bsae:1"]).fails(
        3,
        &["cannot get the image bsae:1", "help: did you mean `base:1`, which is in the store?"],
    );
    env.rbuild(&["enter", "-t", "x", "base:1"])
        .fails(2, &["error: --tag has no effect with `rbuild enter`"]);
    env.rbuild(&["enter", "--secret", "id=a,src=b", "base:1"])
        .fails(2, &["--secret has no effect"]);
    // A reader that stops reading ends the command.
    let mut endless =
        env.command(&["enter", "base:1", "--", "sh", "-c", "while :; do echo y; done"]);
    let mut endless = endless.stdout(Stdio::piped()).spawn().unwrap();
    drop(endless.stdout.take());
    assert_eq!(endless.wait().unwrap().code(), Some(130));
    until_nothing_is_left(&env);
}

fn a_step_is_entered_before_it_runs(who: Who) {
    let env = Env::of(who);
    env.base();
    fs::write(env.path("word"), "sesame\n").unwrap();
    env.hand_over("word");
    env.write("file", "from the context\n");
    env.write(
        "Dockerfile",
        "FROM base:1 AS broken\nRUN exit 8\nFROM base:1 AS made\nRUN echo made > /made\n\
         FROM base:1 AS build\nARG WHO=nobody\nENV A=one\nRUN echo first > /first\nENV A=two\n\
         COPY file /\nWORKDIR /w\n\
         RUN --mount=type=secret,id=word --mount=from=made,target=/m exit 9\n\
         COPY --from=broken / /\n",
    );
    let enter = |step: &[&str], script: &str| {
        let args = [&["enter"], step, &["--secret", "id=word,src=word", "context"]].concat();
        env.rbuild(&[args, vec!["--", "sh", "-c", script]].concat())
    };
    // A RUN has its own mounts; later instructions are not run.
    let script = "cat /run/secrets/word /m/made /file; echo $A $WHO $PWD; echo $RBUILD_COMMAND";
    let done = enter(&["--step", "build:5", "--build-arg", "WHO=me"], script).ok();
    assert_eq!(done.stdout, "sesame\nmade\nfrom the context\ntwo me /w\n\n");
    done.ended(&[
        "COPY file /: DONE",
        "RUN echo first > /first: DONE",
        "RUN echo made > /made: DONE",
        "WORKDIR /w: DONE",
    ]);
    for step in ["build 3", "[build 3/6] COPY file /", "3"] {
        let done =
            enter(&["--step", step, "--target", "build"], "cat /first; ls /file; echo $A").ok();
        assert_eq!(done.stdout, "first\ntwo\n", "{step}");
    }
    let done = enter(&["--step", "build:1"], "ls /first; echo a${A}a").ok();
    assert_eq!(done.stdout, "aa\n");
    let done = enter(&["--target", "made"], "cat /made").ok();
    assert_eq!(done.stdout, "made\n");
    enter(&["--step", "build:7"], "true").fails(1, &["the stage build has no step 7, only 6"]);
    enter(&["--step", "biuld:2"], "true").fails(1, &["could not be found", "build"]);
    enter(&["--step", "build"], "true").fails(2, &["such as build:3"]);
    assert_eq!(env.leftovers("store"), "");
}

fn who_enters_at_a_terminal_has_one(who: Who) {
    let env = Env::of(who);
    env.base();
    let terminal = Terminal::rbuild(&env, SIZE, &["enter", "base:1"]);
    terminal.until_shown(&["a shell in base:1\n", "(rbuild) / #"]);
    enter(&terminal, "busybox tty && exit 5");
    assert!(terminal.ended(5).iter().any(|line| line == "/dev/pts/0"));
    drop(terminal);

    // It is pid 1, which gets only signals that it handles (pid_namespaces(7)).
    let sleep = seconds(who, 3);
    let terminal = Terminal::rbuild(&env, SIZE, &["enter", "base:1", "--", "sleep", &sleep]);
    until_running(&sleep, true);
    terminal.keys("C-c");
    terminal.ended(130);
    drop(terminal);

    env.write("Dockerfile", "FROM base:1\nWORKDIR /w\nRUN echo from the step\n");
    let terminal = Terminal::rbuild(&env, SIZE, &["enter", "--step", "3", "context"]);
    terminal.until_shown(&["3/3] RUN echo from the step, before it runs", "(rbuild) /w #"]);
    enter(&terminal, "clear; eval \"$RBUILD_COMMAND\"");
    terminal.until(|screen| screen.starts_with("from the step\n"));
    terminal.keys("C-d");
    terminal.ended(0);
    drop(terminal);
    until_nothing_is_left(&env);
}
