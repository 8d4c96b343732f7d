//! `RUN --mount` of every type, and the command line options that affect RUN steps.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};
use crate::support::images::Layout;

as_root_and_as_user!(
    files_of_context_stage_and_image_are_bound,
    mounts_below_mounts_have_a_place,
    mount_points_are_in_no_layer,
    links_of_a_cache_mount_lead_no_mount_point_into_the_image,
    mount_points_are_removed_where_they_were_made,
    caches_survive_builds,
    secrets_are_mounted_and_not_stored,
    agents_answer_at_their_socket,
);

const OCI: &str = "type=oci,dest=out,tar=false,compression=uncompressed";

fn files_of_context_stage_and_image_are_bound(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("a.txt", "a\n");
    env.write("d/s/g", "g\n");
    env.write("ignored", "");
    env.write(".dockerignore", "ignored\n");
    fs::set_permissions(env.path("context/a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../../../d", env.path("context/up")).unwrap();
    env.hand_over("context");
    let dockerfile = "FROM base:1 AS made\nRUN mkdir -p /x/y && echo s > /x/y/f && ln -s /x/y /l\n\
        FROM base:1\n\
        RUN --mount=target=/c test \"$(stat -c '%a %u %g' /c/a.txt)\" = '640 0 0' && ! test -e /c/ignored && ! touch /c/x\n\
        RUN --mount=target=/c,rw echo b >> /c/a.txt && rm -r /c/d && test \"$(cat /c/a.txt | tr '\\n' ,)\" = a,b,\n\
        RUN --mount=target=/c,rw test \"$(cat /c/a.txt /c/d/s/g | tr '\\n' ,)\" = a,g,\n\
        RUN --mount=target=/c,source=up/s cat /c/g\n\
        RUN --mount=target=/c,source=../../a.txt cat /c\n\
        RUN --mount=target=/c,source=l,from=made cat /c/f && ! touch /c/x\n\
        RUN --mount=target=/c,source=/l/f,from=made,rw echo more >> /c && test \"$(cat /c | tr '\\n' ,)\" = s,more,\n\
        RUN --mount=target=/c,source=/l/f,from=made test \"$(cat /c)\" = s\n\
        RUN --mount=target=/c,from=base:1 cat /c/old/file\n";
    env.build(dockerfile, &[]).ok();
    assert_eq!(fs::read_to_string(env.path("context/a.txt")).unwrap(), "a\n");
    assert_eq!(env.leftovers("store"), "");

    env.write("ignored", "changed");
    let again = env.build(dockerfile, &[]).ok();
    assert!(again.steps().iter().all(|step| step.ends_with("CACHED")), "{}", again.stderr);
    let missing = "FROM base:1\nRUN --mount=target=/c,source=ignored true\n";
    env.build(missing, &[]).fails(1, &["E0402", "ignored", ":2:1", ".dockerignore"]);
}

#[test]
fn mount_point_that_cannot_be_made_is_shown() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1\nRUN --mount=type=tmpfs,target=/etc/passwd/x true\n";
    let parts = ["E0404", "cannot make the mount point /etc/passwd/x", ":2:1"];
    env.build(dockerfile, &[]).fails(1, &parts);
}

#[test]
fn changed_file_of_a_mount_runs_its_step_again() {
    let env = Env::new();
    env.base();
    env.write("in/a", "1");
    env.write("other", "1");
    let dockerfile = "FROM base:1\nRUN --mount=source=in,target=/in cat /in/a\n";
    let step = "RUN --mount=source=in,target=/in cat /in/a";
    env.build(dockerfile, &[]).ok().ended(&[&format!("{step}: DONE")]);
    env.write("other", "2");
    env.build(dockerfile, &[]).ok().ended(&[&format!("{step}: CACHED")]);
    env.write("in/a", "2");
    env.build(dockerfile, &[]).ok().ended(&[&format!("{step}: DONE")]);
}

