"""What a row is, how rows are registered, and what they may do."""

import fnmatch
import importlib
import io
import json
import os
import pkgutil
import re
import stat
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass, field

from . import oci
from .http import Server
from .world import HOMES, RBUILD, USER

ROWS = {}

# A row's seconds are what an idle machine needs at most; on a busy one everything takes longer, and what
# hangs does so for ever.
PATIENCE = 3

# Classes whose attacks meet the same code whoever runs rbuild: what reads text and answers of servers.
SAME_FOR_ALL_USERS = {"caches", "floods", "git", "output", "registry"}

COUNTERS = ("R", "W", "X", "P")


@dataclass
class Row:
    """One attack. A row with `parts` does several at once, which are counted one by one."""

    name: str
    cls: str
    run: object
    cve: str = ""
    modes: tuple = ("root", "user")
    seconds: float = 20
    rss: int = 512
    disk: int = 256
    detects: str = ""
    parts: tuple = ()
    # Long, and decided by a reader that does not know who runs it.
    same_for_all_users: bool = False

    def names(self):
        return self.parts or (self.name,)


def row(name, **facts):
    """Registers a function of an `Attempt` as a row; its class is the module's name."""

    def register(function):
        if name in ROWS:
            raise ValueError(f"two rows are named {name}")
        cls = function.__module__.rsplit(".", 1)[-1] if "cls" not in facts else facts.pop("cls")
        ROWS[name] = Row(name, cls, function, **facts)
        return function

    return register


def attack(name, dockerfile, expect="any", says=None, files=None, args=(), base=None, **facts):
    """Registers a row that is one build."""
    import inspect

    cls = inspect.currentframe().f_back.f_globals["__name__"].rsplit(".", 1)[-1]

    def run(t):
        t.context((files() if callable(files) else files) or {})
        if base is not None:
            t.base(base() if callable(base) else base)
        t.build(dockerfile() if callable(dockerfile) else dockerfile, *args, expect=expect, says=says)

    row(name, cls=cls, **facts)(run)


def load():
    """Imports all modules of rows."""
    import rows

    for module in sorted(module.name for module in pkgutil.iter_modules(rows.__path__)):
        importlib.import_module(f"rows.{module}")
    return ROWS


def matches(row_, pattern):
    if not pattern:
        return True
    names = (row_.name, row_.cls, row_.cve, f"{row_.cls}/{row_.name}") + tuple(row_.parts)
    return any(pattern in name or fnmatch.fnmatchcase(name, pattern) for name in names)


class Stuck(Exception):
    """A build had to be ended: the rest of its row would only wait as long again."""


# What a context may hold besides text ------------------------------------------------------


@dataclass
class Link:
    target: str


@dataclass
class Fifo:
    mode: int = 0o644


@dataclass
class Node:
    kind: int
    major: int
    minor: int


@dataclass
class Holes:
    """A file of `size` bytes of which none takes space."""

    size: int
    head: bytes = b""


@dataclass
class File:
    data: object = b""
    mode: int = 0o644
    owner: int = -1


@dataclass
class Directory:
    mode: int = 0o755
    owner: int = -1


@dataclass
class Socket:
    pass


def plant(root, files, owner):
    """Makes files below `root`, without following what was planted before."""
    os.makedirs(root, exist_ok=True)
    for name, what in files.items():
        path = os.path.join(root, name)
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            os.makedirs(parent)
            while len(parent) > len(root):
                os.chown(parent, owner, owner)
                parent = os.path.dirname(parent)
        uid = getattr(what, "owner", -1)
        uid = owner if uid == -1 else uid
        if isinstance(what, (str, bytes)):
            what = File(what)
        if isinstance(what, Link):
            os.symlink(what.target, path)
        elif isinstance(what, Fifo):
            os.mkfifo(path, what.mode)
        elif isinstance(what, Node):
            os.mknod(path, what.kind | 0o666, os.makedev(what.major, what.minor))
        elif isinstance(what, Directory):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, what.mode)
        elif isinstance(what, Socket):
            import socket

            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
        elif isinstance(what, Holes):
            with open(path, "wb") as file:
                file.write(what.head)
                file.truncate(what.size)
        else:
            data = what.data.encode() if isinstance(what.data, str) else what.data
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, what.mode)
        os.chown(path, uid, uid, follow_symlinks=False)


