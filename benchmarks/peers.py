"""How fast is molkv beside llama.cpp and onnxruntime-genai, which run the same backbone?

    pip install --constraint constraints.txt '.[bench]'
    python benchmarks/peers.py --shape 160m --folder /path/with/room --keep --json result.json

Random weights of one shape. The peers run its dense backbone, without experts; molkv runs it too,
and the model with experts read from storage. Every engine has the variants that may be its fastest:
its cache in full precision and in 8 bits, and, where the block size can be chosen, molkv's.

Before anything is timed, each variant's logits on a short prompt, and on a few single steps behind
it, are compared with torch's, which has the rows of experts as they are stored: root mean square of
the difference over that of torch's logits. A variant over the limit of its bits ends the run. In 32
bits, where no dense weight is rounded, the limit is far below what any other model or order of
weights gives.

All take turns, in another order each time, each turn in a process of its own: load, prefill, decode
at each context. Load is from files in the page cache, imports before it. Steps include the greedy
choice. Memory is the most that was ever resident, Python included. Figures are medians over the
turns. The best peer is the fastest variant of both, anew for each figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

# Every child imports this file again: nothing here may load torch, which only some of them need.
from numpy.typing import NDArray
from peer_candidates import DENSE, LLAMA, MOLKV, Candidate, candidates_of, exact_candidates
from peer_engines import Engine, llama_build
from peer_models import GGUF_BLOCK
from random_bundles import (
    BLOB_FILE,
    checkpoint_path,
    in_child,
    make_model,
    resident,
)
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from molkv_runtime.threads import available_cores

MB = 1e6
PEER_MODULES = ("llama_cpp", "gguf", "onnxruntime_genai", "transformers")
PACKAGES = ("onnxruntime", "llama-cpp-python", "gguf", "onnxruntime-genai", "torch", "numpy")
LIMITS = {32: 1e-4, 8: 0.1, 4: 0.6}
"""By bits of a weight, the most that logits may differ from torch's, relative to their size.

Random weights of 160m: up to 0.052 with 8 bits, 0.37 with 4; logits of another model would be at
about 1.4."""
PROMPT, STEPS_CHECKED = 24, 8
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Load:
    """What is run in every turn: the arguments of the same names."""

    contexts: tuple[int, ...]
    prefill: int
    steps: int
    repeats: int
    threads: int


# What runs in processes of its own.


def block_of(shape: str, bits: int) -> int:
    """Weights that share a scale in molkv's bundles."""
    from molkv_export.backends.onnx.quantization import BlockScheme
    from molkv_model.config import preset

    return BlockScheme.of(preset(shape), DENSE[bits]).block


def prompt_of(vocabulary_size: int) -> list[int]:
    """Ids of the comparison with torch: a prompt, then single steps."""
    generator = np.random.default_rng(1)
    return generator.integers(3, vocabulary_size, PROMPT + STEPS_CHECKED).tolist()


def torch_logits(root: Path, experts: bool) -> Logits:
    """After the prompt and after every step, float32 [1 + steps, V], with the rows as stored."""
    from molkv_export.reference import ReferenceSession
    from molkv_model.checkpoint import Checkpoint
    from molkv_runtime.blob import Blob

    checkpoint = Checkpoint(checkpoint_path(root, experts=experts))
    with Blob.open(root / BLOB_FILE) if experts else nullcontext() as blob:
        logits = ReferenceSession(checkpoint, blob).run(prompt_of(checkpoint.config.vocab_size))
    last: Logits = logits[PROMPT - 1 :]
    return last


def engine_logits(candidate: Candidate, root: Path, threads: int, vocabulary_size: int) -> Logits:
    """The same of a candidate, from its own prefill and steps."""
    engine = candidate.open(root, threads)
    ids = prompt_of(vocabulary_size)
    engine.reset()
    parts = [ids[:PROMPT], *([token_id] for token_id in ids[PROMPT:])]
    return np.stack([engine.append(part).copy() for part in parts])


def measure(candidate: Candidate, root: Path, load: Load, vocabulary_size: int) -> dict[str, Any]:
    """One turn: seconds of loading, of prefills and of steps, and bytes of memory."""
    for module in {MOLKV: ("molkv_runtime",), LLAMA: ("llama_cpp",)}.get(
        candidate.engine, ("onnxruntime_genai",)
    ):
        __import__(module)
    for file in candidate.files(root):
        with file.open("rb") as content:
            while content.read(1 << 24):
                pass
    libraries = resident("VmHWM")
    began = time.perf_counter()
    engine = candidate.open(root, load.threads)
    load_seconds = time.perf_counter() - began
    generator = np.random.default_rng(0)
    ids = generator.integers(3, vocabulary_size, load.prefill).tolist()
    prefills = [prefill(engine, ids) for _ in range(load.repeats + 1)]
    steps = {}
    for context in load.contexts:
        prompt = generator.integers(3, vocabulary_size, context).tolist()
        following = generator.integers(3, vocabulary_size, load.steps).tolist()
        steps[context] = decode(engine, prompt, following)
    return {
        "load_s": load_seconds,
        "prefill_s": prefills[1:],
        "step_s": steps,
        "libraries_bytes": libraries,
        "peak_rss_bytes": resident("VmHWM"),
        "load_average": os.getloadavg()[0],
    }


