"""The experts' nodes of the ONNX graph: one in each layer, and MoLE's router as its query."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from molkv_export.backends.onnx.expert_attention_function import (
    OPERATOR,
    ExpertAttentionShape,
    expert_attention_function,
)
from molkv_export.backends.onnx.graph_builder import NAMESPACE_MOLKV, GraphBuilder
from molkv_export.expert_blob import row_geometry
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import RowLayout

__all__ = ["ExpertNodes", "expert_function"]


def expert_function(config: ModelConfig, experts: ExpertPrecision) -> onnx.FunctionProto:
    """What the nodes of a model compute, in standard operators.

    Args:
        config: of a model that has experts.
        experts: how the window's rows are stored.
    """
    quantized = experts != "f16"
    return expert_attention_function(
        ExpertAttentionShape(
            heads=config.expert_query_heads,
            key_size=config.expert_key_size if config.has_keys else config.num_experts,
            window=config.expert_window,
            has_key_scales=quantized and config.has_keys,
            has_value_scales=quantized,
            int4_values=experts == "int4",
            has_query_norm=config.has_keys,
            has_added=True,
        )
    )


class ExpertNodes:
    """Adds the experts of layers, with the window's rows as inputs of the graph.

    Args:
        graph: what is built.
        checkpoint: the trained model.
        experts: how the window's rows are stored.
    """

    def __init__(
        self, graph: GraphBuilder, checkpoint: Checkpoint, experts: ExpertPrecision
    ) -> None:
        self._graph = graph
        self._checkpoint = checkpoint
        self._config: ModelConfig = checkpoint.config
        self._experts = experts

    def add(self, number: int, x: str, query: str | None, added: str) -> str:
        """What a layer's experts mix, plus what is added to the stream anyway.

        Args:
            number: of the layer.
            x: what a router scores: [1, T, d].
            query: as projected, [1, T, G·dk]; None makes the router's scores the query.
            added: [1, T, d].

        Returns:
            [1, T, d].
        """
        config = self._config
        values, value_scales = self._plane(number, "value")
        query_norm, key_scales = "", ""
        attributes: dict[str, Any] = {}
        if query is None:
            query, keys, bias = self._router(number, x, values)
        else:
            keys, key_scales = self._plane(number, "key")
            bias = self._age_bias(number)
            query_norm = self._weight(f"model.layers.{number}.experts.query_norm.weight")
            attributes = {"epsilon": config.rms_norm_eps}
        return self._graph.node(
            OPERATOR,
            [
                *(query, keys, key_scales, values, value_scales, bias, "expert_start"),
                *(query_norm, added),
            ],
            name=f"layers.{number}.experts",
            domain=NAMESPACE_MOLKV,
            **attributes,
        )

    def _plane(self, number: int, kind: str) -> tuple[str, str]:
        """Declare a layer's window inputs: the rows, and their scales where there are any."""
        layout = RowLayout.of(row_geometry(self._config, self._experts))
        sections = {section.name: section for section in layout.layer_sections}
        rows, scales = (
            self._graph.input(
                f"expert_{name}.{number}",
                onnx.helper.np_dtype_to_tensor_dtype(sections[name].dtype),
                ["window_rows", *sections[name].shape],
            )
            if name in sections
            else ""
            for name in (f"{kind}s", f"{kind}_scales")
        )
        return rows, scales

    def _age_bias(self, number: int) -> str:
        name, config = f"model.layers.{number}.experts.age_bias", self._config
        if config.expert_scoring == "key_age":
            return self._weight(name)
        shape = (config.expert_query_heads, config.num_experts, config.expert_window)
        return self._graph.weight("no_age_bias", np.zeros(shape, np.float32))

    def _router(self, number: int, x: str, values: str) -> tuple[str, str, str]:
        """MoLE as the same op: one-hot keys and a window of one make the score the router's."""
        graph, count = self._graph, self._config.num_experts
        name = f"layers.{number}.experts"
        weight = self._array(f"model.layers.{number}.experts.router.weight")
        # The op divides by sqrt(dk), and one-hot keys have dk = N.
        scaled = graph.weight(f"layers.{number}.router", (weight * np.float32(count**0.5)).T)
        query = graph.node("MatMul", [x, scaled], name=f"{name}.router")
        dtype = np.float16 if self._experts == "f16" else np.int8
        one_hot = graph.weight("one_hot_keys", np.eye(count, dtype=dtype)[None])
        rows = graph.node("Shape", [values], name=f"{name}.rows", start=0, end=1)
        ends = graph.weight("one_hot_shape", np.array([count, count], np.int64))
        target = graph.node("Concat", [rows, ends], name=f"{name}.keys_shape", axis=0)
        keys = graph.node("Expand", [one_hot, target], name=f"{name}.keys")
        return query, keys, graph.weight("no_age_bias", np.zeros((1, count, 1), np.float32))

    def _weight(self, name: str) -> str:
        return self._graph.weight(name, self._array(name))

    def _array(self, name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._checkpoint.tensor(name).numpy()
        return array
