"""What scales the self-attention cache needs: its range, measured on the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer

from molkv_export.cache_scales import LARGEST, CacheScales
from molkv_export.golden import golden_prompts
from molkv_export.reference import ReferenceSession
from molkv_model.config import ModelConfig
from molkv_runtime.random_generator import SplitMix64

__all__ = ["calibrate"]

_RANDOM_TOKENS = 512


def calibrate(
    config: ModelConfig, tokenizer: Tokenizer | None, reference: ReferenceSession
) -> CacheScales:
    """Scales that hold every key and value of the golden prompts and of random ids.

    The range is the weights' more than the text's: docs/graph.md has the measurement.

    Args:
        config: the model.
        tokenizer: the bundle's, if it has one.
        reference: a session of the model; it is reset.
    """
    keys = values = np.zeros(config.num_hidden_layers, np.float32)
    for token_ids in _sequences(config, tokenizer):
        reference.reset()
        reference.run(token_ids)
        largest = [np.abs(plane).max(axis=(1, 2, 3)) for plane in reference.cache()]
        keys, values = np.maximum(keys, largest[0]), np.maximum(values, largest[1])
    reference.reset()
    # A layer of zeros needs a scale too.
    smallest = np.finfo(np.float32).tiny
    keys, values = (np.maximum(plane / LARGEST, smallest) for plane in (keys, values))
    return CacheScales(keys.astype(np.float32), values.astype(np.float32))


def _sequences(config: ModelConfig, tokenizer: Tokenizer | None) -> Iterator[list[int]]:
    yield from (ids for _, _, ids in golden_prompts(config, tokenizer))
    generator = SplitMix64(1)
    count = min(config.max_position_embeddings, _RANDOM_TOKENS)
    yield [generator.next_u64() % config.vocab_size for _ in range(count)]
