"""What of an export's rows is done, so that an interrupted export can be continued.

.journal/export.json      what determines the rows: another export's rows cannot be continued
.journal/rows-00000       a line for each slice that is on the storage: first token id, end
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from molkv_export.blob_files import BlobFiles
from molkv_export.errors import ExportError
from molkv_runtime.blob_header import BlobHeader

__all__ = ["Continuation", "Journal", "arithmetic", "facts_of_rows", "keep_only"]

_FOLDER = ".journal"
_FACTS = "export.json"


def arithmetic(device: torch.device) -> str:
    """What the last bits of a matrix product depend on beside its operands."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {device.type} {kind}"


def facts_of_rows(
    headers: Sequence[BlobHeader], slices: Sequence[range], device: torch.device
) -> dict[str, str]:
    """What two exports must have in common so that one can continue the other's rows."""
    pages = hashlib.sha256(b"".join(header.pack() for header in headers))
    return {
        "molkv": version("molkv"),
        "arithmetic": arithmetic(device),
        "checkpoint": headers[0].identity.hex(),
        "experts": headers[0].geometry.value_dtype.name.lower(),
        "embedding": headers[0].geometry.embedding_dtype.name.lower(),
        "shards": str(len(headers)),
        "token ids of a slice": str(len(slices[0])),
        "headers": pages.hexdigest(),
    }


class Journal:
    """The slices that are done, in the folder where the rows are.

    Each process has a file of its own in it, since appending is safe for one writer only. A line
    is written when its rows are on the storage, so a power cut cannot leave it without them.

    Args:
        folder: the one that becomes the bundle.
        rank: number of this process.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder / _FOLDER
        self._own = self.folder / f"rows-{rank:05d}"

    def begin(self, facts: Mapping[str, str]) -> None:
        """Start a journal; the files that rows go to are there.

        Raises:
            OSError: it cannot be written.
        """
        partial = self.folder.with_name(f"{_FOLDER}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write_durably(partial / _FACTS, json.dumps(dict(facts), indent=2) + "\n")
        _flush_folder(partial)
        partial.rename(self.folder)
        _flush_folder(self.folder.parent)

    def facts(self) -> dict[str, str] | None:
        """What the journal is about; None if there is none."""
        try:
            facts = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None

    def done(self) -> set[tuple[int, int]]:
        """First token id and end of every slice that any process has done."""
        found = set()
        for file in sorted(self.folder.glob("rows-*")):
            # A line that a crash cut off has no end, and another one may follow it.
            for line in file.read_bytes().split(b"\n")[:-1]:
                first, _, end = line.partition(b" ")
                if first.isdigit() and end.isdigit():
                    found.add((int(first), int(end)))
        return found

    def compact(self) -> None:
        """Bring the lines of all processes into this one's file, without broken ones."""
        lines = "".join(f"{first} {end}\n" for first, end in sorted(self.done()))
        partial = self.folder / "partial"
        _write_durably(partial, lines)
        partial.replace(self._own)
        for file in self.folder.glob("rows-*"):
            if file != self._own:
                file.unlink()
        _flush_folder(self.folder)

    def record(self, ids: range) -> None:
        """Note that a slice is on the storage.

        Raises:
            OSError: it cannot be written.
        """
        with self._own.open("ab") as file:
            file.write(b"%d %d\n" % (ids.start, ids.stop))
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Remove the journal from a folder that is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Continuation:
    """Decides what becomes of the folder that an interrupted export left.

    Attributes:
        facts: of this export.
        headers: of its blob's files.
        force: whether the rows of another export may be discarded.
    """

    facts: Mapping[str, str]
    headers: Sequence[BlobHeader]
    force: bool

    def can_continue(self, folder: Path) -> bool:
        """Whether this export can go on in a folder; if not, it may be removed.

        Raises:
            ExportError: it holds finished rows of another export.
        """
        journal = Journal(folder)
        facts = journal.facts()
        if facts == self.facts:
            return BlobFiles(folder, self.headers).are_there()
        if facts is None or self.force or not journal.done():
            return False
        name = next(name for name in self.facts if facts.get(name) != self.facts[name])
        raise ExportError(
            f"{folder}: holds the rows of an interrupted export whose {name} is "
            f"{facts.get(name)}, and this one's is {self.facts[name]}",
            fix="repeat that export's command to finish it, or pass --force to discard its rows",
        )

    def is_worth_keeping(self, folder: Path) -> bool:
        """Whether the folder holds rows that another process could continue from."""
        return bool(Journal(folder).done())


def keep_only(folder: Path, rows: Sequence[Path]) -> None:
    """Remove from an unfinished bundle all but the rows and their journal."""
    kept = {*rows, folder / _FOLDER}
    for path in folder.iterdir():
        if path in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_durably(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())


def _flush_folder(folder: Path) -> None:
    # A file system that cannot sync folders is no reason to fail.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
