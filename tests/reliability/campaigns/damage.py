"""Damages one file of a store, then uses the store: it expects a right result or a clear error."""

import os
import random
import re
import stat

from support import arena, images
from support.campaign import Campaign
from support.registry import Registry

KINDS = ("index", "index-wal", "memo", "packed blob", "plain blob", "manifest", "config", "listing", "unpacked file",
         "build record", "version", "lock")
DAMAGES = ("flip", "cut", "zero", "removal")
# `rot` is a flipped bit below the file system: no time changes. `mode` sets other permission bits.
MORE = {"unpacked file": ("rot", "mode")}
# Directories, which can only be removed.
DIRECTORIES = ("layer", "unpacked layer")
COMMANDS = ("build", "next", "oci", "tar", "save", "push", "prune", "du", "images", "history", "inspect")
BLOCK = 4096


def combinations():
    damages = [(kind, damage) for kind in KINDS for damage in DAMAGES + MORE.get(kind, ())]
    damages += [(kind, "removal") for kind in DIRECTORIES]
    return [(kind, damage, command) for kind, damage in damages for command in COMMANDS]


def run(t):
    order = combinations()
    # Each round has all combinations once; the file and the offset in it are random.
    random.Random(f"{t.seed}/order").shuffle(order)
    kind, damage, command = order[t.number % len(order)]
    t.take_store("wal" if kind == "index-wal" else "built")
    t.note(f"{kind}, {damage}, {command}")
    t.damage, t.where = damage, f": {kind}, {command}"
    t.what = f": {kind}"
    path = t.random.choice(files_of(t.store, kind))
    t.note(f"{damage} in {path}: {inflict(t, f'{t.store}/{path}', damage)}")
    succeeded = globals()["_" + command](t)
    if succeeded:
        # Damage that was not noticed now must not show later either.
        if command not in ("build", "tar"):
            _build(t)
    elif not any(failure["counter"] in "PF" for failure in t.failures):
        _way_out(t)
    t.no_processes()


def files_of(store, kind):
    """Returns the paths of all files of one kind, relative to the store."""
    if kind in DIRECTORIES:
        layers = sorted(os.listdir(f"{store}/layers"))
        # Not every layer is unpacked.
        return [f"layers/{name}" for name in layers] if kind == "layer" else \
            [f"layers/{name}/fs" for name in layers if os.path.isdir(f"{store}/layers/{name}/fs")]
    found = []
    for top, _, names in os.walk(store):
        for name in names:
            path = os.path.join(top, name)
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode) and _kind(os.path.relpath(path, store), path) == kind:
                found.append(os.path.relpath(path, store))
    return sorted(found)


def _kind(name, path):
    parts = name.split("/")
    by_first = {"memo": "memo", "builds": "build record", "locks": "lock", "index.db": "index",
                "index.db-wal": "index-wal", "version": "version"}
    if parts[0] in by_first:
        return by_first[parts[0]]
    if parts[0] == "layers":
        return "listing" if parts[2:] == ["tree"] else "unpacked file" if parts[2] == "fs" else ""
    if parts[0] == "blobs":
        with open(path, "rb") as file:
            head = file.read(512)
        if head.startswith(b"{"):
            return "manifest" if b'"layers"' in head or b'"manifests"' in head or b'"schemaVersion"' in head \
                else "config"
        return "packed blob" if head[:2] in (b"\x1f\x8b", b"\x28\xb5") else "plain blob"
    return ""


def inflict(t, path, damage):
    """Damages a file, and returns a description."""
    about = os.stat(path)
    size = about.st_size
    if damage == "removal":
        arena.remove(path)
        return "removed"
    if damage == "mode":
        mode = stat.S_IMODE(about.st_mode) ^ t.random.choice((0o111, 0o022, 0o004, 0o4000))
        os.chmod(path, mode)
        return f"mode {mode:o}"
    with open(path, "r+b") as file:
        if damage == "cut":
            size = t.random.choice((0, t.random.randrange(max(size, 1))))
            file.truncate(size)
            return f"cut to {size} bytes"
        if size == 0:
            file.write(b"\0")
            return "a byte in what was empty"
        if damage == "zero":
            at = t.random.randrange(0, size, BLOCK)
            file.seek(at)
            file.write(bytes(min(BLOCK, size - at)))
            return f"zeros from {at}"
        at, bit = t.random.randrange(size), t.random.randrange(8)
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ (1 << bit)]))
    if damage == "rot":
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    return f"bit {bit} of byte {at}"


