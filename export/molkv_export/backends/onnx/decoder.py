"""The dense graph as ONNX: docs/graph.md's contract on ONNX Runtime's own operators.

Written node by node instead of traced: `GroupQueryAttention` appends to the cache in place and
rotates by itself, and the fused norms save two small nodes a layer, which a traced graph of the
same model does not get back (docs/graph.md has the figures).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from molkv_export.backends.lowered_graph import LoweredGraph, graph_properties
from molkv_export.backends.onnx.expert_nodes import ExpertNodes, expert_function
from molkv_export.backends.onnx.graph_builder import (
    NAMESPACE_MICROSOFT,
    NAMESPACE_MOLKV,
    OPSET,
    GraphBuilder,
)
from molkv_export.backends.onnx.matrices import BlockedMatrices, FloatMatrices, Matrices
from molkv_export.backends.onnx.quantization import BlockScheme
from molkv_export.cache_scales import CacheScales
from molkv_export.errors import ExportError
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_model.modeling import rotary_table
from molkv_runtime.manifest import BackendEntry, CachePrecision, DensePrecision, EmbeddingPrecision
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["MODEL_FILE", "check_model", "required_operators", "write_dense_graph"]

MODEL_FILE = "dense.onnx"
DATA_FILE = "dense.onnx.data"
_ROTARY_MULTIPLE = 16


def required_operators(config: ModelConfig) -> dict[str, int]:
    """The operator sets that a model's graph uses, with their versions."""
    operators = {"": OPSET, NAMESPACE_MICROSOFT: 1}
    return operators | {NAMESPACE_MOLKV: 1} if config.has_experts else operators


def check_model(config: ModelConfig, dense: DensePrecision) -> None:
    """Check that ONNX Runtime's operators can compute a model at a precision.

    Raises:
        ExportError: the head size is one that its attention cannot rotate, or the hidden size one
            that has no whole blocks.
    """
    if dense != "fp32":
        BlockScheme.of(config, dense)
    if config.head_dim % _ROTARY_MULTIPLE:
        raise ExportError(
            f"self-attention heads are {config.head_dim} wide "
            f"(hidden_size {config.hidden_size} / num_attention_heads "
            f"{config.num_attention_heads})",
            fix=f"the ONNX backend rotates multiples of {_ROTARY_MULTIPLE} only",
        )


def write_dense_graph(
    checkpoint: Checkpoint,
    folder: Path,
    experts: ExpertPrecision,
    identity: str,
    dense: DensePrecision = "fp32",
    cache_scales: CacheScales | None = None,
    embedding: EmbeddingPrecision | None = None,
) -> LoweredGraph:
    """Write ``dense.onnx`` and ``dense.onnx.data``.

    Args:
        checkpoint: the trained model.
        folder: an existing folder.
        experts: how the window's rows are stored.
        identity: the checkpoint's, in hexadecimal; kept in the model's metadata.
        dense: precision of the dense weights.
        cache_scales: of an int8 self-attention cache; None keeps it in float32.
        embedding: precision of the input embedding in the rows; None puts it into the graph.

    Returns:
        the files written and the operators that they need.

    Raises:
        ExportError: the head size is one that ONNX Runtime's attention cannot rotate.
    """
    config = checkpoint.config
    check_model(config, dense)
    cache: CachePrecision = "fp32" if cache_scales is None else "int8"
    metadata = graph_properties(
        config, identity=identity, experts=experts, dense=dense, cache=cache, embedding=embedding
    )
    with GraphBuilder(folder / DATA_FILE) as graph:
        _Decoder(graph, checkpoint, experts, dense, cache_scales).build(embedding)
        functions = [expert_function(config, experts)] if config.has_experts else []
        operators = required_operators(config)
        model = graph.model("molkv_dense_graph", functions, operators, metadata)
    (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(folder / MODEL_FILE))
    entry = BackendEntry(
        graph=MODEL_FILE,
        dense=dense,
        cache=cache,
        operators=operators,
        delegates=[],
        limits=None,
        compute_units=None,
    )
    return LoweredGraph([folder / MODEL_FILE, folder / DATA_FILE], entry)


