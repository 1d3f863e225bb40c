"""How a graph stores its matrices: what looks their rows up and multiplies by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molkv_export.backends.onnx.graph_builder import NAMESPACE_MICROSOFT, GraphBuilder
from molkv_export.backends.onnx.quantization import BlockScheme

__all__ = ["BlockedMatrices", "FloatMatrices", "Matrices"]

Load = Callable[[], NDArray[np.float32]]
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy level: activations are rounded to int8, by blocks


class Matrices(Protocol):
    """Adds nodes with a matrix [outputs, inputs], which is loaded unless the graph has it."""

    def lookup(self, weight: str, load: Load, index: str, *, name: str) -> str:
        """Rows of a matrix."""
        ...

    def product(self, x: str, weight: str, load: Load, *, name: str) -> str:
        """`x` times the transposed matrix."""
        ...

    def head(self, x: str, weight: str, load: Load, *, name: str) -> str:
        """The same of two-dimensional `x`, with a matrix whose rows may be looked up as well."""
        ...


class FloatMatrices:
    """Float32; what is only multiplied by is stored transposed."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph

    def lookup(self, weight: str, load: Load, index: str, *, name: str) -> str:
        """A gather."""
        return self._graph.node("Gather", [self._rows(weight, load), index], name=name)

    def product(self, x: str, weight: str, load: Load, *, name: str) -> str:
        """A plain product."""
        return self._graph.node("MatMul", [x, self._graph.weight(weight, load().T)], name=name)

    def head(self, x: str, weight: str, load: Load, *, name: str) -> str:
        """A product with the rows as they are looked up."""
        return self._graph.node("Gemm", [x, self._rows(weight, load)], name=name, transB=1)

    def _rows(self, weight: str, load: Load) -> str:
        if weight in self._graph.initializers:
            return weight
        return self._graph.weight(weight, load())


class BlockedMatrices:
    """Blocks of int8 or int4: ``{weight}.codes`` and ``{weight}.scales``."""

    def __init__(self, graph: GraphBuilder, scheme: BlockScheme) -> None:
        self._graph = graph
        self._scheme = scheme
        self._shapes: dict[str, tuple[int, ...]] = {}

    def lookup(self, weight: str, load: Load, index: str, *, name: str) -> str:
        """A gather that dequantizes."""
        codes, scales = self._blocks(weight, load)
        outputs, inputs = self._shapes[weight]
        # The same bytes that a product takes, row by row.
        rows = self._graph.reshaped(codes, (outputs, inputs * self._scheme.bits // 8))
        return self._graph.node(
            "GatherBlockQuantized",
            [rows, index, scales],
            name=name,
            domain=NAMESPACE_MICROSOFT,
            bits=self._scheme.bits,
            block_size=self._scheme.block,
            gather_axis=0,
            quantize_axis=1,
        )

    def product(self, x: str, weight: str, load: Load, *, name: str) -> str:
        """A product of int8 activations and blocked weights."""
        blocks = self._blocks(weight, load)
        outputs, inputs = self._shapes[weight]
        return self._graph.node(
            "MatMulNBits",
            [x, *blocks],
            name=name,
            domain=NAMESPACE_MICROSOFT,
            N=outputs,
            K=inputs,
            bits=self._scheme.bits,
            block_size=self._scheme.block,
            accuracy_level=_INT8_ACTIVATIONS,
        )

    head = product

    def _blocks(self, weight: str, load: Load) -> tuple[str, str]:
        codes, scales = f"{weight}.codes", f"{weight}.scales"
        if codes not in self._graph.initializers:
            matrix = load()
            self._shapes[weight] = matrix.shape
            blocks = self._scheme.quantize(matrix)
            self._graph.weight(codes, blocks.codes)
            self._graph.weight(scales, blocks.scales)
        return codes, scales
