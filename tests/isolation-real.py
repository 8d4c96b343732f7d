#!/usr/bin/env python3
"""Builds large images from Debian in a chosen way of starting rbuild, and compares their files with those that root
builds with namespaces on the host.

    tests/isolation-real.py --rbuild PROGRAM [--way WAY...] [--isolation VALUE] [--case NAME...] [--work DIRECTORY]

It needs root, busybox-static, a network with Debian's packages, PyPI and the npm registry, and an image
debian:bookworm: from docker.io, or from the registry that `--mirror` names. Each case is built in a new container
with a new store. `--work` keeps what root has built, so that it is built once; by default that is discarded.

The files are compared by path, type, mode, owner, group, size and target. VARYING names those that differ from one
build to the next. The last line is `N passed, N failed`.
"""

import argparse
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
LAUNCHER = os.path.join(HERE, "support", "container.py")

# Options of `docker run`, the directory for the store, or None for a process of the host.
WAYS = {
    "root": None,
    "user": None,
    "nobody": None,
    "docker": ([], "/var/lib/rbuild"),
    "docker-user": (["--user", "1000"], "/tmp/rbuild"),
    "docker-hardened": (["--user", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only",
                         "--tmpfs", "/tmp:exec"], "/tmp/rbuild"),
    "privileged": (["--privileged"], "/var/lib/rbuild"),
}
REFERENCE = ("root", "namespace")

APT = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
# The certificates of the machine: its network may have a proxy with its own.
CA = "--mount=type=secret,id=ca,target=/run/ca.crt,mode=0444"
HELLO_C = 'printf "#include <stdio.h>\\nint main(void) { puts(\\"hello\\"); return 0; }\\n" > hello.c'
HELLO_JAVA = 'printf "class Hello { public static void main(String[] a) { System.out.println(\\"hello\\"); } }" > Hello.java'
CASES = {
    "gcc": f"""
        RUN {APT} gcc libc6-dev make
        RUN {HELLO_C} && gcc -O2 -o hello hello.c && test "$(./hello)" = hello
        """,
    "nginx": f"""
        RUN {APT} nginx && sed -i 's/:80 /:18089 /; s/listen 80 /listen 18089 /' /etc/nginx/sites-available/default
        RUN nginx -t
        RUN id www-data && nginx && nginx -s stop
        """,
    "ssh": f"""
        RUN {APT} openssh-server && mkdir -p /run/sshd && /usr/sbin/sshd -t
        """,
    "postgres": f"""
        RUN {APT} postgresql
        USER postgres
        RUN /usr/lib/postgresql/15/bin/initdb -D /tmp/data && rm -r /tmp/data
        """,
    "pip": f"""
        RUN {APT} python3-pip python3-venv ca-certificates
        RUN {CA} python3 -m venv /venv && PIP_CERT=/run/ca.crt /venv/bin/pip install --no-compile six==1.16.0 click==8.1.7
        RUN /venv/bin/python -B -c 'import six, click'
        """,
    "npm": f"""
        RUN {APT} nodejs npm ca-certificates
        WORKDIR /app
        RUN {CA} npm_config_cafile=/run/ca.crt npm install --no-audit --no-fund is-number@7.0.0 semver@7.6.0
        RUN node -e 'require("is-number"); require("semver")'
        """,
    "accounts": """
        RUN groupadd -g 2000 team && useradd -m -u 2001 -g team -s /bin/bash dev && useradd -r -m service
        RUN mkdir -p /srv/app/data && touch /srv/app/data/a /srv/app/data/b && chown -R dev:team /srv/app
        RUN su - dev -c 'id && touch ~/mine && mkdir -p ~/d && chmod 700 ~/d && echo text > /srv/app/data/c'
        RUN install -d -o service -g team -m 2770 /srv/shared && usermod -aG team service
        USER dev
        WORKDIR /home/dev/work
        RUN touch ../other && ! touch /etc/refused && id -un > ../name
        USER root
        RUN chown dev:team . && su service -s /bin/sh -c 'touch /srv/shared/s' && userdel service && chpasswd <<EOF
        dev:secret
        EOF
        """,
    "owners": f"""
        RUN {APT} git perl && chown -R 1234:5678 /usr/share && chmod -R g+w /usr/share/perl
        RUN find /usr/share -user 1234 -group 5678 | wc -l > /count && chown -R 0:0 /usr/share/doc
        RUN chmod u+s /usr/bin/perl && cp -a /usr/share/git-core /copied && rm -rf /usr/share/git-core
        """,
    "java": f"""
        RUN mkdir -p /usr/share/man/man1 && {APT} default-jdk-headless
        RUN {HELLO_JAVA} && javac Hello.java && test "$(java Hello)" = hello
        """,
    "stages": f"""
        RUN {APT} gcc libc6-dev
        RUN mkdir /out && {HELLO_C} && gcc -static -o /out/hello hello.c && chown 12:34 /out/hello && chmod 4755 /out/hello
        FROM debian:bookworm
        COPY --from=0 /out /opt/bin
        RUN test "$(/opt/bin/hello)" = hello && ln /opt/bin/hello /opt/same
        """,
}

