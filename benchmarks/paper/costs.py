"""What a model costs on a phone: bytes read for a token, multiply-adds of a step, parameters.

All are counted for one decode step with a full window, embedding look-up excluded.
"""

from __future__ import annotations

import torch

from molkv_export.dense_graph import is_expert_table_tensor
from molkv_export.expert_blob import row_geometry
from molkv_model.config import ModelConfig
from molkv_model.modeling import LanguageModel
from molkv_runtime.row_layout import RowLayout

__all__ = [
    "activated_parameters",
    "bytes_per_token",
    "multiply_adds",
    "stored_values",
    "trained_parameters",
]


def stored_values(config: ModelConfig) -> int:
    """Numbers in the table's row of one token: the keys and values of all layers."""
    keys = config.expert_query_heads * config.expert_key_size
    return config.num_hidden_layers * config.num_experts * (keys + config.hidden_size)


def bytes_per_token(config: ModelConfig) -> int:
    """Of the int8 row that a step reads: scales, checksum and padding included; 0 if dense."""
    return RowLayout.of(row_geometry(config, "int8")).row_stride if config.has_experts else 0


def trained_parameters(config: ModelConfig) -> int:
    """Of the model in training, where experts are networks."""
    return sum(_sizes(config).values())


def activated_parameters(config: ModelConfig) -> int:
    """Weights that a step computes with: the dense graph without table and input embedding.

    A tied head counts once, as head.
    """
    sizes = _sizes(config)
    dense = sum(size for name, size in sizes.items() if not is_expert_table_tensor(name))
    untied = 0 if config.tie_word_embeddings else sizes["model.embed_tokens.weight"]
    return dense - untied


def multiply_adds(config: ModelConfig) -> int:
    """Of a decode step, self-attention over its context left out: it is the same for all."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads + config.num_key_value_heads
    attention = 2 * hidden * config.head_dim * heads
    matrices = 3 if config.feed_forward == "swiglu" else 2
    layer = attention + matrices * hidden * config.intermediate_size
    if config.has_keys:
        keys = config.expert_query_heads * config.expert_key_size
        layer += hidden * keys + config.expert_window * config.num_experts * (keys + hidden)
        if config.expert_scoring == "router_and_past":
            layer += hidden * (config.num_experts + config.expert_query_heads)
            layer += config.num_experts * hidden
    elif config.has_experts:
        layer += 2 * hidden * config.num_experts
    return layers * layer + hidden * config.vocab_size


def _sizes(config: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        tensors = LanguageModel(config).state_dict()
    return {name: value.numel() for name, value in tensors.items()}
