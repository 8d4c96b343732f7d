//! The sandbox without mocks: every scenario as root, and as an ordinary user in a user namespace.
#![expect(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild::sandbox::{
    self, Entered, Exit, Limit, Mount, MountSource, Network, Resource, Rootfs, RunSpec,
    SandboxError, SetupOp, User,
};

use crate::support::sandbox::{
    Done, Fixture, WAYS_UP, command, is_root, open, run_in, share, shell, skip, test_user,
    this_program,
};

/// Environment variable with the scenario that [`inside`] runs.
const SCENARIO: &str = "RBUILD_TEST_SCENARIO";

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test]
            fn priv_as_root() {
                if super::is_root() {
                    super::$name();
                } else {
                    super::skip("root");
                }
            }

            #[test]
            fn priv_as_user() {
                super::as_user(stringify!($name));
            }
        })*

        fn scenario(name: &str) -> fn() {
            match name {
                $(stringify!($name) => $name,)*
                "sleeping" => sleeping,
                "exiting" => || std::process::exit(42),
                "aborting" => || std::process::abort(),
                _ => panic!("no scenario {name}"),
            }
        }
    };
}

scenarios!(
    exit_codes_are_passed_on,
    output_is_whole_and_apart,
    the_environment_is_exactly_as_given,
    user_groups_cwd_and_hostname_are_as_given,
    the_command_is_pid_1_and_alone,
    only_the_three_streams_are_open,
    capabilities_are_dockers,
    namespaces_and_mounts_are_denied,
    system_calls_are_filtered_for_both_word_sizes,
    dev_has_what_a_container_has,
    devices_that_a_command_makes_stay_shut,
    proc_and_sys_are_masked_and_read_only,
    no_network_means_loopback_only,
    mounts_appear_where_asked,
    missing_mount_points_are_made,
    parts_of_mounts_without_a_place_are_mounted,
    no_step_leaves_the_rootfs,
    limits_are_as_given,
    hostile_links_do_not_redirect_mounts,
    changes_appear_in_the_upper_directory,
    a_plain_directory_is_a_root_too,
    many_lowers_are_stacked_in_order,
    a_disk_without_inodes_is_named_as_full,
    what_cannot_be_executed_is_told_apart,
    descendants_end_with_the_command,
    cancel_kills,
    insecure_means_all_capabilities,
    steps_run_side_by_side,
    nothing_stays_mounted,
    setuid_programs_work,
    working_directory_does_not_follow_descriptors_of_rbuild,
    program_is_not_reached_by_a_magic_link,
    interpreter_of_a_script_is_not_rbuild,
    interpreter_of_a_program_is_not_rbuild,
    devices_of_the_host_keep_their_modes,
    mount_point_is_not_made_through_a_link_of_another_mount,
    masks_cannot_be_changed,
    inheritable_capabilities_are_not_passed_on,
);

