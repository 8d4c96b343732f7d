//! `--network=private`: a network of the build's own, through pasta.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::container::copy_libraries;
use crate::support::env::{Done, Env, Who, skip};

const PRIVATE: &str = "--network=private";

/// A machine with a network of two namespaces: `$1` is the command that builds in the first one, and
/// 192.0.2.2 is a server in the second one. The first one has servers of its own.
const MACHINE: &str = r#"
ip link set lo up
mknod tun c 10 200 && chmod 666 tun && mount --bind tun /dev/net/tun
unshare -n sleep 600 & all=$!
trap 'kill $all 2>/dev/null' EXIT
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
peer=$!
ip link add name inner type veth peer name outer netns $peer
ip addr add 192.0.2.1/24 dev inner
ip link set inner up
ip route add default via 192.0.2.2
nsenter -t $peer -n ip addr add 192.0.2.2/24 dev outer
nsenter -t $peer -n ip link set outer up
mkdir -p served && echo outside > served/x
nsenter -t $peer -n busybox httpd -f -p 192.0.2.2:8080 -h served & all="$all $!"
busybox httpd -f -p 127.0.0.1:8081 -h served & all="$all $!"
busybox httpd -f -p 192.0.2.1:8082 -h served & all="$all $!"
for url in 192.0.2.2:8080 127.0.0.1:8081 192.0.2.1:8082; do
  until curl -sf -m 5 -o /dev/null http://$url/x; do sleep 0.05; done
done
"$@"
"#;

fn has_pasta() -> bool {
    let found =
        ["/usr/bin/pasta", "/usr/local/bin/pasta"].iter().any(|path| Path::new(path).exists());
    if !found {
        skip("pasta", "the program is not installed");
    }
    found
}

/// Returns an environment, unless this machine cannot make the network of the test.
fn env(who: Who) -> Option<Env> {
    if !has_pasta() {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        skip("root", "the test makes network namespaces");
        return None;
    }
    let env = Env::of(who);
    env.base();
    let curl = env.path("context/curl");
    fs::create_dir_all(curl.join("usr/bin")).unwrap();
    fs::copy("/usr/bin/curl", curl.join("usr/bin/curl")).expect("curl is installed");
    copy_libraries(Path::new("/usr/bin/curl"), &curl);
    Some(env)
}

/// Builds `run` on the machine of [`MACHINE`].
fn build(env: &Env, run: &str) -> Done {
    env.write("Dockerfile", format!("FROM base:1\nCOPY curl /\nRUN {run}\n"));
    env.hand_over("context");
    let rbuild = env.command(&["build", "context", "--progress=plain", PRIVATE]);
    let mut machine = Command::new("unshare");
    machine.args(["-n", "-m", "sh", "-euc", MACHINE, "machine"]).arg(rbuild.get_program());
    machine.args(rbuild.get_args()).current_dir(env.path(".")).stdin(Stdio::null());
    machine.env_clear();
    for (name, value) in rbuild.get_envs() {
        machine.env(name, value.unwrap());
    }
    Done::of(machine.output().unwrap())
}

#[test]
fn priv_step_reaches_the_outside_but_not_the_machine() {
    for who in [Who::root(), Who::user()].into_iter().flatten() {
        let Some(env) = env(who) else { return };
        let get = "/usr/bin/curl -sf -m 2";
        let reaches = format!("test \"$({get} http://192.0.2.2:8080/x)\" = outside");
        // The loopback of the machine, its other addresses, and the gateway, which pasta could map to it.
        let not = ["127.0.0.1:8081", "192.0.2.1:8082", "192.0.2.2:8081", "169.254.1.1:8081"];
        let not = not.map(|address| format!("if {get} http://{address}/x; then exit 3; fi"));
        build(&env, &format!("{reaches} && {}", not.join(" && "))).ok();
    }
}

