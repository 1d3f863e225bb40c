"""How fast and how large is a model on ONNX Runtime and on ExecuTorch, at each precision?

    python benchmarks/backends.py --shapes tiny 160m --folder /path/with/room --keep --json out.json

Bundles of random weights are exported first. Then all candidates (a backend at a precision of the
dense weights) take turns, each turn in a process of its own, so that memory, load time and threads
are the candidate's. Figures are medians over the turns. Ratios are to ONNX fp32 of the same shape.

Prefill is a prompt in chunks as a session cuts it, decode single steps after a short prompt; both
are read from file and run once unmeasured before. Load is making a session from files that are in
the page cache, with the backend's libraries loaded already. Memory is the most that was ever
resident: "libraries" before the bundle was opened, "model" what came on top of that. In Python
ExecuTorch's libraries include torch, which phones do without. On a machine that has other work,
take the processor's clock of a single thread: --threads 1 --clock cpu.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

# Every child imports this file again: nothing here may load torch, which only some of them need.
from random_bundles import (
    BLOB_FILE,
    COSTS_FILE,
    in_child,
    resident,
    write_blob,
    write_bundle,
    write_checkpoint,
)
from rich.console import Console
from rich.progress import Progress

from molkv_runtime import Bundle, Session
from molkv_runtime.manifest import DensePrecision
from molkv_runtime.threads import available_cores

MB = 1e6
BASELINE: tuple[str, DensePrecision] = ("onnx", "fp32")
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Candidate:
    """One line of the table: a bundle with one graph."""

    shape: str
    backend: str
    dense: DensePrecision

    def __str__(self) -> str:
        return f"{self.shape}: {self.backend} {self.dense}"

    def folder(self, root: Path) -> Path:
        """Where its bundle is."""
        return root / self.shape / f"{self.backend}-{self.dense}"


@dataclass(frozen=True)
class Load:
    """What is run in every turn: the arguments of the same names."""

    prefill: int
    prompt: int
    steps: int
    repeats: int
    threads: int
    clock: str


def write_candidate(candidate: Candidate, root: Path) -> None:
    """Its bundle, beside the shape's checkpoint and blob."""
    shape = root / candidate.shape
    write_bundle(
        candidate.folder(root),
        shape / "checkpoint",
        shape / BLOB_FILE,
        candidate.backend,
        candidate.dense,
    )


def export_all(candidates: Sequence[Candidate], root: Path, progress: Progress) -> None:
    """Make what is not there yet; every lowering in a process of its own."""
    from molkv_model.config import preset

    jobs: list[tuple[str, Path, partial[None]]] = []
    for shape in dict.fromkeys(candidate.shape for candidate in candidates):
        folder = root / shape
        checkpoint, blob = folder / "checkpoint", folder / BLOB_FILE
        write = partial(in_child, write_checkpoint, preset(shape), checkpoint)
        jobs.append((f"{shape}: checkpoint", checkpoint / "config.json", write))
        jobs.append((f"{shape}: experts", blob, partial(in_child, write_blob, checkpoint, blob)))
    for candidate in candidates:
        write = partial(in_child, write_candidate, candidate, root)
        jobs.append((str(candidate), candidate.folder(root), write))
    task = progress.add_task("export", total=len(jobs))
    for name, made, write in jobs:
        progress.update(task, description=f"export {name}")
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            write()
        progress.advance(task)


def measure(candidate: Candidate, root: Path, load: Load) -> dict[str, Any]:
    """One turn, in a child: seconds of loading, of prefills and of steps, and bytes of memory."""
    bundle = Bundle.open(candidate.folder(root), verify_checksums=False)
    load_libraries(bundle, candidate.backend)
    libraries = resident("VmHWM")
    warm_page_cache(bundle)
    began = time.perf_counter()
    with Session(bundle, backend=candidate.backend, threads=load.threads) as session:
        load_seconds = time.perf_counter() - began
        generator = np.random.default_rng(0)
        ids = generator.integers(0, session.model.vocab_size, session.context).tolist()
        steps = min(load.steps, session.context - load.prompt)
        prompt, following = ids[: load.prompt], ids[load.prompt :][:steps]
        clock = CLOCKS[load.clock]
        prefills = [prefill(session, ids[: load.prefill], clock) for _ in range(load.repeats + 1)]
        decoded = [decode(session, prompt, following, clock) for _ in range(2)][1]
    return {
        "load_s": load_seconds,
        "prefill_tokens": len(ids[: load.prefill]),
        "prefill_s": prefills[1:],
        "step_s": decoded,
        "libraries_bytes": libraries,
        "peak_bytes": resident("VmHWM"),
        "anonymous_bytes": resident("RssAnon"),
        "load_average": os.getloadavg()[0],
    }


def load_libraries(bundle: Bundle, backend: str) -> None:
    """What a process loads once, whatever the bundle; ONNX Runtime came with the import."""
    if backend == "executorch":
        from molkv_runtime.executorch_runtime import load_executorch

        entry = bundle.manifest.backends[backend]
        load_executorch().require(list(entry.operators), entry.delegates)


def warm_page_cache(bundle: Bundle) -> None:
    """Read the graph's files; the rows that are needed become warm in the unmeasured runs."""
    bundle.verify_files([e.name for e in bundle.manifest.files if e.name != BLOB_FILE])


def prefill(session: Session, ids: list[int], clock: Clock) -> float:
    """Seconds of a prompt."""
    session.reset()
    began = clock()
    session.prefill(ids)
    return clock() - began


def decode(session: Session, prompt: list[int], ids: list[int], clock: Clock) -> list[float]:
    """Seconds of every step after a prompt."""
    session.reset()
    session.prefill(prompt)
    seconds = []
    for token_id in ids:
        began = clock()
        session.step(token_id)
        seconds.append(clock() - began)
    return seconds


