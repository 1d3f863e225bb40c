"""How fast are rows read by token id, against page faults and against the device's own limit?

    python benchmarks/row_reads.py --folder /path/on/the/storage --json result.json

Rows in random order, once with the file dropped from the page cache and once with it there, by 1 to
32 readers. Everybody reads as many bytes of the same file: molkv (with and without comparing each
row's CRC32C, and with direct I/O), a memory map that threads copy rows from, and fio, which is what
the device and the file system can do at that block size and depth (buffered and direct). Figures
are medians. Candidates take turns, in another order each time and with other rows each time: a
virtual disk has caches that nobody here can drop, and they would favour who reads a row last.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cached_files import drop
from numpy.typing import NDArray

from molkv_export.blob_writer import BlobWriter
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.native import BlobOptions, NativeBlob
from molkv_runtime.row_geometry import RowGeometry
from molkv_runtime.row_layout import DataType, LayerRows, RowLayout

KIB, MIB = 1 << 10, 1 << 20
DATA_OFFSET = 16 * KIB
LAYERS = 8
Candidate = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class Question:
    """One line of the table.

    Attributes:
        row_bytes: the row stride.
        readers: reads in flight at once.
        cold: whether the file is dropped from the page cache before each turn.
        rows: rows read in a turn, all distinct, in random order.
    """

    row_bytes: int
    readers: int
    cold: bool
    rows: int


def write_blob(file: Path, row_bytes: int, rows: int) -> None:
    """A blob of random rows that fill their stride."""
    value_size = row_bytes // LAYERS - 8  # the rest: scales, the CRC32C and a few bytes of padding
    geometry = RowGeometry(
        layers=LAYERS,
        experts=1,
        key_heads=0,
        key_size=0,
        value_size=value_size,
        key_dtype=DataType.NONE,
        value_dtype=DataType.INT8,
        scale_dtype=DataType.FLOAT32,
        key_group_size=0,
        value_group_size=value_size,
    )
    layout = RowLayout.of(geometry)
    header = BlobHeader.of(geometry, vocabulary_size=rows, identity=bytes(32))
    generator = np.random.default_rng(0)
    batch = max(1, 16 * MIB // row_bytes)
    with BlobWriter(file, header) as writer:
        for first in range(0, rows, batch):
            count = min(batch, rows - first)
            values = generator.integers(-127, 128, (count, 1, value_size), dtype=np.int8)
            scales = np.ones((count, 1), np.float32)
            writer.write_rows(layout.pack([LayerRows(None, values, None, scales)] * LAYERS))


def molkv(blob: NativeBlob, out: NDArray[np.uint8]) -> Candidate:
    """Seconds of one read of all rows."""

    def turn(ids: NDArray[np.int64]) -> float:
        began = time.perf_counter()
        blob.read(ids, out)
        return time.perf_counter() - began

    return turn


def memory_map(file: Path, question: Question, out: NDArray[np.uint8], advice: int) -> Candidate:
    """Seconds of copying as many rows out of a map, each of `readers` threads its share."""

    def turn(ids: NDArray[np.int64]) -> float:
        with file.open("rb") as content, mmap.mmap(content.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
            mapped.madvise(advice)
            return copy_rows(mapped, question, ids, out)

    return turn


def copy_rows(
    mapped: mmap.mmap, question: Question, ids: NDArray[np.int64], out: NDArray[np.uint8]
) -> float:
    """Seconds of copying rows out of a mapped file; no view of it is left behind."""
    rows = np.frombuffer(mapped, np.uint8, offset=DATA_OFFSET).reshape(-1, question.row_bytes)

    def copy(share: NDArray[np.int64]) -> None:
        # `take` lets other threads run while it copies.
        np.take(rows, ids[share], axis=0, out=out[share[0] : share[-1] + 1], mode="clip")

    shares = np.array_split(np.arange(len(ids)), question.readers)
    with ThreadPoolExecutor(question.readers) as pool:
        list(pool.map(lambda _: time.sleep(0.001), shares))  # starts all threads
        began = time.perf_counter()
        list(pool.map(copy, shares))
        return time.perf_counter() - began


def fio(file: Path, question: Question, *, direct: bool) -> Candidate:
    """Seconds that fio needs for as many random blocks of the same file.

    Each of its jobs has a part of the file to itself: over the same part, jobs draw their blocks
    independently of each other, and find in the page cache what another one has just read.
    """
    blocks = (file.stat().st_size - DATA_OFFSET) // question.row_bytes
    part = blocks // question.readers * question.row_bytes

    def turn(_: NDArray[np.int64]) -> float:
        command = [
            "fio",
            "--name=rows",
            f"--filename={file}",
            "--rw=randread",
            "--readonly",
            f"--bs={question.row_bytes}",
            "--ioengine=psync",
            "--thread",
            f"--numjobs={question.readers}",
            f"--offset={DATA_OFFSET}",
            f"--size={part}",
            f"--offset_increment={part}",
            f"--io_size={question.rows // question.readers * question.row_bytes}",
            f"--direct={int(direct)}",
            "--invalidate=0",
            "--randrepeat=0",
            "--group_reporting",
            "--output-format=json",
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        read = json.loads(result.stdout)["jobs"][0]["read"]
        return float(question.rows * question.row_bytes / read["bw_bytes"])

    return turn


def measure(
    question: Question, file: Path, candidates: dict[str, Candidate], turns: int
) -> dict[str, float]:
    """Median seconds of a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    total = (file.stat().st_size - DATA_OFFSET) // question.row_bytes
    generator = np.random.default_rng(question.readers)
    for _ in range(turns):
        for name in generator.permutation(list(candidates)).tolist():
            ids = generator.choice(total, question.rows, replace=False)
            if question.cold:
                drop([file])
            seconds[name].append(candidates[name](ids))
    return {name: statistics.median(values) for name, values in seconds.items()}


