"""Writes tests/golden/sampling.json: what every molkv runtime's sampler must reproduce to the bit.

Run it from the repository's root after a deliberate change of docs/sampling.md:

    PYTHONPATH=runtime_py python tests/golden/make_sampling.py

The file holds three kinds of vectors. 64-bit patterns are hexadecimal strings, because JSON
readers lose integers above 2^53; other numbers are JSON numbers, to be read as doubles.

    uniforms     a seed, its first integers, and the bits of its first uniform doubles
    exponential  pairs of double bits, input and output
    logits       named float32 vectors: either their bits, or a recipe (see `formula_logits`)
    sampling     logits and a config; how many candidates are kept, the bits of the first weights
                 and of the sum of all weights (absent for greedy), and the first 32 tokens when
                 the same logits come at every step
"""

from __future__ import annotations

import json
import math
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molkv_runtime.random_generator import LARGEST_SEED, SplitMix64
from molkv_runtime.sampler import (
    EXPONENTIAL_CUTOFF,
    Sampler,
    SamplingConfig,
    exponential,
    select_candidates,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN_PATH = Path(__file__).with_name("sampling.json")
FORMAT_VERSION = 1
TOKENS_PER_CASE = 32
WEIGHTS_PER_CASE = 4

SMALL_LOGITS = [1.0, 3.0, 2.0, 3.0, -1.0, -math.inf, 0.0, -0.0, 2.0, 1e-45, -1e-45, 2.5]

# Running sums 1, 2, 3, 4, 4: a uniform of 0.5 falls exactly on the second.
EVEN_LOGITS = [0.0, 0.0, 0.0, 0.0, -math.inf]

# SplitMix64's mixing can be undone, and so the seed of any first number be found.
SEED_OF_UNIFORM_ZERO = 0x61C8864680B583EB
SEED_OF_UNIFORM_HALF = 0x2FEDF1EFCE1D5545
SEED_OF_LARGEST_UNIFORM = 0x31628AF67B2131AB  # 1 - 2^-53

LOGIT_RECIPES = {
    # 2^24 possible values in [-8, 8): ties are rare.
    "fine": {"seed": 17, "count": 1000, "top_bits": 24, "step_exponent": -20},
    # 16 possible values in [-4, 4): every value is a tie of many.
    "ties": {"seed": 18, "count": 1000, "top_bits": 4, "step_exponent": -1},
    # The vocabulary of a small published model.
    "large": {"seed": 19, "count": 50304, "top_bits": 24, "step_exponent": -20},
    # Subnormal floats: all weights are 1, and only the exact order decides.
    "subnormal": {"seed": 20, "count": 77, "top_bits": 4, "step_exponent": -149},
}

SAMPLING_CASES: list[tuple[str, dict[str, Any]]] = [
    ("small", {}),
    ("small", {"temperature": 1.0, "seed": 1234567}),
    ("small", {"temperature": 0.7, "top_k": 5, "seed": 3}),
    ("small", {"temperature": 0.05, "top_p": 0.5, "seed": LARGEST_SEED}),
    ("small", {"temperature": 1.5, "min_p": 1.0, "seed": 4}),
    ("small", {"temperature": 1e-300, "seed": 5}),
    ("small", {"temperature": 1e300, "seed": 6}),
    ("even", {"temperature": 1.0, "seed": SEED_OF_UNIFORM_ZERO}),
    ("even", {"temperature": 1.0, "seed": SEED_OF_UNIFORM_HALF}),
    ("even", {"temperature": 1.0, "seed": SEED_OF_LARGEST_UNIFORM}),
    ("even", {"temperature": 1.0, "top_p": 0.5, "seed": SEED_OF_UNIFORM_HALF}),
    ("fine", {}),
    ("fine", {"temperature": 1.0, "seed": 7}),
    ("fine", {"temperature": 0.8, "top_k": 40, "seed": 8}),
    ("fine", {"temperature": 0.8, "top_p": 0.9, "seed": 9}),
    ("fine", {"temperature": 1.3, "min_p": 0.05, "seed": 10}),
    ("fine", {"temperature": 0.9, "top_k": 100, "top_p": 0.95, "min_p": 0.02, "seed": 11}),
    ("ties", {}),
    ("ties", {"temperature": 0.8, "top_k": 40, "seed": 12}),
    ("ties", {"temperature": 2.0, "top_k": 100, "top_p": 0.6, "seed": 13}),
    ("subnormal", {"temperature": 1.0, "top_p": 0.3, "seed": 14}),
    ("large", {"temperature": 0.8, "top_k": 40, "seed": 15}),
    ("large", {"temperature": 1.0, "top_p": 0.97, "seed": 16}),
]

UNIFORM_SEEDS = [1234567, 0, 1, LARGEST_SEED]


def double_bits(value: float) -> str:
    """Returns a double's 64 bits as hexadecimal digits."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"


def formula_logits(recipe: dict[str, int]) -> NDArray[np.float32]:
    """Returns float32 [count]: each from the next integer of SplitMix64(seed).

    n is the integer's `top_bits` highest bits, and the logit (n - 2^(top_bits - 1)) * 2^e with
    e = `step_exponent`. A float32 holds 24 bits, so nothing is rounded.
    """
    generator = SplitMix64(recipe["seed"])
    shift = 64 - recipe["top_bits"]
    middle = 1 << (recipe["top_bits"] - 1)
    step = recipe["step_exponent"]
    values = [
        math.ldexp((generator.next_u64() >> shift) - middle, step) for _ in range(recipe["count"])
    ]
    return np.array(values, np.float32)


def exponential_inputs() -> list[float]:
    """Returns doubles of at most 0 that reach every branch of the exponential."""
    edges = [0.0, -0.0, -5e-324, -(2.0**-60), -(2.0**-53), -1.0, -10.0, -math.inf]
    for edge in (EXPONENTIAL_CUTOFF, -0.5 * math.log(2), -1.5 * math.log(2), -99.5 * math.log(2)):
        edges += [math.nextafter(edge, -math.inf), edge, math.nextafter(edge, 0.0)]
    generator = SplitMix64(21)
    near = [-20.0 * generator.next_uniform() for _ in range(24)]
    far = [-700.0 * generator.next_uniform() for _ in range(16)]
    return edges + near + far


def build() -> dict[str, Any]:
    """Returns the file's contents, computed with the Python sampler."""
    uniforms = []
    for seed in UNIFORM_SEEDS:
        integers, doubles = SplitMix64(seed), SplitMix64(seed)
        uniforms.append(
            {
                "seed": f"0x{seed:016x}",
                "integers": [f"0x{integers.next_u64():016x}" for _ in range(8)],
                "uniforms": [double_bits(doubles.next_uniform()) for _ in range(8)],
            }
        )
    inputs = exponential_inputs()
    outputs = exponential(np.array(inputs)).tolist()

    vectors = {
        "small": np.array(SMALL_LOGITS, np.float32),
        "even": np.array(EVEN_LOGITS, np.float32),
    }
    listed = {
        name: {"bits": [f"0x{bits:08x}" for bits in vector.view(np.uint32).tolist()]}
        for name, vector in vectors.items()
    }
    vectors.update({name: formula_logits(recipe) for name, recipe in LOGIT_RECIPES.items()})
    sampling = []
    for name, settings in SAMPLING_CASES:
        config = SamplingConfig(**settings)
        case: dict[str, Any] = {"logits": name, **asdict(config), "seed": f"0x{config.seed:016x}"}
        if config.temperature > 0:
            candidates = select_candidates(vectors[name], config)
            case["kept"] = len(candidates.token_ids)
            case["first_weights"] = [
                double_bits(weight) for weight in candidates.weights[:WEIGHTS_PER_CASE].tolist()
            ]
            case["total"] = double_bits(float(candidates.cumulative[-1]))
        sampler = Sampler(config)
        case["tokens"] = [sampler.sample(vectors[name]) for _ in range(TOKENS_PER_CASE)]
        sampling.append(case)
    return {
        "format_version": FORMAT_VERSION,
        "uniforms": uniforms,
        "exponential": [
            [double_bits(x), double_bits(y)] for x, y in zip(inputs, outputs, strict=True)
        ],
        "logits": {**listed, **LOGIT_RECIPES},
        "sampling": sampling,
    }


def rendered(golden: dict[str, Any]) -> str:
    """Returns the JSON text, one vector a line so that a change shows as a small difference."""
    sections = []
    for name, section in golden.items():
        if isinstance(section, list):
            lines = ",\n".join(f"    {json.dumps(entry)}" for entry in section)
            sections.append(f'  "{name}": [\n{lines}\n  ]')
        elif isinstance(section, dict):
            lines = ",\n".join(
                f"    {json.dumps(key)}: {json.dumps(entry)}" for key, entry in section.items()
            )
            sections.append(f'  "{name}": {{\n{lines}\n  }}')
        else:
            sections.append(f'  "{name}": {json.dumps(section)}')
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """Writes the file beside this script."""
    GOLDEN_PATH.write_text(rendered(build()), encoding="utf-8")
    sys.stdout.write(f"wrote {GOLDEN_PATH.name}\n")


if __name__ == "__main__":
    main()
