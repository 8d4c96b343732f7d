"""What all tries of a worker share: the base image, the context, prepared stores, and the expected images."""

import os
import shlex
import sqlite3
import time

from . import arena, fixtures, images
from .program import Running

SHARED = f"{arena.ROOT}/shared"


class Broken(Exception):
    """rbuild fails in the absence of any trouble, so there is nothing to measure."""


class World:
    """The shared inputs of one worker. Stores and expected images are made on first use."""

    def __init__(self, program):
        self.program = program
        self.base = f"{SHARED}/base"
        self.image = fixtures.base_image()
        self.image.write_layout(self.base)
        fixtures.write_context(f"{SHARED}/input")
        # rbuild, whose clock has whole seconds, does not remember the hash of a file that changed a moment ago.
        time.sleep(1.5)
        self.context = f"{SHARED}/input/context"
        self.mounts = arena.mounts()
        self._ids, self._files, self._stores, self._facts = {}, {}, {}, {}
        self._remembered = {}
        self._check_fixture()

    # Commands -------------------------------------------------------------------------------

    def build_arguments(self, dockerfile, *more):
        return ["build", "-q", "--reproducible", "-f", f"{SHARED}/input/{dockerfile}.Dockerfile",
                "--build-context", f"base=oci-layout://{self.base}", *map(str, more), self.context]

    def run(self, store, *arguments, owner=0, seconds=120):
        """Runs rbuild undisturbed; raises `Broken` if it fails."""
        command = [self.program, "--root", store, *map(str, arguments)]
        ended = Running(command, owner, arena.environment(owner)).wait(seconds)
        if ended.status != 0:
            raise Broken(f"{shlex.join(command)}\nended with {ended.status}:\n{ended.tail(20)}")
        return ended

    def has_command(self, *words):
        """Returns whether this version of rbuild has a command."""
        if words not in self._facts:
            ended = Running([self.program, *words, "--help"], env=arena.environment(0)).wait(20)
            self._facts[words] = ended.status == 0
        return self._facts[words]

    def remember(self, key, measure):
        """Returns a measurement that many tries need, such as the duration of a build; takes it on first use."""
        if key not in self._remembered:
            self._remembered[key] = measure()
        return self._remembered[key]

    # Expected images --------------------------------------------------------------------------

    def image_id(self, dockerfile):
        """Returns the image id of a build in a clean store."""
        if dockerfile not in self._ids:
            store = f"{SHARED}/clean-{dockerfile}"
            self._ids[dockerfile] = self.run(store, *self.build_arguments(dockerfile)).image_id()
            arena.remove(store)
        return self._ids[dockerfile]

    def files(self, dockerfile):
        """Returns the listing of the image of a build in a clean store."""
        if dockerfile not in self._files:
            store, out = f"{SHARED}/clean-files", f"{SHARED}/clean.tar"
            self.run(store, *self.build_arguments(dockerfile, "-o", f"type=tar,dest={out}"))
            self._files[dockerfile] = images.listing(out)
            arena.remove(store)
            os.unlink(out)
        return self._files[dockerfile]

    def _check_fixture(self):
        """Compares the image of a clean store with contents that Python computes."""
        store, out = f"{SHARED}/clean-fixture", f"{SHARED}/clean.tar"
        self.run(store, *self.build_arguments("app", "-o", f"type=tar,dest={out}"))
        files = images.archive_files(out)
        expected = {"usr/local/sums": fixtures.sums(), "data/words": fixtures.words("words", 60_000),
                    "usr/local/d/noise": fixtures.noise("noise", 200_000)}
        for name, data in expected.items():
            if files.get(name) != data:
                raise Broken(f"{name} of the image is not what the Dockerfile makes")
        if b"/data/more 644 7 8 9000\n" not in files["witness"]:
            raise Broken("the last step does not see the base image's files")
        arena.remove(store)
        os.unlink(out)

    # Prepared stores ------------------------------------------------------------------------

    def store(self, name, owner=0):
        """Returns the path of a prepared store, which tries copy."""
        key = (name, owner)
        if key not in self._stores:
            path = f"{SHARED}/store-{name}-{owner}"
            getattr(self, f"_prepare_{name}")(path, owner)
            self._stores[key] = path
        return self._stores[key]

    def _prepare_base(self, path, owner):
        """Makes a store that holds the base image, unpacked."""
        self._own(path, owner)
        self.run(path, *self.build_arguments("copies", "-t", "copies"), owner=owner)

    def _prepare_built(self, path, owner):
        """Makes a store that has built, tagged and exported `app`: it holds every representation of its layers."""
        self._own(path, owner)
        self._own(f"{path}-out", owner)
        out = f"{path}-out/out.tar"
        self.run(path, *self.build_arguments("app", "-t", "app", "-o", f"type=oci,dest={out}"), owner=owner)
        self.run(path, "save", "app", "-o", out, owner=owner)
        arena.remove(f"{path}-out")
        if not os.listdir(f"{path}/memo"):
            raise Broken("the store remembers no hashes of the context's files")

    def _prepare_wal(self, path, owner):
        """Makes a store whose whole index is in the write-ahead log, as after a crash of the machine."""
        live = f"{path}-live"
        self._own(live, owner)
        self.run(live, "images", owner=owner)
        # As long as it has a reader, the log is not merged into the database.
        reader = sqlite3.connect(f"file:{live}/index.db?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM step").fetchall()
        self.run(live, *self.build_arguments("app", "-t", "app"), owner=owner)
        arena.copy(live, path)
        reader.close()
        arena.remove(live)
        if not os.path.getsize(f"{path}/index.db-wal"):
            raise Broken("the index has no write-ahead log")
        os.unlink(f"{path}/index.db-shm")

    def _own(self, path, owner):
        os.mkdir(path, 0o700)
        os.chown(path, owner, owner)
