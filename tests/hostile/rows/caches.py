"""Caches of others: directories, registries, buckets and images whose records and layers lie."""

import json
import os
import shutil
import stat

from lib import oci, tarball
from lib.suite import Fifo, Holes, Link, Node, base_layer, interrupted, row

from . import archives, registry
from .checkout import raw

MIB = 1 << 20
DOCKERFILE = "FROM base\nRUN echo good >/f\nRUN --mount=type=cache,target=/c echo hi >/c/x\nRUN cat /f; ls -la / /c /a; cat /a /a/secret; true\n"
ESC = "\x1b]0;evil\x07\x1b[31m"


class Cache:
    """A cache that an honest build wrote, in a store of its own, to be changed by a row."""

    def __init__(self, t):
        self.t, self.path = t, f"{t.dir}/cache"
        t.context({})
        honest = t.build(DOCKERFILE, "--cache-to", f"type=local,dest={self.path},mode=max,mounts=true", expect="ok",
                         env={"RBUILD_ROOT": f"{t.dir}/honest"})
        self.index = json.load(open(f"{self.path}/index.json"))
        self.manifest = json.loads(self.blob(self.index["manifests"][0]["digest"]))
        self.document = json.loads(self.blob(self.manifest["config"]["digest"]))

    def blob_path(self, name):
        return f"{self.path}/blobs/" + name.replace(":", "/")

    def blob(self, name):
        with open(self.blob_path(name), "rb") as file:
            return file.read()

    def put(self, data):
        name = oci.digest(data)
        with open(self.blob_path(name), "wb") as file:
            file.write(data)
        self.t.give(self.blob_path(name))
        return name

    def write(self, document=None, manifest=None):
        """Writes the document and all that names it anew."""
        data = document if isinstance(document, bytes) else json.dumps(document or self.document).encode()
        self.manifest["config"].update(digest=self.put(data), size=len(data))
        data = manifest if manifest is not None else json.dumps(self.manifest).encode()
        self.index["manifests"][0].update(digest=self.put(data), size=len(data))
        with open(f"{self.path}/index.json", "w") as file:
            json.dump(self.index, file)

    def layer_of(self, command):
        for step in self.document["steps"]:
            if any(command in str(value) for _, value in step["components"]):
                return next(layer for layer in self.document["layers"] if layer["diffId"] == step["layer"])
        raise KeyError(command)

    def replace_layer(self, command, tar, honest_digests=True):
        """Puts another layer in the place of the one that `command` made."""
        layer = self.layer_of(command)
        old, old_blob = layer["diffId"], layer["blob"]["digest"]
        name = self.put(tar)
        for at in [layer["blob"]] + [each for each in self.manifest["layers"] if each["digest"] == old_blob]:
            at.update(digest=name, size=len(tar), mediaType=oci.LAYER)
        if honest_digests:
            layer.update(diffId=name, tarBytes=len(tar))
            for step in self.document["steps"]:
                if step["layer"] == old:
                    step["layer"] = name
        self.write()

    def use(self, *arguments, **more):
        result = self.t.build(DOCKERFILE, "--cache-from", f"type=local,src={self.path}", *arguments, **more)
        raw(self.t, result)
        return result


@row("control-an-honest-cache-is-used")
def _(t):
    cache = Cache(t)
    cache.use(expect="ok", says=r"CACHED")
    cache.replace_layer("echo good", tarball.archive(tarball.entry("f", "from-the-cache\n")))
    shutil.rmtree(t.store)
    cache.use("--no-cache", expect="ok")


@row("a-cache-that-is-not-named-any-more-is-not-used")
def _(t):
    cache = Cache(t)
    cache.replace_layer("echo good", tarball.archive(tarball.entry("f", "poisoned\n")))
    t.build("FROM base\nRUN echo something else\n", "--cache-from", f"type=local,src={cache.path}")
    result = t.build("FROM base\nRUN echo good >/f\nRUN cat /f; echo after\n", expect="ok")
    if "poisoned" in result.text:
        t.count("W", "a later build was poisoned by a cache that it does not name")


@row("a-cache-that-was-used-does-not-poison-others")
def _(t):
    cache = Cache(t)
    cache.replace_layer("echo good", tarball.archive(tarball.entry("f", "poisoned\n")))
    cache.use()
    result = t.build("FROM base\nRUN echo good >/f\nRUN cat /f; echo after\n", expect="ok")
    if "poisoned" in result.text:
        t.count("W", "a later build was poisoned by a cache that it does not name")