# Files whose presence or size differs from one build to the next.
VARYING = re.compile(r"""
    var/log/.*                          # times
    | run/[a-z]*\.pid                  # process ids
    | var/cache/(apt|ldconfig|debconf|man)/.*
    | var/lib/apt/lists/.*
    | etc/ssh/ssh_host_.*               # keys: their comments contain the host's name
    | etc/ssl/(certs/[0-9a-f]{8}\.[0-9]+|private/.*|certs/ssl-cert-snakeoil\.pem)
    | etc/(hostname|hosts|resolv\.conf|machine-id)
    | var/lib/postgresql/15/main/.*     # written by a server
    | root/\.npm/.*                     # cache and logs, by time
    | tmp/.*
    | usr/lib/jvm/.*\.jsa
    | .*/__pycache__/.*
""", re.VERBOSE)


def arguments():
    parser = argparse.ArgumentParser(description="Builds large images in a way of starting rbuild.")
    parser.add_argument("--rbuild", required=True, metavar="PROGRAM")
    parser.add_argument("--way", action="append", choices=WAYS, help="all if not given")
    parser.add_argument("--isolation", metavar="VALUE", help="value of RBUILD_ISOLATION")
    parser.add_argument("--case", action="append", choices=CASES, help="all if not given")
    parser.add_argument("--user", default="rbuild-test", help="user with subordinate ids for the way `user`")
    parser.add_argument("--mirror", metavar="URL", help="registry to use instead of docker.io")
    parser.add_argument("--work", metavar="DIRECTORY", help="directory that keeps the results of root")
    parser.add_argument("--size", default="8g", help="most memory of a container's files")
    parser.add_argument("--timeout", type=int, default=1800, metavar="SECONDS")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the messages of rbuild")
    return parser.parse_args()


class Failed(Exception):
    """A build that failed."""


def container_root(work, rbuild):
    """Writes the files of a container: busybox, rbuild, and its libraries if it is not static."""
    root = f"{work}/container"
    if os.path.isdir(root):
        return root
    for name in ("bin", "etc", "tmp", "root", "usr/bin", "var/lib"):
        os.makedirs(f"{root}/{name}")
    os.chmod(f"{root}/tmp", 0o1777)
    shutil.copy("/bin/busybox", f"{root}/bin/busybox")
    for applet in ("sh", "mkdir", "cat"):
        os.symlink("busybox", f"{root}/bin/{applet}")
    with open(f"{root}/etc/passwd", "w", encoding="ascii") as file:
        file.write("root:x:0:0::/root:/bin/sh\n")
    shutil.copy(rbuild, f"{root}/usr/bin/rbuild")
    listed = subprocess.run(["ldd", rbuild], capture_output=True, text=True, check=False).stdout
    for path in (word for word in listed.split() if word.startswith("/")):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        shutil.copy(path, root + path)
    return root


