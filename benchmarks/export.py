"""How fast is an export, what memory does it need, do ranks help, and how long does opening take?

    python benchmarks/export.py --folder /path/with/room --json result.json

A checkpoint of random weights is made: a preset with a slice of its vocabulary, because no ratio
here depends on the number of slices of ids once there are several.

- compute: floating-point operations of the experts' matrix products for each second of the whole
  pass that computes, quantizes and writes expert rows, as a share of what torch's own product of
  two large square matrices reaches with as many threads, in turn with it.
- memory: the most resident memory of each pass of a whole export, less the checkpoint's bytes.
  Pages of the checkpoint that are mapped count.
- ranks: that same pass by one process and by two under torchrun, each with one thread for matrix
  products, in turn. "Cores" is processor time by the clock: with threads that quantize, pack and
  write beside it, one process uses more than one, which two ranks on two cores cannot double.
- open: opening an expert blob, header page and checks, for files of several sizes. They are sparse,
  and opening reads their first pages only, so what lies behind these does not matter.

Medians over the turns. Everything but "open" starts processes of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from molkv_export import ExportProgress, export
from molkv_export.blob_files import BlobFiles
from molkv_export.expert_blob import blob_headers, row_geometry
from molkv_export.expert_pass import ExpertPass
from molkv_model.checkpoint import Checkpoint, save
from molkv_model.config import ModelConfig, preset
from molkv_model.modeling import LanguageModel
from molkv_model.ranks import Ranks
from molkv_runtime.blob import Blob
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.native import NativeBlob

MIB = 1 << 20
GIB = 1 << 30
PEAK_SIZE = 2048
OPEN_GIB = (0.5, 1, 2, 4, 8)
OPENINGS = 200
QUESTIONS = ("open", "compute", "ranks", "memory")


def write_checkpoint(name: str, vocabulary: int, folder: Path) -> Path:
    """Random weights of a preset."""
    model = LanguageModel(dataclasses.replace(preset(name), vocab_size=vocabulary))
    model.reset_parameters(seed=0)
    save(model, folder)
    return folder


def operations(config: ModelConfig) -> float:
    """Floating-point operations of the matrix products behind all expert rows."""
    width, keys = config.hidden_size, 0
    if config.has_keys:
        keys = config.expert_query_heads * config.expert_key_size
    of_expert = 2.0 * config.expert_intermediate_size * (2 * width + keys)
    return of_expert * config.num_experts * config.num_hidden_layers * config.vocab_size


def matmul_rate() -> float:
    """Operations a second of torch's product of two square float32 matrices."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(PEAK_SIZE, PEAK_SIZE, generator=generator) for _ in range(2))
    best = min(seconds_of(lambda: left @ right) for _ in range(10))
    return 2.0 * PEAK_SIZE**3 / best


def seconds_of(action: Callable[[], object]) -> float:
    """By the clock."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# What runs in processes of its own: each prints one JSON object.


def rows_once(checkpoint_folder: Path, out: Path) -> None:
    """Write the expert rows; on all ranks, if there are several."""
    with Ranks() as ranks:
        before = matmul_rate() if ranks.count == 1 else 0.0
        checkpoint = Checkpoint(checkpoint_folder)
        rows = ExpertPass(checkpoint, "int8", bytes(32), ranks)
        if ranks.is_first:
            out.mkdir()
        ranks.wait()
        folder = out if ranks.is_first else None
        used = time.process_time()
        seconds = seconds_of(lambda: rows.write(folder, lambda _: None))
        cores = (time.process_time() - used) / seconds
        if not ranks.is_first:
            return
        peak = max(before, matmul_rate()) if ranks.count == 1 else 0.0
        rate = operations(checkpoint.config) / seconds
        print(json.dumps({"seconds": seconds, "rate": rate, "peak": peak, "cores": cores}))


def export_once(checkpoint: Path, out: Path) -> None:
    """A whole export."""
    peaks: dict[str, int] = {}

    def on_progress(progress: ExportProgress) -> None:
        if progress.cost is not None:
            peaks[progress.name] = progress.cost.peak_memory_bytes

    export(checkpoint, out, on_progress=on_progress)
    print(json.dumps(peaks))


def run(work: str, checkpoint: Path, folder: Path, threads: int, ranks: int = 1) -> dict[str, Any]:
    """Run one of the functions above; its result."""
    launch = []
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        result = subprocess.run(
            [sys.executable, *launch, __file__, "--work", work, checkpoint, f"{scratch}/out"],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# The questions.


def compute(checkpoint: Path, folder: Path, turns: int, threads: int) -> list[dict[str, Any]]:
    """Matrix products against torch's peak."""
    results = []
    for used in sorted({1, threads}):
        found = [run("rows", checkpoint, folder, used) for _ in range(turns)]
        shares = [turn["rate"] / turn["peak"] for turn in found]
        medians = {key: statistics.median(turn[key] for turn in found) for key in found[0]}
        results.append({"threads": used, **medians, "share": statistics.median(shares)})
        print(
            f"compute  {used} threads: {medians['rate'] / 1e9:7.1f} of {medians['peak'] / 1e9:7.1f}"
            f" GFLOP/s, {results[-1]['share']:.0%}",
            flush=True,
        )
    return results


