"""``ai.molkv::ExpertAttention`` as a model-local function of standard operators.

A stock ONNX Runtime runs the function; one with molkv's kernel registered runs the kernel instead.
docs/graph.md specifies the op; `molkv_export.expert_attention` is its reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from molkv_export.backends.onnx.graph_builder import NAMESPACE_MOLKV, OPSET
from molkv_runtime.row_geometry import INT4_GROUP

__all__ = ["OPERATOR", "ExpertAttentionShape", "expert_attention_function"]

OPERATOR = "ExpertAttention"
INPUTS = (
    *("query", "keys", "key_scales", "values", "value_scales", "age_bias", "start"),
    *("query_norm", "added"),
)


@dataclass(frozen=True)
class ExpertAttentionShape:
    """What one model's function is specialised for.

    Attributes:
        heads: G.
        key_size: dk.
        window: W.
        has_key_scales: whether keys are quantized.
        has_value_scales: whether values are quantized.
        int4_values: whether values are packed, two elements a byte.
        has_query_norm: whether the query is normalised by the op.
        has_added: whether the op adds something to its output.
    """

    heads: int
    key_size: int
    window: int
    has_key_scales: bool
    has_value_scales: bool
    int4_values: bool = False
    has_query_norm: bool = False
    has_added: bool = False


def expert_attention_function(shape: ExpertAttentionShape) -> onnx.FunctionProto:
    """The op's decomposition.

    The scales are applied to scores and weights, not to the rows: that is N numbers a row, where
    dequantizing the rows would write N·d. Int4 values have too many scales for that.
    """
    body = _Body()
    tokens = body.dimension("query", 1)
    rows = body.dimension("keys", 0)

    query = body.add("Reshape", ["query", body.integers([-1, shape.heads, shape.key_size])])
    if shape.has_query_norm:
        query = body.norm(query, "query_norm")
    query = body.add("Transpose", [query], perm=[1, 0, 2])  # [G, T, dk]
    query = body.add("Mul", [query, body.number(1 / math.sqrt(shape.key_size))])
    keys = body.add("Cast", ["keys"], to=TensorProto.FLOAT)
    keys = body.add("Reshape", [keys, body.integers([0, 0, shape.heads, -1])])
    keys = body.add("Transpose", [keys], perm=[2, 3, 1, 0])  # [G, dk, N, S]
    experts_by_rows = body.add("Shape", [keys], start=2, end=4)
    keys = body.add("Reshape", [keys, body.integers([0, 0, -1])])
    scores = body.add("MatMul", [query, keys])  # [G, T, N·S]
    split = body.add("Concat", [body.integers([0, 0]), experts_by_rows], axis=0)
    scores = body.add("Reshape", [scores, split])  # [G, T, N, S]
    if shape.has_key_scales:
        scales = body.add("Transpose", ["key_scales"], perm=[1, 0])
        scores = body.add("Mul", [scores, scales])

    age, attended = _ages(body, tokens, rows, shape.window)
    bias = body.add("Gather", ["age_bias", age], axis=2)  # [G, N, T, S]
    bias = body.add("Transpose", [bias], perm=[0, 2, 1, 3])
    scores = body.add("Add", [scores, bias])
    scores = body.add("Where", [attended, scores, body.number(-math.inf)])
    flat = body.add("Reshape", [scores, body.integers([0, 0, -1])])
    weights = body.add("Softmax", [flat], axis=-1)  # [G, T, N·S]
    if shape.has_value_scales and not shape.int4_values:
        weights = body.add("Reshape", [weights, split])
        scales = body.add("Transpose", ["value_scales"], perm=[1, 0])
        weights = body.add("Mul", [weights, scales])
        weights = body.add("Reshape", [weights, body.integers([0, 0, -1])])

    values = _unpacked(body) if shape.int4_values else "values"
    values = body.add("Cast", [values], to=TensorProto.FLOAT)
    values = body.add("Reshape", [values, body.integers([0, 0, shape.heads, -1])])
    values = body.add("Transpose", [values], perm=[2, 3, 1, 0])  # [G, d/G, N, S]
    values = body.add("Reshape", [values, body.integers([0, 0, -1])])
    weights = body.add("Transpose", [weights], perm=[0, 2, 1])
    mixed = body.add("MatMul", [values, weights])  # [G, d/G, T]
    mixed = body.add("Transpose", [mixed], perm=[2, 0, 1])
    mixed = body.add("Reshape", [mixed, body.integers([0, -1])])
    added = ["added"] if shape.has_added else []
    mixed = body.add("Unsqueeze", [mixed, body.integers([0])], output="" if added else "output")
    if added:
        body.add("Add", [mixed, *added], output="output")
    return helper.make_function(
        NAMESPACE_MOLKV,
        OPERATOR,
        list(INPUTS),
        ["output"],
        body.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=["epsilon"] if shape.has_query_norm else [],
    )


def _unpacked(body: _Body) -> str:
    """Packed int4 values as float32 [S, N, d/32, 32], scaled. The low four bits come first."""
    four, low_bits, sign = (body.byte(value) for value in (4, 15, 8))
    low = body.add("BitwiseAnd", ["values", low_bits])
    high = body.add("BitShift", ["values", four], direction="RIGHT")
    last = body.integers([-1])
    halves = [body.add("Unsqueeze", [half, last]) for half in (low, high)]
    bits = body.add("Concat", halves, axis=-1)
    # With the sign bit flipped, two's complement is 8 more than the number.
    raised = body.add("Cast", [body.add("BitwiseXor", [bits, sign])], to=TensorProto.FLOAT)
    elements = body.add("Sub", [raised, body.number(8)])
    groups = body.add("Reshape", [elements, body.integers([0, 0, -1, INT4_GROUP])])
    scales = body.add("Cast", ["value_scales"], to=TensorProto.FLOAT)
    return body.add("Mul", [groups, body.add("Unsqueeze", [scales, last])])


def _ages(body: _Body, tokens: str, rows: str, window: int) -> tuple[str, str]:
    """Each pair's age clamped into the window [T, S], and whether it is attended [T, 1, S]."""
    zero, one = body.integer(0), body.integer(1)
    row = body.add("Range", [zero, rows, one])
    own = body.add("Range", [body.add("Sub", [rows, tokens]), rows, one])
    own = body.add("Unsqueeze", [own, body.integers([1])])
    age = body.add("Sub", [own, row])
    clamped = body.add("Clip", [age, zero, body.integer(window - 1)])
    inside = body.add("Equal", [age, clamped])
    real = body.add("GreaterOrEqual", [row, "start"])
    attended = body.add("And", [inside, real])
    return clamped, body.add("Unsqueeze", [attended, body.integers([1])])


class _Body:
    """Nodes of a function, with values named in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def norm(self, value: str, weight: str) -> str:
        """RMSNorm of the last axis, with the function's own epsilon."""
        normalized = self.add("RMSNormalization", [value, weight], axis=-1)
        epsilon = self.nodes[-1].attribute.add(name="epsilon", ref_attr_name="epsilon")
        epsilon.type = onnx.AttributeProto.FLOAT
        return normalized

    def dimension(self, value: str, axis: int) -> str:
        shape = self.add("Shape", [value], start=axis, end=axis + 1)
        return self.add("Squeeze", [shape])

    def number(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def byte(self, value: int) -> str:
        return self._constant(np.array(value, np.uint8))

    def integer(self, value: int) -> str:
        return self._constant(np.array(value, np.int64))

    def integers(self, values: list[int]) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        return self.add("Constant", [], value=numpy_helper.from_array(array))