# Running rbuild ----------------------------------------------------------------------------


@dataclass
class Result:
    arguments: list
    status: int
    output: bytes
    seconds: float
    rss: int
    timed_out: bool = False
    printed: int = 0

    @property
    def text(self):
        return self.output.decode("utf-8", "replace")

    def tail(self, lines=12):
        return "\n".join(line[:300] for line in self.text.splitlines()[-lines:])


class Drain(threading.Thread):
    """Reads a pipe to its end: keeps both ends of it and looks for a token in all of it."""

    KEEP = 2 << 20

    def __init__(self, stream, prefix):
        super().__init__(daemon=True)
        self.stream, self.prefix = stream, prefix
        self.head, self.tail, self.total, self.found = bytearray(), bytearray(), 0, b""
        self.start()

    def run(self):
        last = b""
        while True:
            piece = os.read(self.stream, 1 << 18)
            if not piece:
                break
            self.total += len(piece)
            if not self.found:
                self.found = find_token(last + piece, self.prefix)
            last = piece[-128:]
            if len(self.head) < self.KEEP:
                self.head += piece
            else:
                self.tail = (self.tail + piece)[-self.KEEP:]
        os.close(self.stream)

    def text(self):
        return bytes(self.head + self.tail)


def find_token(data, prefix):
    at = data.find(prefix)
    return data[at:at + 60].split(b"\n")[0] if at >= 0 else b""


