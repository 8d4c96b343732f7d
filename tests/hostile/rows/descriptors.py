"""Magic links and descriptors: every path that an image or a Dockerfile has a say in."""

from lib.suite import attack, row

FIRST, LAST = 3, 48


@row("control-a-build-succeeds-and-shows-its-output")
def _(t):
    t.build("FROM base\nRUN echo step-$((40+2))\n", expect="ok", says="step-42")


@row("workdir-through-descriptors-of-rbuild", cve="CVE-2024-21626", seconds=60)
def _(t):
    for fd in range(FIRST, LAST):
        t.build(f"FROM base\nWORKDIR /proc/self/fd/{fd}\n"
                "RUN for up in .. ../.. ../../.. ../../../.. ../../../../..; do"
                " cat $up/etc/canary $up/root/secret 2>/dev/null; done; true\n")