@row("a-layer-of-a-cache-has-to-be-what-its-digest-says")
def _(t):
    cache = Cache(t)
    cache.replace_layer("echo good", tarball.archive(tarball.entry("f", "poisoned\n")), honest_digests=False)
    cache.use()
    result = t.build("FROM base\nRUN echo good >/f\nRUN cat /f; echo after\n")
    if "poisoned" in result.text:
        t.count("W", "a layer was used that is not what its digest says")


@row("an-image-with-a-like-history-is-no-cache", cve="CVE-2024-24557")
def _(t):
    evil = oci.Image([base_layer(), tarball.archive(tarball.entry("f", "poisoned\n"))],
                     history=[{"created_by": "hostile"}, {"created_by": "/bin/sh -c echo good >/f"}, {"created_by": "RUN /bin/sh -c echo good >/f # buildkit"}])
    server = registry.Registry(evil)
    address = t.serve(server)
    t.context({})
    t.rbuild("pull", f"{address}/x:1")
    t.rbuild("tag", f"{address}/x:1", "base:latest")
    result = t.build("FROM base\nRUN echo good >/f\nRUN cat /f\n", "--cache-from", f"type=registry,ref={address}/x:1")
    if "poisoned" in result.text:
        t.count("W", "an image was taken for a cache")


# Documents -----------------------------------------------------------------------------------

def every(where, name, value):
    def change(document):
        for each in document[where]:
            each[name] = value
    return change


def blob_field(name, value):
    def change(document):
        for each in document["layers"]:
            each["blob"][name] = value
    return change


DOCUMENTS = {
    "null": lambda document: b"null", "list": lambda document: b"[]", "deep": lambda document: b'{"layers":' + b"[" * 500000,
    "not-json": lambda document: ESC.encode() + b"\0\xff", "empty": lambda document: b"{}",
    "of-70-mib": lambda document: b'{"layers":[],"steps":[],"x":"' + b"x" * (70 * MIB) + b'"}',
    "layers-missing": lambda document: document.update(layers=[]), "steps-missing": lambda document: document.update(steps=[]),
    "layers-100000": lambda document: document.update(layers=document["layers"] * 50000),
    "steps-20000": lambda document: document.update(steps=document["steps"] * 7000),
    "components-100000": every("steps", "components", [["argument 0", "x"]] * 30000), "components-escapes": every("steps", "components", [[ESC, ESC]]),
    "components-types": every("steps", "components", [[1, 2], [], ["x"]]), "components-long": every("steps", "components", [["a", "x" * (10 * MIB)]]),
    "content-odd": every("layers", "content", "zz" * 32), "content-short": every("layers", "content", "00"), "content-other": every("layers", "content", "00" * 32),
    "definition-odd": every("steps", "definition", "\u00e9" * 64), "definition-long": every("steps", "definition", "0" * 100000),
    "created-huge": every("layers", "created", 1 << 62), "created-negative": every("steps", "created", -(1 << 62)), "created-beyond": every("layers", "created", 1 << 70),
    "duration-huge": every("steps", "durationMs", (1 << 64) - 1), "duration-negative": every("steps", "durationMs", -1),
    "tar-bytes-huge": every("layers", "tarBytes", (1 << 64) - 1), "tar-bytes-zero": every("layers", "tarBytes", 0), "tar-bytes-negative": every("layers", "tarBytes", -1),
    "diff-id-path": every("layers", "diffId", "sha256:../../../../host/secret"), "diff-id-other": every("layers", "diffId", "sha256:" + "0" * 64),
    "step-layer-unknown": every("steps", "layer", "sha256:" + "1" * 64), "step-layer-path": every("steps", "layer", "/host/secret"), "step-layer-null": every("steps", "layer", None),
    "mount-id-path": every("mounts", "id", "../../../../srv/open"), "mount-id-escapes": every("mounts", "id", ESC), "mount-key-odd": every("mounts", "key", "../.." * 20),
    "mount-key-other": every("mounts", "key", "00" * 32), "mounts-100000": lambda document: document.update(mounts=document["mounts"] * 100000),
    "mount-size-huge": every("mounts", "size", 1 << 62), "mount-digest-path": every("mounts", "digest", "sha256:../../../host/secret"),
}
DOCUMENTS.update({f"blob-digest-{name}": blob_field("digest", value) for name, value in registry.ODD_DIGESTS.items()})
DOCUMENTS.update({f"blob-size-{name}": blob_field("size", value) for name, value in
                  {"huge": 1 << 62, "zero": 0, "negative": -1, "beyond": 1 << 70, "null": None}.items()})
