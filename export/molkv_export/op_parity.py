"""Rung 3: one op, several implementations, and a wrong formula that must not pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from molkv_export.backends.onnx.op_model import Surroundings, run_function, run_operator
from molkv_export.backends.quiet import quiet_libraries
from molkv_export.expert_attention import reference_expert_attention
from molkv_runtime.bundle import Bundle
from molkv_runtime.expert_attention import expert_attention as numpy_expert_attention
from molkv_runtime.native import NativeAttention
from molkv_runtime.native.structures import Kernel
from molkv_runtime.row_geometry import INT4_GROUP, DataType, RowGeometry
from molkv_runtime.row_layout import LayerRows

__all__ = [
    "OP_TOLERANCE",
    "WRONG_FORMULA_DIFFERENCE",
    "OpCase",
    "OpParity",
    "backend_kernels",
    "compare_implementations",
    "graph_nodes",
    "make_case",
    "op_parity",
]

# Relative to the largest output; float32 sums in another order measure 1e-6.
OP_TOLERANCE = 1e-5
# What a wrong formula differs by at least: a thousand times more than a right one may.
WRONG_FORMULA_DIFFERENCE = 1e-2


@dataclass(frozen=True)
class OpCase:
    """Inputs of the op, as `molkv_runtime.expert_attention` takes them."""

    query: NDArray[np.float32]
    rows: LayerRows
    age_bias: NDArray[np.float32]
    start: int

    @property
    def value_size(self) -> int:
        """Elements of a value, d."""
        packed = 2 if self.rows.values.dtype == np.uint8 else 1
        return packed * int(self.rows.values.shape[2])

    @property
    def feeds(self) -> dict[str, NDArray[Any] | None]:
        """The op's inputs by name."""
        return {
            "query": self.query,
            "keys": self.rows.keys,
            "key_scales": self.rows.key_scales,
            "values": self.rows.values,
            "value_scales": self.rows.value_scales,
            "age_bias": self.age_bias,
            "start": np.array([self.start]),
        }

    @property
    def given(self) -> dict[str, NDArray[Any]]:
        """The inputs that the case has."""
        return {name: value for name, value in self.feeds.items() if value is not None}


Implementation = Callable[[OpCase], "NDArray[np.float32]"]
GraphNode = Callable[[OpCase, Surroundings], "NDArray[np.float32]"]


@dataclass(frozen=True)
class OpParity:
    """One comparison; `must_differ` marks the negative control.

    Attributes:
        name: what was compared.
        difference: the largest, relative to the largest output.
        must_differ: whether the difference must be large rather than small.
        detail: its unit, and over what.
    """

    name: str
    difference: float
    must_differ: bool = False
    detail: str = "relative"