def command(options, way, work, rbuild, isolation):
    """Returns the command line up to rbuild's arguments, its environment, and the store."""
    variables = {"HOME": "/tmp"}
    if isolation:
        variables["RBUILD_ISOLATION"] = isolation
    if options.mirror:
        variables["RBUILD_MIRROR_DOCKER_IO"] = options.mirror
    if WAYS[way]:
        flags, store = WAYS[way]
        line = [LAUNCHER, "--network", "host", "--size", options.size, *flags]
        for name, value in variables.items():
            line += ["-e", f"{name}={value}"]
        for name, mode in (("context", ":ro"), ("out", "")):
            line += ["-v", f"{work}/{name}:/{name}{mode}"]
        script = 'mkdir -p "$0" && exec /usr/bin/rbuild --root "$0" "$@"'
        return [*line, container_root(work, rbuild), "sh", "-c", script, f"{store}/store"], os.environ, "/"
    line = []
    if way in ("user", "nobody"):
        account = pwd.getpwnam(options.user)
        uid, gid = (account.pw_uid, account.pw_gid) if way == "user" else (1_730_000_000, 1_730_000_000)
        line = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all"]
        os.makedirs(f"{work}/store-{way}", exist_ok=True)
        os.chown(f"{work}/store-{way}", uid, gid)
    environment = {"PATH": os.environ["PATH"], **variables}
    return [*line, rbuild, "--root", f"{work}/store-{way}"], environment, work


def listing(options, way, isolation, case):
    """Builds a case, and returns its files: path to what is compared."""
    with tempfile.TemporaryDirectory(prefix="isolation-real.") as work:
        os.chmod(work, 0o755)
        os.mkdir(f"{work}/out")
        os.chmod(f"{work}/out", 0o777)
        os.mkdir(f"{work}/context")
        rbuild = f"{work}/rbuild"
        shutil.copy(os.path.realpath(options.rbuild), rbuild)
        lines = [line.strip() for line in CASES[case].strip().splitlines()]
        with open(f"{work}/context/Dockerfile", "w", encoding="utf-8") as file:
            file.write("\n".join(["FROM debian:bookworm", *lines, ""]))
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        if os.path.exists(certificates):
            shutil.copy(certificates, f"{work}/context/ca.crt")
        line, environment, top = command(options, way, work, rbuild, isolation)
        top = top.rstrip("/")
        line += ["build", f"{top}/context", "--secret", f"id=ca,src={top}/context/ca.crt",
                 "-o", f"type=tar,dest={top}/out/files.tar"]
        try:
            done = subprocess.run(line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=options.timeout, errors="replace", check=False)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"still running after {options.timeout} s") from error
        finally:
            remove_store(line, environment, way)
        if options.verbose:
            sys.stderr.write(done.stderr)
        if done.returncode != 0:
            raise Failed(f"exit code {done.returncode}\n" + "\n".join(done.stderr.splitlines()[-30:]))
        return files(f"{work}/out/files.tar")


def remove_store(line, environment, way):
    """Removes files of subordinate ids as their user; the rest goes with the directory."""
    if way == "user":
        at = line.index("build")
        subprocess.run([*line[:at], "prune", "--all"], env=environment, capture_output=True, check=False)


def files(path):
    found = {}
    with tarfile.open(path, errors="surrogateescape") as tar:
        for member in tar:
            name = member.name.removeprefix("./").rstrip("/")
            if VARYING.fullmatch(name):
                continue
            size = member.size if member.isreg() else 0
            kind = {b"0": "file", b"\0": "file", b"1": "hard link", b"2": "link", b"3": "char device",
                    b"4": "block device", b"5": "directory", b"6": "pipe"}.get(member.type, repr(member.type))
            found[name] = [kind, f"{member.mode & 0o7777:o}", member.uid, member.gid, size, member.linkname]
    return found


def reference(options, case):
    path = options.work and os.path.join(options.work, f"{case}.json")
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    found = listing(options, *REFERENCE, case)
    if path:
        os.makedirs(options.work, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(found, file)
    return found


def differences(want, got):
    lines = []
    for name in sorted(want.keys() | got.keys()):
        if want.get(name) != got.get(name):
            shown = name.encode("utf-8", "backslashreplace").decode()
            lines.append(f"  {shown}: {got.get(name)} instead of {want.get(name)}")
    return lines


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("error: only root can start rbuild in all ways")
    failed = passed = 0
    for case in options.case or CASES:
        want = reference(options, case)
        for way in options.way or WAYS:
            started = time.monotonic()
            try:
                got = listing(options, way, options.isolation, case)
                wrong = differences(want, got)
            except Failed as error:
                got, wrong = {}, [f"  {error}"]
            seconds = time.monotonic() - started
            failed, passed = failed + bool(wrong), passed + (not wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {case} {way}: {len(got)} files, {len(wrong)} differ, {seconds:.0f} s",
                  flush=True)
            print("\n".join(wrong[:40]) + "\n" * bool(wrong), end="", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