fn mounts_below_mounts_have_a_place(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("a.txt", "a\n");
    env.hand_over("context");
    let dockerfile = "FROM base:1 AS made\nRUN mkdir /m && echo s > /m/f\n\
        FROM base:1\nWORKDIR /w\n\
        RUN --mount=type=cache,target=node_modules/deep --mount=target=. touch node_modules/deep/x && cat a.txt && ! touch y\n\
        RUN --mount=type=tmpfs,target=/t --mount=from=made,source=/m/f,target=/t/a/f cat /t/a/f\n\
        RUN --mount=type=tmpfs,target=/dev/own --mount=from=made,source=/m/f,target=/dev/one touch /dev/own/x && cat /dev/one\n\
        RUN --mount=type=cache,target=/c --mount=from=made,source=/m,target=/c/m cat /c/m/f\n\
        RUN --mount=from=made,target=/new --mount=from=made,source=/m,target=/new/link/x cat /new/link/x/f\n\
        RUN test \"$(ls -A /w)\" = '' && ! test -e /t && ! test -e /c && ! test -e /new\n";
    env.build(dockerfile, &[]).ok();
    assert!(!env.path("context/node_modules").exists());
}

fn links_of_a_cache_mount_lead_no_mount_point_into_the_image(who: Who) {
    let env = Env::of(who);
    env.base();
    env.hand_over("context");
    let cache = "RUN --mount=type=cache,id=c,target=/c";
    let poison = format!(
        "FROM base:1\n{cache} ln -s /etc /c/abs && ln -s ../etc /c/up && ln -s d /c/down && \
         mkdir -p /c/d /c/etc/evil\n"
    );
    env.build(&poison, &[]).ok();
    for link in ["abs", "up"] {
        for mount in ["type=tmpfs", "type=secret,id=s", "type=cache,id=other"] {
            let target = format!("/c/{link}/evil");
            let build = format!("FROM base:1\n{cache} --mount={mount},target={target} true\n");
            env.write("s", "value");
            let done = env.build(&build, &["--secret", "id=s,src=context/s"]);
            done.fails(1, &[&format!("cannot make the mount point {target}: ")]);
        }
    }
    let inside =
        format!("FROM base:1\n{cache} --mount=type=tmpfs,target=/c/down/x touch /c/d/x/y\n");
    env.build(&inside, &[]).ok();
}

fn mount_points_are_removed_where_they_were_made(who: Who) {
    let env = Env::of(who);
    env.base();
    env.hand_over("context");
    let dockerfile = "FROM base:1\nRUN mkdir -p /victim/mp && touch /victim/file\n\
        RUN --mount=type=tmpfs,target=/made/mp --mount=type=cache,target=/made/gone mv /made /moved && ln -s /victim /made\n\
        RUN test -d /victim/mp && test -f /victim/file && ! test -e /moved/mp\n";
    env.build(dockerfile, &[]).ok();
}

fn mount_points_are_in_no_layer(who: Who) {
    let env = Env::of(who);
    env.base();
    env.write("a.txt", "a\n");
    env.hand_over("context");
    let dockerfile = "FROM base:1\nRUN --mount=target=/new/deep --mount=type=tmpfs,target=/old/t \
        --mount=source=a.txt,target=/old/one --mount=type=cache,target=/kept/cache \
        --mount=type=secret,id=s touch /out /kept/own\n";
    env.write("s", "value");
    env.build(dockerfile, &["-o", OCI, "--secret", "id=s,src=context/s"]).ok();
    let paths: Vec<String> = Layout::read(&env.path("out")).top().into_keys().collect();
    assert_eq!(paths, ["kept/", "kept/own", "out"]);
}

