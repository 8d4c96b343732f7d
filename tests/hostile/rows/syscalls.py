"""What docker's default profile stops: system calls, `/proc`, `/sys`, devices, sockets, objects of the host.

The tables below are given to `probe` inside a step, all those of a class in one build. Each probe is an
attack of its own: one that is ALLOWED has failed, and so has a control that is DENIED.
"""

import os
import platform
import re

from lib.suite import File, row
from lib.world import SYSV_KEY

IS_X86 = platform.machine() == "x86_64"

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET, NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x80
SIGCHLD = 17

# Name, numbers on x86-64 and i386 (None: does not exist there), arguments. A call that is made does
# nothing: null pointers, bad descriptors, values that do not exist.
CALLS = [
    ("acct", 163, 51, 1), ("add_key", 248, 286), ("request_key", 249, 287), ("keyctl", 250, 288, 0, -3),
    ("bpf", 321, 357), ("clock_settime", 227, 264), ("stime", None, 25),
    ("create_module", 174, 127), ("delete_module", 176, 129), ("init_module", 175, 128),
    ("finit_module", 313, 350, -1), ("get_kernel_syms", 177, 130), ("query_module", 178, 167),
    ("get_mempolicy", 239, 275), ("set_mempolicy", 238, 276, 99), ("mbind", 237, 274, 1, 1, 99),
    ("migrate_pages", 256, 294, -1), ("move_pages", 279, 317, -1),
    ("set_mempolicy_home_node", 450, 450, 0, 0, 99, 99),
    ("ioperm", 173, 101, 0, 0x10000, 1), ("iopl", 172, 110, 9), ("kcmp", 312, 349, -1, -1),
    ("kexec_load", 246, 283, 0, 99), ("kexec_file_load", 320, None, -1, -1),
    ("lookup_dcookie", 212, 253), ("mount", 165, 21), ("umount2", 166, 52), ("umount", None, 22),
    ("pivot_root", 155, 217), ("move_mount", 429, 429, -1, 0, -1), ("open_tree", 428, 428, -1),
    ("open_tree_attr", 467, 467, -1), ("fsopen", 430, 430), ("fsconfig", 431, 431, -1),
    ("fsmount", 432, 432, -1), ("fspick", 433, 433, -1), ("mount_setattr", 442, 442, -1),
    ("open_by_handle_at", 304, 342, -1), ("nfsservctl", 180, 169), ("perf_event_open", 298, 336),
    ("quotactl", 179, 131, -1), ("quotactl_fd", 443, 443, -1), ("reboot", 169, 88, 1, 2, 3),
    ("sethostname", 170, 74, 0, -1), ("setdomainname", 171, 121, 0, -1), ("setns", 308, 346, -1),
    ("settimeofday", 164, 79, 1, 1), ("swapon", 167, 87), ("swapoff", 168, 115), ("sysfs", 139, 135, 9),
    ("_sysctl", 156, 149), ("uselib", 134, 86), ("userfaultfd", 323, 374, -1), ("ustat", 136, 62),
    ("vm86", None, 166), ("vm86old", None, 113), ("vhangup", 153, 111), ("syslog", 103, 103, 9),
    ("io_uring_setup", 425, 425), ("io_uring_enter", 426, 426, -1), ("io_uring_register", 427, 427, -1),
    ("fanotify_init", 300, 338, -1, -1), ("clone3", 435, 435),
    ("unshare-user", 272, 310, NEWUSER), ("unshare-mounts", 272, 310, NEWNS),
    ("unshare-network", 272, 310, NEWNET), ("unshare-pids", 272, 310, NEWPID),
    ("unshare-cgroup", 272, 310, NEWCGROUP), ("unshare-time", 272, 310, NEWTIME),
    ("clone-user", 56, 120, NEWUSER | SIGCHLD), ("clone-mounts", 56, 120, NEWNS | SIGCHLD),
    ("clone-network", 56, 120, NEWNET | SIGCHLD),
    ("personality-no-randomize", 135, 136, 0x0040000),
    ("personality-read-implies-exec", 135, 136, 0x0400000),
    ("personality-mmap-page-zero", 135, 136, 0x0100000),
]

