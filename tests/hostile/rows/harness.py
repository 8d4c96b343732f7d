"""Self-tests: the harness plays the escape, and the counters have to fire."""

import os

from lib.suite import row


@row("self-test-a-token-that-a-step-prints-is-noticed", detects="R")
def _(t):
    t.build(f"FROM base\nARG T\nRUN echo $T\n", "--build-arg", "T=" + t.world.token("played"),
            expect="ok")


@row("self-test-a-token-in-a-layer-is-noticed", detects="R")
def _(t):
    t.context({"file": t.world.token("played")})
    t.build("FROM base\nCOPY file /\n", expect="ok")


@row("self-test-a-changed-canary-is-noticed", detects="W")
def _(t):
    os.chmod("/etc/canary", 0o600)
    os.chmod("/etc/canary", 0o644)


@row("self-test-a-changed-device-is-noticed", detects="W")
def _(t):
    os.chmod("/dev/full", 0o600)
    os.chmod("/dev/full", 0o666)


@row("self-test-a-new-file-on-the-host-is-noticed", detects="W")
def _(t):
    with open("/root/new", "w"):
        pass


@row("self-test-a-connection-to-the-host-is-noticed", detects="W")
def _(t):
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/run/docker.sock")
        client.recv(100)


@row("self-test-a-leftover-process-is-noticed", detects="W")
def _(t):
    import subprocess

    subprocess.Popen(["/bin/busybox", "sleep", "100"])


@row("self-test-a-hang-is-noticed", detects="X", seconds=1, modes=("root",))
def _(t):
    t.build("FROM base\nRUN sleep 30\n")


@row("self-test-a-full-disk-is-noticed", detects="X", disk=64, modes=("root",))
def _(t):
    t.build("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=80\n", expect="ok")


@row("self-test-much-memory-is-noticed", detects="X", rss=64, modes=("root",))
def _(t):
    t.build("FROM base\nRUN dd if=/dev/zero of=/dev/null bs=100M count=1\n", expect="ok")


@row("self-test-a-panic-is-noticed", detects="P", modes=("root",))
def _(t):
    t.build("FROM base\nRUN echo thread main panicked at src/x.rs\n", expect="ok")
