"""Copies of libraries for Android that load on this system's C library.

An AAR's libraries are made for Android's C library, bionic: its functions have versions that glibc
does not know, and some mean something else there. A copy differs in its dynamic section alone: it
asks for no versions, and what `bionic.c` defines with a capital letter it asks for by that name.
The code is the package's own, to the byte.
"""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import Final

BIONIC: Final = Path(__file__).with_name("bionic.c")
# The libraries of Android that ours stands in for.
NAMES: Final = ("libc.so", "libm.so", "libdl.so", "liblog.so", "libandroid.so")
_DYNAMIC: Final = 2
_STRING_TABLE: Final = 5
_STRING_TABLE_SIZE: Final = 10
# DT_VERSYM, DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM
_VERSIONS: Final = frozenset((0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF))


def build_bionic(folder: Path, compiler: str = "gcc") -> None:
    """Writes what the copies are linked with into a folder, under all names."""
    library = folder / NAMES[0]
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", str(BIONIC)]
    subprocess.run([*command, "-o", str(library), "-Wl,--no-as-needed", "-lm"], check=True)
    for name in NAMES[1:]:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(library.name)


def copy_for_glibc(source: Path, target: Path) -> None:
    """Writes the copy of a 64-bit little-endian library."""
    content = bytearray(source.read_bytes())
    assert content[:6] == b"\x7fELF\x02\x01", f"{source}: is no 64-bit little-endian ELF file"
    segments = _segments(content)
    offset, size = next((place, size) for kind, place, _, size in segments if kind == _DYNAMIC)
    entries = list(struct.iter_unpack("<QQ", content[offset : offset + size]))
    kept = [entry for entry in entries if entry[0] not in _VERSIONS]
    packed = b"".join(struct.pack("<QQ", *entry) for entry in kept)
    content[offset : offset + size] = packed.ljust(size, b"\0")

    table = dict(entries)
    address, length = table[_STRING_TABLE], table[_STRING_TABLE_SIZE]
    place = next(
        file + address - memory
        for kind, file, memory, size in segments
        if kind == 1 and memory <= address < memory + size
    )
    strings = bytes(content[place : place + length])
    for name in renamed():
        # A string of its own: none that ends in it, such as "ftello" in "myftello", is changed.
        strings = strings.replace(b"\0" + name + b"\0", b"\0" + name.capitalize() + b"\0")
    content[place : place + length] = strings
    target.write_bytes(content)


def renamed() -> list[bytes]:
    """The functions that `bionic.c` defines with a capital letter."""
    names = re.findall(r"^[a-z][\w* ]* \*?([A-Z]\w+)\(", BIONIC.read_text(), re.MULTILINE)
    return [name.lower().encode() for name in names]


def _segments(content: bytearray) -> list[tuple[int, int, int, int]]:
    """Kind, offset in the file, address, and size in the file."""
    (table,) = struct.unpack_from("<Q", content, 32)
    entry_size, count = struct.unpack_from("<HH", content, 54)
    segments = []
    for index in range(count):
        fields = struct.unpack_from("<IIQQQQ", content, table + index * entry_size)
        segments.append((fields[0], fields[2], fields[3], fields[5]))
    return segments
