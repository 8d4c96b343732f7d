"""Images as OCI layouts and docker archives, written without rbuild."""

import gzip
import hashlib
import json
import os

from . import tarball

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A layer: its bytes, its media type, and what its uncompressed tar hashes to."""

    def __init__(self, data, media_type=LAYER, diff_id=None):
        self.data, self.media_type = data, media_type
        self.digest = digest(data)
        self.diff_id = diff_id or self.digest

    def descriptor(self):
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


def gzipped(tar, level=1):
    return Layer(gzip.compress(tar, level, mtime=0), LAYER + "+gzip", digest(tar))


def machine():
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def config(layers, settings=None, **members):
    value = {"architecture": machine(), "os": "linux",
             "config": {"Env": ["PATH=/bin:/usr/bin"], **(settings or {})},
             "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
             "history": [{"created_by": "hostile"} for _ in layers]}
    value.update(members)
    return json.dumps(value).encode()


class Image:
    """Blobs by digest, and the descriptor of the manifest."""

    def __init__(self, layers, settings=None, config_bytes=None, manifest=None, **members):
        self.layers = [layer if isinstance(layer, Layer) else Layer(layer) for layer in layers]
        self.config = config_bytes or config(self.layers, settings, **members)
        value = {"schemaVersion": 2, "mediaType": MANIFEST,
                 "config": _descriptor(self.config, CONFIG),
                 "layers": [layer.descriptor() for layer in self.layers]}
        if manifest:
            manifest(value)
        self.manifest = json.dumps(value).encode()
        self.blobs = {digest(data): data for data in (self.manifest, self.config)}
        self.blobs.update((layer.digest, layer.data) for layer in self.layers)

    def write_layout(self, directory, tag="latest"):
        os.makedirs(f"{directory}/blobs/sha256", exist_ok=True)
        for name, data in self.blobs.items():
            path = f"{directory}/blobs/" + name.replace(":", "/")
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(data)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            **_descriptor(self.manifest, MANIFEST),
            "annotations": {"org.opencontainers.image.ref.name": tag}}]}
        _json(f"{directory}/index.json", index)
        _json(f"{directory}/oci-layout", {"imageLayoutVersion": "1.0.0"})

    def docker_archive(self, name="hostile:1"):
        """What `docker save` writes."""
        parts, paths = [], []
        for number, layer in enumerate(self.layers):
            paths.append(f"{number}/layer.tar")
            parts.append(tarball.directory(str(number)))
            parts.append(tarball.entry(paths[-1], layer.data))
        config_name = hashlib.sha256(self.config).hexdigest() + ".json"
        parts.append(tarball.entry(config_name, self.config))
        manifest = [{"Config": config_name, "RepoTags": [name], "Layers": paths}]
        parts.append(tarball.entry("manifest.json", json.dumps(manifest)))
        return tarball.archive(*parts)


def _descriptor(data, media_type):
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def _json(path, value):
    with open(path, "w") as file:
        json.dump(value, file)


# What rows call; all four hundred would be most of what unpacking costs.
APPLETS = """[ ash awk base64 basename cat chmod chown cp cut date dd dirname echo env expr false find grep head hostname id
kill ln ls mkdir mkfifo mknod mount mv nc nslookup od printf ps pwd readlink rm rmdir sed seq setsid sh sleep sort stat stty
sync tail tee test touch tr true truncate tty umount uname wc xargs yes""".split()


def base_tree(probe):
    """The files of the ordinary base image: busybox, its links, accounts, the probe."""
    with open("/bin/busybox", "rb") as file:
        busybox = file.read()
    parts = [tarball.directory(name) for name in
             ("bin", "etc", "root", "usr", "usr/bin", "var", "home", "lib", "lib64")]
    parts.append(tarball.directory("tmp", 0o1777))
    parts.append(tarball.entry("bin/busybox", busybox, mode=0o755))
    parts += [tarball.symlink(f"bin/{name}", "busybox") for name in APPLETS]
    with open(probe, "rb") as file:
        parts.append(tarball.entry("bin/probe", file.read(), mode=0o755))
    parts.append(tarball.entry("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
                               "app:x:1000:1000::/home/app:/bin/sh\n"))
    parts.append(tarball.entry("etc/group", "root:x:0:\napp:x:1000:\n"))
    return tarball.archive(*parts)
