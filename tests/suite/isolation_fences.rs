//! What a step without namespaces cannot reach: each test makes the attack in `chroot`, as root of a
//! container, and in `emulated`, as an ordinary user. docs/security.md has the table.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rbuild::sandbox::Fence;

use crate::support::env::{Done, Env, Who, skip};
use crate::support::source;

/// The text in all files, variables and secrets that a step must not see.
const CANARY: &str = "canary-contents";

/// Starts the victims: a process of the same user, and an abstract socket. Then it builds, and prints
/// whether the victims and the store are as before. The pid of rbuild is that of the shell before it.
const SCRIPT: &str = r#"
rbuild=$1 scratch=$2 files=$3 isolation=$4
export HOME=$scratch/home
mkdir -p "$scratch/home" "$scratch/store" && cd "$scratch" || exit 90
echo canary-contents > "$scratch/canary"
CANARY=canary-contents sleep 600 & victim=$!
"$files/base/bin/attack" listen "rbuild-canary-$$" & listener=$!
"$files/base/bin/attack" serve "$scratch/socket" & server=$!
export CANARY=canary-contents
sh -c 'exec "$@" --build-arg rbuild=$$' sh "$rbuild" --root "$scratch/store" build "$files/base" \
  -f "$files/base/Attack" --isolation "$isolation" --progress plain --network host \
  --secret id=key,src=canary --build-arg victim=$victim --build-arg scratch="$scratch" \
  --build-arg name="rbuild-canary-$$" 2>&1
echo "exit code $?"
kill -0 $victim && echo "victim is alive"
test "$(cat canary)" = canary-contents && echo "file is unchanged"
test -z "$(find "$scratch/store" -name planted)" && echo "store is unchanged"
kill $victim $listener $server
"#;

/// The beginning of each attack: `$outside` are the processes that it is aimed at.
const HEAD: &str = "outside=\"$rbuild $victim $reaper\"\n";

const DOCKERFILE: &str = "FROM scratch\n\
     COPY . /\n\
     ARG rbuild victim scratch name\n\
     RUN --mount=type=secret,id=key sh /attack-before\n\
     RUN reaper=$PPID sh /attack; echo tried\n";

/// A step that attacks, and one before it that has a secret.
struct Attack<'a> {
    before: &'a str,
    script: &'a str,
}

impl Attack<'_> {
    fn env(&self, who: Who) -> Option<Env> {
        let env = Env::of(who);
        env.write_base();
        let base = env.path("base");
        let text = format!("{HEAD}{}", self.script);
        let files = [("Attack", DOCKERFILE), ("attack", &text), ("attack-before", self.before)];
        for (name, text) in files {
            fs::write(base.join(name), text).unwrap();
        }
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-O1", "-w", "-o"]).arg(base.join("bin/attack"));
        let compiled = compiler.arg(source::root().join("tests/support/attack.c")).output();
        if !compiled.is_ok_and(|output| output.status.success()) {
            skip("cc", "no C compiler for static programs");
            return None;
        }
        for name in [".", "base"] {
            fs::set_permissions(env.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(env)
    }

    /// Builds as root of a container, with chroot(2).
    fn in_chroot(&self) -> Option<Done> {
        let env = self.env(Who::root()?)?;
        env.write_container();
        let volume = format!("--volume={}:/files/base:ro", env.shown("base"));
        let command = ["sh", "-c", SCRIPT, "sh", "/usr/bin/rbuild", "/scratch", "/files", "chroot"];
        Some(Done::of(env.container(&[&volume], &command).output().unwrap()))
    }

    /// Builds as an ordinary user, with emulated paths and owners.
    fn emulated(&self) -> Option<Done> {
        let env = self.env(Who::user()?)?;
        fs::create_dir(env.path("scratch")).unwrap();
        env.hand_over("scratch");
        let mut command = env.program("sh");
        command.args(["-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_rbuild")]);
        command.args([&env.shown("scratch"), &env.shown("."), "emulated"]);
        Some(Done::of(command.output().unwrap()))
    }

    /// Checks that the attack fails under both kinds of isolation, and that it was made.
    fn fails(&self) {
        for done in [self.in_chroot(), self.emulated()].into_iter().flatten() {
            let text = format!("{}{}", done.stdout, done.stderr);
            let unchanged = ["victim is alive", "file is unchanged", "store is unchanged"];
            for wanted in [" tried\n", "exit code 0"].into_iter().chain(unchanged) {
                assert!(text.contains(wanted), "no `{wanted}` in\n{text}");
            }
            for unwanted in [CANARY, "SUCCEEDED"] {
                assert!(!text.contains(unwanted), "`{unwanted}` in\n{text}");
            }
        }
    }
}

fn check(script: &str) {
    Attack { before: "true", script }.fails();
}

fn has_scopes() -> bool {
    let has_scopes = Fence::of_kernel() == Fence::Signals;
    if !has_scopes {
        skip("landlock", "Landlock has scopes since Linux 6.12");
    }
    has_scopes
}

