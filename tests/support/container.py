#!/usr/bin/env python3
"""Runs a command as `docker run` does, without docker: with the namespaces, mounts, capabilities and seccomp rules that
a container has by default.

    tests/support/container.py [OPTIONS] ROOT COMMAND [ARGUMENT...]

ROOT is a directory with the files of the image. The container sees it through an overlay in memory, so it is never
changed. The options are those of `docker run`:

    -u, --user UID[:GID]            numbers only; the group is 0 unless /etc/passwd of ROOT names one
    --cap-drop ALL                  no capabilities
    --security-opt OPTION           no-new-privileges, or {seccomp,systempaths,apparmor}=unconfined
    --privileged                    all capabilities, no seccomp rules, a writable /sys, all devices
    --read-only                     a read-only root
    --tmpfs PATH[:OPTIONS]          file system in memory, nosuid,nodev,noexec unless OPTIONS say otherwise
    -v, --volume SOURCE:PATH[:ro]   a file or directory of the host
    --network none|host             none is the default
    -e NAME=VALUE, -w DIRECTORY

Beyond docker: `--size BYTES` limits each file system in memory (512m), and `--plain` copies ROOT to a tmpfs instead of
mounting an overlay, as happens too where no overlay can be mounted.

It needs root and Python 3.9. Exit status: that of the command, or 125 if the container cannot be set up, 126 or 127 if
the command cannot be executed. No mount or process outlives this program, even if it is killed.

Differences from docker: no device cgroup, so a device that the command creates can be opened; no AppArmor profile; no
bridge network; programs of 32 bits are not filtered; /sys/fs/cgroup is empty.
"""

import argparse
import ctypes
import fcntl
import os
import platform
import re
import shutil
import signal
import socket
import stat
import struct
import sys
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)

# mount(2), clone(2), prctl(2), capget(2), seccomp(2): values of the kernel's headers.
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC = 1, 2, 4, 8, 32, 4096, 16384
PRIVATE, STRICTATIME, DETACH = 1 << 18, 1 << 24, 2
NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
CAPABILITY_VERSION_3, SECCOMP_MODE_FILTER, JOIN_SESSION_KEYRING = 0x20080522, 2, 1

# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
# audit_write, setfcap.
DEFAULT_CAPABILITIES = 0xA80425FB

# Paths that runc covers and those that it makes read-only, as the daemon asks it to.
MASKED = """/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug
    /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware""".split()
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
         "ptmx": "pts/ptmx"}

# The calls that docker's default profile denies to a container without added capabilities, as Docker 28 answers them:
# name, number on x86-64, number on aarch64. Later calls do not exist.
DENIED = """
    syslog 103 116              uselib 134 -                ustat 136 -                 sysfs 139 -
    vhangup 153 58              pivot_root 155 41           _sysctl 156 -               acct 163 89
    settimeofday 164 170        mount 165 40                umount2 166 39              swapon 167 224
    swapoff 168 225             reboot 169 142              sethostname 170 161         setdomainname 171 162
    iopl 172 -                  ioperm 173 -                create_module 174 -         init_module 175 105
    delete_module 176 106       get_kernel_syms 177 -       query_module 178 -          quotactl 179 60
    nfsservctl 180 42           getpmsg 181 -               putpmsg 182 -               afs_syscall 183 -
    tuxcall 184 -               security 185 -              lookup_dcookie 212 18       clock_settime 227 112
    vserver 236 -               mbind 237 235               set_mempolicy 238 237       get_mempolicy 239 236
    kexec_load 246 104          add_key 248 217             request_key 249 218         keyctl 250 219
    migrate_pages 256 238       unshare 272 97              move_pages 279 239          perf_event_open 298 241
    fanotify_init 300 262       open_by_handle_at 304 265   setns 308 268               kcmp 312 272
    finit_module 313 273        kexec_file_load 320 294     bpf 321 280                 userfaultfd 323 282
    io_uring_setup 425 425      io_uring_enter 426 426      io_uring_register 427 427   open_tree 428 428
    move_mount 429 429          fsopen 430 430              fsconfig 431 431            fsmount 432 432
    fspick 433 433              pidfd_getfd 438 438         process_madvise 440 440     mount_setattr 442 442
    quotactl_fd 443 443         set_mempolicy_home_node 450 450                         lsm_get_self_attr 459 459
    lsm_set_self_attr 460 460   lsm_list_modules 461 461
"""
NEWEST = 466
EPERM, ENOSYS = 0x50000 | 1, 0x50000 | 38
ALLOW = 0x7FFF0000
# Denied if the container lacks CAP_SYS_CHROOT.
DENIED_WITHOUT_CAPABILITIES = "chroot 161 51"
# Per machine: AUDIT_ARCH_*, the column of DENIED, numbers that no call has, clone, clone3, personality, socket.
MACHINES = {
    "x86_64": (0xC000003E, 1, range(337, 424), 56, 435, 135, 41),
    "aarch64": (0xC00000B7, 2, range(295, 424), 220, 435, 92, 198),
}


