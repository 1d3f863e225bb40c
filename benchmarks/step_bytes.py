"""Bytes that a decode step has to read from memory, whatever runs it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx

from molkv_runtime import Bundle

__all__ = ["step_bytes"]

_PRODUCTS = ("MatMul", "MatMulNBits", "Gemm")


def step_bytes(bundle_folder: Path, context: int) -> int:
    """Weights of all matrix products, the self-attention cache, and the window's rows.

    Left out is what small vectors and single rows of tables weigh: norms, biases, the embedding.

    Args:
        bundle_folder: a bundle for ONNX Runtime.
        context: tokens in the cache.
    """
    window = Bundle.open(bundle_folder, verify_checksums=False).manifest.model.expert_window
    graph = onnx.load(bundle_folder / "dense.onnx", load_external_data=False).graph
    return sum(_weights(graph)) + sum(_states(graph, context, min(window, context)))


def _weights(graph: onnx.GraphProto) -> Iterator[int]:
    used = {name for node in graph.node if node.op_type in _PRODUCTS for name in node.input}
    for weight in graph.initializer:
        if weight.name in used:
            yield _item_bytes(weight.data_type) * math.prod(weight.dims)


def _states(graph: onnx.GraphProto, context: int, rows: int) -> Iterator[int]:
    """Of the inputs whose length grows with the text."""
    lengths = {"cache_tokens": context, "window_rows": rows}
    for state in graph.input:
        tensor = state.type.tensor_type
        sizes = [lengths.get(size.dim_param, size.dim_value) for size in tensor.shape.dim]
        if any(size.dim_param in lengths for size in tensor.shape.dim):
            yield _item_bytes(tensor.elem_type) * math.prod(sizes)


def _item_bytes(element_type: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(element_type).itemsize)
