"""Archives, in every reader: a base layer, ADD, `load`, a tar context, and a tar context from a URL.

`ENTRIES` has what an archive may hold that a writer of archives would not; each is put before each
reader. `DISAGREEMENTS` are read by rbuild, GNU tar, bsdtar and Python: rbuild lists what one of them
lists, or refuses.
"""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile

from lib import oci, tarball
from lib.suite import base_layer, row
from lib.tarball import archive, directory, entry, gnu_long, gnu_sparse, hardlink, header, padded, pax
from lib.tarball import pax_record, pax_sparse, symlink

UPS = "../../../../../../../.."
MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


def capability(version=0x2000000):
    return version.to_bytes(4, "little") + b"\xff" * 16


def xattr(name, key, value):
    return entry(name, "x", records={f"SCHILY.xattr.{key}": value})


# Name, and the archive's parts. Everything ends with an ordinary entry, so that a reader that goes on
# after the odd one shows what it makes of it.
ENTRIES = {
    # Names.
    "name-dot-dot": lambda: [entry(f"{UPS}/srv/open/new", "x")],
    "name-dot-dot-inside": lambda: [directory("a"), entry(f"a/{UPS}/srv/open/new", "x")],
    "name-absolute": lambda: [entry("/srv/open/new", "x"), entry("//srv/open/new2", "x")],
    "name-directory-dot-dot": lambda: [directory("../../../srv/open/dir", 0o777), directory("..", 0o777)],
    "name-is-dot": lambda: [directory(".", 0o777), entry(".", "x"), directory("./", 0o700)],
    "name-empty": lambda: [entry("", "x"), directory("")],
    "name-with-nul": lambda: [entry("x", "y", records={"path": b"srv\0/../../x"})],
    "name-with-newline": lambda: [entry("a\nb\x1b[31m", "x"), entry("c\rd", "y")],
    "name-with-backslash": lambda: [entry("..\\..\\srv\\open\\x", "x")],
    "name-not-utf8": lambda: [entry(b"\xff\xfe\x80", "x")],
    "name-file-with-slash": lambda: [entry("a/", "x"), entry("b//c", "x"), entry("./d/./e", "x")],
    "name-of-256-bytes": lambda: [entry("n" * 256, "x")],
    "name-of-5000-bytes": lambda: [entry("/".join(["n" * 99] * 50), "x")],
    "name-of-1-mib": lambda: [entry("n" * MIB, "x")],
    "name-of-1-mib-with-slashes": lambda: [entry("n/" * (MIB // 2) + "x", "x")],
    "name-gnu-of-64-mib": lambda: [gnu_long("n" * (16 * MIB)), entry("x", "x")],
    "name-gnu-without-end": lambda: [gnu_long("n"), gnu_long("m"), gnu_long("o", "K")],
    "5000-levels": lambda: [directory("/".join(["d"] * depth)) for depth in (1000, 2000, 5000)],
    "prefix-dot-dot": lambda: [header("x", prefix=b"../../../srv/open")],
    # Links.
    "link-then-file-below": lambda: [symlink("a", "/srv/open"), entry("a/new", "x")],
    "link-up-then-file-below": lambda: [symlink("a", f"{UPS}/srv/open"), entry("a/new", "x"), directory("a/d")],
    "link-to-proc-then-file": lambda: [symlink("a", "/proc/self/root/srv/open"), entry("a/new", "x"),
                                       symlink("b", "/proc/self/cwd"), entry("b/new", "x")],
    "link-then-the-same-name": lambda: [symlink("a", "/srv/open/file"), entry("a", "overwritten")],
    "link-replaces-directory": lambda: [directory("a"), entry("a/b", "x"), symlink("a", "/srv/open"), entry("a/new", "x")],
    "link-replaced-by-directory": lambda: [symlink("a", "/srv/open"), directory("a"), entry("a/new", "x")],
    "link-chain": lambda: [symlink("a", "b"), symlink("b", "c"), symlink("c", "/srv/open"), entry("a/new", "x")],
    "link-loop": lambda: [symlink("a", "b"), symlink("b", "a"), entry("a/new", "x")],
    "link-chain-of-1000": lambda: [symlink(f"l{n}", f"l{n + 1}") for n in range(1000)] + [entry("l0/x", "x")],
    "link-empty-target": lambda: [symlink("a", ""), entry("a/x", "x")],
    "link-target-of-1-mib": lambda: [symlink("a", "t" * MIB)],
    "link-target-with-nul": lambda: [entry("a", type="2", records={"linkpath": b"/srv\0/open"})],
    "link-with-content": lambda: [entry("a", "content", type="2", link="/srv/open/file")],
    "links-swap-parent": lambda: [directory("p"), directory("p/q"), symlink("p/q", "/srv"), symlink("p", "/srv"),
                                  entry("p/q/open/new", "x"), entry("p/open/new", "x")],
    "hardlink-absolute": lambda: [hardlink("a", "/host/secret"), entry("a", "x")],
    "hardlink-up": lambda: [hardlink("a", f"{UPS}/srv/open/file"), entry("a", "overwritten")],
    "hardlink-through-link": lambda: [symlink("l", f"{UPS}/srv/open"), hardlink("a", "l/file"), entry("a", "x")],
    "hardlink-to-link": lambda: [symlink("l", "/srv/open/file"), hardlink("a", "l"), entry("a", "x", mode=0o777)],
    "hardlink-then-chmod": lambda: [symlink("l", "/srv"), hardlink("a", "l/open/file", mode=0o4777), directory("l")],
    "hardlink-to-itself": lambda: [hardlink("a", "a"), hardlink("b", "c"), hardlink("c", "b")],
    "hardlink-to-directory": lambda: [directory("d"), hardlink("a", "d"), entry("a/x", "x")],
    "hardlink-to-device": lambda: [entry("n", type="3", major=1, minor=5), hardlink("a", "n"), entry("a", "x")],
    "hardlink-with-content": lambda: [entry("t", "old"), entry("a", "new", type="1", link="t")],
    "hardlinks-many": lambda: [entry("t", "x")] + [hardlink(f"h{n}", "t") for n in range(20000)],
    # Types.
    "character-device": lambda: [entry("dev-zero", type="3", major=1, minor=5, mode=0o666), entry("dev-zero", "x")],
    "block-device": lambda: [entry("disk", type="4", major=254, minor=0, mode=0o666), entry("disk", "x")],
    "device-of-odd-number": lambda: [entry("d", type="3", major=1 << 40, minor=-1), entry("e", type="4", major=-1)],
    "device-0-0": lambda: [entry("gone", type="3", major=0, minor=0)],
    "fifo-then-file": lambda: [entry("f", type="6", mode=0o666), entry("f", "x"), entry("g", type="6")],
    "fifo-as-dockerfile": lambda: [entry("f", type="6"), hardlink("g", "f")],
    "unknown-types": lambda: [entry(f"t{n}", "x", type=kind) for n, kind in enumerate("789ADMNSVXZ~\x01")],
    "set-id-programs": lambda: [entry("su", "x", mode=0o6755), directory("sd", 0o7777)],
    "directory-with-size": lambda: [header("d/", 512, "5") + b"x" * 512],
    # Whiteouts.
    "whiteout-dot": lambda: [entry(".wh..", "")],
    "whiteout-dot-dot": lambda: [entry(".wh...", ""), directory("a"), entry("a/.wh...", "")],
    "whiteout-empty": lambda: [entry(".wh.", ""), directory("a"), entry("a/.wh.", "")],
    "whiteout-of-whiteout": lambda: [entry(".wh..wh.x", ""), entry(".wh..wh..opq", ""), entry(".wh..wh.aufs", "")],
    "whiteout-slash": lambda: [entry(".wh.a/../../../srv/open/file", ""), entry(".wh./srv/open/file", "")],
    "whiteout-up": lambda: [entry("../../.wh.srv", ""), entry("/.wh.srv", ""), entry("a/../../../srv/open/.wh.file", "")],
    "whiteout-below-link": lambda: [symlink("a", "/srv/open"), entry("a/.wh.file", ""), entry("a/.wh..wh..opq", "")],
    "whiteout-is-a-directory": lambda: [directory(".wh.d"), entry(".wh.d/x", "x")],
    "whiteout-is-a-link": lambda: [symlink(".wh.l", "/srv/open/file"), hardlink(".wh.h", ".wh.l")],
    "whiteout-is-a-device": lambda: [entry(".wh.c", type="3", major=1, minor=3)],
    "whiteout-has-content": lambda: [entry(".wh.x", "content" * 1000)],
    "whiteout-of-etc": lambda: [entry(".wh.etc", ""), entry("etc/passwd", "evil:x:0:0::/:/bin/sh\n")],
    # Attributes.
    "xattr-overlay-opaque": lambda: [entry("d/", type="5", records={"SCHILY.xattr.trusted.overlay.opaque": "y"}),
                                     entry("e/", type="5", records={"SCHILY.xattr.user.overlay.opaque": "y"})],
    "xattr-overlay-redirect": lambda: [
        entry("d/", type="5", records={f"SCHILY.xattr.{kind}.overlay.redirect": "/../../../srv"})
        for kind in ("trusted", "user")],
    "xattr-overlay-metacopy": lambda: [
        xattr("f", f"{kind}.overlay.{key}", value) for kind in ("trusted", "user")
        for key, value in (("metacopy", ""), ("redirect", "/etc/passwd"), ("origin", b"\0\xfb\x1d" + b"\0" * 30))],
    "xattr-capability": lambda: [xattr("f", "security.capability", capability())],
    "xattr-acl-damaged": lambda: [xattr("f", "system.posix_acl_access", b"\xff" * 100)],
    "xattr-selinux-and-ima": lambda: [xattr("f", "security.selinux", "x"), xattr("g", "security.ima", b"\3" * 50)],
    "xattr-name-odd": lambda: [xattr("f", "", "x"), xattr("g", "../../x", "y"), xattr("h", "user." + "n" * 300, "z")],
    "xattr-of-1-mib": lambda: [xattr("f", "user.big", "v" * MIB)],
    "xattrs-10000": lambda: [entry("f", "x", records={f"SCHILY.xattr.user.n{n}": "v" for n in range(10000)})],
    "xattrs-on-5000-entries": lambda: [xattr(f"f{n}", "user.x", "v" * 1000) for n in range(5000)],
    "owner-beyond-bounds": lambda: [entry("f", "x", uid=1 << 40, gid=-1), entry("g", "x", records={"uid": "99999999999"}),
                                    entry("h", "x", uid=4294967295, gid=4294967295)],
    "mode-beyond-bounds": lambda: [entry("f", "x", mode=b"7777777\0"), entry("g", "x", mode=b"\xff" * 8)],
    "time-beyond-bounds": lambda: [entry("f", "x", mtime=1 << 62), entry("g", "x", mtime=-(1 << 62)),
                                   entry("h", "x", records={"mtime": "9" * 400}), entry("i", "x", records={"mtime": "nan"})],
    # Sizes.
    "size-negative": lambda: [entry("f", "x", size=-1)],
    "size-2-to-the-63": lambda: [entry("f", "x", size=1 << 63)],
    "size-max": lambda: [entry("f", "x", size=(1 << 88) - 1)],
    "size-of-100-tib-without-content": lambda: [entry("f", "x", size=100 * TIB)],
    "size-not-octal": lambda: [header("f", b"99999999999\0"), header("g", b"-0000000001\0")],
    "checksum-wrong": lambda: [header("f", 0, checksum=1)],
    "magic-unknown": lambda: [header("f", 0, magic=b"evil!\0zz")],
    "sparse-1-tib": lambda: [gnu_sparse("f", TIB, [(TIB - 1, 1)], b"x")],
    "sparse-1-tib-empty": lambda: [gnu_sparse("f", TIB, [(TIB, 0)])],
    "sparse-pax-1-tib": lambda: [pax_sparse("f", TIB, [(TIB - 1, 1)], b"x")],
    "sparse-100-files-of-10-gib": lambda: [gnu_sparse(f"f{n}", 10 * GIB, [(10 * GIB - 1, 1)], b"x") for n in range(100)],
    "sparse-map-overlaps": lambda: [gnu_sparse("f", 100, [(0, 50), (10, 50)], b"x" * 100)],
    "sparse-map-backwards": lambda: [gnu_sparse("f", 100, [(90, 5), (10, 5)], b"x" * 10)],
    "sparse-map-beyond-size": lambda: [gnu_sparse("f", 10, [(0, 100)], b"x" * 100)],
    "sparse-map-overflows": lambda: [gnu_sparse("f", (1 << 63) - 1, [((1 << 63) - 2, 1 << 62)], b"x")],
    "sparse-map-negative": lambda: [gnu_sparse("f", -1, [(-5, 5)], b"x" * 5)],
    "sparse-map-of-100000": lambda: [pax_sparse("f", MIB, [(n * 2, 1) for n in range(100000)], b"x" * 100000)],
    "sparse-map-says-a-billion": lambda: [
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f", "GNU.sparse.realsize": "1"})
        + header("f", 512) + padded(b"1000000000\n0\n1\n")],
    "sparse-name-dot-dot": lambda: [pax_sparse(f"{UPS}/srv/open/new", 1, [(0, 1)], b"x")],
    "sparse-is-a-directory": lambda: [pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "d",
                                           "GNU.sparse.realsize": str(TIB)}) + header("d/", 0, "5")],
    # Headers.
    "pax-length-lies": lambda: [pax(b"999999 path=x\n") + header("f"), pax(b"5 p=x\n") + header("g")],
    "pax-length-zero": lambda: [pax(b"0 path=x\n") + header("f")],
    "pax-length-huge": lambda: [pax(b"99999999999999999999 path=x\n") + header("f")],
    "pax-without-equals": lambda: [pax(b"12 pathxxxx\n") + header("f")],
    "pax-of-64-mib": lambda: [pax({"comment": "c" * (64 * MIB)}) + header("f")],
    "pax-100000-records": lambda: [pax(b"".join(pax_record(f"k{n}", "v") for n in range(100000))) + header("f")],
    "pax-global-path": lambda: [pax({"path": f"{UPS}/srv/open/new"}, type="g"), entry("f", "x")],
    "pax-global-1000-times": lambda: [pax({f"k{n}": "v" * 10000}, type="g") for n in range(1000)],
    "pax-path-dot-dot": lambda: [entry("f", "x", records={"path": f"{UPS}/srv/open/new"})],
    "pax-linkpath-dot-dot": lambda: [entry("f", type="1", link="x", records={"linkpath": f"{UPS}/srv/open/file"})],
    "pax-size-of-1-tib": lambda: [entry("f", "x", records={"size": str(TIB)})],
    "pax-size-negative": lambda: [entry("f", "x", records={"size": "-512"})],
    "pax-headers-without-end": lambda: [pax({"path": "x"}) for _ in range(20000)],
    # The stream.
    "empty-stream": lambda: None,
    "repeated-names": lambda: [entry("a", "1"), directory("a"), entry("a/b", "2"), entry("a", "3"), symlink("a", "/srv"),
                               entry("a", "4")] * 3,
}

RAW = {
    "truncated-header": lambda: entry("a", "x") + header("b")[:200],
    "truncated-content": lambda: header("a", 100000) + b"x" * 5000,
    "without-end": lambda: entry("a", "x"),
    "garbage": lambda: b"\xde\xad\xbe\xef" * 5000,
    "garbage-after-end": lambda: archive(entry("a", "x")) + b"\xff" * 5000,
    "zeros-after-end": lambda: archive(entry("a", "x")) + bytes(5 * MIB),
    "two-archives": lambda: archive(entry("a", "x")) + archive(symlink("a", "/srv/open"), entry("a/new", "x")),
    "one-zero-block-between": lambda: entry("a", "x") + bytes(512) + entry("b", "x") + bytes(1024),
}


def bomb(pack, total):
    """A tar with one file of `total` zeros, packed as the same member many times."""
    chunk = 64 * MIB
    return pack(header("bomb", total)) + pack(bytes(chunk)) * (total // chunk) + pack(bytes(1024))


def zstd_bomb():
    head = tarball.zstd_raw(header("bomb", 8 * GIB), 20)
    return head + tarball.zstd_zeros(2 * GIB) * 4 + tarball.zstd_raw(bytes(1024), 20)


PACKED = {
    "gzip-bomb": ("+gzip", lambda: bomb(lambda data: gzip.compress(data, 9, mtime=0), 2 * GIB)),
    "bzip2-bomb": (None, lambda: bomb(lambda data: bz2.compress(data, 1), 2 * GIB)),
    "xz-bomb": (None, lambda: bomb(lambda data: lzma.compress(data, preset=0), 2 * GIB)),
    "zstd-bomb": ("+zstd", zstd_bomb),
    "zstd-window-of-2-gib": ("+zstd", lambda: tarball.zstd_raw(archive(entry("a", "x")), 31)),
    "zstd-window-of-2-tib": ("+zstd", lambda: tarball.zstd_raw(archive(entry("a", "x")), 41)),
    "zstd-skippable-frames": ("+zstd", lambda: (b"\x50\x2a\x4d\x18" + (16).to_bytes(4, "little") + bytes(16)) * 100000),
    "zstd-skippable-of-4-gib": ("+zstd", lambda: b"\x50\x2a\x4d\x18\xff\xff\xff\xff"),
    "xz-dictionary-of-4-gib": (None, lambda: xz_with_dictionary(archive(entry("a", "x")))),
    "gzip-name-of-64-mib": ("+gzip", lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (64 * MIB)),
    "gzip-in-gzip": ("+gzip", lambda: gzip.compress(gzip.compress(archive(entry("a", "x"))))),
    "gzip-truncated": ("+gzip", lambda: gzip.compress(archive(entry("a", os.urandom(50000))))[:30000]),
    "gzip-wrong-checksum": ("+gzip", lambda: gzip.compress(archive(entry("a", "x")))[:-8] + bytes(8)),
    "gzip-garbage-after-end": ("+gzip", lambda: gzip.compress(archive(entry("a", "x"))) + b"\xff" * 100),
    "gzip-second-member": ("+gzip", lambda: gzip.compress(archive(entry("a", "x")))
                           + gzip.compress(archive(symlink("b", "/srv/open"), entry("b/new", "x")))),
    "gzip-empty-members": ("+gzip", lambda: gzip.compress(b"", mtime=0) * 300000),
    "100000-entries": ("+gzip", lambda: gzip.compress(archive(*(header(f"d/f{n}") for n in range(100000))), 1)),
    "tar-in-tar": (None, lambda: archive(entry("inner.tar", archive(entry(f"{UPS}/srv/open/new", "x"))))),
}


def xz_with_dictionary(data):
    packed = bytearray(lzma.compress(data, format=lzma.FORMAT_XZ, preset=0))
    # The block header: flags, filter 0x21 (LZMA2), one byte of properties, which names the dictionary.
    at = packed.index(b"\x21\x01", 12)
    packed[at + 2] = 40
    size = (packed[12] + 1) * 4
    import zlib
    packed[12 + size - 4:12 + size] = zlib.crc32(bytes(packed[12:12 + size - 4])).to_bytes(4, "little")
    return bytes(packed)


# Readers -----------------------------------------------------------------------------------

LOOK = "RUN ls -la / /a /srv /etc 2>&1 | head -60; cat /a /a/secret 2>/dev/null; echo x >/a/new 2>/dev/null; true\n"


def read_as_base(t, data, suffix):
    layer = oci.Layer(data, oci.LAYER + (suffix or ""), unpacked_digest(data, suffix))
    t.base(oci.Image([base_layer(), layer]))
    t.build(f"FROM base\n{LOOK}")


def read_by_add(t, data, suffix):
    t.context({"x.tar": data})
    t.build(f"FROM base\nADD x.tar /\n{LOOK}")


def read_by_load(t, data, suffix):
    layer = oci.Layer(data, oci.LAYER + (suffix or ""), unpacked_digest(data, suffix))
    image = oci.Image([base_layer(), layer])
    with open(f"{t.dir}/image.tar", "wb") as file:
        file.write(image.docker_archive())
    loaded = t.rbuild("load", "-i", f"{t.dir}/image.tar")
    if loaded.status == 0:
        t.build(f"FROM hostile:1\n{LOOK}", "--offline")


def read_as_context(t, data, suffix):
    if suffix is None or suffix:
        stream = data
    else:
        stream = archive(entry("Dockerfile", f"FROM base\nCOPY . /\n{LOOK}"))[:-1024] + data
    layout = ["--build-context", f"base=oci-layout://{t._base}"]
    t.rbuild("build", "--progress=plain", *layout, "-", stdin=stream)


def read_as_url_context(t, data, suffix):
    stream = archive(entry("Dockerfile", f"FROM base\nCOPY . /\n{LOOK}"))[:-1024] + data
    address = t.serve(lambda request: request.send(200, stream))
    layout = ["--build-context", f"base=oci-layout://{t._base}"]
    t.rbuild("build", "--progress=plain", *layout, f"http://{address}/x.tar")


_DIGESTS = {}


def unpacked_digest(data, suffix):
    """The digest of what a packed layer holds, where that is little enough to be unpacked here."""
    if not suffix:
        return oci.digest(data)
    if suffix == "+gzip" and len(data) < 3 * MIB:
        try:
            return oci.digest(gzip.decompress(data))
        except Exception:
            pass
    return "sha256:" + "0" * 64


READERS = {"base": read_as_base, "add": read_by_add, "load": read_by_load, "context": read_as_context}
# Those that only cost time when five readers are put through them.
SLOW = {"bzip2-bomb": 40, "gzip-bomb": 40, "xz-bomb": 40, "zstd-bomb": 40, "hardlinks-many": 40, "xattrs-on-5000-entries": 40, "100000-entries": 60, "pax-of-64-mib": 30}


def register(name, make, suffix, readers):
    for reader in readers:
        def _archive(t, make=make, reader=reader, suffix=suffix):
            READERS_ALL[reader](t, make(), suffix)

        seconds = SLOW.get(name, 20)
        facts = {"cve": CVES.get(name, ""), "seconds": seconds}
        if "bomb" in name or "sparse" in name:
            facts["disk"] = 700  # rbuild has to stop before the disk is full.
        if name in SLOW:
            facts["disk"] = 700
            facts["same_for_all_users"] = True
        row(f"{reader}-{name}", **facts)(_archive)


CVES = {"link-then-file-below": "CVE-2026-17106", "link-up-then-file-below": "CVE-2026-17106",
        "hardlink-absolute": "CVE-2026-17106", "hardlink-up": "CVE-2026-17106",
        "link-replaced-by-directory": "CVE-2026-17106", "whiteout-dot-dot": "GHSA-32pv",
        "name-dot-dot": "CVE-2026-28406"}
READERS_ALL = {**READERS, "url-context": read_as_url_context}

for name, make in ENTRIES.items():
    def whole(make=make):
        parts = make()
        return b"" if parts is None else archive(*parts, entry("last", "last"))
    readers = [reader for reader in READERS if not (name in SLOW and reader in ("load", "context"))]
    if name.startswith(("name-dot", "link-", "hardlink-a", "fifo")):
        readers.append("url-context")
    register(name, whole, "", readers)
for name, make in RAW.items():
    register(name, make, "", READERS)
for name, (suffix, make) in PACKED.items():
    # As a layer of an image, only what its media type can name.
    readers = ["add"] + (["base"] if suffix else []) + (["context"] if name.endswith("bomb") else [])
    register(name, make, suffix, readers)


@row("control-archives-are-read-whole")
def _(t):
    data = archive(directory("d"), entry("d/f", "content"), symlink("l", "d/f"), hardlink("h", "d/f"))
    t.context({"x.tar": data, "x.tgz": gzip.compress(data), "x.txz": lzma.compress(data), "x.tbz": bz2.compress(data),
               "x.tzst": tarball.zstd_raw(data, 20)})
    for name in ("x.tar", "x.tgz", "x.txz", "x.tbz", "x.tzst"):
        files = t.files(f"FROM scratch\nADD {name} /\n")
        if files is None or not {"d", "d/f", "l", "h"} <= files.keys():
            t.fail(f"{name} is not read whole: {files and sorted(files)}")
    read_as_base(t, data, "")
    read_by_load(t, data, "")
    if any(result.status for result in t.results):
        t.fail("an ordinary archive was refused")


@row("control-a-sparse-file-keeps-its-content")
def _(t):
    t.context({"x.tar": archive(gnu_sparse("f", 1 << 20, [(4096, 5)], b"12345"),
                                pax_sparse("g", 1 << 20, [(4096, 5)], b"12345"))})
    t.build("FROM base\nADD x.tar /\nRUN for f in f g; do wc -c <$f; tr -d '\\0' <$f; echo; done\n", expect="ok",
            says=r"(?s)1048576.*12345.*1048576.*12345")


# Disagreements between parsers ---------------------------------------------------------------

def smuggled(size=1024):
    """Content of a file that is itself a tar entry: whoever takes the wrong size sees it."""
    return entry("smuggled", "evil").ljust(size, b"\0")


def sized(header_size, pax_size, data=None, type="0"):
    data = smuggled() if data is None else data
    return pax({"size": str(pax_size)}) + header("f", header_size, type) + padded(data)


DISAGREEMENTS = {
    "pax-size-larger-than-header": lambda: [sized(0, 1024)],
    "pax-size-smaller-than-header": lambda: [sized(1024, 0)],
    "pax-size-on-directory": lambda: [pax({"size": "1024"}) + header("d/", 0, "5") + smuggled()],
    "pax-size-on-symlink": lambda: [pax({"size": "1024"}) + header("l", 0, "2", link="x") + smuggled()],
    "pax-size-on-hardlink": lambda: [entry("x", "y") + pax({"size": "1024"}) + header("l", 0, "1", link="x") + smuggled()],
    "header-size-on-directory": lambda: [header("d/", 1024, "5") + smuggled()],
    "header-size-on-symlink": lambda: [header("l", 1024, "2", link="x") + smuggled()],
    "header-size-on-hardlink": lambda: [entry("x", "y") + header("l", 1024, "1", link="x") + smuggled()],
    "header-size-on-fifo": lambda: [header("p", 1024, "6") + smuggled()],
    "header-size-on-device": lambda: [header("c", 1024, "3", major=1, minor=3) + smuggled()],
    "pax-before-gnu-name": lambda: [pax({"path": "from-pax"}) + gnu_long("from-gnu") + header("f")],
    "gnu-name-before-pax": lambda: [gnu_long("from-gnu") + pax({"path": "from-pax"}) + header("f")],
    "pax-size-before-gnu-name": lambda: [pax({"size": "1024"}) + gnu_long("g") + header("f", 0) + smuggled()],
    "gnu-name-then-pax-size": lambda: [gnu_long("g") + pax({"size": "1024"}) + header("f", 0) + smuggled()],
    "pax-twice": lambda: [pax({"path": "first"}) + pax({"path": "second"}) + header("f")],
    "pax-path-twice-in-one": lambda: [pax(pax_record("path", "first") + pax_record("path", "second")) + header("f")],
    "pax-size-twice-in-one": lambda: [pax(pax_record("size", "0") + pax_record("size", "1024")) + header("f") + smuggled()],
    "pax-path-empty": lambda: [pax({"path": ""}) + header("f")],
    "pax-size-empty": lambda: [pax({"size": ""}) + header("f", 1024) + smuggled()],
    "pax-size-with-plus": lambda: [sized(1024, "+0")],
    "pax-size-with-spaces": lambda: [sized(1024, " 0")],
    "pax-size-hexadecimal": lambda: [sized(1024, "0x0")],
    "pax-size-with-point": lambda: [sized(1024, "0.0")],
    "pax-global-then-local": lambda: [pax({"path": "global"}, type="g") + pax({"path": "local"}) + header("f")],
    "pax-global-size": lambda: [pax({"size": "1024"}, type="g") + header("f", 0) + smuggled()],
    "pax-of-pax": lambda: [pax({"size": "1024"}) + pax({"path": "inner"}) + header("f", 0) + smuggled()],
    "pax-size-of-next-pax": lambda: [pax({"size": "0"}) + pax({"path": "g"}) + header("f", 0)],
    "gnu-name-twice": lambda: [gnu_long("first") + gnu_long("second") + header("f")],
    "gnu-name-with-nul": lambda: [gnu_long(b"a\0b/../../c") + header("f")],
    "name-without-nul-of-100": lambda: [header("n" * 100)],
    "prefix-with-gnu-magic": lambda: [header("f", magic=b"ustar  \0", prefix=b"pre")],
    "prefix-with-ustar-magic": lambda: [header("f", prefix=b"pre")],
    "prefix-with-old-magic": lambda: [header("f", magic=bytes(8), prefix=b"pre")],
    "size-base-256": lambda: [header("f", b"\x80" + bytes(9) + b"\x04\0") + smuggled()],
    "size-octal-with-spaces": lambda: [header("f", b"      2000 \0") + smuggled()],
    "size-octal-with-leading-nul": lambda: [header("f", b"\x002000\0") + smuggled()],
    "size-octal-without-end": lambda: [header("f", b"000000002000") + smuggled()],
    "type-nul-with-slash": lambda: [header("d/", 0, b"\0")],
    "type-nul-with-size-and-slash": lambda: [header("d/", 1024, b"\0") + smuggled()],
    "type-contiguous": lambda: [header("f", 1024, "7") + smuggled()],
    "type-unknown": lambda: [header("f", 1024, "Z") + smuggled()],
    "sparse-old-gnu": lambda: [gnu_sparse("f", 4096, [(0, 512), (2048, 512)], smuggled())],
    "sparse-0.0-by-pax": lambda: [pax(pax_record("GNU.sparse.size", "4096") + pax_record("GNU.sparse.numblocks", "1")
                                      + pax_record("GNU.sparse.offset", "0") + pax_record("GNU.sparse.numbytes", "1024"))
                                  + header("f", 1024) + smuggled()],
    "sparse-0.1-by-pax": lambda: [pax({"GNU.sparse.size": "4096", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,1024",
                                       "GNU.sparse.name": "real"}) + header("f", 1024) + smuggled()],
    "sparse-1.0-by-pax": lambda: [pax_sparse("f", 4096, [(0, 1024)], smuggled())],
    "checksum-signed": lambda: [header("\u00e9")],
    "repeated-path": lambda: [entry("f", "first"), entry("f", "second")],
    "file-then-directory": lambda: [entry("f", "x"), directory("f"), entry("f/g", "y")],
    "zero-block-in-the-middle": lambda: [entry("a", "x"), bytes(512), entry("b", "y")],
    "two-zero-blocks-in-the-middle": lambda: [entry("a", "x"), bytes(1024), entry("b", "y")],
}


# Go's archive/tar, which docker uses, is not on the machine: what its `Reader.next` does where it differs from
# the others. A GNU long name wins over a PAX path, whichever comes first.
GO = {"pax-before-gnu-name": {"from-gnu", "last"}, "gnu-name-before-pax": {"from-gnu", "last"}}


def listing(command, data):
    done = subprocess.run(command, input=data, capture_output=True)
    names = {clean(line) for line in done.stdout.decode("utf-8", "replace").splitlines()}
    return frozenset(names - {""})


def clean(name):
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts)


def opinions(data):
    """What others make of an archive, as far as they are installed."""
    found = {"GNU tar": listing(["tar", "-tf", "-", "--quoting-style=literal"], data)}
    if shutil.which("bsdtar"):
        found["bsdtar"] = listing(["bsdtar", "-tf", "-"], data)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as read:
            found["Python"] = frozenset({clean(member.name) for member in read} - {""})
    except Exception:
        pass
    return found


for name, make in DISAGREEMENTS.items():
    def _agree(t, make=make, name=name):
        data = archive(*make(), entry("last", "last"))
        others = opinions(data)
        if name in GO:
            others["Go"] = frozenset(GO[name])
        t.context({"x.tar": data})
        files = t.files("FROM scratch\nADD x.tar /\n", expect="any")
        if files is None:
            return
        ours = frozenset(clean(path) for path in files) - {""}
        # Directories that only the path implies are no entries.
        wanted = {who: names | {"/".join(path.split("/")[:n]) for path in names for n in range(1, path.count("/") + 1)}
                  for who, names in others.items()}
        if ours not in [frozenset(names) for names in wanted.values()]:
            t.count("W", f"rbuild lists {sorted(ours)}, others {({who: sorted(names) for who, names in others.items()})}")

    row(f"parsers-agree-{name}", cve="CVE-2025-62518")(_agree)


# Documents of `load` -------------------------------------------------------------------------

def load_archive(t, *parts, then=True):
    with open(f"{t.dir}/image.tar", "wb") as file:
        file.write(archive(*parts))
    result = t.rbuild("load", "-i", f"{t.dir}/image.tar")
    t.rbuild("images")
    return result


CONFIG = lambda: oci.config([base_layer()])
MANIFEST = '[{"Config":"%s","RepoTags":["hostile:1"],"Layers":["%s"]}]'
DOCUMENTS = {
    "layer-path-up": lambda: [entry("c.json", CONFIG()), entry("manifest.json", MANIFEST % ("c.json", "../../../host/secret"))],
    "layer-path-absolute": lambda: [entry("c.json", CONFIG()), entry("manifest.json", MANIFEST % ("c.json", "/host/secret"))],
    "config-path-up": lambda: [entry("manifest.json", MANIFEST % ("../../../host/secret", "l"))],
    "config-path-absolute": lambda: [entry("manifest.json", MANIFEST % ("/root/.docker/config.json", "l"))],
    "layer-is-a-link": lambda: [entry("c.json", CONFIG()), symlink("l", "/host/secret"), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "layer-is-a-link-up": lambda: [entry("c.json", CONFIG()), symlink("l", f"{UPS}/host/secret"), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "layer-link-loop": lambda: [entry("c.json", CONFIG()), symlink("l", "l"), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "layer-is-a-fifo": lambda: [entry("c.json", CONFIG()), entry("l", type="6"), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "config-is-a-link": lambda: [symlink("c.json", "/host/secret"), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "manifest-is-a-link": lambda: [symlink("manifest.json", "/host/secret")],
    "manifest-twice": lambda: [entry("manifest.json", MANIFEST % ("a", "b")), entry("manifest.json", MANIFEST % ("c", "d"))],
    "manifest-of-200-mib": lambda: [entry("manifest.json", b"[" + b" " * (100 * MIB) + b"]")],
    "manifest-sparse-1-tib": lambda: [gnu_sparse("manifest.json", TIB, [(0, 1)], b"[")],
    "manifest-deep": lambda: [entry("manifest.json", b"[" * 1000000)],
    "manifest-not-json": lambda: [entry("manifest.json", b"\x00\x1b[31m\xff")],
    "manifest-empty": lambda: [entry("manifest.json", b"[]")],
    "manifest-nulls": lambda: [entry("manifest.json", b'[{"Config":null,"RepoTags":null,"Layers":null}]')],
    "10000-layers": lambda: [entry("c.json", CONFIG()), entry("manifest.json", '[{"Config":"c.json","RepoTags":["h:1"],"Layers":[%s]}]' % ",".join(['"l"'] * 10000))],
    "10000-images": lambda: [entry("c.json", CONFIG()), entry("manifest.json", "[%s]" % ",".join(['{"Config":"c.json","RepoTags":["h:1"],"Layers":["l"]}'] * 10000))],
    "tag-is-a-path": lambda: [entry("c.json", CONFIG()), entry("l", base_layer().data), entry("manifest.json", '[{"Config":"c.json","RepoTags":["../../../srv/open:x"],"Layers":["l"]}]')],
    "tag-with-escapes": lambda: [entry("c.json", CONFIG()), entry("l", base_layer().data), entry("manifest.json", '[{"Config":"c.json","RepoTags":["\\u001b]0;evil\\u0007:1"],"Layers":["l"]}]')],
    "config-lies-about-layers": lambda: [entry("c.json", oci.config([oci.Layer(b"other")])), entry("l", base_layer().data), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "config-without-rootfs": lambda: [entry("c.json", b"{}"), entry("l", base_layer().data), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "layers-file-empty": lambda: [entry("c.json", CONFIG()), entry("l", b""), entry("manifest.json", MANIFEST % ("c.json", "l"))],
    "oci-index-up": lambda: [entry("oci-layout", '{"imageLayoutVersion":"1.0.0"}'), entry("index.json", '{"schemaVersion":2,"manifests":[{"mediaType":"%s","size":3,"digest":"sha256:../../../../host/secret"}]}' % oci.MANIFEST)],
    "oci-index-loops": lambda: oci_loop(),
    "oci-blob-lies": lambda: [entry("oci-layout", '{"imageLayoutVersion":"1.0.0"}'), entry("index.json", '{"schemaVersion":2,"manifests":[{"mediaType":"%s","size":2,"digest":"sha256:%s"}]}' % (oci.MANIFEST, "0" * 64)), entry("blobs/sha256/" + "0" * 64, "{}")],
    "oci-size-absurd": lambda: [entry("oci-layout", '{"imageLayoutVersion":"1.0.0"}'), entry("index.json", '{"schemaVersion":2,"manifests":[{"mediaType":"%s","size":99999999999999999999,"digest":"sha256:%s"}]}' % (oci.MANIFEST, "0" * 64))],
}


def oci_loop():
    """Indexes in indexes, a thousand deep."""
    blob, parts = b'{"schemaVersion":2,"manifests":[]}', []
    for _ in range(1000):
        parts.append(entry("blobs/sha256/" + oci.digest(blob)[7:], blob))
        blob = ('{"schemaVersion":2,"manifests":[{"mediaType":"%s","size":%d,"digest":"%s"}]}'
                % (oci.INDEX, len(blob), oci.digest(blob))).encode()
    return [entry("oci-layout", '{"imageLayoutVersion":"1.0.0"}'), entry("index.json", blob)] + parts


for name, make in DOCUMENTS.items():
    def _document(t, make=make):
        load_archive(t, *make())

    row(f"load-{name}", cve="CVE-2025-62725" if "path" in name else "", disk=400)(_document)