def memory(checkpoint: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Peaks of a whole export."""
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    peaks = run("export", checkpoint, folder, threads)
    print(f"memory   checkpoint {size / MIB:,.0f} MiB")
    for name, peak in peaks.items():
        print(f"memory   {name:14} {peak / MIB:7,.0f} MiB, beyond it {(peak - size) / MIB:7,.0f}")
    return {"checkpoint_bytes": size, "peak_bytes": peaks}


def ranks(checkpoint: Path, folder: Path, turns: int) -> dict[str, Any]:
    """Two ranks against one."""
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(turns):
        for count, results in found.items():
            results.append(run("rows", checkpoint, folder, 1, count))
    medians = {
        count: {key: statistics.median(turn[key] for turn in turns) for key in ("seconds", "cores")}
        for count, turns in found.items()
    }
    one, two = medians[1], medians[2]
    ratio = one["seconds"] / two["seconds"]
    for count, each in medians.items():
        print(f"ranks    {count}: {each['seconds']:.2f} s, {each['cores']:.2f} cores in each")
    print(f"ranks    two are {ratio:.2f} times as fast as one", flush=True)
    return {"one": one, "two": two, "ratio": ratio}


def opening(config: ModelConfig, folder: Path) -> list[dict[str, Any]]:
    """Opening blobs of several sizes."""
    results = []
    stride = blob_headers(config, "int8", bytes(32))[0].row_stride
    for gibibytes in OPEN_GIB:
        header = BlobHeader.of(
            row_geometry(config, "int8"),
            vocabulary_size=int(gibibytes * GIB) // stride,
            identity=bytes(32),
        )
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (file,) = BlobFiles(Path(scratch), [header]).paths
            file.write_bytes(header.pack())
            os.truncate(file, header.file_size)
            medians = {
                "python_us": 1e6 * median_seconds(lambda: Blob.open(file).close()),  # noqa: B023
                "native_us": 1e6 * median_seconds(lambda: NativeBlob(file).close()),  # noqa: B023
            }
        results.append({"gibibytes": gibibytes, **medians})
        print(
            f"open     {gibibytes:4} GiB: Python {medians['python_us']:6.0f} us, "
            f"native {medians['native_us']:6.0f} us",
            flush=True,
        )
    return results


def median_seconds(action: Callable[[], object]) -> float:
    """After one turn that does not count."""
    action()
    return statistics.median(seconds_of(action) for _ in range(OPENINGS))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="160m", help="tiny, small or 160m")
    parser.add_argument("--vocabulary", type=int, default=8192, help="token ids of the slice")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=QUESTIONS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work, checkpoint, out = arguments.work
        {"rows": rows_once, "export": export_once}[work](Path(checkpoint), Path(out))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="export-") as name:
        folder = Path(name)
        checkpoint = write_checkpoint(arguments.preset, arguments.vocabulary, folder / "checkpoint")
        answers: dict[str, Callable[[], Any]] = {
            "open": lambda: opening(preset(arguments.preset), folder),
            "compute": lambda: compute(checkpoint, folder, arguments.turns, arguments.threads),
            "ranks": lambda: ranks(checkpoint, folder, arguments.turns),
            "memory": lambda: memory(checkpoint, folder, arguments.threads),
        }
        results = {question: answers[question]() for question in arguments.only}
    if arguments.json is not None:
        document = {
            "benchmark": "export",
            "on": {
                "machine": platform.machine(),
                "cores": len(os.sched_getaffinity(0)),
                "torch": torch.__version__,
            },
            "preset": arguments.preset,
            "vocabulary": arguments.vocabulary,
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
