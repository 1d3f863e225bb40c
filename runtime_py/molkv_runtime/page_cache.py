"""Files in the system's page cache."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["drop_from_page_cache"]


def drop_from_page_cache(files: Iterable[Path]) -> None:
    """Drop files from the page cache, so that the next read comes from storage; Linux only."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not on storage yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
