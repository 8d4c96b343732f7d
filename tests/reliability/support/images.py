"""Reads what rbuild wrote: archives, layouts, registries. Hashes every byte, and uses none of rbuild's code."""

import gzip
import hashlib
import json
import tarfile
import zlib


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Wrong(Exception):
    """An output that contradicts itself or differs from what is expected.

    `counter` is `S` when bytes do not hash to their names or something is missing, and `W` when it is
    consistent but another image.
    """

    def __init__(self, counter, text):
        super().__init__(text)
        self.counter = counter


def archive_files(path):
    """Returns the files of a tar archive by name; raises `Wrong` when it is cut short."""
    try:
        with tarfile.open(path) as archive:
            return {member.name.rstrip("/"): archive.extractfile(member).read()
                    for member in archive if member.isreg()}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise Wrong("S", f"{path} cannot be read: {error}") from error


def check_archive(path, image_id):
    """Checks an archive with one image, from `-o type=oci`, `-o type=docker` or `save`."""
    files = archive_files(path)
    check_blobs(files.get("index.json"), lambda name: files.get("blobs/" + name.replace(":", "/")), image_id)
    if "manifest.json" in files:
        _check_docker(files, image_id)


def check_blobs(index, blob, image_id):
    """Checks an OCI index and all that it names; `blob` returns the bytes of a digest, or nothing."""
    if index is None:
        raise Wrong("S", "there is no index.json")
    manifests = _json(index, "index.json").get("manifests", [])
    if not manifests:
        raise Wrong("S", "the index names no image")
    check_manifest(_fetch(manifests[0], blob), blob, image_id)


def check_manifest(document, blob, image_id):
    """Checks a manifest and all that it names."""
    manifest = _json(document, "a manifest")
    config = _fetch(manifest["config"], blob)
    layers = [_fetch(layer, blob) for layer in manifest["layers"]]
    expected = _json(config, "a config")["rootfs"]["diff_ids"]
    found = [digest(unpacked(layer, description["mediaType"]))
             for layer, description in zip(layers, manifest["layers"])]
    if found != expected:
        raise Wrong("S", f"layers {found} are not those of the config, {expected}")
    if image_id not in (digest(config), digest(document)):
        raise Wrong("W", f"image {digest(config)} (manifest {digest(document)}) instead of {image_id}")


def unpacked(data, media_type):
    if not media_type.endswith("+gzip"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise Wrong("S", f"a layer cannot be unpacked: {error}") from error


def _check_docker(files, image_id):
    entry = json.loads(files["manifest.json"])[0]
    config = _json(files.get(entry["Config"], b""), entry["Config"])
    found = []
    for name in entry["Layers"]:
        data = files.get(name)
        if data is None:
            raise Wrong("S", f"manifest.json names {name}, which is not there")
        found.append(digest(unpacked(data, "+gzip" if data[:2] == b"\x1f\x8b" else "")))
    if found != config["rootfs"]["diff_ids"]:
        raise Wrong("S", "layers of manifest.json are not those of its config")


def _fetch(descriptor, blob):
    name, data = descriptor["digest"], blob(descriptor["digest"])
    if data is None:
        raise Wrong("S", f"{name} is missing")
    if len(data) != descriptor["size"] or digest(data) != name:
        raise Wrong("S", f"{name} holds {digest(data)}, {len(data)} bytes instead of {descriptor['size']}")
    return data


def _json(data, name):
    try:
        return json.loads(data)
    except ValueError as error:
        raise Wrong("S", f"{name} is not JSON: {error}") from error


def listing(path):
    """Returns what a `-o type=tar` archive holds: names with kind, mode, owner, link and content."""
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = hashlib.sha256(archive.extractfile(member).read()).hexdigest() if member.isreg() else ""
                found[member.name.rstrip("/")] = (member.type, oct(member.mode), member.uid, member.gid,
                                                  member.linkname, content)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Wrong("S", f"{path} cannot be read: {error}") from error
    return found


def difference(found, expected):
    """Returns a line that describes how two listings differ; empty if they do not."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"{len(names)} files differ, the first is {names[0]}: {found.get(names[0])} instead of " \
           f"{expected.get(names[0])}" if names else ""
