"""How much of a decode step lies outside the graph engine?

    python benchmarks/decode_overhead.py --preset 160m --folder /path/with/room --json result.json

A bundle of random weights is exported (kept in the folder and reused) and generates, once with each
engine, rows read from file: greedily, and sampling as `molkv run` does by default. A step is all
from one token to the next: lookup, window, the graph, sampling, text where there is a tokenizer,
and Python between them; "outside" is what ONNX Runtime's own call does not take. Medians over the
steps; engines take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from molkv_export import export
from molkv_model.checkpoint import save
from molkv_model.config import preset
from molkv_model.modeling import LanguageModel
from molkv_runtime import Bundle, SamplingConfig, Session

SAMPLINGS = {
    "greedy": SamplingConfig(),
    "sampled": SamplingConfig(temperature=0.8, top_k=40, top_p=0.95),
}


@dataclass
class EngineClock:
    """Stands in front of an ONNX Runtime session and sums the time inside its calls."""

    session: Any
    seconds: float = field(default=0.0)

    def run_with_iobinding(self, binding: Any) -> None:
        """Passes the call on."""
        began = time.perf_counter()
        self.session.run_with_iobinding(binding)
        self.seconds += time.perf_counter() - began

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def bundle_of(name: str, folder: Path) -> Path:
    """The bundle of a preset with random weights, exported if it is not there yet."""
    out = folder / f"bundle-{name}"
    if not out.exists():
        model = LanguageModel(preset(name))
        model.reset_parameters(seed=0)
        save(model, folder / f"checkpoint-{name}")
        del model
        print(f"exporting {out}", file=sys.stderr)
        export(folder / f"checkpoint-{name}", out, experts="int8")
    return out


def measure(session: Session, sampling: SamplingConfig, prompt: int, steps: int) -> dict[str, Any]:
    """Median microseconds of a step, whole and inside the graph engine."""
    clock = EngineClock(session._graph._session)
    session._graph._session = clock
    ids = np.random.default_rng(0).integers(0, session.model.vocab_size, prompt).tolist()
    whole, inside = [], []
    session.reset()
    tokens = session.generate(ids, max_new_tokens=steps, sampling=sampling, stop_ids=())
    next(tokens)
    began, before = time.perf_counter(), clock.seconds
    for _ in tokens:
        ended, after = time.perf_counter(), clock.seconds
        whole.append(1e6 * (ended - began))
        inside.append(1e6 * (after - before))
        began, before = time.perf_counter(), after
    session._graph._session = clock.session
    outside = [step - graph for step, graph in zip(whole, inside, strict=True)]
    return {
        "step_us": statistics.median(whole),
        "graph_us": statistics.median(inside),
        "outside_us": statistics.median(outside),
        "lookup_us_per_token": session.stats.lookup_us_per_token,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny", help="tiny, small or 160m")
    parser.add_argument("--folder", type=Path, required=True, help="where the bundle is kept")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--prompt", type=int, default=64, help="tokens before the first step")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the graph; by default as a session chooses")
    arguments = parser.parse_args()
    bundle = Bundle.open(bundle_of(arguments.preset, arguments.folder))
    sessions = {
        engine: Session(bundle, engine=engine, threads=arguments.threads)
        for engine in ("native", "reference")
    }
    turns: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(arguments.turns + 1):
        for engine, session in sessions.items():
            for name, sampling in SAMPLINGS.items():
                result = measure(session, sampling, arguments.prompt, arguments.steps)
                if turn > 0:  # the first turn warms up
                    turns.setdefault((engine, name), []).append(result)
    results = []
    print("engine     sampling    step us  graph us  outside us   share")
    for (engine, name), found in turns.items():
        medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
        share = medians["outside_us"] / medians["step_us"]
        print(
            f"{engine:10} {name:9} {medians['step_us']:9.0f} {medians['graph_us']:9.0f} "
            f"{medians['outside_us']:11.0f} {share:7.1%}"
        )
        results.append({"engine": engine, "sampling": name, **medians, "share_outside": share})
    if arguments.json is not None:
        document = {
            "benchmark": "decode_overhead",
            "on": {
                "machine": platform.machine(),
                "cores": len(os.sched_getaffinity(0)),
                "onnxruntime": onnxruntime.__version__,
            },
            "preset": arguments.preset,
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
