"""How much of a file is in the page cache, and a drop from it that is checked."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from molkv_runtime.page_cache import drop_from_page_cache

__all__ = ["drop", "resident_share"]

MOST_LEFT = 0.01


def drop(files: Iterable[Path]) -> None:
    """Leaves none of these files in memory; ends the program where they cannot be dropped."""
    for file in files:
        drop_from_page_cache([file])
        if (share := resident_share(file)) > MOST_LEFT:
            sys.exit(f"{file}: {share:.0%} stayed in the page cache (use a file system on a disk)")


def resident_share(file: Path) -> float:
    """How much of a file is in the page cache, 0 to 1."""
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        array = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(-(-len(array) // mmap.PAGESIZE), np.uint8)
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        address = ctypes.c_void_p(array.ctypes.data)
        failed = mincore(address, ctypes.c_size_t(len(array)), ctypes.c_void_p(pages.ctypes.data))
        if failed:
            sys.exit(f"{file}: mincore: {os.strerror(ctypes.get_errno())}")
        share = float((pages & 1).mean())
        del array
    return share