def prefill(engine: Engine, prompt: Sequence[int]) -> float:
    """Seconds of a prompt and the choice behind it; of no engine those of an empty sequence."""
    engine.reset()
    return seconds_of(lambda: engine.start(prompt))


def decode(engine: Engine, prompt: Sequence[int], token_ids: Sequence[int]) -> list[float]:
    """Seconds of every step behind a prompt; the first run, which brings rows into memory, not."""
    seconds: list[float] = []
    for _ in range(2):
        prefill(engine, prompt)
        seconds = [seconds_of(lambda: engine.step(each)) for each in token_ids]  # noqa: B023
    return seconds


def seconds_of(action: Callable[[], object]) -> float:
    """By the clock."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# Their results.


def compare_with_torch(
    candidates: Sequence[Candidate], root: Path, threads: int, progress: Progress
) -> dict[Candidate, float]:
    """Each one's logits against torch's; ends the program where they are another model's."""
    task = progress.add_task("compare with torch", total=len(candidates))
    references = {experts: in_child(torch_logits, root, experts) for experts in (False, True)}
    errors = {}
    for candidate in candidates:
        expected = references[candidate.experts]
        found = in_child(engine_logits, candidate, root, threads, expected.shape[1])
        errors[candidate] = relative_error(found, expected)
        if not errors[candidate] <= LIMITS[candidate.bits]:
            raise SystemExit(
                f"{candidate}: its logits differ from torch's by {errors[candidate]:.2g} of their "
                f"size, the limit of {candidate.bits} bits is {LIMITS[candidate.bits]:g}: it does "
                "not run this model, so its speed would say nothing"
            )
        progress.advance(task)
    return errors


def relative_error(found: Logits, expected: Logits) -> float:
    """Root mean square of the difference, relative to that of what was expected."""
    difference = np.square(np.float64(found) - expected).mean()
    return float(np.sqrt(difference / np.square(np.float64(expected)).mean()))


def take_turns(
    candidates: Sequence[Candidate],
    root: Path,
    load: Load,
    turns: int,
    vocabulary_size: int,
    progress: Progress,
) -> dict[Candidate, list[dict[str, Any]]]:
    """Samples of every candidate, in another order each turn."""
    samples: dict[Candidate, list[dict[str, Any]]] = {each: [] for each in candidates}
    generator = np.random.default_rng(0)
    task = progress.add_task("measure", total=turns * len(candidates))
    for turn in range(turns):
        for place in generator.permutation(len(candidates)):
            candidate = candidates[place]
            progress.update(task, description=f"turn {turn + 1}, {candidate}")
            samples[candidate].append(in_child(measure, candidate, root, load, vocabulary_size))
            progress.advance(task)
    return samples


def figures(turns: list[dict[str, Any]], load: Load) -> dict[str, float]:
    """Medians over the turns; within a turn, the median prefill and the median step."""

    def median(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(turn) for turn in turns)

    def rate(context: int) -> float:
        return median(lambda turn: 1 / statistics.median(turn["step_s"][context]))

    return {
        "load_s": median(lambda turn: turn["load_s"]),
        "prefill_tokens_per_s": median(
            lambda turn: load.prefill / statistics.median(turn["prefill_s"])
        ),
        **{f"decode_{context}_tokens_per_s": rate(context) for context in load.contexts},
        "libraries_bytes": median(lambda turn: turn["libraries_bytes"]),
        "peak_rss_bytes": median(lambda turn: turn["peak_rss_bytes"]),
    }


