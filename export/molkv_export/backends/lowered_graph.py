"""What every backend gives back: the files it wrote, and what the manifest says about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from molkv_runtime.manifest import BackendEntry

__all__ = ["LoweredGraph"]


@dataclass(frozen=True)
class LoweredGraph:
    """A dense graph on disk.

    Attributes:
        files: what was written.
        entry: the backend's part of the manifest.
    """

    files: list[Path]
    entry: BackendEntry
