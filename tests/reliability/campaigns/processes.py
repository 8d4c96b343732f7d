"""Runs 2 or 16 builds in one store at once, beside prune, rmi and du, and a program that locks the index."""

import os
import sqlite3
import threading
import time

from support import arena
from support.campaign import Campaign
from support.program import Running

BUILDS = 16
# How long the other program holds a write transaction, and the pause between two.
HELD_S, PAUSE_S = 0.15, 0.03


def run(t):
    t.become(t.random.choice((0, 0, arena.USER)))
    start = t.random.choice(("nothing", "nothing", "base"))
    if start != "nothing":
        t.take_store(start)
    else:
        # So that the index is there, and busy, from the first moment.
        t.rbuild("images")
    same, few = t.random.random() < 0.4, t.random.random() < 0.4
    names = ["short", "long"] if few else [f"many-{0 if same else number % 4}" for number in range(BUILDS)]
    with_maintenance, with_slow_index = not few and t.random.random() < 0.6, few or t.random.random() < 0.6
    t.random.shuffle(names)
    t.note(f"{len(names)} builds of {len(set(names))} Dockerfiles in a store with {start}, maintenance "
           f"{with_maintenance}, slow index {with_slow_index}")
    for name in set(names):
        t.world.image_id(name)
    t.units = len(names)
    stop = threading.Event()
    others = []
    if with_slow_index:
        others.append(threading.Thread(target=_slow_index, args=(t, stop), daemon=True))
    if with_maintenance:
        others += [threading.Thread(target=_maintain, args=(t, stop, command), daemon=True) for command in
                   (("prune",), ("prune", "--all"), ("rmi", "-f", "image-0", "image-1"), ("du",), ("images",))]
    for thread in others:
        thread.start()
    apart, running = t.random.choice((0, 0, 0.02)), []
    for number, name in enumerate(names):
        running.append((name, t.start(*t.build_arguments(name, "-t", f"image-{number}"))))
        time.sleep(t.random.uniform(0, apart))
    where = " of two" if few else " beside others"
    for name, build in running:
        ended = t.ended(build, 180)
        if ended.status != 0:
            t.fail("F", "failed build" + where, f"`{name}` ended with {ended.status}", ended)
        t.right_image(ended, name, where)
    stop.set()
    for thread in others:
        thread.join(60)
    _afterwards(t)


def _afterwards(t):
    """Expects a working store without leftovers."""
    out = f"{t.dir}/out.tar"
    ended = t.rbuild(*t.build_arguments("many-0", "-o", f"type=oci,dest={out}"))
    if t.right_image(ended, "many-0", " after others"):
        t.right_archive(out, "many-0", " after others")
    else:
        t.fail("F", "no build after others", f"the next build ended with {ended.status}")
    t.no_leftovers()


def _maintain(t, stop, command):
    # `prune` refuses with status 3 while others use the store.
    while not stop.wait(0.05):
        running = Running(t.command(*command), t.owner, arena.environment(t.owner), t.dir)
        ended = running.wait(120)
        if ended.is_crash:
            t.fail("P", "panic", f"{' '.join(command)} ended with {ended.status}", ended)
        elif ended.status != 0 and not (command[0] == "prune" and ended.status == 3 and "is in use by" in ended.text):
            t.fail("F", f"{command[0]} beside builds", f"{' '.join(command)} ended with {ended.status}", ended)


def _slow_index(t, stop):
    """Holds write transactions on the index, as a process on a slow disk does."""
    path = f"{t.store}/index.db"
    while not os.path.exists(path) and not stop.wait(0.005):
        pass
    while not stop.wait(PAUSE_S):
        try:
            connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=10)
            try:
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(HELD_S)
                connection.execute("ROLLBACK")
            finally:
                connection.close()
        except sqlite3.Error:
            # Busy, or its tables are not there yet.
            continue


CAMPAIGN = Campaign("processes", "2 or 16 builds in one store at once", run, weight=10, is_alone=True)
