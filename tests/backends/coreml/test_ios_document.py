"""docs/ios.md is true: its tables and figures are compared with the code and with a package."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from coremltools.converters.mil.mil import Program, types

from molkv_export.backends.catalogue import BACKENDS
from molkv_export.backends.coreml.decoder import decode_program, prefill_program
from molkv_export.backends.coreml.mil_evaluator import MilProgram
from molkv_export.backends.coreml.op_parity import compare_composite
from molkv_export.backends.coreml.package import COMPUTE_UNITS, DECODE, PREFILL
from molkv_export.backends.coreml.parity import FLOAT16_FACTOR, LIMITS, OP_TOLERANCE
from molkv_export.backends.coreml.static_shapes import StaticShapes
from molkv_export.expert_blob import row_geometry
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import PRESETS
from molkv_runtime.golden import RELATIVE_LOGITS_TOLERANCE
from tests.backends.coreml.conftest import CHUNK
from tests.small_models import small_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.backends.coreml.conftest import PackageOf
    from tests.conftest import CheckpointOf

PAGE = (Path(__file__).parents[3] / "docs" / "ios.md").read_text(encoding="utf-8")


def table(*heading: str) -> list[list[str]]:
    """The rows of the one table with this heading, as cells without backticks."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        rows = [
            [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
            for line in block.splitlines()
        ]
        if rows[0][: len(heading)] == list(heading):
            found.append(rows[2:])
    (rows,) = found
    return rows


def shape_of(text: str, tokens: int) -> tuple[int, ...]:
    config = small_config("molkv")
    shapes = StaticShapes.of(config)
    letters = {
        "T": tokens,
        "V": config.vocab_size,
        "N": config.num_experts,
        "G": config.expert_query_heads,
        "dk": config.expert_key_size,
        "d": config.hidden_size,
        "K": config.num_key_value_heads,
        "R": shapes.window_rows,
        "head": shapes.head_size,
        "key": shapes.key_size,
        "value": shapes.value_size,
        "cache tokens": shapes.cache_tokens,
    }
    extents = [extent.split("·") for extent in text.strip("[]").split(", ")]
    return tuple(
        math.prod(letters[part] if part in letters else int(part) for part in extent)
        for extent in extents
    )


def documented_inputs(function: str, tokens: int, embedding: str) -> dict[str, tuple[int, ...]]:
    other = {"graph": "embedding: storage", "storage": "embedding: graph"}[embedding]
    left_out = {other} if function == PREFILL else {other, PREFILL}
    return {
        name.replace("{l}", layer): shape_of(shape, tokens)
        for name, _, shape, there in table("input", "type", "shape")
        if there not in left_out
        for layer in "01"
    }


@pytest.mark.parametrize(
    ("function", "make", "tokens"),
    [(PREFILL, prefill_program, CHUNK), (DECODE, decode_program, 1)],
)
def test_with_embeddings_in_the_rows_the_inputs_are_the_tables(
    checkpoint_of: CheckpointOf, function: str, make: Callable[..., Program], tokens: int
) -> None:
    checkpoint = Checkpoint(checkpoint_of("molkv"))
    program = make(checkpoint, StaticShapes.of(checkpoint.config, CHUNK), "f16")
    inputs = {
        name: tuple(var.shape)
        for name, var in program.functions["main"].inputs.items()
        if not types.is_state(var.sym_type)
    }
    assert inputs == documented_inputs(function, tokens, embedding="storage")


@pytest.mark.parametrize(("function", "tokens"), [(PREFILL, CHUNK), (DECODE, 1)])
def test_the_tables_of_inputs_and_states_are_the_packages(
    package_of: PackageOf, function: str, tokens: int
) -> None:
    ours = MilProgram(package_of("molkv", "fp16")).function(function)
    assert ours.inputs == documented_inputs(function, tokens, embedding="graph")
    states = {
        name.replace("{l}", layer): shape_of(shape, tokens)
        for names, _, shape, _ in table("state", "type", "shape")
        for name in names.split(", ")
        for layer in "01"
    }
    assert ours.states == states


def test_the_bytes_that_cross_in_a_step() -> None:
    rows = table("shape", "step")
    for (decode, prefill), name in zip((rows[:2], rows[2:]), ("tiny", "160m"), strict=True):
        config = PRESETS[name]
        geometry = row_geometry(config, "f16")
        row = 2 * geometry.layers * geometry.experts
        row *= geometry.key_heads * geometry.key_size + geometry.value_size
        window, chunk = config.expert_window, StaticShapes.of(config).chunk
        assert decode[0].startswith(f"{name}: ")
        assert decode[2:] == [f"{window * row:,} bytes", f"{row:,} bytes"]
        assert prefill[2:] == [f"{(window - 1 + chunk) * row:,} bytes", f"{chunk * row:,} bytes"]


def test_what_is_padded_of_the_presets() -> None:
    tiny, large = (PRESETS[name] for name in ("tiny", "160m"))
    padded = StaticShapes.of(tiny)
    assert (tiny.expert_key_size, padded.key_size) == (16, 32)
    assert (tiny.intermediate_size, padded.intermediate_size) == (344, 352)
    assert "from 16 to\n32 and its feed-forward network from 344 to 352" in PAGE
    same = StaticShapes.of(large)
    assert (same.key_size, same.head_size) == (large.expert_key_size, large.head_dim)
    assert (same.intermediate_size, same.cache_tokens) == (2048, 2048)


def test_the_limits_are_the_ladders() -> None:
    rows = table("--dense", "limit, KL divergence in nats")
    assert [row[0] for row in rows] == list(BACKENDS["coreml"].precisions) == list(LIMITS)
    for name, nats, same in rows:
        assert (float(nats), float(same)) == (LIMITS[name].nats, LIMITS[name].same_top1)
    assert [row[0] for row in table("--dense", "stored")] == list(BACKENDS["coreml"].precisions)
    assert f"is {FLOAT16_FACTOR:.0f} times the golden case's" in PAGE
    assert f"{100 * FLOAT16_FACTOR * RELATIVE_LOGITS_TOLERANCE:.1g} % of the largest" in PAGE
    assert COMPUTE_UNITS in PAGE


def test_the_rungs_of_the_op_are_documented_with_their_limits() -> None:
    rungs = {row[0]: row[2] for row in table("rung", "passes")}
    results = compare_composite(row_geometry(small_config("molkv"), "int8"), 8)
    names = [f"3 op: {result.name}" for result in results]
    assert names == list(rungs)[: len(names)]
    assert float(rungs[names[0]]) == OP_TOLERANCE
