"""Sends signals twice, closes terminals and outputs, sets resource limits, and builds Dockerfiles of many steps."""

import os
import pty
import signal
import time

from support import arena, images
from support.campaign import Campaign


# A repeated signal within this time counts as one; after it, rbuild may end at once.
SAME_WISH_S = 0.2


def run(t):
    name = sorted(SCENARIOS)[t.number % len(SCENARIOS)]
    t.note(name)
    SCENARIOS[name](t)
    t.no_processes()


def _build(t):
    return t.build_arguments("app", "-t", "app:1", "-o", f"type=oci,dest={t.dir}/out.tar")


def _right_or_clear(t, where, *limits, arguments=()):
    """Expects the right image or a clear error, and the right image once the limits are gone."""
    t.where = where
    ended = t.rbuild(*_build(t), *arguments, wrap=("prlimit", *limits, "--"))
    if t.right_image(ended, "app", where):
        t.right_archive(f"{t.dir}/out.tar", where=where)
    _again(t, where)


def _again(t, where):
    t.age_tmp()
    t.no_processes()
    if not t.right_image(t.rbuild(*_build(t)), "app", " after" + where):
        return t.fail("F", "no build after" + where, "the next build fails, too")
    t.right_archive(f"{t.dir}/out.tar", where=" after" + where)
    t.no_leftovers()
    if names := [name for name in os.listdir(t.dir) if name.startswith(".rbuild-")]:
        t.fail("L", "drafts beside outputs", " ".join(names))


# Signals ------------------------------------------------------------------------------------


def _slow(t):
    """Returns the arguments of a build whose step waits for a signal."""
    return t.build_arguments("slow", "-t", "slow:1")


def _wait_for_step(t):
    """Waits until the step runs."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if any(name == "(sleep)" for name in arena.strangers().values()):
            return
        time.sleep(0.01)
    t.fail("F", "no step", "the step did not start")


def _twice(number, gap):
    """Returns a scenario in which a signal arrives twice: first at the group, as terminals and `timeout` send it."""

    def scenario(t):
        t.become(t.random.choice((0, arena.USER)))
        running = t.start(*_slow(t))
        _wait_for_step(t)
        running.signal(number, group=True)
        time.sleep(gap)
        was_over = running.process.poll() is not None
        running.signal(number)
        where = f": {number.name} twice within {gap * 1000:.0f} ms"
        ended = t.ended(running, 30, statuses=(-number, 128 + number))
        if gap >= SAME_WISH_S and not was_over:
            # The second one asks to end at once.
            return _again(t, where)
        if ended.status != 130:
            t.fail("F", "not orderly" + where, f"ended with {ended.status} instead of 130", ended)
        _orderly(t, where)

    return scenario


def _orderly(t, where):
    """Expects that a build which was asked to end leaves no processes and an empty `tmp`."""
    t.no_processes()
    if os.path.isdir(f"{t.store}/tmp") and (names := os.listdir(f"{t.store}/tmp")):
        t.fail("L", "files in tmp" + where, f"tmp holds {' '.join(names[:4])} after an orderly end")
    _again(t, where)


def _by_timeout(t):
    """Ends a build of an ordinary user with coreutils' `timeout`, as CI systems do."""
    t.become(arena.USER)
    t.rbuild(*_build(t))
    running = t.start(*_slow(t), wrap=("timeout", "1"))
    ended = t.ended(running, 30, statuses=(124,))
    if ended.status == 124 and b"interrupted" not in ended.err.lower():
        t.fail("F", "not orderly: timeout", "it does not say that it was interrupted", ended)
    _orderly(t, ": timeout")


def _closed_terminal(t):
    """Closes the terminal of a build, which gets SIGHUP and can write no more."""
    t.become(t.random.choice((0, arena.USER)))
    command = t.command(*[part for part in _slow(t) if part != "-q"])
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(t.owner)
            os.setuid(t.owner)
            os.chdir(t.dir)
            os.execve(command[0], command, {**arena.environment(t.owner), "TERM": "xterm"})
        finally:
            os._exit(127)
    _wait_for_step(t)
    os.close(terminal)
    end = time.monotonic() + 20
    status = None
    while time.monotonic() < end and status is None:
        number, raw = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(raw) if number else None
        time.sleep(0.01)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        t.fail("F", "hang: closed terminal", "no end within 20 s")
    elif status in (101, -6, -11, 134):
        t.fail("P", "panic: closed terminal", f"status {status}")
    _orderly(t, ": closed terminal")


# Limits -------------------------------------------------------------------------------------


def _limited(where, *limits, owner=0, start=None):
    def scenario(t):
        t.become(owner)
        if start:
            t.take_store(start)
        _right_or_clear(t, ": " + where, *limits)

    return scenario


def _few_processes(most, *more):
    """Returns a scenario in which a user may have only few processes and threads, a random number of them."""

    def scenario(t):
        t.become(arena.USER)
        number = t.random.randint(1, most)
        t.note(f"ulimit -u {number}")
        _right_or_clear(t, ": ulimit -u", f"--nproc={number}", arguments=more)

    return scenario


