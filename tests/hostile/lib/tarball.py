"""Writes tar entries byte by byte, so that an entry can say what no writer would."""

import struct

BLOCK = 512


def octal(value, width):
    """A number as tar has it: octal digits, or base-256 where it is too large or negative."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")[:width]
    if value < 0 or value >= 8 ** (width - 1):
        mask = (1 << (8 * width)) - 1
        raw = (value & mask).to_bytes(width, "big")
        return bytes([raw[0] | 0x80]) + raw[1:]
    return b"%0*o\0" % (width - 1, value)


def header(name, size=0, type="0", mode=0o644, uid=0, gid=0, mtime=0, link="", magic=b"ustar\x0000",
           major=0, minor=0, prefix=b"", checksum=None, user="", group=""):
    fields = [
        _bytes(name)[:100].ljust(100, b"\0"), octal(mode, 8), octal(uid, 8), octal(gid, 8),
        octal(size, 12), octal(mtime, 12), b" " * 8, _bytes(type)[:1] or b"\0",
        _bytes(link)[:100].ljust(100, b"\0"), magic.ljust(8, b"\0"),
        _bytes(user)[:32].ljust(32, b"\0"), _bytes(group)[:32].ljust(32, b"\0"),
        octal(major, 8), octal(minor, 8), _bytes(prefix)[:155].ljust(155, b"\0"), b"\0" * 12,
    ]
    block = b"".join(fields)
    total = sum(block) if checksum is None else checksum
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data):
    return data + b"\0" * (-len(data) % BLOCK)


def pax_record(key, value):
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records, type="x", name="PaxHeader"):
    data = records if isinstance(records, bytes) else b"".join(
        pax_record(key, value) for key, value in records.items())
    return header(name, len(data), type) + padded(data)


def gnu_long(name, type="L"):
    data = _bytes(name) + b"\0"
    return header("././@LongLink", len(data), type, magic=b"ustar  \0") + padded(data)


def entry(name, data=b"", type="0", records=None, size=None, **fields):
    """One entry. Names and targets that do not fit get a PAX record unless `records` has one."""
    data, name = _bytes(data), _bytes(name)
    records = dict(records or {})
    if len(name) > 100:
        records.setdefault("path", name)
    link = _bytes(fields.get("link", ""))
    if len(link) > 100:
        records.setdefault("linkpath", link)
    out = pax(records) if records else b""
    return out + header(name, len(data) if size is None else size, type, **fields) + padded(data)


def directory(name, mode=0o755, **fields):
    return entry(name.rstrip("/") + "/", type="5", mode=mode, **fields)


def symlink(name, target, **fields):
    return entry(name, type="2", mode=0o777, link=target, **fields)


def hardlink(name, target, **fields):
    return entry(name, type="1", link=target, **fields)


def archive(*parts):
    return b"".join(parts) + b"\0" * (2 * BLOCK)


def gnu_sparse(name, real_size, segments, data=b""):
    """An old GNU sparse entry (type `S`): `segments` are (offset, length), four at most."""
    block = bytearray(header(name, len(data), "S", magic=b"ustar  \0"))
    for index, (offset, length) in enumerate(segments[:4]):
        block[386 + 24 * index:410 + 24 * index] = octal(offset, 12) + octal(length, 12)
    block[483:495] = octal(real_size, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(data)


def pax_sparse(name, real_size, segments, data=b""):
    """A sparse entry of PAX format 1.0."""
    numbers = [len(segments)] + [number for segment in segments for number in segment]
    body = padded(b"".join(b"%d\n" % number for number in numbers)) + data
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name,
               "GNU.sparse.realsize": str(real_size)}
    return pax(records) + header(f"GNUSparseFile.0/{name}", len(body)) + padded(body)


def _bytes(text):
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def zstd_raw(data, window_log=None, content_size=None):
    """A zstd frame of raw blocks that asks for a window of 2^window_log bytes."""
    descriptor = 0x80 if content_size is not None else 0
    out = struct.pack("<I", 0xFD2FB528)
    if content_size is not None:
        # Field of four bytes, no single segment.
        out += bytes([descriptor]) + bytes([(window_log - 10) << 3]) + struct.pack("<I", content_size)
    else:
        out += bytes([0]) + bytes([(window_log - 10) << 3])
    pieces = [data[start:start + 65536] for start in range(0, len(data), 65536)] or [b""]
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        out += struct.pack("<I", (len(piece) << 3) | last)[:3] + piece
    return out


def zstd_zeros(total, window_log=20):
    """A zstd frame of RLE blocks: `total` zero bytes in about four bytes per 128 KiB."""
    out = bytearray(struct.pack("<I", 0xFD2FB528) + bytes([0, (window_log - 10) << 3]))
    left = total
    while left > 0:
        size = min(left, 128 << 10)
        left -= size
        out += struct.pack("<I", (size << 3) | (1 << 1) | (left == 0))[:3] + b"\0"
    return bytes(out)
