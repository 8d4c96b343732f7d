"""Where campaigns run: in namespaces of their own, on a file system in memory of bounded size.

A worker is process 1 of its namespaces (processes, mounts, network, System V objects). Whatever else runs
there after a try was left behind by it, and so was every mount that was not there before.
"""

import os
import signal
import subprocess
import time

from lib import kernel

ROOT = "/mnt"
# Bounds on everything that a worker writes.
BYTES = 1 << 30
INODES = 400_000

USER = 20000
USER_NAME = "reliability"
SUBORDINATE = 2_000_000


def enter():
    """Makes the arena. The caller is process 1 of new namespaces already."""
    os.umask(0o022)
    kernel.mount("arena", ROOT, "tmpfs", 0, f"mode=755,size={BYTES},nr_inodes={INODES}")
    for name in ("tries", "shared", "etc"):
        os.mkdir(f"{ROOT}/{name}")
    os.mkdir(f"{ROOT}/tmp")
    os.chmod(f"{ROOT}/tmp", 0o1777)
    for owner, name in ((0, "root"), (USER, USER_NAME)):
        os.makedirs(f"{ROOT}/home/{name}")
        os.chown(f"{ROOT}/home/{name}", owner, owner)
    _accounts()
    kernel.loopback_up()


def _accounts():
    """Gives this mount namespace an ordinary user with subordinate ids."""
    texts = {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\n{USER_NAME}:x:{USER}:{USER}::{home(USER)}:/bin/sh\n"
                  "nobody:x:65534:65534::/nonexistent:/bin/false\n",
        "group": f"root:x:0:\n{USER_NAME}:x:{USER}:\nnogroup:x:65534:\n",
        "subuid": f"{USER_NAME}:{SUBORDINATE}:65536\n",
        "subgid": f"{USER_NAME}:{SUBORDINATE}:65536\n",
    }
    for name, text in texts.items():
        path = f"{ROOT}/etc/{name}"
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o644)
        kernel.bind(path, f"/etc/{name}")


def home(owner):
    return f"{ROOT}/home/" + ("root" if owner == 0 else USER_NAME)


def environment(owner):
    """Returns the complete environment of rbuild; nothing is inherited from the caller."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": home(owner),
            "TMPDIR": f"{ROOT}/tmp", "LC_ALL": "C.UTF-8"}


def mounts():
    """Returns the mount points of this namespace."""
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file]


def strangers():
    """Returns the names of all other processes by process id. Reaps orphaned zombies."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                line = file.read()
        except OSError:
            continue
        command = line[line.index("("):line.rindex(")") + 1]
        state, parent = line[line.rindex(")") + 2:].split()[:2]
        if state not in "ZX":
            found[int(name)] = command
        elif int(parent) == os.getpid():
            try:
                os.waitpid(int(name), os.WNOHANG)
            except OSError:
                pass
    return found


def end_strangers(grace):
    """Waits `grace` seconds for other processes to end, then kills them. Returns those that were killed."""
    end = time.monotonic() + grace
    while (left := strangers()) and time.monotonic() < end:
        time.sleep(0.005)
    for number in left:
        try:
            os.kill(number, signal.SIGKILL)
        except OSError:
            pass
    end = time.monotonic() + 5
    while strangers() and time.monotonic() < end:
        time.sleep(0.01)
    return left


def end_mounts(known):
    """Unmounts everything that is not among `known`, and returns the mount points."""
    left = [place for place in mounts() if place not in known]
    for place in reversed(left):
        try:
            kernel.umount(place)
        except OSError:
            pass
    return left


def remove(path):
    """Removes a file or a directory tree of any depth and modes."""
    subprocess.run(["rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)


def copy(source, target):
    """Copies a tree with owners, modes, times, links and extended attributes."""
    subprocess.run(["cp", "-a", "--", source, target], check=True, timeout=60)
