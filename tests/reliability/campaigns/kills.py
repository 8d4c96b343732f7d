"""Ends rbuild with signals at random instants; then the same store has to build the same image."""

import os
import signal
import time

from support import arena, images
from support.campaign import Campaign

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Longest time in which SIGTERM, SIGINT and SIGHUP have to end rbuild.
ORDERLY_S = 10


def run(t):
    t.become(t.random.choice((0, 0, arena.USER)))
    start = t.random.choice(("nothing", "base", "built"))
    if start != "nothing":
        t.take_store(start)
    # In a store that has built `app`, only `next` has steps to run.
    dockerfile = "next" if start == "built" else "app"
    out = t.directory("out")
    build = t.build_arguments(dockerfile, "-t", "app:1", "--iidfile", f"{out}/id",
                              "-o", f"type=oci,dest={out}/image.tar")
    # Its steps are not part of the last build, which therefore does not take over their locks.
    other = t.build_arguments("many-2", "-t", "other:2")
    commands = [build] * 5 + [other] * 2
    if start == "built":
        commands += [["save", "app", "-o", f"{out}/image.tar"], ["prune"], ["tag", "app", "other:1"]]
    t.units = t.random.choice((1, 1, 1, 2, 3))
    for _ in range(t.units):
        command = t.random.choice(commands)
        _kill(t, command, start, dockerfile, out)
    _finish(t, build, dockerfile, out)


def _kill(t, command, start, dockerfile, out):
    # The length depends on the command, and for a build on the Dockerfile.
    key = ("length", start, command[0], command[4], t.owner) if command[0] == "build" else \
        ("length", start, command[0], t.owner)
    length = t.world.remember(key, lambda: _length(t, command, start))
    number, group = t.random.choice(SIGNALS), t.random.random() < 0.5
    instant = t.random.uniform(0, 1.1) * length
    running = t.start(*command)
    time.sleep(instant)
    running.signal(number, group)
    t.note(f"  {number.name} to the {'group' if group else 'process'} after {instant * 1000:.0f} ms")
    sent = time.monotonic()
    ended = t.ended(running, 60, statuses=(-number, 128 + number))
    if number != signal.SIGKILL and time.monotonic() - sent > ORDERLY_S:
        t.fail("F", "slow end", f"{number.name} took {time.monotonic() - sent:.0f} s")
    # A file with its final name is complete at every instant.
    if os.path.exists(f"{out}/image.tar"):
        _right_archive(t, f"{out}/image.tar", dockerfile)
    if ended.status == 0 and command[0] == "build":
        t.right_image(ended, "many-2" if "many-2" in command[4] else dockerfile)
    elif ended.status in (1, 3):
        t.fail("F", "signal taken for an error", f"{number.name} ended it with {ended.status}")
    t.no_processes()


def _right_archive(t, path, dockerfile):
    """Expects the archive of this command, or still that of an earlier one."""
    try:
        images.check_archive(path, t.world.image_id("app"))
    except images.Wrong:
        t.right_archive(path, dockerfile, " after a kill")


def _finish(t, build, dockerfile, out):
    t.age_tmp()
    if os.path.exists(f"{out}/image.tar"):
        os.unlink(f"{out}/image.tar")
    ended = t.rbuild(*build)
    if not t.right_image(ended, dockerfile, " after a kill"):
        t.fail("F", "no build after a kill", f"the next build ended with {ended.status}")
        return
    t.right_archive(f"{out}/image.tar", dockerfile, " after a kill")
    t.no_leftovers()
    if names := sorted(set(os.listdir(out)) - {"id", "image.tar"}):
        t.fail("L", "drafts beside outputs", f"beside the output: {' '.join(names[:5])}")


def _length(t, command, start):
    """Returns how long the command takes undisturbed."""
    store, out = f"{t.dir}/measured", t.directory("measured-out")
    if start != "nothing":
        t.take_store(start, store)
    command = [part.replace(f"{t.dir}/out/", f"{out}/") for part in command]
    ended = t.rbuild(*command, store=store)
    arena.remove(store)
    return ended.seconds


CAMPAIGN = Campaign("kills", "builds ended by signals at random instants", run, weight=36)