def _small_files(t):
    kibibytes = t.random.choice((0, 4, 64, 512, 1500))
    _right_or_clear(t, ": ulimit -f", f"--fsize={kibibytes << 10}")


def _full_output(t):
    """Writes standard output to a full disk."""
    with open("/dev/full", "wb") as full:
        ended = t.ended(t.start(*_build(t), stdout=full))
    if ended.status == 0:
        t.fail("F", "lost output", "the id could not be written to standard output, and the status is 0", ended)
    _again(t, ": /dev/full")


def _closed_output(t):
    """Writes standard output to a pipe without a reader."""
    read, write = os.pipe()
    os.close(read)
    ended = t.ended(t.start(*[part for part in _build(t) if part != "-q"], "--progress=plain", stdout=write),
                    statuses=(-13, 141))
    os.close(write)
    if not ended.is_crash:
        _again(t, ": closed output")


# Sizes --------------------------------------------------------------------------------------


def _stages(number, *limits):
    """Returns a scenario with many stages, of which the last copies a file from each."""

    def scenario(t):
        lines = []
        for stage in range(number):
            lines += [f"FROM scratch AS s{stage}", f"COPY src/{'abcdefgh'[stage % 8]}.txt /{stage}"]
        lines += ["FROM scratch"] + [f"COPY --from=s{stage} /{stage} /all/" for stage in range(number)]
        _many(t, f"{number} stages", lines, {f"all/{stage}" for stage in range(number)}, limits)

    return scenario


def _steps(number, *limits):
    """Returns a scenario with many RUN steps in one stage."""

    def scenario(t):
        lines = ["FROM base"] + [f"RUN echo {step} > /s{step}" for step in range(number)]
        _many(t, f"{number} steps", lines, {f"s{step}" for step in range(number)}, limits, 240)

    return scenario


def _many(t, where, lines, names, limits, seconds=120):
    dockerfile, out = f"{t.dir}/Dockerfile", f"{t.dir}/out.tar"
    with open(dockerfile, "w") as file:
        file.write("\n".join(lines) + "\n")
    arguments = t.build_arguments("app", "-o", f"type=tar,dest={out}")
    arguments[arguments.index("-f") + 1] = dockerfile
    t.where = where = f": {where}" + (" " + " ".join(limits) if limits else "")
    ended = t.rbuild(*arguments, wrap=("prlimit", *limits, "--") if limits else (), seconds=seconds)
    if ended.status != 0:
        if not ended.is_crash:
            t.fail("F", "does not build" + where, f"ended with {ended.status}", ended)
        return
    try:
        lost = names - images.listing(out).keys()
    except images.Wrong as wrong:
        return t.fail("S", "damaged output" + where, str(wrong))
    if lost:
        t.fail("W", "wrong image" + where, f"{len(lost)} files are missing, such as {sorted(lost)[0]}")


# `--nofile=256:` sets the soft limit only, which rbuild can raise. Where the hard one is low, too, an error is right.
SCENARIOS = {
    "SIGTERM twice, 0 ms": _twice(signal.SIGTERM, 0),
    "SIGTERM twice, 50 ms": _twice(signal.SIGTERM, 0.05),
    "SIGTERM twice, 1 s": _twice(signal.SIGTERM, 1),
    "SIGINT twice, 20 ms": _twice(signal.SIGINT, 0.02),
    "SIGINT twice, 500 ms": _twice(signal.SIGINT, 0.5),
    "timeout": _by_timeout,
    "closed terminal": _closed_terminal,
    "ulimit -u": _few_processes(16),
    "ulimit -u, 8 jobs": _few_processes(24, "--jobs", "8"),
    "ulimit -u, 32 jobs": _few_processes(48, "--jobs", "32"),
    "ulimit -n 16": _limited("ulimit -n 16", "--nofile=16"),
    "ulimit -n 32": _limited("ulimit -n 32", "--nofile=32"),
    "ulimit -n 64": _limited("ulimit -n 64", "--nofile=64"),
    "ulimit -n 64, base": _limited("ulimit -n 64", "--nofile=64", start="base"),
    "ulimit -n 64, user": _limited("ulimit -n 64", "--nofile=64", owner=arena.USER),
    "ulimit -s": _limited("ulimit -s 256", "--stack=262144"),
    "ulimit -v": _limited("ulimit -v 64 MiB", "--as=67108864"),
    "ulimit -l 0": _limited("ulimit -l 0", "--memlock=0"),
    "ulimit -f": _small_files,
    "output is full": _full_output,
    "output is closed": _closed_output,
    "500 stages": _stages(500),
    "500 stages, soft 256 files": _stages(500, "--nofile=256:"),
    "300 steps, soft 256 files": _steps(300, "--nofile=256:"),
}

CAMPAIGN = Campaign("limits", "repeated signals, resource limits, many steps", run, weight=8)
