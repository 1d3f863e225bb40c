"""Reads rows with the native library: python read_rows.py LIBRARY BLOB READERS ID...

A process of its own, so that strace can count what it reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.native.c_interface import Library, NativeBlob


def main() -> None:
    library, blob, readers, *ids = sys.argv[1:]
    with NativeBlob(Library(Path(library)), Path(blob), readers=int(readers)) as native:
        native.read(int(token_id) for token_id in ids)


if __name__ == "__main__":
    main()
