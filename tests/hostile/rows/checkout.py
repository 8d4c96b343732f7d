"""What lies in a checkout is untrusted, too: the Dockerfile, ignore files, the lock file, names beside them."""

import os
import re
import stat

from lib.suite import Fifo, File, Directory, Holes, Link, Node, Socket, attack, interrupted, row

SECRETS = ["/host/secret", "/home/hostile/secret", "/etc/canary", "/root/secret", "/dev/zero", "/proc/kmsg",
           "/proc/self/environ"]
NAMES = ["Dockerfile", "Dockerfile.dockerignore", ".dockerignore", "rbuild.lock"]


def kinds(target):
    return {"link": Link(target), "chain": Link("hop"), "up": Link("../" * 9 + target.lstrip("/"))}


ORDINARY = {"Dockerfile": "FROM base\nCOPY . /\nRUN ls /\n", "file": "x", "hop2": Link("/etc/canary")}


def attempt(t, files, *arguments, **more):
    t.context({**{name: what for name, what in ORDINARY.items() if name not in files}, **files})
    for verb in ([], ["--check"], ["--call=outline"], ["--dry-run"], ["--locked"]):
        t.build(None, *verb, *arguments, **more)
    t.rbuild("lock", "--build-context", f"base=oci-layout://{t._base}", t.ctx)


for name in NAMES:
    for target in SECRETS:
        def _link(t, name=name, target=target):
            attempt(t, {name: Link(target)})

        row(f"{name.strip('.').lower()}-is-a-link-to{target.replace('/', '-')}")(_link)

    def _chain(t, name=name):
        attempt(t, {name: Link("hop"), "hop": Link("sub/hop"), "sub/hop": Link("../" * 12 + "etc/canary")})

    row(f"{name.strip('.').lower()}-is-a-chain-of-links")(_chain)

    def _below(t, name=name):
        t.context({**ORDINARY, "sub": Link("/etc")} if name != "Dockerfile" else {"file": "x", "sub": Link("/etc")})
        for verb in ([], ["--check"]):
            t.rbuild("build", *verb, "-f", f"{t.ctx}/sub/canary", t.ctx)
        t.rbuild("build", "--lockfile", f"{t.ctx}/sub/canary", t.ctx)

    if name in ("Dockerfile", "rbuild.lock"):
        row(f"{name.lower()}-below-a-linked-directory")(_below)

    for kind, what in {"fifo": Fifo(), "directory": Directory(), "socket": Socket(), "holes": Holes(1 << 40),
                       "one-long-line": lambda: "x" * (80 << 20), "nuls": "\0" * 100000, "not-utf8": b"\xff\xfe" * 1000,
                       "byte-order-marks": b"\xef\xbb\xbf" * 1000}.items():
        def _kind(t, name=name, what=what):
            attempt(t, {name: what() if callable(what) else what}, seconds=5)

        row(f"{name.strip('.').lower()}-is-{kind}", disk=400, seconds=12)(_kind)

    def _device(t, name=name):
        attempt(t, {name: Node(stat.S_IFCHR, 1, 5)}, seconds=5)

    row(f"{name.strip('.').lower()}-is-a-device", seconds=12)(_device)


@row("fix-does-not-write-through-a-link")
def _(t):
    os.makedirs(f"{t.dir}/outside")
    t.give(f"{t.dir}/outside")
    text = "from base\nENV a b\nMAINTAINER x\n"
    t.plant(f"{t.dir}/outside", {"victim": text})
    t.context({"Dockerfile": Link("../outside/victim"), "sub": Link("../outside")})
    t.rbuild("build", "--check", "--fix", t.ctx)
    t.rbuild("build", "--check", "--fix", "-f", f"{t.ctx}/Dockerfile", t.ctx)
    if open(f"{t.dir}/outside/victim").read() != text:
        t.count("W", "--fix wrote through a link out of the context")


@row("fix-drafts-are-not-predictable")
def _(t):
    t.context({"Dockerfile": "from base\nENV a b\n"})
    plant_drafts(t, "Dockerfile")
    t.rbuild("build", "--check", "--fix", t.ctx)


