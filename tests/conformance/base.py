"""Makes the base images of the cases: busybox from Debian's busybox-static, and a small Debian."""
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

BUSYBOX = "/bin/busybox"
DIRECTORIES = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o755,
               "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "var": 0o755}
FILES = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"
                       "nobody:x:65534:65534::/:/bin/false\n",
         "etc/group": "root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n"}
# Expected histories begin with that of the image that the cases were recorded on, which umoci made.
HISTORY = [{"created_by": "umoci raw add-layer"}, {"created_by": "umoci config", "empty_layer": True}]
ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def busybox(archive):
    """Writes an OCI archive with busybox and a link for each of its applets."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, mode in DIRECTORIES.items():
            add(tar, name, tarfile.DIRTYPE, mode)
        with open(BUSYBOX, "rb") as f:
            add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, f.read())
        applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for applet in sorted({*applets} - {"busybox"}):
            add(tar, "bin/" + applet, tarfile.SYMTYPE, 0o777, link="busybox")
        for name, text in FILES.items():
            add(tar, name, tarfile.REGTYPE, 0o644, text.encode())
    write_archive(archive, layer.getvalue(), ["sh"])


def add(tar, name, kind, mode, content=b"", link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(content)
    tar.addfile(entry, io.BytesIO(content))


def can_make_debian():
    """True if this machine can make Debian's image: it takes root and mmdebstrap."""
    return os.geteuid() == 0 and shutil.which("mmdebstrap") is not None


def debian(archive, tmp):
    """Writes an OCI archive with Debian's essential packages. Packages come from the machine's mirror."""
    path = os.path.join(tmp, "bookworm.tar")
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", path], check=True)
    with open(path, "rb") as f:
        write_archive(archive, f.read(), ["bash"])
    os.unlink(path)


def write_archive(archive, layer, command):
    """Writes an image of one layer as an OCI archive (image-spec, image-layout.md)."""
    blobs = {}

    def blob(media_type, data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}",
                "size": len(data)}

    def document(media_type, value):
        return blob(media_type, json.dumps(value).encode())

    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = document("config.v1+json", {
        "architecture": "amd64", "os": "linux", "config": {"Env": ENV, "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "history": HISTORY})
    packed = blob("layer.v1.tar+gzip", gzip.compress(layer, 6, mtime=0))
    manifest = document("manifest.v1+json", {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": [packed]})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    files = {"oci-layout": {"imageLayoutVersion": "1.0.0"},
             "index.json": {"schemaVersion": 2, "manifests": [manifest]}}
    with tarfile.open(archive, "w") as tar:
        for name, value in files.items():
            add(tar, name, tarfile.REGTYPE, 0o644, json.dumps(value).encode())
        for digest, data in blobs.items():
            add(tar, f"blobs/sha256/{digest}", tarfile.REGTYPE, 0o644, data)
