"""Rung 3: one op, four implementations, and wrong formulas that none of them may match."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molkv_export.backends.onnx.op_model import op_model, run_function, run_op_model
from molkv_export.dense_graph import DenseGraph, ExpertPlanes
from molkv_export.expert_attention import expert_attention, reference_expert_attention
from molkv_export.expert_blob import row_geometry
from molkv_export.op_parity import (
    OP_TOLERANCE,
    WRONG_FORMULA_DIFFERENCE,
    OpCase,
    backend_kernels,
    compare_implementations,
    graph_nodes,
    make_case,
    op_parity,
)
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.expert_attention import expert_attention as numpy_expert_attention
from molkv_runtime.onnx_runtime import onnxruntime
from molkv_runtime.row_layout import DataType, LayerRows, RowGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from molkv_runtime.row_geometry import ExpertPrecision
    from tests.conftest import BundleOf, CheckpointOf

    Implementation = Callable[[OpCase], NDArray[np.float32]]

TOLERANCE = 2e-5


def by_loops(case: OpCase, wrong: str = "") -> NDArray[np.float64]:
    """docs/graph.md's sentence restated in plain Python, or with one mistake."""
    query, rows, bias = case.query, case.rows, case.age_bias
    tokens, heads, key_size = query.shape
    experts, window = bias.shape[1:]
    assert rows.keys is not None
    if rows.values.dtype == np.uint8:
        rows = replace(rows, values=int4_by_loops(rows, wrong), value_scales=None)
    count, value_size = len(rows.values), rows.values.shape[2] // heads
    key_scales = np.ones((count, experts)) if rows.key_scales is None else rows.key_scales
    value_scales = np.ones((count, experts)) if rows.value_scales is None else rows.value_scales
    if wrong == "no key scales":
        key_scales = np.ones((count, experts))
    if wrong == "no value scales":
        value_scales = np.ones((count, experts))
    output = np.zeros((tokens, heads * value_size))
    for t in range(tokens):
        for g in range(heads):
            weights: dict[tuple[int, int], float] = {}
            for j in range(count):
                age = count - tokens + t - j
                too_old = age >= window and wrong != "no age mask"
                if age < 0 or too_old or (j < case.start and wrong != "start ignored"):
                    continue
                for n in range(experts):
                    score = 0.0
                    for i in range(key_size):
                        score += float(query[t, g, i]) * float(rows.keys[j, n, g * key_size + i])
                    score *= float(key_scales[j, n])
                    if wrong != "no 1/sqrt(dk)":
                        score /= math.sqrt(key_size)
                    shown = window - 1 - age if wrong == "age from the wrong end" else age
                    if wrong != "no age bias":
                        score += float(bias[g, n, min(max(shown, 0), window - 1)])
                    weights[j, n] = math.exp(score)
            for (j, n), weight in weights.items():
                among = {
                    "softmax per token": [w for (i, _), w in weights.items() if i == j],
                    "softmax per expert": [w for (_, m), w in weights.items() if m == n],
                }.get(wrong, list(weights.values()))
                share = weight / sum(among) * float(value_scales[j, n])
                slice_of = 0 if wrong == "every head mixes the first slice" else g
                for i in range(value_size):
                    value = float(rows.values[j, n, slice_of * value_size + i])
                    output[t, g * value_size + i] += share * value
    return output


