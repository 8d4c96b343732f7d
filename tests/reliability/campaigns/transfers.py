"""Pulls, pushes and shares caches through a registry that misbehaves."""

import os

from support import images
from support.campaign import Campaign
from support.registry import FAULTS, ONLY_DOWN, ONLY_UP, Registry

# Kinds of requests that rbuild sends.
DOWN = ("HEAD manifest", "GET manifest", "GET blob")
UP = ("HEAD blob", "POST upload", "PATCH upload", "PUT upload", "PUT manifest")


def run(t):
    registry = Registry()
    try:
        what = ("pull", "build", "push", "build and push", "cache")[t.number % 5]
        _misbehave(t, registry, what)
        globals()["_" + what.replace(" ", "_")](t, registry)
        t.note("; ".join(registry.shown[:6]) or "no fault was shown")
    finally:
        registry.stop()
    t.no_processes()


def _misbehave(t, registry, what):
    """Chooses a request and its fault, and whether all later requests of that kind fail, too."""
    kinds = DOWN if what in ("pull", "build") else UP if "push" in what else DOWN + UP
    kind = t.random.choice(kinds)
    down = kind.startswith(("GET", "HEAD"))
    fault = t.random.choice([fault for fault in FAULTS if fault not in (ONLY_UP if down else ONLY_DOWN)])
    nth, always = t.random.choice((1, 1, 1, 2, 3)), t.random.random() < 0.5
    t.where = f": {what}, {kind}, {fault}"
    t.note(f"request {nth} of {kind}{' and all later ones' if always else ''}: {fault}")
    registry.fault = lambda asked, number: fault if asked == kind and (number == nth or always and number > nth) \
        else None
    t.options = ("--registry", f"{registry.address},http")


def _pull(t, registry):
    registry.add_image("base", "1", t.world.image)
    name = f"{registry.address}/base:1"
    ended = t.rbuild(*t.options, "pull", name, seconds=180)
    t.error_is_clear(ended)
    if ended.status == 0:
        # The store must hold the image that was asked for.
        registry.fault = lambda asked, number: None
        t.rbuild(*t.options, "save", name, "-o", f"{t.dir}/out.tar")
        t._check(t.where, lambda: images.check_archive(f"{t.dir}/out.tar", images.digest(t.world.image.config)))
    _build_again(t, registry)


def _build(t, registry):
    registry.add_image("base", "1", t.world.image)
    t.right_image(t.rbuild(*t.options, *_from_registry(t, registry), seconds=180), "app", t.where)
    _build_again(t, registry)


def _build_again(t, registry):
    """Expects the right image from the same store once the registry works."""
    registry.fault = lambda asked, number: None
    ended = t.rbuild(*t.options, *_from_registry(t, registry), seconds=180)
    if not t.right_image(ended, "app", " after" + t.where):
        t.fail("F", "no build after" + t.where, f"the registry works, and the build ended with {ended.status}")
    elif ended.status == 0:
        t.no_leftovers()


def _from_registry(t, registry):
    arguments = t.build_arguments("app")
    place = arguments.index("--build-context") + 1
    arguments[place] = f"base=docker-image://{registry.address}/base:1"
    return arguments


def _push(t, registry):
    t.take_store("built")
    name = f"{registry.address}/app:1"
    t.rbuild("tag", "app", name)
    _judge_push(t, registry, t.rbuild(*t.options, "push", name, seconds=180))


def _build_and_push(t, registry):
    if t.random.random() < 0.5:
        t.take_store("base")
    ended = t.rbuild(*t.options, *t.build_arguments("app", "-t", f"{registry.address}/app:1", "--push"), seconds=180)
    t.right_image(ended, "app", t.where)
    _judge_push(t, registry, ended)


def _judge_push(t, registry, ended):
    t.error_is_clear(ended)
    manifest = registry.manifests.get(("app", "1"))
    # Also after a failed push, a tag must not lead to missing blobs.
    if ended.status != 0 and manifest is None:
        return
    try:
        if manifest is None:
            raise images.Wrong("S", "the push succeeded, and the registry has no manifest")
        images.check_manifest(manifest, registry.blobs.get, t.world.image_id("app"))
    except images.Wrong as wrong:
        t.fail(wrong.counter, "what was pushed" + t.where, str(wrong), ended)


def _cache(t, registry):
    """Exports a cache from one store and builds from it in another."""
    place = f"type=registry,ref={registry.address}/cache:1"
    ended = t.rbuild(*t.options, *t.build_arguments("app", "--cache-to", f"{place},mode=max"), seconds=180)
    t.right_image(ended, "app", t.where)
    other = f"{t.dir}/other"
    os.makedirs(other, 0o700)
    ended = t.rbuild(*t.options, *t.build_arguments("app", "--cache-from", place), store=other, seconds=180)
    t.right_image(ended, "app", t.where)


CAMPAIGN = Campaign("transfers", "a registry that misbehaves", run, weight=10)