def benchmark(question: Question, file: Path, turns: int) -> dict[str, float]:
    """Medians of all candidates for one question."""
    out = np.ones((question.rows, question.row_bytes), np.uint8)  # memory that is really there
    with ExitStack() as stack:

        def opened(**options: Any) -> NativeBlob:
            return stack.enter_context(
                NativeBlob(file, BlobOptions(readers=question.readers, **options))
            )

        candidates = {
            "fio": fio(file, question, direct=False),
            "molkv": molkv(opened(), out),
            "molkv, no CRC": molkv(opened(verify_rows=False), out),
            "mmap": memory_map(file, question, out, mmap.MADV_NORMAL),
            "mmap, random": memory_map(file, question, out, mmap.MADV_RANDOM),
        }
        if question.cold:
            candidates["fio, direct"] = fio(file, question, direct=True)
            candidates["molkv, direct"] = molkv(opened(direct_io=True), out)
        if not question.cold:
            subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)
        return measure(question, file, candidates, turns)


def print_line(question: Question, medians: dict[str, float]) -> None:
    """Figures of one question, one line for each candidate."""
    for name, seconds in medians.items():
        limit = medians["fio, direct" if name.endswith("direct") else "fio"]
        print(
            f"{question.row_bytes // KIB:5} {'cold' if question.cold else 'warm'} "
            f"{question.readers:7} {name:14} {question.rows / seconds:10,.0f} "
            f"{1e6 * seconds / question.rows:9.1f} "
            f"{question.rows * question.row_bytes / seconds / MIB:8,.0f} {limit / seconds:6.2f} "
            f"{medians['mmap'] / seconds:7.2f}",
            flush=True,
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write the blobs; a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512, help="of each blob")
    parser.add_argument("--row-kib", type=int, nargs="+", default=[4, 16, 64, 512])
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 4, 16, 32])
    arguments = parser.parse_args()
    if shutil.which("fio") is None:
        sys.exit("fio is not installed (apt-get install fio)")
    results = []
    print("  KiB page readers reader             rows/s    us/row    MiB/s  x fio  x mmap")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="row-reads-") as folder:
        for row_bytes in [KIB * size for size in arguments.row_kib]:
            file = Path(folder) / "experts.molkv"
            write_blob(file, row_bytes, arguments.megabytes * MIB // row_bytes)
            for readers in arguments.readers:
                for cold in (True, False):
                    rows = min(4096, arguments.megabytes * MIB // row_bytes // 2)
                    question = Question(row_bytes, readers, cold, rows - rows % readers)
                    medians = benchmark(question, file, arguments.turns)
                    print_line(question, medians)
                    results.append({**asdict(question), "seconds": medians})
    if arguments.json is not None:
        machine = {
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "cores": len(os.sched_getaffinity(0)),
        }
        document = {"benchmark": "row_reads", "on": machine, "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