#[test]
fn priv_step_reads_and_changes_no_file_outside_its_root() {
    check(
        "for file in $scratch/canary /../$scratch/canary /bin/../../$scratch/canary; do
           cat $file; echo changed > $file && echo write: SUCCEEDED
         done
         ln -s $scratch/canary /link; cat /link; cp /link /copy && cat /copy
         attack leave $scratch/canary",
    );
}

/// The working directory in a mount is outside of the root that the kernel knows.
#[test]
fn priv_step_in_a_mount_reaches_no_file_outside_its_root() {
    check(
        "for mount in /proc /proc/self /dev /dev/shm /sys; do
           cd $mount; up=../../../../../../../..
           cat $up/$scratch/canary; echo changed > $up/$scratch/canary && echo write: SUCCEEDED
           chmod 777 $up/$scratch/canary && echo chmod: SUCCEEDED
           echo mine > $up/from-a-mount; test \"$(cat /from-a-mount)\" = mine || echo elsewhere: SUCCEEDED
           test -x $up/bin/sh || echo lost: SUCCEEDED
         done",
    );
}

#[test]
fn priv_step_reaches_no_socket_outside_its_root() {
    check(
        "for socket in $scratch/socket $scratch/socket.datagram; do
           attack reach $socket
           for mount in /proc /dev /dev/shm; do
             (cd $mount; attack reach ../../../../..$socket)
           done
         done",
    );
}

#[test]
fn priv_step_changes_no_attributes_of_files_outside_its_root() {
    check("attack change $scratch/canary");
}

#[test]
fn priv_step_reads_no_environment_of_other_processes() {
    check("for pid in $outside; do cat /proc/$pid/environ /proc/$pid/task/$pid/environ; done");
}

#[test]
fn priv_step_reads_no_memory_of_other_processes() {
    check(
        "for pid in $outside; do
           for file in mem maps auxv; do
             ( : < /proc/$pid/$file ) && cat /proc/$pid/$file | head -c 1 | grep -q . && echo $file: SUCCEEDED
           done
           ( : 3<> /proc/$pid/mem ) 2>/dev/null && echo write mem: SUCCEEDED
           attack readv $pid 400000
         done",
    );
}

#[test]
fn priv_step_uses_no_descriptors_and_directories_of_other_processes() {
    check(
        "for pid in $outside; do
           for link in /proc/$pid/cwd /proc/$pid/task/$pid/cwd /proc/$pid/fd/*; do
             ls -d $link/. && echo $link: SUCCEEDED
             cat $link/canary $link/../canary
           done
           ls /proc/$pid/fd | grep . && echo list: SUCCEEDED
           cat /proc/$pid/root$scratch/canary
           attack getfd $pid
         done",
    );
}

#[test]
fn priv_step_traces_no_other_process() {
    check("for pid in $outside; do attack attach $pid; attack seize $pid; done");
}

#[test]
fn priv_step_signals_no_other_process() {
    if has_scopes() {
        check(
            "for pid in $outside; do
               kill -0 $pid && echo $pid: SUCCEEDED
               attack signal $pid; attack pidfd $pid
             done",
        );
    }
}

#[test]
fn priv_step_connects_to_no_abstract_socket() {
    if has_scopes() {
        check("attack abstract $name");
    }
}

#[test]
fn priv_secret_is_gone_after_its_step() {
    Attack {
        before: "test -s /run/secrets/key && cp /run/secrets/key /dev/sh?/planted
                 (sleep 60; cat /run/secrets/key) < /run/secrets/key &",
        script: "ls /run/secrets; cat /run/secrets/key /dev/sh?/* /proc/*/fd/0; cd /proc
                 for pid in [0-9]*; do grep -a -l canary $pid/cmdline; done; cat /dev/mqueue/*",
    }
    .fails();
}

#[test]
fn priv_step_has_its_own_environment_and_descriptors() {
    check(
        "env; tr '\\0' '\\n' < /proc/self/environ
         for number in 3 4 5 6 7 8 9 10 20 30; do test -e /proc/$$/fd/$number && readlink /proc/$$/fd/$number |
           grep -v '/attack$' && echo $number: SUCCEEDED; done",
    );
}

#[test]
fn priv_step_cannot_write_into_the_store() {
    check(
        "touch $scratch/store/planted; mkdir -p /x; ln -s $scratch/store /x/store; touch /x/store/planted
         for up in .. ../.. ../../.. ../../../..; do
           (cd / && touch $up/planted.up && test ! -e /planted.up && echo above: SUCCEEDED)
         done",
    );
}

#[test]
fn priv_step_gains_no_rights() {
    check(
        "grep -q 'NoNewPrivs:.1' /proc/self/status || echo rights: SUCCEEDED
         grep -q 'Seccomp:.2' /proc/self/status || echo filter: SUCCEEDED
         mkdir -p /mnt; mount -t tmpfs none /mnt && echo mount: SUCCEEDED
         unshare -U true && echo user namespace: SUCCEEDED",
    );
}
