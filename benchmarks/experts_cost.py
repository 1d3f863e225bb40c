"""What do experts on storage cost a decode step, beside the same backbone without experts?

    python benchmarks/experts_cost.py --folder /path/with/room --keep --json out.json

Random weights of one shape, with and without experts. The sessions of a precision live in one
process and take turns of a few steps, so that all see the same machine; the order changes with each
turn. Where a process finds its memory makes one session faster than another for as long as both
live, so several processes measure, one after another. A turn begins with a new sequence and its
prefill, which are not measured. Warm: a turn repeats ids whose rows are in the page cache. Cold:
the blob is dropped from the page cache before each turn's steps, and ids are new; because the warm
session has the same file, its rows are read back behind it. Embedding: as warm, but the rows carry
the input embedding, too, and the graph has no table of it. Figures are medians over the processes
of the median step; so are ratios, of the backbone's step without experts to that with them.

The floor of a ratio is that of the bytes that a step has to read: no engine that is bound by memory
comes above it, unless a cache keeps the window between two steps and lets go of the weights.

"eager" is torch, with the whole table in memory and the op's definition, which it runs faster than
the op. It takes as many turns of as many steps as a process of the others, in one of its own:
torch's threads go on spinning behind a step, beside whoever is next.

Memory is each session's own: the most that was resident in a process that runs nothing else. What
embeddings in the rows save is told by what is resident at the end, because the peak is that of
loading, when the engine has some weights twice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import numpy as np
from cached_files import drop
from random_bundles import (
    BLOB_FILE,
    Precision,
    checkpoint_path,
    in_child,
    make_bundle,
    make_model,
    resident,
)
from rich.console import Console
from rich.progress import Progress
from step_bytes import step_bytes

from molkv_runtime import Bundle, Session
from molkv_runtime.blob import Blob
from molkv_runtime.manifest import EmbeddingPrecision
from molkv_runtime.threads import available_cores

MB = 1e6
BASELINE = "no experts"
EMBEDDED = "embedding"
STORED = ("warm", "cold", EMBEDDED)
KINDS = (BASELINE, *STORED)
DISTINCT = (BASELINE, "warm", EMBEDDED)
"""Kinds that have bundles of their own."""
PLANES = ("keys", "key_scales", "values", "value_scales")

PRECISIONS = [
    Precision("fp32", "fp32"),
    Precision("int8", "fp32"),
    Precision("int4", "fp32"),
    Precision("int4", "int8"),
]


class Contents(TypedDict):
    """What a bundle holds: arguments of `make_bundle`."""

    experts: bool
    embedding: EmbeddingPrecision | None


@dataclass(frozen=True)
class Load:
    """What is run: the arguments of the same names."""

    contexts: tuple[int, ...]
    steps: int
    turns: int
    threads: int
    processes: int


def make_bundles(shape: str, root: Path, progress: Progress) -> None:
    """Checkpoints, one blob and all bundles, as far as they are not there."""
    from molkv_model.config import preset

    task = progress.add_task("export", total=1 + len(DISTINCT) * len(PRECISIONS))
    make_model(preset(shape), root)
    progress.advance(task)
    for precision in PRECISIONS:
        for kind in DISTINCT:
            make_bundle(root, precision, **contents(kind))
            progress.advance(task)


def require_room(shape: str, load: Load) -> None:
    """End the program before anything is made if a context has no room for its steps."""
    from molkv_model.config import preset

    room = preset(shape).max_position_embeddings
    if max(load.contexts) + load.steps > room:
        sys.exit(f"{shape} has a context of {room} tokens: shorten --contexts or --steps")


def contents(kind: str) -> Contents:
    """What the bundle of a kind of session holds."""
    return {"experts": kind != BASELINE, "embedding": "f16" if kind == EMBEDDED else None}


def measure_steps(
    precision: Precision, root: Path, load: Load, context: int, process: int
) -> dict[str, Any]:
    """In a child: medians of what every kind of session needs for a step, taking turns."""
    with ExitStack() as stack:
        sessions = {}
        for kind in KINDS:
            folder = precision.bundle(root, **contents(kind))
            bundle = Bundle.open(folder, verify_checksums=False)
            sessions[kind] = stack.enter_context(Session(bundle, threads=load.threads))
        blob = stack.enter_context(Blob.open(sessions["cold"].bundle.expert_files))
        generator = np.random.default_rng([context, process])
        seconds, lookups = take_turns(sessions, blob, load, context, generator)
    return {
        "step_s": {kind: statistics.median(found) for kind, found in seconds.items()},
        "lookup_s": {kind: statistics.median(lookups[kind]) for kind in STORED},
        "load_average": os.getloadavg()[0],
    }


def take_turns(
    sessions: Mapping[str, Session],
    blob: Blob,
    load: Load,
    context: int,
    generator: np.random.Generator,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of every step, and of its lookup, of every kind of session.

    Args:
        sessions: by kind.
        blob: what the cold session and the warm one read.
        load: steps of a turn, and turns.
        context: tokens before the first step of a turn.
        generator: of ids, and of the order in a turn.
    """
    vocabulary = sessions[BASELINE].model.vocab_size
    prompt = generator.integers(0, vocabulary, context).tolist()
    known = generator.integers(0, vocabulary, load.steps).tolist()
    seconds: dict[str, list[float]] = {kind: [] for kind in sessions}
    lookups: dict[str, list[float]] = {kind: [] for kind in sessions}
    for session in sessions.values():
        session.prefill(prompt)
        time_steps(session, known)
    for _ in range(load.turns):
        for place in generator.permutation(len(sessions)):
            kind = list(sessions)[place]
            session, ids = sessions[kind], known
            session.reset()
            session.prefill(prompt)
            if kind == "cold":
                ids = generator.integers(0, vocabulary, load.steps).tolist()
                drop(session.bundle.expert_files)
            for step, lookup in time_steps(session, ids):
                seconds[kind].append(step)
                lookups[kind].append(lookup)
            if kind == "cold":
                blob.read(known)
    return seconds, lookups


