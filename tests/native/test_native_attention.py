"""Rung 3 in C++: every kernel, and the operator for ONNX Runtime, against the NumPy op."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from molkv_export.backends.onnx.op_model import (
    Surroundings,
    op_feeds,
    op_model,
    run_function,
)
from molkv_export.op_parity import OP_TOLERANCE, OpCase, make_case
from molkv_runtime import Bundle, Session
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.row_geometry import DataType, RowGeometry
from molkv_runtime.row_layout import LayerRows
from tests.conftest import BundleOf
from tests.native.attention_library import KERNELS, AttentionLibrary

OPERATOR = "ExpertAttention"
TYPES = {"int8": DataType.INT8, "int4": DataType.INT4, "f16": DataType.FLOAT16}


@pytest.fixture(scope="session")
def attention(native_build: Path) -> AttentionLibrary:
    return AttentionLibrary(native_build / "libmolkv.so")


class Engine:
    """ONNX Runtime with the operator registered, in place of the stock one."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library = library
        self.folder = folder
        self.threads = 2
        self.sessions: list[onnxruntime.InferenceSession] = []

    def session(self, model: Any, options: Any = None, **arguments: Any) -> Any:
        options = options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.register_custom_ops_library(str(self.library))
        options.enable_profiling = True
        options.profile_file_prefix = str(self.folder / "profile")
        self.sessions.append(STOCK_SESSION(model, options, **arguments))
        return self.sessions[-1]

    def operators(self) -> list[str]:
        """Operators that the last session's nodes ran, one for each run of a node."""
        profile = json.loads(Path(self.sessions[-1].end_profiling()).read_text())
        return [
            event["args"]["op_name"]
            for event in profile
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
        ]


STOCK_SESSION = onnxruntime.InferenceSession