READ = """/proc/acpi/wakeup /proc/asound/version /proc/interrupts /proc/kcore /proc/keys /proc/kmsg
/proc/latency_stats /proc/sched_debug /proc/scsi/scsi /proc/timer_list /proc/timer_stats
/sys/firmware/dmi/tables/DMI /sys/firmware/memmap/0/start /sys/firmware/acpi/tables/DSDT
/sys/devices/virtual/powercap/intel-rapl/enabled /sys/kernel/debug/sched/debug /sys/kernel/tracing/trace
/dev/core /dev/mem /dev/kmsg /dev/vda /dev/sda /proc/1/root/host/secret /proc/1/cwd/etc/canary""".split()

WRITE = """/proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe
/proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/sys/kernel/shmmax
/proc/sys/kernel/randomize_va_space /proc/sys/kernel/panic /proc/sys/kernel/ns_last_pid
/proc/sys/kernel/poweroff_cmd /proc/sys/kernel/unprivileged_bpf_disabled /proc/sys/vm/overcommit_memory
/proc/sys/vm/drop_caches /proc/sys/vm/panic_on_oom /proc/sys/fs/binfmt_misc/register
/proc/sys/fs/binfmt_misc/status /proc/sys/fs/file-max /proc/sys/fs/suid_dumpable
/proc/sys/fs/protected_symlinks /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range
/proc/sys/user/max_user_namespaces /proc/irq/default_smp_affinity /proc/mtrr /proc/acpi/wakeup
/proc/scsi/scsi /proc/fs/nfsd/threads /proc/timer_stats /proc/bus/pci/00/00.0 /proc/latency_stats
/sys/kernel/uevent_helper /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/ksm/run
/sys/kernel/profiling /sys/kernel/kexec_crash_size /sys/power/state /sys/power/disk
/sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/release_agent /sys/fs/cgroup/memory/release_agent
/sys/module/kernel/parameters/panic /sys/devices/system/cpu/cpu0/uevent
/sys/class/mem/null/uevent /sys/class/net/lo/mtu /sys/class/net/lo/ifalias /sys/bus/pci/rescan
/sys/kernel/security/apparmor/.load /sys/kernel/tracing/tracing_on /sys/block/vda/uevent""".split()

NODES = """b 8 0 sda|b 254 0 vda|b 253 0 vda-old|b 259 0 nvme|b 7 0 loop0|b 1 0 ram0|c 1 1 mem|c 1 2 kmem
|c 1 4 port|c 1 11 kmsg|c 5 1 console|c 4 0 tty0|c 4 64 ttyS0|c 10 200 tun|c 10 232 kvm|c 10 229 fuse
|c 10 237 loop-control|c 10 236 mapper-control|c 10 238 vhost-net|c 10 183 hwrng|c 10 231 snapshot
|c 10 223 uinput|c 10 135 rtc|c 10 235 autofs|c 202 0 msr|c 203 0 cpuid|c 10 126 userfaultfd"""

MASKS = """/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats
/proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap
/sys/firmware /proc/sysrq-trigger /proc/sys/kernel/core_pattern""".split()

# Those that work in any container: a probe that answers DENIED to all of it has seen nothing.
CONTROLS = {
    "calls": [("call control-getpid 39" if IS_X86 else "call control-getpid 172")]
    + (["int80 control-getpid-by-int80 20"] if IS_X86 else []),
    "proc": ["read control-read-passwd /etc/passwd", "write control-write-comm /proc/self/comm",
             "write control-write-passwd /etc/passwd"],
    "sockets": ["socket control-tcp 2 1 0", "socket control-udp 2 2 0", "socket control-unix 1 1 0"],
}


def calls():
    for name, native, i386, *arguments in CALLS:
        words = " ".join(map(str, arguments))
        if not IS_X86:
            continue
        if native is not None:
            yield f"call {name} {native} {words}"
            yield f"call {name}-by-x32 {native | 0x40000000} {words}"
        if i386 is not None:
            yield f"int80 {name}-by-int80 {i386} {words}"


def proc():
    for path in READ:
        yield f"read read{path} {path}"
    for path in WRITE:
        yield f"write write{path} {path}"


