"""Magic links and descriptors: every path that an image or a Dockerfile has a say in."""

import platform
import re

from lib import elf, tarball
from lib.suite import File, Link, attack, row

# Where rbuild's own descriptors may be while a step is set up.
FIRST, LAST = 3, 40
UPS = "../../../../../../.."
LOOK = ("for up in . .. ../.. ../../.. ../../../.. ../../../../.. ../../../../../..; do"
        " cat $up/etc/canary $up/root/secret $up/host/secret $up/home/hostile/secret;"
        " echo x >>$up/srv/open/file; echo x >>$up/tmp/canary; done 2>/dev/null; true")


@row("control-a-build-succeeds-and-shows-its-output")
def _(t):
    t.build("FROM base\nRUN echo step-$((40+2))\n", expect="ok", says="step-42")


@row("workdir-through-descriptors-of-rbuild", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        t.build(f"FROM base\nWORKDIR /proc/self/fd/{fd}\nRUN {LOOK}\n")


@row("workdir-below-descriptors-of-rbuild", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        t.build(f"FROM base\nWORKDIR /proc/self/fd/{fd}/{UPS}/srv/open\nRUN {LOOK}; : >new\n")


@row("workdir-through-links-to-descriptors", cve="CVE-2024-21626", seconds=60)
def _(t):
    t.base([tarball.archive(*(tarball.symlink(f"w{fd}", f"/proc/self/fd/{fd}") for fd in range(FIRST, LAST)))])
    for fd in range(FIRST, LAST):
        t.build(f"FROM base\nWORKDIR /w{fd}\nRUN {LOOK}\n")


@row("working-dir-of-the-base-is-a-descriptor", cve="CVE-2024-21626", seconds=60)
def _(t):
    from lib import oci
    from lib.suite import base_layer

    for fd in range(10, 24):
        t.base(oci.Image([base_layer()], {"WorkingDir": f"/proc/self/fd/{fd}"}))
        t.build(f"FROM base\nRUN {LOOK}\n")


MAGIC = {
    "self-cwd": "/proc/self/cwd", "self-root": "/proc/self/root", "init-root": "/proc/1/root",
    "init-cwd": "/proc/1/cwd", "thread-self-root": "/proc/thread-self/root",
    "task-root": "/proc/self/task/1/root", "thread-self-fd": "/proc/thread-self/fd/14",
    "task-fd": "/proc/self/task/1/fd/14", "dev-fd": "/dev/fd/14", "dev-stdin": "/dev/stdin",
    "map-files": "/proc/self/map_files", "mount-namespace": "/proc/self/ns/mnt",
    "parent-root": "/proc/2/root", "up": f"/{UPS}/srv/open", "proc-up": f"/proc/{UPS}/srv/open",
}

for name, path in MAGIC.items():
    attack(f"workdir-is-{name}", f"FROM base\nWORKDIR {path}\nRUN {LOOK}\n", cve="CVE-2024-21626")
    attack(f"copy-destination-is-{name}", f"FROM base\nRUN true\nCOPY file {path}/new\nCOPY file {path}\n",
           files={"file": "x"})
    attack(f"bind-target-is-{name}",
           f"FROM base\nRUN --mount=target={path},rw ls {path}; {LOOK}\nRUN --mount=type=tmpfs,target={path}/x"
           f" {LOOK}\n", files={"file": "x"})
    attack(f"link-in-base-to-{name}",
           f"FROM base\nWORKDIR /w\nCOPY file /w/new\nRUN --mount=type=cache,target=/w/cache cd /w; {LOOK}\n",
           files={"file": "x"}, base=lambda path=path: [tarball.archive(tarball.symlink("w", path))])

attack("workdir-from-a-variable", f"FROM base\nARG N=14\nENV D=/proc/self\nWORKDIR $D/fd/$N\nRUN {LOOK}\n",
       cve="CVE-2024-21626")
attack("workdir-relative-into-proc", f"FROM base\nWORKDIR /proc\nWORKDIR self/fd\nWORKDIR 14\nRUN {LOOK}\n",
       cve="CVE-2024-21626")
attack("home-of-the-user-is-a-descriptor", f"FROM base\nUSER evil\nRUN cd; {LOOK}\nWORKDIR /\nRUN cd ~; {LOOK}\n",
       base=lambda: [tarball.archive(tarball.entry(
           "etc/passwd", "root:x:0:0::/root:/bin/sh\nevil:x:0:0::/proc/self/fd/14:/proc/self/exe\n"))])

# Programs -----------------------------------------------------------------------------------


def ran(t, result, how):
    if re.search(r"(?m)^(#\d+ [\d.]+ )?A-PROGRAM-OF-THE-HOST-RAN", result.text):
        t.count("W", f"a program of the host ran as {how}")


@row("program-below-descriptors-is-of-the-host", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        ran(t, t.build(f'FROM base\nRUN ["/proc/self/fd/{fd}/{UPS}/host/program", "say-who-ran"]\n'), f"fd {fd}")


@row("interpreter-below-descriptors-is-of-the-host", seconds=60)
def _(t):
    t.context({f"s{fd}": File(f"#!/proc/self/fd/{fd}/{UPS}/host/program\n", 0o755)
               for fd in range(FIRST, LAST)})
    for fd in range(FIRST, LAST):
        ran(t, t.build(f'FROM base\nCOPY s{fd} /s\nRUN ["/s", "say-who-ran"]\n'), f"interpreter, fd {fd}")
        ran(t, t.build(f'FROM base\nRUN <<E\n#!/proc/self/fd/{fd}/{UPS}/host/program say-who-ran\nE\n'), f"heredoc, fd {fd}")


@row("loader-below-descriptors-is-of-the-host", seconds=60)
def _(t):
    t.context({f"s{fd}": File(elf.with_interpreter(f"/proc/self/fd/{fd}/{UPS}/host/program"), 0o755)
               for fd in range(FIRST, LAST)})
    for fd in range(FIRST, LAST):
        ran(t, t.build(f'FROM base\nCOPY s{fd} /s\nRUN ["/s", "say-who-ran"]\n'), f"loader, fd {fd}")


@row("shell-below-descriptors-is-of-the-host", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        ran(t, t.build(f'FROM base\nSHELL ["/proc/self/fd/{fd}/{UPS}/host/program"]\nRUN say-who-ran\n'), f"shell, fd {fd}")


@row("program-by-path-is-below-descriptors", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        ran(t, t.build(f'FROM base\nENV PATH=/proc/self/fd/{fd}/{UPS}/host:/bin\nRUN ["program", "say-who-ran"]\n'), f"PATH, fd {fd}")


# What runs when rbuild's own program is executed inside a step: it asks the image's git, which changes
# the program that asked.
GIT = "#!/bin/sh\nfor p in $PPID 1 $(ls /proc); do chmod 4777 /proc/$p/exe; echo x >>/proc/$p/exe; done 2>/dev/null\n"
RBUILD_AGAIN = '"build", "--root", "/tmp/s", "git://127.0.0.1/x.git"'
# With a dynamic rbuild, the loader is the image's: its code then runs as rbuild's program.
LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")


def loaders():
    with open("/host/loader", "rb") as file:
        loader = file.read()
    return [tarball.entry(name, loader, mode=0o755) for name in LOADERS]


PROGRAMS = {
    "self-exe": ("/proc/self/exe", ""), "init-exe": ("/proc/1/exe", ""),
    "thread-self-exe": ("/proc/thread-self/exe", ""),
    "relative-exe": ("proc/self/exe", ""), "link-to-exe": ("/exe", ""), "dev-up-exe": ("/dev/fd/../exe", ""),
    "workdir-exe": ("./exe", "WORKDIR /proc/self\n"),
}
for name, (program, before) in PROGRAMS.items():
    def _program(t, program=program, before=before):
        t.base([tarball.archive(tarball.entry("usr/bin/git", GIT, mode=0o755),
                                tarball.entry("bin/git", GIT, mode=0o755),
                                tarball.symlink("exe", "/proc/self/exe"), *loaders())])
        t.build(f'FROM base\n{before}RUN ["{program}", {RBUILD_AGAIN}]\n')
        t.build(f'FROM base\n{before}SHELL ["{program}", {RBUILD_AGAIN}]\nRUN x\n')

    row(f"program-is-{name}", cve="CVE-2019-5736")(_program)

for name, line in {"exe": "/proc/self/exe build", "init-exe": "/proc/1/exe build", "link-to-exe": "/exe build"}.items():
    def _script(t, line=line):
        t.base([tarball.archive(tarball.entry("usr/bin/git", GIT, mode=0o755),
                                tarball.entry("bin/git", GIT, mode=0o755),
                                tarball.symlink("exe", "/proc/self/exe"), *loaders())])
        t.context({"s": File(f"#!{line}\n", 0o755), "c": File("#!/s2\n", 0o755), "s2": File(f"#!{line}\n", 0o755)})
        t.build('FROM base\nCOPY s /s\nRUN ["/s", "--root", "/tmp/s", "git://127.0.0.1/x.git"]\n')
        t.build('FROM base\nCOPY c s2 /\nRUN ["/c", "--root", "/tmp/s", "git://127.0.0.1/x.git"]\n')
        t.build(f"FROM base\nRUN <<E\n#!{line}\nE\n")

    row(f"interpreter-is-{name}", cve="CVE-2019-5736")(_script)

@row("loader-of-the-image-runs-rbuild", cve="CVE-2019-5736")
def _(t):
    t.base([tarball.archive(*loaders())])
    for program in ("/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe"):
        t.build(f'FROM base\nRUN ["{program}", "x"]\n')


if platform.machine() == "x86_64":
    for name, path in {"exe": "/proc/self/exe", "init-exe": "/proc/1/exe", "fd": "/dev/fd/3"}.items():
        attack(f"loader-is-{name}", 'FROM base\nCOPY s /s\nRUN ["/s", "--root", "/tmp/s", "git://127.0.0.1/x.git"]\n',
               files={"s": File(elf.with_interpreter(path), 0o755)}, cve="CVE-2019-5736")

# Files of an image that rbuild itself looks at -------------------------------------------------

PLACES = ["dev", "proc", "sys", "etc", "etc/hosts", "etc/resolv.conf", "etc/passwd", "etc/group", "tmp", "w",
          "dev/null", "dev/pts", "proc/self", "bin/sh", "root"]
CVES = {"dev": "CVE-2026-41579", "etc/passwd": "CVE-2024-9676", "etc/group": "CVE-2024-9676",
        "dev/null": "CVE-2025-31133", "dev/pts": "CVE-2025-52565", "w": "CVE-2025-9566"}
KINDS = {
    "link-to-srv": lambda name: tarball.symlink(name, "/srv/open"),
    "link-up": lambda name: tarball.symlink(name, f"{UPS}/srv/open/file"),
    "link-to-secret": lambda name: tarball.symlink(name, f"/{UPS}/host/secret"),
    "magic-link": lambda name: tarball.symlink(name, f"/proc/self/fd/14/{UPS}/srv/open"),
    "link-to-kmsg": lambda name: tarball.symlink(name, "/proc/kmsg"),
    "link-to-itself": lambda name: tarball.symlink(name, name.rsplit("/", 1)[-1]),
    "fifo": lambda name: tarball.entry(name, type="6"),
    "device": lambda name: tarball.entry(name, type="3", major=1, minor=5, mode=0o666),
    "directory": lambda name: tarball.directory(name),
    "file": lambda name: tarball.entry(name, "x" * 100),
}
USES = ("FROM base\nWORKDIR /w/new\nCOPY file /etc/new/\nCOPY --chown=app:app file /tmp/\nRUN cat /etc/passwd"
        " /etc/group /etc/hosts; ls -la / /dev /etc/; echo x >>/etc/hosts; echo x >/dev/null; echo x >/tmp/x;"
        " true\nUSER app\nRUN id; " + LOOK + "\n")

for place in PLACES:
    for kind, make in KINDS.items():
        def _place(t, place=place, make=make):
            # What was there goes first: an image may have none of it.
            directory, _, name = place.rpartition("/")
            gone = tarball.entry(f"{directory}/.wh.{name}".lstrip("/"))
            t.base([tarball.archive(gone), tarball.archive(make(place))])
            t.context({"file": "x"})
            t.build(USES)
            if place.startswith("etc"):
                t.build("FROM base\nUSER app\nRUN true\n")

        row(f"base-has-{place.replace('/', '-')}-as-{kind}", cve=CVES.get(place, ""))(_place)

for place in ("dev", "proc", "sys", "etc", "etc/hosts", "etc/resolv.conf", "etc/passwd", "w", "tmp"):
    for kind, target in {"link-to-srv": "/srv/open", "magic-link": f"/proc/self/fd/14/{UPS}/srv/open"}.items():
        def _step(t, place=place, target=target):
            t.context({f"tree/{place}": Link(target), "file": "x"})
            # `RUN` may not remove what it stands on; `COPY` of links makes them as they are.
            t.build("FROM scratch\nCOPY tree/ /\nCOPY --from=base /bin /bin\nCOPY file /w/new\nCOPY file /etc/new\n"
                    f"WORKDIR /w/x\nRUN {LOOK}\nRUN echo x >/etc/hosts; true\n")
            t.build(f"FROM base\nRUN rm -rf /{place}; ln -s {target} /{place}; true\nCOPY file /w/new\n"
                    f"WORKDIR /w/x\nRUN {LOOK}\nUSER app\nRUN true\n")

        row(f"a-step-makes-{place.replace('/', '-')}-a-{kind}", cve=CVES.get(place, ""))(_step)

for file in ("passwd", "group"):
    def _huge(t, file=file):
        t.context({"file": "x"})
        t.build(f"FROM base\nRUN truncate -s 4G /etc/{file}\nWORKDIR /new\n", seconds=20)
        t.build(f"FROM base\nRUN truncate -s 4G /etc/{file}\nCOPY --chown=app:app file /\n", seconds=20)
        t.build(f"FROM base\nRUN truncate -s 4G /etc/{file}\nUSER app\nRUN true\n", seconds=20)

    row(f"etc-{file}-of-4-gib", cve="CVE-2026-47262", seconds=60, same_for_all_users=True)(_huge)

    def _fifo(t, file=file):
        t.context({"file": "x"})
        t.build(f"FROM base\nRUN rm /etc/{file}; mkfifo /etc/{file}\nWORKDIR /new\n"
                "COPY --chown=app:app file /\nUSER app\nRUN true\n")

    row(f"a-step-makes-etc-{file}-a-fifo", cve="CVE-2024-9676")(_fifo)

attack("etc-passwd-of-one-endless-line",
       "FROM base\nRUN tr '\\0' a </dev/zero | head -c 60000000 >/etc/passwd\nCOPY --chown=app file /\n"
       "USER app\nRUN true\n", files={"file": "x"}, cve="CVE-2026-47262", disk=400)

# Users -------------------------------------------------------------------------------------

for name, user in {
    "2-to-the-32": "4294967296", "2-to-the-31": "2147483648", "minus-one": "-1", "max": "4294967295",
    "huge": "99999999999:0", "group-2-to-the-32": "1000:4294967296", "plus": "+0", "space": "\" 0\"",
    "hex": "0x0", "empty-group": "1000:", "colons": "1000:0:0", "octal": "00", "named-number": "4294967295",
    "long": "9" * 4000, "newline": "\"app\\nroot\"",
}.items():
    def _user(t, user=user):
        t.base([tarball.archive(tarball.entry(
            "etc/passwd", "root:x:0:0::/root:/bin/sh\n4294967295:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n"
            "big:x:4294967296:4294967296::/:/bin/sh\nneg:x:-1:-1::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"))])
        t.context({"file": "x"})
        for instruction in (f"USER {user}\nRUN", "USER big\nRUN", "USER neg\nRUN"):
            result = t.build(f"FROM base\n{instruction} echo uid-$(id -u)\n")
            is_root_by_right = user in ("00", "+0", '" 0"', "0x0", "4294967295", "-1", "99999999999:0")
            if "uid-0" in result.text and not (is_root_by_right and "big" not in instruction
                                              and "neg" not in instruction):
                t.count("W", f"{instruction!r} is root")
        t.build(f"FROM base\nCOPY --chown={user} file /\n")

    row(f"user-is-{name}", cve="CVE-2024-40635")(_user)

# Mounts ------------------------------------------------------------------------------------

for name, mount in {
    "source-up": "source=../../../../../../host,target=/m",
    "source-absolute": "source=/../../../../host,target=/m",
    "source-is-a-link": "source=link,target=/m",
    "source-below-a-link": "source=link/host,target=/m",
    "source-is-proc": "source=/proc/self/fd/14,target=/m",
    "from-stage-link": "from=s,source=/x,target=/m,rw",
    "from-stage-below-link": "from=s,source=/x/host,target=/m,rw",
    "from-stage-magic": "from=s,source=/magic,target=/m,rw",
    "from-stage-proc": "from=s,source=/proc/self/root,target=/m,rw",
    "cache-source-up": "type=cache,id=c,source=../../../..,target=/m",
    "cache-id-up": "type=cache,id=../../../../../srv/open,target=/m",
    "cache-id-absolute": "type=cache,id=/srv/open,target=/m",
    "cache-from-stage-link": "type=cache,id=l,from=s,source=/x,target=/m",
    "target-is-root": "source=.,target=/,rw",
    "target-up": "source=.,target=/../../../m,rw",
    "propagation": "source=.,target=/m,bind-propagation=rshared,rw",
    "relabel": "source=.,target=/m,z",
    "tmpfs-options": "type=tmpfs,target=/m,size=1k,mode=4777,dev",
    "unknown-type": "type=volume,source=/,target=/m",
    "secret-by-path": "type=secret,source=/host/secret,target=/m",
    "secret-id-path": "type=secret,id=/host/secret,target=/m",
}.items():
    attack(f"mount-{name}",
           "FROM base AS s\nRUN ln -s / /x; ln -s /proc/self/fd/14/../../../../.. /magic\nFROM base\n"
           f"RUN --mount={mount} cat /m /m/secret /m/host/secret /m/file; echo x >>/m/file; echo x >/m/BREAKOUT;"
           " echo x >/m/srv/open/file; true\n",
           files={"file": "x", "link": Link("/"), "host/file": "x"},
           cve={"from-stage-link": "CVE-2024-1753", "propagation": "CVE-2024-9407",
                "cache-source-up": "CVE-2024-9675", "cache-id-up": "CVE-2024-9675"}.get(name, ""))


@row("writes-to-a-bind-mount-do-not-reach-the-context", cve="CVE-2025-4953")
def _(t):
    import os
    t.context({"file": "old", "dir/x": "old"})
    before = [(name, os.lstat(f"{t.ctx}/{name}").st_ctime_ns) for name in ("file", "dir", "dir/x")]
    t.build("FROM base\nRUN --mount=target=/m,rw echo new >/m/file; rm -r /m/dir; echo x >/m/new; chmod 0 /m/file\n",
            expect="ok")
    after = [(name, os.lstat(f"{t.ctx}/{name}").st_ctime_ns) for name in ("file", "dir", "dir/x")]
    if before != after or os.path.exists(f"{t.ctx}/new"):
        t.count("W", "the context changed")


@row("mount-points-are-removed-only-inside", cve="CVE-2024-23652")
def _(t):
    t.build("FROM base\nRUN --mount=type=tmpfs,target=/a/b/c umount /a/b/c; mv /a /z; ln -s /srv /a; true\n"
            "RUN --mount=type=tmpfs,target=/srv/open --mount=type=cache,target=/var/lib/canary/x true\n"
            "RUN rm -rf /mm; ln -s /srv /mm\nRUN --mount=type=tmpfs,target=/mm/open/empty true\n")


@row("socket-of-the-host-in-the-context-is-not-reached")
def _(t):
    import os
    import socket
    import threading

    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{t.ctx}/s")
    os.chmod(f"{t.ctx}/s", 0o777)
    server.listen(5)

    def accept():
        while True:
            connection, _ = server.accept()
            t.count("W", "a step reached a socket in the context")
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    t.build("FROM base\nRUN --mount=target=/m echo connect socket /m/s | probe\n")


@row("nested-mount-target-through-a-link-in-a-cache", cve="CVE-2024-45310")
def _(t):
    t.build("FROM base\nRUN --mount=type=cache,id=evil,target=/c ln -sfn /etc /c/link; ln -sfn /../../srv/open"
            " /c/host; ln -sfn /proc/self/fd/14 /c/magic\n", expect="ok")
    for link in ("link", "host", "magic"):
        files = t.files("FROM base\nRUN --mount=type=cache,id=evil,target=/c --mount=type=tmpfs,"
                        f"target=/c/{link}/evil true\n", expect="any")
        for path in files or ():
            if path.endswith("/evil"):
                t.count("W", f"/{path} stays in the image")


RACES = {
    "cache-source": ("--mount=type=cache,id=c,source=x,target=/m", "CVE-2024-23651"),
    "cache-below": ("--mount=type=cache,id=c,source=x/host,target=/m", "CVE-2024-23651"),
    "nested-target": ("--mount=type=cache,id=c,target=/c --mount=type=tmpfs,target=/c/x/sub", "CVE-2024-45310"),
    "nested-bind": ("--mount=type=cache,id=c,target=/c --mount=type=bind,target=/c/x/sub/file,source=file",
                    "CVE-2024-11218"),
    "nested-secret": ("--mount=type=cache,id=c,target=/c --mount=type=secret,id=s,target=/c/x/sub/s", ""),
}
for name, (mounts, cve) in RACES.items():
    def _race(t, mounts=mounts):
        t.context({"file": "x"})
        t.build("FROM base\nRUN --mount=type=cache,id=c,target=/c mkdir -p /c/x/sub /c/x/host; ln -s / /c/y\n", expect="ok")
        looks = "".join(f"RUN {mounts} : {turn}; cat /m/host/secret /m/etc/canary /m/secret; echo x >/m/srv/open/file;"
                        " true\n" for turn in range(25))
        t.build("FROM base AS a\nRUN --mount=type=cache,id=c,target=/c probe swap /c 10000\n"
                f"FROM base AS b\n{looks}"
                "FROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
                "--secret", "id=s,env=HOME")

    row(f"race-of-{name}", cve=cve, seconds=40)(_race)


@row("network-none-has-no-resolver", cve="CVE-2024-29018")
def _(t):
    result = t.build("FROM base\nRUN sed 's/^/RESOLV /' /etc/resolv.conf; nslookup example.org 127.0.0.1; true\n",
                     "--network=none", expect="ok")


for way, dockerfile in {
    "direct": "FROM base\nRUN --security=insecure touch /x\n",
    "odd-value": "FROM base\nRUN --security=INSECURE touch /x\n",
    "number": "FROM base\nRUN --security=1 touch /x\n",
    "empty": "FROM base\nRUN --security= mount -t tmpfs none /tmp\n",
    "variable": "FROM base\nARG S=insecure\nRUN --security=$S touch /x\n",
    "network-host": "FROM base\nRUN --network=host touch /x\n",
    "stage": "FROM base AS a\nRUN --security=insecure touch /x\nFROM base\nCOPY --from=a /x /x\n",
}.items():
    attack(f"entitlement-{way}", dockerfile, expect="fails",
           cve="CVE-2024-23653" if way != "odd-value" else "GHSA-7236-3392")


@row("entitlement-in-onbuild", cve="CVE-2024-23653")
def _(t):
    from lib import oci
    from lib.suite import base_layer
    t.base(oci.Image([base_layer()], {"OnBuild": ["RUN --security=insecure touch /x"]}))
    t.build("FROM base\n", expect="fails")


@row("entitlement-is-not-remembered-by-the-cache", cve="CVE-2024-23653")
def _(t):
    text = "FROM base\nRUN --security=insecure touch /x\n"
    t.build(text, "--allow", "security.insecure")
    t.build(text, expect="fails")


@row("onbuild-copies-into-directories-of-the-builder", cve="CVE-2026-28406")
def _(t):
    from lib import oci
    from lib.suite import base_layer
    places = ["/dev/rbuild", "/dev/pipes", "/dev", "/proc/self/exe", "/proc/self/fd/14", "/sys/x", "/.rbuild", "/run/secrets"]
    t.context({"file": "x"})
    for place in places:
        t.base(oci.Image([base_layer()], {"OnBuild": [f"COPY file {place}", f"ADD file {place}/x"]}))
        t.build(f"FROM base\nRUN {LOOK}\n")