DOCUMENTS.update({f"blob-type-{name}": blob_field("mediaType", value) for name, value in {"escapes": ESC, "number": 5, "manifest": oci.MANIFEST}.items()})
for name, change in DOCUMENTS.items():
    def _document(t, change=change):
        cache = Cache(t)
        changed = change(cache.document)
        cache.write(changed if isinstance(changed, bytes) else None)
        cache.use()
        # And what it left in the store is harmless, too.
        t.build(DOCKERFILE)
        raw(t, t.rbuild("explain"))

    row(f"cache-document-{name}", cve="CVE-2026-15792" if "digest" in name or "diff-id" in name else "CVE-2024-23650", disk=400, seconds=30)(_document)

# Files of a cache's directory ------------------------------------------------------------------

FILES = {"link-to-a-secret": Link("/host/secret"), "link-to-zero": Link("/dev/zero"), "link-to-proc": Link("/proc/self/environ"), "fifo": Fifo(),
         "device": Node(stat.S_IFCHR, 1, 5), "sparse-200-mib": Holes(200 * MIB), "sparse-1-tib": Holes(1 << 40), "empty": b"", "garbage": b"\xff" * 5000, "directory": None}
PLACES = {"index": lambda cache: [f"{cache.path}/index.json"], "manifest": lambda cache: [cache.blob_path(cache.index["manifests"][0]["digest"])],
          "document": lambda cache: [cache.blob_path(cache.manifest["config"]["digest"])],
          "layers": lambda cache: [cache.blob_path(each["digest"]) for each in cache.manifest["layers"]],
          "layout-file": lambda cache: [f"{cache.path}/oci-layout"]}
for place, find in PLACES.items():
    for name, what in FILES.items():
        def _file(t, find=find, what=what):
            cache = Cache(t)
            for path in find(cache):
                os.remove(path)
                if what is None:
                    os.mkdir(path)
                else:
                    t.plant(os.path.dirname(path), {os.path.basename(path): what})
            cache.use(seconds=8)
            cache.use("-o", f"type=oci,dest={t.dir}/o.tar", seconds=8)

        row(f"cache-{place}-is-{name}", disk=150, seconds=20)(_file)

        def _layout(t, find=find, what=what, place=place):
            """The same for an image that is an OCI layout."""
            if place == "document":
                return
            directory = t.base(oci.Image([base_layer(), tarball.archive(tarball.entry("x", "y"))]))

            class Layout:
                path = directory
                index = json.load(open(f"{directory}/index.json"))
                blob_path = staticmethod(lambda name: f"{directory}/blobs/" + name.replace(":", "/"))
                manifest = json.load(open(f"{directory}/blobs/" + index["manifests"][0]["digest"].replace(":", "/")))
            for path in find(Layout):
                os.remove(path)
                if what is None:
                    os.mkdir(path)
                else:
                    t.plant(os.path.dirname(path), {os.path.basename(path): what})
            t.build("FROM base\nRUN true\n", seconds=8)
            t.rbuild("load", "-i", directory, seconds=8)

        if place != "document":
            row(f"layout-{place}-is-{name}", disk=150, seconds=20)(_layout)


@row("cache-blobs-directory-is-a-link")
def _(t):
    cache = Cache(t)
    shutil.move(f"{cache.path}/blobs", f"{t.dir}/elsewhere")
    os.symlink("/srv/open", f"{cache.path}/blobs")
    cache.use()


@row("a-cache-is-written-through-no-planted-link", seconds=30)
def _(t):
    home = "/root" if t.mode == "root" else "/home/hostile"
    for number, names in enumerate((["index.json", "oci-layout"], ["blobs"], ["blobs/sha256"], ["."])):
        path = f"{t.dir}/to{number}"
        if names == ["."]:
            os.mkdir(f"{t.dir}/shared")
            os.chmod(f"{t.dir}/shared", 0o1777)
            path = f"{t.dir}/shared/cache"
            os.symlink("/srv/open", path)
            os.chown(path, 20001, 20001, follow_symlinks=False)
        else:
            t.plant(path, {name: Link(f"{home}/.bashrc" if "." in name else "/srv/open") for name in names})
            t.give(path)
        t.context({})
        t.build(DOCKERFILE, "--cache-to", f"type=local,dest={path},mode=max,mounts=true")


# Layers and archives of a cache: the fifth reader of archives ------------------------------------

def as_cached_layer(t, tar):
    cache = Cache(t)
    cache.replace_layer("echo good", tar)
    cache.use()