def nodes():
    for line in NODES.replace("\n", "").split("|"):
        kind, major, minor, name = line.split()
        yield f"node mknod-{name} {kind} {major} {minor}"


def sockets():
    for name, family, kind, protocol in (
        ("packet", 17, 3, 0), ("packet-dgram", 17, 2, 0), ("raw-icmp", 2, 3, 1), ("raw-icmp6", 10, 3, 58),
        ("raw-ip", 2, 3, 255), ("xdp", 44, 3, 0), ("vsock", 40, 1, 0),
    ):
        yield f"socket socket-{name} {family} {kind} {protocol}"
    yield "socketcall socket-packet-by-socketcall 17 3 0"


def objects():
    yield "connect connect-docker-socket /run/docker.sock"
    yield "connect connect-docker-socket-in-var /var/run/docker.sock"
    yield "connect connect-socket-by-process-root /proc/1/root/run/canary.sock"
    yield f"shm sysv-shared-memory-of-the-host {SYSV_KEY}"
    yield f"queue sysv-queue-of-the-host {SYSV_KEY}"
    yield "read posix-shared-memory-of-the-host /dev/shm/canary"
    yield "read posix-queue-of-the-host /dev/mqueue/canary"
    yield "inherited descriptor-inherited-from-rbuild"
    for name, path in (("controlling-terminal", "/dev/tty"), ("console", "/dev/console"),
                       ("standard-input", "/proc/self/fd/0"), ("standard-output", "/proc/self/fd/1")):
        yield f"tiocsti tiocsti-{name} {path}"
        yield f"tioclinux tioclinux-{name} {path}"
    yield "signals signal-a-process-of-another-group"
    yield "traces ptrace-a-process-of-another-group"


def names(lines):
    return tuple(line.split()[1] for line in lines)


def probe_row(name, lines, seconds=60, before="", own_network_is_enough=False, **facts):
    lines = list(lines)

    def run(t):
        t.context({"probes": "\n".join(lines) + "\n", "net": os.readlink("/proc/self/ns/net")})
        result = t.build(f"FROM base\nCOPY probes /\n{before}RUN readlink /proc/self/ns/net | sed 's/^/NET /';"
                         " probe < /probes\n", expect="ok")
        found = dict(re.findall(r"PROBE (\S+) ((?:DENIED|ALLOWED).*)", result.text))
        own_network = f" NET {os.readlink('/proc/self/ns/net')}" not in result.text
        for part in names(lines):
            answer = found.get(part, "no answer")
            wanted = "ALLOWED" if part.startswith("control-") else "DENIED"
            if own_network_is_enough and own_network and "vsock" not in part:
                continue
            if not answer.startswith(wanted):
                t.fail_part(part, f"must be {wanted}: {answer}")

    row(name, parts=names(lines), seconds=seconds, **facts)(run)


def as_user(lines):
    """The same probes under other names, for a step of an ordinary user."""
    for line in lines:
        way, name, *rest = line.split()
        if not name.startswith("control-write"):
            yield " ".join([way, f"{name}-as-app", *rest])


probe_row("probes-of-system-calls", [*calls(), *CONTROLS["calls"]])
probe_row("probes-of-proc-and-sys", [*proc(), *CONTROLS["proc"]])
probe_row("probes-of-proc-and-sys-as-app", [line for line in as_user(proc())], before="USER app\n")
probe_row("probes-of-device-nodes", nodes())
probe_row("probes-of-sockets", [*sockets(), *CONTROLS["sockets"]], own_network_is_enough=True)
probe_row("probes-of-objects-of-the-host", objects())


@row("modes-of-devices-and-masks-stay", seconds=30)
def _(t):
    """Whether chmod works is not the question: the host's inode must not change."""
    masks = " ".join(MASKS)
    t.build(f"FROM base\nRUN for i in /dev/* {masks}; do chmod 0 $i; chown 5:5 $i; touch $i; setfattr -n"
            " user.x -v y $i; truncate -s 0 $i; mv $i $i.moved; rm -f $i; done 2>/dev/null; true\n",
            expect="ok")


for device in ("null", "zero", "full", "random", "urandom", "tty"):
    def _device(t, device=device):
        t.build(f"FROM base\nRUN chmod 0 /dev/{device}; chown 1:1 /dev/{device}; true\n", expect="ok")

    row(f"chmod-and-chown-of-dev-{device}")(_device)