fn caches_survive_builds(who: Who) {
    let env = Env::of(who);
    env.base();
    let run = |env: &Env, options: &str, script: &str, args: &[&str]| {
        let dockerfile = format!(
            "FROM base:1 AS seed\nRUN mkdir /s && echo seed > /s/f\n\
             FROM base:1\nRUN --mount=type=cache,target=/c,{options} {script}\n"
        );
        env.build(&dockerfile, args)
    };
    run(&env, "id=a", "echo 1 > /c/f", &[]).ok();
    run(&env, "id=a,ro", "cat /c/f && ! touch /c/x", &[]).ok();
    run(&env, "id=a,uid=5,gid=6,mode=0700", "test ! -e /c/f && stat -c '%a %u %g' /c", &[]).ok();
    run(&env, "id=a,sharing=locked", "cat /c/f; echo 2 > /c/f", &[]).ok();
    run(&env, "id=a", "ln -s /sub /c/link; ln -s ../../etc /c/bad; mkdir /c/sub", &[]).ok();
    run(&env, "id=a,source=link", "touch /c/in", &[]).ok();
    run(&env, "id=a,source=/new/directory", "test -e /c/../c && ! test -e /c/in", &[]).ok();
    run(&env, "id=a", "test -e /c/sub/in && test -d /c/new/directory", &[]).ok();
    let escape = run(&env, "id=a,source=bad", "ls /c", &[]);
    escape.fails(1, &["E0402", "/bad of the cache is not a directory", ":4:1"]);
    run(&env, "id=b,from=seed,source=/s", "cat /c/f; echo own > /c/f", &[]).ok();
    let kept = run(&env, "id=b,from=seed,source=/s", "test $(cat /c/f) = own", &[]);
    kept.ok();
    env.rbuild(&["prune"]).ok();
    env.base();
    run(&env, "id=a", "test $(cat /c/f) = 2 && echo kept", &[]).ok();
    run(&env, "id=a", "test ! -e /c/f && echo new > /c/f", &["--no-cache"]).ok();
    run(&env, "id=a", "test $(cat /c/f) = new", &[]).ok();
    let ns = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"];
    run(&env, "id=a", "test ! -e /c/f # another namespace", &ns).ok();
    env.rbuild(&["prune", "--all"]).ok();
    env.base();
    run(&env, "id=a", "test ! -e /c/f # all gone", &[]).ok();
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn locked_cache_waits_and_private_cache_does_not() {
    let env = Env::new();
    env.base();
    let both = |sharing: &str| {
        let mount = format!("--mount=type=cache,id=c,target=/c,sharing={sharing}");
        let script = "test ! -e /c/busy && touch /c/busy && sleep 0.5 && rm /c/busy";
        format!(
            "FROM base:1 AS one\nRUN {mount} {script} && touch /1\n\
             FROM base:1\nRUN {mount} {script} && touch /2\nCOPY --from=one /1 /1\n"
        )
    };
    let done = env.build(&both("locked"), &[]).ok();
    assert!(done.stderr.contains("waiting for the cache `c`"), "{}", done.stderr);
    env.build(&both("private"), &[]).ok();
    env.build(&both("shared"), &[]).fails(1, &["did not complete successfully"]);
}

#[test]
fn waiting_for_a_cache_can_be_interrupted() {
    let env = Env::new();
    env.base();
    let dockerfile = |name: &str, script: &str| {
        let mount = "--mount=type=cache,id=c,target=/c,sharing=locked";
        env.write(name, format!("FROM base:1\nRUN {mount} {script}\n"));
    };
    const HELD: Duration = Duration::from_secs(300);
    dockerfile("holder", &format!("echo held; sleep {}", HELD.as_secs()));
    dockerfile("waiter", "true");
    let start = |name: &str| {
        let file = format!("context/{name}");
        let mut command = env.command(&["build", "context", "-f", &file]);
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    };
    let said = |child: &mut std::process::Child, text: &str| {
        use std::io::BufRead as _;
        let lines = std::io::BufReader::new(child.stderr.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.ends_with(text)), "no `{text}`");
    };
    let mut holder = start("holder");
    said(&mut holder, " held");
    let mut waiter = start("waiter");
    said(&mut waiter, "which another step uses");
    let started = Instant::now();
    for child in [&mut waiter, &mut holder] {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    assert!(started.elapsed() < HELD, "it waited for the cache");
    assert_eq!(env.leftovers("store"), "");
}

fn secrets_are_mounted_and_not_stored(who: Who) {
    let mut env = Env::of(who);
    env.base();
    env.write("token", "top-secret-value\n");
    env.set("OTHER", "another-secret");
    env.hand_over("context");
    let dockerfile = "FROM base:1\nENV TOKEN=image\n\
        RUN --mount=type=secret,id=token stat -c '%a %u %g' /run/secrets/token && cat /run/secrets/token && ! echo x >> /run/secrets/token\n\
        RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=other,target=/o,mode=0440,uid=7,gid=8 echo $TOKEN $(cat /o) | sed s/-secret-/+secret+/; stat -c '%a:%u:%g' /o\n\
        RUN --mount=type=secret,id=token for c in top -sec ret- value; do echo -n $c; usleep 20000; done; ! test -e /run/secrets/none\n\
        RUN --mount=type=secret,id=none,env=TOKEN test -z \"${TOKEN-unset}\" && ! test -e /run\n";
    let secrets = ["--secret", "id=token,src=context/token", "--secret", "id=other,env=OTHER"];
    let done = env.build(dockerfile, &[&["-o", OCI], secrets.as_slice()].concat()).ok();
    assert!(done.stderr.contains(" 400 0 0\n"), "{}", done.stderr);
    assert!(done.stderr.contains(" 440:7:8\n"), "{}", done.stderr);
    assert!(done.stderr.contains(" top+secret+value ****\n"), "{}", done.stderr);
    assert!(done.stderr.matches(" ****\n").count() >= 3, "{}", done.stderr);
    assert!(!done.stderr.contains("secret-value") && !done.stderr.contains("another-"));
    for directory in ["store", "out"] {
        let mut grep = env.program("grep");
        let found = grep.args(["-rlE", "top-secret|another-secret", directory]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "in {directory}");
    }
    env.write("token", "changed");
    let again = env.build(dockerfile, &secrets).ok();
    assert!(again.steps().iter().all(|step| step.ends_with("CACHED")), "{}", again.stderr);
    let failing = "FROM base:1\nRUN --mount=type=secret,id=token cat /run/secrets/token; exit 3\n";
    let failed = env.build(failing, &secrets);
    failed.fails(1, &["last lines of the failed step:\n  ****\n", "exit code: 3"]);
    assert!(!failed.stderr.contains("changed"), "{}", failed.stderr);
    let required = "FROM base:1\nRUN --mount=type=secret,id=none,required true\n";
    env.build(required, &[]).fails(1, &["E0410", "`none` is required", ":2:1", "--secret id=none"]);
    env.build(dockerfile, &["--secret", "id=x,src=absent"]).fails(2, &["secret `x`", "absent"]);
}

fn agents_answer_at_their_socket(who: Who) {
    let env = Env::of(who);
    env.base();
    let key = env.shown("home/key");
    let mut keygen = env.program("ssh-keygen");
    if !keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f", &key])
        .status()
        .is_ok_and(|s| s.success())
    {
        crate::support::env::skip("ssh-keygen", "there is no ssh-keygen");
        return;
    }
    let dockerfile = "FROM base:1\n\
        RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && stat -c '%a %u %g' $SSH_AUTH_SOCK\n\
        RUN --mount=type=ssh,id=other --mount=type=ssh,target=/tmp/s,mode=0666,uid=3,gid=4 test $SSH_AUTH_SOCK = /tmp/s && stat -c '%a:%u:%g' $SSH_AUTH_SOCK\n\
        RUN --mount=type=ssh,id=other test -z \"$SSH_AUTH_SOCK\" && ! test -e /run && ! test -e /tmp/s\n";
    let done = env.build(dockerfile, &["--ssh", &format!("default={key}")]).ok();
    assert!(
        done.stderr.contains(" 600 0 0\n") && done.stderr.contains(" 666:3:4\n"),
        "{}",
        done.stderr
    );
    assert_eq!(env.leftovers("store"), "");
    // Git uses the same agent: this ssh prints the keys it was offered, and exits.
    let script = "#!/bin/sh\necho \"ssh: $(ssh-add -L)\" >&2\nexit 1\n";
    fs::create_dir(env.path("bin")).unwrap();
    fs::write(env.path("bin/ssh"), script).unwrap();
    fs::set_permissions(env.path("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let public = fs::read_to_string(format!("{key}.pub")).unwrap();
    let path = format!("{}:{}", env.shown("bin"), std::env::var("PATH").unwrap());
    env.write("Dockerfile", "FROM scratch\nADD git@git.example:me/repo.git /\n");
    let mut command = env.command(&["build", "context", "--ssh", &format!("default={key}")]);
    let done = Done::of(command.env("PATH", path).output().unwrap());
    done.fails(1, &["E0408", public.split(' ').nth(1).unwrap()]);
    let required = "FROM base:1\nRUN --mount=type=ssh,id=other,required true\n";
    env.build(required, &[]).fails(1, &["E0410", "`other` is required", ":2:1"]);
    let bad = env.build(required, &["--ssh", &format!("other={key}.pub")]);
    bad.fails(2, &["key.pub", "not an OpenSSH private key"]);
}

#[test]
fn agent_without_a_name_is_that_of_the_caller() {
    let mut env = Env::new();
    env.base();
    let dockerfile = "FROM base:1\nRUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK\n";
    env.build(dockerfile, &["--ssh", "default"]).fails(2, &["SSH_AUTH_SOCK is not set"]);
    let socket = env.path("home/agent");
    let _listener = UnixListener::bind(&socket).unwrap();
    env.set("SSH_AUTH_SOCK", &socket.display().to_string());
    env.build(dockerfile, &["--ssh", "default"]).ok();
}

#[test]
fn options_of_the_command_line_reach_run() {
    let env = Env::new();
    env.base();
    let dockerfile = "FROM base:1\nRUN grep -w some.example /etc/hosts && \
        test $(ulimit -n) = 64 && test $(ulimit -c) = 0 && \
        test $(stat -f -c %b /dev/shm) = $((3 * 1024 / 4))\n";
    let args = ["--add-host", "some.example:10.1.2.3", "--ulimit", "nofile=64:128"];
    let more = ["--ulimit", "core=0", "--shm-size", "3m"];
    let done = env.build(dockerfile, &[args, more].concat()).ok();
    assert!(done.stderr.contains("10.1.2.3"), "{}", done.stderr);
    for (args, part) in [
        (["--add-host", "a:host-gateway"], "host-gateway is not supported"),
        (["--add-host", "a"], "expected NAME:IP"),
        (["--ulimit", "files=1"], "unknown limit"),
        (["--ulimit", "nofile=2:1"], "above the hard one"),
        (["--shm-size", "big"], "expected a size"),
    ] {
        env.build(dockerfile, &args).fails(2, &[part]);
    }
}

#[test]
fn what_needs_a_permission_is_refused_without_it() {
    let env = Env::new();
    env.base();
    let insecure = "FROM base:1\nRUN --security=insecure grep CapEff /proc/self/status\n";
    let host = "FROM base:1\nRUN --network=host true\n";
    env.build(insecure, &[]).fails(1, &["E0407", "security.insecure", ":2:1", "--allow"]);
    env.build(host, &[]).fails(1, &["E0407", "network.host", ":2:1", "--allow"]);
    env.build(host, &["--allow", "network.host"]).ok();
    let done = env.build(insecure, &["--allow", "security.insecure"]).ok();
    assert!(!done.stderr.contains("00000000a80425fb"), "{}", done.stderr);
    // Devices that a step creates can be opened only by a step with all of root's privileges.
    if rustix::process::geteuid().is_root() {
        let made = |flag: &str| format!("FROM base:1\nRUN {flag} mknod /n c 1 3 && echo x > /n\n");
        env.build(&made(""), &[]).fails(1, &["Permission denied", "--security=insecure"]);
        let allow = ["--allow", "security.insecure"];
        env.build(&made("--security=insecure"), &allow).ok();
    }
    let device = "FROM base:1\nRUN --device=vendor/x true\n";
    env.build(device, &[]).fails(1, &["E0305", "--device", ":2:1"]);
}