def take_turns(
    candidates: Sequence[Candidate], root: Path, load: Load, turns: int, progress: Progress
) -> dict[Candidate, list[dict[str, Any]]]:
    """Samples of every candidate, in another order each turn."""
    samples: dict[Candidate, list[dict[str, Any]]] = {each: [] for each in candidates}
    generator = np.random.default_rng(0)
    task = progress.add_task("measure", total=turns * len(candidates))
    for turn in range(turns):
        for place in generator.permutation(len(candidates)):
            candidate = candidates[place]
            progress.update(task, description=f"turn {turn + 1}, {candidate}")
            samples[candidate].append(in_child(measure, candidate, root, load))
            progress.advance(task)
    return samples


def figures(candidate: Candidate, root: Path, turns: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the turns; within a turn, the median prefill and the median step."""

    def median(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(turn) for turn in turns)

    bundle = Bundle.open(candidate.folder(root), verify_checksums=False)
    files = [e for e in bundle.manifest.files if e.name != BLOB_FILE]
    costs = json.loads((bundle.path / COSTS_FILE).read_text(encoding="utf-8"))
    return {
        "file_bytes": sum(entry.bytes for entry in files),
        "load_s": median(lambda turn: turn["load_s"]),
        "prefill_tokens_per_s": median(
            lambda turn: turn["prefill_tokens"] / statistics.median(turn["prefill_s"])
        ),
        "decode_tokens_per_s": median(lambda turn: 1 / statistics.median(turn["step_s"])),
        "libraries_bytes": median(lambda turn: turn["libraries_bytes"]),
        "model_bytes": median(lambda turn: turn["peak_bytes"] - turn["libraries_bytes"]),
        "peak_bytes": median(lambda turn: turn["peak_bytes"]),
        "export_s": costs["seconds"],
        "export_peak_bytes": costs["peak_memory_bytes"],
    }


def print_table(results: dict[Candidate, dict[str, float]]) -> None:
    """One line for each candidate."""
    print(
        f"{'':22} {'':>7} {'':>6} {'prefill':>15} {'decode':>15}    resident memory, MB    export"
    )
    print(f"{'shape':5} {'backend':11}{'dense':5} {'file MB':>7} {'load s':>6}", end="")
    print(f"{'tokens/s':>10} {'ratio':>5}{'tokens/s':>10} {'ratio':>5}", end="")
    print("  libraries +model  peak      s peak MB")
    for candidate, found in results.items():
        base = results.get(Candidate(candidate.shape, *BASELINE))
        print(
            f"{candidate.shape:5} {candidate.backend:11}{candidate.dense:5} "
            f"{found['file_bytes'] / MB:7.1f} {found['load_s']:6.2f}",
            end="",
        )
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
            ratio = f"{found[name] / base[name]:5.2f}" if base else f"{'':5}"
            print(f"{found[name]:10.0f} {ratio}", end="")
        print(
            f"{found['libraries_bytes'] / MB:11.0f} {found['model_bytes'] / MB:6.0f} "
            f"{found['peak_bytes'] / MB:5.0f} {found['export_s']:6.0f} "
            f"{found['export_peak_bytes'] / MB:7.0f}"
        )


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for name in ("onnxruntime", "executorch", "torchao", "torch"):
        with suppress(PackageNotFoundError):  # of a backend that is not measured
            versions[name] = version(name)
    return {"machine": platform.machine(), "cores": available_cores(), **versions}


def choose_candidates(arguments: argparse.Namespace) -> list[Candidate]:
    """What was asked for and exists; says what does not."""
    from molkv_export.backends.catalogue import BACKENDS

    there = [
        (backend, dense)
        for backend in arguments.backends
        for dense in arguments.precisions
        if dense in BACKENDS[backend].precisions
    ]
    for backend in arguments.backends:
        if missing := [each for each in arguments.precisions if (backend, each) not in there]:
            print(f"left out: {backend} {', '.join(missing)}, which `molkv export` does not have")
    return [Candidate(shape, *pair) for shape in arguments.shapes for pair in there]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["tiny"], help="tiny, small, 160m")
    parser.add_argument("--backends", nargs="+", default=["onnx", "executorch"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8", "int4"])
    parser.add_argument("--folder", type=Path, help="where bundles are made; a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep them there, and reuse them")
    parser.add_argument("--prepare", action="store_true", help="make them, and measure nothing")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=512, help="tokens; at most the context")
    parser.add_argument("--prompt", type=int, default=64, help="tokens before the first step")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="prefills of a turn")
    parser.add_argument("--threads", type=int, default=available_cores(), help="by default all")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="of prefill and decode")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu counts threads that wait for each other; use --threads 1")
    if arguments.keep and arguments.folder is None:
        parser.error("--keep needs --folder")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    load = Load(**{field.name: getattr(arguments, field.name) for field in fields(Load)})
    on = machine()
    print(", ".join(f"{name} {value}" for name, value in {**on, **asdict(load)}.items()))
    candidates = choose_candidates(arguments)
    with (
        nullcontext(arguments.folder)
        if arguments.keep
        else TemporaryDirectory(dir=arguments.folder, prefix="backends-")
    ) as folder:
        root = Path(folder)
        with Progress(console=Console(stderr=True)) as progress:
            export_all(candidates, root, progress)
            if arguments.prepare:
                return
            samples = take_turns(candidates, root, load, arguments.turns, progress)
        results = {each: figures(each, root, turns) for each, turns in samples.items()}
    print_table(results)
    if arguments.json is not None:
        lines = [
            {**asdict(each), **found, "turns": samples[each]} for each, found in results.items()
        ]
        document = {"benchmark": "backends", "on": on, "load": asdict(load), "results": lines}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