@pytest.fixture
def engine(native_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    engine = Engine(native_build / "onnxruntime" / "libmolkv_ort.so", tmp_path)
    monkeypatch.setattr(onnxruntime, "InferenceSession", engine.session)
    yield engine
    engine.sessions.clear()


def geometry_of(
    experts: int, heads: int, key_size: int, value_size: int, dtype: DataType
) -> RowGeometry:
    """Any sizes, also some that no blob may have; only `make_case` reads it."""
    return RowGeometry(
        layers=1,
        experts=experts,
        key_heads=heads,
        key_size=key_size if heads else 0,
        value_size=value_size,
        key_dtype=DataType.NONE,
        value_dtype=dtype,
        scale_dtype=DataType.NONE,
        key_group_size=0,
        value_group_size=0,
    )


def numpy_result(case: OpCase) -> NDArray[np.float32]:
    return expert_attention(case.query, case.rows, case.age_bias, case.start)


def difference(ours: NDArray[np.float32], case: OpCase) -> float:
    expected = numpy_result(case)
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@st.composite
def cases(draw: st.DrawFn) -> OpCase:
    """Any geometry, MoLE's among them: no key heads, one-hot keys and a window of 1."""
    mole = draw(st.booleans(), label="mole")
    heads = 1 if mole else draw(st.integers(1, 5), label="heads")
    dtype = draw(st.sampled_from(list(TYPES.values())), label="dtype")
    parts = st.integers(1, 45) if dtype is not DataType.INT4 else st.sampled_from([32, 64, 160])
    geometry = geometry_of(
        experts=draw(st.integers(1, 9), label="experts"),
        heads=0 if mole else heads,
        key_size=draw(st.integers(1, 70), label="key_size"),
        value_size=heads * draw(parts, label="part"),
        dtype=dtype,
    )
    window = 1 if mole else draw(st.integers(1, 40), label="window")
    tokens = draw(st.integers(1, 20), label="tokens")
    rows = tokens + draw(st.integers(0, 50), label="earlier rows")
    start = draw(st.integers(0, rows - tokens), label="start")
    seed = draw(st.integers(0, 2**32 - 1), label="seed")
    return make_case(geometry, window, tokens=tokens, rows=rows, start=start, seed=seed)


@settings(deadline=None, max_examples=200)
@given(case=cases())
def test_every_kernel_matches_numpy(attention: AttentionLibrary, case: OpCase) -> None:
    for kernel in attention.available():
        assert difference(attention.attend(case, kernel), case) <= OP_TOLERANCE, kernel


def test_this_processor_has_a_vector_kernel(attention: AttentionLibrary) -> None:
    assert len(attention.available()) > 1
    assert attention.name(0) == attention.available()[-1]
    assert [attention.name(kernel) for kernel in KERNELS.values()] == list(KERNELS)


@pytest.mark.parametrize("keys", ["int8", "f16"])
@pytest.mark.parametrize("values", TYPES)
def test_keys_and_values_have_types_and_scales_of_their_own(
    attention: AttentionLibrary, keys: str, values: str
) -> None:
    parts = {
        name: make_case(geometry_of(4, 2, 24, 64, TYPES[name]), 16, tokens=9, rows=24)
        for name in (keys, values)
    }
    rows = replace(
        parts[keys].rows,
        values=parts[values].rows.values,
        value_scales=parts[values].rows.value_scales,
    )
    case = replace(parts[keys], rows=rows)
    for kernel in attention.available():
        assert difference(attention.attend(case, kernel), case) <= OP_TOLERANCE, kernel


def test_a_wrong_formula_does_not_pass(attention: AttentionLibrary) -> None:
    case = make_case(geometry_of(4, 2, 24, 40, DataType.INT8), 16, tokens=3, rows=24)
    flipped = replace(case, age_bias=np.ascontiguousarray(case.age_bias[:, :, ::-1]))
    for kernel in attention.available():
        assert difference(attention.attend(flipped, kernel), case) > 100 * OP_TOLERANCE, kernel


def test_padding_up_to_an_own_row_is_refused(attention: AttentionLibrary) -> None:
    case = make_case(geometry_of(4, 2, 24, 40, DataType.INT8), 16, tokens=3, rows=24, start=22)
    with pytest.raises(ValueError, match="start is 22"):
        attention.attend(case, "scalar")


@pytest.mark.parametrize("tokens", [1, 128])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_operator_matches_numpy_and_the_stock_function(
    engine: Engine, dtype: str, threads: int, tokens: int
) -> None:
    geometry = geometry_of(4, 4, 64, 768, TYPES[dtype])
    case = make_case(geometry, 64, tokens=tokens, rows=63 + tokens)
    engine.threads = threads
    ours = run_function(case)
    assert engine.operators() == [OPERATOR]
    assert difference(ours, case) <= OP_TOLERANCE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", STOCK_SESSION)
        stock = run_function(case)
    assert np.abs(ours - stock).max() <= OP_TOLERANCE * np.abs(stock).max()


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("key_size", [5, 64])
def test_the_operator_normalises_the_query_and_adds_like_the_stock_function(
    engine: Engine, key_size: int, tokens: int
) -> None:
    geometry = geometry_of(4, 4, key_size, 48, DataType.INT8)
    case = make_case(geometry, 8, tokens=tokens, rows=7 + tokens)
    around = Surroundings.random(case)
    inside = around.inside(case)
    mixed = expert_attention(inside.query, inside.rows, inside.age_bias, inside.start)
    expected = mixed + around.added
    ours = run_function(case, around)
    assert engine.operators() == [OPERATOR]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", STOCK_SESSION)
        stock = run_function(case, around)
    for result in (ours, stock):
        assert np.abs(result - expected).max() <= OP_TOLERANCE * np.abs(expected).max()
    no_weights = replace(around, query_norm=np.ones_like(around.query_norm))
    for less in (None, no_weights, replace(around, query_norm=None)):
        assert np.abs(run_function(case, less) - expected).max() > 1000 * OP_TOLERANCE


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("query_norm has the shape", {"query_norm": np.ones(23, np.float32)}),
        ("added has the shape", {"added": np.zeros((1, 40), np.float32)}),
    ],
)
def test_the_operator_refuses_surroundings_of_other_shapes(
    engine: Engine, named: str, change: dict[str, Any]
) -> None:
    case = make_case(geometry_of(4, 2, 24, 40, DataType.INT8), 8, tokens=2, rows=10)
    around = replace(Surroundings.random(case), **change)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=named):
        run_function(case, around)
    assert len(engine.sessions) == 1