class Attempt:
    """One row in one mode: its directories, the builds that it runs, and what came of them."""

    def __init__(self, world, row_, mode):
        self.world, self.row, self.mode = world, row_, mode
        self.owner = 0 if mode == "root" else USER
        self.dir = "/arena/row"
        self.store = f"{self.dir}/store"
        self.ctx = f"{self.dir}/context"
        self.results = []
        self.failures = []
        self.counted = {}
        self.part_failures = {}
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": HOMES[mode],
                    "TMPDIR": "/arena/tmp", "RBUILD_ROOT": self.store, "LC_ALL": "C.UTF-8",
                    "HOST_ENVIRONMENT": world.token("environment"),
                    "GIT_CONFIG_NOSYSTEM": "1"}
        self._base = "/arena/base"
        self._servers = []
        self.is_host_changed = False
        self.other_statuses = ()
        self._used_before = self._used()
        os.mkdir(self.ctx)
        self.give(self.dir)
        self.give(self.ctx)

    # Preparing ------------------------------------------------------------------------------

    def give(self, path, owner=None):
        """Makes `path` belong to the user who builds."""
        owner = self.owner if owner is None else owner
        os.chown(path, owner, owner, follow_symlinks=False)

    def context(self, files):
        plant(self.ctx, files, self.owner)

    def plant(self, where, files, owner=None):
        plant(where, files, self.owner if owner is None else owner)

    def base(self, image, name="base"):
        """Makes `FROM base` mean this image: an `oci.Image`, or tar layers on the ordinary base."""
        if isinstance(image, (list, tuple)):
            image = oci.Image([base_layer()] + list(image))
        directory = f"{self.dir}/image-{name}"
        image.write_layout(directory)
        if name == "base":
            self._base = directory
        return directory

    def serve(self, handler):
        """Starts an HTTP server on loopback for this row; returns its `host:port`."""
        server = Server(handler)
        self._servers.append(server)
        return server.address

    # Running --------------------------------------------------------------------------------

    def rbuild(self, *arguments, stdin=None, expect="any", says=None, env=None, cwd=None, seconds=None,
               limits=(), user=None):
        """Runs rbuild. `expect` is `ok`, `fails` or `any`; `says` a pattern of what it prints."""
        command = [RBUILD, *map(str, arguments)]
        if limits:
            command = ["prlimit", *limits, "--", *command]
        uid = self.owner if user is None else user
        result = self._run(command, uid, stdin, {**self.env, **(env or {})}, cwd or self.dir,
                           seconds or self.row.seconds)
        self.results.append(result)
        self._judge(result, expect, says)
        return result

    def build(self, dockerfile=None, *arguments, expect="any", says=None, context=None, **more):
        """Builds the context with this Dockerfile, on the row's base image."""
        if dockerfile is not None:
            plant(self.ctx, {"Dockerfile": dockerfile}, self.owner)
        layout = [] if self._base is None else ["--build-context", f"base=oci-layout://{self._base}"]
        return self.rbuild("build", "--progress=plain", *layout, *arguments, context or self.ctx,
                           expect=expect, says=says, **more)

    def files(self, dockerfile=None, *arguments, expect="ok", says=None, **more):
        """Builds, and returns the image's files by name, as Python's own tar reader lists them."""
        out = f"{self.dir}/out-{len(self.results)}.tar"
        result = self.build(dockerfile, "-o", f"type=tar,dest={out}", *arguments, expect=expect,
                            says=says, **more)
        if result.status != 0 or not os.path.exists(out):
            return None
        with tarfile.open(out) as archive:
            return {member.name.rstrip("/"): member for member in archive}

    def _run(self, command, uid, stdin, env, cwd, seconds):
        read, write = os.pipe()
        facts_read, facts_write = os.pipe()
        started = time.monotonic()
        process = subprocess.Popen(
            ["/host/probe", "measure", str(facts_write), *command],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, stdout=write,
            stderr=write, env=env, cwd=cwd, user=uid, group=uid, extra_groups=[],
            start_new_session=True, pass_fds=[facts_write])
        os.close(write)
        os.close(facts_write)
        drain = Drain(read, self.world.prefix.encode())
        if stdin is not None:
            threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True).start()
        timed_out = threading.Event()

        def end():
            timed_out.set()
            # Asked first: a build that hears SIGTERM is slow, one that does not hangs.
            for number, pause in ((15, 1.0), (9, 0)):
                try:
                    os.killpg(process.pid, number)
                except OSError:
                    return
                time.sleep(pause)
            self.world.leftovers(grace=0)

        seconds *= PATIENCE
        timer = threading.Timer(seconds, end)
        timer.start()
        process.wait()
        timer.cancel()
        with os.fdopen(facts_read) as facts:
            status, rss = map(int, facts.read().split() or (9, 0))
        status = os.waitstatus_to_exitcode(status)
        drain.join(2)
        result = Result(command, status, drain.text(), time.monotonic() - started, rss >> 10, timed_out.is_set(), drain.total)
        if drain.found:
            self.count("R", f"a token was printed: {drain.found.decode('ascii', 'replace')}")
        if result.timed_out:
            self.count("X", f"no end within {seconds} s")
        if result.rss > self.row.rss:
            self.count("X", f"{result.rss} MiB of memory, more than {self.row.rss}")
        if status in (-4, -6, -7, -8, -11, 101, 132, 134, 139) or b"panicked at" in result.output:
            self.count("P", f"status {status}")
        elif status == -9 and not result.timed_out:
            self.count("X", "killed")
        elif status == -25:
            self.count("X", "SIGXFSZ")
        return result

    def _judge(self, result, expect, says):
        if result.timed_out:
            raise Stuck
        if expect == "ok" and result.status != 0:
            self.fail(f"must succeed, but ended with {result.status}")
        elif expect == "fails" and result.status == 0:
            self.fail("must fail, but succeeded")
        elif result.status not in (0, 1, 2, 3, 130, *self.other_statuses):
            self.fail(f"ended with status {result.status}")
        if says and not re.search(says, result.text):
            self.fail(f"must say /{says}/")

    # Judging --------------------------------------------------------------------------------

    def fail(self, what):
        self.failures.append(what)

    def fail_part(self, part, what):
        self.part_failures.setdefault(part, what)

    def count(self, counter, what):
        self.counted.setdefault(counter, []).append(what)

    def finish(self):
        """Ends the row: what it left behind, what changed, what it stored."""
        for server in self._servers:
            server.stop()
        for what in self.world.leftovers():
            self.count("W", what)
        for what in self.world.changes():
            self.is_host_changed = True
            self.count("W", what)
        self._search_files()

    def _search_files(self):
        prefix = self.world.prefix.encode()
        for directory, names, files in os.walk(self.dir):
            for name in files + names:
                path = os.path.join(directory, name)
                try:
                    about = os.lstat(path)
                    if not stat.S_ISREG(about.st_mode):
                        continue
                    found = search_file(path, about.st_size, prefix)
                except OSError:
                    continue
                if found:
                    self.count("R", f"a token is in {path}: {found.decode('ascii', 'replace')}")
                    return

    def used(self):
        """MiB that the row takes on disk."""
        return self._used() - self._used_before

    def _used(self):
        about = os.statvfs(self.dir)
        return (about.f_blocks - about.f_bfree) * about.f_frsize >> 20


