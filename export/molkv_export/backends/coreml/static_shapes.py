"""The shapes that a Core ML program is compiled for, padded to what the Neural Engine takes."""

from __future__ import annotations

from dataclasses import dataclass

from molkv_model.config import ModelConfig

__all__ = ["MULTIPLE", "StaticShapes", "padded"]

MULTIPLE = 32
"""The last two dimensions of a state must be multiples of it, or the Neural Engine fails
(coremltools issue 2631); a block of int4 weights is as long."""
_CHUNK = 64


def padded(size: int) -> int:
    """The next multiple of `MULTIPLE`."""
    return -(-size // MULTIPLE) * MULTIPLE


@dataclass(frozen=True)
class StaticShapes:
    """Every size that is fixed at export.

    Padding is exact: padded weights are zero, padded rows are masked, so no logit depends on it.

    Attributes:
        chunk: tokens of one prefill step.
        cache_tokens: positions of the self-attention cache; at least the context.
        window_rows: slots of the expert window's ring; at least W. 0 where nothing is kept.
        head_size: width of a self-attention head.
        key_size: width of an expert's key for one head; 0 without keys.
        value_size: width of the part of an expert's value that one head mixes; 0 without keys.
        intermediate_size: hidden width of the shared feed-forward network.
    """

    chunk: int
    cache_tokens: int
    window_rows: int
    head_size: int
    key_size: int
    value_size: int
    intermediate_size: int

    @classmethod
    def of(cls, config: ModelConfig, chunk: int | None = None) -> StaticShapes:
        """The shapes for a model.

        Args:
            config: the model.
            chunk: tokens of one prefill step, at least 2; None is 64, or the padded context if that
                is less.
        """
        cache_tokens = padded(config.max_position_embeddings)
        return cls(
            chunk=max(2, min(chunk or _CHUNK, cache_tokens)),
            cache_tokens=cache_tokens,
            window_rows=padded(config.expert_window) if config.has_keys else 0,
            head_size=padded(config.head_dim),
            key_size=padded(config.expert_key_size),
            value_size=padded(config.hidden_size // config.expert_query_heads)
            if config.has_keys
            else 0,
            intermediate_size=padded(config.intermediate_size),
        )