class Failed(Exception):
    """The container cannot be set up."""


def call(name, *arguments):
    """Calls a function of the C library that returns -1 with errno."""
    result = getattr(LIBC, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        shown = ", ".join(a.decode() if isinstance(a, bytes) else str(a) for a in arguments)
        raise OSError(error, f"{name}({shown}): {os.strerror(error)}")
    return result


def mount(source, target, kind=None, flags=0, data=None):
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    call("mount", *encoded, ctypes.c_ulong(flags), None if data is None else os.fsencode(data))


def seccomp_filter(no_capabilities):
    """Compiles the table to classic BPF; seccomp(2) describes the data it reads."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise Failed(f"no seccomp rules for {platform.machine()}")
    arch, column, unused, clone, clone3, personality, socket_call = machine
    code = []

    def add(opcode, value, true=0, false=0):
        code.append(struct.pack("HBBI", opcode, true, false, value))

    load, equal, above, and_, give = 0x20, 0x15, 0x25, 0x54, 0x06
    number, first, first_high = 0, 16, 20

    def answer_if(test, value, answer):
        add(test, value, 0, 1)
        add(give, answer)

    add(load, 4)
    add(equal, arch, 1, 0)
    add(give, ALLOW)
    add(load, number)
    if arch == MACHINES["x86_64"][0]:
        add(and_, 0xBFFFFFFF)  # x32 calls have this bit, and the same numbers otherwise.
    answer_if(equal, clone3, ENOSYS)
    answer_if(above, NEWEST, ENOSYS)
    words = (DENIED + DENIED_WITHOUT_CAPABILITIES * no_capabilities).split()
    denied = [words[at + column] for at in range(0, len(words), 3)]
    for one in [int(text) for text in denied if text != "-"] + [n for n in unused if n != 424]:
        answer_if(equal, one, EPERM)
    # clone(2) without new namespaces. Each of these three blocks ends in an answer.
    add(equal, clone, 0, 5)
    add(load, first)
    add(and_, 0x7E020000)
    add(equal, 0, 1, 0)
    add(give, EPERM)
    add(give, ALLOW)
    # Sockets of any family but AF_VSOCK.
    add(equal, socket_call, 0, 3)
    add(load, first)
    answer_if(equal, 40, EPERM)
    add(equal, personality, 0, 10)
    add(load, first_high)
    add(equal, 0, 1, 0)
    add(give, EPERM)
    add(load, first)
    for at, persona in enumerate((0, 8, 0x20000, 0x20008, 0xFFFFFFFF)):
        add(equal, persona, 5 - at, 0)
    add(give, EPERM)
    add(give, ALLOW)
    return b"".join(code), len(code)


def load_seccomp_filter(no_capabilities):
    code, count = seccomp_filter(no_capabilities)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", count, ctypes.addressof(buffer))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def arguments():
    parser = argparse.ArgumentParser(description="Runs a command as docker does by default.")
    parser.add_argument("-u", "--user", default="0", metavar="UID[:GID]")
    parser.add_argument("--cap-drop", choices=["ALL"])
    parser.add_argument("--security-opt", action="append", default=[],
                        choices=["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined",
                                 "apparmor=unconfined"])
    parser.add_argument("--privileged", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--tmpfs", action="append", default=[], metavar="PATH[:OPTIONS]")
    parser.add_argument("-v", "--volume", action="append", default=[], metavar="SOURCE:PATH[:ro]")
    parser.add_argument("--network", choices=["none", "host"], default="none")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-w", "--workdir", default="/", metavar="DIRECTORY")
    parser.add_argument("--size", default="512m", metavar="BYTES")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args()
    if not options.command:
        parser.error("COMMAND is missing")
    if os.geteuid() != 0:
        parser.error("only root can create such a container")
    if not os.path.isdir(options.root):
        parser.error(f"{options.root} is not a directory")
    if not re.fullmatch(r"[0-9]+(:[0-9]+)?", options.user):
        parser.error(f"{options.user} is not UID[:GID]")
    return options


def accounts(root, user):
    """Returns the uid, gid and home of `--user`. A uid without an account has gid 0 and the home `/`."""
    uid, _, gid = user.partition(":")
    home, primary = "/", "0"
    try:
        with open(f"{root}/etc/passwd", encoding="utf-8") as passwd:
            for fields in (line.rstrip("\n").split(":") for line in passwd):
                if len(fields) > 5 and fields[2] == uid:
                    primary, home = fields[3], fields[5]
                    break
    except FileNotFoundError:
        pass
    return int(uid), int(gid or primary), home


def host_devices():
    """Returns all devices below /dev besides terminals and file systems mounted there."""
    found = {}
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if name not in ("pts", "shm", "fd", "mqueue", ".udev", "hugepages")]
        for name in files:
            path = os.path.join(directory, name)
            state = os.lstat(path)
            if stat.S_ISCHR(state.st_mode) or stat.S_ISBLK(state.st_mode):
                found[os.path.relpath(path, "/dev")] = (state.st_mode, state.st_rdev)
    return {name: device for name, device in found.items() if name not in ("console", "ptmx")}


def provide(target, source=None):
    """Creates the mount point of a file or directory of the image."""
    if source is None or os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o644))


def new_root(stage, options):
    """Mounts the container's root in memory, at the directory `stage`, and returns its path."""
    source = os.path.realpath(options.root)
    lower = os.open(source, os.O_PATH)
    mount("rbuild-test", stage, "tmpfs", 0, f"size={options.size},mode=755")
    os.chdir(stage)
    for name in ("lower", "upper", "work", "root", "files"):
        os.mkdir(name)
    os.chmod("upper", stat.S_IMODE(os.stat(source).st_mode))
    mount(f"/proc/self/fd/{lower}", "lower", None, BIND)
    os.close(lower)
    try:
        if options.plain:
            raise OSError
        # Relative, because a path may contain the separators of these options.
        mount("overlay", "root", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work")
    except OSError:
        copy_tree("lower", "root")
        mount("root", "root", None, BIND)
    return f"{stage}/root"


def copy_tree(source, target):
    """Copies files with owners, modes and links."""
    for state in (os.stat(source),):
        os.chown(target, state.st_uid, state.st_gid)
        os.chmod(target, stat.S_IMODE(state.st_mode))
    for entry in os.scandir(source):
        to = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(to)
            copy_tree(entry.path, to)
            continue
        shutil.copy2(entry.path, to, follow_symlinks=False)
        state = entry.stat(follow_symlinks=False)
        os.chown(to, state.st_uid, state.st_gid, follow_symlinks=False)
        if not entry.is_symlink():
            os.chmod(to, stat.S_IMODE(state.st_mode))


def mount_kernel_file_systems(root, options):
    for name in ("proc", "dev", "sys"):
        provide(f"{root}/{name}")
    hardened = NOSUID | NODEV | NOEXEC
    mount("proc", f"{root}/proc", "proc", hardened)
    mount("tmpfs", f"{root}/dev", "tmpfs", NOSUID | STRICTATIME, "mode=755,size=65536k")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{root}/dev/{name}")
    mount("devpts", f"{root}/dev/pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("shm", f"{root}/dev/shm", "tmpfs", hardened, "mode=1777,size=65536k")
    mount("mqueue", f"{root}/dev/mqueue", "mqueue", hardened)
    readable = 0 if options.privileged else RDONLY
    mount("sysfs", f"{root}/sys", "sysfs", hardened | readable)
    if os.path.isdir(f"{root}/sys/fs/cgroup"):
        mount("tmpfs", f"{root}/sys/fs/cgroup", "tmpfs", hardened | readable, "mode=755,size=4k")
    wanted = {name: (stat.S_IFCHR | 0o666, os.makedev(*device)) for name, device in DEVICES.items()}
    if options.privileged:
        wanted = {**host_devices(), **wanted}
    for name, (mode, device) in wanted.items():
        path = f"{root}/dev/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mknod(path, mode, device)
        os.chmod(path, stat.S_IMODE(mode))
    for name, target in LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")


def mount_files(root, stage, options, hostname):
    """Mounts what the daemon and the user bring: files of /etc, volumes and file systems in memory."""
    resolver = "/etc/resolv.conf"
    texts = {"hostname": f"{hostname}\n", "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n", "resolv.conf": ""}
    if options.network == "host" and os.path.exists(resolver):
        with open(resolver, encoding="utf-8") as file:
            texts["resolv.conf"] = file.read()
    for name, text in texts.items():
        path = f"{stage}/files/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        provide(f"{root}/etc/{name}", path)
        mount(path, f"{root}/etc/{name}", None, BIND)
        if options.read_only:
            mount(None, f"{root}/etc/{name}", None, BIND | REMOUNT | RDONLY)
    for text in options.tmpfs:
        path, _, more = text.partition(":")
        flags, data = tmpfs_options(more, options.size)
        target = f"{root}/{path.lstrip('/')}"
        mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.isdir(target) else 0o1777
        provide(target)
        mount("tmpfs", target, "tmpfs", flags, ",".join([f"mode={mode:o}", *data]))
    for text in options.volume:
        source, path, *more = text.split(":")
        source = os.path.realpath(source)
        if not os.path.exists(source):
            raise Failed(f"{source} does not exist")
        target = f"{root}/{path.lstrip('/')}"
        provide(target, source)
        mount(source, target, None, BIND | REC)
        if more == ["ro"]:
            mount(None, target, None, BIND | REMOUNT | RDONLY)


def tmpfs_options(text, size):
    flags, data = NOSUID | NODEV | NOEXEC, [f"size={size}"]
    for word in filter(None, text.split(",")):
        removed = {"exec": NOEXEC, "dev": NODEV, "suid": NOSUID}.get(word)
        if removed:
            flags &= ~removed
        elif word not in ("rw", "noexec", "nodev", "nosuid"):
            data.append(word)
    return flags, data


def enter(root):
    """Makes `root` the root of all processes here, and leaves nothing of the old one."""
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/")


def mask(root):
    for path in (root + path for path in READ_ONLY):
        if os.path.exists(path):
            mount(path, path, None, BIND | REC)
            mount(None, path, None, BIND | REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC)
    throttles = f"{root}/sys/devices/system/cpu"
    more = [f"/sys/devices/system/cpu/{name}/thermal_throttle" for name in os.listdir(throttles)
            if re.fullmatch("cpu[0-9]+", name)] if os.path.isdir(throttles) else []
    for path in (root + path for path in MASKED + more):
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", RDONLY, "size=4k,nr_inodes=1")
        elif os.path.exists(path):
            mount(f"{root}/dev/null", path, None, BIND)


def interface_up():
    """Starts the loopback interface, and permits all groups and users what docker permits them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        request = bytearray(fcntl.ioctl(handle, 0x8913, bytes(request)))  # SIOCGIFFLAGS
        struct.pack_into("H", request, 16, struct.unpack_from("H", request, 16)[0] | 1)
        fcntl.ioctl(handle, 0x8914, bytes(request))  # SIOCSIFFLAGS
    for name, value in (("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")):
        with open(f"/proc/sys/net/ipv4/{name}", "w", encoding="utf-8") as file:
            file.write(value)


def drop_rights(options, uid, gid):
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        last = int(file.read())
    with open("/proc/self/status", encoding="utf-8") as file:
        own = int(re.search("CapPrm:\t([0-9a-f]+)", file.read())[1], 16)
    wanted = own
    if not options.privileged:
        wanted = 0 if options.cap_drop else own & DEFAULT_CAPABILITIES
    for capability in range(last + 1):
        if not wanted >> capability & 1:
            call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    # Before the capabilities go: without CAP_SYS_ADMIN a filter needs no_new_privs.
    if not options.privileged and "seccomp=unconfined" not in options.security_opt:
        load_seccomp_filter(no_capabilities=wanted == 0)
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kept = wanted if uid == 0 else 0
    low, high = kept & 0xFFFFFFFF, kept >> 32
    call("capset", struct.pack("II", CAPABILITY_VERSION_3, 0), struct.pack("IIIIII", low, low, 0, high, high, 0))
    if "no-new-privileges" in options.security_opt:
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def give_streams(uid):
    """Gives pipes to the user, as runc does, so that the command can open /dev/stdout."""
    for descriptor in range(3):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.fchown(descriptor, uid, -1)


def become(options, uid, gid, home):
    """Sets up the container as its process 1, and executes the command. Does not return."""
    die_with_parent(None)
    mount(None, "/", None, REC | PRIVATE)
    # Any directory will do: the container gets another root. This one exists everywhere, and holds none of its files.
    stage, hostname = "/sys", "container"
    root = new_root(stage, options)
    call("sethostname", hostname.encode(), len(hostname))
    if options.network == "none":
        interface_up()
    mount_kernel_file_systems(root, options)
    mount_files(root, stage, options, hostname)
    if not options.privileged and "systempaths=unconfined" not in options.security_opt:
        mask(root)
    if options.read_only:
        mount(None, root, None, BIND | REMOUNT | RDONLY)
    enter(root)
    provide_working_directory(options.workdir)
    give_streams(uid)
    if not os.isatty(0):
        os.setsid()
    # A session keyring of its own: it may not see the keys of the caller.
    LIBC.syscall({"x86_64": 250}.get(platform.machine(), 219), JOIN_SESSION_KEYRING, None)
    os.umask(0o022)
    drop_rights(options, uid, gid)
    # A change of user clears it: prctl(2).
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": hostname,
                   "HOME": home}
    if os.isatty(0):
        environment["TERM"] = os.environ.get("TERM", "xterm")
    environment.update(text.partition("=")[::2] for text in options.env)
    execute(options.command, environment)


def provide_working_directory(path):
    os.makedirs(path, exist_ok=True)
    os.chdir(path)


def execute(command, environment):
    # Python ignores these, and programs would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.closerange(3, 4096)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        print(f"container: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(126 if isinstance(error, PermissionError) else 127)


def die_with_parent(parent):
    """Ends this process when its parent ends. Process 1 of a namespace cannot ask for its parent."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(125)


def main():
    parent = os.getppid()
    options = arguments()
    die_with_parent(parent)
    uid, gid, home = accounts(options.root, options.user)
    # Signals that arrive before the child exists are sent on to it.
    passed_on = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on | {signal.SIGCHLD})
    network = NEWNET if options.network == "none" else 0
    call("unshare", NEWNS | NEWPID | NEWUTS | NEWIPC | network)
    child = os.fork()
    if child == 0:
        try:
            become(options, uid, gid, home)
        except (OSError, Failed) as error:
            print(f"container: {error}", file=sys.stderr, flush=True)
        except BaseException:  # A child must not return into code of its parent.
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(125)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        number = signal.sigwait(passed_on | {signal.SIGCHLD})
        # A terminal sends its signals to the command itself.
        if number != signal.SIGCHLD and not (number == signal.SIGINT and os.isatty(0)):
            os.kill(child, number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, Failed) as error:
        print(f"container: {error}", file=sys.stderr)
        sys.exit(125)
