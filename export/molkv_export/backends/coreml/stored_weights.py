"""The weights that a package stores, decompressed, as tensors of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molkv_export.backends.coreml.mil_evaluator import MilFunction
from molkv_export.backends.coreml.static_shapes import StaticShapes
from molkv_model.config import ModelConfig

__all__ = ["stored_tensors"]

_Matrix = NDArray[np.float32]


def stored_tensors(config: ModelConfig, function: MilFunction) -> dict[str, Tensor]:
    """Every matrix of a function by its checkpoint name: padding removed, factors taken out.

    With these, torch computes what the package should compute, whatever compression did to them.

    Args:
        config: the model.
        function: either function of the package.
    """
    shapes = StaticShapes.of(config)
    tensors = dict(_all(config, shapes, function))
    return {name: torch.from_numpy(np.ascontiguousarray(tensors[name])) for name in tensors}


def _all(
    config: ModelConfig, shapes: StaticShapes, function: MilFunction
) -> Iterator[tuple[str, _Matrix]]:
    if "input_ids" in function.inputs or config.tie_word_embeddings:
        yield "model.embed_tokens.weight", function.constant("embed_tokens_matrix")
    if not config.tie_word_embeddings:
        yield "lm_head.weight", function.constant("lm_head_matrix")
    for layer in range(config.num_hidden_layers):
        name, prefix = f"layer_{layer}", f"model.layers.{layer}."
        yield from _self_attention(config, shapes, function, layer)
        width = config.intermediate_size
        for part in ("gate_proj", "up_proj"):
            if part == "up_proj" or config.feed_forward == "swiglu":
                matrix = function.constant(f"{name}_mlp_{part}_matrix")
                yield f"{prefix}mlp.{part}.weight", matrix[:width]
        down = function.constant(f"{name}_mlp_down_proj_matrix")
        yield f"{prefix}mlp.down_proj.weight", down[:, :width]
        if config.has_experts:
            part = "query_proj" if config.has_keys else "router"
            matrix = function.constant(f"{name}_experts_{part}_matrix")
            yield f"{prefix}experts.{part}.weight", matrix


def _self_attention(
    config: ModelConfig, shapes: StaticShapes, function: MilFunction, layer: int
) -> Iterator[tuple[str, _Matrix]]:
    name, prefix = f"layer_{layer}_self_attention", f"model.layers.{layer}.self_attn."

    def unpadded(rows: _Matrix) -> _Matrix:
        halves = rows.reshape(-1, shapes.head_size // 2, rows.shape[1])
        return halves[:, : config.head_dim // 2].reshape(-1, rows.shape[1])

    qkv = unpadded(function.constant(f"{name}_qkv_matrix"))
    queries = config.num_attention_heads * config.head_dim
    pairs = config.num_key_value_heads * config.head_dim
    query, key, value = np.split(qkv, [queries, queries + pairs])
    yield f"{prefix}q_proj.weight", query * np.float32(config.head_dim**0.5)
    yield f"{prefix}k_proj.weight", key
    yield f"{prefix}v_proj.weight", value
    output = function.constant(f"{name}_output_matrix")
    yield f"{prefix}o_proj.weight", unpadded(output.T).T