def compare_with_peers(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every speed of molkv's variants over that of the fastest peer at the same bits."""
    ratios = []
    for ours in (result for result in results if result["engine"] == MOLKV):
        peers = [
            peer for peer in results if peer["engine"] != MOLKV and peer["bits"] == ours["bits"]
        ]
        for figure in (name for name in ours if name.endswith("_tokens_per_s")):
            best = max(peers, key=lambda peer: float(peer[figure]))
            ratios.append(
                {
                    **{name: ours[name] for name in ("bits", "cache", "experts")},
                    "figure": figure.removesuffix("_tokens_per_s"),
                    "tokens_per_s": ours[figure],
                    "best_peer": best["engine"],
                    "best_peer_variant": best["variant"],
                    "best_peer_tokens_per_s": best[figure],
                    "ratio": ours[figure] / best[figure],
                }
            )
    return ratios


def print_tables(document: dict[str, Any]) -> None:
    """What was measured, then the ratios."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    speeds = [name for name in document["results"][0] if name.endswith("_tokens_per_s")]
    title = f"{document['shape']}, {document['load']['threads']} threads, tokens/s"
    table = Table("bits", "engine", "cache", "block", title=title)
    labels = [name.removesuffix("_tokens_per_s").replace("_", " @ ") for name in speeds]
    for heading in (*labels, "load s", "peak MB", "file MB", "storage MB", "error"):
        table.add_column(heading, justify="right")
    for found in document["results"]:
        table.add_row(
            str(found["bits"]),
            found["engine"] + (" + experts" if found["experts"] else ""),
            found["cache"],
            str(found["block"] or ""),
            *(f"{found[name]:.0f}" for name in speeds),
            f"{found['load_s']:.2f}",
            f"{found['peak_rss_bytes'] / MB:.0f}",
            f"{found['file_bytes'] / MB:.0f}",
            f"{found['storage_bytes'] / MB:.0f}",
            f"{found['error']:.1e}",
        )
    console.print(table)
    table = Table("bits", "molkv", "cache", "figure", title="molkv / best peer")
    for heading in ("molkv", "best peer", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("which")
    for found in document["ratios"]:
        table.add_row(
            str(found["bits"]),
            "experts" if found["experts"] else "dense",
            found["cache"],
            found["figure"].replace("_", " @ "),
            f"{found['tokens_per_s']:.0f}",
            f"{found['best_peer_tokens_per_s']:.0f}",
            f"{found['ratio']:.2f}",
            f"{found['best_peer']}, {found['best_peer_variant']}",
        )
    console.print(table)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", default="160m", help="small or 160m")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8], choices=[4, 8])
    parser.add_argument("--folder", type=Path, help="where models are made; a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep them there, and reuse them")
    parser.add_argument("--prepare", action="store_true", help="make them, and measure nothing")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--prefill", type=int, default=512, help="tokens")
    parser.add_argument("--steps", type=int, default=64, help="at each context")
    parser.add_argument("--repeats", type=int, default=3, help="prefills of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, available_cores()))
    arguments = parser.parse_args()
    if arguments.keep and arguments.folder is None:
        parser.error("--keep needs --folder")
    if missing := [name for name in PEER_MODULES if find_spec(name) is None]:
        parser.error(
            f"{', '.join(missing)} missing; pip install --constraint constraints.txt '.[bench]'"
        )
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    load = Load(
        tuple(arguments.contexts),
        *(getattr(arguments, name) for name in ("prefill", "steps", "repeats", "threads")),
    )
    from molkv_model.config import preset

    config = preset(arguments.shape)
    if max(*load.contexts, load.prefill) + load.steps > config.max_position_embeddings:
        raise SystemExit(
            f"{arguments.shape} has a context of {config.max_position_embeddings} tokens: shorten "
            "--contexts, --prefill or --steps"
        )
    for name in ("hidden_size", "intermediate_size"):
        if (size := getattr(config, name)) % GGUF_BLOCK:
            raise SystemExit(
                f"{arguments.shape}: {name} is {size}, and llama.cpp's matrices have blocks of "
                f"{GGUF_BLOCK}: take --shape small or 160m"
            )
    with (
        nullcontext(arguments.folder)
        if arguments.keep
        else TemporaryDirectory(dir=arguments.folder, prefix="peers-")
    ) as folder:
        root = Path(folder) / arguments.shape
        root.mkdir(parents=True, exist_ok=True)
        timed = [
            candidate
            for bits in arguments.bits
            for candidate in candidates_of(bits, in_child(block_of, arguments.shape, bits))
        ]
        everyone = [*exact_candidates(), *timed]
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("make models", total=1 + len(everyone))
            make_model(config, root)
            progress.advance(task)
            for candidate in everyone:
                progress.update(task, description=f"make {candidate}")
                candidate.make(root)
                progress.advance(task)
            errors = compare_with_torch(everyone, root, load.threads, progress)
            if arguments.prepare:
                return
            samples = take_turns(timed, root, load, arguments.turns, config.vocab_size, progress)
        results = [
            {
                **asdict(candidate),
                "variant": candidate.variant,
                **figures(samples[candidate], load),
                "file_bytes": sum(file.stat().st_size for file in candidate.files(root)),
                "storage_bytes": (root / BLOB_FILE).stat().st_size if candidate.experts else 0,
                "error": errors[candidate],
                "turns": samples[candidate],
            }
            for candidate in timed
        ]
    document = {
        "benchmark": "peers",
        "shape": arguments.shape,
        "on": {
            "machine": platform.machine(),
            "cores": available_cores(),
            **{name: version(name) for name in PACKAGES},
            LLAMA: in_child(llama_build),
        },
        "load": asdict(load),
        "limits": LIMITS,
        "exact": [{**asdict(each), "error": errors[each]} for each in exact_candidates()],
        "results": results,
        "ratios": compare_with_peers(results),
    }
    print_tables(document)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