class _Decoder:
    """Adds one model's nodes to a builder, top to bottom."""

    def __init__(
        self,
        graph: GraphBuilder,
        checkpoint: Checkpoint,
        experts: ExpertPrecision,
        dense: DensePrecision,
        cache_scales: CacheScales | None,
    ) -> None:
        self.graph = graph
        self.checkpoint = checkpoint
        self.config: ModelConfig = checkpoint.config
        self.experts = ExpertNodes(graph, checkpoint, experts)
        self.cache_scales = cache_scales
        self.matrices: Matrices = (
            FloatMatrices(graph)
            if dense == "fp32"
            else BlockedMatrices(graph, BlockScheme.of(self.config, dense))
        )

    def build(self, embedding: EmbeddingPrecision | None) -> None:
        graph, config = self.graph, self.config
        if embedding is None:
            tokens = graph.input("input_ids", TensorProto.INT64, [1, "tokens"])
        else:
            tokens = graph.input("embeddings", TensorProto.FLOAT, [1, "tokens", config.hidden_size])
        graph.input("position", TensorProto.INT64, [1])
        logits_index = graph.input("logits_index", TensorProto.INT64, ["logits_rows"])
        if config.has_experts:
            graph.input("expert_start", TensorProto.INT64, [1])
        self._lengths(tokens)
        cosine, sine = rotary_table(config)
        graph.weight("rotary_cosine", cosine.numpy())
        graph.weight("rotary_sine", sine.numpy())

        stream = tokens if embedding is not None else self._looked_up(tokens)
        x = self._norm(stream, "model.layers.0.input_layernorm.weight", name="layers.0.input_norm")
        for number in range(config.num_hidden_layers):
            attended = self._self_attention(number, x)
            prefix = f"layers.{number}."
            x, stream = self._add_norm(
                stream,
                attended,
                f"model.{prefix}post_attention_layernorm.weight",
                name=f"{prefix}post_attention_norm",
            )
            inner = self._inner_projections(number, x)
            added = self._feed_forward(number, inner)
            if config.has_experts:
                added = self.experts.add(number, x, inner.get("experts.query_proj"), added)
            last = number + 1 == config.num_hidden_layers
            if last:
                # Only the positions whose logits are wanted go through the final norm and head.
                stream = self._wanted(stream, logits_index, "final.residual")
                added = self._wanted(added, logits_index, "final.added")
            following = "model.norm.weight"
            if not last:
                following = f"model.layers.{number + 1}.input_layernorm.weight"
            name = "final_norm" if last else f"layers.{number + 1}.input_norm"
            x, stream = self._add_norm(stream, added, following, name=name)
        self._head(x)

    def _looked_up(self, input_ids: str) -> str:
        table = "model.embed_tokens.weight"
        load = partial(self._array, table)
        return self.matrices.lookup(table, load, input_ids, name="embed_tokens")

    def _lengths(self, tokens: str) -> None:
        """`position` and T as GroupQueryAttention wants them."""
        graph = self.graph
        length = graph.node("Shape", [tokens], name="new_tokens", start=1, end=2)
        total = graph.node("Add", ["position", length], name="total_tokens")
        total = graph.node("Cast", [total], name="total_tokens_int32", to=TensorProto.INT32)
        one = graph.weight("one_int32", np.array([1], np.int32))
        graph.node("Sub", [total, one], name="last_position")
        graph.node("Squeeze", [total], name="total_sequence_length")

    def _self_attention(self, number: int, x: str) -> str:
        graph, config = self.graph, self.config
        prefix = f"model.layers.{number}.self_attn."
        name = f"layers.{number}.self_attn"
        parts = [f"{prefix}{part}_proj.weight" for part in ("q", "k", "v")]
        qkv = self.matrices.product(
            x, f"{prefix}qkv_proj.weight", partial(self._packed, parts), name=f"{name}.qkv_proj"
        )
        heads, size = config.num_key_value_heads, config.head_dim
        cache_shape: list[int | str] = [1, heads, "cache_tokens", size]
        cache_type = TensorProto.FLOAT if self.cache_scales is None else TensorProto.INT8
        caches = []
        for kind in ("key", "value"):
            caches.append(graph.input(f"past_{kind}.{number}", cache_type, cache_shape))
            graph.output(f"present_{kind}.{number}", cache_type, cache_shape)
        scales, attributes = self._cache_scales(number)
        mixed = graph.node(
            "GroupQueryAttention",
            [
                *(qkv, "", ""),
                *caches,
                *("last_position", "total_sequence_length", "rotary_cosine", "rotary_sine"),
                *scales,
            ],
            name=f"{name}.attention",
            outputs=[f"{name}.attention", f"present_key.{number}", f"present_value.{number}"],
            domain=NAMESPACE_MICROSOFT,
            num_heads=config.num_attention_heads,
            kv_num_heads=heads,
            do_rotary=1,
            **attributes,
        )
        return self._linear(mixed, f"{prefix}o_proj.weight", name=f"{name}.o_proj")

    def _cache_scales(self, number: int) -> tuple[list[str], dict[str, Any]]:
        """The inputs and attributes that make a layer's cache int8; none make it float32."""
        scales = self.cache_scales
        if scales is None:
            return [], {}
        names = [
            self.graph.weight(f"layers.{number}.self_attn.{kind}_scale", plane[number : number + 1])
            for kind, plane in (("key", scales.keys), ("value", scales.values))
        ]
        kinds = dict.fromkeys(("k_quant_type", "v_quant_type"), "PER_TENSOR")
        # Positions, bias and sink, which are left out, come before the scales.
        return ["", "", "", *names], {**kinds, "kv_cache_bit_width": 8}

    def _inner_projections(self, number: int, x: str) -> dict[str, str]:
        """Everything that is projected from a layer's second norm, as one product.

        A small product of its own takes longer than its share of a large one.
        """
        graph, config, name = self.graph, self.config, f"layers.{number}"
        sizes = {"mlp.up_proj": config.intermediate_size}
        if config.feed_forward == "swiglu":
            sizes["mlp.gate_proj"] = config.intermediate_size
        if config.has_keys:
            sizes["experts.query_proj"] = config.expert_query_heads * config.expert_key_size
        weights = [f"model.{name}.{part}.weight" for part in sizes]
        if len(sizes) == 1:
            return {"mlp.up_proj": self._linear(x, *weights, name=f"{name}.mlp.up_proj")}
        packed = self.matrices.product(
            x,
            f"model.{name}.inner_proj.weight",
            partial(self._packed, weights),
            name=f"{name}.inner_proj",
        )
        outputs = [f"{name}.{part}" for part in sizes]
        split = graph.weight("inner_sizes", np.array(list(sizes.values()), np.int64))
        graph.node("Split", [packed, split], name=f"{name}.inner", outputs=outputs, axis=-1)
        return dict(zip(sizes, outputs, strict=True))

    def _feed_forward(self, number: int, projected: dict[str, str]) -> str:
        graph, name = self.graph, f"layers.{number}.mlp"
        up = projected["mlp.up_proj"]
        if self.config.feed_forward == "swiglu":
            gate = graph.node(
                "QuickGelu",
                [projected["mlp.gate_proj"]],
                name=f"{name}.silu",
                domain=NAMESPACE_MICROSOFT,
                alpha=1.0,
            )
            inner = graph.node("Mul", [gate, up], name=f"{name}.gated")
        else:
            inner = graph.node("Gelu", [up], name=f"{name}.gelu")
        weight = f"model.layers.{number}.mlp.down_proj.weight"
        return self._linear(inner, weight, name=f"{name}.down_proj")

    def _head(self, x: str) -> None:
        graph, config = self.graph, self.config
        name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        flat = graph.node(
            "Reshape",
            [x, graph.weight("flat", np.array([-1, config.hidden_size], np.int64))],
            name="head.rows",
        )
        logits = self.matrices.head(flat, name, partial(self._array, name), name="head")
        batch = graph.weight("axis_0", np.array([0], np.int64))
        graph.node("Unsqueeze", [logits, batch], name="logits")
        graph.output("logits", TensorProto.FLOAT, [1, "logits_rows", config.vocab_size])

    def _wanted(self, value: str, logits_index: str, name: str) -> str:
        return self.graph.node("Gather", [value, logits_index], name=name, axis=1)

    def _norm(self, x: str, weight: str, *, name: str) -> str:
        return self.graph.node(
            "RMSNormalization",
            [x, self._weight(weight)],
            name=name,
            axis=-1,
            epsilon=self.config.rms_norm_eps,
        )

    def _add_norm(self, x: str, added: str, weight: str, *, name: str) -> tuple[str, str]:
        """RMSNorm of a sum, and the sum itself."""
        outputs = [name, "", "", f"{name}.sum"]
        self.graph.node(
            "SkipSimplifiedLayerNormalization",
            [x, added, self._weight(weight)],
            name=name,
            outputs=outputs,
            domain=NAMESPACE_MICROSOFT,
            epsilon=self.config.rms_norm_eps,
        )
        return outputs[0], outputs[3]

    def _linear(self, x: str, weight: str, *, name: str) -> str:
        return self.matrices.product(x, weight, partial(self._array, weight), name=name)

    def _weight(self, name: str) -> str:
        if name in self.graph.initializers:
            return name
        return self.graph.weight(name, self._array(name))

    def _packed(self, weights: list[str]) -> NDArray[np.float32]:
        """Projections of the same input as one."""
        return np.concatenate([self._array(weight) for weight in weights])

    def _array(self, name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self.checkpoint.tensor(name).numpy()
        return array