@row("capabilities-are-those-of-docker", cve="CVE-2025-27612")
def _(t):
    docker = 0xA80425FB
    result = t.build("FROM base\nRUN sed 's/^/ROOT /' /proc/self/status\nUSER app\n"
                     "RUN sed 's/^/APP /' /proc/self/status\n", expect="ok")
    for user, name, value in re.findall(r"(ROOT|APP) (Cap\w+):\s+([0-9a-f]+)", result.text):
        allowed = 0 if name in ("CapInh", "CapAmb") or (user == "APP" and name != "CapBnd") else docker
        if int(value, 16) & ~allowed:
            t.count("W", f"{user} has {name} {value}")
    if len(re.findall(r"(?:ROOT|APP) Seccomp:\s+2", result.text)) != 2:
        t.count("W", "a step runs without a filter of system calls")


@row("dev-holds-only-what-a-container-has")
def _(t):
    result = t.build("FROM base\nRUN cd /dev && for i in *; do echo DEV $i; done\n", expect="ok")
    known = set("null zero full random urandom tty pts ptmx shm mqueue fd stdin stdout stderr core rbuild".split())
    for name in re.findall(r"^#\d+ [\d.]+ DEV (\S+)", result.text, re.M):
        if name not in known:
            t.count("R", f"/dev/{name} is in the step")


@row("processes-of-the-host-cannot-be-seen-or-signalled")
def _(t):
    result = t.build("FROM base\nRUN for i in /proc/[0-9]*; do cat $i/cmdline $i/environ; done | tr '\\0' ' ';"
                     " kill -9 -1; sleep 0.1; true\n")
    t.build("FROM base\nRUN kill -STOP -1; i=2; while [ $i -lt 300 ]; do kill -9 $i 2>/dev/null; i=$((i+1));"
            " done; true\n")


@row("environment-of-rbuild-does-not-reach-a-step")
def _(t):
    result = t.build("FROM base\nRUN env | sed 's/^/ENV /'; tr '\\0' '\\n' </proc/1/environ\n", expect="ok")
    for name in re.findall(r"^#\d+ [\d.]+ ENV (\w+)=", result.text, re.M):
        if name not in ("PATH", "HOME", "PWD", "SHLVL", "HOSTNAME"):
            t.fail(f"variable {name} is in the step")


@row("abstract-socket-is-not-reached-without-network")
def _(t):
    result = t.build("FROM base\nRUN echo connect abstract @hostile-abstract | probe\n",
                     "--network=none", expect="ok")
    if "PROBE abstract DENIED" not in result.text:
        t.fail("the abstract socket was reached")


@row("loopback-of-the-host-is-not-reached-without-network")
def _(t):
    import socket
    import threading

    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def accept():
        while True:
            connection, _ = server.accept()
            connection.sendall(t.world.token("tcp").encode())
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    t.build(f"FROM base\nRUN nc -w 1 127.0.0.1 {port} </dev/null; true\n", "--network=none", expect="ok")


@row("a-step-ends-with-all-its-processes")
def _(t):
    t.build("FROM base\nRUN (setsid sh -c 'trap \"\" TERM HUP INT; sleep 60' >/dev/null 2>&1 </dev/null &)"
            " ; sleep 0.1\n", expect="ok")


@row("a-crash-writes-no-core-outside", modes=("root", "user"))
def _(t):
    t.build("FROM base\nRUN ulimit -c unlimited; (kill -SEGV $(sh -c 'echo $PPID')); true\n")


@row("set-id-bits-of-a-step-give-nothing-to-another-user")
def _(t):
    """A program with the set-uid bit in a layer must not be reachable by other users of the machine."""
    t.build("FROM base\nRUN cp /bin/busybox /su && chmod 4777 /su\n", expect="ok")
    import subprocess
    found = subprocess.run(["find", t.store, "-perm", "-4000"], capture_output=True, text=True, user=20001,
                           group=20001, extra_groups=[])
    if found.stdout.strip():
        t.count("W", f"another user reaches {found.stdout.split()[0]}")