def time_steps(session: Session, ids: list[int]) -> list[tuple[float, float]]:
    """Seconds of each step, and how much of them was its lookup."""
    found = []
    for token in ids:
        before = session.stats.lookup_seconds
        began = time.perf_counter()
        session.step(token)
        seconds = time.perf_counter() - began
        found.append((seconds, session.stats.lookup_seconds - before))
    return found


def measure_eager(root: Path, load: Load, context: int) -> float:
    """In a child: median seconds of a step of torch, with all rows in memory."""
    import torch

    from molkv_export.dense_graph import DenseGraph, ExpertPlanes
    from molkv_export.expert_attention import reference_expert_attention
    from molkv_model.checkpoint import Checkpoint

    torch.set_num_threads(load.threads)
    graph = DenseGraph.from_checkpoint(
        Checkpoint(checkpoint_path(root, experts=True)), reference_expert_attention
    )
    window = graph.config.expert_window
    with Blob.open(root / BLOB_FILE) as blob:
        layout = blob.layout
        table = np.fromfile(root / BLOB_FILE, np.uint8, offset=blob.header.data_offset)
    layers = layout.sections(table.reshape(-1, layout.row_stride))
    # Of a whole sequence, so that a step adds its token's rows and moves none.
    kept = [
        {
            name: torch.from_numpy(np.empty((context + load.steps, *plane.shape[1:]), plane.dtype))
            for name in PLANES
            if (plane := getattr(layer, name)) is not None
        }
        for layer in layers
    ]
    start = torch.zeros(1, dtype=torch.int64)

    def run(ids: Any, position: int) -> None:
        end = position + len(ids)
        rows = []
        for layer, planes in zip(layers, kept, strict=True):
            for name, plane in planes.items():
                plane[position:end] = torch.from_numpy(getattr(layer, name)[ids])
            first = max(0, position - window + 1)
            held = {name: plane[first:end] for name, plane in planes.items()}
            rows.append(ExpertPlanes(*(held.get(name) for name in PLANES)))  # type: ignore[arg-type]
        hidden = graph.hidden_states(torch.from_numpy(ids[None]), position, rows, start)
        graph.head(hidden[:, -1:])

    generator = np.random.default_rng(context)
    prompt = generator.integers(0, graph.config.vocab_size, context)
    seconds = []
    with torch.no_grad():
        for turn in range(load.turns + 1):
            run(prompt, 0)
            ids = generator.integers(0, graph.config.vocab_size, load.steps)
            for place in range(load.steps):
                began = time.perf_counter()
                run(ids[place : place + 1], context + place)
                if turn:  # the first is not measured
                    seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measure_memory(bundle_folder: Path, threads: int) -> dict[str, int]:
    """In a child: the most that was ever resident, what is, and bytes of the expert window."""
    bundle = Bundle.open(bundle_folder, verify_checksums=False)
    with Session(bundle, threads=threads) as session:
        ids = np.random.default_rng(0).integers(0, session.model.vocab_size, 512).tolist()
        session.prefill(ids[:256])
        for token in ids[256:]:
            session.step(token)
        return {
            "peak_bytes": resident("VmHWM"),
            "resident_bytes": resident("VmRSS"),
            "window_bytes": session.window_bytes,
        }