def plant_drafts(t, name, where=None):
    """Links to a file of the caller under all names that a draft with a process number could have."""
    home = "/root" if t.mode == "root" else "/home/hostile"
    for pid in range(1, 3000):
        for form in (f"{name}.{pid}.tmp", f".{name}.{pid}.tmp", f"{name}.{pid}", f"{name}.tmp.{pid}"):
            path = os.path.join(where or t.ctx, form)
            os.symlink(f"{home}/.bashrc", path)
            os.chown(path, t.owner, t.owner, follow_symlinks=False)
    for form in (f"{name}.tmp", f".{name}.tmp", f"{name}~", f"{name}.new", f".{name}.swp", f"{name}.bak", f"{name}.part"):
        path = os.path.join(where or t.ctx, form)
        os.symlink(f"{home}/.bashrc", path)
        os.chown(path, t.owner, t.owner, follow_symlinks=False)


LOCK = 'version = 1\nplatforms = ["linux/amd64"]\n'


@row("lock-drafts-are-not-predictable", seconds=30)
def _(t):
    address = t.serve(lambda request: request.send(200, "content"))
    t.context({"rbuild.lock": LOCK, "Dockerfile": f"FROM base\nADD http://{address}/?$(id>/tmp/x) /f\n"})
    plant_drafts(t, "rbuild.lock")
    t.build(None)
    t.rbuild("lock", "--build-context", f"base=oci-layout://{t._base}", t.ctx)
    t.rbuild("lock", "--update", "--build-context", f"base=oci-layout://{t._base}", t.ctx)


@row("lock-is-not-written-through-a-link")
def _(t):
    address = t.serve(lambda request: request.send(200, "content"))
    home = "/root" if t.mode == "root" else "/home/hostile"
    t.context({"Dockerfile": f"FROM base\nADD http://{address}/x /f\n", "rbuild.lock": Link(f"{home}/new-file"),
               "sub": Link(home)})
    t.build(None)
    t.rbuild("lock", "--build-context", f"base=oci-layout://{t._base}", t.ctx)


HOSTILE_LOCKS = {
    "deep": "version = 1\nx = " + "[" * 100000,
    "deep-keys": "version = 1\n" + ".".join(["a"] * 100000) + " = 1\n",
    "million-entries": LOCK + '[[url]]\nurl = "http://h/x"\ndigest = "sha256:' + "0" * 64 + '"\n',
    "digest-is-a-path": LOCK + '[[image]]\nname = "docker.io/library/base:latest"\nplatform = "linux/amd64"\n'
                        'digest = "sha256:../../../../host/secret"\n',
    "escapes": LOCK + '[[url]]\nurl = "http://h/\\u001b]0;evil\\u0007"\ndigest = "\\u001b[31mx"\n',
    "commit-is-an-option": LOCK + '[[git]]\nrepository = "http://127.0.0.1:1/x.git"\nreference = "main"\n'
                           'commit = "--upload-pack=touch /srv/open/new"\n',
    "version-huge": "version = 99999999999999999999\n",
    "names-repeat": LOCK * 1000,
    "control": "\x1b]0;evil\x07\x1b[2J = \x00",
    "unicode": "version = 1\n\u202eplatforms = 1\n",
}
for name, text in HOSTILE_LOCKS.items():
    def _lock(t, name=name, text=text):
        entry = text[len(LOCK):] if name == "million-entries" else ""
        t.context({"rbuild.lock": text + entry * 100000,
                   "Dockerfile": "FROM base\nADD http://127.0.0.1:1/x.git#main /g\n"})
        result = t.build(None, env={"GIT_TERMINAL_PROMPT": "0"})
        raw(t, result)
        raw(t, t.build(None, "--locked"))

    row(f"lock-file-{name}", cve="CVE-2026-15792" if "digest" in name else "")(_lock)


# Colours, which rbuild itself uses in the logs of CI systems.
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def raw(t, result, ci=False):
    """Counts control characters that rbuild printed, but for line ends and tabs."""
    output = COLOUR.sub(b"", result.output) if ci else result.output
    text = output.decode("utf-8", "replace")
    for character in text:
        number = ord(character)
        if number < 32 and number not in (9, 10, 13) or 127 <= number < 160 or character in BIDI:
            line = next(line for line in text.split("\n") if character in line)
            t.count("W", f"U+{number:04X} was printed: {line[:200]!r}")
            return


