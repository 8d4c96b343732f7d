"""Floods: rbuild stays alive, bounded in time, memory and disk, and says what happened."""

from lib import oci, tarball
from lib.suite import File, attack, base_layer, interrupted, row

KIB, MIB = 1 << 10, 1 << 20

attack("a-step-prints-50-mb", lambda: "FROM base\nRUN yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -c 50000000\n",
       disk=300, rss=256, seconds=60)
attack("a-step-prints-100-mb-without-a-line-end", lambda: "FROM base\nRUN head -c 100000000 /dev/zero | tr '\\0' a\n", disk=300, rss=256,
       seconds=60)
attack("a-step-prints-nuls", lambda: "FROM base\nRUN head -c 50000000 /dev/zero\n", disk=300, rss=256, seconds=40)
attack("a-step-prints-a-million-empty-lines", lambda: "FROM base\nRUN yes '' | head -n 1000000\n", disk=300, rss=256, seconds=40)
attack("lines-of-64-kib", lambda: "FROM base\nRUN true " + "a" * 65000 + "\nLABEL a=" + "b" * 65000 + "\n")
attack("a-line-of-70-kib", lambda: "FROM base\nRUN true " + "a" * 70000 + "\n", expect="fails")
attack("a-line-of-20-mib", lambda: "FROM base\nRUN true " + "a" * (20 * MIB) + "\n", expect="fails")
attack("a-continued-line-of-20-mib", lambda: "FROM base\nRUN true " + ("a" * 1000 + " \\\n") * 20000 + "\n", seconds=30)
attack("a-continuation-of-a-million-lines", lambda: "FROM base\nRUN true \\\n" + "#\n" * 1000000 + "x\n", seconds=30)
attack("a-heredoc-of-20-mib", lambda: "FROM base\nRUN <<E\n" + ": aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" * 500000 + "E\n", seconds=30)
attack("10000-heredocs", lambda: "FROM base\nRUN " + " ".join(f"<<E{n}" for n in range(5000)) + "\n"
       + "".join(f"E{n}\n" for n in range(5000)), seconds=30)