def interrupted(t, start, after=2.0, grace=6.0):
    """Runs a build that may wait for long, and sees that SIGTERM ends it soon."""
    t.other_statuses = (-15, 143)

    def stop():
        # The first is the one that was started; it passes the signal on where it has others.
        found = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in t.world.known
                 and is_rbuild(pid)]
        if found:
            os.kill(min(found), 15)

    timer = threading.Timer(after, stop)
    timer.start()
    result = start()
    timer.cancel()
    t.other_statuses = ()
    if result.seconds > after + grace * PATIENCE:
        t.count("X", f"SIGTERM was heard after {result.seconds - after:.0f} s")


def is_rbuild(pid):
    try:
        return b"rbuild" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")[0]
    except OSError:
        return False


def search_file(path, size, prefix):
    """Looks for a token in the parts of a file that are not holes."""
    with open(path, "rb") as file:
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            piece = os.pread(file.fileno(), 4 << 20, at)
            if not piece:
                break
            found = find_token(piece, prefix)
            if found:
                return found
            if len(piece) < 4 << 20:
                at += len(piece)
            else:
                at += len(piece) - 128
    return b""


def _feed(stream, data):
    try:
        if isinstance(data, (bytes, bytearray)):
            stream.write(data)
        else:
            for piece in data:
                stream.write(piece)
        stream.close()
    except OSError:
        pass


_BASE = None


def base_layer():
    """The layer of the ordinary base image."""
    global _BASE
    if _BASE is None:
        _BASE = oci.Layer(oci.base_tree("/host/probe"))
    return _BASE


class DiskWatch(threading.Thread):
    """The most that the row's file system held."""

    def __init__(self, attempt):
        super().__init__(daemon=True)
        self.attempt, self.peak, self.stopped = attempt, 0, threading.Event()
        self.start()

    def run(self):
        while not self.stopped.wait(0.05):
            self.look()

    def look(self):
        try:
            self.peak = max(self.peak, self.attempt.used())
        except OSError:
            pass

    def end(self):
        self.look()
        self.stopped.set()
        self.join()


def perform(world, row_, mode):
    """Runs one row in one mode; returns what came of it as plain data."""
    started = time.monotonic()
    world.make_row()
    try:
        attempt = Attempt(world, row_, mode)
        # What the harness itself puts there counts, too: rows say how much they plant.
        watch = DiskWatch(attempt)
        try:
            row_.run(attempt)
        except Stuck:
            pass
        except Exception as error:  # A row that is broken fails; it does not end the suite.
            import traceback

            attempt.fail(f"the row itself failed: {error!r}\n{traceback.format_exc(limit=-3)}")
        watch.end()
        attempt.finish()
        if watch.peak > row_.disk:
            attempt.count("X", f"{watch.peak} MiB on disk, more than {row_.disk}")
    finally:
        world.remove_row()
    return verdict(attempt, time.monotonic() - started)


def verdict(attempt, seconds):
    row_, counted, failures = attempt.row, attempt.counted, list(attempt.failures)
    if row_.detects:
        # A self-test plays the escape: it passes when the counter fires.
        missing = [counter for counter in row_.detects if counter not in counted]
        failures += [f"the harness did not notice: {counter}" for counter in missing]
        extra = [f"{key}: {text}" for key, texts in counted.items() if key not in row_.detects
                 for text in texts]
        failures += extra
        counted = {}
    tail = attempt.results[-1].tail() if attempt.results else ""
    command = " ".join(attempt.results[-1].arguments) if attempt.results else ""
    return {"row": row_.name, "mode": attempt.mode, "seconds": round(seconds, 2), "failures": failures,
            "counted": {key: value[:6] for key, value in counted.items()}, "tail": tail,
            "command": command[:600], "parts": attempt.part_failures, "is_host_changed": attempt.is_host_changed,
            "rss": max([result.rss for result in attempt.results], default=0)}
