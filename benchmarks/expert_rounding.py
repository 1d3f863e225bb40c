"""What does rounding the experts cost, by scheme?

    python benchmarks/expert_rounding.py --checkpoint CHECKPOINT --text TEXT --json result.json

The trained model predicts a text, its expert vectors replaced by what each scheme makes of them;
nothing else is changed. Compared with the model as trained: Kullback-Leibler divergence in nats,
and the share of positions with the same best token, each with its standard error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, compare_logits
from molkv_export.rounded_experts import Rounding, as_stored, round_vectors
from molkv_model.checkpoint import load
from molkv_model.embedded import tiny_checkpoint
from molkv_model.modeling import LanguageModel
from molkv_runtime.text import load_tokenizer

Vectors = NDArray[np.float32]

PROSE = Path(__file__).parents[1] / "tests" / "parity" / "held_out_prose.txt"


int8: Rounding = partial(as_stored, "int8")
int4: Rounding = partial(as_stored, "int4")


def int4_by(divisors: Sequence[float], group: int = 32) -> Rounding:
    """A group's scale is its extreme over the divisor that leaves the least squared error."""

    def rounded(vectors: Vectors) -> Vectors:
        groups = vectors.reshape(-1, group)
        extremes = groups[np.arange(len(groups)), np.abs(groups).argmax(axis=1)][:, None]
        best = np.zeros_like(groups)
        least = np.full((len(groups), 1), np.inf, np.float32)
        for divisor in divisors:
            scales = (extremes / np.float32(divisor)).astype(np.float16).astype(np.float32)
            steps = groups / np.where(scales == 0, np.float32(1), scales)
            tried = np.rint(steps).clip(-8, 7) * scales
            error = np.square(tried - groups).sum(axis=1, keepdims=True)
            best = np.where(error < least, tried, best)
            least = np.minimum(error, least)
        return best.reshape(vectors.shape)

    return rounded


def noise(energy: float) -> Rounding:
    """Normal noise with a share of each group's energy, instead of rounding."""

    def noisy(vectors: Vectors) -> Vectors:
        groups = vectors.reshape(-1, 32)
        size = np.sqrt(energy * np.square(groups).mean(axis=1, keepdims=True))
        # The same for the same vectors, as rounding would be.
        generator = np.random.default_rng(np.abs(vectors[0, 0]).view(np.uint32))
        drawn = generator.standard_normal(groups.shape, np.float32)
        return (groups + size * drawn).reshape(vectors.shape)

    return noisy


SHIPPED = (-8, -7.5, -7, -6.5, -6)
SCHEMES: dict[str, tuple[Rounding, Rounding]] = {
    "int8 keys, int8 values": (int8, int8),
    "int8 keys, int4 values as exported": (int8, int4),
    "… largest magnitude over 7": (int8, int4_by([7])),
    "… signed extreme over -8": (int8, int4_by([-8])),
    "… groups of 16": (int8, int4_by(SHIPPED, 16)),
    "… groups of 64": (int8, int4_by(SHIPPED, 64)),
    "… groups of 128": (int8, int4_by(SHIPPED, 128)),
    "int4 keys, int4 values": (int4_by(SHIPPED), int4),
    "int4 keys, int8 values": (int4_by(SHIPPED), int8),
    "int8 keys, noise of 0.8 % in values": (int8, noise(0.008)),
    "int8 keys, noise of 0.4 % in values": (int8, noise(0.004)),
    "int8 keys, noise of 0.2 % in values": (int8, noise(0.002)),
}


@torch.no_grad()
def predict(model: LanguageModel, pieces: list[list[int]]) -> list[NDArray[np.float32]]:
    """Logits of every position, sequence by sequence."""
    return [model(torch.tensor([piece]))[0].numpy() for piece in pieces]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=tiny_checkpoint())
    parser.add_argument("--text", type=Path, default=PROSE)
    parser.add_argument("--tokens", type=int, help="predict this many; by default all")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    tokenizer = load_tokenizer(arguments.checkpoint / "tokenizer.json")
    ids = tokenizer.encode(arguments.text.read_text(encoding="utf-8")).ids[: arguments.tokens]
    length = model.config.max_position_embeddings
    pieces = [ids[first : first + length] for first in range(0, len(ids), length)]
    trained = predict(model, pieces)
    results = []
    print(f"{len(ids)} positions")
    print(f"{'scheme':36} {'KL divergence, nats':>24} {'same top-1, %':>16}")
    for name, (keys, values) in SCHEMES.items():
        round_vectors(model, keys, values)
        ours = predict(model, pieces)
        found = Comparison.of([compare_logits(*pair) for pair in zip(ours, trained, strict=True)])
        nats, same = found.kl_divergence, found.same_top1
        print(
            f"{name:36} {nats.mean:12.6f} ± {nats.error:.6f}   "
            f"{100 * same.mean:8.2f} ± {100 * same.error:.2f}"
        )
        results.append(
            {
                "scheme": name,
                "kl_divergence": nats.mean,
                "kl_divergence_error": nats.error,
                "same_top1": same.mean,
                "same_top1_error": same.error,
            }
        )
    if arguments.json is not None:
        document = {"benchmark": "expert_rounding", "positions": len(ids), "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
