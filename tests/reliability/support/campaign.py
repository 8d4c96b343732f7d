"""Campaigns and tries."""

import os
import random
import re
import shlex
from dataclasses import dataclass

from . import arena, images
from .program import KNOWN, Ended, Running

# The columns of the report, in the order of their severity but for the last.
COUNTERS = {"W": "wrong images", "S": "silent damage", "P": "panics", "L": "leftovers", "F": "other failures"}


@dataclass
class Campaign:
    """One kind of trouble. `run` is called with a `Try`."""

    name: str
    about: str
    run: object
    # Share of the time, relative to the sum of all weights.
    weight: int
    # True if a try uses all processors by itself, so that tries run one after the other.
    is_alone: bool = False


class Try:
    """One try of a campaign: its own random numbers, directory and store."""

    def __init__(self, world, campaign, number, seed):
        self.world, self.campaign, self.number, self.seed = world, campaign, number, seed
        self.random = random.Random(f"{seed}/{campaign.name}/{number}")
        self.dir = f"{arena.ROOT}/tries/{campaign.name}-{number}"
        self.store = f"{self.dir}/store"
        self.owner = 0
        self.failures = []
        # Number of tries that this one counts as.
        self.units = 1
        # What kinds of failures end in, such as the file that was damaged.
        self.where = ""
        # File systems that the try mounted itself.
        self.mounted = []
        # What the try did, for the report of a failure.
        self.story = []
        # Error messages of rbuild, without the parts that differ from run to run.
        self.said = []
        self.last = None
        self.arguments = ()
        os.mkdir(self.dir)

    # Preparing ------------------------------------------------------------------------------

    def become(self, owner):
        """Runs rbuild as this user from now on."""
        self.owner = owner
        os.chown(self.dir, owner, owner)

    def note(self, text):
        self.story.append(text)

    def directory(self, name):
        path = f"{self.dir}/{name}"
        os.makedirs(path, exist_ok=True)
        os.chown(path, self.owner, self.owner)
        return path

    def take_store(self, name, target=None):
        """Copies a prepared store of the current user into the directory of this try."""
        arena.copy(self.world.store(name, self.owner), target or self.store)

    # Running --------------------------------------------------------------------------------

    def command(self, *arguments, store=None, wrap=()):
        return [*wrap, self.world.program, "--root", store or self.store, *map(str, arguments)]

    def build_arguments(self, dockerfile="app", *more):
        return self.world.build_arguments(dockerfile, *more)

    def start(self, *arguments, store=None, wrap=(), **more):
        command = self.command(*arguments, store=store, wrap=wrap)
        self.note("$ " + shlex.join(command))
        return Running(command, self.owner, arena.environment(self.owner), self.dir, **more)

    def rbuild(self, *arguments, seconds=60, **more):
        """Runs rbuild to its end. Panics, hangs and undocumented exit statuses are failures."""
        self.arguments = arguments
        return self.ended(self.start(*arguments, **more), seconds)

    def ended(self, running, seconds=60, statuses=()):
        ended = running.wait(seconds)
        self.last = ended
        self.note(f"  -> {ended.status} in {ended.seconds:.2f} s")
        if ended.is_crash:
            self.fail("P", "panic" + self.where, f"status {ended.status}: {_panic(ended)}", ended)
        elif ended.timed_out:
            self.fail("F", "hang" + self.where, f"no end within {seconds} s", ended)
        elif ended.status not in KNOWN and ended.status not in statuses:
            self.fail("F", "unknown status" + self.where, f"ended with {ended.status}", ended)
        if ended.status != 0:
            self.said.append(_first_error(ended, self.dir))
        return ended

    # Judging --------------------------------------------------------------------------------

    def fail(self, counter, kind, text, ended=None):
        """Records a failure. Failures with the same `kind` are taken for the same fault."""
        # A wrong image is wrong in all that follows from it.
        if any(counter == known["counter"] and (counter == "W" or kind == known["kind"]) for known in self.failures):
            return
        ended = ended or self.last
        tail = ended.tail() if isinstance(ended, Ended) else ""
        self.failures.append({"counter": counter, "kind": kind, "text": text, "tail": tail,
                              "story": self.story[:1] + self.story[1:][-12:]})

    def error_is_clear(self, ended, kind="no message"):
        """Fails if a command failed without an error message."""
        if ended.status == 0 or ended.is_crash or ended.timed_out:
            return
        text = ended.text
        if "error" not in text or len(text.strip()) < 20:
            self.fail("F", kind, f"status {ended.status} without an error message", ended)

    def right_image(self, ended, dockerfile, where=""):
        """Fails if a successful `build -q` made a wrong image. Returns whether the build was successful."""
        if ended.status != 0:
            self.error_is_clear(ended)
            return False
        expected = self.world.image_id(dockerfile)
        if ended.image_id() != expected:
            self.fail("W", f"wrong image{where}", f"`{dockerfile}` became {ended.image_id()} instead of {expected}",
                      ended)
        return True

    def right_archive(self, path, dockerfile="app", where=""):
        """Fails if an archive is incomplete or holds a wrong image."""
        self._check(where, lambda: images.check_archive(path, self.world.image_id(dockerfile)))

    def right_files(self, path, dockerfile="app", where=""):
        """Fails if a `type=tar` output does not hold the image's files."""

        def check():
            if text := images.difference(images.listing(path), self.world.files(dockerfile)):
                raise images.Wrong("W", text)

        self._check(where, check)

    def _check(self, where, check):
        try:
            check()
        except images.Wrong as wrong:
            kind = "damaged output" if wrong.counter == "S" else "wrong output"
            self.fail(wrong.counter, kind + where, str(wrong))

    def no_leftovers(self, store=None, grace=3.0):
        """Fails if unfinished work, locks of steps, processes or mounts are left.

        The caller has just run a command that opened the store and succeeded.
        """
        store = store or self.store
        if names := sorted(os.listdir(f"{store}/tmp")):
            self.fail("L", "files in tmp", f"tmp holds {' '.join(names[:5])}")
        if names := sorted(set(os.listdir(f"{store}/locks")) - {"in-use", "index"}):
            self.fail("L", "lock files", f"locks holds {len(names)} files of steps, such as {names[0][:16]}")
        self.no_processes(grace)

    def no_processes(self, grace=3.0):
        """Fails for processes and mounts that outlive rbuild."""
        for number, name in arena.end_strangers(grace).items():
            self.fail("L", "processes", f"process {number} {name} is left")
        for place in arena.end_mounts(self.world.mounts + self.mounted):
            self.fail("L", "mounts", f"{place} is still mounted")

    def finish(self):
        """Removes everything that the try made."""
        arena.end_strangers(0)
        arena.end_mounts(self.world.mounts)
        arena.remove(self.dir)
        for name in os.listdir(f"{arena.ROOT}/tmp"):
            arena.remove(f"{arena.ROOT}/tmp/{name}")

    def age_tmp(self, store=None):
        """Sets times of unfinished work back: rbuild does not sweep a new directory for a minute."""
        tmp = f"{store or self.store}/tmp"
        if os.path.isdir(tmp):
            for name in os.listdir(tmp):
                os.utime(f"{tmp}/{name}", (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def _first_error(ended, directory):
    """Returns the first line of an error without digests, numbers and the paths of this try."""
    lines = [line for line in ended.err.decode("utf-8", "replace").splitlines() if "error" in line]
    text = lines[0][:300] if lines else f"(status {ended.status} without an error)"
    return re.sub(r"\d{2,}", "<n>", re.sub(r"\b[0-9a-f]{12,}\b", "<hex>", text.replace(directory, "<try>")))


def _panic(ended):
    lines = [line for line in ended.text.splitlines() if "panicked at" in line]
    return lines[0][:200] if lines else "no message"