# Commands: each returns whether rbuild reported success -------------------------------


def _build(t):
    return _right(t, t.rbuild(*t.build_arguments("app")), "app")


def _next(t):
    return _right(t, t.rbuild(*t.build_arguments("next")), "next")


def _oci(t):
    out = f"{t.dir}/out.tar"
    succeeded = _right(t, t.rbuild(*t.build_arguments("app", "-o", f"type=oci,dest={out}")), "app")
    if succeeded:
        t.right_archive(out, where=t.where)
    return succeeded


def _tar(t):
    out = f"{t.dir}/out.tar"
    succeeded = _right(t, t.rbuild(*t.build_arguments("app", "-o", f"type=tar,dest={out}")), "app")
    if succeeded:
        t.right_files(out, where=t.where)
    return succeeded


def _save(t):
    out = f"{t.dir}/out.tar"
    ended = t.rbuild("save", "app", "-o", out)
    if ended.status == 0:
        t.right_archive(out, where=t.where)
    return _said(t, ended)


def _push(t):
    registry = Registry()
    name = f"{registry.address}/app"
    try:
        if not _said(t, t.rbuild("tag", "app", f"{name}:1")):
            return False
        ended = t.rbuild("--registry", f"{registry.address},http", "push", f"{name}:1")
    finally:
        registry.stop()
    if ended.status == 0:
        try:
            images.check_manifest(registry.manifests.get(("app", "1")), registry.blobs.get, t.world.image_id("app"))
        except images.Wrong as wrong:
            t.fail(wrong.counter, ("damaged" if wrong.counter == "S" else "wrong") + " push" + t.where, str(wrong))
    return _said(t, ended)


def _prune(t):
    return _said(t, t.rbuild("prune")) and _names(t)


def _du(t):
    return _said(t, t.rbuild("du", "-v")) and _names(t)


def _history(t):
    return _said(t, t.rbuild("history")) and _names(t)


def _inspect(t):
    return _said(t, t.rbuild("inspect", "app"))


def _images(t):
    return _names(t)


def _names(t):
    """Expects that `images` lists the tagged image, or says why it does not."""
    ended = t.rbuild("images")
    if ended.status == 0 and "app:latest" not in ended.out.decode("utf-8", "replace").split() and not ended.err.strip():
        t.fail("S", "lost name" + t.where, "`images` shows no `app`, and says nothing")
    return _said(t, ended)


def _said(t, ended):
    t.error_is_clear(ended, "no message" + t.where)
    return ended.status == 0


def _right(t, ended, dockerfile):
    if t.damage == "rot" and ended.status == 0 and ended.image_id() != t.world.image_id(dockerfile) \
            and _verification_finds_it(t):
        return True
    return t.right_image(ended, dockerfile, t.where)


def _verification_finds_it(t):
    """Returns whether `rbuild store verify`, which reads every file, reports rot in an unpacked file."""
    return t.world.has_command("store", "verify") and t.rbuild("store", "verify").status != 0


def _way_out(t):
    """Expects that the advice of the error helps, and that some command makes the store usable again."""
    _follow_advice(t)
    if _is_usable(t):
        return
    tried = []
    for command in (("store", "verify", "--repair"), ("prune",), ("prune", "--all")):
        if command[0] == "store" and not t.world.has_command("store", "verify"):
            continue
        tried.append(" ".join(command))
        t.rbuild(*command)
        if _is_usable(t):
            return
    t.fail("F", "no way out" + t.what, f"no build succeeds, even after {', '.join(tried)}")


def _follow_advice(t):
    """Follows the advice of an error that says to build again, and repeats the command."""
    text, arguments = t.last.text, t.arguments
    if "build again" not in text:
        return
    if match := re.search(r"remove (/\S+) and build again", text):
        arena.remove(match[1])
    elif match := re.search(r"`rbuild ([^`]+)` and build again", text):
        t.rbuild(*match[1].split())
        arguments = t.build_arguments("app", "-t", "app")
    elif "again with --no-cache" in text:
        arguments = [arguments[0], "--no-cache", *arguments[1:]]
    again = t.rbuild(*arguments)
    if again.status != 0:
        t.fail("F", "advice does not help" + t.what, f"the same command ended with {again.status} again", again)


def _is_usable(t):
    ended = t.rbuild(*t.build_arguments("app"))
    return t.right_image(ended, "app", " after an error" + t.what)


CAMPAIGN = Campaign("damage", "one file of the store is damaged", run, weight=22)
