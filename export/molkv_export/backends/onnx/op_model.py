"""The op alone as an ONNX model, to compare it with the other implementations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from molkv_export.backends.onnx.expert_attention_function import (
    INPUTS,
    OPERATOR,
    ExpertAttentionShape,
    expert_attention_function,
)
from molkv_export.backends.onnx.graph_builder import NAMESPACE_MOLKV, OPSET
from molkv_runtime.native import operator_library
from molkv_runtime.onnx_runtime import onnxruntime

if TYPE_CHECKING:
    from molkv_export.op_parity import OpCase

__all__ = [
    "Surroundings",
    "op_feeds",
    "op_model",
    "run_function",
    "run_op_model",
    "run_operator",
]


@dataclass(frozen=True)
class Surroundings:
    """What a node of the dense graph computes beside the op: docs/graph.md, "In the ONNX file".

    Attributes:
        query_norm: float32 [dk], weights of the query's RMSNorm; None in MoLE, without one.
        added: float32 [T, d], added to the op's output.
        epsilon: of the norm.
    """

    query_norm: NDArray[np.float32] | None
    added: NDArray[np.float32]
    epsilon: float = 1e-5

    @classmethod
    def random(cls, case: OpCase, *, has_norm: bool = True, seed: int = 0) -> Surroundings:
        """Some that fit a case."""
        generator = np.random.default_rng(seed)
        tokens, _, key_size = case.query.shape
        norm = 0.5 + generator.random((key_size,), np.float32) if has_norm else None
        added = generator.standard_normal((tokens, case.value_size)).astype(np.float32)
        return cls(norm, added)

    def inside(self, case: OpCase) -> OpCase:
        """The case that the op itself gets: its query normalised."""
        if self.query_norm is None:
            return case
        query = case.query.astype(np.float64)
        squares = np.square(query).mean(axis=-1, keepdims=True)
        normalized: NDArray[np.float64] = query / np.sqrt(squares + self.epsilon) * self.query_norm
        return replace(case, query=normalized.astype(np.float32))


def op_model(case: OpCase, around: Surroundings | None = None) -> onnx.ModelProto:
    """An ONNX model of one node, the op, with the shapes of a case and the op's function."""
    feeds = op_feeds(case, around)
    heads, key_size = case.query.shape[1:]
    shape = ExpertAttentionShape(
        heads=heads,
        key_size=key_size,
        window=case.age_bias.shape[2],
        has_key_scales=case.rows.key_scales is not None,
        has_value_scales=case.rows.value_scales is not None,
        int4_values=case.rows.values.dtype == np.uint8,
        has_query_norm="query_norm" in feeds,
        has_added="added" in feeds,
    )
    attributes: dict[str, Any] = {}
    if around is not None and around.query_norm is not None:
        attributes["epsilon"] = around.epsilon
    node = helper.make_node(
        OPERATOR,
        [name if name in feeds else "" for name in INPUTS],
        ["output"],
        domain=NAMESPACE_MOLKV,
        **attributes,
    )
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    shape_out = [1, len(case.query), case.value_size]
    output = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, shape_out)
    operators = [helper.make_opsetid("", OPSET), helper.make_opsetid(NAMESPACE_MOLKV, 1)]
    return helper.make_model(
        helper.make_graph([node], "expert_attention", inputs, [output]),
        functions=[expert_attention_function(shape)],
        opset_imports=operators,
        ir_version=helper.find_min_ir_version_for(operators, ignore_unknown=True),
    )


def run_op_model(
    case: OpCase, around: Surroundings | None = None, options: Any = None
) -> NDArray[np.float32]:
    """Run `op_model` on ONNX Runtime.

    Args:
        case: the inputs.
        around: what the node computes beside the op.
        options: `onnxruntime.SessionOptions`, perhaps with a library of kernels registered; None
            is a stock ONNX Runtime, which runs the op's function.

    Returns:
        float32 [T, d].
    """
    session = onnxruntime.InferenceSession(
        op_model(case, around).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: NDArray[np.float32] = session.run(None, op_feeds(case, around))[0][0]
    return result


def run_operator(case: OpCase, around: Surroundings | None = None) -> NDArray[np.float32]:
    """Run the native operator on ONNX Runtime: float32 [T, d]."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(operator_library()))
    return run_op_model(case, around, options)


def run_function(case: OpCase, around: Surroundings | None = None) -> NDArray[np.float32]:
    """Run the op's ONNX function on a stock ONNX Runtime; float32 [T, d]."""
    return run_op_model(case, around)


def op_feeds(case: OpCase, around: Surroundings | None = None) -> dict[str, NDArray[Any]]:
    """Inputs as the dense graph has them: a batch of one, a query's heads side by side."""
    tokens, heads, key_size = case.query.shape
    feeds = case.given | {"query": case.query.reshape(1, tokens, heads * key_size)}
    if around is not None:
        feeds["added"] = around.added[None]
        if around.query_norm is not None:
            feeds["query_norm"] = around.query_norm
    return feeds
