//! Containers that the tests start without docker are like those of docker.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::container::Docker;
use crate::support::env::{Done, Env, Who};
use crate::support::source;

/// Options for a container with as few rights as docker can give.
const HARDENED: [&str; 8] = [
    "--user=1000",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs",
    "/tmp",
    "-w",
    "/tmp",
];

/// Returns an environment for containers, with the program `calls`.
fn env() -> Option<Env> {
    let env = Env::of(Who::root()?);
    env.write_container();
    let source = source::root().join("tests/support/calls.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-w", "-D_GNU_SOURCE", "-o"]);
    compiler.arg(env.path("container/calls")).arg(source);
    Done::of(compiler.output().unwrap()).ok();
    Some(env)
}

fn output(mut command: Command) -> String {
    Done::of(command.output().unwrap()).ok().stdout
}

/// Prints what a container is made of: rights, mounts, devices, variables, accounts.
const FACTS: &str = "\
grep -E '^(Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status
while read -r _ _ _ root target options _ _ type _; do \
  case $target in /sys/fs/cgroup/*) continue ;; esac; \
  case $root in /|/null|/bus|/fs|/irq|/sys) ;; *) root=file ;; esac; \
  echo \"$root $target $options\"; \
done < /proc/self/mountinfo | sed 's,/sys/fs/cgroup .*,/sys/fs/cgroup,' | sort
ls -l /dev /proc/self/fd/1 /proc/self/fd/2 | sed 's/ [A-Z][a-z][a-z] .[0-9] [0-9:]*//; s/\\[.*//' | grep -v total
stat -c '%n %a %u %g' / /dev /dev/pts /dev/shm /etc/hosts /tmp; stat -L -c '%F %a %u' /proc/self/fd/1
env | grep -v HOSTNAME | sort
id; pwd; umask; echo $$
echo written > /dev/stderr";

#[test]
fn priv_containers_have_the_same_rights_and_mounts_as_those_of_docker() {
    let Some(env) = env() else { return };
    let Some(docker) = Docker::open(&env) else { return };
    for options in [&[][..], &["--user", "1000"], &["--user=1000:1001", "--read-only"], &HARDENED] {
        let command = ["sh", "-c", FACTS];
        let own = output(env.container(options, &command));
        assert_eq!(own, output(docker.container(options, &command)), "{options:?}");
    }
}

#[test]
fn priv_system_calls_answer_as_in_docker() {
    let Some(env) = env() else { return };
    let Some(docker) = Docker::open(&env) else { return };
    for options in [&[][..], &["--user", "1000"], &["--cap-drop", "ALL"], &HARDENED] {
        for command in [&["/calls"][..], &["/calls", "numbers"]] {
            let own = output(env.container(options, command));
            assert!(own.lines().count() > 90, "{own}");
            assert_eq!(own, output(docker.container(options, command)), "{options:?}");
        }
    }
    // The engine may itself be in a chroot. There, the kernel creates no user namespace
    // (user_namespaces(7)).
    let comparable = |text: String| {
        let lines = text.lines().filter(|line| !line.contains("CLONE_NEWUSER"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let privileged = ["--privileged"];
    let own = comparable(output(env.container(&privileged, &["/calls"])));
    assert_eq!(own, comparable(output(docker.container(&privileged, &["/calls"]))));
}

/// The answers on which rbuild without namespaces depends.
const ANSWERS: &str = "\
unshare(CLONE_NEWUSER) EPERM
clone(CLONE_NEWUSER) EPERM
clone3(0) ENOSYS
mount(tmpfs) EPERM
open_tree EPERM
chroot works
ptrace(PTRACE_SEIZE) of a child works
process_vm_writev of a child works
seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER) works
pidfd_getfd EPERM
setuid(1234) works
chown works
mknod(c 1:3) works
setxattr(security.capability) works
openat2 works
keyctl EPERM
";

#[test]
fn priv_containers_have_the_rights_of_docker_where_there_is_no_docker() {
    let Some(env) = env() else { return };
    let answers = output(env.container(&[], &["/calls"]));
    for answer in ANSWERS.lines() {
        assert!(answers.lines().any(|line| line == answer), "no `{answer}` in\n{answers}");
    }
    let status = ["grep", "-E", "^(CapEff|NoNewPrivs|Seccomp):", "/proc/self/status"];
    let rights = |options: &[&str]| output(env.container(options, &status));
    let shown = |capabilities, new, filter| {
        format!("CapEff:\t{capabilities:016x}\nNoNewPrivs:\t{new}\nSeccomp:\t{filter}\n")
    };
    assert_eq!(rights(&[]), shown(0xa804_25fb_u64, 0, 2));
    assert_eq!(rights(&["--user", "1000"]), shown(0, 0, 2));
    assert_eq!(rights(&HARDENED), shown(0, 1, 2));
    assert!(rights(&["--privileged"]).ends_with("Seccomp:\t0\n"));
}

#[test]
fn priv_container_ends_with_its_command_and_its_launcher() {
    let Some(env) = env() else { return };
    let run = |command: &[&str]| Done::of(env.container(&[], command).output().unwrap()).code;
    assert_eq!(run(&["sh", "-c", "sleep 1000 & exit 7"]), Some(7));
    assert_eq!(run(&["sh", "-c", "kill -KILL $$; sleep 1; exit 8"]), Some(8));
    assert_eq!(run(&["/none"]), Some(127));
    assert_eq!(run(&["/etc/passwd"]), Some(126));
    assert_eq!(fs::read_dir(env.path("container/tmp")).unwrap().count(), 0);

    let mark = format!("10{}", std::process::id());
    let is_running = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line == format!("sleep\0{mark}\0").as_bytes()
        })
    };
    let wait_until = |running: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_running() != running {
            assert!(Instant::now() < deadline, "it is still so: {running}");
            sleep(Duration::from_millis(20));
        }
    };
    for options in [&[][..], &["--user", "1000"]] {
        let script = format!("sleep {mark} & wait");
        let mut launcher = env.container(options, &["sh", "-c", &script]).spawn().unwrap();
        wait_until(true);
        kill_process(Pid::from_child(&launcher), Signal::KILL).unwrap();
        launcher.wait().unwrap();
        wait_until(false);
    }
}