#[test]
fn priv_step_sees_no_sockets_and_no_interfaces_of_the_machine() {
    let Some(env) = env(Who::Caller) else { return };
    let name = format!("rbuild-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("0100007F:{:04X}", tcp.local_addr().unwrap().port());
    let sees = format!(
        "grep -q {name} /proc/net/unix && grep -q {port} /proc/net/tcp && ls /sys/class/net > /names"
    );
    let text = |run: &str| format!("FROM base:1\nRUN {run}\n");
    env.build(&text(&sees), &["--network=default"]).ok();
    let sees_not = format!(
        "! grep {name} /proc/net/unix && ! grep {port} /proc/net/tcp && \
         test $(ls /sys/class/net | wc -l) = 2"
    );
    let built = env.build(&text(&sees_not), &[PRIVATE]);
    if built.stderr.contains("pasta failed") {
        return skip("network", &built.stderr);
    }
    built.ok();
    // `host` and `none` of an instruction are still what they are called.
    let text = "FROM base:1\nRUN --network=none test $(ls /sys/class/net | wc -l) = 1\n";
    env.build(text, &[PRIVATE]).ok();
}

#[test]
fn priv_steps_of_a_build_share_one_network_that_ends_with_it() {
    let Some(env) = env(Who::Caller) else { return };
    let text = "FROM base:1 AS one\nRUN readlink /proc/self/ns/net > /net\n\
                FROM base:1\nRUN readlink /proc/self/ns/net > /net\n\
                RUN --network=default readlink /proc/self/ns/net > /again\n\
                COPY --from=one /net /other\n";
    let built = env.build(text, &[PRIVATE, "-o", "type=local,dest=out"]);
    if built.stderr.contains("pasta failed") {
        return skip("network", &built.stderr);
    }
    built.ok();
    let read = |name: &str| fs::read_to_string(env.path("out").join(name)).unwrap();
    assert_eq!(read("net"), read("other"));
    assert_eq!(read("net"), read("again"));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(read("net").trim(), own.to_str().unwrap());
    assert!(!has_process(&env), "pasta has ended");
    // The network is not part of the key.
    let again = env.build(text, &[]).ok();
    assert!(again.stderr.contains("all cached"), "{}", again.stderr);
}

/// Returns whether a process names the store of the test in its command line.
fn has_process(env: &Env) -> bool {
    let store = env.shown("store");
    let lines = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("cmdline")).ok());
    lines.into_iter().any(|line| line.contains("--netns") && line.contains(&store))
}

#[test]
fn priv_network_ends_when_rbuild_is_killed() {
    let Some(env) = env(Who::Caller) else { return };
    env.write("Dockerfile", "FROM base:1\nRUN echo started; sleep 600\n");
    let mut building = env.command(&["build", "context", "--progress=plain", PRIVATE]);
    let mut building = building.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = std::io::BufReader::new(building.stderr.take().unwrap());
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0 {
        if line.contains("pasta failed") {
            building.wait().unwrap();
            return skip("network", &line);
        }
        if line.trim_end().ends_with(" started") {
            break;
        }
        line.clear();
    }
    assert!(has_process(&env));
    building.kill().unwrap();
    building.wait().unwrap();
    for _ in 0..600 {
        if !has_process(&env) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    std::io::stderr().flush().unwrap();
    panic!("pasta still runs");
}

#[test]
fn priv_missing_pasta_is_named_and_other_isolations_are_refused() {
    let mut env = Env::new();
    env.base();
    let text = "FROM base:1\nRUN true\n";
    let failed = env.build(text, &[PRIVATE, "--isolation=emulated"]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    fs::create_dir(env.path("empty")).unwrap();
    let empty = env.shown("empty");
    env.set("PATH", &empty);
    let failed = env.build(text, &[PRIVATE]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    for part in ["the program pasta is missing", "apt-get install passt", "--network=default"] {
        assert!(failed.stderr.contains(part), "{}", failed.stderr);
    }
}