attack("100000-instructions", lambda: "FROM base\n" + "ENV a=b\n" * 100000, seconds=30)
attack("100000-labels", lambda: "FROM base\n" + "".join(f"LABEL l{n}=v\n" for n in range(20000)), seconds=60)
attack("10000-args", lambda: "FROM base\n" + "".join(f"ARG a{n}=$a{n - 1}x\n" for n in range(10000)) + "RUN true\n", seconds=30)
attack("10000-stages", lambda: "FROM base AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(10000)), seconds=60)
attack("600-stages-that-copy-in-a-row", lambda: "FROM base AS s0\nFROM base AS t\n" + "".join(
    f"FROM base AS s{n}\nCOPY --from=s{n - 1} /etc/passwd /x\n" for n in range(1, 600)), seconds=60)
attack("a-cycle-of-stages", lambda: "FROM b AS a\nFROM a AS b\nFROM base AS c\nCOPY --from=d / /\nFROM base AS d\nCOPY --from=c / /\n")
attack("copy-from-itself", lambda: "FROM base AS a\nCOPY --from=a / /\n", expect="fails")
attack("unknown-instructions-100000", lambda: "FROM base\n" + "EVIL x\n" * 100000, expect="fails", seconds=20)
attack("errors-100000", lambda: "FROM base\n" + "COPY\n" * 100000, expect="fails", seconds=20)

# Expansion.
attack("variables-double", lambda: "FROM base\nENV a=xxxxxxxxxxxxxxxx\n" + "ENV a=$a$a\n" * 60 + "RUN true\n")
attack("arguments-double", lambda: "ARG a=xxxxxxxxxxxxxxxx\n" + "ARG a=$a$a\n" * 60 + "FROM base\nRUN true\n")
attack("replacements-multiply", lambda: "FROM base\nENV a=" + "x" * 1000 + "\n" + "ENV a=${a//x/xxxxxxxxxxxxxxxx}\n" * 10)
attack("nested-expansions", lambda: "FROM base\nENV a=" + "${b:-" * 10000 + "x" + "}" * 10000 + "\n")
attack("nested-replacements", lambda: "FROM base\nENV a=" + "${b:-${a//x/" * 2000 + "x" + "}}" * 2000 + "\n")
for name, op in {"suffix": "%%", "prefix": "##", "replace": "//", "short-suffix": "%", "short-prefix": "#"}.items():
    attack(f"pattern-with-30-stars-{name}", lambda op=op: "FROM base\nENV a=" + "a" * 60000 + "\nENV b=${a" + op + "*a" * 30 + "b}\nRUN true\n",
           seconds=10)
    attack(f"pattern-with-30-stars-{name}-in-check", lambda op=op: "FROM base\nENV a=" + "a" * 60000 + "\nENV b=${a" + op + "*a" * 30 + "b}\n",
           args=("--check",), seconds=10)
attack("pattern-with-brackets", lambda: "FROM base\nENV a=" + "a" * 60000 + "\nENV b=${a%%" + "*[a-z]" * 30 + "!}\n", seconds=10)
attack("pattern-question-marks", lambda: "FROM base\nENV a=" + "a" * 60000 + "\nENV b=${a//" + "?" * 20000 + "b}\n", seconds=10)


@row("a-long-expansion-hears-sigterm", seconds=12)
def _(t):
    interrupted(t, lambda: t.build("FROM base\nENV a=" + "a" * 60000 + "\n" + ("ENV b=${a%%" + "*a" * 30 + "b}\n") * 300))


# Patterns over files.
attack("ignore-patterns-20000", lambda: "FROM base\nCOPY . /x\n", files=lambda: {".dockerignore": "".join(f"a{n}/**/b*c?d[e-f]{n}\n" for n in range(20000)),
       **{f"d/f{n}": "x" for n in range(200)}}, rss=300, seconds=40)
attack("ignore-pattern-of-1-mib", lambda: "FROM base\nCOPY . /x\n", files=lambda: {".dockerignore": "*a" * 500000 + "\n", "f": "x"}, seconds=20)
attack("ignore-exponential", lambda: "FROM base\nCOPY . /x\n", files=lambda: {".dockerignore": "**/" * 100 + "x\n" + "*a" * 100 + "b\n!" + "**/*a" * 50 + "\n",
       "/".join(["a" * 40] * 20) + "/f": "x", "a" * 250: "x"}, seconds=20)
attack("copy-glob-exponential", lambda: "FROM base\nCOPY " + "*a" * 100 + "b " + "*/" * 50 + "x /y/\n", files=lambda: {"a" * 250: "x"}, seconds=20)
attack("ignore-lines-a-million", lambda: "FROM base\nCOPY . /x\n", files=lambda: {".dockerignore": "\n" * 5000000 + "#\n" * 1000000, "f": "x"}, seconds=20)
attack("ignore-negations-20000", lambda: "FROM base\nCOPY . /x\n", files=lambda: {".dockerignore": "*\n" + "!a\n*\n" * 10000, "f": "x"}, seconds=20)
attack("ignore-bad-patterns", lambda: "FROM base\nCOPY . /x\n", files=lambda: {".dockerignore": "[\n[a\n\\\n[z-a]\n!\n/\n..\n../..\n\0\n", "f": "x"})

# Images.


def configured(settings, **members):
    return lambda: oci.Image([base_layer()], settings, **members)


attack("100000-variables-in-a-base", lambda: "FROM base\nRUN true\n", base=configured({"Env": ["PATH=/bin"] + [f"V{n}=x" for n in range(100000)]}),
       seconds=40)
attack("10000-onbuild-instructions", lambda: "FROM base\n", base=configured({"OnBuild": ["ENV a=b"] * 10000}), seconds=40)
attack("onbuild-of-onbuild", lambda: "FROM base\n", base=configured({"OnBuild": ["ONBUILD ONBUILD RUN true", "FROM base", "MAINTAINER x", "\0", "RUN <<E"]}))
attack("variable-of-10-mib-in-a-base", lambda: "FROM base\nRUN true\n", base=configured({"Env": ["PATH=/bin", "A=" + "x" * (10 * MIB)]}), seconds=30)
attack("100000-history-entries-in-a-base", lambda: "FROM base\nRUN true\n", base=configured({}, history=[{"created_by": "x", "empty_layer": True}] * 100000),
       seconds=40)
attack("100000-volumes-in-a-base", lambda: "FROM base\nRUN true\n", base=configured({"Volumes": {f"/v{n}": {} for n in range(100000)}}), seconds=40)
attack("config-of-the-wrong-types", lambda: "FROM base\nRUN true\n", base=lambda: oci.Image([base_layer()], config_bytes=b'{"config":[],"rootfs":5,"history":{},"os":null}'))
attack("config-deep", lambda: "FROM base\nRUN true\n", base=lambda: oci.Image([base_layer()], config_bytes=b'{"a":' * 100000))
attack("config-of-100-mib", lambda: "FROM base\nRUN true\n", base=lambda: oci.Image([base_layer()], config_bytes=b'{"a":"' + b"x" * (100 * MIB) + b'"}'),
       disk=450, seconds=30)
attack("config-lies-about-diff-ids", lambda: "FROM base\nRUN true\n", base=lambda: oci.Image([oci.Layer(base_layer().data, diff_id="sha256:" + "1" * 64)]),
       expect="fails")


@row("500-layers-in-a-base", seconds=60)
def _(t):
    layers = [tarball.archive(tarball.entry(f"f{n}", str(n))) for n in range(500)]
    t.base(layers)
    t.build("FROM base\nRUN ls /f499\n")


@row("10000-layers-in-a-base", seconds=60, disk=500)
def _(t):
    same = oci.Layer(tarball.archive(tarball.entry("f", "x")))
    t.base(oci.Image([base_layer()] + [same] * 10000))
    t.build("FROM base\nRUN ls /f\n")


# Steps.


@row("a-step-with-500-processes-ends-on-sigterm", seconds=40)
def _(t):
    """Nothing bounds the processes of root's steps, so this is no bomb; what counts is that all of it ends."""
    interrupted(t, lambda: t.build("FROM base\nRUN trap '' TERM INT; i=0; while [ $i -lt 500 ]; do (trap '' TERM INT; sleep 60) & i=$((i+1));"
                                   " done; wait\n"))




@row("a-step-forks-until-the-limit-of-the-user", seconds=60, modes=("user",))
def _(t):
    t.build("FROM base\nRUN f() { sleep 2 & f; }; f; true\n", limits=("--nproc=400",), seconds=30)


@row("600-stages-with-400-processes", seconds=90)
def _(t):
    stages = "".join(f"FROM base AS s{n}\nRUN echo {n} >/f\n" for n in range(600))
    copies = "".join(f"COPY --from=s{n} /f /f{n}\n" for n in range(600))
    t.build(f"{stages}FROM base\n{copies}", limits=("--nproc=400",), seconds=80)


@row("600-stages-with-60-descriptors", seconds=60)
def _(t):
    stages = "".join(f"FROM base AS s{n}\nRUN echo {n} >/f\n" for n in range(60))
    copies = "".join(f"COPY --from=s{n} /f /f{n}\n" for n in range(60))
    t.build(f"{stages}FROM base\n{copies}", limits=("--nofile=60",), seconds=40)


@row("a-step-fills-the-disk", disk=800, seconds=60, rss=600)
def _(t):
    """A step may use the disk up, and rbuild says so; what it wrote is gone afterwards."""
    t.build("FROM base\nRUN dd if=/dev/zero of=/big bs=1M; rm /big; false\n", expect="fails")
    t.build("FROM base\nRUN dd if=/dev/zero of=/big bs=1M; true\n")
    if t.used() > 400:
        t.rbuild("prune", "--all")
    if t.used() > 400:
        t.count("X", f"{t.used()} MiB stay on disk")


@row("a-step-fills-dev-shm-and-dev", seconds=40)
def _(t):
    t.build("FROM base\nRUN dd if=/dev/zero of=/dev/shm/x bs=1M; dd if=/dev/zero of=/dev/x bs=1M; true\n", expect="ok")


@row("a-step-eats-memory", rss=4096, seconds=60)
def _(t):
    """The step runs into its limit; rbuild reports it."""
    t.build("FROM base\nRUN dd if=/dev/zero of=/dev/null bs=900M count=1\n", "--ulimit", "as=200000000")


attack("a-step-makes-40000-files", lambda: "FROM base\nRUN i=0; while [ $i -lt 40 ]; do mkdir /d$i; (cd /d$i; seq 1 1000 | xargs touch); i=$((i+1));"
       " done\n", seconds=90, disk=500, rss=400)
attack("a-step-makes-5000-levels", lambda: "FROM base\nRUN i=0; while [ $i -lt 5000 ]; do mkdir d; cd d || break; i=$((i+1)); done; true\nRUN true\n",
       seconds=60)


@row("a-step-makes-a-terabyte-of-holes", seconds=30, disk=400)
def _(t):
    interrupted(t, lambda: t.build("FROM base\nRUN truncate -s 1T /f\nRUN true\n"), after=5)


attack("a-step-makes-10000-links-to-a-file", lambda: "FROM base\nRUN i=0; echo x >/f; while [ $i -lt 10000 ]; do ln /f /l$i; i=$((i+1)); done\nRUN true\n",
       seconds=90)
attack("a-step-does-not-end-on-sigterm", lambda: "FROM base\nRUN trap '' TERM INT HUP; kill -TERM 1; sleep 1; true\n")
attack("a-step-closes-its-output", lambda: "FROM base\nRUN exec >&- 2>&-; sleep 1; true\n")
attack("a-step-leaves-its-output-open", lambda: "FROM base\nRUN (sleep 100 &) ; true\n", seconds=10)
attack("environment-of-200-kib", lambda: "FROM base\n" + "".join(f"ENV V{n}={'x' * 10000}\n" for n in range(400)) + "RUN true\n", seconds=30)
attack("exec-form-of-100000-words", lambda: "FROM base\nRUN [" + ",".join(['"/bin/true"'] + ['"a"'] * 15000) + "]\n", seconds=30)
attack("mounts-1000", lambda: "FROM base\nRUN " + " ".join(f"--mount=type=tmpfs,target=/m{n}" for n in range(1000)) + " true\n", seconds=40)
attack("mounts-nested-500", lambda: "FROM base\nRUN " + " ".join("--mount=type=tmpfs,target=" + "/m" * n for n in range(1, 300)) + " true\n", seconds=40)


@row("300-connections-to-the-ssh-mount", seconds=60)
def _(t):
    import os
    import socket
    import threading

    path = f"{t.dir}/agent"
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    t.give(path)
    server.listen(500)

    def accept():
        while True:
            connection, _ = server.accept()
            threading.Thread(target=lambda c=connection: c.recv(100), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    t.build("FROM base\nRUN --mount=type=ssh i=0; while [ $i -lt 300 ]; do (nc local:$SSH_AUTH_SOCK </dev/zero >/dev/null 2>&1 &);"
            " i=$((i+1)); done; sleep 1; true\n", "--ssh", f"default={path}", limits=("--nproc=700",), seconds=40)


@row("ssh-agent-answers-without-bounds", seconds=40)
def _(t):
    import socket
    import threading

    path = f"{t.dir}/agent"
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    t.give(path)
    server.listen(50)

    def talk(connection):
        try:
            while True:
                connection.recv(1000)
                connection.sendall(b"\xff\xff\xff\xff\x0c" + bytes(MIB))
        except OSError:
            pass

    def accept():
        while True:
            connection, _ = server.accept()
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    t.build("FROM base\nRUN --mount=type=ssh printf '\\000\\000\\000\\001\\013' | nc -w 2 local:$SSH_AUTH_SOCK | head -c 100 | wc -c;"
            " printf '\\377\\377\\377\\377\\013' | nc -w 2 local:$SSH_AUTH_SOCK | wc -c; true\n", "--ssh", f"default={path}")


@row("secret-of-100-mib-or-a-fifo", seconds=20)
def _(t):
    import os
    with open(f"{t.dir}/big", "wb") as file:
        file.truncate(100 * MIB)
    os.mkfifo(f"{t.dir}/fifo", 0o666)
    t.give(f"{t.dir}/big")
    t.build("FROM base\nRUN --mount=type=secret,id=s true\n", "--secret", f"id=s,src={t.dir}/big")
    t.build("FROM base\nRUN --mount=type=secret,id=s : 3; true\n", "--secret", "id=s,src=/dev/zero", seconds=5)
    # `<(command)` is a FIFO, so waiting for its writer is right.
    interrupted(t, lambda: t.build("FROM base\nRUN --mount=type=secret,id=s : 2; true\n", "--secret", f"id=s,src={t.dir}/fifo"))


@row("interrupt-ends-a-build-soon", seconds=30)
def _(t):
    t.context({})
    interrupted(t, lambda: t.build("FROM base\nRUN trap '' TERM INT; sleep 25\n"))