def as_cache_mount(t, tar):
    cache = Cache(t)
    mount = cache.document["mounts"][0]
    packed = tarball.zstd_raw(tar, 20)
    old = [value for value in json.dumps(mount).split('"') if value.startswith("sha256:")]
    text = json.dumps(mount)
    new = cache.put(packed)
    for name in old:
        size = os.path.getsize(cache.blob_path(name)) if os.path.exists(cache.blob_path(name)) else None
        text = text.replace(name, new if size is not None else oci.digest(tar))
        for each in cache.manifest["layers"]:
            if each["digest"] == name:
                each.update(digest=new, size=len(packed))
    mount = json.loads(text)
    for each in [mount] + [value for value in mount.values() if isinstance(value, dict)]:
        for key in each:
            if key == "size":
                each[key] = len(packed)
            elif key in ("tarBytes", "bytes"):
                each[key] = len(tar)
    cache.document["mounts"] = [mount]
    cache.write()
    cache.use()


CACHED = [name for name in archives.ENTRIES if name.startswith(("link", "hardlink", "name-d", "name-abs", "whiteout", "sparse", "character", "block", "fifo",
                                                                "set-id", "xattr-overlay", "size-", "5000", "device"))]
for name in CACHED:
    if name in archives.SLOW:
        continue
    for way, read in {"cached-layer": as_cached_layer, "cache-mount": as_cache_mount}.items():
        def _archive(t, name=name, read=read):
            read(t, tarball.archive(*archives.ENTRIES[name](), tarball.entry("last", "last")))

        row(f"{way}-{name}", disk=700 if "sparse" in name else 256, cve=archives.CVES.get(name, ""))(_archive)

# Registries and buckets ------------------------------------------------------------------------

SERVERS = ["endless", "redirect-loop", "redirect-to-a-file", "headers-of-10-mib", "gzip-bomb", "error-escapes", "error-of-20-mib", "wrong-content", "not-http", "length-huge"]
XML = {"deep": "<a>" * 100000, "entities": '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">' + "".join(f'<!ENTITY c{n} "{"&c%d;" % (n - 1) * 10 if n else "&b;" * 10}">' for n in range(12)) + "]><Error><Code>&c11;</Code></Error>",
       "external": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///host/secret">]><Error><Code>&x;</Code></Error>', "escapes": f"<Error><Code>{ESC}</Code><Message>{ESC}\u202e</Message></Error>",
       "long": "<Error><Code>" + "x" * (10 * MIB) + "</Code></Error>"}


def bucket(address):
    return (f"type=s3,region=r,bucket=b,endpoint_url=http://{address},use_path_style=true,access_key_id=AKIAEXAMPLE,"
            "secret_access_key=secret")


for name in SERVERS:
    for kind in ("registry", "s3"):
        def _server(t, name=name, kind=kind):
            address = t.serve(lambda request: (request.body(), registry.ANSWERS[name](request))[1])
            where = f"type=registry,ref={address}/c:1" if kind == "registry" else bucket(address)
            t.context({})
            interrupted(t, lambda: raw(t, t.build(DOCKERFILE, "--cache-from", where)) or t.results[-1], after=2)
            interrupted(t, lambda: raw(t, t.build(DOCKERFILE, "--cache-to", where + ",mode=max")) or t.results[-1], after=2)

        row(f"{kind}-cache-answer-{name}", seconds=25)(_server)

for name, text in XML.items():
    def _xml(t, text=text):
        address = t.serve(lambda request: (request.body(), request.send(403, text, {"Content-Type": "application/xml"}))[1])
        t.context({})
        raw(t, t.build(DOCKERFILE, "--cache-from", bucket(address)))
        raw(t, t.build(DOCKERFILE, "--cache-to", bucket(address) + ",mode=max"))

    row(f"s3-error-{name}")(_xml)


@row("inline-cache-of-a-hostile-image", seconds=30)
def _(t):
    t.context({})
    for value in (b"[]", b'"x"', b"{}", b'{"layers":[{"diffId":"sha256:../..","content":"","tarBytes":-1}],"steps":[{}]}', b'{"layers":' + b"[" * 200000,
                  b'{"layers":[],"steps":[],"mounts":[{"id":"../../x","key":"zz"}]}'):
        config = oci.config([base_layer()])[:-1] + b',"rbuild.cache.v1":' + value + b"}"
        address = t.serve(registry.Registry(oci.Image([base_layer()], config_bytes=config)))
        raw(t, t.build(DOCKERFILE, "--cache-from", f"type=registry,ref={address}/x:1"))
        raw(t, t.build(f"FROM {address}/x:1\nRUN true\n"))