# Bidi_Control (UAX #9), and the separators of lines and paragraphs.
BIDI = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


for name, files in {
    "source-is-a-link-out": {"file": Link("/host/secret"), "a": Link("/etc"), "Dockerfile": "FROM base\nCOPY file a/canary a /x/\n"},
    "source-below-a-link": {"a": Link("/etc"), "Dockerfile": "FROM base\nCOPY a/canary /x\n"},
    "source-up": {"Dockerfile": "FROM base\nCOPY ../../../../../etc/canary /x\nADD ../../../host /y\n"},
    "source-absolute": {"Dockerfile": "FROM base\nCOPY /etc/canary /x\nADD /host/secret /y\n"},
    "source-glob-up": {"a": Link("/"), "Dockerfile": "FROM base\nCOPY a/*/canary /x/\nCOPY ../*/*/canary /y/\n"},
    "source-is-a-fifo": {"file": Fifo(), "Dockerfile": "FROM base\nCOPY file /x\n"},
    "source-is-a-device": {"file": Node(stat.S_IFCHR, 1, 5), "Dockerfile": "FROM base\nCOPY file /x\nADD file /y\n"},
    "source-is-a-socket": {"file": Socket(), "Dockerfile": "FROM base\nCOPY . /x\n"},
    "source-by-proc": {"p": Link("/proc/self/fd"), "q": Link("/proc/self/root"), "Dockerfile":
                       "FROM base\nCOPY p /x\nCOPY q/etc/canary /y\nCOPY p/14 /z\n"},
    "add-archive-is-a-link": {"x.tar": Link("/host/secret"), "Dockerfile": "FROM base\nADD x.tar /\n"},
    "link-loop": {"a": Link("b"), "b": Link("a"), "Dockerfile": "FROM base\nCOPY a /x\nCOPY . /y/\n"},
    "ignore-brings-back": {".dockerignore": "*\n!../../etc/canary\n!/etc/canary\n", "a": Link("/etc"),
                           "Dockerfile": "FROM base\nCOPY . /x\n"},
}.items():
    def _context(t, files=files):
        t.context({**files})
        t.build(None)
        t.build(None, "--build-context", f"other={t.ctx}")

    row(f"checkout-{name}", disk=400, cve="CVE-2026-44517" if "link" in name else "")(_context)


@row("checkout-source-has-a-terabyte-of-holes")
def _(t):
    """It may be refused or take long; it fills no disk and does not make rbuild deaf."""
    t.context({"file": Holes(1 << 40)})
    interrupted(t, lambda: t.build("FROM base\nCOPY file /x\n"))


@row("a-context-that-changes-while-it-is-read", seconds=30)
def _(t):
    """A directory is exchanged for a link to the host while COPY walks it."""
    import subprocess
    t.context({f"x/etc/f{n}": "x" for n in range(50)})
    t.context({"x/host/secret": "x", "x/etc/canary": "x", "y": Link("/"), "Dockerfile": "FROM base\nCOPY x/etc/canary x/host/secret /1/\n"})
    t.give(t.ctx)
    swapper = subprocess.Popen(["/host/probe", "swap", t.ctx, "1000000"])
    try:
        for turn in range(15):
            t.build(f"FROM base\nCOPY x/etc/canary x/host/secret /{turn}/\nRUN --mount=source=x,target=/m cat /m/host/secret\n")
    finally:
        swapper.kill()
        swapper.wait()


@row("control-an-ordinary-checkout-is-built-and-locked")
def _(t):
    address = t.serve(lambda request: request.send(200, "content"))
    t.context({"Dockerfile": Link("sub/Dockerfile"), "sub/Dockerfile": f"FROM base\nCOPY file /\nADD http://{address}/x /f\nRUN cat /file /f\n",
               "file": "hello-"})
    t.build(None, expect="ok", says="hello-content")
    t.rbuild("lock", "--build-context", f"base=oci-layout://{t._base}", t.ctx, expect="ok")
    if not os.path.exists(f"{t.ctx}/rbuild.lock"):
        t.fail("no lock file was written")
