"""The throw-away host that rbuild runs on: its own mounts, processes, network and canaries.

A worker enters a `World` once. Everything that rbuild can see there belongs to this process: a new
root in memory, with the machine's programs bound read-only, so that an attack that succeeds damages
nothing that outlives it.
"""

import os
import socket
import stat
import subprocess
import threading
import time

from . import kernel

USER = 20000
OTHER_USER = 20001
SUBORDINATE = 1_000_000
HOMES = {"root": "/root", "user": "/home/hostile"}
RBUILD = "/host/bin/rbuild"
SYSV_KEY = 0x52425544
# The whole host lives in memory, on one file system, as most machines have it: what leads out of a store
# leads to everything else. This is all that an attack can fill.
HOST_BYTES = 800 << 20
HOST_INODES = 600_000

_SKIPPED = {"proc", "sys", "arena", "usr", "bin", "sbin", "suite"}


class World:
    """The host and its canaries. Every token in it begins with `prefix`."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.connections = []
        self.processes = []
        self.known = set()

    def token(self, kind):
        return f"{self.prefix}-{kind}-canary"

    # Construction ---------------------------------------------------------------------------

    def enter(self, new_root, suite, rbuild, probe):
        """Builds the new root below `new_root` and makes it the root of this process."""
        os.umask(0o022)
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("hostile", new_root, "tmpfs", 0,
                     f"mode=755,size={HOST_BYTES},nr_inodes={HOST_INODES}")
        self._programs(new_root, suite)
        for name in ("etc", "root", "home", "srv", "var", "run", "tmp", "dev", "host", "proc", "sys",
                     "arena", "old", "mnt", "opt"):
            os.makedirs(f"{new_root}/{name}", exist_ok=True)
        with open(rbuild, "rb") as program:
            os.makedirs(f"{new_root}/host/bin")
            _write(new_root + RBUILD, program.read(), 0o755)
        with open(probe, "rb") as program:
            data = program.read()
            # The harness's own, and one that a step must not get to run.
            _write(f"{new_root}/host/probe", data, 0o755)
            _write(f"{new_root}/host/program", data, 0o755)
        with open(os.path.join(os.path.dirname(probe), "loader"), "rb") as program:
            _write(f"{new_root}/host/loader", program.read(), 0o755)
        kernel.pivot_root(new_root, f"{new_root}/old")
        os.chdir("/")
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        kernel.mount("sysfs", "/sys", "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        self._devices()
        self._accounts()
        self._files()
        kernel.umount("/old")
        os.rmdir("/old")
        kernel.loopback_up()
        socket.sethostname("hostile-host")
        self._services()
        self._processes()
        os.makedirs("/arena/tmp")
        os.chmod("/arena/tmp", 0o1777)

    def _programs(self, root, suite):
        os.makedirs(f"{root}/usr")
        kernel.bind("/usr", f"{root}/usr", read_only=True)
        for name in os.listdir("/"):
            if name in ("bin", "sbin") or name.startswith("lib"):
                if os.path.islink(f"/{name}"):
                    os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
                elif os.path.isdir(f"/{name}"):
                    os.makedirs(f"{root}/{name}")
                    kernel.bind(f"/{name}", f"{root}/{name}", read_only=True)
        os.makedirs(f"{root}/suite")
        kernel.bind(suite, f"{root}/suite", read_only=True)

    def _devices(self):
        kernel.mount("dev", "/dev", "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
        for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8),
                                   ("urandom", 1, 9), ("tty", 5, 0), ("kmsg", 1, 11), ("mem", 1, 1)):
            mode = 0o640 if name in ("kmsg", "mem") else 0o666
            os.mknod(f"/dev/{name}", stat.S_IFCHR | mode, os.makedev(major, minor))
            os.chmod(f"/dev/{name}", mode)
        for name, kind, options in (("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
                                    ("shm", "tmpfs", "mode=1777,size=16m"),
                                    ("mqueue", "mqueue", None)):
            os.mkdir(f"/dev/{name}")
            kernel.mount(kind, f"/dev/{name}", kind, kernel.MS_NOSUID | kernel.MS_NOEXEC, options)
        os.symlink("pts/ptmx", "/dev/ptmx")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
        os.symlink("/proc/self/fd", "/dev/fd")
        _write("/dev/mqueue/canary", b"", 0o666)
        _write("/dev/shm/canary", self.token("posix-shm"), 0o666)

    def _accounts(self):
        _write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
               f"hostile:x:{USER}:{USER}::/home/hostile:/bin/sh\n"
               f"other:x:{OTHER_USER}:{OTHER_USER}::/home/other:/bin/sh\n"
               "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n")
        _write("/etc/group", f"root:x:0:\ntty:x:5:\nhostile:x:{USER}:\nother:x:{OTHER_USER}:\n"
               "nogroup:x:65534:\n")
        for name in ("subuid", "subgid"):
            _write(f"/etc/{name}", f"hostile:{SUBORDINATE}:65536\n")
        _write("/etc/shadow", f"root:{self.token('shadow')}:1::::::\n", 0o600)
        _write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        _write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        _write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        _write("/etc/hostname", "hostile-host\n")
        for name in ("ld.so.cache", "ld.so.conf", "mime.types"):
            if os.path.isfile(f"/old/etc/{name}"):
                with open(f"/old/etc/{name}", "rb") as file:
                    _write(f"/etc/{name}", file.read())
        for name in ("ssl", "ca-certificates", "alternatives"):
            if os.path.isdir(f"/old/etc/{name}"):
                subprocess.run(["cp", "-a", f"/old/etc/{name}", f"/etc/{name}"], check=True)

    def _files(self):
        _write("/etc/canary", self.token("etc"), 0o644)
        _write("/etc/canary-secret", self.token("etc-secret"), 0o600)
        _tree("/", {"root": 0o700, "home": 0o755, "srv": 0o755, "tmp": 0o1777, "run": 0o755})
        for owner, home in ((0, "/root"), (USER, "/home/hostile"), (OTHER_USER, "/home/other")):
            os.makedirs(home, exist_ok=True)
            for name, mode in ((".bashrc", 0o644), (".profile", 0o644), (".ssh/id_ed25519", 0o600),
                               (".ssh/authorized_keys", 0o600), (".aws/credentials", 0o600),
                               (".git-credentials", 0o600), ("secret", 0o600), ("public", 0o666)):
                kind = home.strip("/").replace("/", "-") + "-" + name.strip(".").replace("/", "-")
                _write(f"{home}/{name}", f"# {self.token(kind)}\n", mode)
            _write(f"{home}/.docker/config.json",
                   '{"auths":{"registry.invalid":{"identitytoken":"%s"}}}\n' % self.token("login"),
                   0o600)
            for directory, _, names in os.walk(home):
                for path in [directory] + [f"{directory}/{name}" for name in names]:
                    os.chown(path, owner, owner)
            os.chmod(home, 0o700 if owner != USER else 0o755)
        _write("/srv/canary/a/b/file", self.token("srv"))
        _write("/srv/open/file", self.token("srv-open"), 0o666)
        os.chmod("/srv/open", 0o777)
        _write("/var/lib/canary/file", self.token("var"))
        _write("/tmp/canary", self.token("tmp"), 0o666)
        _write("/host/secret", self.token("host-secret"), 0o600)

    def _services(self):
        for name in ("docker.sock", "canary.sock", "dbus.sock"):
            server = socket.socket(socket.AF_UNIX)
            server.bind(f"/run/{name}")
            os.chmod(f"/run/{name}", 0o666)
            self._serve(server, f"unix socket /run/{name}")
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"\0{self.prefix}-abstract")
        self._serve(server, "abstract socket")
        server = socket.socket(socket.AF_UNIX)
        server.bind("\0hostile-abstract")
        self._serve(server, "abstract socket hostile-abstract")
        kernel.sysv_segment(SYSV_KEY, self.token("sysv-shm"))
        kernel.sysv_queue(SYSV_KEY, self.token("sysv-queue"))
        kernel.add_key("hostile-canary", self.token("key"))

    def _serve(self, server, name):
        server.listen(64)

        def accept():
            while True:
                connection, _ = server.accept()
                self.connections.append(name)
                try:
                    connection.sendall(self.token("socket").encode())
                finally:
                    connection.close()

        threading.Thread(target=accept, daemon=True).start()

    def _processes(self):
        """A process of root and one of the user, with a token in arguments and environment."""
        for uid in (0, USER):
            process = subprocess.Popen(
                ["/bin/busybox", "sh", "-c", "while :; do sleep 1000; done", self.token(f"argv-{uid}")],
                env={"PATH": "/usr/bin:/bin", "HOST_PROCESS": self.token(f"process-{uid}")},
                user=uid, group=uid, extra_groups=[], start_new_session=True, cwd="/srv/canary",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            self.processes.append(process)

    # Rows -----------------------------------------------------------------------------------

    def make_row(self):
        os.mkdir("/arena/row")

    def remove_row(self):
        """Removes what a row made, however deep it is."""
        subprocess.run(["rm", "-rf", "/arena/row"], check=True)
        for name in os.listdir("/arena/tmp"):
            subprocess.run(["rm", "-rf", f"/arena/tmp/{name}"], check=True)

    def ready(self):
        """Remembers the state that every row has to leave behind."""
        self.known = set(_pids())
        self.before = self.snapshot()

    def changes(self):
        """Returns what is different from `ready`, and takes it for the new state."""
        after = self.snapshot()
        found = []
        for path in sorted(self.before.keys() | after.keys()):
            old, new = self.before.get(path), after.get(path)
            if old != new:
                what = "new" if old is None else "gone" if new is None else _difference(old, new)
                found.append(f"{path}: {what}")
        self.before = after
        for process in self.processes:
            if process.poll() is not None:
                found.append(f"host process {process.pid} ended with {process.returncode}")
                self.processes.remove(process)
        found += [f"connection to {name}" for name in self.connections]
        self.connections.clear()
        return found

    def leftovers(self, grace=1.0):
        """Ends the processes that a row left behind, and returns what they were.

        What only needs a moment to end, such as a child of a git that was ended, gets `grace` seconds.
        """
        end = time.monotonic() + grace
        while (left := self._strangers()) and time.monotonic() < end:
            time.sleep(0.01)
        for pid in left:
            try:
                os.kill(pid, 9)
            except OSError:
                pass
        end = time.monotonic() + 2
        while self._strangers() and time.monotonic() < end:
            time.sleep(0.01)
        return [f"leftover process {pid} {name}" for pid, name in left.items()]

    def _strangers(self):
        """Processes that are not of the host, by number."""
        found = {}
        for pid in _pids():
            if pid in self.known:
                continue
            try:
                with open(f"/proc/{pid}/stat") as file:
                    line = file.read()
            except OSError:
                continue
            name, fields = line[line.index("("):line.rindex(")") + 1], line[line.rindex(")") + 2:].split()
            if fields[0] not in "ZX":
                found[pid] = name
            elif int(fields[1]) == os.getpid():
                try:
                    # Orphans become children of process 1: this one.
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    pass
        return found

    def snapshot(self):
        state = {}
        for name in os.listdir("/"):
            if name not in _SKIPPED and not name.startswith("lib"):
                _describe(f"/{name}", state)
        state["/ names"] = tuple(sorted(os.listdir("/")))
        state["hostname"] = socket.gethostname()
        return state


def _describe(top, state):
    pending = [top]
    while pending:
        path = pending.pop()
        try:
            about = os.lstat(path)
        except FileNotFoundError:
            continue
        kind = stat.S_IFMT(about.st_mode)
        facts = [oct(about.st_mode), about.st_uid, about.st_gid, about.st_nlink, about.st_rdev]
        is_terminal = path.startswith("/dev/pts/")
        if kind == stat.S_IFDIR:
            facts += [about.st_mtime_ns, about.st_ctime_ns]
            if path != "/dev/pts":
                pending += [entry.path for entry in os.scandir(path)]
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            facts.append(0 if is_terminal else about.st_ctime_ns)
        else:
            # The change time of a file cannot be set back: it stands for the content, too.
            facts += [about.st_size, about.st_mtime_ns, about.st_ctime_ns]
            if kind == stat.S_IFLNK:
                facts.append(os.readlink(path))
        state[path] = tuple(facts)


_FACTS = ("mode", "uid", "gid", "links", "device", "size", "modified", "changed", "target")


def _difference(old, new):
    if not isinstance(old, tuple) or len(old) != len(new):
        return f"{old} -> {new}"
    names = _FACTS if len(old) > 7 else _FACTS[:5] + ("modified", "changed")
    parts = [f"{name} {a} -> {b}" for name, a, b in zip(names, old, new) if a != b]
    return ", ".join(parts) or f"{old} -> {new}"


def _pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _write(path, data, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    os.chmod(path, mode)


def _tree(top, modes):
    for name, mode in modes.items():
        os.chmod(f"{top.rstrip('/')}/{name}", mode)
