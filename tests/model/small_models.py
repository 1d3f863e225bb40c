"""Models small enough to check by brute force, with no weight left at a special value."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from molkv_model.config import ModelConfig
from molkv_model.modeling import LanguageModel

__all__ = ["ARCHITECTURES", "random_ids", "random_model", "small"]

ARCHITECTURES = ("dense", "mole", "molkv")

_MOLKV = ModelConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    num_experts=3,
    expert_intermediate_size=24,
    expert_key_size=6,
    expert_query_heads=4,
    expert_window=5,
)


def small(architecture: str = "molkv", **changes: Any) -> ModelConfig:
    """A config of two layers, 32 wide, with 96 token ids."""
    config = {
        "molkv": _MOLKV,
        "mole": _MOLKV.as_mole(),
        "dense": _MOLKV.without_experts(),
    }[architecture]
    return dataclasses.replace(config, **changes)


def random_model(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """Weights large enough that every part of the model moves the logits; no norm is all ones."""
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else 0.3 * noise)
    return model.eval()


def random_ids(config: ModelConfig, *shape: int, seed: int = 0) -> torch.Tensor:
    """Token ids, all of the vocabulary equally likely."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.vocab_size, shape, generator=generator)
