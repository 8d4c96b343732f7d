"""A program that is nothing but a header that names its interpreter."""

import struct


def with_interpreter(path):
    """An ELF program for x86-64 whose dynamic loader is `path`."""
    interpreter = path.encode() + b"\0"
    # exit(7), should anybody run it without a loader.
    code = b"\xb8\x3c\x00\x00\x00\xbf\x07\x00\x00\x00\x0f\x05"
    offset = 64 + 3 * 56
    base = 0x400000
    at = offset + len(interpreter)
    size = at + len(code)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, at, 64, 0, 0, 64, 56, 3,
                         0, 0, 0)
    program = lambda kind, flags, start, length: struct.pack(
        "<IIQQQQQQ", kind, flags, start, start, start, length, length, 0x1000 if kind == 1 else 1)
    return (header + program(6, 4, 64, 3 * 56) + program(3, 4, offset, len(interpreter))
            + program(1, 5, 0, size) + interpreter + code)
