"""`rbuild enter` and shells on errors: the same fences, and a terminal that stays the caller's."""

import os
import pty
import re
import select
import signal
import time

from lib import tarball
from lib.suite import find_token, row
from lib.world import RBUILD

from .descriptors import FIRST, LAST, LOOK, UPS, loaders, ran


def enter(t, *words, stdin=b"", **more):
    # It ends with the status of what ran.
    t.other_statuses = range(256)
    return t.rbuild("enter", *words, stdin=stdin, **more)


def built(t, dockerfile="FROM base\nRUN true\n"):
    t.context({})
    t.build(dockerfile, "-t", "entered:1", expect="ok")


@row("control-enter-runs-a-command")
def _(t):
    built(t)
    enter(t, "entered:1", "--", "echo", "entered-it", expect="ok", says="(?m)^entered-it")


@row("enter-in-a-working-directory-that-is-a-descriptor", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        built(t, f"FROM base\nWORKDIR /proc/self/fd/{fd}\n")
        enter(t, "entered:1", "--", "sh", "-c", LOOK)


@row("enter-runs-a-program-below-a-descriptor", cve="CVE-2024-21626", seconds=60)
def _(t):
    built(t)
    for fd in range(FIRST, LAST):
        result = enter(t, "entered:1", "--", f"/proc/self/fd/{fd}/{UPS}/host/program", "say-who-ran")
        ran(t, result, f"fd {fd}")


@row("enter-runs-rbuild-itself", cve="CVE-2019-5736")
def _(t):
    t.base([tarball.archive(tarball.symlink("exe", "/proc/self/exe"), *loaders())])
    built(t)
    for program in ("/proc/self/exe", "/proc/1/exe", "/exe"):
        enter(t, "entered:1", "--", program, "x")


@row("enter-with-links-at-dev", cve="CVE-2025-52565")
def _(t):
    for place in ("dev", "dev/pts", "dev/console", "dev/ptmx", "proc", "bin/sh"):
        directory, _, name = place.rpartition("/")
        t.base([tarball.archive(tarball.entry(f"{directory}/.wh.{name}".lstrip("/"))),
                tarball.archive(tarball.symlink(place, "/srv/open"))])
        t.context({})
        t.build("FROM base\nLABEL a=b\n", "-t", "entered:1")
        enter(t, "entered:1", "--", "/bin/busybox", "sh", "-c", LOOK)
        terminal(t, ["enter", "entered:1", "--", "/bin/busybox", "sh", "-c", LOOK])


@row("enter-a-step-that-wants-to-be-privileged", cve="CVE-2024-23653")
def _(t):
    t.context({"Dockerfile": "FROM base\nRUN --security=insecure touch /x\n"})
    result = enter(t, "--build-context", f"base=oci-layout://{t._base}", "--step", "2", t.ctx, "--", "sh", "-c",
                   "grep CapEff /proc/self/status")
    found = re.search(r"(?m)^CapEff:\s+([0-9a-f]+)", result.text)
    if found and int(found[1], 16) & ~0xA80425FB:
        t.count("W", f"a step was entered with {found[1]}")


@row("enter-has-the-rights-of-a-step", cve="CVE-2025-27612")
def _(t):
    built(t)
    result = enter(t, "entered:1", "--", "cat", "/proc/self/status", expect="ok")
    for name, value in re.findall(r"(?m)^(Cap\w+):\s+([0-9a-f]+)", result.text):
        if int(value, 16) & ~(0 if name in ("CapInh", "CapAmb") else 0xA80425FB):
            t.count("W", f"{name} is {value}")
    if not re.search(r"(?m)^Seccomp:\s+2", result.text):
        t.count("W", "there is no filter of system calls")


@row("enter-leaves-no-processes-and-changes-no-devices")
def _(t):
    built(t)
    enter(t, "entered:1", "--", "sh", "-c", "for i in /dev/*; do chmod 0 $i; chown 5 $i; done; (setsid sleep 60 &); kill -9 -1; true")


# Terminals -----------------------------------------------------------------------------------

def terminal(t, words, keys=b"", seconds=8.0):
    """Runs rbuild on a terminal of its own; returns what came out, and what waits to be read as keys."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(t.owner)
            os.setuid(t.owner)
            os.chdir(t.dir)
            # A shell is the caller: what is left on the terminal when rbuild ends, it would run.
            os.execve("/bin/busybox", ["sh", "-c", '"$@"; stty -icanon -echo min 0 time 3; echo; echo LEFT; dd bs=1000 count=1 2>/dev/null | od -c', "sh",
                                       RBUILD, *words], {**t.env, "TERM": "xterm"})
        finally:
            os._exit(127)
    output, end, answered = b"", time.monotonic() + seconds, False
    os.write(master, keys)
    while time.monotonic() < end:
        ready, _, _ = select.select([master], [], [], 0.1)
        if ready:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            output += piece
            # A terminal answers questions late, when the program that asked has gone.
            if b"\x1b[6n" in piece or b"\x1b[c" in piece:
                os.write(master, b"\x1b[1;1R" + b"evil-answer\n")
    else:
        t.count("X", "a terminal session does not end")
        os.kill(pid, signal.SIGKILL)
    os.close(master)
    try:
        os.waitpid(pid, 0)
    except OSError:
        pass
    if found := find_token(output, t.world.prefix.encode()):
        t.count("R", f"a token was printed: {found!r}")
    return output


@row("control-a-terminal-session-works")
def _(t):
    built(t)
    output = terminal(t, ["enter", "entered:1", "--", "sh", "-c", "tty; echo on-a-$((1+1))-terminal"])
    if b"on-a-2-terminal" not in output or b"LEFT" not in output:
        t.fail(f"there was no terminal session: {output[-300:]!r}")


@row("enter-leaves-no-late-answers-for-the-callers-shell")
def _(t):
    built(t)
    output = terminal(t, ["enter", "entered:1", "--", "printf", "\\033[6n\\033[c"])
    left = output[output.rfind(b"LEFT"):]
    if b"e   v   i   l" in left:
        t.count("W", "the caller's shell would read what a terminal answered to the image")


@row("enter-cannot-push-keys-into-the-callers-terminal")
def _(t):
    built(t)
    output = terminal(t, ["enter", "entered:1", "--", "sh", "-c",
                          "for f in /dev/tty /dev/console /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; do echo tiocsti a $f; echo tioclinux b $f; done | probe >/dev/null"])
    left = output[output.rfind(b"LEFT"):]
    if b"x" in left.replace(b"xterm", b""):
        t.count("W", "keys were pushed into the caller's terminal")


@row("a-shell-on-an-error-has-the-same-fences", cve="CVE-2024-21626")
def _(t):
    t.context({"Dockerfile": "FROM base\nRUN false\n"})
    terminal(t, ["build", "--on-error=shell", "--build-context", f"base=oci-layout://{t._base}", t.ctx],
             keys=(LOOK + "; for i in /dev/*; do chmod 0 $i; done; ls -la /proc/self/fd; cd /proc/self/fd/14 && " + LOOK + "; exit\n").encode())


@row("a-shell-on-an-error-in-a-directory-that-is-a-descriptor", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(12, 20):
        t.context({})
        t.plant(t.ctx, {"Dockerfile": f"FROM base\nWORKDIR /proc/self/fd/{fd}\nRUN false\n"})
        terminal(t, ["build", "--on-error=shell", "--build-context", f"base=oci-layout://{t._base}", t.ctx], keys=(LOOK + "\nexit\n").encode())