/// Runs a scenario in its own process, as an ordinary user.
fn as_user(name: &str) {
    let user = match is_root().then(test_user).transpose() {
        Ok(user) => user,
        Err(missing) => return skip(&missing),
    };
    let output =
        this_program("sandbox::inside", user).env(SCENARIO, name).output().expect("setpriv");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The body of that process.
#[test]
fn inside() {
    let Ok(name) = std::env::var(SCENARIO) else { return };
    let entered = sandbox::enter_user_namespace().unwrap();
    assert!(entered == Entered::Child || name == "sleeping");
    let passed = std::panic::catch_unwind(scenario(&name)).is_ok();
    std::process::exit(i32::from(!passed));
}

#[track_caller]
fn check(spec: &RunSpec, stdout: &str) {
    let fixture = Fixture::new();
    let done = run_in(&fixture.overlay(), spec).unwrap();
    let want = Done { exit: Exit::Code(0), stdout: stdout.to_owned(), stderr: String::new() };
    assert_eq!(done, want);
}

fn exit_codes_are_passed_on() {
    for (script, code) in [("true", 0), ("exit 7", 7), ("exit 255", 255), ("nonsense", 127)] {
        let fixture = Fixture::new();
        let done = run_in(&fixture.overlay(), &shell(script)).unwrap();
        assert_eq!(done.exit, Exit::Code(code), "{script}");
    }
}

fn output_is_whole_and_apart() {
    let fixture = Fixture::new();
    let script = "echo one; echo two >&2; echo -n three; head -c 300000 /dev/zero | tr '\\0' x >&2";
    let done = run_in(&fixture.overlay(), &shell(script)).unwrap();
    assert_eq!(done.stdout, "one\nthree");
    assert_eq!(done.stderr, format!("two\n{}", "x".repeat(300_000)));
}

fn the_environment_is_exactly_as_given() {
    let mut spec = command(&["env"]);
    spec.env = vec![("B".into(), "2 ".into()), ("PATH".into(), ":/nowhere:/bin".into())];
    check(&spec, "B=2 \nPATH=:/nowhere:/bin\n");
}

fn user_groups_cwd_and_hostname_are_as_given() {
    let mut spec = shell("id -u; id -g; id -G; pwd; hostname; umask; echo shown > /dev/stdout");
    spec.user = User { uid: 1000, gid: 1001, groups: vec![1001, 2000] };
    spec.cwd = "/tmp".into();
    spec.hostname = "elsewhere".to_owned();
    check(&spec, "1000\n1001\n1001 2000\n/tmp\nelsewhere\n0022\nshown\n");
}

fn the_command_is_pid_1_and_alone() {
    let script = "echo $$; tr '\\0' ' ' < /proc/1/cmdline | head -c 8; echo; cat; \
                  ls -d /proc/[0-9]* | wc -l";
    // The three are the shell, `ls` and `wc`.
    check(&shell(script), "1\n/bin/sh \n3\n");
    // No signal is blocked or ignored, not even SIGPIPE, which this program ignores.
    let fields = "^(NSpid|SigBlk|SigIgn|SigCgt|NoNewPrivs):";
    check(
        &command(&["grep", "-E", fields, "/proc/self/status"]),
        "NSpid:\t1\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n\
         SigCgt:\t0000000000000000\nNoNewPrivs:\t0\n",
    );
}

fn only_the_three_streams_are_open() {
    // A descriptor without CLOEXEC, left behind by a careless parent.
    let leaky = rustix::io::dup(fs::File::open("/etc/passwd").unwrap()).unwrap();
    // 3 is the directory that `ls` reads.
    check(&command(&["ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
    drop(leaky);
}

fn capabilities_are_dockers() {
    let mut spec = shell("grep -E '^(Cap|Seccomp:)' /proc/self/status | tr '\\t' ' '");
    // Without CAP_NET_RAW, which can read the host's traffic.
    check(
        &spec,
        "CapInh: 0000000000000000\nCapPrm: 00000000a80405fb\nCapEff: 00000000a80405fb\n\
         CapBnd: 00000000a80405fb\nCapAmb: 0000000000000000\nSeccomp: 2\n",
    );
    spec.network = Network::None;
    check(
        &spec,
        "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n\
         CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nSeccomp: 2\n",
    );
    spec.user = User { uid: 1, gid: 1, groups: Vec::new() };
    check(
        &spec,
        "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
         CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nSeccomp: 2\n",
    );
}

fn namespaces_and_mounts_are_denied() {
    for script in ["unshare -U true", "unshare -n true", "mount -t tmpfs none /tmp", "umount /dev"]
    {
        let fixture = Fixture::new();
        let done = run_in(&fixture.overlay(), &shell(script)).unwrap();
        assert_eq!(done.exit, Exit::Code(1), "{script}: {}", done.stderr);
        let why = ["Operation not permitted", "Permission denied", "permission denied"];
        assert!(why.iter().any(|why| done.stderr.contains(why)), "{script}: {}", done.stderr);
    }
}

/// Returns a program of a few instructions that exits with the errno of one system call.
#[cfg(target_arch = "x86_64")]
fn probe(bits: u8, number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_le_bytes();
    let code: Vec<u8> = if bits == 64 {
        // xor edi,edi; xor esi,esi; xor edx,edx; mov eax,number; syscall; neg eax;
        // mov edi,eax; mov eax,60; syscall
        [
            &[0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2, 0xb8, a, b, c, d, 0x0f, 0x05][..],
            &[0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05],
        ]
        .concat()
    } else {
        // xor ebx,ebx; xor ecx,ecx; mov eax,number; int 0x80; neg eax; mov ebx,eax;
        // mov eax,1; int 0x80
        [
            &[0x31, 0xdb, 0x31, 0xc9, 0xb8, a, b, c, d, 0xcd, 0x80][..],
            &[0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80],
        ]
        .concat()
    };
    elf(bits, &code)
}

/// Returns the smallest executable file around `code`.
#[cfg(target_arch = "x86_64")]
fn elf(bits: u8, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let (class, machine, head, program_head) =
        if bits == 64 { (2_u8, 62_u16, 64_u16, 56_u16) } else { (1, 3, 52, 32) };
    let size = u64::from(head + program_head) + u64::try_from(code.len()).unwrap();
    let word = |value: u64| match bits {
        64 => value.to_le_bytes().to_vec(),
        _ => u32::try_from(value).unwrap().to_le_bytes().to_vec(),
    };
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2_u16.to_le_bytes(), machine.to_le_bytes()].concat());
    file.extend(1_u32.to_le_bytes());
    file.extend(word(BASE + u64::from(head + program_head)));
    file.extend(word(u64::from(head)));
    file.extend(word(0));
    file.extend(0_u32.to_le_bytes());
    for half in [head, program_head, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let (load, flags) = (1_u32.to_le_bytes(), 5_u32.to_le_bytes());
    file.extend(load);
    if bits == 64 {
        file.extend(flags);
    }
    file.extend([word(0), word(BASE), word(BASE), word(size), word(size)].concat());
    if bits == 32 {
        file.extend(flags);
    }
    file.extend(word(4096));
    file.extend(code);
    file
}

#[cfg(target_arch = "x86_64")]
fn system_calls_are_filtered_for_both_word_sizes() {
    const DENIED: u8 = 1;
    const UNKNOWN: u8 = 38;
    let cases = [
        (64, 250, DENIED),   // keyctl
        (64, 165, DENIED),   // mount
        (64, 272, DENIED),   // unshare
        (64, 425, DENIED),   // io_uring_setup
        (64, 435, UNKNOWN),  // clone3
        (64, 1000, UNKNOWN), // not invented yet
        (64, 39, 255),       // getpid: minus one
        (32, 288, DENIED),   // keyctl
        (32, 21, DENIED),    // mount
        (32, 435, UNKNOWN),  // clone3
        (32, 20, 255),       // getpid
    ];
    for (bits, number, want) in cases {
        let fixture = Fixture::new();
        let program = fixture.path("base/bin/probe");
        fs::write(&program, probe(bits, number)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        match run_in(&fixture.overlay(), &command(&["probe"])) {
            Ok(done) => assert_eq!(done.exit, Exit::Code(want), "{bits} {number}"),
            // The kernel does not support 32-bit programs.
            Err(SandboxError::WrongFormat { .. }) if bits == 32 => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn setuid_programs_work() {
    const GETEUID: u32 = 107;
    // The probe exits with the negated result of the call.
    for (mode, want) in [(0o755, 100_u8.wrapping_neg()), (0o4755, 0)] {
        let fixture = Fixture::new();
        let program = fixture.path("base/bin/probe");
        fs::write(&program, probe(64, GETEUID)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let mut spec = command(&["probe"]);
        spec.user = User { uid: 100, gid: 100, groups: Vec::new() };
        assert_eq!(run_in(&fixture.overlay(), &spec).unwrap().exit, Exit::Code(want), "{mode:o}");
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn setuid_programs_work() {
    skip("the probes are x86 programs");
}

#[cfg(not(target_arch = "x86_64"))]
fn system_calls_are_filtered_for_both_word_sizes() {
    skip("the probes are x86 programs");
}

fn working_directory_does_not_follow_descriptors_of_rbuild() {
    let fixture = Fixture::new();
    let mark = fixture.path("base");
    for number in 0..64 {
        for path in ["fd", "fdinfo", "../self/fd", "task/1/fd"] {
            let mut spec = shell(&format!("ls -d .{0} ..{0} ../..{0} ../../..{0}", mark.display()));
            spec.cwd = format!("/proc/self/{path}/{number}").into();
            match run_in(&Fixture::new().overlay(), &spec) {
                Err(SandboxError::Setup { op, .. }) => {
                    assert!(op.starts_with("enter the working directory"), "{op}");
                }
                ran => panic!("{:?}: {ran:?}", spec.cwd),
            }
        }
    }
    for path in ["/proc/self/cwd", "/proc/self/root", "/proc/1/root/bin", "/proc/thread-self/cwd"] {
        let mut spec = shell("true");
        spec.cwd = path.into();
        let error = run_in(&Fixture::new().overlay(), &spec).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot enter the working directory {path}"));
    }
}

fn program_is_not_reached_by_a_magic_link() {
    for path in ["/proc/self/exe", "/proc/1/exe", "/link", "/proc/self/root/bin/true"] {
        let fixture = Fixture::new();
        std::os::unix::fs::symlink("/proc/self/exe", fixture.path("base/link")).unwrap();
        let error = run_in(&fixture.overlay(), &command(&[path])).unwrap_err();
        assert!(matches!(error, SandboxError::MagicLink { .. }), "{path}: {error:?}");
    }
    for number in 3..64 {
        let path = format!("/proc/self/fd/{number}/../../../../bin/true");
        let error = run_in(&Fixture::new().overlay(), &command(&[&path])).unwrap_err();
        assert!(matches!(error, SandboxError::NotFound { .. }), "{path}: {error:?}");
    }
}

/// Runs the executable `program`, which names `/proc/self/exe` as its interpreter.
fn run_with_interpreter(program: &[u8]) {
    let own = fs::metadata("/proc/self/exe").unwrap();
    let fixture = Fixture::new();
    let path = fixture.path("base/bin/program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    // The launcher runs. It exits when a command starts it, or is killed if the program has the
    // same addresses. An error would come from rbuild's own program, whose loader the rootfs lacks.
    let done = run_in(&fixture.overlay(), &command(&["program"])).unwrap();
    assert!(matches!(done.exit, Exit::Code(126) | Exit::Signal(_)), "{done:?}");
    assert_eq!((done.stdout, done.stderr), (String::new(), String::new()));
    let after = fs::metadata("/proc/self/exe").unwrap();
    assert_eq!(after.mode(), own.mode());
}

fn interpreter_of_a_script_is_not_rbuild() {
    run_with_interpreter(b"#!/proc/self/exe --version\n");
    run_with_interpreter(b"#!/proc/1/exe\n");
}

#[cfg(target_arch = "x86_64")]
fn interpreter_of_a_program_is_not_rbuild() {
    run_with_interpreter(&elf_with_interpreter("/proc/self/exe"));
}

#[cfg(not(target_arch = "x86_64"))]
fn interpreter_of_a_program_is_not_rbuild() {
    skip("the probes are x86 programs");
}

/// Returns a program whose ELF interpreter is `path`.
#[cfg(target_arch = "x86_64")]
fn elf_with_interpreter(path: &str) -> Vec<u8> {
    const HEADER: u64 = 64 + 56;
    const BASE: u64 = 0x80_0000;
    let text = format!("{path}\0");
    let mut file = elf(64, &[0x0f, 0x0b]);
    file.truncate(64);
    // Two program headers: PT_INTERP, and one that maps the file.
    file[56..58].copy_from_slice(&2_u16.to_le_bytes());
    file[24..32].copy_from_slice(&BASE.to_le_bytes());
    let len = u64::try_from(text.len()).unwrap();
    let all = HEADER + 56 + len;
    for (kind, at, len) in [(3_u32, HEADER + 56, len), (1, 0, all)] {
        file.extend([kind.to_le_bytes(), 5_u32.to_le_bytes()].concat());
        let values = [at, BASE + at, BASE + at, len, len, 4096];
        file.extend(values.into_iter().flat_map(u64::to_le_bytes));
    }
    file.extend(text.as_bytes());
    file
}

fn devices_of_the_host_keep_their_modes() {
    let devices = ["null", "zero", "full", "random", "urandom", "tty"];
    let look = || {
        devices.map(|name| {
            let about = fs::metadata(Path::new("/dev").join(name)).unwrap();
            (about.mode(), about.uid(), about.gid())
        })
    };
    let before = look();
    let script = "cd /dev; for f in null zero full random urandom tty; do \
                  chmod 0 $f; chown 7:7 $f; touch -d @0 $f; rm -f $f; done 2>/dev/null; true";
    run_in(&Fixture::new().overlay(), &shell(script)).unwrap();
    let after = look();
    for (name, (mode, uid, gid)) in devices.iter().zip(&before) {
        // Restored before the test fails: other programs need them.
        let path = Path::new("/dev").join(name);
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(*mode));
        let _ = std::os::unix::fs::chown(&path, Some(*uid), Some(*gid));
    }
    assert_eq!(after, before);
}

fn mount_point_is_not_made_through_a_link_of_another_mount() {
    let fixture = Fixture::new();
    let cache = fixture.path("cache");
    fs::create_dir_all(&cache).unwrap();
    symlink("/etc", cache.join("link")).unwrap();
    let tmpfs = |target: &str| Mount {
        target: target.into(),
        source: MountSource::Tmpfs { bytes: None, mode: 0o755 },
        read_only: false,
    };
    let shared = Mount {
        target: "/cache".into(),
        source: MountSource::Path { directory: share(&cache) },
        read_only: false,
    };
    let mut spec = shell("true");
    spec.mounts = vec![shared, tmpfs("/cache/own/deep"), tmpfs("/cache/link/evil")];
    let error = run_in(&fixture.overlay(), &spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot mount a tmpfs on /cache/link/evil (writable), mode 755");
    assert!(cache.join("own/deep").is_dir(), "what lies in the cache itself is made there");
    assert!(!fixture.path("upper/etc").exists(), "nothing is left in the layer");
}

fn masks_cannot_be_changed() {
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /sys/firmware; do \
                  [ -e $f ] || continue; \
                  chmod 777 $f 2>/dev/null && echo chmod $f; \
                  chown 7:7 $f 2>/dev/null && echo chown $f; \
                  touch $f 2>/dev/null && echo touch $f; \
                  (echo x > $f) 2>/dev/null && echo write $f; \
                  (echo x > $f/x) 2>/dev/null && echo create $f; done; \
                  umount /proc/keys 2>/dev/null && echo umount; stat -c %s /proc/keys";
    check(&shell(script), "0\n");
}

fn inheritable_capabilities_are_not_passed_on() {
    // As in a caller that `setpriv --inh-caps +chown` started.
    let mut sets = rustix::thread::capabilities(None).unwrap();
    let before = sets;
    sets.inheritable |= rustix::thread::CapabilitySet::CHOWN;
    rustix::thread::set_capabilities(None, sets).unwrap();
    for uid in [0, 1] {
        let mut spec = shell("grep -E '^Cap(Inh|Amb)' /proc/self/status | tr '\\t' ' '");
        spec.user = User { uid, gid: uid, groups: Vec::new() };
        check(&spec, "CapInh: 0000000000000000\nCapAmb: 0000000000000000\n");
    }
    rustix::thread::set_capabilities(None, before).unwrap();
}

fn dev_has_what_a_container_has() {
    let script = "ls /dev; readlink /dev/ptmx; readlink /dev/fd; ls /dev/pts; cat /dev/null; \
                  head -c 3 /dev/urandom | wc -c; stat -f -c %b:%s /dev/shm; stat -c %a /dev/shm; \
                  touch /dev/mqueue/x; ls /dev/mqueue; [ -c /dev/tty ] && echo tty";
    check(
        &shell(script),
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n\
         urandom\nzero\npts/ptmx\n/proc/self/fd\nptmx\n3\n16384:4096\n1777\nx\ntty\n",
    );
}

fn devices_that_a_command_makes_stay_shut() {
    // `/dev/null`, which everyone may open, in each directory that a command can write to. An
    // ordinary user cannot create devices, which is just as good.
    let script = "for f in /null /dev/null2; do mknod $f c 1 3 2>/dev/null; \
                  (: < $f) 2>/dev/null && echo opened $f; done; : < /dev/null && echo given";
    check(&shell(script), "given\n");
}

fn proc_and_sys_are_masked_and_read_only() {
    let script = "wc -c < /proc/keys; wc -c < /proc/timer_list; ls /sys/firmware | wc -l; \
                  for f in /proc/sysrq-trigger /proc/sys/kernel/hostname /sys/x; do \
                  (echo b > $f) 2>/dev/null && echo written $f; done; \
                  grep -c . /proc/self/mountinfo > /dev/null; ls -d /sys/class";
    check(&shell(script), "0\n0\n0\n/sys/class\n");
}

fn no_network_means_loopback_only() {
    let mut spec = shell(
        "ls /sys/class/net; cat /sys/class/net/lo/flags; ping -c1 -W2 127.0.0.1 \
                          > /dev/null && echo alive",
    );
    spec.network = Network::None;
    check(&spec, "lo\n0x9\nalive\n");
}

fn mounts_appear_where_asked() {
    let fixture = Fixture::new();
    for name in ["base/data", "base/scratch", "source/inner"] {
        fs::create_dir_all(fixture.path(name)).unwrap();
    }
    fs::write(fixture.path("source/file"), "content\n").unwrap();
    fs::write(fixture.path("base/etc/hosts"), "").unwrap();
    let mount =
        |target: &str, source, read_only| Mount { target: target.into(), source, read_only };
    let path = |name| MountSource::Path { directory: share(&fixture.path(name)) };
    let mut spec = shell(
        "cat /data/file /etc/hosts; (echo x > /etc/hosts) 2>/dev/null || echo read-only; \
         echo new > /data/written; mkdir /data/inner/deep; stat -f -c %b:%s /scratch; \
         stat -c %a /scratch; touch /scratch/x; cat /data/inner/file",
    );
    spec.mounts = vec![
        mount("/data", path("source"), false),
        mount("/etc/hosts", path("source/file"), true),
        mount("/scratch", MountSource::Tmpfs { bytes: Some(1 << 20), mode: 0o700 }, false),
        mount("/data/inner", path("source"), true),
    ];
    let done = run_in(&fixture.overlay(), &spec).unwrap();
    assert_eq!(done.stdout, "content\ncontent\nread-only\n256:4096\n700\ncontent\n");
    assert!(done.stderr.contains("Read-only file system"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(fixture.path("source/written")).unwrap(), "new\n");
    assert_eq!(fs::read_dir(fixture.path("upper/data")).map_or(0, Iterator::count), 0);
}

/// Overlayfs mounts read-only if it cannot create its work directory.
fn a_disk_without_inodes_is_named_as_full() {
    let fixture = Fixture::new();
    let disk = fixture.path("empty");
    // One inode each for the root, the upper and the work directory.
    let (kind, flags) = (c"tmpfs", rustix::mount::MountFlags::empty());
    rustix::mount::mount(kind, &disk, kind, flags, c"nr_inodes=3").unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(disk.join(name)).unwrap();
    }
    let [base, upper, work] =
        ["base", "empty/upper", "empty/work"].map(|name| open(&fixture.path(name)));
    let error = Rootfs::overlay(&[base.as_fd()], upper.as_fd(), work.as_fd()).map(drop);
    drop((upper, work));
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = error.expect_err("the mount is read-only").to_string();
    assert!(error.contains("the disk of the store is full"), "{error}");
}

fn missing_mount_points_are_made() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("source")).unwrap();
    fs::write(fixture.path("source/file"), "content\n").unwrap();
    let path = |name| MountSource::Path { directory: share(&fixture.path(name)) };
    let tmpfs = || MountSource::Tmpfs { bytes: None, mode: 0o755 };
    let mount = |target: &str, source| Mount { target: target.into(), source, read_only: true };
    let mut spec =
        shell("cat /new/directory/file /new/name /dev/own/deep/file /mem/a/name; ls /mem");
    let mut memory = mount("/mem", tmpfs());
    memory.read_only = false;
    spec.mounts = vec![
        mount("/new/directory", path("source")),
        mount("/new/name", path("source/file")),
        mount("/dev/own/deep", path("source")),
        memory,
        mount("/mem/a/name", path("source/file")),
    ];
    let done = run_in(&fixture.overlay(), &spec).unwrap();
    assert_eq!(done.stdout, "content\ncontent\ncontent\ncontent\na\n", "{}", done.stderr);

    spec.mounts = vec![mount("/etc/passwd/x", path("source"))];
    let error = run_in(&Fixture::new().overlay(), &spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot mount on /etc/passwd/x (read-only)");
}

fn parts_of_mounts_without_a_place_are_mounted() {
    let fixture = Fixture::new();
    let other = Fixture::new();
    fs::create_dir_all(other.path("base/data/deep")).unwrap();
    fs::write(other.path("base/data/deep/file"), "content\n").unwrap();
    symlink("/data", other.path("base/link")).unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let overlay = Arc::new(other.overlay().into_mount());
    let mount = |target: &str, path: &str, read_only| Mount {
        target: target.into(),
        source: MountSource::Inside { mount: Arc::clone(&overlay), path: path.into() },
        read_only,
    };
    let mut spec = shell(
        "cat /file /directory/deep/file; echo more >> /directory/deep/file; cat /directory/deep/file; \
         (echo x >> /file) 2>/dev/null || echo read-only; wc -l < /proc/self/mountinfo > /tmp/n",
    );
    spec.mounts =
        vec![mount("/directory", "/link", false), mount("/file", "/../data/deep/file", true)];
    let done = run_in(&fixture.overlay(), &spec).unwrap();
    assert_eq!(done.stdout, "content\ncontent\ncontent\nmore\nread-only\n", "{}", done.stderr);
    assert_eq!(fs::read_to_string(other.path("upper/data/deep/file")).unwrap(), "content\nmore\n");
    assert_eq!(fs::read_to_string(other.path("base/data/deep/file")).unwrap(), "content\n");
    drop((spec, overlay));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

fn no_step_leaves_the_rootfs() {
    for n_parts in 0..=4 {
        let (fixture, others) = (Fixture::new(), [(); 2].map(|()| Fixture::new()));
        let [one, other] = others.each_ref().map(|other| Arc::new(other.overlay().into_mount()));
        let memory = Arc::new(sandbox::memory_directory().unwrap());
        let sources = [(&one, "/etc"), (&one, "/bin"), (&other, "/etc"), (&memory, "/")];
        let inside = |(number, (mount, path)): (usize, &(&Arc<OwnedFd>, &str))| Mount {
            target: format!("/part{number}").into(),
            source: MountSource::Inside { mount: Arc::clone(mount), path: path.into() },
            read_only: true,
        };
        let mut spec = shell(WAYS_UP);
        let parts = sources.iter().rev().take(n_parts).enumerate();
        spec.mounts = parts.map(inside).collect();
        spec.env.push(("MARK".into(), fixture.path("base").into()));
        let done = run_in(&fixture.overlay(), &spec).unwrap();
        assert_eq!(done.stdout, "tried\n", "{n_parts} parts: {}", done.stderr);
        assert_eq!(done.stderr.matches("No such file").count(), 5, "{}", done.stderr);
    }
}

fn limits_are_as_given() {
    let mut spec = shell("ulimit -n; ulimit -Hn; ulimit -c");
    spec.limits = vec![
        Limit { resource: Resource::Nofile, soft: Some(100), hard: Some(200) },
        Limit { resource: Resource::Core, soft: Some(0), hard: Some(0) },
    ];
    let done = run_in(&Fixture::new().overlay(), &spec).unwrap();
    assert_eq!(done.stdout, "100\n200\n0\n", "{}", done.stderr);
}

fn hostile_links_do_not_redirect_mounts() {
    let fixture = Fixture::new();
    let outside = fixture.path("outside");
    fs::create_dir_all(&outside).unwrap();
    // Absolute links and links that climb. The targets exist in the rootfs, as directories.
    for (name, to) in [("proc", "/root"), ("dev", "../../../../../../tmp"), ("sys", "/etc")] {
        symlink(to, fixture.path("base").join(name)).unwrap();
    }
    fs::create_dir_all(fixture.path("base/data")).unwrap();
    symlink(&outside, fixture.path("base/data/link")).unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let done =
        run_in(&fixture.overlay(), &shell("cat /root/1/comm; ls /tmp/null; ls -d /etc/class"));
    assert_eq!(done.unwrap().stdout, "sh\n/tmp/null\n/etc/class\n");
    let mut spec = shell("true");
    let source = MountSource::Tmpfs { bytes: None, mode: 0o755 };
    spec.mounts = vec![Mount { target: "/data/link".into(), source, read_only: false }];
    // The link's target exists outside, but not inside; nothing is created through a link.
    let error = run_in(&Fixture::overlay(&again(&fixture)), &spec).unwrap_err();
    assert!(matches!(error, SandboxError::Setup { .. }), "{error:?}");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

/// Returns a fixture with a copy of the links in `data`.
fn again(fixture: &Fixture) -> Fixture {
    let other = Fixture::new();
    fs::create_dir_all(other.path("base/data")).unwrap();
    symlink(fixture.path("outside"), other.path("base/data/link")).unwrap();
    other
}

fn changes_appear_in_the_upper_directory() {
    let fixture = Fixture::new();
    fs::write(fixture.path("base/tmp/old"), "").unwrap();
    let script = "rm /etc/passwd; rm -r /tmp; mkdir /tmp; echo new > /tmp/new; chown 7:8 /tmp/new";
    let done = run_in(&fixture.overlay(), &shell(script)).unwrap();
    assert_eq!((done.exit, done.stderr.as_str()), (Exit::Code(0), ""));

    let gone = fs::symlink_metadata(fixture.path("upper/etc/passwd")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let opaque =
        if sandbox::in_user_namespace() { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    let mut value = [0; 8];
    let len = rustix::fs::lgetxattr(fixture.path("upper/tmp"), opaque, &mut value).unwrap();
    assert_eq!(&value[..len], b"y");
    let new = fs::metadata(fixture.path("upper/tmp/new")).unwrap();
    assert_eq!((new.uid(), new.gid(), new.len()), (7, 8, 4));
    // The directories that were created for mounts stay, as in BuildKit.
    let mut names: Vec<_> =
        fs::read_dir(fixture.path("upper")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dev", "etc", "proc", "sys", "tmp"]);
}

fn a_plain_directory_is_a_root_too() {
    let fixture = Fixture::new();
    let base = open(&fixture.path("base"));
    let rootfs = Rootfs::bind(base.as_fd()).unwrap();
    let done = run_in(&rootfs, &shell("echo here > /tmp/file; cat /tmp/file")).unwrap();
    assert_eq!(done.stdout, "here\n");
    assert_eq!(fs::read_to_string(fixture.path("base/tmp/file")).unwrap(), "here\n");
    assert_eq!(fs::read_dir(fixture.path("base/proc")).unwrap().count(), 0);
}

fn many_lowers_are_stacked_in_order() {
    let fixture = Fixture::new();
    let directories: Vec<_> = (0..200)
        .map(|n| {
            let directory = fixture.path(&format!("lower, with \"odd\": name {n}"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("top"), format!("{n}\n")).unwrap();
            fs::write(directory.join(format!("only{n}")), "").unwrap();
            open(&directory)
        })
        .collect();
    let base = open(&fixture.path("base"));
    let lowers: Vec<_> = std::iter::once(base.as_fd())
        .chain(directories.iter().map(|directory| directory.as_fd()))
        .collect();
    let [upper, work] = ["upper", "work"].map(|name| open(&fixture.path(name)));
    let rootfs = Rootfs::overlay(&lowers, upper.as_fd(), work.as_fd()).unwrap();
    let done = run_in(&rootfs, &shell("cat /top; ls / | grep -c only")).unwrap();
    assert_eq!(done.stdout, "199\n200\n");
}

fn what_cannot_be_executed_is_told_apart() {
    let fixture = Fixture::new();
    for (name, content, mode) in [
        ("script", "#!/no/interpreter\n", 0o755),
        ("text", "echo no\n", 0o755),
        ("secret", "#!/bin/sh\n", 0o644),
    ] {
        let path = fixture.path("base/bin").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let why = |argv: &[&str]| {
        let [base, upper, work] = ["base", "upper", "work"].map(|name| open(&fixture.path(name)));
        let _ = fs::remove_dir_all(fixture.path("work/work"));
        let rootfs = Rootfs::overlay(&[base.as_fd()], upper.as_fd(), work.as_fd()).unwrap();
        run_in(&rootfs, &command(argv)).unwrap_err().to_string()
    };
    assert_eq!(why(&["missing"]), "`missing` was not found in the image");
    assert_eq!(why(&["/bin/missing"]), "`/bin/missing` was not found in the image");
    assert_eq!(why(&["/etc/passwd/x"]), "`/etc/passwd/x` was not found in the image");
    assert!(why(&["script"]).contains("the interpreter that it names is not"));
    assert!(why(&["text"]).contains("without a `#!` line"));
    assert!(why(&["secret"]).contains("no permission to execute"));
    assert_eq!(why(&[]), "`` was not found in the image");

    let fixture = Fixture::new();
    let mut spec = shell("true");
    spec.cwd = "/nowhere".into();
    let error = run_in(&fixture.overlay(), &spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot enter the working directory /nowhere");
}

/// Returns whether a process anywhere on the machine has `argument` on its command line.
fn runs_somewhere(argument: &str) -> bool {
    let directories = fs::read_dir("/proc").unwrap().flatten();
    directories
        .map(|directory| fs::read(directory.path().join("cmdline")).unwrap_or_default())
        .any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

fn descendants_end_with_the_command() {
    let marker = format!("{}.25", 100_000 + std::process::id());
    let fixture = Fixture::new();
    let script =
        format!("sleep {marker} & setsid sleep {marker} & (sleep {marker} &) ; echo started");
    let done = run_in(&fixture.overlay(), &shell(&script)).unwrap();
    assert_eq!(done.stdout, "started\n");
    assert!(!runs_somewhere(&marker));
}

fn cancel_kills() {
    let fixture = Fixture::new();
    let (cancel, trigger) = rustix::pipe::pipe().unwrap();
    let rootfs = fixture.overlay();
    let mut trigger = Some(trigger);
    let exit = sandbox::run(
        &rootfs,
        &shell("echo on; sleep 1000"),
        Some(cancel.as_fd()),
        &mut |_, bytes| {
            assert_eq!(bytes, b"on\n");
            rustix::io::write(trigger.take().unwrap(), b"!").unwrap();
        },
    );
    assert_eq!(exit.unwrap(), Exit::Signal(9));
}

fn insecure_means_all_capabilities() {
    let script = "grep -E '^Seccomp:' /proc/self/status | tr '\\t' ' '; mount -t tmpfs none /tmp && \
                  grep -c ' /tmp ' /proc/self/mounts";
    let mut spec = shell(script);
    spec.insecure = true;
    check(&spec, "Seccomp: 0\n1\n");
}

fn steps_run_side_by_side() {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn(move || {
                    for round in 0..4 {
                        let want = format!("{n} {round}");
                        check(&shell(&format!("echo {want}")), &format!("{want}\n"));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn nothing_stays_mounted() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    check(&shell("true"), "");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

/// Not a scenario of its own: the process that [`priv_a_killed_rbuild_takes_the_step_along`] kills.
fn sleeping() {
    let fixture = Fixture::new();
    let marker = std::env::var("RBUILD_TEST_MARKER").unwrap();
    let spec = shell(&format!("echo started; sleep {marker} & sleep {marker}"));
    let exit = sandbox::run(&fixture.overlay(), &spec, None, &mut |_, _| println!("\nstarted"));
    panic!("{exit:?}");
}

#[test]
fn priv_a_killed_rbuild_takes_the_step_along() {
    for user in [None, Some(())] {
        let user = match user.map(|()| test_user()).transpose() {
            Ok(user) => user.filter(|_| is_root()),
            Err(missing) => return skip(&missing),
        };
        let marker = format!("{}.5{}", 200_000 + std::process::id(), u8::from(user.is_some()));
        let mut child = this_program("sandbox::inside", user)
            .env(SCENARIO, "sleeping")
            .env("RBUILD_TEST_MARKER", &marker)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "started"));
        let appeared = becomes(true, &marker);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(appeared);
        assert!(becomes(false, &marker), "the step lives on");
    }
}

/// Waits until a process with `argument` on its command line exists or, if not `wanted`, no longer
/// exists. Returns false after 10 seconds.
fn becomes(wanted: bool, argument: &str) -> bool {
    let begun = Instant::now();
    while runs_somewhere(argument) != wanted {
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Returns the exit code of the process outside, which waits while `name` runs in its user
/// namespace.
fn outcome(name: &str) -> Option<i32> {
    let user = test_user().unwrap();
    let mut child = this_program("sandbox::inside", is_root().then_some(user));
    child.env(SCENARIO, name).output().unwrap().status.code()
}

#[test]
fn priv_the_process_outside_ends_as_the_one_inside() {
    if let Err(missing) = test_user() {
        return skip(&missing);
    }
    assert_eq!(outcome("exiting"), Some(42));
    assert_eq!(outcome("aborting"), Some(128 + 6));
}

#[test]
fn priv_without_subordinate_ids_the_error_says_what_to_do() {
    if !is_root() {
        return skip("root");
    }
    // `nobody` has no subordinate ids.
    let nobody = crate::support::sandbox::TestUser { uid: 65534, gid: 65534 };
    let output =
        this_program("sandbox::inside", Some(nobody)).env(SCENARIO, "exiting").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("usermod --add-subuids 100000-165535 nobody"), "{said}");
}

#[test]
fn the_setup_of_a_step_is_this_list() {
    let mut spec = shell("true");
    spec.network = Network::None;
    spec.user = User { uid: 7, gid: 8, groups: vec![8, 9] };
    spec.cwd = "/work".into();
    spec.mounts = vec![
        Mount {
            target: "/etc/hosts".into(),
            source: MountSource::Path { directory: share(Path::new("/")) },
            read_only: true,
        },
        Mount {
            target: "/scratch".into(),
            source: MountSource::Tmpfs { bytes: Some(4096), mode: 0o1777 },
            read_only: false,
        },
    ];
    insta::assert_snapshot!("sandbox_setup", list(&spec));
    spec.insecure = true;
    spec.user = User::root();
    insta::assert_snapshot!("sandbox_setup_insecure", list(&spec));
}

fn list(spec: &RunSpec) -> String {
    let lines = sandbox::rootfs_ops(spec).iter().map(SetupOp::to_string).collect::<Vec<_>>();
    lines.join("\n")
}

/// Prints the cost of running `/bin/true`, if `RBUILD_TEST_COST` gives the number of runs.
#[test]
fn priv_cost_of_a_step() {
    let rounds = std::env::var("RBUILD_TEST_COST").ok().and_then(|text| text.parse().ok());
    let Some(rounds) = rounds else { return };
    for network in [Network::Host, Network::None] {
        let mut times: Vec<Duration> = (0..rounds)
            .map(|_: usize| {
                let fixture = Fixture::new();
                for name in ["base/proc", "base/sys", "base/dev"] {
                    fs::create_dir_all(fixture.path(name)).unwrap();
                }
                let mut spec = command(&["/bin/true"]);
                spec.network = network.clone();
                let begun = Instant::now();
                let rootfs = fixture.overlay();
                assert_eq!(run_in(&rootfs, &spec).unwrap().exit, Exit::Code(0));
                drop(rootfs);
                begun.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("{network:?}: best {:?}, median {:?}", times[0], times[times.len() / 2]);
    }
}