def int4_by_loops(rows: LayerRows, wrong: str = "") -> NDArray[np.float64]:
    """docs/format.md's sentence about int4 in plain Python."""
    assert rows.value_scales is not None
    count, experts, size = rows.values.shape
    values = np.zeros((count, experts, 2 * size))
    for place in np.ndindex(values.shape):
        byte = int(rows.values[(*place[:2], place[2] // 2)])
        element = byte % 16 if place[2] % 2 == 0 else byte // 16
        if element > 7:
            element -= 16
        scale = float(rows.value_scales[(*place[:2], place[2] // 32)])
        values[place] = element if wrong == "no value scales" else scale * element
    return values


def by_torch(case: OpCase) -> NDArray[np.float32]:
    feeds: dict[str, Any] = {
        name: None if array is None else torch.from_numpy(array)
        for name, array in case.feeds.items()
    }
    result: NDArray[np.float32] = reference_expert_attention(**feeds).numpy()
    return result


def by_numpy(case: OpCase) -> NDArray[np.float32]:
    return numpy_expert_attention(case.query, case.rows, case.age_bias, case.start)


IMPLEMENTATIONS: dict[str, Implementation] = {
    "NumPy": by_numpy,
    "torch": by_torch,
    "ONNX function": run_function,
}
WRONG = (
    "no age mask",
    "start ignored",
    "no 1/sqrt(dk)",
    "no age bias",
    "age from the wrong end",
    "softmax per token",
    "softmax per expert",
    "every head mixes the first slice",
    "no key scales",
    "no value scales",
)


def distance(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))


@st.composite
def op_cases(draw: st.DrawFn) -> OpCase:
    heads = draw(st.integers(0, 3))
    dtype = draw(st.sampled_from([DataType.INT8, DataType.INT4, DataType.FLOAT16]))
    part = draw(st.integers(1, 3)) if dtype is not DataType.INT4 else 32
    geometry = RowGeometry.of(
        dtype,
        layers=1,
        experts=draw(st.integers(1, 3)),
        key_heads=heads,
        key_size=draw(st.integers(1, 5)) if heads else 0,
        value_size=max(heads, 1) * part,
    )
    tokens = draw(st.integers(1, 6))
    rows = tokens + draw(st.integers(0, 8))
    window = draw(st.integers(1, 7)) if heads else 1
    # Every token attends at least its own row: padding lies before the new tokens.
    start = draw(st.integers(0, rows - tokens))
    seed = draw(st.integers(0, 2**31))
    return make_case(geometry, window, tokens=tokens, rows=rows, start=start, seed=seed)


@given(op_cases())
@settings(max_examples=60, deadline=None)
def test_every_implementation_computes_the_sentence(case: OpCase) -> None:
    expected = by_loops(case)
    for name, implementation in IMPLEMENTATIONS.items():
        ours = implementation(case)
        assert ours.dtype == np.float32
        assert distance(ours, expected) < TOLERANCE, name


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_no_implementation_matches_a_wrong_formula(name: str, wrong: str) -> None:
    geometry = RowGeometry.of(
        DataType.INT8, layers=1, experts=3, key_heads=2, key_size=4, value_size=8
    )
    # More rows than any token's window holds, and padding inside the window of the first token.
    case = make_case(geometry, 5, tokens=3, rows=10, start=4, seed=3)
    ours = IMPLEMENTATIONS[name](case)
    assert distance(ours, by_loops(case)) < TOLERANCE
    assert distance(ours, by_loops(case, wrong)) > 1000 * TOLERANCE


def test_large_scores_do_not_overflow() -> None:
    geometry = RowGeometry.of(
        DataType.FLOAT16, layers=1, experts=2, key_heads=1, key_size=2, value_size=4
    )
    case = make_case(geometry, 3, tokens=2, rows=4)
    hot = replace(case, age_bias=case.age_bias + np.float32(1000))
    for name, implementation in IMPLEMENTATIONS.items():
        # Softmax does not see a constant; exp(1000) would.
        np.testing.assert_allclose(
            implementation(hot), implementation(case), atol=2e-3, err_msg=name
        )


def test_the_custom_op_is_its_reference_and_has_its_shape() -> None:
    geometry = RowGeometry.of(
        DataType.INT8, layers=1, experts=2, key_heads=2, key_size=3, value_size=6
    )
    case = make_case(geometry, 4, tokens=2, rows=5)
    arguments = [torch.from_numpy(array) for array in case.feeds.values() if array is not None]
    assert torch.equal(
        torch.ops.molkv.expert_attention(*arguments), torch.from_numpy(by_torch(case))
    )
    with torch.device("meta"):
        shape = expert_attention(*[torch.empty_like(value) for value in arguments]).shape
    assert shape == (2, 6)


def test_numpy_names_the_missing_keys_of_mole_rows() -> None:
    rows = LayerRows(None, np.zeros((1, 2, 4), np.int8), None, np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="one-hot"):
        numpy_expert_attention(np.zeros((1, 1, 2), np.float32), rows, np.zeros((1, 2, 1), "f4"))


@pytest.mark.parametrize("experts", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["molkv", "mole"])
def test_verify_compares_the_op_on_the_bundles_own_geometry(
    bundle_of: BundleOf, kind: str, experts: str
) -> None:
    *results, control = op_parity(Bundle.open(bundle_of(kind, experts)))
    assert len(results) == 6
    assert not any(result.must_differ for result in results)
    assert all(result.difference < 1e-5 for result in results)
    assert "scalar" in results[1].detail
    assert control.must_differ
    assert control.difference >= WRONG_FORMULA_DIFFERENCE >= 1000 * OP_TOLERANCE


@pytest.mark.parametrize(
    ("heads", "key_size", "experts", "window"),
    [(2, 4, 3, 5), (1, 1, 1, 2), (2, 3, 2, 1), (1, 1, 3, 1), (0, 0, 4, 1), (0, 0, 1, 1)],
)
@pytest.mark.parametrize("dtype", [DataType.INT8, DataType.INT4, DataType.FLOAT16])
def test_the_wrong_formula_is_told_apart_at_every_size(
    dtype: DataType, heads: int, key_size: int, experts: int, window: int
) -> None:
    geometry = RowGeometry.of(
        dtype, layers=1, experts=experts, key_heads=heads, key_size=key_size, value_size=64
    )
    results = {
        result.name: result
        for result in compare_implementations(
            geometry, window, backend_kernels("onnx"), graph_nodes("onnx")
        )
    }
    assert results["a wrong formula differs"].difference >= WRONG_FORMULA_DIFFERENCE
    assert results["torch = NumPy"].difference <= OP_TOLERANCE
    around = "with norm and sum" if heads else "with sum"
    for engine in ("operator in ONNX Runtime", "stock ONNX Runtime"):
        assert results[f"{engine}, {around} = NumPy"].difference <= OP_TOLERANCE


@pytest.mark.parametrize("dtype", [DataType.INT8, DataType.INT4, DataType.FLOAT16])
def test_the_model_of_one_op_is_valid_and_of_one_node(dtype: DataType) -> None:
    geometry = RowGeometry.of(dtype, layers=1, experts=2, key_heads=2, key_size=3, value_size=64)
    case = make_case(geometry, 4, tokens=2, rows=5)
    model = op_model(case)
    onnx.checker.check_model(model, full_check=True)
    assert [(node.domain, node.op_type) for node in model.graph.node] == [
        ("ai.molkv", "ExpertAttention")
    ]
    assert [entry.name for entry in model.graph.input] == list(case.given)
    # A session with other options, as one with a kernel registered would have.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    np.testing.assert_array_equal(run_op_model(case, options=options), run_function(case))


@pytest.mark.parametrize(
    ("kind", "experts"), [("molkv", "int8"), ("mole", "int8"), ("molkv", "int4")]
)
def test_torch_export_keeps_the_op_as_one_node_a_layer(
    checkpoint_of: CheckpointOf, kind: str, experts: ExpertPrecision
) -> None:
    class Step(torch.nn.Module):
        def __init__(self, graph: DenseGraph) -> None:
            super().__init__()
            self.dense = graph

        def forward(self, ids: torch.Tensor, *planes: torch.Tensor) -> torch.Tensor:
            start = torch.zeros(1, dtype=torch.int64)
            layers = [ExpertPlanes(*planes[n : n + 4]) for n in range(0, len(planes), 4)]
            logits: torch.Tensor = self.dense(ids, 0, layers, start)
            return logits

    checkpoint = Checkpoint(checkpoint_of(kind))
    layers = checkpoint.config.num_hidden_layers
    geometry = row_geometry(checkpoint.config, experts)
    rows = make_case(geometry, checkpoint.config.expert_window, tokens=3, rows=3).rows
    one = [rows.keys, rows.key_scales, rows.values, rows.value_scales]
    if kind == "mole":  # its keys are made inside the graph
        one[:2] = [None, None]
    planes = [None if plane is None else torch.from_numpy(plane) for plane in one] * layers
    step = Step(DenseGraph.from_checkpoint(checkpoint).requires_grad_(False))
    ids = torch.tensor([[5, 6, 7]])
    expected = step(ids, *planes)
    program = torch.export.export(step, (ids, *planes))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("molkv.expert_attention.default") == layers
    # Its definition is not traced: it has the only softmax that is no op with self-attention.
    assert not any("softmax" in target for target in targets)
    torch.testing.assert_close(program.module()(ids, *planes), expected)
