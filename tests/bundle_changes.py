"""Makes a changed bundle consistent again, as if it had been exported so."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["accept_changes"]


def accept_changes(folder: Path, name: str) -> None:
    """Makes the manifest agree with a changed file's size and checksum."""
    content = (folder / name).read_bytes()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (entry,) = (entry for entry in manifest["files"] if entry["name"] == name)
    entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))