def test_the_operator_refuses_a_norm_without_epsilon(engine: Engine) -> None:
    case = make_case(geometry_of(4, 2, 24, 40, DataType.INT8), 8, tokens=2, rows=10)
    around = Surroundings.random(case)
    model = op_model(case, around)
    del model.graph.node[0].attribute[:]
    session = engine.session(model.SerializeToString())
    refused = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
    with pytest.raises(refused, match="query_norm needs the attribute epsilon"):
        session.run(None, op_feeds(case, around))


def test_the_operator_takes_moles_rows(engine: Engine) -> None:
    case = make_case(geometry_of(5, 0, 0, 48, DataType.INT8), 1, tokens=6, rows=6)
    assert difference(run_function(case), case) <= OP_TOLERANCE
    assert engine.operators() == [OPERATOR]


def int4_rows(scales: type[np.floating], *, groups: int = 2) -> LayerRows:
    rows = make_case(geometry_of(4, 2, 24, 64, DataType.INT4), 8, tokens=2, rows=10).rows
    assert rows.value_scales is not None
    return replace(rows, value_scales=rows.value_scales[:, :, :groups].astype(scales))


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("start is 9 ", {"start": 9}),
        ("age_bias has the shape", {"age_bias": np.zeros((2, 3, 8), np.float32)}),
        ("multiple of the heads of age_bias, 5", {"age_bias": np.zeros((5, 4, 8), np.float32)}),
        ("query has the shape", {"query": np.zeros((0, 2, 24), np.float32)}),
        ("value_scales has the element type", {"rows": int4_rows(np.float32)}),
        ("value_scales has the shape", {"rows": int4_rows(np.float16, groups=1)}),
    ],
)
def test_the_operators_errors_reach_python(
    engine: Engine, named: str, change: dict[str, Any]
) -> None:
    case = make_case(geometry_of(4, 2, 24, 40, DataType.INT8), 8, tokens=2, rows=10)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=named):
        run_function(replace(case, **change))
    assert len(engine.sessions) == 1


@pytest.mark.parametrize("kind", ["molkv", "mole"])
@pytest.mark.parametrize("experts", TYPES)
def test_an_exported_graph_runs_the_kernel(
    bundle_of: BundleOf,
    native_build: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    experts: str,
) -> None:
    bundle = Bundle.open(bundle_of(kind, experts))
    ids = np.random.default_rng(0).integers(0, bundle.manifest.model.vocab_size, 40)
    with Session(bundle, engine="reference", threads=1) as stock:
        expected = stock.logits(ids)
    engine = Engine(native_build / "onnxruntime" / "libmolkv_ort.so", tmp_path)
    monkeypatch.setattr(onnxruntime, "InferenceSession", engine.session)
    # This checkout's library, not the installed one, which the native engine would register.
    with Session(bundle, engine="reference", threads=1, chunk=16) as session:
        logits = session.logits(ids)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
        session.reset()
        for position, token_id in enumerate(ids.tolist()):
            step = session.step(token_id)
            np.testing.assert_allclose(step, expected[position], rtol=0, atol=1e-4)
    operators = engine.operators()
    # Three chunks and forty steps, each through every layer, and nothing of the function's body.
    assert operators.count(OPERATOR) == 43 * bundle.manifest.model.num_hidden_layers
    assert "Softmax" not in operators
