"""Does a step's lookup depend on how large the blob is?

    python benchmarks/blob_size.py --folder /path/on/the/storage --json result.json

Of a decode step, only the lookup touches the blob: one row is read, its CRC32C compared, and it is
put into the expert window. That is timed on blobs of one model's rows and several vocabularies. The
files are sparse: only the rows that are read are there, at random places over the whole length.
Warm: rows that were read just before. Cold: the file is dropped from the page cache, and the rows
are others in every turn. Blobs take turns, in another order each time; figures are medians of all
steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cached_files import drop
from numpy.typing import NDArray

from molkv_export.blob_files import BlobFiles
from molkv_export.expert_blob import row_geometry
from molkv_model.config import ModelConfig, preset
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.native import NativeBlob, NativeWindow
from molkv_runtime.row_layout import LayerRows, RowLayout
from molkv_runtime.threads import available_cores

GB = 1e9
KINDS = ("warm", "cold")


@dataclass(frozen=True)
class Candidate:
    """A blob with the ids whose rows it has.

    Attributes:
        gigabytes: its length.
        file: where it is.
        ids: int64 [turns + 1, steps], all distinct; the first are the warm ones.
    """

    gigabytes: float
    file: Path
    ids: NDArray[np.int64]


def make_candidate(
    config: ModelConfig, gigabytes: float, folder: Path, shape: tuple[int, int]
) -> Candidate:
    """Write a blob's header and the rows that will be read."""
    geometry = row_geometry(config, "int8")
    layout = RowLayout.of(geometry)
    rows = int(gigabytes * GB) // layout.row_stride
    header = BlobHeader.of(geometry, vocabulary_size=rows, identity=bytes(32))
    generator = np.random.default_rng(rows)
    ids = generator.choice(rows, shape, replace=False)
    part = folder / f"{gigabytes:g}"
    part.mkdir()
    (file,) = BlobFiles(part, [header]).paths
    with file.open("wb") as content:
        content.write(header.pack())
        content.truncate(header.file_size)
        for token_id, row in zip(ids.flat, random_rows(layout, generator, ids.size), strict=True):
            content.seek(header.data_offset + int(token_id) * layout.row_stride)
            content.write(row)
        content.flush()
        os.fsync(content.fileno())
    return Candidate(gigabytes, file, ids)


def random_rows(layout: RowLayout, generator: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Rows with their checksums, uint8 [count, stride]."""

    def plane(name: str) -> NDArray[Any] | None:
        section = sections.get(name)
        if section is None:
            return None
        shape = (count, *section.shape)
        if np.issubdtype(section.dtype, np.integer):
            return generator.integers(-127, 128, shape, dtype=np.int8).astype(section.dtype)
        return np.ones(shape, section.dtype)

    sections = {section.name: section for section in layout.layer_sections}
    names = ("keys", "values", "key_scales", "value_scales")
    layers = [LayerRows(*map(plane, names)) for _ in range(layout.geometry.layers)]  # type: ignore[arg-type]
    return layout.pack(layers)


class Lookup:
    """What a session does for one token before the graph runs."""

    def __init__(self, blob: NativeBlob, window: int) -> None:
        self._blob = blob
        self._window = NativeWindow(blob.geometry, window, 1)

    def seconds(self, token_ids: list[int]) -> list[float]:
        """Of each token."""
        found = []
        for token_id in token_ids:
            began = time.perf_counter()
            self._window.append(self._blob.read_row(token_id), self._blob.row_stride)
            found.append(time.perf_counter() - began)
        return found


def measure(candidates: list[Candidate], window: int) -> dict[float, dict[str, float]]:
    """Median seconds of a lookup, by gigabytes and by what is in the page cache."""
    seconds: dict[float, dict[str, list[float]]] = {
        each.gigabytes: {kind: [] for kind in KINDS} for each in candidates
    }
    generator = np.random.default_rng(0)
    with ExitStack() as stack:
        lookups = {
            each.gigabytes: Lookup(stack.enter_context(NativeBlob(each.file)), window)
            for each in candidates
        }
        for turn in range(1, len(candidates[0].ids)):
            for place in generator.permutation(len(candidates)):
                candidate = candidates[place]
                lookup, found = lookups[candidate.gigabytes], seconds[candidate.gigabytes]
                drop([candidate.file])
                found["cold"] += lookup.seconds(candidate.ids[turn].tolist())
                known = candidate.ids[0].tolist()
                lookup.seconds(known)
                found["warm"] += lookup.seconds(known)
    return {
        size: {kind: statistics.median(every) for kind, every in found.items()}
        for size, found in seconds.items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="160m", help="whose rows: tiny, small or 160m")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=128, help="of a turn")
    parser.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    config = preset(arguments.preset)
    shape = (arguments.turns + 1, arguments.steps)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="blob-size-") as folder:
        candidates = [
            make_candidate(config, gigabytes, Path(folder), shape)
            for gigabytes in arguments.gigabytes
        ]
        medians = measure(candidates, config.expert_window)
    results = []
    print(f"{'GB':>5} {'warm us':>8} {'cold us':>8}")
    for gigabytes, found in medians.items():
        print(f"{gigabytes:5g} {1e6 * found['warm']:8.1f} {1e6 * found['cold']:8.1f}")
        results.append({"gigabytes": gigabytes, "lookup_s": found})
    if arguments.json is not None:
        document = {
            "benchmark": "blob_size",
            "on": {"machine": platform.machine(), "cores": available_cores()},
            "preset": arguments.preset,
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