def measure(root: Path, load: Load, eager: bool, progress: Progress) -> list[dict[str, Any]]:
    """One record for each precision and context."""
    results = []
    of_precision = len(load.contexts) * load.processes + 1
    task = progress.add_task("measure", total=len(PRECISIONS) * of_precision)
    eager_seconds = {
        context: in_child(measure_eager, root, load, context) if eager else None
        for context in load.contexts
    }
    for precision in PRECISIONS:
        memory = {
            kind: in_child(measure_memory, precision.bundle(root, **contents(kind)), load.threads)
            for kind in DISTINCT
        }
        progress.advance(task)
        for context in load.contexts:
            progress.update(task, description=f"{precision}, context {context}")
            found = []
            for process in range(load.processes):
                found.append(in_child(measure_steps, precision, root, load, context, process))
                progress.advance(task)
            results.append(
                {
                    "dense": precision.dense,
                    "cache": precision.cache,
                    "context": context,
                    **summary(found),
                    "floor": floor(precision, root, context),
                    "processes": found,
                    "eager_s": eager_seconds[context],
                    "memory": memory,
                }
            )
    return results


def summary(processes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over the processes: of steps, of lookups, and of ratios, whose range is kept."""
    steps = [found["step_s"] for found in processes]
    ratios = {kind: [step[BASELINE] / step[kind] for step in steps] for kind in STORED}
    return {
        "step_s": {kind: statistics.median(step[kind] for step in steps) for kind in KINDS},
        "lookup_s": {
            kind: statistics.median(found["lookup_s"][kind] for found in processes)
            for kind in STORED
        },
        "ratio": {kind: statistics.median(found) for kind, found in ratios.items()},
        "ratio_range": {kind: [min(found), max(found)] for kind, found in ratios.items()},
    }


def floor(precision: Precision, root: Path, context: int) -> float:
    """Bytes that a step without experts reads, over those of one with them."""
    without, with_experts = (
        step_bytes(precision.bundle(root, experts=experts), context) for experts in (False, True)
    )
    return without / with_experts


def print_tables(results: list[dict[str, Any]]) -> None:
    """Speed by precision and context, then memory by precision."""
    print(
        f"{'dense':6}{'cache':6}{'context':>8}{'floor':>7}{'none':>10}{'warm':>10}{'ratio':>7}",
        end="",
    )
    print(f"{'cold':>10}{'ratio':>7}{'embed':>10}{'ratio':>7}", end="")
    print(f"{'lookup µs':>11}{'of step':>9}{'embed µs':>10}{'eager':>8}{'x':>6}")
    for found in results:
        step, ratio = found["step_s"], found["ratio"]
        print(f"{found['dense']:6}{found['cache']:6}{found['context']:8}", end="")
        print(f"{found['floor']:7.3f}", end="")
        print(f"{1 / step[BASELINE]:10.1f}{1 / step['warm']:10.1f}{ratio['warm']:7.3f}", end="")
        for kind in ("cold", EMBEDDED):
            print(f"{1 / step[kind]:10.1f}{ratio[kind]:7.3f}", end="")
        lookup, embedded = (found["lookup_s"][kind] for kind in ("warm", EMBEDDED))
        print(f"{1e6 * lookup:11.1f}{100 * lookup / step['warm']:8.1f}%", end="")
        print(f"{1e6 * embedded:10.1f}", end="")
        eager = found["eager_s"]
        print("" if eager is None else f"{1 / eager:8.1f}{eager / step['warm']:6.1f}")
    print()
    print(f"{'dense':6}{'cache':6}{'none MB':>10}{'warm MB':>10}{'window MB':>11}", end="")
    print(f"{'more MB':>9}{'embed MB':>10}{'saves MB':>10}")
    for found in results:
        if found["context"] == results[0]["context"]:
            none, warm, embedded = (found["memory"][kind] for kind in DISTINCT)
            saved = warm["resident_bytes"] - embedded["resident_bytes"]
            more = warm["peak_bytes"] - none["peak_bytes"] - warm["window_bytes"]
            print(f"{found['dense']:6}{found['cache']:6}{none['peak_bytes'] / MB:10.1f}", end="")
            print(f"{warm['peak_bytes'] / MB:10.1f}{warm['window_bytes'] / MB:11.1f}", end="")
            print(f"{more / MB:9.1f}{embedded['peak_bytes'] / MB:10.1f}{saved / MB:10.1f}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="160m", help="tiny, small or 160m")
    parser.add_argument("--folder", type=Path, help="where bundles are made; a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep them there, and reuse them")
    parser.add_argument("--prepare", action="store_true", help="make them, and measure nothing")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--steps", type=int, default=16, help="of a turn")
    parser.add_argument("--turns", type=int, default=2, help="of a process")
    parser.add_argument("--processes", type=int, default=5, help="that measure one after another")
    parser.add_argument("--threads", type=int, default=available_cores(), help="by default all")
    parser.add_argument("--no-eager", action="store_true", help="leave torch out")
    arguments = parser.parse_args()
    if arguments.keep and arguments.folder is None:
        parser.error("--keep needs --folder")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    load = Load(
        tuple(arguments.contexts),
        *(getattr(arguments, name) for name in ("steps", "turns", "threads", "processes")),
    )
    require_room(arguments.shape, load)
    with (
        nullcontext(arguments.folder)
        if arguments.keep
        else TemporaryDirectory(dir=arguments.folder, prefix="experts-cost-")
    ) as folder:
        root = Path(folder) / arguments.shape
        root.mkdir(parents=True, exist_ok=True)
        with Progress(console=Console(stderr=True)) as progress:
            make_bundles(arguments.shape, root, progress)
            if arguments.prepare:
                return
            results = measure(root, load, not arguments.no_eager, progress)
        blob_bytes = (root / BLOB_FILE).stat().st_size
    print(f"{arguments.shape}, blob of {blob_bytes / 1e9:.2f} GB, {load.threads} threads; tokens/s")
    print_tables(results)
    if arguments.json is not None:
        on = {"machine": platform.machine(), "cores": available_cores()}
        document = {
            "benchmark": "experts_cost",
            "shape": arguments.shape,
            "blob_bytes": blob_bytes,
            "on": on,
            "threads": load.threads,
            "processes": load.processes,
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