def make_case(
    geometry: RowGeometry, window: int, *, tokens: int, rows: int, start: int = 0, seed: int = 0
) -> OpCase:
    """Random inputs of a geometry; MoLE gets its one-hot keys."""
    random = np.random.default_rng(seed)
    heads, key_size = geometry.key_heads or 1, geometry.key_size or geometry.experts
    count = geometry.experts
    quantized = geometry.value_dtype is not DataType.FLOAT16

    def vectors(width: int) -> NDArray[Any]:
        if quantized:
            return random.integers(-127, 128, (rows, count, width), dtype=np.int8)
        return random.standard_normal((rows, count, width)).astype(np.float16)

    def scales() -> NDArray[np.float32] | None:
        return random.uniform(0.005, 0.02, (rows, count)).astype(np.float32) if quantized else None

    values, value_scales = vectors(geometry.value_size), scales()
    if geometry.value_dtype is DataType.INT4:
        # Every bit pattern, and scales of both signs.
        size = geometry.value_size
        values = random.integers(0, 256, (rows, count, size // 2), dtype=np.uint8)
        groups = (rows, count, size // INT4_GROUP)
        value_scales = random.uniform(-0.3, 0.3, groups).astype(np.float16)
    keys, key_scales = vectors(heads * key_size), scales()
    if geometry.key_heads == 0:
        one_hot = np.eye(count, dtype=np.int8 if quantized else np.float16)
        keys, key_scales = np.tile(one_hot, (rows, 1, 1)), None
    return OpCase(
        query=random.standard_normal((tokens, heads, key_size)).astype(np.float32),
        rows=LayerRows(keys=keys, values=values, key_scales=key_scales, value_scales=value_scales),
        age_bias=random.standard_normal((heads, count, window)).astype(np.float32),
        start=start,
    )


def op_parity(bundle: Bundle, backend: str = "onnx") -> Iterator[OpParity]:
    """Compare the implementations on inputs of the bundle's own geometry.

    Args:
        bundle: an open bundle with experts.
        backend: whose own implementations are among them.
    """
    window = bundle.manifest.model.expert_window
    return compare_implementations(
        bundle.row_geometry(), window, backend_kernels(backend), graph_nodes(backend)
    )


def backend_kernels(backend: str) -> Mapping[str, Implementation]:
    """A backend's own implementations of the op, by name."""
    if backend == "executorch":  # its libraries take seconds to import
        with quiet_libraries():
            from molkv_export.backends.executorch.op_program import run_op_program

        return {"ExecuTorch kernel": run_op_program}
    return {"operator in ONNX Runtime": run_operator, "stock ONNX Runtime": run_function}


def graph_nodes(backend: str) -> Mapping[str, GraphNode]:
    """Those of a backend's implementations that compute more than the op, by name."""
    if backend == "executorch":
        return {}
    return {"operator in ONNX Runtime": run_operator, "stock ONNX Runtime": run_function}


def compare_implementations(
    geometry: RowGeometry,
    window: int,
    kernels: Mapping[str, Implementation],
    nodes: Mapping[str, GraphNode],
) -> Iterator[OpParity]:
    """Compare the implementations on one token, on several, and on a window with padding.

    Args:
        geometry: of the rows.
        window: W.
        kernels: implementations beside torch's, NumPy's and the native core's, by name.
        nodes: implementations that also normalise the query, where experts have keys, and add to
            the output, by name.
    """
    tokens = 5
    cases = [
        make_case(geometry, window, tokens=1, rows=window),
        make_case(geometry, window, tokens=tokens, rows=window - 1 + tokens, seed=1),
        make_case(geometry, window, tokens=1, rows=window, start=window // 2, seed=2),
    ]
    references = [_numpy(case) for case in cases]

    def worst(implementation: Implementation) -> float:
        return max(
            float(np.abs(implementation(case) - expected).max() / np.abs(expected).max())
            for case, expected in zip(cases, references, strict=True)
        )

    yield OpParity("torch = NumPy", worst(_torch))
    yield _kernels(worst)
    for name, kernel in kernels.items():
        yield OpParity(f"{name} = NumPy", worst(kernel))
    for name, node in nodes.items():
        has_norm = geometry.key_heads > 0
        difference = max(_node_difference(case, node, has_norm=has_norm) for case in cases)
        kind = "norm and sum" if has_norm else "sum"
        yield OpParity(f"{name}, with {kind} = NumPy", difference)
    yield OpParity("a wrong formula differs", worst(_wrong), must_differ=True)


def _node_difference(case: OpCase, node: GraphNode, *, has_norm: bool) -> float:
    around = Surroundings.random(case, has_norm=has_norm)
    expected = _numpy(around.inside(case)) + around.added
    return float(np.abs(node(case, around) - expected).max() / np.abs(expected).max())


def _kernels(worst: Callable[[Implementation], float]) -> OpParity:
    """The worst of the native kernels that this processor has."""
    attention = NativeAttention()

    def attend(kernel: Kernel) -> Implementation:
        return lambda case: attention.attend(
            case.query, case.rows, case.age_bias, case.start, kernel=kernel
        )

    kernels = attention.kernels()
    names = ", ".join(attention.name(kernel) for kernel in kernels)
    difference = max(worst(attend(kernel)) for kernel in kernels)
    return OpParity("native kernels = NumPy", difference, detail=f"relative; {names}")


def _numpy(case: OpCase) -> NDArray[np.float32]:
    return numpy_expert_attention(case.query, case.rows, case.age_bias, case.start)


def _torch(case: OpCase) -> NDArray[np.float32]:
    def tensor(array: NDArray[Any] | None) -> Any:
        return None if array is None else torch.from_numpy(array)

    feeds = {name: tensor(array) for name, array in case.feeds.items()}
    result: NDArray[np.float32] = reference_expert_attention(**feeds).numpy()
    return result


def _wrong(case: OpCase) -> NDArray[np.float32]:
    """One mistake, which must show by `WRONG_FORMULA_DIFFERENCE` of the largest output.

    The age is counted from the wrong end. Where there is one age only (MoLE), the scale by sqrt(dk)
    is forgotten; where that changes no weight either, values are read backwards.
    """
    experts, window = case.age_bias.shape[1:]
    key_size = case.query.shape[2]
    if window > 1:
        return _numpy(replace(case, age_bias=np.ascontiguousarray(case.age_bias[:, :, ::-1])))
    if experts > 1 and key_size > 1:
        return _numpy(replace(case, query=case.query * np.float32(np.sqrt(key_size))))
    backwards = np.ascontiguousarray(case.rows.values[:, :, ::-1])
    return _numpy(replace(case, rows=replace(case.rows, values=backwards)))
