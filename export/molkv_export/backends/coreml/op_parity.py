"""Rung 3: the composite of MIL ops computes the op, and a wrong formula does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813 - MIL's own name for it
from coremltools.converters.mil.mil import Function, types
from numpy.typing import NDArray

from molkv_export.backends.coreml.expert_attention_composite import (
    expert_attention,
    own_experts,
    rows_by_head,
)
from molkv_export.backends.coreml.graph import half_rows
from molkv_export.backends.coreml.mil_evaluator import MilFunction
from molkv_export.backends.coreml.static_shapes import padded
from molkv_export.backends.coreml.target import OPSET
from molkv_export.backends.coreml.weights import age_table
from molkv_export.op_parity import OpCase, OpParity, make_case
from molkv_runtime.expert_attention import expert_attention as numpy_expert_attention
from molkv_runtime.row_geometry import RowGeometry

__all__ = ["compare_composite", "run_composite"]

_Array = NDArray[Any]


def compare_composite(geometry: RowGeometry, window: int) -> Iterator[OpParity]:
    """Compare the composite with NumPy on one token, on several, and on a window with padding."""
    tokens = 5
    cases = [make_case(geometry, window, tokens=1, rows=window)]
    if geometry.key_heads:
        cases += [
            make_case(geometry, window, tokens=tokens, rows=window - 1 + tokens, seed=1),
            make_case(geometry, window, tokens=1, rows=window, start=window // 2, seed=2),
        ]
    yield OpParity("MIL composite = NumPy", _worst(cases, lambda case: case))
    yield OpParity("a wrong formula differs, MIL", _worst(cases, _wrong), must_differ=True)


def run_composite(case: OpCase) -> NDArray[np.float32]:
    """Evaluate the composite; float32 [T, d]."""
    tokens, heads, key_size = case.query.shape
    query = case.query / np.float32(np.sqrt(key_size))
    if case.age_bias.shape[2] == 1:
        query = query + case.age_bias[:, :, 0]  # MoLE's router has no bias of its own
    inputs = {"query": query, **half_rows(case.rows, None)}
    specs = {name: mb.TensorSpec(value.shape, dtype=types.fp16) for name, value in inputs.items()}
    with Function(specs, opset_version=OPSET) as function:
        given = function.inputs
        if case.age_bias.shape[2] == 1:
            scores = mb.reshape(x=given["query"], shape=[tokens, key_size])
            mixed = own_experts(scores, given["values"], "experts")
        else:
            sizes = padded(key_size), padded(case.value_size // heads)
            mixed = expert_attention(
                given["query"],
                rows_by_head(given["keys"], heads, sizes[0], "keys"),
                rows_by_head(given["values"], heads, sizes[1], "values"),
                mb.const(val=age_table(case.age_bias).astype(np.float16)),
                mb.const(val=_index(case)),
                "experts",
            )
        function.set_outputs([mixed])
    (output,) = MilFunction(function).run(inputs, {}).values()
    part = case.value_size // heads
    unpadded: NDArray[np.float32] = output.reshape(tokens, heads, -1)[:, :, :part]
    return unpadded.reshape(tokens, -1)


def _worst(cases: list[OpCase], change: Callable[[OpCase], OpCase]) -> float:
    differences = []
    for case in cases:
        expected = numpy_expert_attention(case.query, case.rows, case.age_bias, case.start)
        ours = run_composite(change(case))
        differences.append(float(np.abs(ours - expected).max() / np.abs(expected).max()))
    return max(differences)


def _wrong(case: OpCase) -> OpCase:
    """One mistake: the age counted from the wrong end; where there is one age, unscaled scores."""
    if case.age_bias.shape[2] == 1:
        return replace(case, query=case.query * np.float32(np.sqrt(case.query.shape[2])))
    return replace(case, age_bias=np.ascontiguousarray(case.age_bias[:, :, ::-1]))


def _index(case: OpCase) -> NDArray[np.int32]:
    """The row of the age table for each token and row; the last row masks."""
    tokens, rows, window = len(case.query), len(case.rows.values), case.age_bias.shape[2]
    row = np.arange(rows)
    age = row[rows - tokens :, None] - row
    attended = (age >= 0) & (age < window) & (row >= case.start)
    return np.where(attended, age, window).astype(np.int32)
